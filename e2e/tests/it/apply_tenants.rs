//! Tenants on a living province: their namespaces, what those who run them may, and how one goes.

use serde_json::{Value, json};

use crate::{
    admit_support::may_user,
    fault_support::{Running, Site, app, condition, deployment, province, settings},
    support::eventually,
};

const ROOT: &str = "jiuzhou-system";

pub(crate) fn tenant(home: &str, name: &str, more: &Value) -> Value {
    let mut spec = json!({"displayName": name});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Tenant",
        "metadata": {"name": name, "namespace": home}, "spec": spec,
    })
}

pub(crate) async fn ready(hub: &Site, home: &str, name: &str) -> Value {
    hub.until("is Ready", ("Tenant", home, name), |tenant| {
        tenant["status"]["observedGeneration"] == tenant["metadata"]["generation"]
            && condition(tenant, "Ready").is_some_and(|(status, ..)| status == "True")
    })
    .await
}

/// Whether a user may, at the hub.
async fn may(running: &Running, user: &str, namespace: &str, what: &str) -> bool {
    may_user(&running.hub().await.client, user, namespace, what, "").await
}

#[tokio::test]
async fn a_tenant_gets_its_namespace_and_those_who_run_it_their_rights_and_nothing_above() {
    let running = province().await;
    let hub = running.hub().await;
    let by = |name: &str| json!({"administrators": [{"kind": "User", "name": name}]});
    hub.create(&tenant(ROOT, "culture", &by("ann"))).await;
    ready(&hub, ROOT, "culture").await;
    hub.create(&tenant("culture", "library", &by("bob"))).await;
    let library = ready(&hub, "culture", "library").await;
    assert_eq!(library["status"]["ownedNamespace"], "culture-library");
    hub.create(&tenant(ROOT, "sport", &json!({}))).await;
    ready(&hub, ROOT, "sport").await;
    eventually("the rights are in force", async || {
        let both = may(running, "ann", "culture", "create jiuzhou.io/apps").await
            && may(running, "ann", "culture-library", "get jiuzhou.io/apps").await
            && may(running, "bob", "culture-library", "create jiuzhou.io/apps").await;
        both.then_some(())
    })
    .await;
    for (user, namespace, what, allowed) in [
        ("ann", "culture", "create jiuzhou.io/tenants", true),
        ("ann", "culture", "update jiuzhou.io/tenants/status", false),
        ("ann", "culture", "update jiuzhou.io/apps/status", false),
        ("ann", "culture", "update jiuzhou.io/apps/finalizers", false),
        (
            "ann",
            "culture",
            "create networking.k8s.io/networkpolicies",
            false,
        ),
        ("ann", "culture", "create apps/deployments", false),
        ("ann", "culture", "create /resourcequotas", false),
        ("ann", "culture-library", "create jiuzhou.io/apps", false),
        ("ann", "culture-library", "get /secrets", false),
        ("ann", ROOT, "get jiuzhou.io/tenants", false),
        ("ann", "sport", "get jiuzhou.io/apps", false),
        ("ann", "", "list jiuzhou.io/apps", false),
        ("ann", "", "list /namespaces", false),
        ("bob", "culture", "get jiuzhou.io/apps", false),
        ("bob", "culture", "get jiuzhou.io/tenants", false),
        ("bob", "sport", "get jiuzhou.io/apps", false),
    ] {
        let answer = may(running, user, namespace, what).await;
        assert_eq!(answer, allowed, "{user} in {namespace:?}: {what}");
    }
    // What somebody takes away by hand comes back.
    hub.delete("RoleBinding", "culture", "jiuzhou-tenant-admin")
        .await;
    eventually("the role is given again", async || {
        let binding = hub
            .get("RoleBinding", "culture", "jiuzhou-tenant-admin")
            .await?;
        (binding["subjects"][0]["name"] == "ann").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_tenant_goes_after_its_apps_and_tenants_and_leaves_nothing() {
    let running = province().await;
    let hub = running.hub().await;
    hub.create(&tenant(
        ROOT,
        "fair",
        &json!({"regions": ["hangzhou", "ningbo"]}),
    ))
    .await;
    ready(&hub, ROOT, "fair").await;
    hub.create(&tenant("fair", "stands", &json!({}))).await;
    ready(&hub, "fair", "stands").await;
    for (namespace, name) in [("fair", "tickets"), ("fair-stands", "map")] {
        let manifests = [deployment(name, 1), settings(name, "one")];
        hub.create(&app(namespace, name, &["zhejiang"], &manifests))
            .await;
        hub.ready(namespace, name).await;
    }
    let site = running.site("ningbo-a").await;
    assert!(site.get("Deployment", "fair", "tickets").await.is_some());
    let elsewhere = running.site("quzhou-a").await;
    assert!(elsewhere.lacks("Deployment", "fair", "tickets").await);
    hub.delete("Tenant", ROOT, "fair").await;
    hub.gone("Tenant", ROOT, "fair").await;
    for namespace in ["fair", "fair-stands"] {
        assert!(hub.lacks("Namespace", "", namespace).await);
        let left = site.list("Deployment", namespace).await;
        assert!(left.is_empty(), "{left:?}");
        assert!(
            site.lacks("Namespace", "", namespace).await,
            "in the member too"
        );
    }
    let named = |slice: &Value| slice["spec"]["entries"].to_string().contains("\"fair");
    eventually("the ledger forgets them", async || {
        let slices = hub.list("AssignmentSlice", "").await;
        (!slices.iter().any(named)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_namespace_of_somebody_else_is_not_taken_and_one_that_says_so_is() {
    let running = province().await;
    let hub = running.hub().await;
    let theirs = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "museum"}});
    hub.create(&theirs).await;
    hub.create(&tenant(ROOT, "museum", &json!({}))).await;
    let found = hub
        .until("is refused", ("Tenant", ROOT, "museum"), |tenant| {
            condition(tenant, "Ready").is_some_and(|(_, why, _)| why == "NamespaceTaken")
        })
        .await;
    let (_, _, message) = condition(&found, "Ready").expect("it is Ready or not");
    assert!(message.contains("jiuzhou.io/claim to museum"), "{message}");
    let claim = json!({"metadata": {"labels": {"jiuzhou.io/claim": "museum"}}});
    hub.merge("Namespace", "", "museum", &claim).await;
    ready(&hub, ROOT, "museum").await;
}
