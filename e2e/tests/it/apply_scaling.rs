//! Who decides on replicas: the App, its autoscaler, or a person in an emergency.

use std::time::Duration;

use futures::StreamExt as _;
use kube::{
    api::{WatchEvent, WatchParams},
    core::DynamicObject,
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::fault_support::{Site, app, deployment, owners, province, throughout};

/// Watches `spec.replicas` of a Deployment from now on and collects every value.
async fn replicas_seen(site: &Site, namespace: &str, name: &str) -> JoinHandle<Vec<i64>> {
    let api = site.api("Deployment", namespace);
    let now = api.get(name).await.unwrap();
    let version = now.metadata.resource_version.clone().unwrap();
    let params = WatchParams::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(8);
    let mut stream = api.watch(&params, &version).await.unwrap().boxed();
    let replicas = |object: &DynamicObject| object.data["spec"]["replicas"].as_i64();
    let mut seen = vec![replicas(&now).unwrap()];
    tokio::spawn(async move {
        while let Some(Ok(event)) = stream.next().await {
            if let WatchEvent::Modified(object) = event {
                seen.push(replicas(&object).unwrap_or(0));
            }
        }
        seen
    })
}

#[tokio::test]
async fn an_autoscaler_takes_replicas_over_without_a_moment_of_fewer() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("hpa").await);
    hub.create(&app(&tenant, "web", &["hangzhou"], &[deployment("web", 4)]))
        .await;
    hub.ready(&tenant, "web").await;
    let site = running.site("hangzhou-a").await;
    let watching = replicas_seen(&site, &tenant, "web").await;
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 2, "maxReplicas": 6,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60},
            }}],
        },
    });
    let scaled = json!({"spec": {"manifests": [deployment("web", 4), autoscaler]}});
    hub.merge("App", &tenant, "web", &scaled).await;
    site.until(
        "is there",
        ("HorizontalPodAutoscaler", &tenant, "web"),
        |_| true,
    )
    .await;
    hub.ready(&tenant, "web").await;
    let path = "/f:spec/f:replicas";
    let object = site
        .until(
            "replicas are no longer ours",
            ("Deployment", &tenant, "web"),
            |o| !owners(o, path).contains(&"jiuzhou"),
        )
        .await;
    assert_eq!(object["spec"]["replicas"], 4);

    // The autoscaler's word stands from now on.
    site.merge(
        "Deployment",
        &tenant,
        "web",
        &json!({"spec": {"replicas": 6}}),
    )
    .await;
    let seen = watching.await.unwrap();
    assert!(seen.iter().all(|n| *n >= 4), "replicas fell: {seen:?}");
    assert_eq!(seen.last(), Some(&6), "{seen:?}");
}

#[tokio::test]
async fn replicas_set_by_hand_in_an_emergency_hold_until_the_given_time() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("hold").await);
    hub.create(&app(&tenant, "web", &["ningbo"], &[deployment("web", 2)]))
        .await;
    hub.ready(&tenant, "web").await;
    let site = running.site("ningbo-a").await;
    let hold = |seconds| {
        let until = jiff::Timestamp::now() + Duration::from_secs(seconds);
        let until = jiff::Timestamp::from_second(until.as_second()).unwrap();
        json!({"metadata": {"annotations": {"jiuzhou.io/hold-until": until.to_string()}}})
    };
    site.merge("Deployment", &tenant, "web", &hold(3600)).await;
    let seven = json!({"spec": {"replicas": 7}});
    site.merge("Deployment", &tenant, "web", &seven).await;
    throughout(
        "the number set by hand holds",
        Duration::from_secs(4),
        async || {
            site.get("Deployment", &tenant, "web")
                .await
                .is_some_and(|o| o["spec"]["replicas"] == 7)
        },
    )
    .await;
    // The time is a clock's: it comes by itself.
    site.merge("Deployment", &tenant, "web", &hold(3)).await;
    site.until("is put back", ("Deployment", &tenant, "web"), |o| {
        o["spec"]["replicas"] == 2
    })
    .await;
}
