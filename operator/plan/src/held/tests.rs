use super::*;
use crds::{EntryState, TakeOver};

const CLUSTER: &str = "cluster-1";

fn entry(uid: &str, generation: i64) -> Entry {
    Entry {
        uid: uid.into(),
        namespace: "health".into(),
        name: uid.into(),
        generation,
        state: EntryState::Present,
        content: "0".repeat(20).into(),
        pack: "c-0".into(),
        overrides: vec![],
        stages: vec![],
        secrets: vec![],
        take_over: TakeOver::Never,
        scope: crds::Scope::App,
        tier: crds::Tier::General,
        limits: [].into(),
        shares: Vec::new(),
        charge: std::sync::Arc::default(),
    }
}

struct Hub {
    id: &'static str,
    epoch: i64,
    leader: i64,
}

const HUB: Hub = Hub {
    id: "hub-1",
    epoch: 1,
    leader: 3,
};

impl Hub {
    fn slice(&self, entries: &[Entry]) -> Arc<AssignmentSliceSpec> {
        Arc::new(AssignmentSliceSpec {
            hub_id: self.id.into(),
            hub_epoch: self.epoch,
            leader_epoch: self.leader,
            sequence: entries.iter().map(|e| e.generation).max().unwrap_or(0),
            management: Management::Manage,
            cluster_uid: CLUSTER.into(),
            traceparent: None,
            entries: entries.to_vec(),
        })
    }
}

fn slices(list: &[(&str, Arc<AssignmentSliceSpec>)]) -> Slices {
    list.iter()
        .map(|(name, slice)| ((*name).into(), slice.clone()))
        .collect()
}

fn held(list: &[(&str, Arc<AssignmentSliceSpec>)]) -> Held {
    let mut held = Held::default();
    let taken = held.take(&CLUSTER.into(), &slices(list));
    assert_eq!(taken.suspicion, None);
    held
}

#[test]
fn what_the_agent_may_do_is_taken_over_although_no_entry_changed() {
    let slice = HUB.slice(&[entry("x", 1)]);
    let mut held = held(&[("a", slice.clone())]);
    let observe = AssignmentSliceSpec {
        management: Management::Observe,
        ..(*slice).clone()
    };
    let taken = held.take(&CLUSTER.into(), &slices(&[("a", Arc::new(observe))]));
    assert_eq!(taken, Taken::default());
    assert_eq!(held.management, Management::Observe);
}

#[test]
fn newer_entries_are_taken_over_and_named() {
    let mut held = held(&[("a", HUB.slice(&[entry("x", 1), entry("y", 1)]))]);
    let taken = held.take(
        &CLUSTER.into(),
        &slices(&[("a", HUB.slice(&[entry("x", 2), entry("y", 1)]))]),
    );
    assert_eq!(taken.changed, BTreeSet::from(["x".into()]));
    assert_eq!(held.entries["x"].entry.generation, 2);
}

#[test]
fn a_missing_slice_and_a_missing_entry_change_nothing() {
    let mut held = held(&[
        ("a", HUB.slice(&[entry("x", 1)])),
        ("b", HUB.slice(&[entry("y", 2)])),
    ]);
    let before = held.entries.clone();
    assert_eq!(held.take(&CLUSTER.into(), &Slices::new()), Taken::default());
    let later = Hub { leader: 4, ..HUB };
    let mut shortened = (*later.slice(&[])).clone();
    shortened.sequence = 2;
    assert_eq!(
        held.take(&CLUSTER.into(), &slices(&[("b", Arc::new(shortened))])),
        Taken::default()
    );
    assert_eq!(held.entries, before);
}

#[test]
fn during_a_move_the_higher_generation_counts_whatever_the_order_of_slices() {
    let mut held = held(&[("a", HUB.slice(&[entry("x", 1)]))]);
    let both = slices(&[
        ("a", HUB.slice(&[entry("x", 1)])),
        ("b", HUB.slice(&[entry("x", 2)])),
    ]);
    assert_eq!(held.take(&CLUSTER.into(), &both).suspicion, None);
    assert_eq!(held.entries["x"].entry.generation, 2);
    let mut restarted = Held::default();
    restarted.take(
        &CLUSTER.into(),
        &slices(&[
            ("a", HUB.slice(&[entry("x", 2)])),
            ("b", HUB.slice(&[entry("x", 1)])),
        ]),
    );
    assert_eq!(restarted.entries["x"].entry.generation, 2);
}

#[test]
fn another_hub_freezes_every_change() {
    let mut held = held(&[("a", HUB.slice(&[entry("x", 1)]))]);
    let impostor = Hub {
        id: "hub-2",
        epoch: 9,
        leader: 9,
    };
    let taken = held.take(
        &CLUSTER.into(),
        &slices(&[("a", impostor.slice(&[entry("x", 9)]))]),
    );
    assert!(matches!(taken.suspicion, Some(Frozen::OtherHub { .. })));
    assert_eq!(held.entries["x"].entry.generation, 1);
}

#[test]
fn a_restored_hub_shows_by_an_older_slice_or_an_older_entry() {
    for older in [
        slices(&[("a", HUB.slice(&[entry("x", 4)]))]),
        slices(&[("a", Hub { leader: 2, ..HUB }.slice(&[entry("x", 7)]))]),
        slices(&[("b", HUB.slice(&[entry("x", 4), entry("z", 9)]))]),
        slices(&[("a", Hub { epoch: 0, ..HUB }.slice(&[entry("x", 7)]))]),
    ] {
        let mut held = held(&[("a", HUB.slice(&[entry("x", 5)]))]);
        let taken = held.take(&CLUSTER.into(), &older);
        assert!(
            matches!(taken.suspicion, Some(Frozen::OlderHub { .. })),
            "{older:?}"
        );
        assert_eq!(held.entries["x"].entry.generation, 5);
    }
}

#[test]
fn once_frozen_nothing_is_taken_over_until_the_hub_epoch_is_raised() {
    let mut held = held(&[("a", HUB.slice(&[entry("x", 5)]))]);
    held.freeze(Frozen::OlderHub {
        evidence: String::new(),
    });
    let overtaken = slices(&[("a", HUB.slice(&[entry("x", 9)]))]);
    assert!(held.take(&CLUSTER.into(), &overtaken).changed.is_empty());
    let acknowledged = Hub { epoch: 2, ..HUB };
    let taken = held.take(
        &CLUSTER.into(),
        &slices(&[("a", acknowledged.slice(&[entry("x", 2)]))]),
    );
    assert_eq!(taken.changed, BTreeSet::from(["x".into()]));
    assert_eq!(held.frozen, None);
}

#[test]
fn slices_that_are_not_yet_rewritten_after_an_acknowledgement_raise_no_suspicion() {
    let mut held = held(&[
        ("a", HUB.slice(&[entry("x", 5)])),
        ("b", HUB.slice(&[entry("y", 6)])),
    ]);
    let raised = Hub { epoch: 2, ..HUB };
    let half = slices(&[
        ("a", raised.slice(&[entry("x", 5)])),
        ("b", HUB.slice(&[entry("y", 6)])),
    ]);
    assert_eq!(held.take(&CLUSTER.into(), &half).suspicion, None);
    assert_eq!(held.take(&CLUSTER.into(), &half), Taken::default());
}

#[test]
fn decisions_for_another_cluster_are_refused() {
    let mut held = Held::default();
    let taken = held.take(
        &"cluster-2".into(),
        &slices(&[("a", HUB.slice(&[entry("x", 1)]))]),
    );
    assert!(matches!(taken.suspicion, Some(Frozen::OtherCluster { .. })));
    assert!(held.entries.is_empty());
}

#[test]
fn a_new_hub_is_served_only_at_an_administrators_word() {
    let mut held = held(&[("a", HUB.slice(&[entry("x", 5)]))]);
    let rebuilt = Hub {
        id: "hub-2",
        epoch: 1,
        leader: 1,
    };
    let theirs = slices(&[("a", rebuilt.slice(&[entry("x", 1)]))]);
    let why = held.take(&CLUSTER.into(), &theirs).suspicion.unwrap();
    held.freeze(why);
    held.acknowledge_hub(&"hub-3".into());
    assert!(held.frozen.is_some());
    held.acknowledge_hub(&"hub-2".into());
    assert_eq!(
        held.take(&CLUSTER.into(), &theirs).changed,
        BTreeSet::from(["x".into()])
    );
}

#[test]
fn only_removed_apps_that_no_slice_names_are_forgotten() {
    let gone = Entry {
        state: EntryState::Removed,
        ..entry("x", 2)
    };
    let named = slices(&[("a", HUB.slice(&[gone, entry("y", 1)]))]);
    let mut held = Held::default();
    held.take(&CLUSTER.into(), &named);
    assert!(held.forget(&named, |_| true).is_empty());
    assert!(held.forget(&Slices::new(), |_| false).is_empty());
    assert_eq!(held.forget(&Slices::new(), |_| true), [Uid::from("x")]);
    assert!(held.entries.contains_key("y"));
}

#[test]
fn decisions_for_another_cluster_freeze_until_they_are_for_this_one() {
    let mut wrong = (*HUB.slice(&[entry("x", 1)])).clone();
    wrong.cluster_uid = "cluster-2".into();
    let wrong = slices(&[("a", Arc::new(wrong))]);
    let mut held = Held::default();
    held.freeze(
        held.clone()
            .take(&CLUSTER.into(), &wrong)
            .suspicion
            .unwrap(),
    );
    assert_eq!(
        held.take(&CLUSTER.into(), &Slices::new()),
        Taken::default(),
        "absence says nothing"
    );
    assert!(held.frozen.is_some());
    let right = slices(&[("b", HUB.slice(&[entry("x", 1)]))]);
    let taken = held.take(&CLUSTER.into(), &right);
    assert_eq!(taken.changed, BTreeSet::from(["x".into()]));
    assert_eq!(held.frozen, None);
}

#[test]
fn an_agent_that_was_led_to_another_hub_goes_on_when_its_own_is_back() {
    let own = slices(&[("a", HUB.slice(&[entry("x", 1)]))]);
    let mut held = held(&[("a", HUB.slice(&[entry("x", 1)]))]);
    held.freeze(Frozen::OtherHub {
        pinned: "hub-1".into(),
        found: "hub-2".into(),
    });
    let other = Hub { id: "hub-2", ..HUB };
    let both = slices(&[
        ("a", HUB.slice(&[entry("x", 1)])),
        ("b", other.slice(&[entry("y", 1)])),
    ]);
    held.take(&CLUSTER.into(), &both);
    held.take(&CLUSTER.into(), &Slices::new());
    assert!(held.frozen.is_some(), "neither both nor none is its own");
    held.take(&CLUSTER.into(), &own);
    assert_eq!(held.frozen, None);
}

#[test]
fn an_app_that_was_forgotten_is_taken_again_when_its_slice_is_back_as_it_was() {
    let removed = Entry {
        state: EntryState::Removed,
        ..entry("x", 2)
    };
    let slice = HUB.slice(&[removed]);
    let mut held = held(&[("a", slice.clone())]);
    // A list that lacked the slice: what was done is forgotten.
    held.take(&CLUSTER.into(), &Slices::new());
    assert_eq!(held.forget(&Slices::new(), |_| true), ["x".into()]);
    let taken = held.take(&CLUSTER.into(), &slices(&[("a", slice)]));
    assert_eq!(taken.changed, BTreeSet::from(["x".into()]));
}

#[test]
fn what_no_slice_names_is_abandoned_unless_changes_are_refused() {
    let named = slices(&[("a", HUB.slice(&[entry("x", 1)]))]);
    let mut held = held(&[("a", HUB.slice(&[entry("x", 1), entry("y", 1)]))]);
    assert_eq!(
        held.abandoned(&named),
        BTreeMap::from([("y".into(), false)])
    );
    assert!(held.abandoned(&Slices::new()).is_empty(), "no evidence");
    held.freeze(Frozen::OlderHub {
        evidence: String::new(),
    });
    assert!(held.abandoned(&named).is_empty());
}
