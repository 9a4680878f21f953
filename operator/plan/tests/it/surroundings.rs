//! What `jiuzhou explain` says of Quotas, of isolation and of Links.

use crds::Reason;
use plan::Planner;
use plan::province::{Draw, Force, Source, Wall};
use serde_json::json;

use crate::province::grants::{grant, limits};
use crate::province::{Province, app};

const ROOT: &str = "jiuzhou-system";

/// As the command plans for itself.
fn planned(province: &Province) -> Planner {
    let mut planner = Planner::default();
    let _plan = planner.plan(&province.world);
    planner
}

fn draws(province: &Province, app: &str) -> Option<Vec<Draw>> {
    planned(province).draws(&province.world, &province.uid(app))
}

fn walls(province: &Province, app: &str) -> Vec<Wall> {
    let planner = planned(province);
    let app = &planner.report().apps[&province.uid(app)];
    planner.walls(&province.world, app)
}

fn quota(tenant: &str, region: &str) -> Source {
    Source::Quota((tenant.into(), region.into()))
}

#[test]
fn an_app_that_nothing_limits_draws_on_nothing() {
    let province = Province::cities().with(app("web")).settled();
    assert_eq!(draws(&province, "web"), None);
}

#[test]
fn every_quota_is_told_with_what_the_app_and_everybody_use_and_what_leaves_no_more() {
    let province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .with_tenant(ROOT, "rail", &json!({}))
        .with_budget("hangzhou", &[("cpu", "30")])
        .settled()
        .with_quota(ROOT, "tax", "hangzhou", &[limits("cpu", "20", "20", "20")])
        .with_quota(ROOT, "rail", "hangzhou", &[limits("cpu", "10", "0", "4")])
        .with(
            app("web")
                .in_namespace("tax")
                .within(&["hangzhou", "ningbo"])
                .replicas(3, "Duplicate")
                .cores("2"),
        )
        .settled();
    let all = draws(&province, "web").unwrap();
    // Three replicas and the one that a rolling update adds.
    let expected = Draw {
        clusters: vec!["hangzhou-a".into()],
        source: Some(quota("tax", "hangzhou")),
        resource: "cpu".to_owned(),
        each: 2_000,
        charged: 8_000,
        nominal: 20_000,
        used: 8_000,
        borrowed: 0,
        // Rail keeps six of its ten, so the budget leaves less than the Quota and what it borrows.
        left: 16_000,
        limit: Some(Source::Budget("hangzhou".into())),
    };
    assert!(all.contains(&expected), "{all:#?}");
    let none = all.iter().find(|draw| draw.source.is_none()).unwrap();
    assert_eq!(none.clusters, ["ningbo-a".into()], "no Quota counts there");
}

#[test]
fn clusters_that_refuse_the_app_are_left_out() {
    let province = Province::cities()
        .with_tenant(ROOT, "tax", &json!({}))
        .settled()
        .with_quota(ROOT, "tax", "zhejiang", &[grant("cpu", "20")])
        .with(app("web").in_namespace("tax").within(&["ningbo"]))
        .settled();
    let all = draws(&province, "web").unwrap();
    assert_eq!((all.len(), &all[0].clusters), (1, &vec!["ningbo-a".into()]));
    assert_eq!(all[0].source, Some(quota("tax", "zhejiang")));
}

#[test]
fn walls_are_told_for_each_cluster_with_what_asks_for_them() {
    let mut province = Province::cities()
        .with_isolation(
            "own-images",
            &json!({"zones": ["ExtranetPublic"], "allowedRegistries": ["registry.example"]}),
        )
        .with(app("web").within(&["hangzhou"]));
    assert_eq!(walls(&province, "web").len(), 0, "it is placed nowhere yet");
    province.settle();
    let [wall] = &walls(&province, "web")[..] else {
        panic!("one cluster")
    };
    assert_eq!(wall.cluster.as_str(), "hangzhou-a");
    assert_eq!(wall.force, Force::InForce);
    assert_eq!(&*wall.isolations[0], "own-images");
    let registries = wall.baseline.registries.as_ref().unwrap();
    assert!(registries.contains("registry.example"));
    // The hub has not written what changed: the command says so.
    let asks = json!({"zones": ["ExtranetPublic"], "podSecurity": "Restricted"});
    province.set_isolation("own-images", &asks);
    assert_eq!(walls(&province, "web")[0].force, Force::Coming);
}

#[test]
fn links_are_told_from_both_sides_with_what_keeps_them_from_being_in_force() {
    let mut province = Province::cities()
        .with(app("web"))
        .with(app("sso").in_namespace("police").within(&["ningbo"]))
        .with(app("else"))
        .settled();
    province.set_link("id", |_| {});
    province.settle();
    let paths = |province: &Province, app: &str| {
        let planner = planned(province);
        let app = &planner.report().apps[&province.uid(app)];
        planner.paths(&province.world, app)
    };
    let from = paths(&province, "web");
    assert!(from[0].leaves);
    assert_eq!(from[0].others, ["police/sso"]);
    let refused = from[0].refused.as_ref().unwrap();
    assert_eq!(refused.reason, Reason::GrantMissing);
    assert!(paths(&province, "else").is_empty());
    province.consent("health");
    let coming = &paths(&province, "web")[0];
    assert!(coming.refused.is_none() && !coming.in_force);
    province.settle();
    let to = paths(&province, "sso");
    assert!(!to[0].leaves);
    assert_eq!(to[0].others, ["health/web"]);
    assert_eq!(to[0].refused, None);
    assert!(to[0].in_force);
}
