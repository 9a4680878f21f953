//! What a region's own policies hold a tenant's namespace to, with no hub and no agent near.

use http::Method;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    admit_support::{
        Answer, account, account_object, binding, call, create, created, namespace_object, patch,
        path, refused, region, try_create, try_patch,
    },
    apply_isolation::stray,
    support::eventually,
};

const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";
const REGISTRIES: &str = crds::label::REGISTRIES;

/// A namespace as an agent makes it.
fn tenants(name: &str) -> Value {
    let mut namespace = namespace_object(name);
    namespace["metadata"]["labels"] = json!({
        crds::label::MANAGED_BY: crds::label::MANAGED_BY_VALUE,
        crds::label::TENANT: name, POD_SECURITY: "baseline",
    });
    namespace["metadata"]["annotations"] = json!({
        crds::label::CREATED: "true", REGISTRIES: ",registry.example,",
    });
    namespace
}

/// Such a namespace, and somebody whom the cluster's administrator let do everything in it and change the
/// namespace itself.
async fn porter(name: &str) -> (Client, Client) {
    let cluster = region().await;
    let admin = cluster.client().await.unwrap();
    created(&admin, &tenants(name)).await;
    for account in ["porter", "default"] {
        created(&admin, &account_object(name, account)).await;
    }
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "porter"},
        "rules": [
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "patch"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["pods", "pods/ephemeralcontainers", "limitranges", "resourcequotas"], "verbs": ["*"]},
        ],
    });
    created(&admin, &role).await;
    created(&admin, &binding(name, "porter", (name, "porter"))).await;
    let porter = account(cluster, name, "porter").await;
    let pod = stray(name, "probe", None);
    eventually("the porter may", async || {
        try_create(&porter, &pod).await.ok()
    })
    .await;
    (admin, porter)
}

#[track_caller]
fn denied(answer: Answer, says: &str) {
    let refusal = answer.expect_err("it is refused");
    assert!(refusal.message.contains(says), "{}", refusal.message);
}

#[tokio::test]
async fn the_marks_of_a_tenants_namespace_are_nobodys_to_change() {
    let (admin, porter) = porter("marks").await;
    let home = tenants("marks");
    let label = |key: &str, value: Value| json!({"metadata": {"labels": {key: value}}});
    let note = |key: &str, value: Value| json!({"metadata": {"annotations": {key: value}}});
    let says = "follow from Isolations at the hub";
    eventually("the policy is in force", async || {
        // Kept, it would be no change the next time, which nobody refuses.
        let lax = label(POD_SECURITY, json!("privileged"));
        let refusal = try_patch(&porter, &home, &lax).await.err()?;
        refusal.message.contains(says).then_some(())
    })
    .await;
    for change in [
        label(POD_SECURITY, Value::Null),
        label("pod-security.kubernetes.io/enforce-version", json!("v1.0")),
        label(crds::label::TENANT, Value::Null),
        label(crds::label::MANAGED_BY, Value::Null),
        note(REGISTRIES, Value::Null),
        note(REGISTRIES, json!(",evil.example,")),
        note(crds::label::CREATED, Value::Null),
        note(crds::label::ON_DRIFT, json!("Report")),
    ] {
        denied(patch(&porter, &home, &change).await, says);
    }
    let own = label("team", json!("blue"));
    assert!(patch(&porter, &home, &own).await.is_ok());
    let strict = label(POD_SECURITY, json!("restricted"));
    assert!(patch(&admin, &home, &strict).await.is_ok());
    let opening = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "hole", "namespace": "marks"},
        "spec": {"podSelector": {}, "ingress": [{}]},
    });
    refused(
        &porter,
        &opening,
        "follows from Isolations, Links and Quotas",
    )
    .await;
}

#[tokio::test]
async fn a_pod_is_judged_by_its_namespace_even_where_the_standard_is_gone() {
    let (admin, porter) = porter("judged").await;
    let home = tenants("judged");
    let bare = json!({"metadata": {"labels": {POD_SECURITY: null}}});
    patch(&admin, &home, &bare).await.unwrap();
    let pod = |pointer: &str, value: Value| {
        let mut pod = stray("judged", "way-out", None);
        *pod.pointer_mut("/spec").unwrap() = {
            let mut spec = pod["spec"].clone();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[field] = value;
            spec
        };
        pod
    };
    let node = json!([{"name": "node", "hostPath": {"path": "/"}}]);
    let image = json!([{"name": "i", "image": {"reference": "evil.example/x:1"}}]);
    let first = "/containers/0";
    for (pod, says) in [
        (pod("/hostNetwork", json!(true)), "hostNetwork, hostPID"),
        (
            pod("/volumes", node),
            "another kind of volume than hostPath",
        ),
        (pod("/volumes", image), "come only from registry.example"),
        (
            pod(&format!("{first}/image"), json!("registry.example.evil/x")),
            "come only from registry.example",
        ),
        (
            pod(
                &format!("{first}/securityContext"),
                json!({"privileged": true}),
            ),
            "are not privileged",
        ),
        (
            pod(
                &format!("{first}/securityContext"),
                json!({"capabilities": {"add": ["SYS_ADMIN"]}}),
            ),
            "add only capabilities of the Baseline standard",
        ),
    ] {
        refused(&porter, &pod, says).await;
    }
    let nowhere = json!({"metadata": {"annotations": {REGISTRIES: ","}}});
    patch(&admin, &home, &nowhere).await.unwrap();
    let plain = stray("judged", "plain", None);
    refused(
        &porter,
        &plain,
        "registries that all its Isolations allow, which is none",
    )
    .await;
    let any = json!({"metadata": {"annotations": {REGISTRIES: ""}}});
    patch(&admin, &home, &any).await.unwrap();
    created(&porter, &plain).await;
}

#[tokio::test]
async fn a_pod_that_runs_goes_on_under_stricter_rules_and_lets_nobody_in() {
    let (admin, porter) = porter("runs").await;
    let home = tenants("runs");
    let pod = stray("runs", "runs", None);
    created(&porter, &pod).await;
    let strict = json!({"metadata": {"annotations": {REGISTRIES: ",other.example,"}}});
    patch(&admin, &home, &strict).await.unwrap();
    let mut later = pod.clone();
    later["metadata"]["name"] = json!("later");
    refused(&porter, &later, "come only from other.example").await;
    let label = json!({"metadata": {"labels": {"team": "blue"}}});
    assert!(patch(&porter, &pod, &label).await.is_ok());
    let bare = json!({"metadata": {"labels": {POD_SECURITY: null}}});
    patch(&admin, &home, &bare).await.unwrap();
    let enter = format!("{}/ephemeralcontainers", path(&pod, true));
    let debug = json!({"spec": {"ephemeralContainers": [{
        "name": "debug", "image": "other.example/shell:1", "securityContext": {"privileged": true},
    }]}});
    // The pod's own image is refused as well by then, so this is seen only where it is allowed.
    let both =
        json!({"metadata": {"annotations": {REGISTRIES: ",other.example,registry.example,"}}});
    patch(&admin, &home, &both).await.unwrap();
    eventually("the annotation has reached the policies", async || {
        try_create(&porter, &later).await.ok()
    })
    .await;
    let answer = call(&porter, Method::PATCH, &enter, Some(&debug)).await;
    denied(answer, "are not privileged");
    let allowed = json!({"spec": {"ephemeralContainers": [
        {"name": "debug", "image": "other.example/shell:1"},
    ]}});
    let answer = call(&porter, Method::PATCH, &enter, Some(&allowed)).await;
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn an_agent_deletes_only_namespaces_that_it_created() {
    let cluster = region().await;
    let admin = cluster.client().await.unwrap();
    let agent = account(cluster, "jiuzhou-system", "jiuzhou-agent").await;
    let delete = async |home: &Value| {
        let at = format!("{}?dryRun=All", path(home, true));
        call(&agent, Method::DELETE, &at, None).await
    };
    let mut adopted = tenants("adopted");
    adopted["metadata"]["annotations"] = json!({});
    created(&admin, &adopted).await;
    let created_anyway = json!({"metadata": {"annotations": {crds::label::CREATED: "true"}}});
    eventually("the policy is in force", async || {
        let refusal = try_patch(&agent, &adopted, &created_anyway).await.err()?;
        refusal
            .message
            .contains("is said when it does")
            .then_some(())
    })
    .await;
    denied(delete(&adopted).await, "only namespaces that it created");
    created(&admin, &namespace_object("strange")).await;
    let take = json!({"metadata": {"labels": {
        crds::label::MANAGED_BY: crds::label::MANAGED_BY_VALUE, crds::label::TENANT: "strange",
    }}});
    denied(
        patch(&agent, &namespace_object("strange"), &take).await,
        "enters only namespaces with the label",
    );
    denied(
        create(&agent, &namespace_object("unmarked")).await,
        "enters only namespaces with the label",
    );
    created(&agent, &tenants("made")).await;
    assert!(delete(&tenants("made")).await.is_ok());
}
