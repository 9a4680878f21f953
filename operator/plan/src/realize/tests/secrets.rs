//! Secrets that the App names.

use super::*;

#[test]
fn an_app_with_secrets_can_be_removed_where_nothing_may_be_written() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.entry.secrets = vec![crds::SecretCopy {
        name: "db".into(),
        copy: "s-1".into(),
    }];
    bed.entry.state = EntryState::Removed;
    assert_eq!(bed.realize().report.state, ReportState::Removing);
    bed.management = Management::Observe;
    assert_eq!(bed.realize().report.state, ReportState::Removed);
}

#[test]
fn a_secret_that_is_refused_for_good_stays_so_while_it_is_tried_again() {
    let mut bed = Bed::new(&[]);
    bed.entry.secrets = vec![crds::SecretCopy {
        name: "db".into(),
        copy: "s-1".into(),
    }];
    bed.observed.copies.insert("s-1".into(), "v1".into());
    let refused = Undelivered {
        version: "v1".into(),
        reason: Reason::NotManaged,
        message: "Secret health/db exists".into(),
        retry_at: NOW + 900,
    };
    bed.observed
        .undelivered
        .insert(("health".into(), "db".into()), refused);
    let before = bed.realize();
    let again = bed.realize_at(NOW + 900);
    assert_eq!((before.actions.len(), again.actions.len()), (0, 1));
    assert_eq!(before.report, again.report);
}

/// A Secret that the App names, delivered long ago and as its copy is.
fn delivered(bed: &mut Bed, version: &str) -> SecretKey {
    bed.entry.secrets = vec![crds::SecretCopy {
        name: "db".into(),
        copy: "s-1".into(),
    }];
    bed.observed.copies.insert("s-1".into(), version.into());
    let delivered = Delivered {
        uid: "secret".into(),
        version: version.into(),
        apps: ["uid-1".into()].into(),
        looked: 0,
    };
    let key: SecretKey = ("health".into(), "db".into());
    bed.observed.delivered.insert(key.clone(), delivered);
    key
}

#[test]
fn a_delivered_secret_that_is_looked_at_again_is_no_progress_and_a_new_version_is() {
    let mut bed = Bed::new(&[]);
    delivered(&mut bed, "v1");
    let look = bed.realize();
    assert_eq!(look.actions.len(), 1);
    assert_eq!(look.report.state, ReportState::Healthy);
    bed.observed.copies.insert("s-1".into(), "v2".into());
    assert_eq!(bed.realize().report.state, ReportState::Progressing);
}

#[test]
fn a_look_at_a_delivered_secret_that_gets_no_answer_says_nothing_and_is_tried_again() {
    let mut bed = Bed::new(&[]);
    let key = delivered(&mut bed, "v1");
    let unanswered = Undelivered {
        version: "v1".into(),
        reason: Reason::InProgress,
        message: "the server did not answer".into(),
        retry_at: NOW + 900,
    };
    bed.observed.undelivered.insert(key.clone(), unanswered);
    let waiting = bed.realize();
    assert_eq!(waiting.report.state, ReportState::Healthy);
    assert_eq!(waiting.wake_at, Some(NOW + 900));
    let again = bed.realize_at(NOW + 900);
    assert_eq!(again.actions.len(), 1);
    assert_eq!(again.report.state, ReportState::Healthy);
    // Seen to be another one: it is to be written, and that got no answer.
    bed.observed.delivered.get_mut(&key).unwrap().version = "".into();
    assert_eq!(bed.realize().report.state, ReportState::Progressing);
}
