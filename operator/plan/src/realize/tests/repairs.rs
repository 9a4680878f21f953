//! What somebody changed: put back, fought over, or left alone.

use super::*;

#[test]
fn what_somebody_changed_is_put_back() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    let web = key(Kind::Deployment, "web");
    bed.change(&web, |seen| seen.stamp = Stamp::Generation(7));
    assert!(applies(&bed.realize())[0].repair);
    bed.observed.lose(&web);
    assert_eq!(applies(&bed.realize()).len(), 1);
}

#[test]
fn after_five_repairs_in_ten_minutes_the_agent_stops_and_says_so() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    let web = key(Kind::Deployment, "web");
    for at in 0..5 {
        bed.observed
            .settled
            .get_mut(&web)
            .unwrap()
            .repaired(NOW + at);
    }
    bed.change(&web, |seen| seen.stamp = Stamp::Generation(9));
    let realized = bed.realize_at(NOW + 10);
    assert_eq!(
        (realized.actions.len(), realized.report.reason),
        (0, Some(Reason::Conflict))
    );
    assert_eq!(realized.wake_at, Some(NOW + FIGHT_WINDOW));
    assert_eq!(
        applies(&bed.realize_at(NOW + FIGHT_WINDOW + 5)).len(),
        1,
        "later it tries again"
    );
}

#[test]
fn new_content_is_applied_also_in_the_middle_of_a_fight() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    for at in 0..5 {
        bed.observed
            .settled
            .get_mut(&key(Kind::Deployment, "web"))
            .unwrap()
            .repaired(NOW + at);
    }
    bed.entry.stages[0].replicas = Some(9);
    assert_eq!(applies(&bed.realize()).len(), 1);
}

/// Somebody scales a Deployment by hand and asks for it to be left alone.
fn scale_by_hand(bed: &mut Bed, replicas: i32) {
    bed.change(&key(Kind::Deployment, "web"), |seen| {
        seen.stamp = Stamp::Generation(5);
        seen.replicas = Some(replicas);
        seen.resource_version = "15".into();
        seen.hold_until = Some(NOW + 500);
    });
}

#[test]
fn held_replicas_are_left_alone_until_their_time() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    scale_by_hand(&mut bed, 7);
    let realized = bed.realize();
    let kept = applies(&realized)[0];
    assert_eq!(kept.body["spec"]["replicas"], json!(7));
    assert_eq!(kept.resource_version.as_deref(), Some("15"));
    assert_eq!(realized.wake_at, Some(NOW + 500));
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| {
        seen.hold_until = Some(NOW + 500);
    });
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.wake_at),
        (0, Some(NOW + 500)),
        "what is held as wanted is not written again"
    );
    let after = bed.realize_at(NOW + 500);
    assert_eq!(applies(&after)[0].body["spec"]["replicas"], json!(3));
}

#[test]
fn what_was_decided_before_somebody_held_the_replicas_does_not_come_after() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    let versions = |bed: &Bed| -> Vec<Option<Box<str>>> {
        let realized = bed.realize();
        let applies = applies(&realized);
        applies.iter().map(|a| a.resource_version.clone()).collect()
    };
    assert_eq!(
        versions(&bed),
        [None, None],
        "there is nothing to overwrite"
    );
    bed.carry_out();
    bed.content.manifests.iter_mut().for_each(|manifest| {
        manifest["metadata"]["annotations"] = json!({"note": "new"});
    });
    // Nobody scales a Service, and its version changes with every status.
    assert_eq!(versions(&bed), [None, Some("11".into())]);
}

#[test]
fn new_content_reaches_an_object_whose_replicas_are_held() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    scale_by_hand(&mut bed, 7);
    bed.content.manifests[0]["spec"]["template"]["spec"]["containers"][0]["image"] =
        json!("registry.example/web:2");
    let realized = bed.realize();
    let kept = applies(&realized)[0];
    let image = "/spec/template/spec/containers/0/image";
    assert_eq!(
        (kept.body.pointer(image), &kept.body["spec"]["replicas"]),
        (Some(&json!("registry.example/web:2")), &json!(7))
    );
    assert_eq!(realized.report.state, ReportState::Progressing);
}

#[test]
fn a_cluster_that_was_restored_is_believed_as_it_is_now() {
    let mut bed = Bed::new(&[service("web")]);
    bed.carry_out();
    let web = key(Kind::Service, "web");
    let mut older = bed.observed.objects[&web].clone();
    older.resource_version = "3".into();
    older.stamp = Stamp::Generation(7);
    assert!(
        bed.observed.see(web.clone(), older.clone()).is_empty(),
        "a late echo"
    );
    bed.observed
        .list(Kind::Service, [(web.clone(), older.clone())]);
    assert_eq!(bed.observed.objects[&web], older);
    assert_eq!(bed.carry_out(), 1, "it is put back");
}
