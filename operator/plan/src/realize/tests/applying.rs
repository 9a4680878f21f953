//! What is applied, in which order, and what comes before it.

use super::*;

#[test]
fn everything_is_applied_once_and_then_nothing_more() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    assert_eq!(bed.carry_out(), 2);
    let realized = bed.realize();
    assert_eq!(realized.actions, []);
    assert_eq!(realized.report.state, ReportState::Healthy);
}

#[test]
fn kinds_are_applied_in_their_order_services_before_deployments() {
    let bed = Bed::new(&[deployment("web"), service("web")]);
    let realized = bed.realize();
    let kinds: Vec<Kind> = applies(&realized).iter().map(|a| a.key.kind).collect();
    assert_eq!(kinds, [Kind::Service, Kind::Deployment]);
}

#[test]
fn the_first_apply_takes_no_field_from_anybody() {
    let mut bed = Bed::new(&[deployment("web")]);
    assert!(!applies(&bed.realize())[0].force);
    bed.carry_out();
    bed.entry.stages[0].replicas = Some(5);
    assert!(applies(&bed.realize())[0].force);
}

#[test]
fn content_is_fetched_before_anything_is_done() {
    let bed = Bed::new(&[deployment("web")]);
    let realized = realize(
        &bed.entry,
        ContentState::Unknown,
        bed.management,
        &bed.observed,
        NOW,
    );
    assert_eq!(
        realized.actions,
        [Action::Fetch {
            pack: "c-1".into(),
            hash: bed.entry.content.clone()
        }]
    );
}

#[test]
fn missing_content_is_reported_and_what_runs_is_kept() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    let realized = realize(
        &bed.entry,
        ContentState::Missing("gone"),
        bed.management,
        &bed.observed,
        NOW,
    );
    assert_eq!(realized.actions, []);
    assert_eq!(realized.report.reason, Some(Reason::ContentMissing));
    assert!(
        realized.report.content.is_some(),
        "the report says that something still runs"
    );
}

#[test]
fn the_namespace_comes_first_and_a_foreign_one_is_left_alone() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.observed.namespaces.clear();
    let create = |exists| Action::CreateNamespace {
        name: "health".into(),
        exists,
    };
    assert_eq!(bed.realize().actions, [create(false)]);
    bed.observed
        .namespaces
        .insert("health".into(), Namespace::Unbound);
    assert_eq!(bed.realize().actions, [create(true)]);
    bed.observed
        .namespaces
        .insert("health".into(), Namespace::Foreign);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.reason),
        (0, Some(Reason::NotManaged))
    );
    bed.observed
        .namespaces
        .insert("health".into(), Namespace::Terminating);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Progressing)
    );
}

#[test]
fn the_tenants_right_is_asked_once_per_kind_and_a_no_is_final_for_it_alone() {
    let mut bed = Bed::new(&[deployment("a"), deployment("b"), service("a")]);
    bed.observed
        .access
        .remove(&("health".into(), Kind::Deployment));
    let realized = bed.realize();
    let asks = realized
        .actions
        .iter()
        .filter(|a| matches!(a, Action::Ask(..)))
        .count();
    assert_eq!((asks, applies(&realized).len()), (1, 1));
    bed.observed
        .access
        .insert(("health".into(), Kind::Deployment), Access::Denied);
    let realized = bed.realize();
    assert_eq!(realized.report.reason, Some(Reason::Forbidden));
    assert_eq!(
        applies(&realized).len(),
        1,
        "the Service is applied all the same"
    );
}

#[test]
fn a_kind_the_cluster_does_not_know_stops_only_itself() {
    let mut bed = Bed::new(&[deployment("web"), autoscaler("other")]);
    bed.observed.kinds.remove(&Kind::HorizontalPodAutoscaler);
    let realized = bed.realize();
    assert_eq!(realized.report.reason, Some(Reason::CRDMissing));
    assert_eq!(applies(&realized).len(), 1);
}

#[test]
fn a_kind_that_is_not_listed_yet_is_waited_for() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.observed.kinds.remove(&Kind::Deployment);
    bed.observed.listing.insert(Kind::Deployment);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Progressing)
    );
}

#[test]
fn the_clock_goes_through_the_stages() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.entry.stages.push(Stage {
        not_before: Some(Timestamp::from_millis(NOW + 5_000)),
        replicas: Some(8),
        hpa: None,
    });
    let replicas = |realized: &Realized| applies(realized)[0].body["spec"]["replicas"].clone();
    let before = bed.realize();
    assert_eq!(
        (replicas(&before), before.wake_at),
        (json!(3), Some(NOW + 5_000))
    );
    assert_eq!(replicas(&bed.realize_at(NOW + 5_000)), json!(8));
}

#[test]
fn an_autoscaler_takes_the_replicas_over_without_a_moment_unowned() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.content.manifests.push(autoscaler("web"));
    let realized = bed.realize();
    let web = applies(&realized)
        .into_iter()
        .find(|a| a.key.kind == Kind::Deployment)
        .unwrap();
    assert_eq!(web.hand_over, Some(3), "co-owned before it is let go");
    assert_eq!(web.body.pointer("/spec/replicas"), None);
}

#[test]
fn an_autoscaler_gets_this_clusters_bounds() {
    let mut bed = Bed::new(&[deployment("web"), autoscaler("web")]);
    bed.entry.stages = vec![Stage {
        hpa: Some(HpaBounds { min: 2, max: 6 }),
        ..Stage::default()
    }];
    let realized = bed.realize();
    let hpa = applies(&realized)
        .into_iter()
        .find(|a| a.key.kind == Kind::HorizontalPodAutoscaler)
        .unwrap();
    assert_eq!(
        (
            &hpa.body["spec"]["minReplicas"],
            &hpa.body["spec"]["maxReplicas"]
        ),
        (&json!(2), &json!(6))
    );
}

#[test]
fn what_the_server_refused_is_tried_again_later_or_when_it_changed() {
    let mut bed = Bed::new(&[deployment("web")]);
    let hash = applies(&bed.realize())[0].hash.clone();
    let refused = Refused {
        hash,
        reason: Reason::Rejected,
        message: "spec.x: must be y".into(),
        retry_at: NOW + 900,
    };
    bed.observed
        .refused
        .insert(key(Kind::Deployment, "web"), refused);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.wake_at),
        (0, Some(NOW + 900))
    );
    assert_eq!(
        realized.report.message.as_deref(),
        Some("spec.x: must be y")
    );
    let again = bed.realize_at(NOW + 900);
    assert_eq!(applies(&again).len(), 1);
    assert_eq!(
        again.report, realized.report,
        "until the next answer the last one holds"
    );
    bed.entry.stages[0].replicas = Some(4);
    assert_eq!(
        applies(&bed.realize()).len(),
        1,
        "a change is tried at once"
    );
}

#[test]
fn a_busy_server_is_no_fault_of_the_app() {
    let mut bed = Bed::new(&[deployment("web")]);
    let hash = applies(&bed.realize())[0].hash.clone();
    let refused = Refused {
        hash,
        reason: Reason::InProgress,
        message: "timeout".into(),
        retry_at: NOW + 900,
    };
    bed.observed
        .refused
        .insert(key(Kind::Deployment, "web"), refused);
    assert_eq!(bed.realize().report.state, ReportState::Progressing);
}

#[test]
fn under_a_new_identity_the_rights_come_before_a_removal() {
    let mut bed = Bed::new(&[service("web")]);
    bed.carry_out();
    let bind = [Action::CreateNamespace {
        name: "health".into(),
        exists: true,
    }];
    for state in [EntryState::Removed, EntryState::Released] {
        bed.entry.state = state;
        bed.observed
            .namespaces
            .insert("health".into(), Namespace::Unbound);
        let realized = bed.realize();
        assert_eq!(realized.actions, bind);
        assert_eq!(realized.report.state, ReportState::Removing);
        bed.observed
            .namespaces
            .insert("health".into(), Namespace::Ready);
        assert_ne!(bed.realize().actions, bind);
    }
}
