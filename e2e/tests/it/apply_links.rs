//! Links on a living province: both sides agree, and only what is declared passes.

use http::Method;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    admit_support::{account, account_object, binding, call, created, path},
    apply_tenants::{ready, tenant},
    fault_support::{Running, Site, app, condition, deployment, province},
    support::eventually,
    user_shell::jiuzhou_at,
};

const ROOT: &str = "jiuzhou-system";

fn link(namespace: &str, name: &str, to: &str) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Link",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "from": {"appNames": ["web"]},
            "to": {"namespace": to, "appName": "sso", "ports": [{"port": 8443}]},
            "reason": "who somebody is", "owner": {"unit": "office"},
            "expires": "2099-01-01T00:00:00Z",
        },
    })
}

fn grant(namespace: &str, from: &str) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "LinkGrant",
        "metadata": {"name": "grant", "namespace": namespace},
        "spec": {"from": [{"namespace": from}], "to": [{"appName": "sso"}]},
    })
}

/// Waits until a Link says that of itself, and returns the sentence.
async fn says(hub: &Site, namespace: &str, name: &str, reason: &str) -> String {
    let says = |link: &Value| {
        link["status"]["observedGeneration"] == link["metadata"]["generation"]
            && condition(link, "Ready").is_some_and(|(_, why, _)| why == reason)
    };
    let link = hub.until(reason, ("Link", namespace, name), says).await;
    let (.., message) = condition(&link, "Ready").expect("it was found");
    message.to_owned()
}

/// Whether one end reaches the other in Hangzhou, as the command line has it.
async fn reaches(running: &Running, from: &str, to: &str) -> bool {
    let cluster = running.fleet.cluster("hangzhou-a").expect("it is there");
    let output = jiuzhou_at(cluster, &["reach", from, to]).await;
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told.starts_with("yes: "), output.status.success(), "{told}");
    output.status.success()
}

#[tokio::test]
async fn what_both_sides_declare_passes_and_nothing_else() {
    let running = province().await;
    let hub = running.hub().await;
    let (office, identity) = (
        running.tenant("office").await,
        running.tenant("identity").await,
    );
    for (namespace, name) in [(&office, "web"), (&identity, "sso")] {
        hub.create(&app(namespace, name, &["hangzhou"], &[deployment(name, 1)]))
            .await;
        hub.ready(namespace, name).await;
    }
    let (web, sso) = (format!("{office}/web"), format!("{identity}/sso"));
    let port = |number: i32| format!("{sso}:{number}");
    assert!(!reaches(running, &web, &port(8443)).await);
    assert!(
        reaches(running, &web, &format!("{web}:80")).await,
        "its own namespace"
    );
    hub.create(&link(&office, "id", &identity)).await;
    let message = says(&hub, &office, "id", "GrantMissing").await;
    assert!(
        message.contains(&format!("whoever runs {identity} creates one")),
        "{message}"
    );
    assert!(!reaches(running, &web, &port(8443)).await);
    hub.create(&grant(&identity, &office)).await;
    says(&hub, &office, "id", "AsExpected").await;
    assert!(reaches(running, &web, &port(8443)).await);
    assert!(!reaches(running, &web, &port(8080)).await, "another port");
    assert!(
        !reaches(running, &sso, &format!("{web}:8443")).await,
        "the other direction"
    );
    assert!(
        !reaches(running, "192.0.2.1", &port(8443)).await,
        "from outside"
    );
    assert!(
        !reaches(running, &web, "192.0.2.1:443").await,
        "to the outside"
    );
    let third = running.tenant("third").await;
    hub.create(&app(&third, "web", &["hangzhou"], &[deployment("web", 1)]))
        .await;
    hub.ready(&third, "web").await;
    assert!(
        !reaches(running, &format!("{third}/web"), &port(8443)).await,
        "a namesake"
    );
    hub.delete("LinkGrant", &identity, "grant").await;
    says(&hub, &office, "id", "GrantMissing").await;
    eventually("it is closed again", async || {
        (!reaches(running, &web, &port(8443)).await).then_some(())
    })
    .await;
}

async fn post(client: &Client, object: &Value) -> Result<Value, String> {
    let answer = call(client, Method::POST, &path(object, false), Some(object)).await;
    answer.map_err(|refusal| refusal.message)
}

/// Two tenants with an App each in two zones, and the account that runs both.
async fn two_zones(running: &Running, hub: &Site) -> Client {
    let by = json!({"administrators": [{"kind": "ServiceAccount", "name": "clerk"}]});
    for name in ["bureau", "registry"] {
        hub.create(&tenant(ROOT, name, &by)).await;
        ready(hub, ROOT, name).await;
        hub.create(&account_object(name, "clerk")).await;
    }
    let mut web = app("bureau", "web", &["hangzhou"], &[deployment("web", 1)]);
    web["spec"]["zone"] = json!("Internet");
    hub.create(&web).await;
    let sso = app("registry", "sso", &["hangzhou"], &[deployment("sso", 1)]);
    hub.create(&sso).await;
    hub.create(&grant("registry", "bureau")).await;
    account(running.fleet.hub(), "bureau", "clerk").await
}

/// The yes of somebody to Link cross as it is.
fn approval(name: &str, by: &str, hash: &Value) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Approval",
        "metadata": {"name": name, "namespace": ROOT},
        "spec": {
            "target": {"kind": "Link", "namespace": "bureau", "name": "cross"},
            "step": "cross-zone", "contentHash": hash, "approver": by,
            "decision": "Approve", "expires": "2099-01-01T00:00:00Z",
        },
    })
}

#[tokio::test]
async fn a_link_between_zones_takes_the_yes_of_somebody_else_who_may() {
    let running = province().await;
    let hub = running.hub().await;
    let clerk = two_zones(running, &hub).await;
    let mut crossing = link("bureau", "cross", "registry");
    // A name of somebody else's as the author does not stand.
    crossing["metadata"]["annotations"] = json!({"jiuzhou.io/changed-by": "nobody"});
    eventually("the clerk may", async || post(&clerk, &crossing).await.ok()).await;
    let message = says(&hub, "bureau", "cross", "ApprovalRequired").await;
    assert!(
        message.contains("waits for an Approval in namespace jiuzhou-system"),
        "{message}"
    );
    let stored = hub.get("Link", "bureau", "cross").await;
    let stored = stored.expect("it is there");
    let author = "system:serviceaccount:bureau:clerk";
    assert_eq!(
        stored["metadata"]["annotations"]["jiuzhou.io/changed-by"],
        author
    );
    let hash = &stored["status"]["contentHash"];
    let refused = post(&clerk, &approval("own", author, hash)).await;
    let refused = refused.expect_err("it is not the clerk's to approve");
    assert!(refused.contains("forbidden"), "{refused}");
    hub.create(&account_object(ROOT, "security")).await;
    let role = binding(ROOT, "jiuzhou-security-approver", (ROOT, "security"));
    created(&hub.client, &role).await;
    let security = account(running.fleet.hub(), ROOT, "security").await;
    let somebody = format!("system:serviceaccount:{ROOT}:security");
    let message = eventually("the role is in force", async || {
        let refused = post(&security, &approval("forged", "mayor", hash)).await;
        let message = refused.expect_err("nobody signs for another");
        message.contains("spec.approver").then_some(message)
    })
    .await;
    assert!(message.contains(&somebody), "{message}");
    post(&security, &approval("yes", &somebody, hash))
        .await
        .expect("it is the security administrator's to approve");
    says(&hub, "bureau", "cross", "AsExpected").await;
    for name in ["bureau", "registry"] {
        hub.delete("Tenant", ROOT, name).await;
        hub.gone("Tenant", ROOT, name).await;
    }
}
