//! What moves, when, and what never does.

use crds::{ConditionType, EntryState, Reason, ReportState};
use serde_json::json;

use crate::province::{Province, app, cluster, region};

fn total(province: &Province, app: &str) -> i32 {
    province.placed(app).iter().map(|(_, n)| n).sum()
}

#[test]
fn the_new_place_is_healthy_before_the_old_one_goes() {
    let mut province = Province::cities()
        .with(app("web").replicas(6, "Even").within(&["hangzhou"]))
        .settled();
    province.edit("web", |spec| {
        spec.placement.regions.as_mut().unwrap().within = vec!["ningbo".into()];
    });
    for _ in 0..6 {
        let new = province
            .world
            .ledger(&province.uid("web"))
            .unwrap()
            .reports
            .get("ningbo-a")
            .cloned();
        let healthy = new.is_some_and(|r| r.state == ReportState::Healthy);
        let old = province.entry("web", "hangzhou-a").map(|entry| entry.state);
        assert!(healthy || old == Some(EntryState::Present));
        province.turn();
        province.world.now += 1_000;
    }
    province.settle();
    assert_eq!(province.clusters_of("web"), ["ningbo-a"]);
    assert_eq!(
        province.entry("web", "hangzhou-a"),
        None,
        "and its acknowledged tombstone is dropped"
    );
}

#[test]
fn a_place_that_never_gets_healthy_leaves_the_old_one_running() {
    let mut province = Province::cities()
        .with(app("web").replicas(6, "Even").within(&["hangzhou"]))
        .settled();
    province.bad.insert(province.wanted("web"));
    province.edit("web", |spec| {
        spec.placement.regions.as_mut().unwrap().within = vec!["ningbo".into()];
    });
    province.settle();
    assert_eq!(province.clusters_of("web"), ["hangzhou-a", "ningbo-a"]);
}

#[test]
fn shares_that_shift_grow_before_they_shrink() {
    let mut province = Province::cities()
        .with(app("web").weighted(12, &[("hangzhou", 3), ("ningbo", 1)]))
        .settled();
    assert_eq!(
        province.placed("web"),
        [("hangzhou-a".into(), 9), ("ningbo-a".into(), 3)]
    );
    province.edit("web", |spec| {
        let weights = &mut spec.replicas.as_mut().unwrap().weights;
        (weights[0].weight, weights[1].weight) = (1, 3);
    });
    let mut most = 0;
    for _ in 0..8 {
        province.turn();
        province.world.now += 1_000;
        assert!(
            total(&province, "web") >= 12,
            "an App never has less than it asks for"
        );
        most = most.max(total(&province, "web"));
        let ready: i32 = province.report("web").targets.iter().map(|t| t.ready).sum();
        assert!(ready >= 12, "{ready} ready");
    }
    assert_eq!(most, 18, "both shares stand for a moment");
    province.settle();
    assert_eq!(
        province.placed("web"),
        [("hangzhou-a".into(), 3), ("ningbo-a".into(), 9)]
    );
}

#[test]
fn scaling_down_waits_for_nobody() {
    let mut province = Province::cities()
        .with(app("web").replicas(12, "Even"))
        .settled();
    province.cut_off("ningbo-a");
    province.edit("web", |spec| spec.replicas.as_mut().unwrap().total = 6);
    province.turn();
    assert_eq!(total(&province, "web"), 6);
}

#[test]
fn nothing_moves_because_a_cluster_cannot_be_seen() {
    let mut province = Province::cities()
        .with(app("web").replicas(9, "Even"))
        .settled();
    let (placed, writes) = (province.placed("web"), province.writes);
    province.cut_off("ningbo-a");
    assert_eq!((province.placed("web"), province.writes), (placed, writes));
    assert_eq!(province.ready("web"), "OutOfContact");
    let shown = &province.report("web").status.placements;
    assert_eq!(shown.len(), 3, "what it runs is shown as last reported");
}

#[test]
fn what_runs_in_a_lost_region_moves_and_a_tombstone_waits_there() {
    let mut province = Province::cities()
        .with(app("web").replicas(9, "Even"))
        .settled();
    province.cut_off("ningbo-a");
    province.world.lost.insert("ningbo".into());
    province.settle();
    assert_eq!(province.clusters_of("web"), ["hangzhou-a", "quzhou-a"]);
    assert_eq!(total(&province, "web"), 9);
    assert_eq!(
        province.entry("web", "ningbo-a").unwrap().state,
        EntryState::Removed
    );
    province.world.lost.clear();
    province.unsilence("ningbo-a");
    province.wait(60);
    assert!(
        province.clusters_of("web").contains(&"ningbo-a".to_owned()),
        "it is used again once it is back"
    );
    assert_eq!(total(&province, "web"), 9);
}

#[test]
fn nothing_leaves_a_lost_region_for_less_than_it_had() {
    let mut province = Province::cities()
        .with(app("web").replicas(9, "Capacity"))
        .settled();
    for cluster in ["hangzhou-a", "quzhou-a"] {
        province.set_cores(cluster, 4);
    }
    province.world.lost.insert("ningbo".into());
    province.settle();
    assert_eq!(province.ready("web"), "InsufficientCapacity");
    assert_eq!(
        province.entry("web", "ningbo-a").unwrap().state,
        EntryState::Present
    );
}

#[test]
fn a_cluster_that_may_no_longer_hold_the_data_is_left_at_once_others_are_ready() {
    let mut province = Province::cities()
        .with(
            app("web")
                .replicas(6, "Even")
                .set("/dataGrade", json!("Important")),
        )
        .settled();
    province.edit_cluster("ningbo-a", |c| {
        c.spec.max_data_grade = crds::DataGrade::General;
    });
    province.settle();
    assert_eq!(province.clusters_of("web"), ["hangzhou-a", "quzhou-a"]);
    assert_eq!(total(&province, "web"), 6);
}

#[test]
fn a_member_cluster_object_that_is_gone_moves_nothing() {
    let mut province = Province::cities()
        .with(app("web").replicas(9, "Capacity"))
        .settled();
    let (placed, writes) = (province.placed("web"), province.writes);
    province.delete_cluster("ningbo-a");
    province.settle();
    assert_eq!((province.placed("web"), province.writes), (placed, writes));
    assert_eq!(province.report("web").targets.len(), 3, "it is still shown");
    province.edit("web", |spec| spec.replicas.as_mut().unwrap().total = 11);
    province.settle();
    assert_eq!(total(&province, "web"), 11, "what is added goes elsewhere");
    assert_eq!(province.placed("web")[1], ("ningbo-a".into(), 3));
}

#[test]
fn a_region_object_that_is_gone_changes_nothing_in_its_clusters() {
    let patch = json!([{"op": "add", "path": "/metadata/annotations", "value": {"sea": "yes"}}]);
    let target = json!({"group": "apps", "kind": "Deployment", "name": "web"});
    let overrides = json!([{"regions": {"within": ["ningbo"]}, "target": target, "patch": patch}]);
    let draft = app("web").replicas(9, "Even").set("/overrides", overrides);
    let mut province = Province::cities().with(draft).settled();
    assert_eq!(province.entry("web", "ningbo-a").unwrap().overrides, [0]);
    let (placed, writes) = (province.placed("web"), province.writes);
    province.regions.remove("ningbo");
    province.world.remove_region(&"ningbo".into());
    province.settle();
    assert_eq!((province.placed("web"), province.writes), (placed, writes));
    assert_eq!(province.entry("web", "ningbo-a").unwrap().overrides, [0]);
}

#[test]
fn fewer_regions_are_used_once_the_rest_can_carry_it() {
    let mut province = Province::cities()
        .with(app("web").replicas(9, "Even"))
        .settled();
    province.edit("web", |spec| spec.placement.max_regions = Some(2));
    for _ in 0..8 {
        assert!(total(&province, "web") >= 9);
        province.turn();
        province.world.now += 1_000;
    }
    province.settle();
    assert_eq!(province.placed("web").len(), 2);
    assert_eq!(total(&province, "web"), 9);
}

#[test]
fn fewer_regions_are_used_also_when_one_of_them_is_out_of_contact() {
    let mut province = Province::cities()
        .with(app("web").replicas(9, "Duplicate"))
        .settled();
    province.set_cores("quzhou-a", 10);
    province.cut_off("quzhou-a");
    province.edit("web", |spec| spec.placement.max_regions = Some(2));
    province.settle();
    assert_eq!(province.clusters_of("web"), ["hangzhou-a", "ningbo-a"]);
    assert_eq!(
        province.entry("web", "quzhou-a").unwrap().state,
        EntryState::Removed
    );
}

#[test]
fn of_two_apps_that_claim_one_object_the_older_one_has_it() {
    let config = |name: &str| {
        app(name).and(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"},
        }))
    };
    let mut province = Province::cities()
        .with(config("first"))
        .with(config("second"))
        .settled();
    assert_eq!(province.clusters_of("first").len(), 3);
    assert_eq!(province.clusters_of("second"), [""; 0]);
    let ready = province.condition("second", ConditionType::Ready).unwrap();
    assert_eq!(ready.reason, Reason::OwnedByOther);
    assert!(
        ready.message.contains("ConfigMap shared") && ready.message.contains("App first"),
        "{}",
        ready.message
    );
    province.edit("first", |spec| drop(spec.manifests.pop()));
    province.settle();
    assert_eq!(province.clusters_of("second").len(), 3);
}

#[test]
fn one_object_name_in_two_tenants_is_no_conflict() {
    let province = Province::cities()
        .with(app("web"))
        .with(app("web").in_namespace("police").called("other"))
        .settled();
    assert_eq!(province.clusters_of("other").len(), 3);
}

#[test]
fn a_running_app_that_becomes_invalid_keeps_its_objects_and_its_room() {
    let config = |name: &str| {
        app(name).and(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"},
        }))
    };
    let mut province = Province::cities();
    province.set_cores("hangzhou-a", 10);
    province.create(
        config("first")
            .replicas(8, "Duplicate")
            .within(&["hangzhou"]),
    );
    province.settle();
    province.edit("first", |spec| {
        spec.replicas.as_mut().unwrap().workload_name = Some("nothing".into());
    });
    province.create(config("second"));
    province.create(app("late").replicas(8, "Duplicate").within(&["hangzhou"]));
    province.settle();
    assert_eq!(province.ready("first"), "Invalid");
    assert_eq!(total(&province, "first"), 8);
    assert_eq!(province.ready("second"), "OwnedByOther");
    assert_eq!(total(&province, "late"), 2);
}

#[test]
fn an_invalid_app_that_never_ran_holds_up_nobody() {
    let config = |name: &str| {
        app(name).and(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"},
        }))
    };
    let province = Province::cities()
        .with(config("broken").set("/replicas", json!({"total": -1})))
        .with(config("fine"))
        .settled();
    assert_eq!(province.ready("broken"), "Invalid");
    assert_eq!(province.clusters_of("fine").len(), 3);
}

#[test]
fn a_later_app_of_the_same_name_waits_only_where_the_earlier_one_still_is() {
    let mut province = Province::cities()
        .with(app("web").replicas(3, "Even"))
        .settled();
    province.cut_off("ningbo-a");
    province.delete("web");
    province.settle();
    assert!(
        !province.apps.contains_key("web"),
        "released, with a tombstone in ningbo"
    );
    province.create(app("web").replicas(4, "Even"));
    province.settle();
    assert_eq!(province.clusters_of("web"), ["hangzhou-a", "quzhou-a"]);
    province.unsilence("ningbo-a");
    province.wait(60);
    assert_eq!(province.clusters_of("web").len(), 3);
}

#[test]
fn a_later_app_with_nowhere_else_to_go_says_what_it_waits_for() {
    let mut province = Province::cities()
        .with(app("web").within(&["ningbo"]))
        .settled();
    province.cut_off("ningbo-a");
    province.delete("web");
    province.settle();
    province.create(app("web").within(&["ningbo"]));
    province.unsilence("ningbo-a");
    province.agents.get_mut("ningbo-a").unwrap().silent = false;
    let agent = province.agents.get_mut("ningbo-a").unwrap();
    agent.silent = true;
    for _ in 0..8 {
        province
            .world
            .apply_heartbeat(&"ningbo-a".into(), province.world.now);
        province.turn();
        province.world.now += 10_000;
    }
    assert_eq!(province.ready("web"), "PredecessorRemains");
    province.unsilence("ningbo-a");
    province.wait(60);
    assert_eq!(province.clusters_of("web"), ["ningbo-a"]);
}

#[test]
fn a_cluster_that_joins_is_used_by_apps_that_want_every_region() {
    let mut province = Province::cities()
        .with(app("web").replicas(2, "Duplicate"))
        .settled();
    province.put_region(region("wenzhou", "City", "330300", Some("zhejiang")));
    province.put_cluster(cluster("wenzhou-a", "wenzhou"));
    province.settle();
    assert_eq!(province.clusters_of("web").len(), 4);
}

#[test]
fn an_app_is_held_by_our_finalizer_before_it_is_placed() {
    let mut province = Province::cities();
    province.create(app("web").without_finalizer());
    let plan = province.plan();
    assert_eq!(plan.holds, [province.uid("web")]);
    assert!(plan.contents.is_empty());
    province.settle();
    assert_eq!(province.clusters_of("web").len(), 3);
}
