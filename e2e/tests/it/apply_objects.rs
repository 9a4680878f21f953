//! An App's objects in its clusters: as written, and kept so.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    fault_support::{
        Site, app, deployment, mark, names, province, settings, throughout, uid, version,
    },
    support::eventually,
};

const CITIES: [&str; 2] = ["hangzhou-a", "ningbo-a"];

#[tokio::test]
async fn an_app_becomes_ready_everywhere_and_its_objects_say_whose_they_are() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("whole").await);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"own": "label"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    });
    let manifests = [deployment("web", 2), service, settings("web", "one")];
    let created = hub
        .create(&app(&tenant, "web", &["zhejiang"], &manifests))
        .await;
    let ready = hub.ready(&tenant, "web").await;
    assert_eq!(ready["status"]["placementCount"], 4);
    assert_eq!(ready["status"]["readyReplicas"], 8);
    for name in ["zhejiang-a", "hangzhou-a", "ningbo-a", "quzhou-a"] {
        let site = running.site(name).await;
        for kind in ["Deployment", "Service", "ConfigMap"] {
            let object = site
                .get(kind, &tenant, "web")
                .await
                .unwrap_or_else(|| panic!("{kind} in {name}"));
            let labels = [
                ("app.kubernetes.io/managed-by", "jiuzhou"),
                ("jiuzhou.io/app", "web"),
                ("jiuzhou.io/app-uid", uid(&created)),
                ("jiuzhou.io/tenant", &tenant),
            ];
            for (label, expected) in labels {
                assert_eq!(mark(&object, "labels", label), expected, "{kind} in {name}");
            }
            let managers = object["metadata"]["managedFields"].as_array().unwrap();
            assert!(
                managers
                    .iter()
                    .any(|m| m["manager"] == "jiuzhou" && m["operation"] == "Apply")
            );
        }
        let service = site.get("Service", &tenant, "web").await.unwrap();
        assert_eq!(mark(&service, "labels", "own"), "label");
    }
}

#[tokio::test]
async fn an_override_holds_in_its_city_and_an_image_changes_by_one_field() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("image").await);
    let mut web = app(
        &tenant,
        "web",
        &["hangzhou", "ningbo"],
        &[deployment("web", 1)],
    );
    web["spec"]["overrides"] = json!([{
        "regions": {"within": ["ningbo"]},
        "target": {"group": "apps", "kind": "Deployment", "name": "web"},
        "patch": [{"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": "ningbo"}],
    }]);
    hub.create(&web).await;
    hub.ready(&tenant, "web").await;
    let images = json!({"spec": {"images": [{"name": "registry.example/app", "newTag": "2"}]}});
    hub.merge("App", &tenant, "web", &images).await;
    hub.ready(&tenant, "web").await;
    for (city, value) in [("hangzhou-a", "province"), ("ningbo-a", "ningbo")] {
        let object = running
            .site(city)
            .await
            .get("Deployment", &tenant, "web")
            .await
            .unwrap();
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["env"][0]["value"], value, "{city}");
        assert_eq!(container["image"], "registry.example/app:2", "{city}");
    }
}

#[tokio::test]
async fn what_is_changed_by_hand_is_put_back_and_fields_of_others_stay() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("drift").await);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
    });
    let manifests = [deployment("web", 2), service, settings("web", "one")];
    hub.create(&app(&tenant, "web", &["hangzhou", "quzhou"], &manifests))
        .await;
    hub.ready(&tenant, "web").await;
    for city in ["hangzhou-a", "quzhou-a"] {
        let site = running.site(city).await;
        let by_hand = json!({
            "metadata": {"annotations": {"note": "mine"}},
            "spec": {"replicas": 5, "minReadySeconds": 1},
        });
        site.merge("Deployment", &tenant, "web", &by_hand).await;
        site.merge(
            "Service",
            &tenant,
            "web",
            &json!({"spec": {"selector": {"app": "other"}}}),
        )
        .await;
        site.merge(
            "ConfigMap",
            &tenant,
            "web",
            &json!({"data": {"key": "two", "more": "mine"}}),
        )
        .await;
        let back = site
            .until("is put back", ("Deployment", &tenant, "web"), |o| {
                o["spec"]["replicas"] == 2
            })
            .await;
        assert_eq!(mark(&back, "annotations", "note"), "mine");
        assert_eq!(back["spec"]["minReadySeconds"], 1);
        site.until("is put back", ("Service", &tenant, "web"), |o| {
            o["spec"]["selector"]["app"] == "web"
        })
        .await;
        let map = site
            .until("is put back", ("ConfigMap", &tenant, "web"), |o| {
                o["data"]["key"] == "one"
            })
            .await;
        assert_eq!(map["data"]["more"], "mine");
    }
    hub.ready(&tenant, "web").await;
}

#[tokio::test]
async fn what_is_deleted_by_hand_returns() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("gone").await);
    let manifests = [deployment("web", 1), settings("web", "one")];
    hub.create(&app(&tenant, "web", &["hangzhou", "zhejiang"], &manifests))
        .await;
    hub.ready(&tenant, "web").await;
    for name in ["hangzhou-a", "zhejiang-a"] {
        let site = running.site(name).await;
        for kind in ["Deployment", "ConfigMap"] {
            let before = site.get(kind, &tenant, "web").await.unwrap();
            site.delete(kind, &tenant, "web").await;
            let old = uid(&before).to_owned();
            site.until("is back", (kind, &tenant, "web"), |o| uid(o) != old)
                .await;
        }
    }
    hub.ready(&tenant, "web").await;
}

#[tokio::test]
async fn labels_stripped_by_hand_return() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("label").await);
    let created = hub
        .create(&app(
            &tenant,
            "web",
            &["hangzhou"],
            &[deployment("web", 1), settings("web", "one")],
        ))
        .await;
    hub.ready(&tenant, "web").await;
    let site = running.site("hangzhou-a").await;
    let strip = json!({"metadata": {
        "labels": {"app.kubernetes.io/managed-by": null, "jiuzhou.io/app-uid": null, "jiuzhou.io/app": null},
        "annotations": {"jiuzhou.io/applied": null},
    }});
    for kind in ["Deployment", "ConfigMap"] {
        let before = site.get(kind, &tenant, "web").await.unwrap();
        site.merge(kind, &tenant, "web", &strip).await;
        let labelled = |o: &Value| mark(o, "labels", "jiuzhou.io/app-uid") == uid(&created);
        let back = site
            .until("is labelled again", (kind, &tenant, "web"), labelled)
            .await;
        assert_eq!(
            mark(&back, "labels", "app.kubernetes.io/managed-by"),
            "jiuzhou"
        );
        assert_eq!(uid(&back), uid(&before), "it is still the same object");
    }
}

#[tokio::test]
async fn a_manifest_that_is_dropped_is_deleted_in_members_and_nothing_else_is() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("prune").await);
    let all = [settings("keep", "one"), settings("drop", "one")];
    hub.create(&app(&tenant, "maps", &["hangzhou", "ningbo"], &all))
        .await;
    hub.create(&app(
        &tenant,
        "others",
        &["hangzhou", "ningbo"],
        &[settings("others", "one")],
    ))
    .await;
    hub.ready(&tenant, "maps").await;
    hub.ready(&tenant, "others").await;
    let foreign = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": tenant, "name": "foreign"},
    });
    let mut before = Vec::new();
    for city in CITIES {
        let site = running.site(city).await;
        site.create(&foreign).await;
        // As people and backup tools copy an object: with its labels and annotations.
        let keep = site.get("ConfigMap", &tenant, "keep").await.unwrap();
        let (labels, annotations) = (
            &keep["metadata"]["labels"],
            &keep["metadata"]["annotations"],
        );
        assert_eq!(labels["app.kubernetes.io/managed-by"], "jiuzhou");
        site.create(&json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": tenant, "name": "copy", "labels": labels, "annotations": annotations},
        }))
        .await;
        before.push((city, kept(&site, &tenant).await));
    }
    hub.merge(
        "App",
        &tenant,
        "maps",
        &json!({"spec": {"manifests": [settings("keep", "one")]}}),
    )
    .await;
    for (city, before) in before {
        let site = running.site(city).await;
        site.gone("ConfigMap", &tenant, "drop").await;
        throughout(
            "everything else stays untouched",
            Duration::from_secs(1),
            async || kept(&site, &tenant).await == before,
        )
        .await;
    }
}

/// UIDs of the ConfigMaps that must stay.
async fn kept(site: &Site, tenant: &str) -> Vec<String> {
    let mut uids = Vec::new();
    for name in ["keep", "others", "foreign", "copy"] {
        uids.push(uid(&site.get("ConfigMap", tenant, name).await.unwrap()).to_owned());
    }
    uids
}

#[tokio::test]
async fn a_deleted_app_leaves_every_cluster_and_its_ledger() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("leave").await);
    let manifests = [deployment("web", 1), settings("web", "one")];
    let created = hub
        .create(&app(
            &tenant,
            "web",
            &["hangzhou", "quzhou", "zhejiang"],
            &manifests,
        ))
        .await;
    hub.ready(&tenant, "web").await;
    hub.delete("App", &tenant, "web").await;
    hub.gone("App", &tenant, "web").await;
    for name in ["hangzhou-a", "quzhou-a", "zhejiang-a"] {
        let site = running.site(name).await;
        site.gone("Deployment", &tenant, "web").await;
        site.gone("ConfigMap", &tenant, "web").await;
        assert!(
            names(&site, "Namespace", "").await.contains(&tenant),
            "the namespace is not the App's"
        );
        let place = format!("jz-{name}");
        eventually("no entry and no report is left", async || {
            let slices = hub.list("AssignmentSlice", &place).await;
            let reports = hub.list("ReportSlice", &place).await;
            let text = serde_json::to_string(&(slices, reports)).ok()?;
            (!text.contains(uid(&created))).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_app_that_changes_nothing_writes_nothing_in_members() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("calm").await);
    hub.create(&app(
        &tenant,
        "web",
        &["hangzhou"],
        &[settings("web", "one")],
    ))
    .await;
    hub.ready(&tenant, "web").await;
    let site = running.site("hangzhou-a").await;
    let before = version(&site.get("ConfigMap", &tenant, "web").await.unwrap());
    hub.merge(
        "App",
        &tenant,
        "web",
        &json!({"spec": {"displayName": "Another name"}}),
    )
    .await;
    hub.ready(&tenant, "web").await;
    let after = version(&site.get("ConfigMap", &tenant, "web").await.unwrap());
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_megabyte_of_content_arrives_and_what_is_too_large_as_it_is_stored_says_so() {
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("large").await);
    let large = "x".repeat(1_000_000);
    hub.create(&app(
        &tenant,
        "large",
        &["hangzhou"],
        &[settings("large", &large)],
    ))
    .await;
    hub.ready(&tenant, "large").await;
    let there = running
        .site("hangzhou-a")
        .await
        .get("ConfigMap", &tenant, "large")
        .await
        .unwrap();
    assert_eq!(there["data"]["key"], *large);

    // Each quote is stored as four bytes: JSON within JSON.
    let quotes = settings("quotes", &"\"".repeat(600_000));
    hub.create(&app(&tenant, "quotes", &["hangzhou"], &[quotes]))
        .await;
    let message = hub.refused(&tenant, "quotes", "TooLarge").await;
    assert!(message.contains("1200000"), "{message}");
}

#[tokio::test]
async fn a_deleted_app_that_somebody_else_holds_too_leaves_its_clusters_and_keeps_their_finalizer()
{
    let running = province().await;
    let (hub, tenant) = (running.hub().await, running.tenant("held").await);
    let mut web = app(&tenant, "web", &["hangzhou"], &[settings("web", "one")]);
    web["metadata"]["finalizers"] = json!(["example.gov/audit"]);
    hub.create(&web).await;
    hub.ready(&tenant, "web").await;
    hub.delete("App", &tenant, "web").await;
    let let_go = |app: &Value| app["metadata"]["finalizers"] == json!(["example.gov/audit"]);
    hub.until("is let go by the hub", ("App", &tenant, "web"), let_go)
        .await;
    let site = running.site("hangzhou-a").await;
    site.gone("ConfigMap", &tenant, "web").await;
    hub.merge(
        "App",
        &tenant,
        "web",
        &json!({"metadata": {"finalizers": null}}),
    )
    .await;
    hub.gone("App", &tenant, "web").await;
}
