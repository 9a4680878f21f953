//! What the agent does with what it hears and learns, without any cluster.

use std::sync::Arc;

use crds::label;
use crds::{AssignmentSliceSpec, Entry, EntryState, Management, ReportState, Stage, TakeOver};
use plan::content::AppContent;
use plan::realize::{Access, Action, Delivered, Health, Namespace, Seen, Stamp};
use serde_json::json;

use super::*;
use crate::agent::events::Heard;
use crate::agent::member::Outcome;
use crate::agent::reports::Reports;
use crate::agent::view::View;
use crate::runtime::watch::Change;

const CLUSTER: &str = "cluster-1";

fn hash(letter: &str) -> ContentHash {
    letter.repeat(20).into()
}

fn entry(uid: &str, content: &str, pack: &str) -> Entry {
    Entry {
        uid: uid.into(),
        namespace: "health".into(),
        name: uid.into(),
        generation: 1,
        state: EntryState::Present,
        content: hash(content),
        pack: pack.into(),
        overrides: vec![],
        stages: vec![Stage::default()],
        secrets: vec![],
        take_over: TakeOver::Never,
        scope: crds::Scope::App,
        tier: crds::Tier::General,
        limits: [].into(),
        shares: Vec::new(),
        charge: std::sync::Arc::default(),
    }
}

fn slice(entries: &[Entry]) -> Arc<AssignmentSliceSpec> {
    Arc::new(AssignmentSliceSpec {
        hub_id: "hub-1".into(),
        hub_epoch: 1,
        leader_epoch: 1,
        sequence: entries.iter().map(|e| e.generation).max().unwrap_or(0),
        management: Management::Manage,
        cluster_uid: CLUSTER.into(),
        traceparent: None,
        entries: entries.to_vec(),
    })
}

fn slices(list: &[(&str, Arc<AssignmentSliceSpec>)]) -> Slices {
    list.iter()
        .map(|(name, slice)| ((*name).into(), slice.clone()))
        .collect()
}

fn view(value: serde_json::Value) -> View {
    serde_json::from_value(value).unwrap()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Content that is one ConfigMap.
fn content(name: &str) -> Arc<AppContent> {
    Arc::new(AppContent {
        manifests: vec![
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}),
        ],
        images: vec![],
        workload: None,
        tier: crds::Tier::General,
        overrides: vec![],
    })
}

/// An agent in a cluster with a namespace that is ready, where everything is listed and allowed.
fn agent(entries: &[Entry]) -> State {
    let mut state = State::new(
        CLUSTER.into(),
        "v1".to_owned(),
        "ns.agent".to_owned(),
        false,
    );
    let namespace = view(json!({"metadata": {
        "name": "health", "labels": {(label::MANAGED_BY): label::MANAGED_BY_VALUE},
        "annotations": {(crate::agent::member::BOUND): "ns.agent"},
    }}));
    state.hear(Heard::Namespaces(Change::Replaced(vec![namespace])), now());
    for kind in Kind::ALL {
        state.observed.kinds.insert(*kind);
        state
            .observed
            .access
            .insert(("health".into(), *kind), Access::Allowed);
    }
    assign(&mut state, entries);
    // As if it were isolated already.
    let enclosure = plan::realize::Enclosure {
        in_force: true,
        ..Default::default()
    };
    state.observed.enclosures.insert("health".into(), enclosure);
    state
}

fn assign(state: &mut State, entries: &[Entry]) {
    let slices = vec![("a".into(), slice(entries))];
    state.hear(Heard::Slices(Change::Replaced(slices)), now());
}

fn comes(state: &mut State, pack: &str, items: &[&str]) {
    let items = items
        .iter()
        .map(|letter| (hash(letter), Ok(content(letter))));
    state.hear(
        Heard::Content(pack.to_owned(), Ok(Some(items.collect()))),
        now(),
    );
}

#[test]
fn equal_content_of_two_tenants_serves_both_whichever_pack_comes_first() {
    let mut state = agent(&[entry("x", "c", "p-1"), entry("y", "c", "p-2")]);
    assert_eq!(state.decide(now()).fetch.len(), 2);
    comes(&mut state, "p-1", &["c"]);
    let work = state.decide(now());
    assert_eq!(work.actions.len(), 2, "{:?}", work.actions);
}

#[test]
fn an_app_whose_pack_changed_while_it_was_fetched_is_served_by_the_new_one() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    state.decide(now());
    let moved = Entry {
        generation: 2,
        ..entry("x", "c", "p-2")
    };
    assign(&mut state, &[moved]);
    let work = state.decide(now());
    assert_eq!(work.fetch, BTreeSet::from(["p-2".to_owned()]));
    state.hear(Heard::Content("p-1".to_owned(), Ok(None)), now());
    comes(&mut state, "p-2", &["c"]);
    assert_eq!(state.decide(now()).actions.len(), 1);
}

#[test]
fn a_pack_is_not_fetched_again_while_it_is_on_its_way() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    assert_eq!(state.decide(now()).fetch.len(), 1);
    let other = Entry {
        generation: 2,
        ..entry("y", "d", "p-1")
    };
    assign(&mut state, &[entry("x", "c", "p-1"), other]);
    assert_eq!(state.decide(now()).fetch.len(), 0);
    comes(&mut state, "p-1", &["c", "d"]);
    assert_eq!(state.decide(now()).actions.len(), 2);
}

#[test]
fn a_pack_is_fetched_once_although_its_apps_come_in_slices_one_after_the_other() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    assert_eq!(state.decide(now()).fetch.len(), 1);
    comes(&mut state, "p-1", &["c", "d"]);
    state.decide(now());
    let later = Entry {
        generation: 2,
        ..entry("y", "d", "p-1")
    };
    assign(&mut state, &[entry("x", "c", "p-1"), later]);
    let work = state.decide(now());
    let applied = |(asker, _): &(Asker, Action)| asker.app().is_some_and(|uid| *uid == "y".into());
    assert!(work.fetch.is_empty(), "{:?}", work.fetch);
    assert!(work.actions.iter().any(applied), "{:?}", work.actions);
}

#[test]
fn of_the_packs_that_came_only_the_last_few_are_kept_whole() {
    let mut state = agent(&[]);
    for number in 0..20 {
        comes(&mut state, &format!("p-{number}"), &["d"]);
    }
    assert_eq!(state.spare.len(), SPARE_PACKS);
}

#[test]
fn a_pack_that_lacks_the_content_is_said_and_asked_again_later() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    state.decide(now());
    comes(&mut state, "p-1", &["d"]);
    assert_eq!(state.decide(now()).fetch.len(), 0);
    assert_eq!(state.reports["x"].state, ReportState::Failed);
    let later = state.wakes["x"];
    assert_eq!(state.decide(later).fetch.len(), 1);
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        kind: Kind::ConfigMap,
        namespace: "health".into(),
        name: name.into(),
    }
}

fn seen(app: &str, version: &str) -> Box<Seen> {
    Box::new(Seen {
        uid: format!("object-{app}").into(),
        resource_version: version.into(),
        stamp: Stamp::Version(version.into()),
        owner: Some(app.into()),
        applied: None,
        deleting: false,
        replicas: None,
        hold_until: None,
        health: Health::default(),
        created: false,
        limited: None,
    })
}

/// An agent with one App whose only object is there, and whose removal was decided.
fn removing() -> State {
    let removed = Entry {
        generation: 5,
        state: EntryState::Removed,
        ..entry("x", "c", "p-1")
    };
    let mut state = agent(&[removed]);
    let there = (key("c"), seen("x", "7"));
    state.hear(
        Heard::Objects(Kind::ConfigMap, Change::Applied(there)),
        now(),
    );
    state
}

fn at_generation(generation: i64, state: EntryState) -> Entry {
    Entry {
        generation,
        state,
        ..entry("x", "c", "p-1")
    }
}

#[test]
fn a_delete_is_confirmed_by_the_newest_entry_whatever_the_order_of_slices() {
    let mut state = removing();
    let old = slice(&[at_generation(1, EntryState::Present)]);
    let new = slice(&[at_generation(5, EntryState::Removed)]);
    for live in [
        slices(&[("a", new.clone()), ("b", old.clone())]),
        slices(&[("a", old.clone()), ("b", new.clone())]),
    ] {
        state.dirty.insert("x".into());
        let destructive = state.decide(now()).destructive;
        assert_eq!(state.confirmed(destructive, &live, now()).len(), 1);
    }
    let back = slice(&[at_generation(6, EntryState::Present)]);
    state.dirty.insert("x".into());
    let destructive = state.decide(now()).destructive;
    let live = slices(&[("a", back), ("b", new)]);
    assert_eq!(state.confirmed(destructive, &live, now()), []);
}

#[test]
fn a_delete_is_not_confirmed_by_another_hub_or_for_another_cluster_and_is_tried_again() {
    let mut state = removing();
    let right = (*slice(&[at_generation(5, EntryState::Removed)])).clone();
    let mut other_hub = right.clone();
    other_hub.hub_id = "hub-2".into();
    let mut other_cluster = right.clone();
    other_cluster.cluster_uid = "cluster-2".into();
    let mut older_hub = right;
    older_hub.hub_epoch = 0;
    for wrong in [other_hub, other_cluster, older_hub] {
        state.dirty.insert("x".into());
        state.wakes.clear();
        let destructive = state.decide(now()).destructive;
        assert_eq!(destructive.len(), 1);
        let live = slices(&[("a", Arc::new(wrong))]);
        assert_eq!(state.confirmed(destructive, &live, 1_000), []);
        assert_eq!(state.wakes.get("x"), Some(&(1_000 + RETRY)));
    }
}

#[test]
fn exactly_the_app_whose_action_failed_tries_again_whatever_it_reports() {
    let mut state = agent(&[entry("x", "c", "p-1"), entry("y", "d", "p-1")]);
    state.decide(now());
    comes(&mut state, "p-1", &["c", "d"]);
    state.decide(now());
    state.reports.get_mut("x").unwrap().state = ReportState::Failed;
    let failed = Outcome::failed("away".to_owned());
    state.learn(vec![(Asker::App("x".into()), failed)], 1_000);
    assert_eq!(state.wakes, BTreeMap::from([("x".into(), 1_000 + RETRY)]));
}

#[test]
fn what_failed_for_a_namespace_is_tried_again_for_all_of_its_apps() {
    let mut state = agent(&[entry("x", "c", "p-1"), entry("y", "d", "p-1")]);
    let failed = Outcome::failed("away".to_owned());
    state.learn(vec![(Asker::Namespace("health".into()), failed)], 1_000);
    assert_eq!(state.wakes.len(), 2);
}

#[test]
fn a_refusal_is_reported_although_the_app_already_failed_for_another_reason() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    state.decide(now());
    comes(&mut state, "p-1", &["c"]);
    state.decide(now());
    state.reports.get_mut("x").unwrap().state = ReportState::Failed;
    let refused = Outcome::Refused {
        key: key("c"),
        hash: hash("0"),
        reason: crds::Reason::Rejected,
        message: "spec.x: must be y".to_owned(),
        transient: false,
    };
    state.learn(vec![(Asker::App("x".into()), refused)], now());
    assert_eq!(
        state.decide(now()).actions.len(),
        1,
        "the App is decided again"
    );
}

#[test]
fn an_object_is_deleted_once_and_not_again_until_the_watch_catches_up() {
    let mut state = removing();
    assert_eq!(state.decide(now()).destructive.len(), 1);
    let deleted = |gone| Outcome::Deleted {
        key: key("c"),
        uid: "object-x".into(),
        gone,
    };
    state.learn(vec![(Asker::App("x".into()), deleted(false))], now());
    assert_eq!(state.decide(now()).destructive.len(), 0);
    assert_eq!(state.reports["x"].state, ReportState::Removing);
    state.learn(vec![(Asker::App("x".into()), deleted(true))], now());
    assert_eq!(state.decide(now()).destructive.len(), 0);
    assert_eq!(state.reports["x"].state, ReportState::Removed);
}

#[test]
fn a_removal_is_acknowledged_only_once_a_snapshot_remembers_it() {
    let removed = Entry {
        state: EntryState::Removed,
        ..entry("x", "c", "p-1")
    };
    let mut state = agent(&[removed]);
    state.decide(now());
    assert_eq!(state.reports["x"].state, ReportState::Removed);
    let mut told = Reports::default();
    state.bring_up(&mut told, now());
    assert!(state.must_remember() && told.apps.is_empty());
    state.saved();
    assert!(!state.must_remember() && state.bring_up(&mut told, now()));
    assert_eq!(told.apps["x"].state, ReportState::Removed);
}

/// An agent whose earlier run reported its App healthy, before it has asked what the tenant may have.
fn started_again() -> State {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    comes(&mut state, "p-1", &["c"]);
    state.observed.access.clear();
    let healthy = crds::ReportEntry {
        uid: "x".into(),
        generation: 1,
        content: Some(hash("c")),
        state: ReportState::Healthy,
        replicas: 2,
        ready: 2,
        reason: None,
        message: None,
    };
    state.reports.insert("x".into(), healthy);
    state.saved();
    state
}

#[test]
fn a_start_reports_nothing_worse_before_it_has_looked() {
    let mut state = started_again();
    state.decide(now());
    assert_eq!(state.reports["x"].state, ReportState::Healthy);
    assert!(!state.unsaved(), "nothing is new");
    // Another generation is news, whatever is known.
    assign(&mut state, &[at_generation(2, EntryState::Present)]);
    state.decide(now());
    assert_eq!(state.reports["x"].state, ReportState::Progressing);
}

#[test]
fn a_start_reports_nothing_worse_before_its_lists_have_come() {
    let mut state = started_again();
    state.observed.enclosures.clear();
    state.observed.listing = std::mem::take(&mut state.observed.kinds);
    state.decide(now());
    assert_eq!(state.reports["x"].state, ReportState::Healthy);
    assert!(!state.unsaved(), "nothing is new");
    // A kind that the App does not have may never be listed, and hides nothing.
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::HTTPRoute) {
        state.hear(Heard::Objects(*kind, Change::Replaced(vec![])), now());
    }
    state.decide(now());
    assert_eq!(state.reports["x"].state, ReportState::Progressing);
}

#[test]
fn a_delivered_secret_that_is_seen_to_be_another_one_is_not_taken_for_delivered() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    let key: SecretKey = ("health".into(), "db".into());
    let delivered = Outcome::Delivered {
        key: key.clone(),
        app: "x".into(),
        uid: "secret".into(),
        version: "v1".into(),
    };
    let asker = || Asker::App("x".into());
    let undelivered = |differs| Outcome::Undelivered {
        key: key.clone(),
        app: "x".into(),
        version: "v1".into(),
        reason: crds::Reason::InProgress,
        message: "the API server did not answer".to_owned(),
        differs,
    };
    state.learn(vec![(asker(), delivered)], now());
    state.learn(vec![(asker(), undelivered(false))], now());
    assert_eq!(&*state.observed.delivered[&key].version, "v1");
    state.saved();
    state.learn(vec![(asker(), undelivered(true))], now());
    assert_eq!(&*state.observed.delivered[&key].version, "");
    assert!(state.unsaved());
}

#[test]
fn what_belongs_to_no_entry_any_more_is_forgotten() {
    let mut state = agent(&[entry("x", "c", "p-1"), entry("y", "d", "p-1")]);
    state.decide(now());
    comes(&mut state, "p-1", &["c", "d"]);
    state.decide(now());
    for app in ["x", "y"] {
        let applied = Outcome::Applied {
            key: key(app),
            hash: hash("0"),
            seen: seen(app, "7"),
            repair: false,
        };
        let refused = Outcome::Refused {
            key: key(&format!("{app}-2")),
            hash: hash("0"),
            reason: crds::Reason::Rejected,
            message: "spec.x: must be y".to_owned(),
            transient: false,
        };
        let asker = || Asker::App(app.into());
        state.learn(vec![(asker(), applied), (asker(), refused)], now());
    }
    let elsewhere = ("finance".into(), Kind::ConfigMap);
    state.access_until.insert(elsewhere.clone(), 0);
    state.observed.access.insert(elsewhere, Access::Allowed);
    // The content of one App changed, the other one is gone.
    let x = Entry {
        generation: 2,
        ..entry("x", "e", "p-2")
    };
    let y = Entry {
        generation: 3,
        state: EntryState::Removed,
        ..entry("y", "d", "p-1")
    };
    assign(&mut state, &[x.clone(), y]);
    comes(&mut state, "p-2", &["e"]);
    state.reports.get_mut("y").unwrap().state = ReportState::Removed;
    let mut later = (*slice(&[x])).clone();
    later.sequence = 4;
    let later = vec![("a".into(), Arc::new(later))];
    state.hear(Heard::Slices(Change::Replaced(later)), now());
    state.decide(now());
    assert_eq!(state.contents.keys().collect::<Vec<_>>(), [&hash("e")]);
    let settled: Vec<_> = state.observed.settled.keys().cloned().collect();
    assert_eq!(settled, [key("x")]);
    let refused: Vec<_> = state.observed.refused.keys().cloned().collect();
    assert_eq!(refused, [key("x-2")]);
    assert_eq!(state.tries.len(), 1);
    assert!(state.access_until.is_empty());
    assert!(
        !state
            .observed
            .access
            .contains_key(&("finance".into(), Kind::ConfigMap))
    );
}

#[test]
fn the_last_of_two_removed_apps_deletes_the_secret_that_they_share() {
    let removed = |uid: &str| Entry {
        state: EntryState::Removed,
        secrets: vec![crds::SecretCopy {
            name: "db".into(),
            copy: "s-1".into(),
        }],
        ..entry(uid, "c", "p-1")
    };
    let mut state = agent(&[removed("x"), removed("y")]);
    let secret: SecretKey = ("health".into(), "db".into());
    let delivered = Delivered {
        uid: "secret-1".into(),
        version: "v".into(),
        apps: BTreeSet::from(["x".into(), "y".into()]),
        looked: 0,
    };
    state.observed.delivered.insert(secret.clone(), delivered);
    let mut deletes = 0;
    for _ in 0..3 {
        for (app, action) in state.decide(now()).destructive {
            let Action::Withdraw(withdraw) = action else {
                panic!("{action:?}");
            };
            deletes += usize::from(!withdraw.shared);
            let key = secret.clone();
            let done = Outcome::Withdrawn {
                key,
                app: app.clone(),
            };
            state.learn(vec![(Asker::App(app), done)], now());
        }
    }
    assert_eq!(deletes, 1);
    for app in ["x", "y"] {
        assert_eq!(state.reports[app].state, ReportState::Removed);
    }
}

/// Shows the agent an object of an App.
fn exists(state: &mut State, name: &str, app: &str) {
    let there = (key(name), seen(app, "7"));
    let change = Change::Applied(there);
    state.hear(Heard::Objects(Kind::ConfigMap, change), now());
}

#[test]
fn what_the_hub_does_not_name_is_kept_as_it_is_shown_and_taken_up_again_when_it_does() {
    let (x, y) = (entry("x", "c", "p-1"), entry("y", "d", "p-1"));
    let mut state = agent(&[x.clone(), y.clone()]);
    comes(&mut state, "p-1", &["c", "d"]);
    exists(&mut state, "d", "y");
    assign(&mut state, std::slice::from_ref(&x));
    state.dirty.insert("y".into());
    let touched = |work: &Work| {
        work.actions
            .iter()
            .any(|(asker, _)| asker.app() == Some(&"y".into()))
    };
    assert!(!touched(&state.decide(now())), "nothing is repaired");
    let unclaimed = state.unclaimed();
    assert_eq!((unclaimed.count, &*unclaimed.objects[0].name), (1, "d"));
    // Named again, as after slices that somebody deleted by hand.
    let mut later = (*slice(&[x, y])).clone();
    later.sequence = 2;
    let later = vec![("a".into(), Arc::new(later))];
    state.hear(Heard::Slices(Change::Replaced(later)), now());
    assert!(touched(&state.decide(now())));
    assert_eq!(state.unclaimed().count, 0);
}

#[test]
fn what_the_hub_does_not_name_is_forgotten_once_nothing_of_it_is_left() {
    let (x, y) = (entry("x", "c", "p-1"), entry("y", "d", "p-1"));
    let mut state = agent(&[x.clone(), y]);
    exists(&mut state, "d", "y");
    assign(&mut state, &[x]);
    assert!(state.held.entries.contains_key("y"));
    let gone = Change::Deleted((key("d"), seen("y", "8")));
    state.hear(Heard::Objects(Kind::ConfigMap, gone), now());
    state.decide(now());
    assert!(!state.held.entries.contains_key("y"));
}

#[test]
fn objects_of_an_unknown_app_are_shown_and_kept() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    exists(&mut state, "left-over", "app-of-another-hub");
    let work = state.decide(now());
    assert!(work.actions.is_empty() && work.destructive.is_empty());
    let unclaimed = state.unclaimed();
    assert_eq!(
        (unclaimed.count, &*unclaimed.objects[0].name),
        (1, "left-over")
    );
}

#[test]
fn content_that_the_hub_does_not_have_is_said_kept_running_and_asked_for_again() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    exists(&mut state, "c", "x");
    assert_eq!(state.decide(now()).fetch.len(), 1);
    let asked = now();
    state.hear(Heard::Content("p-1".to_owned(), Ok(None)), asked);
    let work = state.decide(asked);
    assert!(work.actions.is_empty() && work.destructive.is_empty() && work.fetch.is_empty());
    let report = &state.reports["x"];
    assert_eq!(report.reason, Some(crds::Reason::ContentMissing));
    assert_eq!(state.decide(asked + RETRY).fetch.len(), 1);
}

#[test]
fn a_removal_that_stands_still_says_why() {
    let mut state = removing();
    state.decide(now());
    let why = "cannot delete ConfigMap health/c: denied by somebody's webhook";
    let failed = Outcome::failed(why.to_owned());
    state.learn(vec![(Asker::App("x".into()), failed)], now());
    state.decide(now() + RETRY);
    assert_eq!(state.reports["x"].message.as_deref(), Some(why));
    let deleted = Outcome::Deleted {
        key: key("c"),
        uid: "object-x".into(),
        gone: false,
    };
    state.learn(vec![(Asker::App("x".into()), deleted)], now());
    state.decide(now());
    assert_eq!(state.reports["x"].message, None);
}

#[test]
fn a_removal_that_cannot_be_remembered_says_so_instead_of_being_acknowledged() {
    let removed = at_generation(1, EntryState::Removed);
    let mut state = agent(&[removed]);
    state.decide(now());
    state.not_saved("quota of Secrets is exhausted".to_owned());
    let mut told = Reports::default();
    state.bring_up(&mut told, now());
    let report = &told.apps["x"];
    assert_eq!(report.state, ReportState::Removing);
    assert!(
        report
            .message
            .as_ref()
            .unwrap()
            .contains("quota of Secrets")
    );
    state.saved();
    state.bring_up(&mut told, now());
    assert_eq!(told.apps["x"].state, ReportState::Removed);
}

#[test]
fn rights_that_somebody_took_away_are_set_up_anew_once_and_nobody_else_waits() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    comes(&mut state, "p-1", &["c"]);
    let wanted = |(_, action): (Asker, Action)| {
        if let Action::Apply(apply) = action {
            Some(apply.hash)
        } else {
            None
        }
    };
    let wanted = state.decide(now()).actions.into_iter().find_map(wanted);
    let refused = || {
        Outcome::Refused {
        key: key("c"),
        hash: wanted.clone().unwrap(),
        reason: crds::Reason::AgentForbidden,
        message: "configmaps is forbidden: User \"a\" cannot patch resource \"configmaps\" in API group \"\" in the namespace \"health\"".to_owned(),
        transient: false,
    }
    };
    let binds = |state: &mut State| {
        state.learn(vec![(Asker::App("x".into()), refused())], now());
        let work = state.decide(now() + RETRY);
        let bind = |(_, action): &(Asker, Action)| matches!(action, Action::CreateNamespace { .. });
        work.actions.iter().any(bind)
    };
    assert!(binds(&mut state));
    let ready = state.observed.namespaces.get("health");
    assert_eq!(ready, Some(&Namespace::Ready), "nobody else waits for it");
    assert!(!binds(&mut state), "the second refusal is reported");
    assert_eq!(
        state.reports["x"].reason,
        Some(crds::Reason::AgentForbidden)
    );
    let ready = Outcome::NamespaceReady("health".into());
    state.learn(vec![(Asker::Namespace("health".into()), ready)], now());
    let applies = |(_, action): &(Asker, Action)| matches!(action, Action::Apply(_));
    assert!(
        state.decide(now()).actions.iter().any(applies),
        "tried at once"
    );
}

#[test]
fn a_cluster_is_not_reported_before_its_nodes_and_pods_are_known() {
    let mut state = agent(&[]);
    let mut told = Reports::default();
    let mut reports = |state: &mut State| {
        state.bring_up(&mut told, now());
        told.cluster.is_some()
    };
    assert!(!reports(&mut state));
    state.hear(Heard::Nodes(Change::Replaced(vec![])), now());
    assert!(!reports(&mut state), "its pods are not known");
    state.hear(Heard::Pods(Change::Replaced(vec![])), now());
    assert!(reports(&mut state));
}

#[test]
fn somebody_elses_namespace_is_not_seized_for_want_of_rights() {
    let mut state = removing();
    state.see_namespace(&"health".into(), Namespace::Foreign);
    let unbound = Outcome::Unbound("health".into(), "is forbidden".to_owned());
    state.learn(vec![(Asker::App("x".into()), unbound)], now());
    let work = state.decide(now() + RETRY);
    assert!(work.actions.is_empty(), "{:?}", work.actions);
}

#[test]
fn an_app_without_the_agents_rights_says_so() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    comes(&mut state, "p-1", &["c"]);
    state.see_namespace(&"health".into(), Namespace::Unbound);
    let why = "cannot prepare namespace health: rolebindings is forbidden";
    let failed = Outcome::Failed {
        why: why.to_owned(),
        forbidden: true,
    };
    let asker = Asker::Namespace("health".into());
    state.learn(vec![(asker.clone(), failed)], now());
    state.decide(now() + RETRY);
    let report = &state.reports["x"];
    assert_eq!(report.reason, Some(crds::Reason::AgentForbidden));
    assert_eq!(report.message.as_deref(), Some(why));
    state.learn(
        vec![(asker, Outcome::NamespaceReady("health".into()))],
        now(),
    );
    state.decide(now() + RETRY);
    assert_eq!(state.reports["x"].state, ReportState::Progressing);
}

#[test]
fn a_question_that_was_once_forbidden_is_not_held_against_later_content() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    let asker = Asker::Namespace("health".into());
    let forbidden = Outcome::Failed {
        why: "cannot ask for access: it is forbidden".to_owned(),
        forbidden: true,
    };
    let allowed = Outcome::Access("health".into(), Kind::ConfigMap, Access::Allowed);
    state.learn(vec![(asker.clone(), forbidden)], now());
    state.learn(vec![(asker, allowed)], now());
    state.decide(now());
    assert_eq!(state.reports["x"].state, ReportState::Progressing);
}

#[test]
fn what_nobody_names_is_given_away_only_after_a_while() {
    let (x, y) = (entry("x", "c", "p-1"), entry("y", "d", "p-1"));
    let mut state = agent(&[x.clone(), y]);
    exists(&mut state, "d", "y");
    assign(&mut state, &[x]);
    let begun = now();
    state.decide(begun);
    assert!(state.observed.abandoned.is_empty());
    state.decide(begun + 60_000);
    assert!(state.observed.abandoned.contains("y"));
}

#[test]
fn what_was_accepted_goes_on_while_another_hub_is_refused() {
    let (x, y) = (entry("x", "c", "p-1"), entry("y", "d", "p-1"));
    let mut state = agent(&[x.clone(), y]);
    exists(&mut state, "d", "y");
    assign(&mut state, std::slice::from_ref(&x));
    state.decide(now());
    assert!(state.abandoned.contains_key("y"));
    let mut other = (*slice(&[x])).clone();
    other.hub_id = "hub-2".into();
    other.leader_epoch = 2;
    state.judge(slices(&[("a", Arc::new(other))]));
    assert!(state.held.frozen.is_some());
    state.give_away(now());
    assert!(state.abandoned.is_empty() && state.dirty.contains("y"));
}

#[test]
fn the_secret_of_an_app_that_nobody_names_is_its_successors_alone() {
    let (x, y) = (entry("x", "c", "p-1"), entry("y", "d", "p-1"));
    let mut state = agent(&[x.clone(), y]);
    let secret: SecretKey = ("health".into(), "db".into());
    let delivered = Delivered {
        uid: "secret-1".into(),
        version: "v".into(),
        apps: BTreeSet::from(["x".into(), "y".into()]),
        looked: 0,
    };
    state.observed.delivered.insert(secret.clone(), delivered);
    assign(&mut state, &[x]);
    state.decide(now());
    assert_eq!(
        state.observed.delivered[&secret].apps,
        BTreeSet::from(["x".into()])
    );
}

#[test]
fn no_slice_at_all_abandons_nothing() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    exists(&mut state, "c", "x");
    state.hear(Heard::Slices(Change::Replaced(vec![])), now());
    assert!(state.abandoned.is_empty());
}
