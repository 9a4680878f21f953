//! A cluster that the hub itself calls is dead: it keeps no other cluster waiting.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::{
    fault_support::{Running, Site, app, condition, deployment, fragile, settings, uid},
    support::eventually,
};

/// The hub calls it; the others call the hub.
const PUSHED: &str = "quzhou-a";
const OTHERS: [&str; 2] = ["hangzhou-a", "ningbo-a"];
/// Far more than an App takes on a busy machine, and less than one request to a server that is
/// silent may: who waits for the dead cluster is late.
const PROMPT: Duration = Duration::from_secs(12);

/// Creates an App over all three cities.
async fn over_all(hub: &Site, tenant: &str, name: &str) {
    let manifests = [deployment(name, 1), settings(name, "one")];
    let regions = ["hangzhou", "ningbo", "quzhou"];
    hub.create(&app(tenant, name, &regions, &manifests)).await;
}

/// Waits until an App's settings have a value in the cities that live, and holds that it was soon.
async fn arrives(running: &Running, tenant: &str, name: &str, value: &str) {
    let begun = Instant::now();
    for city in OTHERS {
        let site = running.site(city).await;
        site.until("is there", ("Deployment", tenant, name), |_| true)
            .await;
        site.until("has its value", ("ConfigMap", tenant, name), |map| {
            map["data"]["key"] == value
        })
        .await;
    }
    let took = begun.elapsed();
    assert!(took < PROMPT, "{name} took {took:?}");
}

#[tokio::test]
async fn a_dead_cluster_that_the_hub_calls_stops_no_other_and_catches_up_when_it_is_back() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("pushed").await;
    let hub = running.hub().await;
    over_all(&hub, &tenant, "before").await;
    hub.ready(&tenant, "before").await;
    let dead = running.site(PUSHED).await;
    let kept = dead.get("Deployment", &tenant, "before").await.unwrap();

    let server = running.fleet.cluster(PUSHED).unwrap().apiserver();
    server.pause().unwrap();
    // Nobody knows yet: the hub counts on the cluster and has requests on their way to it.
    over_all(&hub, &tenant, "meanwhile").await;
    let manifests = [deployment("before", 1), settings("before", "two")];
    let change = json!({"spec": {"manifests": manifests}});
    hub.merge("App", &tenant, "before", &change).await;
    arrives(running, &tenant, "meanwhile", "one").await;
    arrives(running, &tenant, "before", "two").await;
    hub.until("is out of contact", ("MemberCluster", "", PUSHED), |c| {
        condition(c, "Reachable").is_some_and(|(_, reason, _)| reason == "OutOfContact")
    })
    .await;
    over_all(&hub, &tenant, "later").await;
    arrives(running, &tenant, "later", "one").await;
    for city in OTHERS {
        eventually("the living are in contact all along", async || {
            let cluster = hub.get("MemberCluster", "", city).await?;
            let (status, _, _) = condition(&cluster, "Ready")?;
            assert_eq!(status, "True", "{cluster}");
            Some(())
        })
        .await;
    }
    hub.refused(&tenant, "before", "OutOfContact").await;

    server.resume().unwrap();
    running.whole().await;
    for (name, value) in [("before", "two"), ("meanwhile", "one"), ("later", "one")] {
        let what = format!("{name} is Ready everywhere");
        eventually(&what, async || {
            let app = hub.ready(&tenant, name).await;
            (app["status"]["placementCount"] == 3).then_some(())
        })
        .await;
        let map = dead.get("ConfigMap", &tenant, name).await.unwrap();
        assert_eq!(map["data"]["key"], value, "{name}");
    }
    let after = dead.get("Deployment", &tenant, "before").await.unwrap();
    assert_eq!(uid(&after), uid(&kept), "it was never deleted");
}
