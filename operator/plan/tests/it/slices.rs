//! The ledger: slices, their generations, their headers and their pace.

use crds::Management;

use crate::province::{Province, app};

fn generation(province: &Province, app: &str, cluster: &str) -> i64 {
    province.entry(app, cluster).unwrap().generation
}

#[test]
fn a_cluster_that_joins_gets_a_slice_that_says_who_decides() {
    let province = Province::cities().settled();
    let slice = &province.slices[&("ningbo-a".into(), "a-0000".into())].spec;
    assert_eq!(
        (slice.hub_id.as_str(), slice.hub_epoch, slice.leader_epoch),
        ("hub-1", 1, 1)
    );
    assert_eq!(slice.cluster_uid.as_str(), "kube-system-of-ningbo-a");
    assert!(slice.entries.is_empty());
}

#[test]
fn a_slice_deleted_by_hand_is_written_again_with_higher_generations() {
    let mut province = Province::cities()
        .with(app("web").replicas(6, "Capacity"))
        .settled();
    let (placed, before) = (
        province.placed("web"),
        generation(&province, "web", "ningbo-a"),
    );
    province.delete_slice("ningbo-a", "a-0000");
    province.settle();
    assert_eq!(province.placed("web"), placed, "from what reports say");
    assert!(generation(&province, "web", "ningbo-a") > before);
}

#[test]
fn generations_go_on_from_what_the_agent_remembers_when_all_else_is_lost() {
    let mut province = Province::cities().settled();
    province.edit_report("ningbo-a", |r| {
        r["spec"]["hub"] =
            serde_json::json!({"id": "hub-1", "epoch": 1, "leaderEpoch": 1, "sequence": 41});
    });
    let province = province.with(app("web").within(&["ningbo"])).settled();
    assert_eq!(generation(&province, "web", "ningbo-a"), 42);
}

#[test]
fn every_decision_of_a_cluster_gets_a_higher_generation() {
    let mut province = Province::cities().with(app("web")).settled();
    let first = generation(&province, "web", "ningbo-a");
    province.create(app("next"));
    province.settle();
    assert!(generation(&province, "next", "ningbo-a") > first);
    province.change_content("web", "web:2");
    province.settle();
    assert!(generation(&province, "web", "ningbo-a") > generation(&province, "next", "ningbo-a"));
}

/// Apps in a slice of ningbo-a.
fn apps_in(province: &Province, name: &str) -> usize {
    let slice = &province.slices[&("ningbo-a".into(), name.to_owned())];
    let entries = slice.spec.entries.iter();
    entries.filter(|entry| entry.scope.is_app()).count()
}

#[test]
fn an_app_that_stands_in_two_slices_is_dropped_from_the_older_one() {
    let mut province = Province::cities().with(app("web")).settled();
    let entry = province.entry("web", "ningbo-a").unwrap().clone();
    let newer = crds::Entry {
        generation: entry.generation + 5,
        ..entry.clone()
    };
    province.edit_slice("ningbo-a", "a-0001", |slice| {
        slice.spec.entries = vec![newer];
    });
    province.settle();
    assert_eq!(apps_in(&province, "a-0000"), 0);
    assert_eq!(
        generation(&province, "web", "ningbo-a"),
        entry.generation + 5
    );
}

#[test]
fn equal_entries_in_two_slices_are_reduced_to_one() {
    let mut province = Province::cities().with(app("web")).settled();
    let entry = province.entry("web", "ningbo-a").unwrap().clone();
    province.edit_slice("ningbo-a", "a-0001", |slice| {
        slice.spec.entries = vec![entry.clone()];
    });
    province.settle();
    let of = |name: &str| apps_in(&province, name);
    assert_eq!((of("a-0000"), of("a-0001")), (0, 1));
}

#[test]
fn an_entry_twice_in_one_slice_is_reduced_to_one() {
    let mut province = Province::cities().with(app("web")).settled();
    let entry = province.entry("web", "ningbo-a").unwrap().clone();
    province.edit_slice("ningbo-a", "a-0000", |slice| slice.spec.entries.push(entry));
    province.settle();
    assert_eq!(apps_in(&province, "a-0000"), 1);
}

#[test]
fn a_hundred_apps_and_their_namespace_fill_one_slice_and_open_another() {
    let mut province = Province::cities();
    for n in 0..100 {
        province.create(app(&format!("web-{n}")).within(&["ningbo"]).cores("1m"));
    }
    province.settle();
    let of = |name: &str| {
        province.slices[&("ningbo-a".into(), name.to_owned())]
            .spec
            .entries
            .len()
    };
    assert_eq!((of("a-0000"), of("a-0001")), (100, 1));
    let writes = province.writes;
    province.change_content("web-7", "web:2");
    province.settle();
    assert_eq!(province.writes, writes + 1, "one change writes one slice");
}

#[test]
fn an_administrator_who_raises_the_epoch_has_every_slice_written_again() {
    let mut province = Province::cities().with(app("web")).settled();
    let before = generation(&province, "web", "ningbo-a");
    province.world.hub.epoch = 2;
    province.settle();
    assert!(province.slices.values().all(|s| s.spec.hub_epoch == 2));
    assert_eq!(
        generation(&province, "web", "ningbo-a"),
        before,
        "the decisions are the same"
    );
}

#[test]
fn a_new_leader_alone_writes_nothing() {
    let mut province = Province::cities().with(app("web")).settled();
    let writes = province.writes;
    province.world.hub.leader_epoch = 2;
    let plan = province.plan();
    assert!(plan.slices.is_empty());
    assert_eq!(province.writes, writes);
}

#[test]
fn a_change_of_management_reaches_the_agent() {
    let mut province = Province::cities().settled();
    province.edit_cluster("ningbo-a", |c| c.spec.management = Management::Observe);
    province.settle();
    let slice = &province.slices[&("ningbo-a".into(), "a-0000".into())];
    assert_eq!(slice.spec.management, Management::Observe);
}

#[test]
fn a_slice_is_written_at_once_and_then_at_most_once_a_second() {
    let mut province = Province::cities().with(app("web")).settled();
    province.change_content("web", "web:2");
    let first = province.plan();
    assert_eq!(first.slices.len(), 3);
    province.carry_out(&first);
    province.world.now += 200;
    province.change_content("web", "web:3");
    let second = province.plan();
    assert!(second.slices.is_empty());
    assert_eq!(second.wake_at, Some(province.world.now + 800));
    province.carry_out(&second);
    province.world.now += 800;
    assert_eq!(province.plan().slices.len(), 3);
}

#[test]
fn a_clock_that_was_set_back_holds_up_no_slice() {
    let mut province = Province::cities().with(app("web")).settled();
    province.change_content("web", "web:2");
    let plan = province.plan();
    province.carry_out(&plan);
    province.world.now -= 3_600_000;
    province.change_content("web", "web:3");
    assert_eq!(province.plan().slices.len(), 3);
}

#[test]
fn a_slice_older_than_our_own_write_is_ignored() {
    let mut province = Province::cities().with(app("web")).settled();
    let old = province.slices[&("ningbo-a".into(), "a-0000".into())].clone();
    province.change_content("web", "web:2");
    province.settle();
    let now = generation(&province, "web", "ningbo-a");
    province.world.apply_slice(&"ningbo-a".into(), old, None);
    assert_eq!(generation(&province, "web", "ningbo-a"), now);
}

#[test]
fn an_app_older_than_our_own_write_is_ignored() {
    let mut province = Province::cities().with(app("web")).settled();
    let old = province.apps["web"].clone();
    province.change_content("web", "web:2");
    let wanted = province.wanted("web");
    province.world.apply_app(&old);
    assert_eq!(province.wanted("web"), wanted);
}

#[test]
fn a_cluster_gets_no_slice_before_its_identity_is_pinned() {
    let mut province = Province::cities().with(app("web"));
    let plan = province.plan();
    assert!(plan.slices.is_empty(), "{:?}", plan.slices);
    province.settle();
    assert_eq!(province.clusters_of("web").len(), 3);
}
