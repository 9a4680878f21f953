use crds::{App, AssignmentSlice, ReportSlice, TrafficPolicy};
use plan::world::{Hub, NamespaceSlot, Settings};

use super::super::super::output::Paint;
use super::*;

/// An App in two clusters, a policy of which one cluster reports that it holds, and a younger policy.
fn world() -> World {
    let hub = Hub {
        id: "hub-1".into(),
        epoch: 1,
        leader_epoch: 1,
    };
    let mut world = World::new(hub, Settings::default());
    let namespace = NamespaceSlot::plain("ns-venue".into());
    world.apply_namespace(&"venue".into(), namespace);
    world.apply_app(&app());
    world.apply_policy(&policy("code", "p1", "2026-01-01T00:00:00Z"));
    world.apply_policy(&policy("late", "p2", "2026-02-01T00:00:00Z"));
    for (cluster, requests) in [("hangzhou-a", 300), ("ningbo-a", 200)] {
        let policy = json!({"scope": "Policy", "shares": [{"name": "total", "requests": requests, "burst": 10}]});
        let mut entries = vec![entry("a1", &json!({})), entry("policy-p1", &policy)];
        entries.truncate(if cluster == "ningbo-a" { 1 } else { 2 });
        let slice: AssignmentSlice = serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "AssignmentSlice",
            "metadata": {"name": "s-0", "resourceVersion": "1"},
            "spec": {"hubId": "hub-1", "hubEpoch": 1, "leaderEpoch": 1, "sequence": 1,
                     "management": "Manage", "clusterUID": cluster, "entries": entries},
        }))
        .unwrap();
        world.apply_slice(&cluster.into(), slice, None);
    }
    let report: ReportSlice = serde_json::from_value(json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "ReportSlice", "metadata": {"name": "r-0"},
        "spec": {"entries": [{"uid": "policy-p1", "generation": 1, "state": "Healthy"}]},
    }))
    .unwrap();
    world.apply_report(&"hangzhou-a".into(), report);
    world
}

fn entry(uid: &str, more: &Value) -> Value {
    let mut entry = json!({"uid": uid, "namespace": "venue", "name": "code", "generation": 1,
        "content": "0123456789abcdef", "pack": "pack"});
    let more = more.as_object().unwrap().clone();
    entry.as_object_mut().unwrap().extend(more);
    entry
}

fn app() -> App {
    serde_json::from_value(json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {"name": "code", "namespace": "venue", "uid": "a1", "generation": 1,
                     "finalizers": [crds::APP_FINALIZER]},
        "spec": {
            "zone": "ExtranetPublic", "dataGrade": "General",
            "replicas": {"total": 4, "division": "Capacity"},
            "manifests": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "code"},
                 "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]}}}},
                {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "code"},
                 "spec": {"parentRefs": [{"name": "front"}], "rules": [{}]}},
            ],
        },
    }))
    .unwrap()
}

fn policy(name: &str, uid: &str, created: &str) -> TrafficPolicy {
    serde_json::from_value(json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": name, "namespace": "venue", "uid": uid, "generation": 1,
                     "creationTimestamp": created, "finalizers": [crds::APP_FINALIZER]},
        "spec": {
            "targetRefs": [{"group": "jiuzhou.io", "kind": "App", "name": "code"}],
            "rateLimits": [{"name": "total", "scope": "Province", "rate": {"requests": 500, "per": "1s"}, "burst": 20}],
            "timeout": "3s",
        },
    }))
    .unwrap()
}

fn text(columns: Option<usize>) -> String {
    let show = Show {
        paint: Paint::never(),
        columns,
    };
    as_text(&[of(&world(), "venue", "code").unwrap()], "venue", show)
}

#[test]
fn an_app_is_told_with_its_policies_what_counts_and_the_share_of_each_cluster() {
    let text = text(None);
    let sections: Vec<&str> = text.split("\n\n").collect();
    assert!(
        sections[0].starts_with(
            "App venue/code\nPOLICY  COUNTS  ENFORCED  WHY\ncode    yes     no        "
        ),
        "{text}"
    );
    assert!(
        sections[0].contains("\nlate    no      no        TrafficPolicy code, which is older"),
        "{text}"
    );
    assert_eq!(
        sections[1],
        "In force, from TrafficPolicy code\n\
         RULE              SAYS\n\
         rateLimits total  500 per 1s in the province, burst 20\n\
         timeout           3s"
    );
    assert_eq!(
        sections[2],
        "CLUSTER     STATE     ITS SHARE\n\
         hangzhou-a  Healthy   total: 300 per 1s, burst 10 (60 %); other rules as they are\n\
         ningbo-a    not sent  -\n"
    );
}

#[test]
fn people_read_at_most_a_hundred_columns() {
    let text = text(Some(100));
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
}

#[test]
fn json_has_shares_as_numbers_and_policies_with_reasons() {
    let found = [of(&world(), "venue", "code").unwrap()];
    let value = as_json(&found, &PolicyTarget::App("code".into()), "venue");
    let app = &value["apps"][0];
    assert_eq!(
        app["inForce"]["clusters"],
        json!([
            {"cluster": "hangzhou-a", "state": "Healthy", "shares": [
                {"rule": "total", "requests": 300, "per": "1s", "burst": 10, "percent": 60.0}]},
            {"cluster": "ningbo-a", "state": null, "shares": []},
        ])
    );
    assert_eq!(app["policies"][1]["accepted"]["reason"], "Conflicted");
}

#[test]
fn a_share_that_is_spread_over_periods_is_told_over_all_of_them() {
    let policy = policy("code", "p1", "2026-01-01T00:00:00Z");
    let share: LimitShare =
        serde_json::from_value(json!({"name": "total", "requests": 3, "periods": 4})).unwrap();
    let mut spec = policy.spec;
    spec.rate_limits[0].rate.requests = 1;
    let part = part(&share, &spec).unwrap();
    assert_eq!(share_text(&part), "total: 3 per 4s (75 %)");
}

#[test]
fn an_app_that_is_not_there_is_told_with_the_next_step() {
    let error = of(&world(), "venue", "none").err().unwrap();
    assert!(error.to_string().contains("kubectl get apps"), "{error}");
}

#[test]
fn an_app_without_a_policy_is_told_so() {
    let mut world = world();
    for policy in ["code", "late"] {
        world.remove_policy(&"venue".into(), policy);
    }
    let show = Show {
        paint: Paint::never(),
        columns: None,
    };
    let text = as_text(&[of(&world, "venue", "code").unwrap()], "venue", show);
    assert!(text.contains("No TrafficPolicy names it"), "{text}");
}
