//! A member cluster is away, for a while, or another one stands behind its name.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    fault_support::{app, condition, deployment, fragile, settings, throughout, uid},
    support::eventually,
};

fn reach(cluster: &Value) -> &str {
    condition(cluster, "Reachable").map_or("", |(_, reason, _)| reason)
}

#[tokio::test]
async fn a_cluster_that_is_cut_off_is_shown_nothing_moves_and_its_return_is_not_believed_at_once() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("cut").await;
    let hub = running.hub().await;
    let mut web = app(
        &tenant,
        "web",
        &["hangzhou", "ningbo"],
        &[deployment("web", 2)],
    );
    web["spec"]["replicas"] = json!({"total": 4, "division": "Even"});
    hub.create(&web).await;
    let before = hub.ready(&tenant, "web").await;
    let ningbo = running.site("ningbo-a").await;
    let there = ningbo.get("Deployment", &tenant, "web").await.unwrap();

    running
        .fleet
        .cluster("ningbo-a")
        .unwrap()
        .apiserver()
        .pause()
        .unwrap();
    let lost = tokio::time::Instant::now();
    hub.until(
        "is out of contact",
        ("MemberCluster", "", "ningbo-a"),
        |c| reach(c) == "OutOfContact",
    )
    .await;
    assert!(
        lost.elapsed() < Duration::from_secs(20),
        "it took {:?}",
        lost.elapsed()
    );
    let mut placed = replicas(&before);
    throughout("nothing moves", Duration::from_secs(2), async || {
        hub.get("App", &tenant, "web")
            .await
            .is_some_and(|app| replicas(&app) == placed)
    })
    .await;
    // The others go on.
    let images = json!({"spec": {"images": [{"name": "registry.example/app", "newTag": "2"}]}});
    hub.merge("App", &tenant, "web", &images).await;
    let hangzhou = running.site("hangzhou-a").await;
    let newer = |o: &Value| {
        o["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/app:2"
    };
    hangzhou
        .until("has the new image", ("Deployment", &tenant, "web"), newer)
        .await;
    hub.refused(&tenant, "web", "OutOfContact").await;

    running
        .fleet
        .cluster("ningbo-a")
        .unwrap()
        .apiserver()
        .resume()
        .unwrap();
    hub.until("is returning", ("MemberCluster", "", "ningbo-a"), |c| {
        reach(c) == "Returning"
    })
    .await;
    running.whole().await;
    let after = hub.ready(&tenant, "web").await;
    placed.sort();
    assert_eq!(replicas(&after), placed);
    let object = ningbo.get("Deployment", &tenant, "web").await.unwrap();
    assert!(newer(&object));
    assert_eq!(uid(&object), uid(&there));
}

/// Cluster and replicas of each placement.
fn replicas(app: &Value) -> Vec<(String, i64)> {
    let all = app["status"]["placements"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let one = |p: &Value| {
        (
            p["clusterName"].as_str().unwrap_or_default().to_owned(),
            p["replicas"].as_i64().unwrap_or(-1),
        )
    };
    let mut all: Vec<_> = all.iter().map(one).collect();
    all.sort();
    all
}

#[tokio::test]
async fn an_app_deleted_and_made_anew_while_a_cluster_is_away_never_loses_its_new_objects() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("anew").await;
    let hub = running.hub().await;
    let web = app(
        &tenant,
        "web",
        &["hangzhou", "ningbo"],
        &[deployment("web", 1), settings("web", "one")],
    );
    let first = hub.create(&web).await;
    hub.ready(&tenant, "web").await;
    let (hangzhou, ningbo) = (
        running.site("hangzhou-a").await,
        running.site("ningbo-a").await,
    );
    let old = ningbo.get("ConfigMap", &tenant, "web").await.unwrap();

    let agent = running.process("agent-ningbo-a");
    agent.pause().unwrap();
    hub.until(
        "is out of contact",
        ("MemberCluster", "", "ningbo-a"),
        |c| reach(c) == "OutOfContact",
    )
    .await;
    hub.delete("App", &tenant, "web").await;
    hub.gone("App", &tenant, "web").await;
    hangzhou.gone("ConfigMap", &tenant, "web").await;
    let slices = serde_json::to_string(&hub.list("AssignmentSlice", "jz-ningbo-a").await).unwrap();
    assert!(slices.contains(uid(&first)), "the tombstone stays");
    let kept = ningbo.get("ConfigMap", &tenant, "web").await.unwrap();
    assert_eq!(
        uid(&kept),
        uid(&old),
        "a cluster that is away keeps what it has"
    );

    let second = hub.create(&web).await;
    let fresh = hangzhou
        .until("is the new App's", ("ConfigMap", &tenant, "web"), |_| true)
        .await;
    agent.resume().unwrap();
    let new = ningbo
        .until("is the new App's", ("ConfigMap", &tenant, "web"), |o| {
            o["metadata"]["labels"]["jiuzhou.io/app-uid"] == uid(&second)
        })
        .await;
    running.whole().await;
    hub.ready(&tenant, "web").await;
    eventually("the tombstone is gone", async || {
        let slices =
            serde_json::to_string(&hub.list("AssignmentSlice", "jz-ningbo-a").await).ok()?;
        (!slices.contains(uid(&first))).then_some(())
    })
    .await;
    throughout(
        "the late removal touches nothing new",
        Duration::from_secs(2),
        async || {
            let same = async |site: &crate::fault_support::Site, object: &Value| {
                site.get("ConfigMap", &tenant, "web")
                    .await
                    .is_some_and(|o| uid(&o) == uid(object))
            };
            same(&hangzhou, &fresh).await && same(&ningbo, &new).await
        },
    )
    .await;
}

#[tokio::test]
async fn an_app_deleted_while_a_cluster_is_away_is_removed_there_when_it_returns() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("late").await;
    let hub = running.hub().await;
    let first = hub
        .create(&app(
            &tenant,
            "web",
            &["hangzhou", "ningbo"],
            &[settings("web", "one")],
        ))
        .await;
    hub.ready(&tenant, "web").await;
    let agent = running.process("agent-ningbo-a");
    agent.kill().unwrap();
    hub.until(
        "is out of contact",
        ("MemberCluster", "", "ningbo-a"),
        |c| reach(c) == "OutOfContact",
    )
    .await;
    hub.delete("App", &tenant, "web").await;
    hub.gone("App", &tenant, "web").await;
    running
        .site("hangzhou-a")
        .await
        .gone("ConfigMap", &tenant, "web")
        .await;
    agent.start().unwrap();
    running
        .site("ningbo-a")
        .await
        .gone("ConfigMap", &tenant, "web")
        .await;
    eventually("the tombstone is gone", async || {
        let slices =
            serde_json::to_string(&hub.list("AssignmentSlice", "jz-ningbo-a").await).ok()?;
        (!slices.contains(uid(&first))).then_some(())
    })
    .await;
    running.whole().await;
}

#[tokio::test]
async fn an_agent_killed_right_behind_a_removal_brings_nothing_back_from_its_memory() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("back").await;
    let hub = running.hub().await;
    // The memory is written at most every ten seconds: after a rest at once, with the App in it.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let manifests = [settings("web", "one")];
    let created = hub
        .create(&app(&tenant, "web", &["hangzhou"], &manifests))
        .await;
    hub.ready(&tenant, "web").await;
    let site = running.site("hangzhou-a").await;
    hub.delete("App", &tenant, "web").await;
    hub.gone("App", &tenant, "web").await;
    eventually("the tombstone is gone", async || {
        let slices = hub.list("AssignmentSlice", "jz-hangzhou-a").await;
        let slices = serde_json::to_string(&slices).ok()?;
        (!slices.contains(uid(&created))).then_some(())
    })
    .await;
    let agent = running.process("agent-hangzhou-a");
    agent.kill().unwrap();
    agent.start().unwrap();
    throughout("it stays gone", Duration::from_secs(5), async || {
        site.lacks("ConfigMap", &tenant, "web").await
    })
    .await;
    running.whole().await;
}

#[tokio::test]
async fn another_cluster_under_an_old_name_is_refused_and_nothing_is_applied_there() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("other").await;
    let hub = running.hub().await;
    hub.create(&app(
        &tenant,
        "web",
        &["hangzhou"],
        &[settings("web", "one")],
    ))
    .await;
    hub.ready(&tenant, "web").await;
    let agent = running.process("agent-hangzhou-a");
    agent.kill().unwrap();
    // The agent of Hangzhou, with its place at the hub, finds itself in Ningbo's cluster.
    let lost = running.misplaced_agent("hangzhou-a", "ningbo-a").await;
    hub.until(
        "is another cluster",
        ("MemberCluster", "", "hangzhou-a"),
        |c| {
            condition(c, "Joined")
                .is_some_and(|(status, reason, _)| status == "False" && reason == "IdentityChanged")
        },
    )
    .await;
    hub.merge(
        "App",
        &tenant,
        "web",
        &json!({"spec": {"manifests": [settings("web", "two")]}}),
    )
    .await;
    let (hangzhou, ningbo) = (
        running.site("hangzhou-a").await,
        running.site("ningbo-a").await,
    );
    throughout(
        "nothing is applied in the wrong cluster",
        Duration::from_secs(3),
        async || ningbo.lacks("ConfigMap", &tenant, "web").await,
    )
    .await;
    lost.kill().unwrap();
    agent.start().unwrap();
    running.whole().await;
    hub.ready(&tenant, "web").await;
    assert_eq!(
        hangzhou.get("ConfigMap", &tenant, "web").await.unwrap()["data"]["key"],
        "two"
    );
}
