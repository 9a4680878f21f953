//! TrafficPolicies on a living province: from the hub to the routes of a region, and back what guards say.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::fault_support::{Site, app, condition, deployment, mark, province};

fn route(name: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name}, "spec": {"parentRefs": [{"name": "city"}]},
    })
}

fn policy(namespace: &str, requests: i64) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"namespace": namespace, "name": "web"},
        "spec": {
            "targetRefs": [{"group": "jiuzhou.io", "kind": "App", "name": "web"}],
            "rateLimits": [{
                "name": "total", "scope": "Province", "rate": {"requests": requests, "per": "1s"},
            }],
        },
    })
}

/// Says of a policy what the guards of a region would.
async fn programmed(region: &Site, found: &Value) {
    let namespace = found["metadata"]["namespace"].as_str().unwrap();
    let name = found["metadata"]["name"].as_str().unwrap();
    let said = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": kind, "message": "As a guard says it.",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": found["metadata"]["generation"],
        })
    };
    let status = json!({"status": {"ancestors": [{
        "controllerName": "jiuzhou.io/guard", "ancestorRef": {"name": "web"},
        "conditions": [said("Accepted"), said("Programmed")],
    }]}});
    let api = region.api("TrafficPolicy", namespace);
    let params = PatchParams::default();
    api.patch_status(name, &params, &Patch::Merge(&status))
        .await
        .expect("the status is taken");
}

#[tokio::test]
async fn a_policy_of_an_app_protects_its_routes_where_it_runs_and_goes_when_it_is_deleted() {
    let running = province().await;
    let (hub, ningbo) = (running.hub().await, running.site("ningbo-a").await);
    let tenant = running.tenant("shielded").await;
    let manifests = [deployment("web", 1), route("web")];
    hub.create(&app(&tenant, "web", &["ningbo"], &manifests))
        .await;
    hub.create(&policy(&tenant, 100)).await;
    let at = ("TrafficPolicy", &*tenant, "web");
    let rate = |found: &Value| found["spec"]["rateLimits"][0]["rate"]["requests"].as_i64();
    let found = ningbo
        .until("is there", at, |found| rate(found) == Some(100))
        .await;
    assert_eq!(found["spec"]["targetRefs"][0]["kind"], "HTTPRoute");
    assert_eq!(found["spec"]["rateLimits"][0]["scope"], "Province");
    assert_eq!(
        mark(&found, "labels", "app.kubernetes.io/managed-by"),
        "jiuzhou"
    );
    hub.ready(&tenant, "web").await;
    let enforced = |policy: &Value| {
        policy["status"]["observedGeneration"] == policy["metadata"]["generation"]
            && condition(policy, "Programmed").is_some_and(|(status, _, _)| status == "True")
    };
    programmed(&ningbo, &found).await;
    let told = hub.until("is programmed", at, enforced).await;
    let accepted = condition(&told, "Accepted").expect("it is said");
    assert_eq!(accepted.1, "ProvinceCapNotServed");
    let protected =
        |app: &Value| condition(app, "Protected").is_some_and(|(status, _, _)| status == "True");
    hub.until("is protected", ("App", &tenant, "web"), protected)
        .await;
    hub.merge(
        "TrafficPolicy",
        &tenant,
        "web",
        &json!({"spec": {"timeout": "3s"}}),
    )
    .await;
    ningbo
        .until("is changed", at, |found| found["spec"]["timeout"] == "3s")
        .await;
    hub.delete("TrafficPolicy", &tenant, "web").await;
    hub.gone("TrafficPolicy", &tenant, "web").await;
    ningbo.gone("TrafficPolicy", &tenant, "web").await;
}
