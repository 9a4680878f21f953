//! Whose an object is, and what a tenant may have: what is refused, and how it is said.

use serde_json::{Value, json};

use crate::{
    fault_support::{app, deployment, mark, province, settings, uid, version},
    support::eventually,
};

#[tokio::test]
async fn what_exists_unmanaged_is_left_alone_until_the_app_takes_it_over() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("claim").await);
    hub.create(&app(
        &tenant,
        "first",
        &["hangzhou"],
        &[settings("first", "one")],
    ))
    .await;
    hub.ready(&tenant, "first").await;
    let site = running.site("hangzhou-a").await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": tenant, "name": "legacy"},
        "data": {"key": "theirs", "more": "theirs"},
    });
    let before = site.create(&theirs).await;
    hub.create(&app(
        &tenant,
        "taker",
        &["hangzhou"],
        &[settings("legacy", "ours")],
    ))
    .await;
    let message = hub.refused(&tenant, "taker", "NotManaged").await;
    assert!(message.contains(&format!("{tenant}/legacy")), "{message}");
    assert!(message.contains("spec.takeOver to Always"), "{message}");
    assert_eq!(
        version(&site.get("ConfigMap", &tenant, "legacy").await.unwrap()),
        version(&before)
    );
    let claimant = hub.get("App", &tenant, "taker").await.unwrap();
    let events = eventually("an Event says so", async || {
        let all = hub.list("Event", &tenant).await;
        let told = all
            .into_iter()
            .filter(|event| event["regarding"]["uid"] == uid(&claimant));
        let told: Vec<Value> = told.collect();
        (!told.is_empty()).then_some(told)
    })
    .await;
    let told: Vec<_> = events
        .iter()
        .map(|event| (&event["type"], &event["reason"], &event["note"]))
        .collect();
    assert_eq!(
        told,
        [(&json!("Warning"), &json!("NotManaged"), &json!(message))]
    );

    hub.merge(
        "App",
        &tenant,
        "taker",
        &json!({"spec": {"takeOver": "Always"}}),
    )
    .await;
    hub.ready(&tenant, "taker").await;
    let object = site.get("ConfigMap", &tenant, "legacy").await.unwrap();
    assert_eq!(uid(&object), uid(&before));
    assert_eq!(object["data"], json!({"key": "ours", "more": "theirs"}));
    assert_eq!(mark(&object, "labels", "jiuzhou.io/app"), "taker");
}

#[tokio::test]
async fn of_two_apps_that_claim_an_object_the_first_keeps_it() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("rival").await);
    let first = hub
        .create(&app(
            &tenant,
            "first",
            &["ningbo"],
            &[settings("shared", "first")],
        ))
        .await;
    hub.ready(&tenant, "first").await;
    hub.create(&app(
        &tenant,
        "second",
        &["ningbo"],
        &[settings("shared", "second")],
    ))
    .await;
    let message = hub.refused(&tenant, "second", "OwnedByOther").await;
    assert!(message.contains("shared"), "{message}");
    let site = running.site("ningbo-a").await;
    let object = site.get("ConfigMap", &tenant, "shared").await.unwrap();
    assert_eq!(object["data"]["key"], "first");
    assert_eq!(mark(&object, "labels", "jiuzhou.io/app-uid"), uid(&first));

    // Once the first is gone, the second gets it without anybody's help.
    hub.delete("App", &tenant, "first").await;
    hub.ready(&tenant, "second").await;
    let object = site.get("ConfigMap", &tenant, "shared").await.unwrap();
    assert_eq!(object["data"]["key"], "second");
}

#[tokio::test]
async fn what_a_cluster_refuses_is_said_with_its_field_and_stops_nothing_else() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("refuse").await);
    let mut wrong = deployment("web", 1);
    wrong["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 99_999_999}]);
    let manifests = [wrong, settings("web", "one")];
    hub.create(&app(&tenant, "web", &["hangzhou"], &manifests))
        .await;
    let bystander = [settings("bystander", "one")];
    hub.create(&app(&tenant, "bystander", &["hangzhou"], &bystander))
        .await;
    let message = hub.refused(&tenant, "web", "Rejected").await;
    assert!(message.contains("containerPort"), "{message}");
    assert!(message.contains("hangzhou-a"), "{message}");
    hub.ready(&tenant, "bystander").await;
    running
        .site("hangzhou-a")
        .await
        .until("goes on", ("ConfigMap", &tenant, "web"), |_| true)
        .await;
    let mended = [deployment("web", 1), settings("web", "one")];
    let mend = json!({"spec": {"manifests": mended}});
    hub.merge("App", &tenant, "web", &mend).await;
    hub.ready(&tenant, "web").await;
}

#[tokio::test]
async fn a_kind_that_one_cluster_does_not_know_stops_that_object_there_alone() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("kind").await);
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"},
        "spec": {"hostnames": ["web.example"]},
    });
    let manifests = [settings("web", "one"), route];
    hub.create(&app(&tenant, "web", &["hangzhou", "ningbo"], &manifests))
        .await;
    let message = hub.refused(&tenant, "web", "CRDMissing").await;
    assert!(
        message.contains("hangzhou-a") && message.contains("HTTPRoute"),
        "{message}"
    );
    let (hangzhou, ningbo) = (
        running.site("hangzhou-a").await,
        running.site("ningbo-a").await,
    );
    hangzhou
        .until("goes on", ("ConfigMap", &tenant, "web"), |_| true)
        .await;
    ningbo
        .until("is there", ("HTTPRoute", &tenant, "web"), |_| true)
        .await;
    let found = hub
        .until("Ningbo is healthy", ("App", &tenant, "web"), |app| {
            let all = app["status"]["placements"].as_array();
            all.into_iter()
                .flatten()
                .any(|p| p["clusterName"] == "ningbo-a" && p["state"] == "Healthy")
        })
        .await;
    assert_eq!(found["status"]["placementCount"], 2);
}

#[tokio::test]
async fn what_the_tenant_may_not_have_in_one_cluster_is_forbidden_there_alone() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("right").await);
    let quzhou = running.site("quzhou-a").await;
    let mut role = quzhou
        .get("ClusterRole", "", "jiuzhou-tenant")
        .await
        .unwrap();
    let rules = role["rules"].as_array_mut().unwrap();
    for rule in rules.iter_mut() {
        // CronJobs are nobody else's here.
        if let Some(kinds) = rule["resources"].as_array_mut() {
            kinds.retain(|kind| kind != "cronjobs");
        }
    }
    let narrow = json!({"rules": role["rules"]});
    quzhou
        .merge("ClusterRole", "", "jiuzhou-tenant", &narrow)
        .await;
    let nightly = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
        "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example/app:1"}],
        }}}}},
    });
    let manifests = [settings("web", "one"), nightly];
    hub.create(&app(&tenant, "web", &["hangzhou", "quzhou"], &manifests))
        .await;
    let message = hub.refused(&tenant, "web", "Forbidden").await;
    assert!(
        message.contains("quzhou-a") && message.contains("CronJob"),
        "{message}"
    );
    assert!(message.contains("jiuzhou-tenant"), "{message}");
    running
        .site("hangzhou-a")
        .await
        .until("is there", ("CronJob", &tenant, "nightly"), |_| true)
        .await;
    quzhou
        .until("goes on", ("ConfigMap", &tenant, "web"), |_| true)
        .await;
    assert!(quzhou.lacks("CronJob", &tenant, "nightly").await);

    // The right is given back, and nobody has to touch the App.
    for rule in role["rules"].as_array_mut().unwrap() {
        if rule["apiGroups"] == json!(["batch"]) {
            rule["resources"] = json!(["jobs", "cronjobs"]);
        }
    }
    quzhou
        .merge(
            "ClusterRole",
            "",
            "jiuzhou-tenant",
            &json!({"rules": role["rules"]}),
        )
        .await;
    hub.ready(&tenant, "web").await;
}
