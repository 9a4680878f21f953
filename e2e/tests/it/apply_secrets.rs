//! Secrets that Apps name: where they go, and where their values never show.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    fault_support::{Site, app, deployment, mark, province, settings, uid},
    support::eventually,
};

/// Found nowhere but where it belongs.
const CANARY: &str = "canary-7f3a9c-never-printed";

fn secret(namespace: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": "db"},
        "type": "Opaque", "stringData": {"password": value},
    })
}

fn password(secret: &Value) -> String {
    let bytes = STANDARD.decode(secret["data"]["password"].as_str().unwrap_or_default());
    String::from_utf8(bytes.unwrap()).unwrap()
}

/// Values of the copies of the canary in the place of a cluster at the hub.
async fn copies(hub: &Site, cluster: &str) -> Vec<String> {
    let all = hub.list("Secret", &format!("jz-{cluster}")).await;
    let values = all
        .iter()
        .filter(|s| s["data"]["password"].is_string())
        .map(password);
    values.filter(|value| value.starts_with(CANARY)).collect()
}

#[tokio::test]
async fn a_secret_goes_where_the_app_runs_follows_its_source_and_leaves_with_the_app() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("vault").await);
    let mut web = app(
        &tenant,
        "web",
        &["hangzhou", "quzhou"],
        &[deployment("web", 1)],
    );
    web["spec"]["secretNames"] = json!(["db"]);
    let created = hub.create(&web).await;
    // Without the Secret nothing stands still but the App's readiness.
    running
        .site("hangzhou-a")
        .await
        .until("is there", ("Deployment", &tenant, "web"), |_| true)
        .await;
    hub.create(&secret(&tenant, CANARY)).await;
    hub.ready(&tenant, "web").await;
    for city in ["hangzhou-a", "quzhou-a"] {
        let object = running
            .site(city)
            .await
            .get("Secret", &tenant, "db")
            .await
            .unwrap();
        assert_eq!(password(&object), CANARY, "{city}");
        assert_eq!(object["type"], "Opaque");
        assert_eq!(mark(&object, "labels", "jiuzhou.io/app-uid"), uid(&created));
        assert_eq!(
            mark(&object, "labels", "app.kubernetes.io/managed-by"),
            "jiuzhou"
        );
        assert_eq!(copies(&hub, city).await, [CANARY]);
    }
    assert!(
        running
            .site("ningbo-a")
            .await
            .lacks("Secret", &tenant, "db")
            .await
    );
    assert!(copies(&hub, "ningbo-a").await.is_empty());
    silent(&hub, running.logs()).await;

    let rotated = format!("{CANARY}-rotated");
    hub.merge(
        "Secret",
        &tenant,
        "db",
        &json!({"stringData": {"password": rotated}}),
    )
    .await;
    for city in ["hangzhou-a", "quzhou-a"] {
        let site = running.site(city).await;
        site.until("follows its source", ("Secret", &tenant, "db"), |s| {
            password(s) == rotated
        })
        .await;
    }

    // A Secret that the tenant deletes by mistake is no instruction.
    hub.delete("Secret", &tenant, "db").await;
    hub.delete("App", &tenant, "web").await;
    hub.gone("App", &tenant, "web").await;
    for city in ["hangzhou-a", "quzhou-a"] {
        running.site(city).await.gone("Secret", &tenant, "db").await;
        eventually("the copy is gone", async || {
            copies(&hub, city).await.is_empty().then_some(())
        })
        .await;
    }
}

/// Values show in no log and in none of the objects through which hub and agents talk.
async fn silent(hub: &Site, logs: Vec<std::path::PathBuf>) {
    let encoded = STANDARD.encode(CANARY);
    for log in logs {
        let text = fs::read_to_string(&log).unwrap();
        assert!(
            !text.contains(CANARY) && !text.contains(&encoded),
            "{}",
            log.display()
        );
    }
    for kind in [
        "AssignmentSlice",
        "ReportSlice",
        "ClusterReport",
        "Content",
        "App",
    ] {
        let text = serde_json::to_string(&hub.list(kind, "").await).unwrap();
        assert!(text.len() > 2, "{kind} can be read");
        assert!(!text.contains(CANARY) && !text.contains(&encoded), "{kind}");
    }
}

#[tokio::test]
async fn two_apps_share_a_secret_and_the_last_one_takes_it_along() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("share").await);
    hub.create(&secret(&tenant, "shared")).await;
    for name in ["one", "two"] {
        let mut each = app(&tenant, name, &["ningbo"], &[settings(name, "x")]);
        each["spec"]["secretNames"] = json!(["db"]);
        hub.create(&each).await;
    }
    hub.ready(&tenant, "one").await;
    let two = hub.ready(&tenant, "two").await;
    let ningbo = running.site("ningbo-a").await;
    let before = ningbo.get("Secret", &tenant, "db").await.unwrap();
    hub.delete("App", &tenant, "one").await;
    hub.gone("App", &tenant, "one").await;
    let kept = ningbo
        .until("belongs to the other", ("Secret", &tenant, "db"), |s| {
            mark(s, "labels", "jiuzhou.io/app-uid") == uid(&two)
        })
        .await;
    assert_eq!(uid(&kept), uid(&before));
    hub.merge(
        "App",
        &tenant,
        "two",
        &json!({"spec": {"secretNames": null}}),
    )
    .await;
    ningbo.gone("Secret", &tenant, "db").await;
    hub.ready(&tenant, "two").await;
}

#[tokio::test]
async fn a_secret_that_somebody_else_made_is_not_overwritten() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("theirs").await);
    hub.create(&app(
        &tenant,
        "first",
        &["hangzhou"],
        &[settings("first", "x")],
    ))
    .await;
    hub.ready(&tenant, "first").await;
    let hangzhou = running.site("hangzhou-a").await;
    hangzhou.create(&secret(&tenant, "theirs")).await;
    hub.create(&secret(&tenant, "ours")).await;
    let mut web = app(&tenant, "web", &["hangzhou"], &[settings("web", "x")]);
    web["spec"]["secretNames"] = json!(["db"]);
    hub.create(&web).await;
    let message = hub.refused(&tenant, "web", "NotManaged").await;
    assert!(message.contains(&format!("{tenant}/db")), "{message}");
    assert_eq!(
        password(&hangzhou.get("Secret", &tenant, "db").await.unwrap()),
        "theirs"
    );
    hub.merge(
        "App",
        &tenant,
        "web",
        &json!({"spec": {"takeOver": "Always"}}),
    )
    .await;
    hub.ready(&tenant, "web").await;
    assert_eq!(
        password(&hangzhou.get("Secret", &tenant, "db").await.unwrap()),
        "ours"
    );
}
