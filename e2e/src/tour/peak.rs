//! The steps about traffic: two guards of one city in front of Apps whose pods do a known number of requests a
//! second, and people who do not wait for each other.
//!
//! | here | stands for |
//! | --- | --- |
//! | guards, guard control, the App's way from the hub to the city | themselves |
//! | pods that take a set time over a set number of requests at a time | servers of that capacity |
//! | the load tool, in an open loop | people with browsers, and an App that calls another one |
//! | hundreds of requests a second, on a machine of two cores with five control planes | tens of thousands: what counts is how many times the capacity |

mod dependency;
mod figures;
mod hot;
mod people;
mod rise;
mod shared;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::{App, ConditionStatus, ConditionType, TrafficPolicy, find_condition};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

pub(super) use dependency::slow_dependency;
pub(super) use hot::hot_key;
pub(super) use rise::overload;
pub(super) use shared::shared_service;

use super::{
    Stage,
    act::jiuzhou_at,
    look::{describe, until},
};
use crate::{
    kubelet,
    province::{
        Pace,
        guards::{self, Guards},
        install,
    },
};

const OBJECTS: &str = include_str!("../../../docs/examples/peak.yaml");
/// Where the Apps run.
const CITY: &str = "hangzhou-a";
/// The fewest of which one may fail, as in the charts.
const GUARDS: u16 = 2;
/// Of each App, as the file says.
const PODS: u32 = 2;
/// The Apps, each with a TrafficPolicy of its name.
const APPS: [(&str, &str); 3] = [
    ("health", "health-code"),
    ("health", "test-results"),
    ("bigdata", "population"),
];

/// The App that shows codes.
const CODES: (&str, &str) = ("health", "health-code");
/// How its pods work: both together do 100 requests a second, whatever is asked for.
const CODES_WORK: Work = Work {
    latency: Duration::from_millis(80),
    at_a_time: 4,
};

/// How each pod of an App works.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Work {
    /// How long it takes over a request.
    latency: Duration,
    /// How many it works on at a time; the others wait in it.
    at_a_time: u32,
}

impl Work {
    /// What all pods of an App do in a second.
    fn capacity(self) -> f64 {
        f64::from(PODS * self.at_a_time) / self.latency.as_secs_f64()
    }

    /// The same latency, at a share of the capacity.
    fn scaled(self, share: Share) -> Self {
        Self {
            at_a_time: self.at_a_time / share.part(),
            ..self
        }
    }
}

/// How much of a step's rates and capacities is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Whole,
    /// Where the machine could not keep up with the whole.
    Half,
}

impl Share {
    fn of(self, rate: f64) -> f64 {
        rate / f64::from(self.part())
    }

    fn part(self) -> u32 {
        match self {
            Self::Whole => 1,
            Self::Half => 2,
        }
    }
}

/// The guards of the city with the Apps behind them, which are started by the first step that asks.
async fn guards(stage: &mut Stage) -> Result<()> {
    if stage.guards.is_some() {
        return Ok(());
    }
    let city = stage.fleet.cluster(CITY)?;
    let client = city.client().await?;
    guards::install(&client).await?;
    let pace = Pace {
        guards: Some(GUARDS),
        ..Pace::QUICK
    };
    stage.guards = Some(guards::start(&stage.fleet, city, pace).await?);
    install::apply(&stage.fleet.hub().client().await?, OBJECTS).await?;
    for (namespace, name) in APPS {
        protected(stage, namespace, name).await?;
    }
    Ok(())
}

/// Waits until an App is Ready and its TrafficPolicy enforced by every guard.
async fn protected(stage: &Stage, namespace: &str, name: &str) -> Result<()> {
    let hub = stage.fleet.hub().client().await?;
    let apps: Api<App> = Api::namespaced(hub.clone(), namespace);
    let policies: Api<TrafficPolicy> = Api::namespaced(hub, namespace);
    until("an App is Ready, and protected", || async {
        let app = apps.get(name).await?;
        let told = app.status.clone().unwrap_or_default().conditions;
        let is_ready = find_condition(&told, ConditionType::Ready)
            .is_some_and(|found| found.status == ConditionStatus::True);
        let status = policies.get(name).await?.status.unwrap_or_default();
        let programmed = find_condition(&status.conditions, ConditionType::Programmed);
        Ok(match programmed {
            Some(found) if is_ready && found.status == ConditionStatus::True => Ok(()),
            other => Err(format!("{namespace}/{name}: {}; {other:?}", describe(&app))),
        })
    })
    .await
}

/// The guards that a step has started.
fn running(stage: &Stage) -> Result<&Guards> {
    let running = stage.guards.as_ref();
    running.context("the guards were not started")
}

/// Sets how all pods of an App work from now on.
async fn work(stage: &Stage, (namespace, app): (&str, &str), work: Work) -> Result<()> {
    let client = stage.fleet.cluster(CITY)?.client().await?;
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let of_app = ListParams::default().labels(&format!("jiuzhou.io/app={app}"));
    let all = pods.list(&of_app).await?.items;
    ensure!(
        all.len() == usize::try_from(PODS)?,
        "{namespace}/{app} has {} pods in {CITY}, not {PODS}",
        all.len()
    );
    let annotations = json!({
        kubelet::LATENCY: format!("{}ms", work.latency.as_millis()),
        kubelet::CAPACITY: work.at_a_time.to_string(),
    });
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    for pod in &all {
        pods.patch(&pod.name_any(), &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("set how pod {} works", pod.name_any()))?;
    }
    Ok(())
}

/// What people see who ask what a policy did.
fn protection(stage: &Stage, (namespace, policy): (&str, &str)) -> Result<String> {
    let guards = running(stage)?.guards.iter();
    let addresses: Vec<&str> = guards
        .map(|guard| metrics(&guard.endpoint.metrics))
        .collect();
    let addresses = addresses.join(",");
    let asked = ["protection", policy, "-n", namespace, "--guard", &addresses];
    let (told, is_answered) = jiuzhou_at(stage, CITY, &asked)?;
    ensure!(is_answered, "jiuzhou protection: {told}");
    Ok(format!(
        "jiuzhou protection {policy} -n {namespace}\n{told}"
    ))
}

fn metrics(address: &str) -> &str {
    address.trim_end_matches("/metrics")
}

/// Asks the guards again and again where the rules of a policy stand.
struct Watch {
    guards: Vec<Client>,
    policy: String,
}

impl Watch {
    fn of(stage: &Stage, (namespace, policy): (&str, &str)) -> Result<Self> {
        let client = |address: &str| {
            let config = Config::new(metrics(address).parse()?);
            anyhow::Ok(Client::try_from(config)?)
        };
        let guards = running(stage)?.guards.iter();
        let guards = guards.map(|guard| client(&guard.endpoint.metrics));
        Ok(Self {
            guards: guards.collect::<Result<_>>()?,
            policy: format!("{namespace}/{policy}"),
        })
    }

    /// A rule as each guard tells it.
    async fn rule(&self, name: &str) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for guard in &self.guards {
            let request = http::Request::get("/protection").body(vec![])?;
            let told: Value = serde_json::from_str(&guard.request_text(request).await?)?;
            let named = |list: &Value, name: &str| {
                let mut all = list.as_array().into_iter().flatten();
                all.find(|found| found["name"] == name).cloned()
            };
            let rule = named(&told["policies"], &self.policy);
            let rule = rule.and_then(|policy| named(&policy["rules"], name));
            all.push(rule.with_context(|| format!("no rule {name} of {}", self.policy))?);
        }
        Ok(all)
    }
}
