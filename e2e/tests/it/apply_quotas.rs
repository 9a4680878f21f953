//! Quotas on a living province: who divides what, what Apps get, and what outlives a hub.

use http::Method;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    admit_support::{account, account_object, binding, call, created, path},
    apply_tenants::{ready, tenant},
    fault_support::{Site, app, condition, deployment, province},
    support::eventually,
};

const ROOT: &str = "jiuzhou-system";

fn quota(home: &str, tenant: &str, region: &str, resources: &Value) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Quota",
        "metadata": {"name": format!("{tenant}.{region}"), "namespace": home},
        "spec": {"tenantName": tenant, "regionName": region, "resources": resources},
    })
}

fn pods(nominal: &str) -> Value {
    json!([{"name": "pods", "nominal": nominal}])
}

/// Waits until a Quota says that of itself, and returns what it says.
async fn accepted(hub: &Site, home: &str, name: &str, reason: &str) -> (Value, String) {
    let says = |quota: &Value| {
        quota["status"]["observedGeneration"] == quota["metadata"]["generation"]
            && condition(quota, "Accepted").is_some_and(|(_, why, _)| why == reason)
    };
    let quota = hub.until(reason, ("Quota", home, name), says).await;
    let (.., message) = condition(&quota, "Accepted").expect("it was found");
    let message = message.to_owned();
    (quota, message)
}

/// An App in Quzhou whose replicas a rolling update replaces one by one.
fn in_quzhou(namespace: &str, name: &str, replicas: i32) -> Value {
    let mut manifest = deployment(name, 1);
    manifest["spec"]["strategy"] = json!({"type": "Recreate"});
    let mut app = app(namespace, name, &["quzhou"], &[manifest]);
    app["spec"]["replicas"] = json!({"total": replicas, "division": "Capacity"});
    app
}

async fn replicas(hub: &Site, namespace: &str, name: &str, count: i64) -> Value {
    let has =
        |app: &Value| app["status"]["readyReplicas"] == count && app["status"]["replicas"] == count;
    hub.until(
        &format!("has {count} replicas"),
        ("App", namespace, name),
        has,
    )
    .await
}

async fn post(client: &Client, object: &Value) -> Result<Value, String> {
    let answer = call(client, Method::POST, &path(object, false), Some(object)).await;
    answer.map_err(|refusal| refusal.message)
}

#[tokio::test]
async fn what_does_not_fit_waits_and_comes_once_there_is_room() {
    let running = province().await;
    let hub = running.hub().await;
    hub.create(&tenant(ROOT, "grain", &json!({}))).await;
    ready(&hub, ROOT, "grain").await;
    hub.create(&quota(ROOT, "grain", "quzhou", &pods("3")))
        .await;
    accepted(&hub, ROOT, "grain.quzhou", "AsExpected").await;
    hub.create(&in_quzhou("grain", "silo", 5)).await;
    let silo = replicas(&hub, "grain", "silo", 3).await;
    let (status, reason, message) = condition(&silo, "Admitted").expect("it is admitted or not");
    assert_eq!((status, reason), ("False", "QuotaExceeded"));
    assert!(
        message.contains("3 of 5 replicas have a place: for the next Quota grain.quzhou (3 granted) lacks 1 of pods; first in line"),
        "{message}"
    );
    let more = json!({"spec": {"resources": pods("5")}});
    hub.merge("Quota", ROOT, "grain.quzhou", &more).await;
    hub.ready("grain", "silo").await;
    replicas(&hub, "grain", "silo", 5).await;
    let used = |quota: &Value| quota["status"]["resources"][0]["used"] == "5";
    hub.until("is used", ("Quota", ROOT, "grain.quzhou"), used)
        .await;
}

#[tokio::test]
async fn a_city_divides_what_it_has_and_can_neither_exceed_it_nor_touch_it() {
    let running = province().await;
    let hub = running.hub().await;
    let by = json!({"administrators": [{"kind": "ServiceAccount", "name": "mayor"}]});
    hub.create(&tenant(ROOT, "harbour", &by)).await;
    ready(&hub, ROOT, "harbour").await;
    hub.create(&quota(ROOT, "harbour", "quzhou", &pods("10")))
        .await;
    accepted(&hub, ROOT, "harbour.quzhou", "AsExpected").await;
    let mayor = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "mayor", "namespace": "harbour"},
    });
    hub.create(&mayor).await;
    let mayor = account(running.fleet.hub(), "harbour", "mayor").await;
    let pilots = tenant("harbour", "pilots", &json!({}));
    eventually("the mayor may", async || post(&mayor, &pilots).await.ok()).await;
    ready(&hub, "harbour", "pilots").await;
    let share = quota("harbour", "pilots", "quzhou", &pods("6"));
    post(&mayor, &share)
        .await
        .expect("it is the mayor's to give");
    accepted(&hub, "harbour", "pilots.quzhou", "AsExpected").await;
    let cranes = tenant("harbour", "cranes", &json!({}));
    post(&mayor, &cranes)
        .await
        .expect("it is the mayor's to make");
    ready(&hub, "harbour", "cranes").await;
    let share = quota("harbour", "cranes", "quzhou", &pods("5"));
    post(&mayor, &share).await.expect("it may be asked for");
    let (_, message) = accepted(&hub, "harbour", "cranes.quzhou", "ExceedsParent").await;
    assert!(
        message.contains("of 10 in Quota harbour.quzhou others below it have 6: ask for at most 4"),
        "{message}"
    );
    // What it has itself lives further up.
    let own = quota(ROOT, "harbour", "quzhou", &pods("99"));
    for (method, named) in [
        (Method::PATCH, true),
        (Method::GET, true),
        (Method::DELETE, true),
        (Method::POST, false),
    ] {
        let refusal = call(&mayor, method.clone(), &path(&own, named), Some(&own)).await;
        assert_eq!(
            refusal.expect_err("it is not the mayor's").code,
            403,
            "{method}"
        );
    }
    let lends = json!([{"name": "pods", "nominal": "1", "lendingLimit": "2"}]);
    let share = quota("harbour", "cranes", "ningbo", &lends);
    let message = post(&mayor, &share)
        .await
        .expect_err("nobody lends more than he has");
    assert!(
        message.contains("lendingLimit of pods must not exceed its nominal"),
        "{message}"
    );
}

#[tokio::test]
async fn what_is_in_force_outlives_the_status_and_the_quota_itself() {
    let running = province().await;
    let hub = running.hub().await;
    hub.create(&tenant(ROOT, "forest", &json!({}))).await;
    ready(&hub, ROOT, "forest").await;
    hub.create(&quota(ROOT, "forest", "quzhou", &pods("4")))
        .await;
    accepted(&hub, ROOT, "forest.quzhou", "AsExpected").await;
    hub.create(&in_quzhou("forest", "trees", 2)).await;
    hub.ready("forest", "trees").await;
    let ledger = async || {
        let ledger = hub.get("QuotaLedger", ROOT, "quzhou").await?;
        let grants = ledger["spec"]["grants"].as_array()?;
        let mine = grants.iter().find(|grant| grant["namespace"] == "forest");
        mine.cloned()
    };
    let before = ledger().await.expect("it is in the ledger");
    // Somebody takes the finalizer off and the Quota away.
    let off = json!({"metadata": {"finalizers": null}});
    hub.delete("Quota", ROOT, "forest.quzhou").await;
    hub.merge("Quota", ROOT, "forest.quzhou", &off).await;
    hub.gone("Quota", ROOT, "forest.quzhou").await;
    hub.create(&quota(ROOT, "forest", "quzhou", &pods("4")))
        .await;
    accepted(&hub, ROOT, "forest.quzhou", "AsExpected").await;
    let after = ledger().await.expect("it is still there");
    assert_eq!(before["resources"], after["resources"]);
    assert_ne!(before["uid"], after["uid"]);
    hub.delete("App", "forest", "trees").await;
    hub.gone("App", "forest", "trees").await;
    hub.delete("Quota", ROOT, "forest.quzhou").await;
    hub.gone("Quota", ROOT, "forest.quzhou").await;
    assert!(ledger().await.is_none(), "and nothing is left of it");
}

#[tokio::test]
async fn a_lender_has_back_what_it_lent_after_the_grace_time() {
    let running = province().await;
    let hub = running.hub().await;
    // Under a tenant of their own, so that no other test has a part in it.
    hub.create(&tenant(ROOT, "coast", &json!({}))).await;
    ready(&hub, ROOT, "coast").await;
    hub.create(&quota(ROOT, "coast", "quzhou", &pods("6")))
        .await;
    let borrows = json!([{"name": "pods", "nominal": "2", "borrowingLimit": "4"}]);
    for (name, resources) in [("light", borrows), ("rescue", pods("4"))] {
        hub.create(&tenant("coast", name, &json!({}))).await;
        ready(&hub, "coast", name).await;
        hub.create(&quota("coast", name, "quzhou", &resources))
            .await;
        accepted(&hub, "coast", &format!("{name}.quzhou"), "AsExpected").await;
    }
    hub.create(&in_quzhou("coast-light", "house", 6)).await;
    replicas(&hub, "coast-light", "house", 6).await;
    hub.create(&in_quzhou("coast-rescue", "boats", 4)).await;
    let told = |app: &Value| {
        condition(app, "Admitted").is_some_and(|(.., message)| {
            message.contains("4 of its replicas are borrowed and go back at")
        })
    };
    hub.until("is told", ("App", "coast-light", "house"), told)
        .await;
    hub.ready("coast-rescue", "boats").await;
    replicas(&hub, "coast-rescue", "boats", 4).await;
    let house = replicas(&hub, "coast-light", "house", 2).await;
    let (_, reason, _) = condition(&house, "Admitted").expect("it is admitted or not");
    assert_eq!(reason, "QuotaExceeded");
}

fn in_an_hour() -> crds::Timestamp {
    let now = jiff::Timestamp::now().as_millisecond();
    crds::Timestamp::from_millis(now + 3_600_000)
}

/// The word of somebody that an App is in an emergency.
fn emergency(app: &str, by: &str, hash: &Value) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Approval",
        "metadata": {"name": app, "namespace": ROOT},
        "spec": {
            "target": {"kind": "App", "namespace": "dike-rescue", "name": app},
            "step": "emergency", "contentHash": hash, "approver": by, "reason": "flood",
            "decision": "Approve", "expires": in_an_hour(),
        },
    })
}

#[tokio::test]
async fn an_emergency_takes_what_others_borrow_by_the_word_of_somebody_who_may_say_so() {
    let running = province().await;
    let hub = running.hub().await;
    hub.create(&tenant(ROOT, "dike", &json!({}))).await;
    ready(&hub, ROOT, "dike").await;
    hub.create(&quota(ROOT, "dike", "quzhou", &pods("6"))).await;
    // Light borrows what rescue is granted and does not use.
    let borrows =
        |nominal: &str| json!([{"name": "pods", "nominal": nominal, "borrowingLimit": "4"}]);
    for (name, nominal) in [("light", "2"), ("rescue", "4")] {
        hub.create(&tenant("dike", name, &json!({}))).await;
        ready(&hub, "dike", name).await;
        hub.create(&quota("dike", name, "quzhou", &borrows(nominal)))
            .await;
        accepted(&hub, "dike", &format!("{name}.quzhou"), "AsExpected").await;
    }
    hub.create(&in_quzhou("dike-light", "lamps", 6)).await;
    replicas(&hub, "dike-light", "lamps", 6).await;
    let mut alerts = in_quzhou("dike-rescue", "alerts", 4);
    alerts["spec"]["tier"] = json!("Core");
    hub.create(&alerts).await;
    let says = |app: &Value, text: &str| {
        condition(app, "Admitted").is_some_and(|(.., message)| message.contains(text))
    };
    let what = ("App", "dike-rescue", "alerts");
    let app = hub
        .until("says what to do", what, |app| says(app, "step emergency"))
        .await;
    let (.., message) = condition(&app, "Admitted").expect("it was found");
    let hash = message.split("contentHash ").nth(1).expect("it is told");
    let hash = json!(hash.split(' ').next());

    hub.create(&account_object(ROOT, "duty-officer")).await;
    let role = binding(ROOT, "jiuzhou-emergency-approver", (ROOT, "duty-officer"));
    created(&hub.client, &role).await;
    let officer = account(running.fleet.hub(), ROOT, "duty-officer").await;
    let name = format!("system:serviceaccount:{ROOT}:duty-officer");
    eventually("the officer may", async || {
        post(&officer, &emergency("alerts", &name, &hash))
            .await
            .ok()
    })
    .await;
    replicas(&hub, "dike-rescue", "alerts", 4).await;
    let lamps = replicas(&hub, "dike-light", "lamps", 2).await;
    assert!(says(&lamps, "first in line"));
    let by = format!("by {name}: flood.");
    hub.until("says who said so", what, |app| says(app, &by))
        .await;
    hub.delete("Approval", ROOT, "alerts").await;
}
