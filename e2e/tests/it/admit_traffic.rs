//! Who may speak for the hub: the label of TrafficPolicies on a real API server.

use http::Method;
use kube::Client;
use serde_json::{Value, json};

use crate::admit_support::{
    Answer, account, account_object, apply, binding, call, created, namespace_object, patch, path,
    refused, region, try_create,
};

const HOME: &str = "traffic-home";
const MESSAGE: &str = "is for what the hub sends";

fn policy(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"namespace": HOME, "name": name, "labels": labels},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}],
            "timeout": "3s",
        },
    })
}

fn of_hub(name: &str) -> Value {
    policy(
        name,
        &json!({crds::label::MANAGED_BY: crds::label::MANAGED_BY_VALUE}),
    )
}

/// Someone of the namespace with every right on its TrafficPolicies, and the agent with the same.
async fn writers(admin: &Client) -> (Client, Client) {
    created(admin, &namespace_object(HOME)).await;
    created(admin, &account_object(HOME, "tenant")).await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "test-traffic"},
        "rules": [{"apiGroups": ["jiuzhou.io"], "resources": ["trafficpolicies"], "verbs": ["*"]}],
    });
    created(admin, &role).await;
    let agent = ("jiuzhou-system", "jiuzhou-agent");
    for subject in [(HOME, "tenant"), agent] {
        created(admin, &binding(HOME, "test-traffic", subject)).await;
    }
    let cluster = region().await;
    (
        account(cluster, HOME, "tenant").await,
        account(cluster, agent.0, agent.1).await,
    )
}

fn assert_refused(what: &str, answer: Answer) {
    let refusal = answer.expect_err(what);
    assert!(refusal.message.contains(MESSAGE), "{what}: {refusal:?}");
}

#[tokio::test]
async fn only_an_agent_says_that_a_traffic_policy_is_the_hubs() {
    let admin = region().await.client().await.unwrap();
    let (tenant, agent) = writers(&admin).await;
    created(&tenant, &policy("own", &json!({}))).await;
    created(
        &tenant,
        &policy("other-tool", &json!({crds::label::MANAGED_BY: "helm"})),
    )
    .await;
    created(&agent, &of_hub("sent")).await;
    refused(&tenant, &of_hub("forged"), MESSAGE).await;
    assert_refused("by apply", apply(&tenant, &of_hub("own")).await);
    let label = |value: Value| json!({"metadata": {"labels": {crds::label::MANAGED_BY: value}}});
    let own = policy("own", &json!({}));
    let claimed = patch(&tenant, &own, &label(json!(crds::label::MANAGED_BY_VALUE))).await;
    assert_refused("by a patch", claimed);
    assert_refused(
        "by an administrator",
        try_create(&admin, &of_hub("more")).await,
    );
    let sent = of_hub("sent");
    let looser = json!({"spec": {"timeout": "1h"}});
    assert_refused("loosened", patch(&tenant, &sent, &looser).await);
    assert_refused("disowned", patch(&tenant, &sent, &label(Value::Null)).await);
    let gone = call(&tenant, Method::DELETE, &path(&sent, true), None).await;
    assert_refused("deleted", gone);
    let tighter = json!({"spec": {"timeout": "2s"}});
    patch(&agent, &sent, &tighter)
        .await
        .expect("the agent's own");
    patch(&tenant, &own, &tighter)
        .await
        .expect("the tenant's own");
    let gone = call(&tenant, Method::DELETE, &path(&own, true), None).await;
    gone.expect("the tenant's own");
    let gone = call(&agent, Method::DELETE, &path(&sent, true), None).await;
    gone.expect("the agent's own");
}
