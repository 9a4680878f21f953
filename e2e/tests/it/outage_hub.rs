//! The hub is gone, for a while or for good: what was decided goes on, and its return changes nothing.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    apply_isolation, apply_tenants,
    fault_support::{
        Running, Site, Version, app, condition, deployment, fragile, mark, settings, throughout,
        uid, version,
    },
    support::{eventually, http_get},
};

/// An agent writes its snapshot at most every ten seconds.
const SNAPSHOT: Duration = Duration::from_secs(11);
const CITIES: [&str; 2] = ["hangzhou-a", "ningbo-a"];
const ALL: [&str; 4] = ["zhejiang-a", "hangzhou-a", "ningbo-a", "quzhou-a"];
/// Ten times the lease: everything that the sleeper believed has become wrong.
const ASLEEP: Duration = Duration::from_mins(1);

/// UID and version of every object of an App's namespace in the cities.
async fn versions(running: &Running, tenant: &str) -> BTreeMap<String, Version> {
    let mut all = BTreeMap::new();
    for city in CITIES {
        let site = running.site(city).await;
        for kind in ["Deployment", "ConfigMap"] {
            let object = site.get(kind, tenant, "web").await.expect("it is there");
            // The version of a Deployment changes with its pods; its generation only by hand.
            let generation = object["metadata"]["generation"].as_i64();
            let version = generation.map_or_else(
                || version(&object),
                |n| (uid(&object).into(), n.to_string()),
            );
            all.insert(format!("{city} {kind}"), version);
        }
    }
    all
}

async fn drift_is_repaired(site: &Site, tenant: &str) {
    site.merge(
        "ConfigMap",
        tenant,
        "web",
        &json!({"data": {"key": "by hand"}}),
    )
    .await;
    site.until("is put back", ("ConfigMap", tenant, "web"), |o| {
        o["data"]["key"] == "one"
    })
    .await;
    site.merge(
        "Deployment",
        tenant,
        "web",
        &json!({"spec": {"replicas": 5}}),
    )
    .await;
    site.until("is put back", ("Deployment", tenant, "web"), |o| {
        o["spec"]["replicas"] == 2
    })
    .await;
}

async fn settled_app(running: &Running, tenant: &str) {
    let hub = running.hub().await;
    let manifests = [deployment("web", 2), settings("web", "one")];
    hub.create(&app(tenant, "web", &["hangzhou", "ningbo"], &manifests))
        .await;
    hub.ready(tenant, "web").await;
    tokio::time::sleep(SNAPSHOT).await;
}

#[tokio::test]
async fn without_its_hub_a_city_repairs_restarts_from_its_memory_and_repairs_again() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("headless").await;
    settled_app(running, &tenant).await;
    let site = running.site("hangzhou-a").await;
    // Neither the process nor its API server.
    running.process("hub").kill().unwrap();
    running.fleet.hub().apiserver().kill().unwrap();
    drift_is_repaired(&site, &tenant).await;
    let agent = running.process("agent-hangzhou-a");
    agent.kill().unwrap();
    site.merge(
        "ConfigMap",
        &tenant,
        "web",
        &json!({"data": {"key": "while it was gone"}}),
    )
    .await;
    agent.start().unwrap();
    site.until(
        "is put back after the restart",
        ("ConfigMap", &tenant, "web"),
        |o| o["data"]["key"] == "one",
    )
    .await;
    drift_is_repaired(&site, &tenant).await;
    let before = versions(running, &tenant).await;

    running.fleet.hub().restart_apiserver().await.unwrap();
    running.process("hub").start().unwrap();
    running.whole().await;
    throughout(
        "the hub's return writes nothing in its members",
        Duration::from_secs(2),
        async || versions(running, &tenant).await == before,
    )
    .await;
    running.hub().await.ready(&tenant, "web").await;
}

#[tokio::test]
async fn without_its_hub_a_city_keeps_a_tenant_to_its_grant_and_behind_its_walls() {
    let (_taken, running) = fragile().await;
    let hub = running.hub().await;
    hub.create(&apply_tenants::tenant(
        "jiuzhou-system",
        "alone",
        &json!({}),
    ))
    .await;
    apply_tenants::ready(&hub, "jiuzhou-system", "alone").await;
    hub.create(&json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Quota",
        "metadata": {"name": "alone.hangzhou", "namespace": "jiuzhou-system"},
        "spec": {
            "tenantName": "alone", "regionName": "hangzhou",
            "resources": [{"name": "pods", "nominal": "4"}],
        },
    }))
    .await;
    hub.create(&app("alone", "web", &["hangzhou"], &[deployment("web", 2)]))
        .await;
    hub.ready("alone", "web").await;
    tokio::time::sleep(SNAPSHOT).await;
    let site = running.site("hangzhou-a").await;
    let full = ("ResourceQuota", "alone", "jiuzhou-general");
    let limits = |quota: &Value| quota["status"]["hard"]["pods"] == "3";
    site.until("is in force", full, limits).await;
    running.process("hub").kill().unwrap();
    running.fleet.hub().apiserver().kill().unwrap();
    for name in ["one", "two"] {
        let pod = apply_isolation::stray("alone", name, Some("jiuzhou-general"));
        if name == "one" {
            site.create(&pod).await;
        } else {
            let message = apply_isolation::refusal(&site, &pod).await;
            let message = message.expect("the grant is used up");
            assert!(message.contains("exceeded quota"), "{message}");
        }
    }
    apply_isolation::is_put_back(&site, "alone").await;
    let agent = running.process("agent-hangzhou-a");
    agent.kill().unwrap();
    site.delete("ResourceQuota", "alone", "jiuzhou-general")
        .await;
    agent.start().unwrap();
    site.until("is made again from memory", full, limits).await;
    running.fleet.hub().restart_apiserver().await.unwrap();
    running.process("hub").start().unwrap();
    running.whole().await;
    site.delete("Pod", "alone", "one").await;
    hub.delete("Tenant", "jiuzhou-system", "alone").await;
    hub.gone("Tenant", "jiuzhou-system", "alone").await;
    site.gone("Namespace", "", "alone").await;
}

#[tokio::test]
async fn a_killed_hub_returns_and_goes_on_where_it_was() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("killed").await;
    let hub = running.hub().await;
    hub.create(&app(
        &tenant,
        "web",
        &["hangzhou", "ningbo"],
        &[deployment("web", 2), settings("web", "one")],
    ))
    .await;
    hub.ready(&tenant, "web").await;
    let before = versions(running, &tenant).await;
    running.process("hub").kill().unwrap();
    hub.create(&app(
        &tenant,
        "meanwhile",
        &["hangzhou"],
        &[settings("meanwhile", "one")],
    ))
    .await;
    running.process("hub").start().unwrap();
    hub.ready(&tenant, "meanwhile").await;
    assert_eq!(versions(running, &tenant).await, before);
    running.whole().await;
}

#[tokio::test]
async fn a_rebuilt_hub_is_refused_until_each_member_acknowledges_it() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("rebuilt").await;
    let hub = running.hub().await;
    hub.create(&app(
        &tenant,
        "web",
        &["hangzhou", "ningbo"],
        &[deployment("web", 2), settings("web", "one")],
    ))
    .await;
    let again = |take_over: &str| {
        let mut again = app(&tenant, "again", &["hangzhou"], &[settings("again", "one")]);
        again["spec"]["takeOver"] = json!(take_over);
        again
    };
    let first = hub.create(&again("Never")).await;
    hub.ready(&tenant, "web").await;
    hub.ready(&tenant, "again").await;
    let before = versions(running, &tenant).await;
    running
        .process("hub")
        .stop(Duration::from_secs(5))
        .await
        .unwrap();
    hub.delete("ConfigMap", "jiuzhou-system", "jiuzhou-hub")
        .await;
    make_anew(&hub, &first, &again("Never")).await;
    running.process("hub").start().unwrap();
    for city in ALL {
        hub.until("refuses the other hub", ("MemberCluster", "", city), |c| {
            condition(c, "Joined").is_some_and(|(_, reason, _)| reason == "HubRefused")
        })
        .await;
    }
    hub.merge(
        "App",
        &tenant,
        "web",
        &json!({"spec": {"manifests": [settings("other", "two")]}}),
    )
    .await;
    nothing_changes_but_by_repair(running, &tenant, &before).await;
    acknowledge_everywhere(running, &hub).await;
    running.whole().await;
    hub.ready(&tenant, "web").await;
    for city in CITIES {
        let site = running.site(city).await;
        site.gone("ConfigMap", &tenant, "web").await;
        site.until("is there", ("ConfigMap", &tenant, "other"), |o| {
            o["data"]["key"] == "two"
        })
        .await;
    }
    let site = running.site("hangzhou-a").await;
    // What the former hub had placed is nobody's by now, and is had for the asking.
    let message = hub.refused(&tenant, "again", "OwnedByOther").await;
    assert!(message.contains("takeOver"), "{message}");
    let object = site.get("ConfigMap", &tenant, "again").await.unwrap();
    hub.merge("App", &tenant, "again", &again("Always")).await;
    hub.ready(&tenant, "again").await;
    let taken = site.get("ConfigMap", &tenant, "again").await.unwrap();
    assert_eq!(uid(&taken), uid(&object), "it is still the same object");
    assert_ne!(mark(&taken, "labels", "jiuzhou.io/app-uid"), uid(&first));
}

async fn nothing_changes_but_by_repair(
    running: &Running,
    tenant: &str,
    before: &BTreeMap<String, Version>,
) {
    throughout(
        "nothing changes in the members",
        Duration::from_secs(3),
        async || versions(running, tenant).await == *before,
    )
    .await;
    let site = running.site("hangzhou-a").await;
    site.merge(
        "ConfigMap",
        tenant,
        "web",
        &json!({"data": {"key": "by hand"}}),
    )
    .await;
    site.until(
        "is put back all the same",
        ("ConfigMap", tenant, "web"),
        |o| o["data"]["key"] == "one",
    )
    .await;
}

/// Makes an App anew as in a hub that was rebuilt: with another UID, and no slice knows the old one.
async fn make_anew(hub: &Site, old: &Value, new: &Value) {
    let meta = &old["metadata"];
    let (namespace, name) = (
        meta["namespace"].as_str().unwrap(),
        meta["name"].as_str().unwrap(),
    );
    for slice in hub.list("AssignmentSlice", "jz-hangzhou-a").await {
        let mut entries = slice["spec"]["entries"].as_array().unwrap().clone();
        entries.retain(|entry| entry["uid"] != meta["uid"]);
        let without = json!({"spec": {"entries": entries}});
        let slice = slice["metadata"]["name"].as_str().unwrap();
        hub.merge("AssignmentSlice", "jz-hangzhou-a", slice, &without)
            .await;
    }
    let free = json!({"metadata": {"finalizers": []}});
    hub.merge("App", namespace, name, &free).await;
    hub.delete("App", namespace, name).await;
    hub.gone("App", namespace, name).await;
    hub.create(new).await;
}

#[tokio::test]
async fn an_older_copy_of_a_slice_freezes_the_city_until_the_epoch_is_raised() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("restored").await;
    let hub = running.hub().await;
    hub.create(&app(
        &tenant,
        "web",
        &["hangzhou"],
        &[settings("web", "one")],
    ))
    .await;
    hub.ready(&tenant, "web").await;
    let old = hub.list("AssignmentSlice", "jz-hangzhou-a").await;
    hub.merge(
        "App",
        &tenant,
        "web",
        &json!({"spec": {"manifests": [settings("web", "two")]}}),
    )
    .await;
    hub.ready(&tenant, "web").await;

    running.process("hub").kill().unwrap();
    for slice in &old {
        let name = slice["metadata"]["name"].as_str().unwrap();
        hub.merge(
            "AssignmentSlice",
            "jz-hangzhou-a",
            name,
            &json!({"spec": slice["spec"]}),
        )
        .await;
    }
    hub.until(
        "says that it is frozen",
        ("ClusterReport", "jz-hangzhou-a", "hangzhou-a"),
        |r| {
            r["spec"]["frozen"]
                .as_str()
                .is_some_and(|why| why.contains("older"))
        },
    )
    .await;
    let site = running.site("hangzhou-a").await;
    assert_eq!(
        site.get("ConfigMap", &tenant, "web").await.unwrap()["data"]["key"],
        "two"
    );

    running.process("hub").start().unwrap();
    hub.until(
        "is shown as refusing",
        ("MemberCluster", "", "hangzhou-a"),
        |c| condition(c, "Joined").is_some_and(|(_, reason, _)| reason == "HubRefused"),
    )
    .await;
    raise_epoch(&hub).await;
    running.whole().await;
    hub.merge(
        "App",
        &tenant,
        "web",
        &json!({"spec": {"manifests": [settings("web", "three")]}}),
    )
    .await;
    hub.ready(&tenant, "web").await;
    assert_eq!(
        site.get("ConfigMap", &tenant, "web").await.unwrap()["data"]["key"],
        "three"
    );
}

#[tokio::test]
async fn a_second_replica_decides_as_well_and_writes_nothing() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("standby").await;
    let hub = running.hub().await;
    let (second, endpoint) = running.hub_replica("hub-second").await;
    let counted = async |metric: &str, label: &str| {
        let address = endpoint.metrics.strip_prefix("http://")?;
        let (_, text) = http_get(address.strip_suffix("/metrics")?, "/metrics")
            .await
            .ok()?;
        let series = text
            .lines()
            .filter(|line| line.starts_with(metric) && line.contains(label));
        let counts = series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        Some(counts.sum::<f64>())
    };
    let turns = async || counted("jiuzhou_loop_turns_total", "standby").await;
    let before = eventually("it stands by", async || turns().await.filter(|n| *n > 0.0)).await;
    hub.create(&app(
        &tenant,
        "web",
        &["hangzhou"],
        &[settings("web", "one")],
    ))
    .await;
    hub.ready(&tenant, "web").await;
    eventually("it has decided the new App too", async || {
        turns().await.filter(|n| *n > before)
    })
    .await;
    let asked = counted("jiuzhou_api_requests_total", "verb=\"list\"").await;
    assert!(asked > Some(5.0), "requests are counted: {asked:?}");
    for verb in ["create", "update", "patch", "delete"] {
        let label = format!("verb=\"{verb}\"");
        let writes = counted("jiuzhou_api_requests_total", &label).await;
        assert_eq!(writes, Some(0.0), "{verb}");
    }
    second.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_slept_past_its_lease_writes_nothing_more() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("sleeper").await;
    let hub = running.hub().await;
    hub.create(&app(
        &tenant,
        "web",
        &["hangzhou", "ningbo"],
        &[settings("web", "one")],
    ))
    .await;
    hub.ready(&tenant, "web").await;
    let epoch = async || {
        let fence = hub
            .get("ConfigMap", "jiuzhou-system", "jiuzhou-fence")
            .await?;
        fence["data"]["leaderEpoch"].as_str()?.parse::<i64>().ok()
    };
    let before = epoch().await.unwrap();
    let (second, _) = running.hub_replica("hub-second").await;
    // Asleep in the middle of its work.
    for number in 0..8 {
        let name = format!("busy-{number}");
        hub.create(&app(
            &tenant,
            &name,
            &["hangzhou", "ningbo"],
            &[settings(&name, "one")],
        ))
        .await;
    }
    running.process("hub").pause().unwrap();
    let awake = tokio::time::Instant::now() + ASLEEP;
    eventually("the second replica leads", async || {
        (epoch().await? > before).then_some(())
    })
    .await;
    let images = json!({"spec": {"manifests": [settings("web", "two")]}});
    hub.merge("App", &tenant, "web", &images).await;
    hub.ready(&tenant, "web").await;
    for number in 0..8 {
        hub.ready(&tenant, &format!("busy-{number}")).await;
    }
    tokio::time::sleep_until(awake).await;
    let written = marks(&hub).await;
    running.process("hub").resume().unwrap();
    throughout(
        "no slice is written, by the sleeper or because of it, and no App stands twice",
        Duration::from_secs(5),
        async || {
            let mut seen = std::collections::BTreeSet::new();
            let slices = hub.list("AssignmentSlice", "jz-hangzhou-a").await;
            slices
                .iter()
                .flat_map(|s| s["spec"]["entries"].as_array().into_iter().flatten())
                .all(|entry| seen.insert(entry["uid"].as_str().map(str::to_owned)))
                && marks(&hub).await == written
        },
    )
    .await;
    stale_write_is_refused(running, before).await;
    second.stop(Duration::from_secs(5)).await.unwrap();
    running.whole().await;
}

/// Leader epoch, sequence and version of every slice of the cities.
async fn marks(hub: &Site) -> BTreeMap<String, String> {
    let mut marks = BTreeMap::new();
    for city in CITIES {
        for slice in hub.list("AssignmentSlice", &format!("jz-{city}")).await {
            let (meta, spec) = (&slice["metadata"], &slice["spec"]);
            marks.insert(
                format!("{city} {}", meta["name"]),
                format!(
                    "{} {} {}",
                    spec["leaderEpoch"], spec["sequence"], meta["resourceVersion"]
                ),
            );
        }
    }
    marks
}

/// What the sleeper may still have had on its way is refused by the store itself.
async fn stale_write_is_refused(running: &Running, epoch: i64) {
    let hub = running.identity("hub-process").await;
    let slices = hub.list("AssignmentSlice", "jz-hangzhou-a").await;
    let mut stale = slices.first().expect("there is one").clone();
    stale["spec"]["leaderEpoch"] = json!(epoch);
    let name = stale["metadata"]["name"].as_str().unwrap().to_owned();
    let object = serde_json::from_value(stale).unwrap();
    let params = kube::api::PostParams::default();
    let answer = hub
        .api("AssignmentSlice", "jz-hangzhou-a")
        .replace(&name, &params, &object)
        .await;
    let error = answer.expect_err("a former leader is refused").to_string();
    assert!(error.contains("behind the fence"), "{error}");
}

/// Names the hub as it is now in every member, as an administrator does after a rebuild.
async fn acknowledge_everywhere(running: &Running, hub: &Site) {
    let identity = hub
        .get("ConfigMap", "jiuzhou-system", "jiuzhou-hub")
        .await
        .unwrap();
    let acknowledge = json!({"metadata": {"annotations": {"jiuzhou.io/acknowledged-hub": identity["data"]["id"]}}});
    for name in ALL {
        let index = format!("jiuzhou-snapshot-{name}");
        running
            .site(name)
            .await
            .merge("Secret", "jiuzhou-system", &index, &acknowledge)
            .await;
    }
}

/// Declares the hub's present state the newer one, as an administrator does after a restore.
async fn raise_epoch(hub: &Site) {
    let identity = hub
        .get("ConfigMap", "jiuzhou-system", "jiuzhou-hub")
        .await
        .unwrap();
    let epoch: i64 = identity["data"]["epoch"].as_str().unwrap().parse().unwrap();
    let raise = json!({"data": {"epoch": (epoch + 1).to_string()}});
    hub.merge("ConfigMap", "jiuzhou-system", "jiuzhou-hub", &raise)
        .await;
}
