//! Whose an object is.

use super::*;

#[test]
fn an_unmanaged_object_is_not_taken_over_unless_the_app_says_so() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.exists(&key(Kind::Deployment, "web"), None, None);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.reason),
        (0, Some(Reason::NotManaged))
    );
    bed.entry.take_over = TakeOver::Always;
    assert!(applies(&bed.realize())[0].force);
}

#[test]
fn an_object_of_another_app_is_never_touched() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.exists(&key(Kind::Deployment, "web"), None, Some("uid-2"));
    bed.entry.take_over = TakeOver::Always;
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.reason),
        (0, Some(Reason::OwnedByOther))
    );
}

#[test]
fn an_app_that_waits_for_a_name_looks_again_whether_it_is_free() {
    let mut bed = Bed::new(&[deployment("web")]);
    let web = key(Kind::Deployment, "web");
    for owner in [None, Some("uid-2")] {
        bed.exists(&web, None, owner);
        assert_eq!(bed.realize().wake_at, Some(NOW + LOOK_AGAIN));
    }
    bed.observed.lose(&web);
    assert_eq!(applies(&bed.realize()).len(), 1);
}

#[test]
fn an_object_whose_labels_were_stripped_is_still_ours() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| {
        seen.owner = None;
        seen.applied = None;
    });
    assert!(applies(&bed.realize())[0].force);
}

#[test]
fn a_label_of_ownership_that_somebody_took_away_alone_is_put_back() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| seen.owner = None);
    let realized = bed.realize();
    assert!(applies(&realized)[0].force);
    assert_eq!(realized.report.state, ReportState::Progressing);
}

#[test]
fn an_object_without_its_label_is_removed_released_and_pruned_all_the_same() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| seen.owner = None);
    bed.content.manifests = vec![];
    assert!(matches!(bed.realize().actions[..], [Action::Delete { .. }]));
    bed.entry.state = EntryState::Removed;
    let realized = bed.realize();
    assert!(matches!(realized.actions[..], [Action::Delete { .. }]));
    assert_eq!(realized.report.state, ReportState::Removing);
    bed.entry.state = EntryState::Released;
    assert!(matches!(bed.realize().actions[..], [Action::LetGo { .. }]));
    bed.observed.let_go(&key(Kind::Deployment, "web"));
    assert_eq!(bed.realize().report.state, ReportState::Removed);
}

#[test]
fn an_object_that_lost_its_label_and_is_on_its_way_out_still_counts() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    let web = key(Kind::Deployment, "web");
    bed.change(&web, |seen| seen.owner = None);
    bed.entry.state = EntryState::Removed;
    bed.observed.going(&web, &"object-web".into());
    bed.change(&web, |seen| seen.resource_version = "99".into());
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Removing)
    );
    bed.observed.lose(&web);
    assert_eq!(bed.realize().report.state, ReportState::Removed);
}

#[test]
fn an_object_made_anew_by_somebody_else_under_our_name_is_not_ours() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| {
        seen.owner = None;
        seen.uid = "another".into();
    });
    assert_eq!(bed.realize().report.reason, Some(Reason::NotManaged));
}
