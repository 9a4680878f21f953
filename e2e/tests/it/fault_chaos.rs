//! Hub and agents are killed at random moments while Apps come, change and go.

use std::{collections::BTreeMap, future::ready, time::Duration};

use e2e::random::Random;
use futures::{Stream, StreamExt as _, stream::select_all};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    fault_support::{Running, Site, app, deployment, fragile, settings, uid},
    support::eventually,
};

const APPS: usize = 20;
const CITIES: [&str; 2] = ["hangzhou-a", "ningbo-a"];

/// Name of App and value of its settings: what is to be in every city in the end.
type End = BTreeMap<String, String>;

/// Every App comes; a third changes, a third goes.
async fn story(running: &Running, tenant: &str, faults: &mut Option<Random>) -> End {
    let hub = running.hub().await;
    let mut end = End::new();
    for number in 0..APPS {
        let name = format!("app-{number:02}");
        hub.create(&app(
            tenant,
            &name,
            &["hangzhou", "ningbo"],
            &[settings(&name, "one")],
        ))
        .await;
        end.insert(name, "one".to_owned());
        fault(running, faults).await;
    }
    for number in 0..APPS {
        let name = format!("app-{number:02}");
        match number % 3 {
            0 => {
                let change = json!({"spec": {"manifests": [settings(&name, "two")]}});
                hub.merge("App", tenant, &name, &change).await;
                end.insert(name, "two".to_owned());
            }
            1 => {
                hub.delete("App", tenant, &name).await;
                end.remove(&name);
            }
            _ => continue,
        }
        fault(running, faults).await;
    }
    end
}

/// Sometimes one of the processes is killed and started again.
async fn fault(running: &Running, faults: &mut Option<Random>) {
    let Some(random) = faults else { return };
    tokio::time::sleep(Duration::from_millis(random.below(120))).await;
    let victims = ["hub", "agent-hangzhou-a", "agent-ningbo-a"];
    if random.below(4) == 0
        && let Some(victim) = usize::try_from(random.below(3))
            .ok()
            .and_then(|at| victims.get(at))
    {
        let process = running.process(victim);
        process.kill().unwrap();
        process.start().unwrap();
    }
}

/// Names and values of the tenant's objects of ours in a city.
async fn state(running: &Running, city: &str, tenant: &str) -> End {
    let maps = running.site(city).await.list("ConfigMap", tenant).await;
    let ours = maps
        .iter()
        .filter(|o| o["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "jiuzhou");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ours.map(|o| (text(&o["metadata"]["name"]), text(&o["data"]["key"])))
        .collect()
}

/// UIDs of the objects of Apps that stay, which must live through everything.
async fn lasting(running: &Running, tenant: &str, end: &End) -> BTreeMap<String, String> {
    let mut uids = BTreeMap::new();
    for city in CITIES {
        let site = running.site(city).await;
        for kind in KINDS {
            for object in site.list(kind, tenant).await {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                if end.contains_key(name) {
                    uids.insert(format!("{city} {kind} {name}"), uid(&object).to_owned());
                }
            }
        }
    }
    uids
}

async fn settles(running: &Running, tenant: &str, end: &End) {
    let hub = running.hub().await;
    for name in end.keys() {
        hub.ready(tenant, name).await;
    }
    for city in CITIES {
        eventually("the city is as it is to be", async || {
            (state(running, city, tenant).await == *end).then_some(())
        })
        .await;
        eventually(
            "the ledger holds each App once, and no other of the tenant",
            async || {
                let slices = hub.list("AssignmentSlice", &format!("jz-{city}")).await;
                let entries = slices
                    .iter()
                    .flat_map(|s| s["spec"]["entries"].as_array().into_iter().flatten());
                let ours = entries.filter(|e| e["namespace"] == tenant && e["scope"].is_null());
                let mut names: Vec<&str> = ours.filter_map(|e| e["name"].as_str()).collect();
                names.sort_unstable();
                names
                    .into_iter()
                    .eq(end.keys().map(String::as_str))
                    .then_some(())
            },
        )
        .await;
    }
}

#[tokio::test]
async fn however_processes_are_killed_the_end_is_the_same_and_nothing_else_is_deleted() {
    let (_taken, running) = fragile().await;
    let calm = running.tenant("calm").await;
    let expected = story(running, &calm, &mut None).await;
    settles(running, &calm, &expected).await;
    let bystanders = lasting(running, &calm, &expected).await;
    assert_eq!(bystanders.len(), expected.len() * CITIES.len());

    let stormy = running.tenant("stormy").await;
    let end = story(
        running,
        &stormy,
        &mut Some(Random::seeded(0x9e37_79b9_7f4a_7c15)),
    )
    .await;
    assert_eq!(end, expected);
    running.whole().await;
    settles(running, &stormy, &end).await;
    // Apps that nobody touched lived through all of it.
    assert_eq!(lasting(running, &calm, &expected).await, bystanders);
}

/// Kills of each process, each behind one write more: what Apps that come and go let it write is its
/// part of finalizers, contents, slices, copies of Secrets, objects, reports and statuses.
const WRITES: usize = 8;
/// Where fewer writes come within this time, a process is killed at rest.
const REST: Duration = Duration::from_secs(5);
const KINDS: [&str; 3] = ["ConfigMap", "Deployment", "Secret"];

/// The writes of a process from now on, by what it alone writes while Apps come and go.
async fn writes(running: &Running, victim: &str, tenant: &str) -> impl Stream<Item = ()> + Unpin {
    let (hub, home) = (running.hub().await, running.site("hangzhou-a").await);
    let places = if victim == "hub" {
        vec![
            (&hub, "App", tenant),
            (&hub, "Content", "jiuzhou-content"),
            (&hub, "AssignmentSlice", "jz-hangzhou-a"),
            (&hub, "AssignmentSlice", "jz-ningbo-a"),
            (&hub, "Secret", "jz-hangzhou-a"),
            (&hub, "Secret", "jz-ningbo-a"),
        ]
    } else {
        vec![
            (&home, "ConfigMap", tenant),
            (&home, "Deployment", tenant),
            (&home, "Secret", tenant),
            (&hub, "ReportSlice", "jz-hangzhou-a"),
        ]
    };
    let mut all = Vec::new();
    for (site, kind, namespace) in places {
        let api = site.api(kind, namespace);
        let now = api.list(&ListParams::default()).await.unwrap();
        let version = now.metadata.resource_version.unwrap();
        let events = api.watch(&WatchParams::default(), &version).await.unwrap();
        // The test creates and deletes Apps, and a controller writes how a Deployment is.
        let own = move |event: &WatchEvent<DynamicObject>| match event {
            WatchEvent::Added(_) => kind != "App",
            WatchEvent::Modified(object) => {
                kind != "Deployment" && object.metadata.deletion_timestamp.is_none()
            }
            WatchEvent::Deleted(_) => true,
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => false,
        };
        let own = events.filter_map(move |event| ready(event.ok().filter(own).map(|_| ())));
        all.push(own.boxed());
    }
    select_all(all)
}

/// Kills a process behind that many of its writes, and starts it again; whether so many came.
async fn kill_behind(
    running: &Running,
    victim: &str,
    writes: impl Stream<Item = ()> + Unpin,
    count: usize,
) -> bool {
    let came = timeout(REST, writes.skip(count - 1).next()).await;
    let process = running.process(victim);
    process.kill().unwrap();
    if victim == "hub" {
        // Who waits until the lease of the dead has run out writes nothing to be killed behind.
        let leases: Api<Lease> = Api::namespaced(running.hub().await.client, "jiuzhou-system");
        let free = Patch::Merge(json!({"spec": {"holderIdentity": ""}}));
        leases
            .patch("jiuzhou-hub", &PatchParams::default(), &free)
            .await
            .unwrap();
    }
    process.start().unwrap();
    came.is_ok()
}

/// Holds that what is there is what was there first, made once and never again.
async fn made_once(
    running: &Running,
    tenant: &str,
    end: &End,
    first: &mut BTreeMap<String, String>,
) {
    for (object, uid) in lasting(running, tenant, end).await {
        let before = first.entry(object.clone()).or_insert_with(|| uid.clone());
        assert_eq!(*before, uid, "{object} was deleted and made anew");
    }
}

/// An App of one object of each kind, with its Secret at the hub.
async fn of_each_kind(hub: &Site, tenant: &str, name: &str) -> Value {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": tenant, "name": name},
        "stringData": {"password": "any"},
    });
    hub.create(&secret).await;
    let manifests = [settings(name, "one"), deployment(name, 1)];
    let mut all = app(tenant, name, &["hangzhou", "ningbo"], &manifests);
    all["spec"]["secretNames"] = json!([name]);
    all
}

#[tokio::test]
async fn a_process_killed_behind_any_one_of_its_writes_comes_to_the_same_end() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("behind").await;
    let hub = running.hub().await;
    let (mut end, mut first) = (End::new(), BTreeMap::new());
    let (mut leaving, mut behind) = (None, 0);
    for victim in ["hub", "agent-hangzhou-a"] {
        for count in 1..=WRITES {
            let name = |what: &str| format!("{what}-{victim}-{count}");
            let (kept, gone) = (name("kept"), name("gone"));
            let come = [
                of_each_kind(&hub, &tenant, &kept).await,
                of_each_kind(&hub, &tenant, &gone).await,
            ];
            let writes = writes(running, victim, &tenant).await;
            if let Some(old) = leaving.replace(gone) {
                hub.delete("App", &tenant, &old).await;
            }
            for app in &come {
                hub.create(app).await;
            }
            behind += usize::from(kill_behind(running, victim, writes, count).await);
            end.insert(kept.clone(), "one".to_owned());
            made_once(running, &tenant, &end, &mut first).await;
            hub.ready(&tenant, &kept).await;
            made_once(running, &tenant, &end, &mut first).await;
        }
    }
    // Else this test would have killed nothing in the middle of its work.
    assert!(behind > WRITES, "only {behind} kills came behind a write");
    hub.delete("App", &tenant, &leaving.unwrap()).await;
    running.whole().await;
    settles(running, &tenant, &end).await;
    made_once(running, &tenant, &end, &mut first).await;
    assert_eq!(first.len(), end.len() * CITIES.len() * KINDS.len());
    for city in CITIES {
        for kind in KINDS {
            let what = format!("no {kind} of what is gone is left in {city}");
            eventually(&what, async || {
                let all = running.site(city).await.list(kind, &tenant).await;
                let mut names = all.iter().filter_map(|o| o["metadata"]["name"].as_str());
                (!all.is_empty() && !names.any(|name| name.starts_with("gone-"))).then_some(())
            })
            .await;
        }
    }
}
