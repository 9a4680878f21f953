//! What the agent does with what it hears and learns, without any cluster.

use std::sync::Arc;

use crds::label;
use crds::{AssignmentSliceSpec, Entry, EntryState, Management, ReportState, Stage, TakeOver};
use plan::content::AppContent;
use plan::realize::Access;
use serde_json::json;

use super::*;
use crate::agent::events::Heard;
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
        pack: pack.to_owned(),
        overrides: vec![],
        stages: vec![Stage::default()],
        secrets: vec![],
        take_over: TakeOver::Never,
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
    state.hear(Heard::Namespaces(Change::Replaced(vec![namespace])));
    for kind in Kind::ALL {
        state.observed.kinds.insert(*kind);
        state
            .observed
            .access
            .insert(("health".into(), *kind), Access::Allowed);
    }
    assign(&mut state, entries);
    state
}

fn assign(state: &mut State, entries: &[Entry]) {
    let slices = vec![("a".into(), slice(entries))];
    state.hear(Heard::Slices(Change::Replaced(slices)));
}

fn comes(state: &mut State, pack: &str, items: &[&str]) {
    let items = items
        .iter()
        .map(|letter| (hash(letter), Ok(content(letter))));
    state.hear(Heard::Content(pack.to_owned(), Ok(Some(items.collect()))));
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
    state.hear(Heard::Content("p-1".to_owned(), Ok(None)));
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
fn a_pack_that_lacks_the_content_is_said_and_asked_again_later() {
    let mut state = agent(&[entry("x", "c", "p-1")]);
    state.decide(now());
    comes(&mut state, "p-1", &["d"]);
    assert_eq!(state.decide(now()).fetch.len(), 0);
    assert_eq!(state.reports["x"].state, ReportState::Failed);
    let later = state.wakes["x"];
    assert_eq!(state.decide(later).fetch.len(), 1);
}
