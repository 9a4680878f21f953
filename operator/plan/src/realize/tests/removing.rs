//! What is deleted or let go, and when an App counts as removed.

use super::*;

#[test]
fn what_the_content_no_longer_holds_is_deleted_and_nothing_else() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    bed.carry_out();
    bed.exists(&key(Kind::Service, "foreign"), None, None);
    bed.exists(&key(Kind::Service, "other"), None, Some("uid-2"));
    bed.content.manifests.pop();
    let realized = bed.realize();
    let deletes: Vec<_> = realized
        .actions
        .iter()
        .filter(|a| matches!(a, Action::Delete { .. }))
        .collect();
    assert!(
        matches!(deletes[..], [Action::Delete { key, .. }] if *key == self::key(Kind::Service, "web"))
    );
}

#[test]
fn removal_deletes_exactly_what_is_ours_and_reports_when_it_is_gone() {
    let mut bed = Bed::new(&[deployment("web"), service("web")]);
    bed.carry_out();
    bed.exists(&key(Kind::Service, "foreign"), None, None);
    bed.entry.state = EntryState::Removed;
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (2, ReportState::Removing)
    );
    bed.observed.lose(&key(Kind::Deployment, "web"));
    bed.observed.lose(&key(Kind::Service, "web"));
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Removed)
    );
    assert_eq!(realized.report.content, None);
}

#[test]
fn nothing_counts_as_removed_before_every_kind_was_looked_at() {
    let mut bed = Bed::new(&[]);
    bed.entry.state = EntryState::Removed;
    bed.observed.listing.insert(Kind::Deployment);
    assert_eq!(bed.realize().report.state, ReportState::Removing);
}

#[test]
fn an_object_on_its_way_out_is_not_deleted_twice() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.change(&key(Kind::Deployment, "web"), |seen| seen.deleting = true);
    bed.entry.state = EntryState::Removed;
    let realized = bed.realize();
    assert_eq!(
        (realized.actions.len(), realized.report.state),
        (0, ReportState::Removing)
    );
}

#[test]
fn releasing_lets_go_and_deletes_nothing() {
    let mut bed = Bed::new(&[deployment("web")]);
    bed.carry_out();
    bed.entry.state = EntryState::Released;
    let realized = bed.realize();
    assert!(matches!(realized.actions[..], [Action::LetGo { .. }]));
    bed.observed.let_go(&key(Kind::Deployment, "web"));
    bed.change(&key(Kind::Deployment, "web"), |seen| {
        seen.resource_version = "99".into();
    });
    assert_eq!(bed.realize().report.state, ReportState::Removed);
}

/// A list of one kind as the cluster gives it, without these names.
fn listed_without(bed: &mut Bed, kind: Kind, without: &[&str]) {
    let of_kind = |key: &&ObjectKey| key.kind == kind && !without.contains(&&*key.name);
    let keys: Vec<ObjectKey> = bed
        .observed
        .objects
        .keys()
        .filter(of_kind)
        .cloned()
        .collect();
    let all = keys.into_iter().map(|key| {
        let seen = bed.observed.objects[&key].clone();
        (key, seen)
    });
    let all: Vec<_> = all.collect();
    bed.observed.list(kind, all);
}

#[test]
fn what_a_list_lacked_is_asked_for_before_its_app_counts_as_removed() {
    let mut bed = Bed::new(&[service("web"), service("api")]);
    bed.carry_out();
    bed.entry.state = EntryState::Removed;
    listed_without(&mut bed, Kind::Service, &["web", "api"]);
    let realized = bed.realize();
    assert_eq!(realized.report.state, ReportState::Removing);
    let blind = |name: &str| Action::Delete {
        key: key(Kind::Service, name),
        uid: format!("object-{name}").into(),
        resource_version: None,
    };
    assert_eq!(realized.actions, [blind("api"), blind("web")]);
    // One is really gone; the other one was only not listed.
    let web = key(Kind::Service, "web");
    bed.observed.gone(&web, &"object-web".into());
    let api = key(Kind::Service, "api");
    bed.exists(&api, None, Some("uid-1"));
    let realized = bed.realize();
    assert_eq!(realized.report.state, ReportState::Removing);
    assert!(
        matches!(&realized.actions[..], [Action::Delete { key, resource_version: Some(_), .. }] if *key == api)
    );
    bed.observed.lose(&api);
    assert_eq!(bed.realize().report.state, ReportState::Removed);
}

#[test]
fn what_went_with_its_namespace_is_gone_and_somebody_elses_namespace_is_left_alone() {
    let mut bed = Bed::new(&[service("web")]);
    bed.carry_out();
    bed.entry.state = EntryState::Removed;
    listed_without(&mut bed, Kind::Service, &["web"]);
    for namespace in [None, Some(Namespace::Foreign)] {
        bed.observed.namespaces.clear();
        let name = || "health".into();
        bed.observed
            .namespaces
            .extend(namespace.map(|n| (name(), n)));
        let realized = bed.realize();
        assert_eq!(realized.actions, []);
        assert_eq!(realized.report.state, ReportState::Removed);
    }
}
