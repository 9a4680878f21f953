//! Isolation on a living province: what encloses a namespace in a member, and what holds it to its grant.

use serde_json::{Value, json};

use crate::{
    admit_support::{account, account_object, binding, created, try_create},
    apply_tenants::{ready, tenant},
    fault_support::{Site, app, condition, deployment, fragile, province},
    support::eventually,
};

const ROOT: &str = "jiuzhou-system";
const DENY: &str = "jiuzhou-default-deny";

fn quota(tenant: &str, region: &str, pods: &str) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Quota",
        "metadata": {"name": format!("{tenant}.{region}"), "namespace": ROOT},
        "spec": {
            "tenantName": tenant, "regionName": region,
            "resources": [{"name": "pods", "nominal": pods}, {"name": "cpu", "nominal": "2"}],
        },
    })
}

/// A pod as somebody starts it in a member, beside all that was decided.
pub(crate) fn stray(namespace: &str, name: &str, class: Option<&str>) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "main", "image": "registry.example/stray:1"}]},
    });
    if let Some(class) = class {
        pod["spec"]["priorityClassName"] = json!(class);
    }
    pod
}

/// A policy that lets everything in.
fn hole(namespace: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "hole", "namespace": namespace},
        "spec": {"podSelector": {}, "ingress": [{}]},
    })
}

/// What a pod is refused with, if it is.
pub(crate) async fn refusal(site: &Site, pod: &Value) -> Option<String> {
    let answer = try_create(&site.client, pod).await;
    answer.err().map(|refusal| refusal.message)
}

/// Breaks what encloses a namespace in each way, and waits until it is whole again.
pub(crate) async fn is_put_back(site: &Site, namespace: &str) {
    let closed = |policy: &Value| {
        policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"])
            && policy["spec"]["ingress"].is_null()
    };
    site.delete("NetworkPolicy", namespace, DENY).await;
    site.until("is made again", ("NetworkPolicy", namespace, DENY), closed)
        .await;
    let open = json!({"spec": {"ingress": [{}]}});
    site.merge("NetworkPolicy", namespace, DENY, &open).await;
    site.until(
        "is closed again",
        ("NetworkPolicy", namespace, DENY),
        closed,
    )
    .await;
    let enforce = "pod-security.kubernetes.io/enforce";
    let lax = json!({"metadata": {"labels": {enforce: "privileged"}}});
    site.merge("Namespace", "", namespace, &lax).await;
    site.until("is held again", ("Namespace", "", namespace), |home| {
        home["metadata"]["labels"][enforce] == "baseline"
    })
    .await;
}

#[tokio::test]
async fn a_namespace_is_closed_for_its_apps_and_stays_so() {
    let running = province().await;
    let hub = running.hub().await;
    let tenant = running.tenant("closed").await;
    hub.create(&app(&tenant, "web", &["hangzhou"], &[deployment("web", 1)]))
        .await;
    hub.ready(&tenant, "web").await;
    let site = running.site("hangzhou-a").await;
    for policy in [DENY, "jiuzhou-allow-dns", "jiuzhou-allow-guard"] {
        assert!(
            site.get("NetworkPolicy", &tenant, policy).await.is_some(),
            "{policy}"
        );
    }
    let pods = site.list("Pod", &tenant).await;
    assert_eq!(pods[0]["metadata"]["labels"]["jiuzhou.io/app"], "web");
    assert_eq!(pods[0]["spec"]["priorityClassName"], "jiuzhou-general");
    is_put_back(&site, &tenant).await;
    // Whoever runs everything in the cluster can open it; it does not last.
    site.create(&hole(&tenant)).await;
    site.gone("NetworkPolicy", &tenant, "hole").await;
    // Whoever runs the namespace cannot.
    created(&site.client, &account_object(&tenant, "local")).await;
    created(&site.client, &binding(&tenant, "admin", (&tenant, "local"))).await;
    let cluster = running.fleet.cluster("hangzhou-a").expect("it is there");
    let local = account(cluster, &tenant, "local").await;
    eventually("it is refused by policy", async || {
        let answer = try_create(&local, &hole(&tenant)).await;
        let message = answer
            .expect_err("nobody but the agent writes here")
            .message;
        message
            .contains("follows from Isolations, Links and Quotas")
            .then_some(())
    })
    .await;
    let mut shared = stray(&tenant, "shared", Some("jiuzhou-general"));
    shared["spec"]["hostNetwork"] = json!(true);
    assert!(refusal(&site, &shared).await.is_some());
    assert!(
        running
            .site("ningbo-a")
            .await
            .lacks("Namespace", "", &tenant)
            .await
    );
}

#[tokio::test]
async fn a_member_holds_a_tenant_to_what_its_apps_are_charged() {
    let running = province().await;
    let hub = running.hub().await;
    hub.create(&tenant(ROOT, "mill", &json!({}))).await;
    ready(&hub, ROOT, "mill").await;
    hub.create(&quota("mill", "quzhou", "3")).await;
    let accepted = |quota: &Value| condition(quota, "Accepted").is_some_and(|(s, ..)| s == "True");
    hub.until("is accepted", ("Quota", ROOT, "mill.quzhou"), accepted)
        .await;
    // Two replicas, and one more that a rolling update adds.
    let mut wheel = app("mill", "wheel", &["quzhou"], &[deployment("wheel", 1)]);
    wheel["spec"]["replicas"] = json!({"total": 2, "division": "Even"});
    hub.create(&wheel).await;
    hub.ready("mill", "wheel").await;
    let site = running.site("quzhou-a").await;
    let general = ("ResourceQuota", "mill", "jiuzhou-general");
    let quota = site.until("is in force", general, |quota| {
        quota["status"]["hard"]["pods"] == "3" && quota["status"]["used"]["pods"] == "2"
    });
    let quota = quota.await;
    assert_eq!(quota["spec"]["hard"]["requests.cpu"], "30m", "three of 10m");
    assert!(
        site.get("LimitRange", "mill", "jiuzhou-defaults")
            .await
            .is_some()
    );
    for (class, word) in [
        (None, "jiuzhou-other"),
        (Some("jiuzhou-core"), "jiuzhou-core"),
        (Some("jiuzhou-general"), "jiuzhou-general"),
    ] {
        let message = refusal(&site, &stray("mill", "stray", class)).await;
        let message = message.expect("there is no room for 100m beside it");
        assert!(
            message.contains("exceeded quota") && message.contains(word),
            "{message}"
        );
    }
    // A rollout at a full grant ends.
    let next = json!({"spec": {"images": [{"name": "registry.example/app", "newTag": "2"}]}});
    hub.merge("App", "mill", "wheel", &next).await;
    hub.ready("mill", "wheel").await;
    // Somebody takes the room that the next rollout needs, and gives it back.
    let mut squatter = stray("mill", "squatter", Some("jiuzhou-general"));
    squatter["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "10m"}});
    created(&site.client, &squatter).await;
    let next = json!({"spec": {"images": [{"name": "registry.example/app", "newTag": "3"}]}});
    hub.merge("App", "mill", "wheel", &next).await;
    let refused = |set: &Value| {
        let conditions = set["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|c| c["type"] == "ReplicaFailure" && c["status"] == "True")
    };
    eventually("its pods are refused", async || {
        let sets = site.list("ReplicaSet", "mill").await;
        sets.iter().any(refused).then_some(())
    })
    .await;
    site.delete("Pod", "mill", "squatter").await;
    hub.ready("mill", "wheel").await;
    let sets = site.list("ReplicaSet", "mill").await;
    let nudged = |set: &Value| !set["metadata"]["annotations"]["jiuzhou.io/nudged"].is_null();
    assert!(
        sets.iter().any(nudged),
        "it did not wait for its controller's patience"
    );
    // What is taken away goes out of force as well.
    hub.delete("App", "mill", "wheel").await;
    hub.gone("App", "mill", "wheel").await;
    site.until("allows nothing", general, |quota| {
        quota["status"]["hard"]["pods"] == "0"
    })
    .await;
}

#[tokio::test]
async fn an_isolation_says_what_may_run_in_its_zone_and_tells_where_it_holds() {
    let (_taken, running) = fragile().await;
    let hub = running.hub().await;
    let tenant = running.tenant("strict").await;
    hub.create(&app(&tenant, "web", &["hangzhou"], &[deployment("web", 1)]))
        .await;
    hub.ready(&tenant, "web").await;
    let isolation = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Isolation", "metadata": {"name": "strict"},
        "spec": {
            "zones": ["ExtranetPublic"], "allowedRegistries": ["registry.example"],
            "allowedKinds": ["Deployment", "ConfigMap"], "onDrift": "Report",
        },
    });
    hub.create(&isolation).await;
    let holds =
        |found: &Value| condition(found, "Ready").is_some_and(|(status, ..)| status == "True");
    hub.until("is in force", ("Isolation", "", "strict"), holds)
        .await;
    let site = running.site("hangzhou-a").await;
    let message = eventually("other registries are refused", async || {
        let mut pod = stray(&tenant, "stray", Some("jiuzhou-general"));
        pod["spec"]["containers"][0]["image"] = json!("registry.example.evil/stray:1");
        refusal(&site, &pod).await
    })
    .await;
    assert!(
        message.contains("come only from registry.example"),
        "{message}"
    );
    assert_eq!(
        refusal(&site, &stray(&tenant, "stray", Some("jiuzhou-general"))).await,
        None
    );
    let mut from_elsewhere = deployment("next", 1);
    from_elsewhere["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nginx:1");
    hub.create(&app(&tenant, "next", &["hangzhou"], &[from_elsewhere]))
        .await;
    let message = hub.refused(&tenant, "next", "RegistryNotAllowed").await;
    assert!(message.contains("image nginx:1"), "{message}");
    // What is weakened by hand is told, and stays.
    site.delete("NetworkPolicy", &tenant, DENY).await;
    let told = hub
        .until("tells so", ("Isolation", "", "strict"), |found| {
            condition(found, "Stalled").is_some_and(|(_, reason, _)| reason == "Drifted")
        })
        .await;
    let (.., message) = condition(&told, "Stalled").expect("it was found");
    assert!(
        message.contains(&format!("NetworkPolicy {tenant}/{DENY}")),
        "{message}"
    );
    assert!(site.lacks("NetworkPolicy", &tenant, DENY).await);
    let revert = json!({"spec": {"onDrift": "Revert"}});
    hub.merge("Isolation", "", "strict", &revert).await;
    site.until("is made again", ("NetworkPolicy", &tenant, DENY), |_| true)
        .await;
    // What the namespace tells of that would go by itself, in ten minutes and under another test.
    for name in ["web", "next"] {
        hub.delete("App", &tenant, name).await;
        hub.gone("App", &tenant, name).await;
    }
    hub.delete("Isolation", "", "strict").await;
    hub.delete("Namespace", "", &tenant).await;
    site.gone("Namespace", "", &tenant).await;
}
