//! Where benches run: a hub, members without nodes, Jiuzhou's processes, and readings of them all.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use kube::{Client, Config};
use serde_json::{Value, json};

use super::{requests::Requests, round, store::Store, usage};
use crate::{
    fleet::{Fleet, FleetConfig},
    process::Process,
    province::{self, Province},
    sandbox::{Member, Mode},
};

/// The hub's cluster, which is no member of its own province.
const HUB: &str = "hub";
/// Regions of the members, in turn.
const REGIONS: [&str; 3] = ["hangzhou", "ningbo", "wenzhou"];
/// Writes a second up to which everything counts as quiet: leases of agents, hub and API servers.
const QUIET_WRITES: i64 = 4;
/// So many quiet seconds in a row mean that a phase is over.
const QUIET_SECONDS: usize = 4;
/// A phase that is not over by then never will be.
const SETTLE_LIMIT: Duration = Duration::from_mins(3);
/// Time for a process to hand over its lease and end.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Whether the workload controllers of the members run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Controllers {
    /// They are paused: what is measured is Jiuzhou and the API servers alone.
    Off,
    /// They run, so that statuses really change, and compete for the machine's cores.
    On,
}

impl Controllers {
    /// Its name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
        }
    }
}

/// Everything that a bench needs.
pub struct Stage {
    /// The control planes: the hub first, the members, then spare clusters.
    pub fleet: Fleet,
    /// Jiuzhou.
    pub province: Province,
    /// The clusters that Jiuzhou places Apps on.
    pub members: Vec<Member>,
    /// The etcd behind all of them.
    pub store: Store,
    hub: Client,
    others: Vec<Client>,
    controllers: Controllers,
}

/// Counters at one moment.
pub struct Reading {
    at: Instant,
    cpu: BTreeMap<&'static str, f64>,
    hub_requests: Requests,
    member_requests: Requests,
    revision: i64,
}

impl Stage {
    /// Starts `members` clusters in the province and `spare` ones beside it.
    pub async fn start(dir: PathBuf, sandbox: &str, members: usize, spare: usize) -> Result<Self> {
        let member = |number: usize| Member {
            name: format!("m{}", number + 1),
            region: REGIONS[number % REGIONS.len()].to_owned(),
            mode: Mode::Pull,
        };
        let all: Vec<Member> = (0..members + spare).map(member).collect();
        let names = all.iter().map(|member| member.name.clone());
        let mut config = FleetConfig::new(dir, [HUB.to_owned()].into_iter().chain(names));
        config.sandbox = Some(sandbox.into());
        config.progress = super::say;
        for cluster in &mut config.clusters {
            cluster.nodes = 0;
        }
        let fleet = Fleet::start(config).await?;
        let members = all[..members].to_vec();
        let province = province::start(&fleet, &members, super::say).await?;
        let store = Store::of(fleet.etcd())?;
        let hub = fleet.hub().client().await?;
        let mut others = Vec::new();
        for member in &members {
            others.push(fleet.cluster(&member.name)?.client().await?);
        }
        let stage = Self {
            fleet,
            province,
            members,
            store,
            hub,
            others,
            controllers: Controllers::On,
        };
        stage.settle().await?;
        // What the load creates at the hub is for the members: the hub's own controllers must not
        // act on it, in the floor's run even less than in Jiuzhou's.
        stage.fleet.hub().controllers().pause()?;
        Ok(stage)
    }

    /// Pauses the workload controllers of the members, or lets them go on.
    pub fn set_controllers(&mut self, controllers: Controllers) -> Result<()> {
        for member in &self.members {
            let process = self.fleet.cluster(&member.name)?.controllers();
            match controllers {
                Controllers::Off => process.pause()?,
                Controllers::On => process.resume()?,
            }
        }
        self.controllers = controllers;
        Ok(())
    }

    /// Whether the workload controllers of the members run.
    pub fn controllers(&self) -> Controllers {
        self.controllers
    }

    /// The hub's administrator.
    pub fn hub(&self) -> Client {
        self.hub.clone()
    }

    /// Path of a kubeconfig, by cluster.
    pub fn kubeconfig(&self, cluster: &str) -> Result<&Path> {
        Ok(self.fleet.cluster(cluster)?.kubeconfig_file())
    }

    /// Ends everything.
    pub async fn end(mut self) -> Result<()> {
        self.set_controllers(Controllers::On)?;
        self.fleet.hub().controllers().resume()?;
        self.fleet.stop().await
    }

    /// Creates a namespace at the hub. Its controllers are paused, and nothing in it needs them.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        namespace(&self.hub, name).await
    }

    /// Creates a namespace in every member.
    pub async fn member_namespaces(&self, name: &str) -> Result<()> {
        for client in &self.others {
            namespace(client, name).await?;
        }
        Ok(())
    }

    /// Ends Jiuzhou's processes in order.
    pub async fn stop_jiuzhou(&self) -> Result<()> {
        for process in self.province.processes.iter().rev() {
            process.stop(STOP_GRACE).await?;
        }
        Ok(())
    }

    /// Starts Jiuzhou's processes and waits until the hub is ready.
    pub async fn start_jiuzhou(&self) -> Result<()> {
        self.province
            .processes
            .iter()
            .try_for_each(Process::start)?;
        let base = self.province.hub.metrics.trim_end_matches("/metrics");
        let client = Client::try_from(Config::new(base.parse()?))?;
        let deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            self.province
                .processes
                .iter()
                .try_for_each(Process::check)?;
            let ready = http::Request::get("/readyz").body(vec![])?;
            if client.request_text(ready).await.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the hub is not ready in time");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until nothing but leases is written any more, in any cluster.
    pub async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let (mut quiet, mut before) = (0, self.store.revision().await?);
        while quiet < QUIET_SECONDS {
            if Instant::now() > deadline {
                bail!("writes do not end within {} s", SETTLE_LIMIT.as_secs());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.store.revision().await?;
            quiet = if now - before <= QUIET_WRITES {
                quiet + 1
            } else {
                0
            };
            before = now;
        }
        Ok(())
    }

    /// Reads all counters; `program` is whatever runs besides Jiuzhou.
    pub async fn read(&self, program: Option<&Process>) -> Result<Reading> {
        let mut cpu: BTreeMap<&'static str, f64> = BTreeMap::new();
        let mut add = |group: &'static str, process: &Process| -> Result<()> {
            let Some(pid) = process.pid() else {
                return Ok(());
            };
            *cpu.entry(group).or_default() += usage::cpu_seconds(pid)?;
            Ok(())
        };
        for process in &self.province.processes {
            add(
                if process.name() == HUB {
                    "hub"
                } else {
                    "agents"
                },
                process,
            )?;
        }
        if let Some(program) = program {
            add("floor", program)?;
        }
        add("hub_apiserver", self.fleet.hub().apiserver())?;
        for member in &self.members {
            let cluster = self.fleet.cluster(&member.name)?;
            add("member_apiservers", cluster.apiserver())?;
            add("member_controllers", cluster.controllers())?;
        }
        add("etcd", self.fleet.etcd())?;
        Ok(Reading {
            at: Instant::now(),
            cpu,
            hub_requests: Requests::read(&self.hub).await?,
            member_requests: self.member_requests().await?,
            revision: self.store.revision().await?,
        })
    }

    /// Requests that the hub's API server answered.
    pub async fn hub_requests(&self) -> Result<Requests> {
        Requests::read(&self.hub).await
    }

    /// Requests that the members' API servers answered, all together.
    pub async fn member_requests(&self) -> Result<Requests> {
        let mut all = Requests::default();
        for client in &self.others {
            for (name, count) in Requests::read(client).await?.0 {
                *all.0.entry(name).or_default() += count;
            }
        }
        Ok(all)
    }

    /// Peak memory of the hub and of the largest agent, in MiB.
    pub fn peak_rss(&self) -> Result<Value> {
        let (mut hub, mut agent) = (0.0, 0.0_f64);
        for process in &self.province.processes {
            let peak = usage::peak_rss_mib(process.pid().context("a process ended")?)?;
            if process.name() == HUB {
                hub = peak;
            } else {
                agent = agent.max(peak);
            }
        }
        Ok(json!({"hub": round(hub), "agent": round(agent)}))
    }

    /// CPU seconds of Jiuzhou's processes since they began.
    pub fn jiuzhou_cpu(&self) -> Result<f64> {
        let pids = self.province.processes.iter().filter_map(Process::pid);
        pids.map(usage::cpu_seconds).sum()
    }

    /// Bytes of assignments and reports at the hub, as etcd stores them.
    pub async fn ledger_bytes(&self) -> Result<(usize, usize)> {
        let prefix = |plural: &str| format!("/{HUB}/jiuzhou.io/{plural}/");
        let (_, assignments) = self.store.stored(&prefix("assignmentslices")).await?;
        let (_, reports) = self.store.stored(&prefix("reportslices")).await?;
        Ok((assignments, reports))
    }
}

impl Reading {
    /// What was spent since `before`. `idle` is the hub's requests a second when nobody does
    /// anything.
    pub fn since(&self, before: &Self, idle: f64, apps: f64) -> Value {
        let seconds = (self.at - before.at).as_secs_f64();
        let hub_requests = self.hub_requests.since(&before.hub_requests);
        let total = (hub_requests.total() - idle * seconds).max(0.0);
        let cpu: BTreeMap<&str, f64> = self
            .cpu
            .iter()
            .map(|(group, now)| (*group, round(now - before.cpu.get(group).unwrap_or(&0.0))))
            .collect();
        json!({
            "cpu_seconds": cpu,
            "hub_requests": total.round(),
            "hub_requests_per_app": round(total / apps),
            "hub_requests_by_kind": notable(&hub_requests),
            "member_requests_by_kind": notable(&self.member_requests.since(&before.member_requests)),
            "revisions": self.revision - before.revision,
        })
    }
}

/// The kinds of request that are more than noise.
fn notable(requests: &Requests) -> BTreeMap<&str, f64> {
    let many = requests.0.iter().filter(|(_, count)| **count >= 5.0);
    many.map(|(name, count)| (name.as_str(), *count)).collect()
}

async fn namespace(client: &Client, name: &str) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let request = http::Request::post("/api/v1/namespaces")
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())?;
    let created = client.request_text(request).await;
    created
        .map(drop)
        .with_context(|| format!("create namespace {name}"))
}
