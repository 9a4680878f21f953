//! Clusters in which nothing may be written.

use super::*;

#[test]
fn in_an_observed_cluster_writes_become_words() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    bed.management = Management::Observe;
    bed.entry.take_over = TakeOver::Always;
    bed.exists(&key(Kind::Service, "web"), None, None);
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Observed)
    );
    let message = realized.report.message.unwrap();
    assert!(
        message.contains("create 1, take over 1, change 0 and delete 0"),
        "{message}"
    );
}

#[test]
fn the_preview_sees_beyond_a_namespace_that_is_not_there() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    bed.management = Management::Observe;
    bed.observed.namespaces.clear();
    bed.observed.access.clear();
    let realized = bed.realize();
    assert_eq!(realized.actions, []);
    let message = realized.report.message.unwrap();
    assert!(message.contains("create 2, take over 0"), "{message}");
}

#[test]
fn what_the_hub_does_not_know_can_be_taken_over_and_is_not_by_itself() {
    let mut bed = Bed::new(&[service("web")]);
    let web = key(Kind::Service, "web");
    bed.exists(&web, None, Some("uid-of-a-former-hub"));
    bed.entry.take_over = TakeOver::Always;
    assert_eq!(bed.realize().report.reason, Some(Reason::OwnedByOther));
    bed.observed.abandoned = BTreeSet::from(["uid-of-a-former-hub".into()]);
    bed.entry.take_over = TakeOver::Never;
    let message = bed.realize().report.message.unwrap();
    assert!(message.contains("takeOver"), "{message}");
    bed.entry.take_over = TakeOver::Always;
    assert_eq!(applies(&bed.realize())[0].key, web);
}
