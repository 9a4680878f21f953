//! Somebody deletes what hub and agents talk through. Absence is never an instruction.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    fault_support::{Running, app, deployment, fragile, names, settings, throughout, uid},
    support::eventually,
};

/// UIDs of an App's objects in a cluster.
async fn objects(running: &Running, city: &str, tenant: &str) -> Vec<String> {
    let site = running.site(city).await;
    let mut uids = Vec::new();
    for kind in ["Deployment", "ConfigMap"] {
        uids.extend(
            site.get(kind, tenant, "web")
                .await
                .map(|o| uid(&o).to_owned()),
        );
    }
    uids
}

async fn three_apps(running: &Running, tenant: &str) {
    let hub = running.hub().await;
    hub.create(&app(
        tenant,
        "web",
        &["hangzhou"],
        &[deployment("web", 2), settings("web", "one")],
    ))
    .await;
    for name in ["a", "b"] {
        hub.create(&app(tenant, name, &["hangzhou"], &[settings(name, "one")]))
            .await;
    }
    for name in ["web", "a", "b"] {
        hub.ready(tenant, name).await;
    }
}

#[tokio::test]
async fn slices_deleted_by_hand_come_back_and_nothing_is_deleted() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("slices").await;
    let hub = running.hub().await;
    three_apps(running, &tenant).await;
    let before = objects(running, "hangzhou-a", &tenant).await;
    let apps: Vec<Value> = hub.list("App", &tenant).await;
    for round in ["one", "all, with the hub and the agent away"] {
        let away = round != "one";
        let all = names(&hub, "AssignmentSlice", "jz-hangzhou-a").await;
        if away {
            running.process("hub").kill().unwrap();
            running.process("agent-hangzhou-a").kill().unwrap();
        }
        for name in all.iter().take(if away { all.len() } else { 1 }) {
            hub.delete("AssignmentSlice", "jz-hangzhou-a", name).await;
        }
        if away {
            running.process("hub").start().unwrap();
            running.process("agent-hangzhou-a").start().unwrap();
        }
        eventually("every App has its entry again", async || {
            let text =
                serde_json::to_string(&hub.list("AssignmentSlice", "jz-hangzhou-a").await).ok()?;
            apps.iter().all(|app| text.contains(uid(app))).then_some(())
        })
        .await;
        throughout("nothing is deleted", Duration::from_secs(2), async || {
            objects(running, "hangzhou-a", &tenant).await == before
        })
        .await;
        // And the cluster still follows.
        let value = format!("after {}", all.len() + usize::from(away));
        let manifests = json!([deployment("web", 2), settings("web", &value)]);
        hub.merge(
            "App",
            &tenant,
            "web",
            &json!({"spec": {"manifests": manifests}}),
        )
        .await;
        hub.ready(&tenant, "web").await;
        let site = running.site("hangzhou-a").await;
        assert_eq!(
            site.get("ConfigMap", &tenant, "web").await.unwrap()["data"]["key"],
            value,
            "{round}"
        );
        running.whole().await;
    }
}

#[tokio::test]
async fn content_deleted_by_hand_is_stored_again_and_what_runs_is_kept() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("content").await;
    let hub = running.hub().await;
    three_apps(running, &tenant).await;
    let before = objects(running, "hangzhou-a", &tenant).await;
    for name in names(&hub, "Content", "jiuzhou-content").await {
        hub.delete("Content", "jiuzhou-content", &name).await;
    }
    let hashes: Vec<String> = hub
        .list("App", &tenant)
        .await
        .iter()
        .map(|app| app["status"]["contentHash"].as_str().unwrap().to_owned())
        .collect();
    eventually("every content is stored again", async || {
        let text = serde_json::to_string(&hub.list("Content", "").await).ok()?;
        hashes.iter().all(|hash| text.contains(hash)).then_some(())
    })
    .await;
    throughout("what runs is kept", Duration::from_secs(1), async || {
        objects(running, "hangzhou-a", &tenant).await == before
    })
    .await;
    for name in ["web", "a", "b"] {
        hub.ready(&tenant, name).await;
    }
}

#[tokio::test]
async fn reports_deleted_by_hand_are_written_again() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("reports").await;
    let hub = running.hub().await;
    three_apps(running, &tenant).await;
    let before = objects(running, "hangzhou-a", &tenant).await;
    for name in names(&hub, "ReportSlice", "jz-hangzhou-a").await {
        hub.delete("ReportSlice", "jz-hangzhou-a", &name).await;
    }
    hub.merge(
        "App",
        &tenant,
        "a",
        &json!({"spec": {"manifests": [settings("a", "two")]}}),
    )
    .await;
    for name in ["web", "a", "b"] {
        hub.ready(&tenant, name).await;
    }
    assert_eq!(objects(running, "hangzhou-a", &tenant).await, before);
}

#[tokio::test]
async fn a_timetable_is_followed_with_the_hub_gone() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("timetable").await;
    let hub = running.hub().await;
    let created = hub
        .create(&app(&tenant, "web", &["hangzhou"], &[deployment("web", 1)]))
        .await;
    hub.ready(&tenant, "web").await;
    running
        .process("hub")
        .stop(Duration::from_secs(5))
        .await
        .unwrap();
    // Nothing decides on times yet; a later step of the plan will write what is written here.
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(6);
    let stages = json!([{"replicas": 2}, {"notBefore": later.to_string(), "replicas": 3}]);
    let slices = hub.list("AssignmentSlice", "jz-hangzhou-a").await;
    let names_it = |slice: &&Value| slice.to_string().contains(uid(&created));
    let slice = slices.iter().find(names_it).expect("a slice names it");
    let mut spec = slice["spec"].clone();
    let sequence = spec["sequence"].as_i64().unwrap() + 1;
    spec["sequence"] = json!(sequence);
    for entry in spec["entries"].as_array_mut().unwrap() {
        if entry["uid"] == created["metadata"]["uid"] {
            entry["stages"] = stages.clone();
            entry["generation"] = json!(sequence);
        }
    }
    let name = slice["metadata"]["name"].as_str().unwrap();
    let change = json!({"spec": spec});
    hub.merge("AssignmentSlice", "jz-hangzhou-a", name, &change)
        .await;
    let site = running.site("hangzhou-a").await;
    for replicas in [2, 3] {
        let early = jiff::Timestamp::now() < later;
        assert!(early || replicas == 3, "the test is too slow to tell");
        site.until(
            "has the replicas of its stage",
            ("Deployment", &tenant, "web"),
            |web| web["spec"]["replicas"] == replicas,
        )
        .await;
    }
    assert!(jiff::Timestamp::now() >= later, "not before its time");
    running.process("hub").start().unwrap();
    running.whole().await;
}
