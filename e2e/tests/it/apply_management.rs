//! What may be done in a cluster: only looked at, or left without orphans.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    fault_support::{
        Running, Site, app, condition, deployment, fragile, mark, settings, throughout, uid,
    },
    support::eventually,
};

async fn manage(running: &Running, cluster: &str, how: &str) {
    let hub = running.hub().await;
    hub.merge(
        "MemberCluster",
        "",
        cluster,
        &json!({"spec": {"management": how}}),
    )
    .await;
}

#[tokio::test]
async fn in_a_cluster_that_is_only_observed_nothing_is_written_and_the_report_says_what_would_be() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("observe").await;
    let hub = running.hub().await;
    hub.create(&app(
        &tenant,
        "web",
        &["ningbo"],
        &[deployment("web", 1), settings("web", "one")],
    ))
    .await;
    hub.ready(&tenant, "web").await;
    manage(running, "ningbo-a", "Observe").await;
    hub.until("is only observed", ("MemberCluster", "", "ningbo-a"), |c| {
        condition(c, "Joined").is_some_and(|(_, reason, _)| reason == "ObserveOnly")
    })
    .await;
    let ningbo = running.site("ningbo-a").await;
    let observed = |r: &Value| {
        let entries = r["spec"]["entries"].as_array();
        entries
            .into_iter()
            .flatten()
            .any(|e| e["state"] == "Observed")
    };
    eventually("the report says so", async || {
        hub.list("ReportSlice", "jz-ningbo-a")
            .await
            .iter()
            .any(observed)
            .then_some(())
    })
    .await;
    ningbo
        .merge(
            "ConfigMap",
            &tenant,
            "web",
            &json!({"data": {"key": "by hand"}}),
        )
        .await;
    ningbo.delete("Deployment", &tenant, "web").await;
    let words = "would create 1, take over 0, change 1 and delete 0 objects";
    eventually("the report counts what would change", async || {
        let reports = serde_json::to_string(&hub.list("ReportSlice", "jz-ningbo-a").await).ok()?;
        reports.contains(words).then_some(())
    })
    .await;
    throughout("nothing is written", Duration::from_secs(2), async || {
        let map = ningbo.get("ConfigMap", &tenant, "web").await;
        map.is_some_and(|o| o["data"]["key"] == "by hand")
            && ningbo.lacks("Deployment", &tenant, "web").await
    })
    .await;
    manage(running, "ningbo-a", "Manage").await;
    ningbo
        .until("is put back", ("ConfigMap", &tenant, "web"), |o| {
            o["data"]["key"] == "one"
        })
        .await;
    hub.ready(&tenant, "web").await;
    running.whole().await;
}

#[tokio::test]
async fn what_a_cluster_ran_of_its_own_is_looked_at_first_and_then_taken_over_as_it_stands() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("adopt").await;
    let hub = running.hub().await;
    manage(running, "ningbo-a", "Observe").await;
    hub.until("is only observed", ("MemberCluster", "", "ningbo-a"), |c| {
        condition(c, "Joined").is_some_and(|(_, reason, _)| reason == "ObserveOnly")
    })
    .await;
    let ningbo = running.site("ningbo-a").await;
    // Its owner lets Jiuzhou use the namespace, and nothing more.
    let labels = json!({"app.kubernetes.io/managed-by": "jiuzhou"});
    ningbo
        .create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tenant, "labels": labels}}))
        .await;
    let mut own = deployment("web", 1);
    own["metadata"]["namespace"] = json!(tenant);
    let before = ningbo.create(&own).await;

    let mut web = app(&tenant, "web", &["ningbo"], &[deployment("web", 1)]);
    web["spec"]["takeOver"] = json!("Always");
    hub.create(&web).await;
    let words = "would create 0, take over 1, change 0 and delete 0 objects";
    eventually("the report says what managing it would do", async || {
        let reports = serde_json::to_string(&hub.list("ReportSlice", "jz-ningbo-a").await).ok()?;
        reports.contains(words).then_some(())
    })
    .await;
    let there = ningbo.get("Deployment", &tenant, "web").await.unwrap();
    assert_eq!(
        mark(&there, "labels", "jiuzhou.io/app"),
        "",
        "only looked at"
    );

    manage(running, "ningbo-a", "Manage").await;
    hub.ready(&tenant, "web").await;
    let there = ningbo.get("Deployment", &tenant, "web").await.unwrap();
    assert_eq!(mark(&there, "labels", "jiuzhou.io/app"), "web");
    assert_eq!(uid(&there), uid(&before));
    running.whole().await;
}

#[tokio::test]
async fn a_released_cluster_keeps_its_workloads_without_our_marks_and_can_be_deleted() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("release").await;
    let hub = running.hub().await;
    hub.create(&app(
        &tenant,
        "web",
        &["ningbo"],
        &[deployment("web", 1), settings("web", "one")],
    ))
    .await;
    hub.ready(&tenant, "web").await;
    let ningbo = running.site("ningbo-a").await;
    let before = ningbo.get("Deployment", &tenant, "web").await.unwrap();
    manage(running, "ningbo-a", "Release").await;
    for kind in ["Deployment", "ConfigMap"] {
        let bare = |o: &Value| {
            let metadata =
                serde_json::to_string(&[&o["metadata"]["labels"], &o["metadata"]["annotations"]])
                    .unwrap();
            !metadata.contains("jiuzhou")
        };
        ningbo
            .until("is nobody's", (kind, &tenant, "web"), bare)
            .await;
    }
    assert_eq!(
        uid(&ningbo.get("Deployment", &tenant, "web").await.unwrap()),
        uid(&before)
    );
    ledger_is_empty(&hub, "jz-ningbo-a").await;
    let member = hub.get("MemberCluster", "", "ningbo-a").await.unwrap();
    hub.delete("MemberCluster", "", "ningbo-a").await;
    hub.gone("MemberCluster", "", "ningbo-a").await;
    throughout(
        "what runs there stays",
        Duration::from_secs(2),
        async || {
            ningbo
                .get("Deployment", &tenant, "web")
                .await
                .is_some_and(|o| uid(&o) == uid(&before))
        },
    )
    .await;

    // It joins again, and nothing of it is taken back without being asked for.
    let mut again = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "MemberCluster",
        "metadata": {"name": "ningbo-a"}, "spec": member["spec"],
    });
    again["spec"]["management"] = json!("Manage");
    hub.create(&again).await;
    running.whole().await;
    hub.refused(&tenant, "web", "NotManaged").await;
    hub.merge(
        "App",
        &tenant,
        "web",
        &json!({"spec": {"takeOver": "Always"}}),
    )
    .await;
    hub.ready(&tenant, "web").await;
    assert_eq!(
        uid(&ningbo.get("Deployment", &tenant, "web").await.unwrap()),
        uid(&before)
    );
}

async fn ledger_is_empty(hub: &Site, namespace: &str) {
    eventually("nothing is left in the ledger", async || {
        let slices = hub.list("AssignmentSlice", namespace).await;
        slices
            .iter()
            .all(|s| s["spec"]["entries"].as_array().is_none_or(Vec::is_empty))
            .then_some(())
    })
    .await;
}
