//! Deleting: explicit, acknowledged, and never guessed.

use crds::{ConditionType, EntryState, ReportState};

use crate::province::{Province, app};

#[test]
fn a_deleted_app_goes_once_every_cluster_acknowledged() {
    let mut province = Province::cities().with(app("web")).settled();
    let uid = province.uid("web");
    province.delete("web");
    province.turn();
    let ledger = province.world.ledger(&uid).unwrap();
    assert!(
        ledger
            .entries
            .values()
            .all(|held| held.entry.state == EntryState::Removed)
    );
    let ready = province.condition("web", ConditionType::Ready).unwrap();
    assert_eq!(ready.reason, crds::Reason::Deleting);
    province.settle();
    assert!(province.apps.is_empty());
    assert!(
        province.world.ledger(&uid).is_none(),
        "nothing is left of it"
    );
}

#[test]
fn an_entry_stays_and_is_charged_until_its_removal_is_acknowledged() {
    let mut province = Province::cities();
    province.set_cores("hangzhou-a", 10);
    province.create(app("old").replicas(8, "Duplicate").within(&["hangzhou"]));
    province.settle();
    province.silence("hangzhou-a");
    province.delete("old");
    province.turn();
    province.world.now += 1_000;
    province.create(app("new").replicas(8, "Duplicate").within(&["hangzhou"]));
    province.turn();
    assert_eq!(province.placed("new"), [("hangzhou-a".into(), 2)]);
    province.unsilence("hangzhou-a");
    province.settle();
    assert_eq!(province.placed("new"), [("hangzhou-a".into(), 8)]);
}

#[test]
fn a_cluster_out_of_contact_keeps_a_tombstone_and_holds_up_nobody() {
    let mut province = Province::cities().with(app("web")).settled();
    let uid = province.uid("web");
    province.cut_off("ningbo-a");
    province.delete("web");
    province.settle();
    assert!(province.apps.is_empty(), "the App is let go");
    let ledger = province.world.ledger(&uid).unwrap();
    assert_eq!(
        ledger
            .entries
            .keys()
            .map(crds::ClusterName::as_str)
            .collect::<Vec<_>>(),
        ["ningbo-a"]
    );
    assert_eq!(ledger.entries["ningbo-a"].entry.state, EntryState::Removed);
    province.unsilence("ningbo-a");
    province.wait(60);
    assert!(
        province.world.ledger(&uid).is_none(),
        "acknowledged and dropped although the App is gone"
    );
    let slice = &province.slices[&("ningbo-a".into(), "a-0000".into())];
    assert!(slice.spec.entries.iter().all(|entry| !entry.scope.is_app()));
}

#[test]
fn an_app_that_merely_vanished_keeps_its_entries() {
    let mut province = Province::cities().with(app("web")).settled();
    let (uid, writes) = (province.uid("web"), province.writes);
    province.vanish("web");
    province.settle();
    assert_eq!(province.placed_uid(&uid).len(), 3);
    assert_eq!(province.writes, writes);
}

#[test]
fn a_removed_app_that_was_never_placed_is_let_go_at_once() {
    let mut province = Province::cities();
    province.create(app("web").within(&["nowhere"]));
    province.delete("web");
    assert_eq!(province.plan().releases.len(), 1);
    province.settle();
}

#[test]
fn an_app_deleted_after_its_slice_was_lost_is_removed_where_it_is_reported() {
    let mut province = Province::cities().with(app("web")).settled();
    let uid = province.uid("web");
    province.delete_slice("ningbo-a", "a-0000");
    province.delete("web");
    province.settle();
    assert!(province.apps.is_empty());
    let ningbo = &province.agents["ningbo-a"];
    assert!(
        ningbo
            .reports
            .get(&uid)
            .is_none_or(|r| r.state == ReportState::Removed)
    );
}

#[test]
fn an_acknowledgement_of_an_earlier_removal_does_not_count_for_a_later_one() {
    let mut province = Province::cities()
        .with(app("web").within(&["ningbo"]))
        .settled();
    let uid = province.uid("web");
    province.delete("web");
    let plan = province.plan();
    province.carry_out(&plan);
    let mut report = province.agents["ningbo-a"].reports[&uid].clone();
    report.state = ReportState::Removed;
    report.content = None;
    let spec = crds::ReportSliceSpec {
        entries: vec![report],
    };
    province
        .world
        .apply_report(&"ningbo-a".into(), crds::ReportSlice::new("r-0000", spec));
    assert!(
        province.plan().releases.is_empty(),
        "it reports on the generation before"
    );
}

#[test]
fn a_place_taken_back_while_it_is_being_removed_comes_back() {
    let mut province = Province::cities()
        .with(app("web").within(&["hangzhou", "ningbo"]))
        .settled();
    let only = |places: &[&str]| places.iter().map(|p| (*p).into()).collect::<Vec<_>>();
    province.edit("web", |s| {
        s.placement.regions.as_mut().unwrap().within = only(&["hangzhou"]);
    });
    province.turn();
    assert_eq!(
        province.entry("web", "ningbo-a").unwrap().state,
        EntryState::Removed
    );
    province.edit("web", |s| {
        s.placement.regions.as_mut().unwrap().within = only(&["hangzhou", "ningbo"]);
    });
    province.settle();
    assert_eq!(province.clusters_of("web"), ["hangzhou-a", "ningbo-a"]);
}

#[test]
fn an_app_of_no_replicas_leaves_no_place_for_one_that_nobody_knows() {
    let mut province = Province::example()
        .with(app("web").replicas(0, "Capacity").at_least(2).at_most(2))
        .settled();
    let places = province.clusters_of("web");
    let [gone, left] = places.as_slice() else {
        panic!("two places: {places:?}");
    };
    province.delete_cluster(gone);
    let slice = province.world.slice_names(&gone.as_str().into()).remove(0);
    province.delete_slice(gone, &slice);
    let elsewhere = ["hangzhou", "ningbo", "quzhou"].into_iter();
    let elsewhere = elsewhere.map(str::to_owned).find(|region| {
        let name = format!("{region}-a");
        name != *gone && name != *left
    });
    province.edit("web", |spec| {
        let within = vec![elsewhere.unwrap().into()];
        spec.placement.regions = Some(crds::RegionSelector {
            within,
            ..Default::default()
        });
        spec.placement.min_regions = Some(1);
    });
    // The second judge looks at every plan.
    province.settle();
    assert!(!province.clusters_of("web").contains(left));
}
