//! How a change of an App's content spreads over real clusters: waves, a yes, and a stop.

use std::time::Duration;

use e2e::fleet::ADMIN;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    admit_support::{account, account_object, binding, create, created},
    fault_support::{Running, Site, app, condition, deployment, province, settings, throughout},
};

/// The first wave has it alone; the others, one of which the hub calls, take it after a yes.
const FIRST: &str = "ningbo-a";
const REST: [&str; 2] = ["hangzhou-a", "quzhou-a"];
/// Much longer than the hub takes from an Approval to what it lets through.
const LONG: Duration = Duration::from_secs(4);

/// An App of two waves, of which the second takes nothing without an Approval.
fn in_waves(tenant: &str, manifests: &[Value]) -> Value {
    let mut web = app(tenant, "web", &["hangzhou", "ningbo", "quzhou"], manifests);
    web["spec"]["rollout"] = json!({"waves": [
        {"name": "first", "regions": {"within": ["ningbo"]}},
        {"name": "rest", "approval": "Required"},
    ]});
    web
}

/// Says yes to a content for the second wave.
async fn approve(client: &Client, tenant: &str, name: &str, approver: &str, content: &Value) {
    let approval = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Approval",
        "metadata": {"namespace": tenant, "name": name},
        "spec": {
            "target": {"kind": "App", "name": "web"}, "step": "rest", "contentHash": content,
            "approver": approver, "decision": "Approve", "expires": "2099-01-01T00:00:00Z",
        },
    });
    created(client, &approval).await;
}

/// A second person, who may approve in the tenant's namespace: the user name and a client.
async fn reviewer(running: &Running, hub: &Site, tenant: &str) -> (String, Client) {
    hub.create(&account_object(tenant, "reviewer")).await;
    hub.create(&binding(tenant, "admin", (tenant, "reviewer")))
        .await;
    let client = account(running.fleet.hub(), tenant, "reviewer").await;
    (format!("system:serviceaccount:{tenant}:reviewer"), client)
}

/// Whether the value of the settings is this one in all these clusters.
async fn have(running: &Running, clusters: &[&str], tenant: &str, value: &str) -> bool {
    for cluster in clusters {
        let site = running.site(cluster).await;
        let there = site.get("ConfigMap", tenant, "web").await;
        if there.is_none_or(|map| map["data"]["key"] != value) {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn a_change_waits_behind_its_first_wave_for_the_yes_of_somebody_who_did_not_make_it() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("waves").await);
    let (name, client) = reviewer(running, &hub, &tenant).await;
    let manifests = |value: &str| [deployment("web", 1), settings("web", value)];
    hub.create(&in_waves(&tenant, &manifests("one"))).await;
    // The first content is no change and waits for nobody.
    let before = hub.ready(&tenant, "web").await;
    assert!(have(running, &REST, &tenant, "one").await);

    let change = json!({"spec": {"manifests": manifests("two")}});
    hub.merge("App", &tenant, "web", &change).await;
    hub.refused(&tenant, "web", "ApprovalRequired").await;
    assert!(have(running, &[FIRST], &tenant, "two").await);
    let waits = async || {
        let app = hub.get("App", &tenant, "web").await;
        let reason = app.as_ref().and_then(|app| condition(app, "Ready"));
        reason.is_some_and(|(_, reason, _)| reason == "ApprovalRequired")
            && have(running, &REST, &tenant, "one").await
    };
    let app = hub.get("App", &tenant, "web").await.unwrap();
    let content = &app["status"]["rollout"]["contentHash"];
    approve(&hub.client, &tenant, "by-the-author", ADMIN, content).await;
    let old = &before["status"]["rollout"]["contentHash"];
    approve(&client, &tenant, "of-something-else", &name, old).await;
    throughout("neither yes counts", LONG, &waits).await;

    approve(&client, &tenant, "by-another", &name, content).await;
    let after = hub.ready(&tenant, "web").await;
    assert!(have(running, &REST, &tenant, "two").await);
    assert_eq!(after["status"]["rollout"]["state"], "Complete");
}

#[tokio::test]
async fn who_may_only_edit_apps_cannot_approve_them() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("editor").await);
    hub.create(&account_object(&tenant, "editor")).await;
    hub.create(&binding(&tenant, "edit", (&tenant, "editor")))
        .await;
    let editor = account(running.fleet.hub(), &tenant, "editor").await;
    // The binding is in force once the editor may do what editors do.
    let mut web = app(&tenant, "web", &["ningbo"], &[settings("web", "one")]);
    web["spec"]["rollout"] = json!({"waves": [{"name": "rest", "approval": "Required"}]});
    created(&editor, &web).await;
    let approval = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Approval",
        "metadata": {"namespace": tenant, "name": "mine"},
        "spec": {
            "target": {"kind": "App", "name": "web"}, "step": "rest",
            "contentHash": "3f786850e387550fdab8", "decision": "Approve",
            "approver": format!("system:serviceaccount:{tenant}:editor"),
            "expires": "2099-01-01T00:00:00Z",
        },
    });
    let refusal = create(&editor, &approval).await.expect_err("it is refused");
    assert_eq!(refusal.code, 403, "{}", refusal.message);
}

/// Image tag and generation of the Deployment in a cluster.
async fn runs(running: &Running, cluster: &str, tenant: &str) -> (String, i64) {
    let site = running.site(cluster).await;
    let object = site.get("Deployment", tenant, "web").await.unwrap();
    let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
    let tag = image.as_str().and_then(|image| image.rsplit(':').next());
    let generation = object["metadata"]["generation"].as_i64();
    (tag.unwrap().to_owned(), generation.unwrap())
}

#[tokio::test]
async fn a_bad_version_stops_in_its_first_wave_and_the_proven_one_goes_back_without_any_yes() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("bad").await);
    let mut workload = deployment("web", 1);
    workload["spec"]["progressDeadlineSeconds"] = json!(4);
    hub.create(&in_waves(&tenant, &[workload])).await;
    hub.ready(&tenant, "web").await;
    let mut before = Vec::new();
    for cluster in REST {
        before.push(runs(running, cluster, &tenant).await);
    }
    let untouched = async || {
        let mut now = Vec::new();
        for cluster in REST {
            now.push(runs(running, cluster, &tenant).await);
        }
        now == before
    };

    // Pods of this tag crash, and never become ready.
    let tag =
        |tag: &str| json!({"spec": {"images": [{"name": "registry.example/app", "newTag": tag}]}});
    hub.merge("App", &tenant, "web", &tag("broken")).await;
    let message = hub.refused(&tenant, "web", "RolloutStopped").await;
    assert!(message.contains("first"), "{message}");
    assert_eq!(runs(running, FIRST, &tenant).await.0, "broken");
    throughout("nobody else gets it", LONG, untouched).await;

    hub.merge("App", &tenant, "web", &json!({"spec": {"images": null}}))
        .await;
    let after = hub.ready(&tenant, "web").await;
    assert_eq!(after["status"]["rollout"]["rollback"], true);
    assert_eq!(runs(running, FIRST, &tenant).await.0, "1");
    assert!(untouched().await);
}
