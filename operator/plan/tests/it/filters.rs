//! Every reason for which a cluster does not qualify, and what it means for what runs there.

use crds::{ConditionType, DataGrade, Management};
use plan::province::Refusal;
use serde_json::json;

use crate::province::{Draft, Province, app, cluster, region};

/// The example province with one cluster `other-a` of its own region, changed as the test wants.
fn beside(edit: impl FnOnce(&mut serde_json::Value)) -> Province {
    let mut other = cluster("other-a", "other");
    edit(&mut other);
    Province::cities()
        .with_region(region("other", "City", "331000", Some("zhejiang")))
        .with_cluster(other)
}

#[track_caller]
fn refuses(province: Province, draft: Draft, refusal: &Refusal) {
    let name = draft.name.clone();
    let province = province.with(draft).settled();
    assert_eq!(province.refusal(&name, "other-a"), Some(refusal));
    assert!(!province.clusters_of(&name).contains(&"other-a".to_owned()));
    assert_eq!(
        province.clusters_of(&name).len(),
        3,
        "the others are not affected"
    );
}

#[test]
fn an_app_runs_wherever_nothing_refuses_it() {
    let province = Province::example().with(app("web")).settled();
    assert_eq!(province.clusters_of("web").len(), 5);
    assert_eq!(province.ready("web"), "AsExpected");
}

#[test]
fn another_network_zone_is_refused() {
    let province = beside(|c| c["spec"]["zone"] = json!("Internet"));
    let (has, needs) = (crds::Zone::Internet, crds::Zone::ExtranetPublic);
    refuses(province, app("web"), &Refusal::Zone { has, needs });
}

#[test]
fn data_of_a_higher_grade_than_the_cluster_may_hold_is_refused() {
    let province = beside(|c| c["spec"]["maxDataGrade"] = json!("General"));
    let draft = app("web").set("/dataGrade", json!("Important"));
    let (has, needs) = (DataGrade::General, DataGrade::Important);
    refuses(province, draft, &Refusal::Grade { has, needs });
}

#[test]
fn a_lower_protection_level_than_the_app_needs_is_refused() {
    let province = beside(|c| c["spec"]["protectionLevel"] = json!(2));
    let draft = app("web").set("/protectionLevel", json!(3));
    refuses(province, draft, &Refusal::Protection { has: 2, needs: 3 });
}

#[test]
fn a_cluster_outside_the_named_subtrees_is_refused() {
    let draft = app("web").within(&["hangzhou", "ningbo", "quzhou"]);
    refuses(beside(|_| {}), draft, &Refusal::OutsideRegions);
}

#[test]
fn a_subtree_holds_the_counties_of_its_cities() {
    let province = Province::example()
        .with(app("web").within(&["hangzhou"]))
        .settled();
    assert_eq!(province.clusters_of("web"), ["hangzhou-a", "yuhang-a"]);
}

#[test]
fn another_level_than_asked_for_is_refused() {
    let draft = app("web").set("/placement/regions/levels", json!(["City"]));
    let province = Province::example().with(draft).settled();
    assert_eq!(province.refusal("web", "yuhang-a"), Some(&Refusal::Level));
    assert_eq!(
        province.clusters_of("web"),
        ["hangzhou-a", "ningbo-a", "quzhou-a"]
    );
}

#[test]
fn a_region_without_the_asked_labels_is_refused() {
    let draft = app("web").set(
        "/placement/regions/selector/matchLabels",
        json!({"sea": "yes"}),
    );
    let mut province = Province::cities();
    province.edit_region("ningbo", |r| {
        r.metadata.labels = Some([("sea".into(), "yes".into())].into());
    });
    let province = province.with(draft).settled();
    assert_eq!(province.clusters_of("web"), ["ningbo-a"]);
    assert_eq!(
        province.refusal("web", "quzhou-a"),
        Some(&Refusal::RegionLabels)
    );
}

#[test]
fn a_cluster_without_the_asked_labels_is_refused() {
    let selector = json!([{"key": "gpu", "operator": "DoesNotExist"}]);
    let draft = app("web").set("/placement/clusters/matchExpressions", selector);
    let province = beside(|c| c["metadata"]["labels"] = json!({"gpu": "a100"}));
    refuses(province, draft, &Refusal::ClusterLabels);
}

#[test]
fn a_cluster_that_is_only_observed_is_refused_unless_the_app_takes_over() {
    let observed = || beside(|c| c["spec"]["management"] = json!("Observe"));
    refuses(observed(), app("web"), &Refusal::ObserveOnly);
    let province = observed()
        .with(app("adopter").set("/takeOver", json!("Always")))
        .settled();
    assert_eq!(province.clusters_of("adopter").len(), 4);
}

#[test]
fn a_cluster_that_is_being_released_is_refused() {
    refuses(
        beside(|c| c["spec"]["management"] = json!("Release")),
        app("web"),
        &Refusal::Releasing,
    );
}

#[test]
fn a_cluster_whose_agent_never_reported_is_refused() {
    let mut province =
        Province::cities().with_region(region("other", "City", "331000", Some("zhejiang")));
    let joined: crds::MemberCluster = serde_json::from_value(cluster("other-a", "other")).unwrap();
    province.world.apply_cluster(&joined);
    province.clusters.insert("other-a".into(), joined);
    refuses(province, app("web"), &Refusal::NotJoined);
}

#[test]
fn a_cluster_out_of_contact_is_refused_and_one_that_returns_until_it_is_steady() {
    let mut province = beside(|_| {}).settled();
    province.cut_off("other-a");
    province.create(app("web"));
    province.settle();
    assert_eq!(
        province.refusal("web", "other-a"),
        Some(&Refusal::OutOfContact)
    );
    province.unsilence("other-a");
    province.turn();
    assert_eq!(
        province.refusal("web", "other-a"),
        Some(&Refusal::Returning)
    );
    province.wait(30);
    assert_eq!(province.refusal("web", "other-a"), None);
    assert_eq!(province.clusters_of("web").len(), 4);
}

#[test]
fn a_closed_region_takes_nothing_new_and_keeps_what_it_has() {
    let mut province = beside(|_| {}).with(app("old")).settled();
    let end = province.world.now + 5_000;
    province.edit_region("other", |r| {
        r.spec.valid_until = Some(crds::Timestamp::from_millis(end));
    });
    province.wait(10);
    refuses(province.clone(), app("web"), &Refusal::RegionClosed);
    assert_eq!(province.clusters_of("old").len(), 4);
}

#[test]
fn a_region_opens_on_its_first_day() {
    let start = crate::province::START + 60_000;
    let mut province = beside(|_| {});
    province.edit_region("other", |r| {
        r.spec.valid_from = Some(crds::Timestamp::from_millis(start));
    });
    let mut province = province.with(app("web")).settled();
    assert_eq!(province.clusters_of("web").len(), 3);
    province.wait(60);
    assert_eq!(province.clusters_of("web").len(), 4);
}

#[test]
fn a_lost_region_is_refused_with_everything_below_it() {
    let mut province = Province::example();
    province.world.lost.insert("hangzhou".into());
    let province = province.with(app("web")).settled();
    assert_eq!(province.refusal("web", "yuhang-a"), Some(&Refusal::Lost));
    assert_eq!(
        province.clusters_of("web"),
        ["ningbo-a", "quzhou-a", "zhejiang-a"]
    );
}

#[test]
fn a_cluster_of_a_parked_region_is_refused() {
    let mut province =
        Province::cities().with_region(region("other", "City", "331000", Some("nowhere")));
    province.put_cluster(cluster("other-a", "other"));
    refuses(province, app("web"), &Refusal::RegionParked);
}

#[test]
fn a_parked_cluster_is_refused() {
    refuses(
        beside(|c| c["spec"]["connection"] = json!({})),
        app("web"),
        &Refusal::ClusterParked,
    );
}

#[test]
fn a_cluster_that_is_being_deleted_is_refused() {
    let province = beside(|c| c["metadata"]["deletionTimestamp"] = json!("2026-11-01T00:00:00Z"));
    refuses(province, app("web"), &Refusal::Deleting);
}

#[test]
fn another_cluster_under_the_same_name_is_refused_and_nothing_leaves_the_old_one() {
    let mut province = beside(|_| {}).with(app("old")).settled();
    province.edit_report("other-a", |r| {
        r["spec"]["clusterUID"] = json!("an-impostor");
    });
    refuses(
        province.clone().settled(),
        app("web"),
        &Refusal::IdentityChanged,
    );
    province.settle();
    assert_eq!(province.clusters_of("old").len(), 4);
    let joined = province
        .cluster_condition("other-a", ConditionType::Joined)
        .unwrap();
    assert_eq!(joined.reason, crds::Reason::IdentityChanged);
    let pinned = province.clusters["other-a"]
        .status
        .as_ref()
        .unwrap()
        .cluster_uid
        .clone();
    assert_eq!(pinned, Some("kube-system-of-other-a".into()));
}

#[test]
fn a_cluster_whose_agent_refuses_this_hub_is_refused() {
    let mut province = beside(|_| {}).settled();
    province.edit_report("other-a", |r| {
        r["spec"]["frozen"] = json!("The hub is older than before.");
    });
    refuses(province.clone(), app("web"), &Refusal::HubRefused);
    province.settle();
    let ready = province
        .cluster_condition("other-a", ConditionType::Ready)
        .unwrap();
    assert_eq!(ready.message, "The hub is older than before.");
    assert!(
        province
            .cluster_condition("other-a", ConditionType::Stalled)
            .is_some()
    );
}

#[test]
fn the_reason_the_author_can_act_on_comes_before_what_only_time_can_change() {
    let mut province = beside(|c| c["spec"]["zone"] = json!("Internet")).settled();
    province.cut_off("other-a");
    let (has, needs) = (crds::Zone::Internet, crds::Zone::ExtranetPublic);
    refuses(province, app("web"), &Refusal::Zone { has, needs });
}

#[test]
fn what_is_being_released_is_let_go_as_it_is_and_replaced_elsewhere() {
    let mut province = Province::cities()
        .with(app("web").replicas(9, "Capacity"))
        .settled();
    province.edit_cluster("ningbo-a", |c| c.spec.management = Management::Release);
    province.turn();
    let state = province.entry("web", "ningbo-a").unwrap().state;
    assert_eq!(state, crds::EntryState::Released);
    province.settle();
    assert_eq!(province.entry("web", "ningbo-a"), None);
    assert_eq!(
        province.placed("web").iter().map(|(_, n)| n).sum::<i32>(),
        9
    );
}
