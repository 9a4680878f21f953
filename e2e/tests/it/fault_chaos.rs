//! Hub and agents are killed at random moments while Apps come, change and go.

use std::{collections::BTreeMap, time::Duration};

use e2e::measure::store::Store;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    fault_support::{Running, app, fragile, settings},
    support::eventually,
};

const APPS: usize = 20;
const CITIES: [&str; 2] = ["hangzhou-a", "ningbo-a"];

/// A small generator of random numbers: the same seed gives the same story.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

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

/// UIDs of one App's objects, which must live through everything.
async fn lasting(running: &Running, tenant: &str, end: &End) -> BTreeMap<String, String> {
    let mut uids = BTreeMap::new();
    for city in CITIES {
        for object in running.site(city).await.list("ConfigMap", tenant).await {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if end.contains_key(name) {
                uids.insert(
                    format!("{city}/{name}"),
                    object["metadata"]["uid"].to_string(),
                );
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
                let ours = entries.filter(|e| e["namespace"] == tenant);
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
    let end = story(running, &stormy, &mut Some(Random(0x9e37_79b9_7f4a_7c15))).await;
    assert_eq!(end, expected);
    running.whole().await;
    settles(running, &stormy, &end).await;
    // Apps that nobody touched lived through all of it.
    assert_eq!(lasting(running, &calm, &expected).await, bystanders);
}

/// Writes after an App came or went, one after the other, behind each of which a process is killed:
/// its finalizer, its content, its slices, what the agents do about it, their reports, its status.
const WRITES: i64 = 8;

/// Kills a process, which is started again at once, behind the write that many revisions from now.
async fn kill_behind(running: &Running, store: &Store, victim: &str, revision: i64) {
    let begun = Instant::now();
    // Where fewer writes come, it is killed at rest.
    while store.revision().await.expect("etcd answers") < revision
        && begun.elapsed() < Duration::from_secs(3)
    {
        sleep(Duration::from_millis(1)).await;
    }
    let process = running.process(victim);
    process.kill().unwrap();
    process.start().unwrap();
}

#[tokio::test]
async fn a_process_killed_behind_any_one_of_its_writes_comes_to_the_same_end() {
    let (_taken, running) = fragile().await;
    let tenant = running.tenant("behind").await;
    let store = Store::of(running.fleet.etcd()).unwrap();
    let hub = running.hub().await;
    let mut end = End::new();
    for victim in ["hub", "agent-hangzhou-a"] {
        for writes in 1..=WRITES {
            let (kept, gone) = (
                format!("kept-{victim}-{writes}"),
                format!("gone-{victim}-{writes}"),
            );
            for name in [&kept, &gone] {
                let manifests = [settings(name, "one")];
                let regions = ["hangzhou", "ningbo"];
                let before = store.revision().await.unwrap();
                hub.create(&app(&tenant, name, &regions, &manifests)).await;
                kill_behind(running, &store, victim, before + 1 + writes).await;
            }
            running.whole().await;
            hub.ready(&tenant, &gone).await;
            let before = store.revision().await.unwrap();
            hub.delete("App", &tenant, &gone).await;
            kill_behind(running, &store, victim, before + 1 + writes).await;
            end.insert(kept, "one".to_owned());
        }
    }
    running.whole().await;
    settles(running, &tenant, &end).await;
}
