//! How many replicas go where.

use crds::{ConditionType, HpaBounds};
use plan::report::Shortage;
use serde_json::json;

use crate::province::{Province, app, cluster, count, manifest, region};

fn placed(list: &[(&str, i32)]) -> Vec<(String, i32)> {
    list.iter()
        .map(|(cluster, n)| ((*cluster).to_owned(), *n))
        .collect()
}

fn total(province: &Province, app: &str) -> i32 {
    province.placed(app).iter().map(|(_, n)| n).sum()
}

#[test]
fn duplicate_gives_every_region_the_whole_number() {
    let province = Province::cities()
        .with(app("web").replicas(4, "Duplicate"))
        .settled();
    assert_eq!(
        province.placed("web"),
        placed(&[("hangzhou-a", 4), ("ningbo-a", 4), ("quzhou-a", 4)])
    );
}

#[test]
fn even_gives_every_region_an_equal_share() {
    let province = Province::cities()
        .with(app("web").replicas(10, "Even"))
        .settled();
    assert_eq!(
        province.placed("web"),
        placed(&[("hangzhou-a", 4), ("ningbo-a", 3), ("quzhou-a", 3)])
    );
}

#[test]
fn weights_divide_by_weight_and_leave_out_regions_without_any() {
    let draft = app("web").weighted(9, &[("hangzhou", 2), ("ningbo", 1), ("quzhou", 0)]);
    let province = Province::cities().with(draft).settled();
    assert_eq!(
        province.placed("web"),
        placed(&[("hangzhou-a", 6), ("ningbo-a", 3)])
    );
}

#[test]
fn capacity_gives_most_to_the_roomiest() {
    let province = Province::cities()
        .with_cores("hangzhou-a", 60)
        .with_cores("ningbo-a", 30)
        .with_cores("quzhou-a", 30)
        .with(app("web").replicas(12, "Capacity"))
        .settled();
    assert_eq!(
        province.placed("web"),
        placed(&[("hangzhou-a", 6), ("ningbo-a", 3), ("quzhou-a", 3)])
    );
}

#[test]
fn requests_in_thousandths_of_a_core_count() {
    let province = Province::cities()
        .with_cores("hangzhou-a", 1)
        .with(
            app("web")
                .replicas(5, "Duplicate")
                .cores("250m")
                .within(&["hangzhou"]),
        )
        .settled();
    assert_eq!(province.placed("web"), placed(&[("hangzhou-a", 4)]));
    assert_eq!(province.ready("web"), "InsufficientCapacity");
}

#[test]
fn what_a_full_region_cannot_take_goes_to_the_others() {
    let province = Province::cities()
        .with_cores("quzhou-a", 2)
        .with(app("web").replicas(12, "Even"))
        .settled();
    assert_eq!(
        province.placed("web"),
        placed(&[("hangzhou-a", 5), ("ningbo-a", 5), ("quzhou-a", 2)])
    );
    assert_eq!(province.report("web").shortage, None);
}

#[test]
fn what_fits_nowhere_is_missing_and_said_so() {
    let mut province = Province::cities();
    for cluster in ["hangzhou-a", "ningbo-a", "quzhou-a"] {
        province.set_cores(cluster, 3);
    }
    let mut province = province.with(app("web").replicas(12, "Capacity")).settled();
    assert_eq!(total(&province, "web"), 9);
    assert_eq!(
        province.report("web").shortage,
        Some(Shortage::Capacity {
            placed: 9,
            wanted: 12
        })
    );
    assert!(province.condition("web", ConditionType::Stalled).is_some());
    province.set_cores("ningbo-a", 6);
    province.settle();
    assert_eq!(total(&province, "web"), 12, "room that appears is used");
    assert_eq!(province.ready("web"), "AsExpected");
}

#[test]
fn zero_replicas_keep_one_place_for_services_and_configuration() {
    let province = Province::cities()
        .with(app("web").replicas(0, "Capacity"))
        .settled();
    assert_eq!(province.placed("web").len(), 1);
    assert_eq!(total(&province, "web"), 0);
}

#[test]
fn scaling_to_zero_and_back_moves_nothing() {
    for division in ["Capacity", "Even", "Duplicate"] {
        let mut province = Province::cities()
            .with(app("web").replicas(6, division))
            .settled();
        let before = province.placed("web");
        province.edit("web", |spec| spec.replicas.as_mut().unwrap().total = 0);
        province.settle();
        assert_eq!(total(&province, "web"), 0);
        assert_eq!(province.placed("web").len(), before.len(), "{division}");
        province.edit("web", |spec| spec.replicas.as_mut().unwrap().total = 6);
        province.settle();
        assert_eq!(province.placed("web"), before, "{division}");
    }
}

#[test]
fn a_hundred_thousand_replicas_are_placed() {
    let mut province = Province::cities();
    for cluster in ["hangzhou-a", "ningbo-a", "quzhou-a"] {
        province.set_cores(cluster, 50_000);
    }
    let province = province
        .with(app("web").replicas(100_000, "Capacity"))
        .settled();
    assert_eq!(total(&province, "web"), 100_000);
    assert!(province.placed("web").iter().all(|(_, n)| *n >= 33_333));
}

#[test]
fn at_most_so_many_regions_are_used() {
    let province = Province::example()
        .with(app("web").replicas(6, "Even").at_most(2))
        .settled();
    assert_eq!(
        province
            .placed("web")
            .iter()
            .map(|(_, n)| *n)
            .collect::<Vec<_>>(),
        [3, 3]
    );
}

#[test]
fn of_the_regions_to_use_those_that_can_take_a_fair_share_come_first() {
    // The small ones are emptier by share, but the replicas would not fit there.
    let province = Province::cities()
        .with_cores("hangzhou-a", 4)
        .with_cores("ningbo-a", 4)
        .with(app("tiny").replicas(50, "Duplicate").within(&["quzhou"]))
        .settled()
        .with(app("web").replicas(10, "Capacity").at_most(1))
        .settled();
    assert_eq!(province.placed("web"), placed(&[("quzhou-a", 10)]));
}

#[test]
fn of_equal_regions_the_emptiest_comes_first() {
    for (full, others) in [
        ("quzhou", ["hangzhou-a", "ningbo-a"]),
        ("hangzhou", ["ningbo-a", "quzhou-a"]),
    ] {
        let province = Province::cities()
            .with_cores("hangzhou-a", 30)
            .with_cores("ningbo-a", 30)
            .with_cores("quzhou-a", 30)
            .with(app("first").replicas(20, "Duplicate").within(&[full]))
            .settled()
            .with(app("second").replicas(4, "Duplicate").at_most(2))
            .settled();
        let there: Vec<String> = province.placed("second").into_iter().map(|p| p.0).collect();
        assert_eq!(there, others);
    }
}

#[test]
fn an_app_that_needs_more_regions_than_qualify_starts_nowhere() {
    let draft = app("web")
        .replicas(6, "Even")
        .at_least(3)
        .within(&["hangzhou", "ningbo"]);
    let province = Province::cities().with(draft).settled();
    assert_eq!(province.placed("web"), []);
    assert_eq!(
        province.report("web").shortage,
        Some(Shortage::TooFewRegions {
            found: 2,
            needed: 3
        })
    );
    assert_eq!(province.ready("web"), "TooFewRegions");
}

#[test]
fn an_app_that_qualifies_nowhere_says_so() {
    let province = Province::cities()
        .with(app("web").set("/zone", json!("Internet")))
        .settled();
    assert_eq!(
        province.report("web").shortage,
        Some(Shortage::NoClusterQualifies)
    );
}

#[test]
fn regions_that_must_take_part_do_so_by_capacity_too() {
    let province = Province::cities()
        .with_cores("hangzhou-a", 90)
        .with_cores("ningbo-a", 3)
        .with_cores("quzhou-a", 3)
        .with(app("web").replicas(3, "Capacity").at_least(3))
        .settled();
    assert_eq!(
        province.placed("web"),
        placed(&[("hangzhou-a", 1), ("ningbo-a", 1), ("quzhou-a", 1)])
    );
}

#[test]
fn a_cluster_of_unknown_capacity_takes_nothing_by_capacity() {
    let mut province = Province::cities();
    province.edit_report("ningbo-a", |r| {
        r["spec"]["nodes"] = json!({"total": 0, "ready": 0});
    });
    let province = province.with(app("web").replicas(6, "Capacity")).settled();
    assert_eq!(province.clusters_of("web"), ["hangzhou-a", "quzhou-a"]);
}

#[test]
fn two_clusters_of_one_region_share_its_part_roomiest_first() {
    let province = Province::cities()
        .with_cluster(cluster("hangzhou-b", "hangzhou"))
        .with_cores("hangzhou-b", 2)
        .with_cores("hangzhou-a", 4)
        .with(app("web").replicas(5, "Duplicate").within(&["hangzhou"]))
        .settled();
    assert_eq!(
        province.placed("web"),
        placed(&[("hangzhou-a", 4), ("hangzhou-b", 1)])
    );
}

#[test]
fn without_replicas_the_manifests_run_once_in_every_region() {
    let province = Province::cities()
        .with_cluster(cluster("hangzhou-b", "hangzhou"))
        .with(app("web"))
        .settled();
    assert_eq!(province.clusters_of("web").len(), 3);
    assert!(province.entry("web", "ningbo-a").unwrap().stages.is_empty());
}

#[test]
fn both_bounds_of_an_autoscaler_are_divided() {
    let province = Province::cities()
        .with(app("web").scaling(4, 12, "Even"))
        .settled();
    let bounds = |c| province.entry("web", c).unwrap().stages[0].hpa.unwrap();
    assert_eq!(bounds("hangzhou-a"), HpaBounds { min: 2, max: 4 });
    assert_eq!(bounds("ningbo-a"), HpaBounds { min: 1, max: 4 });
    assert_eq!(bounds("quzhou-a"), HpaBounds { min: 1, max: 4 });
}

#[test]
fn an_autoscaler_is_charged_for_its_upper_bound() {
    let mut province = Province::cities();
    province.set_cores("hangzhou-a", 10);
    let province = province
        .with(app("web").scaling(1, 8, "Duplicate").within(&["hangzhou"]))
        .settled()
        .with(app("late").replicas(5, "Duplicate").within(&["hangzhou"]))
        .settled();
    assert_eq!(province.placed("late"), placed(&[("hangzhou-a", 2)]));
}

#[test]
fn an_autoscaler_in_plain_manifests_is_charged_for_its_upper_bound_too() {
    let mut province = Province::cities();
    province.set_cores("hangzhou-a", 12);
    let province = province
        .with(
            app("web")
                .and(manifest("HorizontalPodAutoscaler", "web"))
                .within(&["hangzhou"]),
        )
        .settled()
        .with(app("late").replicas(5, "Duplicate").within(&["hangzhou"]))
        .settled();
    assert_eq!(province.placed("late"), placed(&[("hangzhou-a", 2)]));
}

#[test]
fn a_burst_of_apps_in_one_turn_overcommits_nothing() {
    let mut province = Province::cities();
    for cluster in ["hangzhou-a", "ningbo-a", "quzhou-a"] {
        province.set_cores(cluster, 10);
    }
    for n in 0..8 {
        province.create(app(&format!("web-{n}")).replicas(5, "Capacity"));
    }
    province.settle();
    let mut used = std::collections::BTreeMap::<String, i32>::new();
    for (cluster, n) in (0..8).flat_map(|n| province.placed(&format!("web-{n}"))) {
        *used.entry(cluster).or_default() += n;
    }
    assert_eq!(used.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[test]
fn room_is_given_out_by_tier_then_by_age() {
    let mut province = Province::cities();
    province.set_cores("hangzhou-a", 10);
    let here = |name: &str| app(name).replicas(6, "Duplicate").within(&["hangzhou"]);
    province.create(here("ancillary").tier("Ancillary"));
    province.create(here("general"));
    province.create(here("core").tier("Core"));
    province.settle();
    assert_eq!(province.placed("core"), placed(&[("hangzhou-a", 6)]));
    assert_eq!(province.placed("general"), placed(&[("hangzhou-a", 4)]));
    assert_eq!(province.placed("ancillary"), []);
    let at = province.position("hangzhou-a");
    let verdict = province.report("ancillary").verdict(at);
    assert_eq!(verdict, Some(plan::report::ClusterVerdict::NoRoom));
}

#[test]
fn what_others_use_is_no_room() {
    let mut province = Province::cities();
    province.edit_report("hangzhou-a", |r| {
        r["spec"]["others"] = json!([{"name": "cpu", "quantity": "95500m"}]);
    });
    let province = province
        .with(app("web").replicas(6, "Duplicate").within(&["hangzhou"]))
        .settled();
    assert_eq!(province.placed("web"), placed(&[("hangzhou-a", 4)]));
}

#[test]
fn what_is_already_running_is_not_counted_twice() {
    let mut province = Province::cities();
    province.set_cores("hangzhou-a", 10);
    let mut province = province
        .with(app("web").replicas(6, "Duplicate").within(&["hangzhou"]))
        .settled();
    province.edit_report("hangzhou-a", |r| {
        r["spec"]["managed"] = json!([{"name": "cpu", "quantity": "6"}]);
    });
    let province = province
        .with(app("late").replicas(6, "Duplicate").within(&["hangzhou"]))
        .settled();
    assert_eq!(province.placed("late"), placed(&[("hangzhou-a", 4)]));
}

#[test]
fn a_new_roomier_cluster_moves_nothing() {
    let mut province = Province::cities()
        .with(app("web").replicas(12, "Capacity"))
        .settled();
    let before = (province.placed("web"), province.writes);
    province.put_region(region("wenzhou", "City", "330300", Some("zhejiang")));
    province.put_cluster(cluster("wenzhou-a", "wenzhou"));
    province.set_cores("wenzhou-a", 10_000);
    province.settle();
    assert_eq!(province.placed("web"), before.0);
    assert_eq!(
        province.writes,
        before.1 + 1,
        "only the new cluster's own first slice is written"
    );
}

#[test]
fn scaling_up_only_adds_and_scaling_down_only_takes() {
    for division in ["Capacity", "Even", "Duplicate"] {
        let mut province = Province::cities()
            .with(app("web").replicas(7, division))
            .settled();
        let mut before = province.placed("web");
        for total in [8, 13, 20] {
            province.edit("web", |spec| spec.replicas.as_mut().unwrap().total = total);
            province.settle();
            let now = province.placed("web");
            assert!(
                before
                    .iter()
                    .zip(&now)
                    .all(|(b, n)| b.0 == n.0 && b.1 <= n.1),
                "{division}"
            );
            before = now;
        }
        for total in [14, 9, 3] {
            province.edit("web", |spec| spec.replicas.as_mut().unwrap().total = total);
            province.settle();
            let now = province.placed("web");
            assert!(
                now.iter()
                    .all(|n| before.iter().any(|b| b.0 == n.0 && b.1 >= n.1)),
                "{division}"
            );
            before = now;
        }
    }
}

#[test]
fn an_even_share_stays_with_who_has_it_when_an_equal_region_joins() {
    let draft = app("web")
        .replicas(2, "Even")
        .within(&["ningbo", "quzhou", "zhoushan", "anji"]);
    let mut province = Province::cities().with(draft).settled();
    let before = province.placed("web");
    province.put_region(region("anji", "City", "330500", Some("zhejiang")));
    province.put_cluster(cluster("anji-a", "anji"));
    province.settle();
    assert_eq!(province.placed("web"), before);
}

#[test]
fn replicas_added_in_an_outage_go_where_somebody_answers() {
    let mut province = Province::cities()
        .with(app("web").replicas(6, "Capacity"))
        .settled();
    province.cut_off("ningbo-a");
    province.edit("web", |spec| spec.replicas.as_mut().unwrap().total = 12);
    province.settle();
    assert_eq!(
        count(
            province.entry("web", "ningbo-a").unwrap(),
            province.world.now
        ),
        2
    );
    assert_eq!(total(&province, "web"), 12);
}
