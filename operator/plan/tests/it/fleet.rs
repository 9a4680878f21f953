//! Regions, clusters, and who is in contact.

use crds::{ConditionStatus, ConditionType, Reason};
use plan::province::Refusal;
use serde_json::json;

use crate::province::{Province, app, cluster, region};

#[track_caller]
fn parks(province: Province, name: &str, reason: Reason, message: &str) {
    let province = province.settled();
    let ready = province
        .region_condition(name, ConditionType::Ready)
        .unwrap();
    assert_eq!(ready.reason, reason, "{}", ready.message);
    assert!(ready.message.contains(message), "{}", ready.message);
    assert!(
        province
            .region_condition(name, ConditionType::Stalled)
            .is_some()
    );
    let ready = province
        .region_condition("hangzhou", ConditionType::Ready)
        .unwrap();
    assert_eq!(
        ready.status,
        ConditionStatus::True,
        "the others are not affected"
    );
}

#[test]
fn regions_whose_parents_lead_back_to_them_are_parked() {
    let province = Province::example()
        .with_region(region("a", "Zone", "", Some("b")))
        .with_region(region("b", "Zone", "", Some("a")));
    parks(
        province,
        "a",
        Reason::RegionCycle,
        "spec.parent leads back to a over a, b",
    );
}

#[test]
fn a_region_under_a_parent_that_does_not_exist_is_parked() {
    let province = Province::example().with_region(region("x", "City", "331000", Some("nowhere")));
    parks(
        province,
        "x",
        Reason::ParentMissing,
        "Region nowhere, the parent of x",
    );
}

#[test]
fn a_city_under_a_city_is_parked() {
    let province = Province::example().with_region(region("x", "City", "331000", Some("ningbo")));
    parks(
        province,
        "x",
        Reason::LevelMismatch,
        "x is a City under the City ningbo",
    );
}

#[test]
fn a_county_with_another_citys_code_is_parked() {
    let province =
        Province::example().with_region(region("x", "County", "330211", Some("hangzhou")));
    parks(province, "x", Reason::CodeMismatch, "must begin with 3301");
}

#[test]
fn a_code_that_does_not_fit_its_level_is_parked() {
    let province = Province::example().with_region(region("x", "City", "331011", Some("zhejiang")));
    parks(province, "x", Reason::CodeMismatch, "must end in 0000");
}

#[test]
fn of_two_regions_with_one_code_the_younger_is_parked() {
    let mut young = region("a-newcomer", "City", "330100", Some("zhejiang"));
    young["metadata"]["creationTimestamp"] = json!("2026-05-01T00:00:00Z");
    parks(
        Province::example().with_region(young),
        "a-newcomer",
        Reason::CodeTaken,
        "Region hangzhou",
    );
}

#[test]
fn what_stands_under_a_region_whose_code_is_taken_is_parked_as_well() {
    let mut young = region("a-newcomer", "City", "330100", Some("zhejiang"));
    young["metadata"]["creationTimestamp"] = json!("2026-05-01T00:00:00Z");
    let province = Province::example().with_region(young).with_region(region(
        "below",
        "County",
        "330122",
        Some("a-newcomer"),
    ));
    parks(
        province,
        "below",
        Reason::ParentMissing,
        "Region a-newcomer",
    );
}

#[test]
fn a_zone_stands_anywhere_and_has_no_code() {
    let province = Province::example()
        .with_region(region("future-sci", "Zone", "", Some("hangzhou")))
        .settled();
    let ready = province
        .region_condition("future-sci", ConditionType::Ready)
        .unwrap();
    assert_eq!(ready.status, ConditionStatus::True);
    assert_eq!(ready.reason, Reason::NoClusters);
}

#[test]
fn a_region_adds_up_everything_below_it() {
    let mut province = Province::example();
    province.edit_report("yuhang-a", |r| {
        r["spec"]["allocatable"] =
            json!([{"name": "cpu", "quantity": "20"}, {"name": "memory", "quantity": "64Gi"}]);
        r["spec"]["managed"] = json!([{"name": "cpu", "quantity": "1500m"}]);
        r["spec"]["others"] = json!([{"name": "cpu", "quantity": "2"}]);
    });
    let province = province.settled();
    let status = province.regions["hangzhou"].status.clone().unwrap();
    assert_eq!(status.clusters.unwrap().summary, "2/2");
    assert_eq!(status.cpu.as_deref(), Some("3.5/120"));
    assert_eq!(status.headroom.as_deref(), Some("116"), "of 116.5");
    let memory = status
        .resources
        .iter()
        .find(|r| r.name == "memory")
        .unwrap();
    assert_eq!(memory.allocatable.0, "64Gi");
    let whole = province.regions["zhejiang"].status.clone().unwrap();
    assert_eq!(whole.clusters.unwrap().total, 5);
    assert_eq!(whole.cpu.as_deref(), Some("3.5/420"));
}

#[test]
fn an_overcommitted_region_has_no_headroom_rather_than_less_than_none() {
    let mut province = Province::cities();
    province.edit_report("ningbo-a", |r| {
        r["spec"]["others"] = json!([{"name": "cpu", "quantity": "120"}]);
    });
    let province = province.settled();
    assert_eq!(
        province.regions["ningbo"]
            .status
            .as_ref()
            .unwrap()
            .headroom
            .as_deref(),
        Some("0")
    );
}

#[test]
fn a_cluster_is_out_of_contact_after_forty_seconds_of_silence() {
    let mut province = Province::cities().settled();
    province.turn();
    let last = province.world.now;
    province.silence("ningbo-a");
    let status = |province: &mut Province, at: i64| {
        province.world.now = at;
        province.turn();
        province
            .cluster_condition("ningbo-a", ConditionType::Reachable)
            .unwrap()
            .reason
    };
    assert_eq!(status(&mut province, last + 40_000), Reason::InContact);
    assert_eq!(status(&mut province, last + 40_001), Reason::OutOfContact);
    province.turn();
    assert_eq!(
        province.regions["ningbo"]
            .status
            .as_ref()
            .unwrap()
            .conditions[0]
            .reason,
        Reason::OutOfContact
    );
    let whole = province
        .region_condition("zhejiang", ConditionType::Reachable)
        .unwrap();
    assert_eq!(whole.reason, Reason::PartlyReachable);
}

#[test]
fn a_cluster_is_in_contact_again_after_thirty_steady_seconds() {
    let mut province = Province::cities().settled();
    province.cut_off("ningbo-a");
    province.unsilence("ningbo-a");
    province.turn();
    let back = province.world.now;
    let status = |province: &mut Province, at: i64| {
        province.world.now = at;
        province.turn();
        province
            .cluster_condition("ningbo-a", ConditionType::Reachable)
            .unwrap()
            .reason
    };
    assert_eq!(status(&mut province, back + 15_000), Reason::Returning);
    assert_eq!(status(&mut province, back + 29_999), Reason::Returning);
    assert_eq!(status(&mut province, back + 30_000), Reason::InContact);
}

#[test]
fn a_cluster_that_flaps_is_not_relied_on() {
    let mut province = Province::cities().settled();
    province.cut_off("ningbo-a");
    for _ in 0..4 {
        province.unsilence("ningbo-a");
        province.turn();
        province.silence("ningbo-a");
        province.world.now += 45_000;
        province.turn();
        let reachable = province
            .cluster_condition("ningbo-a", ConditionType::Reachable)
            .unwrap();
        assert_eq!(reachable.status, ConditionStatus::False);
    }
}

#[test]
fn a_hub_that_hears_nothing_leaves_everybody_where_they_are() {
    let mut province = Province::cities()
        .with(app("web"))
        .with(app("api"))
        .settled();
    province.cut_off("ningbo-a");
    province.delete("api");
    province.turn();
    for name in ["hangzhou-a", "quzhou-a"] {
        province.silence(name);
    }
    province.world.heard = province.world.now;
    province.world.now += 3_600_000;
    let plan = province.plan();
    assert!(plan.releases.is_empty(), "nobody acknowledged the removal");
    assert_eq!(plan.wake_at, Some(province.world.now + 2_500));
    let reason = |province: &Province, name: &str| {
        let reachable = province.cluster_condition(name, ConditionType::Reachable);
        reachable.unwrap().reason
    };
    assert_eq!(reason(&province, "hangzhou-a"), Reason::InContact);
    assert_eq!(reason(&province, "ningbo-a"), Reason::OutOfContact);
    // It hears again, and what it missed: quzhou went on, hangzhou did not.
    province.unsilence("quzhou-a");
    province.hear();
    province.world.heard = province.world.now;
    let _plan = province.plan();
    assert_eq!(reason(&province, "hangzhou-a"), Reason::OutOfContact);
    assert_eq!(reason(&province, "quzhou-a"), Reason::InContact);
}

#[test]
fn a_new_leader_gives_clusters_time_to_be_heard() {
    let mut province = Province::cities().with(app("web")).settled();
    province.cut_off("ningbo-a");
    let mut next = province.clone();
    let hub = plan::world::Hub {
        leader_epoch: 2,
        ..province.world.hub.clone()
    };
    next.world = plan::World::new(hub, province.world.settings.clone());
    (next.world.now, next.world.started) = (province.world.now, province.world.now);
    province
        .regions
        .values()
        .for_each(|region| next.world.apply_region(region));
    for (name, cluster) in &province.clusters {
        next.world.apply_cluster(cluster);
        let report = province.agents[name].cluster_report.clone();
        next.world
            .apply_cluster_report(name.clone(), &serde_json::from_value(report).unwrap());
    }
    let reason = |next: &Province, name: &str| {
        let (_, report) = plan::plan(&next.world);
        crds::find_condition(&report.clusters[name].conditions, ConditionType::Reachable)
            .unwrap()
            .reason
    };
    assert_eq!(
        reason(&next, "hangzhou-a"),
        Reason::InContact,
        "was in contact, not heard of yet"
    );
    assert_eq!(
        reason(&next, "ningbo-a"),
        Reason::OutOfContact,
        "was out of contact before"
    );
    next.world.now += 40_001;
    assert_eq!(reason(&next, "hangzhou-a"), Reason::OutOfContact);
}

#[test]
fn a_cluster_in_a_region_that_does_not_exist_says_what_to_create() {
    let province = Province::cities()
        .with_cluster(cluster("lost-a", "atlantis"))
        .settled();
    let ready = province
        .cluster_condition("lost-a", ConditionType::Ready)
        .unwrap();
    assert_eq!(ready.reason, Reason::RegionMissing);
    assert!(
        ready
            .message
            .contains("Region atlantis, which spec.regionName names, does not exist: create it")
    );
}

#[test]
fn a_cluster_whose_kubeconfig_is_refused_says_so_and_what_to_do() {
    let mut pushed = cluster("ningbo-a", "ningbo");
    pushed["spec"]["connection"] = json!({"push": {"kubeconfigSecretName": "ningbo-a"}});
    let mut province = Province::cities().with_cluster(pushed).settled();
    let why = "Secret jiuzhou-system/ningbo-a has no key kubeconfig: put it there";
    let world = &mut province.world;
    world.apply_connection(&"ningbo-a".into(), Some(why.to_owned()));
    world.apply_connection(
        &"quzhou-a".into(),
        Some("pulled, so it has none".to_owned()),
    );
    province.settle();
    for kind in [ConditionType::Joined, ConditionType::Ready] {
        let said = province.cluster_condition("ningbo-a", kind).unwrap();
        assert_eq!(said.status, ConditionStatus::False);
        assert_eq!(said.reason, Reason::KubeconfigRefused);
        assert_eq!(said.message, why);
    }
    let stalled = province.cluster_condition("ningbo-a", ConditionType::Stalled);
    assert!(stalled.is_some());
    let other = province.cluster_condition("quzhou-a", ConditionType::Joined);
    assert_eq!(other.unwrap().status, ConditionStatus::True);
    province.world.apply_connection(&"ningbo-a".into(), None);
    province.settle();
    let joined = province.cluster_condition("ningbo-a", ConditionType::Joined);
    assert_eq!(joined.unwrap().status, ConditionStatus::True);
}

#[test]
fn a_cluster_under_a_second_name_is_refused_and_the_first_goes_on() {
    let mut province = Province::cities().with(app("web")).settled();
    province.put_cluster(cluster("again-a", "quzhou"));
    province.edit_report("again-a", |report| {
        report["spec"]["clusterUID"] = json!("kube-system-of-ningbo-a");
    });
    province.create(app("api").replicas(30, "Even"));
    province.settle();
    let joined = province.cluster_condition("again-a", ConditionType::Joined);
    let joined = joined.unwrap();
    assert_eq!(joined.reason, Reason::ClusterTaken);
    assert!(
        joined.message.contains("MemberCluster ningbo-a"),
        "{}",
        joined.message
    );
    assert_eq!(
        province.clusters["again-a"]
            .status
            .as_ref()
            .unwrap()
            .cluster_uid,
        None
    );
    assert_eq!(
        province.refusal("api", "again-a"),
        Some(&Refusal::Duplicate)
    );
    assert_eq!(province.clusters_of("api").len(), 3);
    let first = province.cluster_condition("ningbo-a", ConditionType::Joined);
    assert_eq!(first.unwrap().status, ConditionStatus::True);
    let quzhou = province.regions["quzhou"].status.clone().unwrap();
    assert_eq!(
        quzhou.cpu.as_deref(),
        Some("0/100"),
        "its machines count once"
    );
    // The first one goes, and the second takes its place.
    province.delete("web");
    province.delete("api");
    province.settle();
    province.delete_slice("ningbo-a", "a-0000");
    province.delete_cluster("ningbo-a");
    province.settle();
    let joined = province.cluster_condition("again-a", ConditionType::Joined);
    assert_eq!(joined.unwrap().status, ConditionStatus::True);
}

#[test]
fn of_two_names_that_joined_with_one_cluster_the_older_one_counts() {
    let mut province = Province::cities().settled();
    for (name, created) in [("ningbo-a", "2026-02-01"), ("quzhou-a", "2026-01-01")] {
        province.edit_report(name, |report| report["spec"]["clusterUID"] = json!("one"));
        province.edit_cluster(name, |cluster| {
            let time = json!(format!("{created}T00:00:00Z"));
            cluster.metadata.creation_timestamp = serde_json::from_value(time).unwrap();
            cluster.status.as_mut().unwrap().cluster_uid = Some("one".into());
        });
    }
    province.settle();
    let reason = |name: &str| {
        let joined = province.cluster_condition(name, ConditionType::Joined);
        joined.unwrap().reason
    };
    assert_eq!(reason("ningbo-a"), Reason::ClusterTaken);
    assert_eq!(reason("quzhou-a"), Reason::AsExpected);
}

#[test]
fn a_cluster_in_a_parked_region_says_so() {
    let province = Province::cities()
        .with_region(region("x", "City", "331000", Some("nowhere")))
        .with_cluster(cluster("x-a", "x"))
        .settled();
    let ready = province
        .cluster_condition("x-a", ConditionType::Ready)
        .unwrap();
    assert!(ready.message.contains("is parked"), "{}", ready.message);
}

#[test]
fn a_member_cluster_that_is_gone_has_no_status_to_write() {
    let mut province = Province::cities().with(app("web")).settled();
    province.delete_cluster("ningbo-a");
    province.turn();
    province.settle();
}

#[test]
fn a_cluster_counts_the_apps_that_are_present() {
    let mut province = Province::cities()
        .with(app("web"))
        .with(app("api"))
        .settled();
    assert_eq!(
        province.clusters["ningbo-a"].status.as_ref().unwrap().apps,
        Some(2)
    );
    province.silence("ningbo-a");
    province.delete("api");
    province.turn();
    province.turn();
    assert_eq!(
        province.clusters["ningbo-a"].status.as_ref().unwrap().apps,
        Some(1)
    );
}
