//! The province on top of the control planes: everything an administrator installs, and the
//! processes of Jiuzhou with their real identities and rights.

pub mod binary;
pub mod guards;
pub mod install;
pub mod objects;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::json;

use guards::Held;

use crate::{
    fleet::{Cluster, Fleet},
    process::{Process, Program, reserve::Port},
    sandbox::{Member, Mode},
};

/// Time for the hub, agents and guards to hand over leases and finish requests.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Life of the tokens that agents use here; a sandbox does not run for a month.
const TOKEN_SECONDS: i64 = 30 * 24 * 3600;
/// Time for a step of the start that waits for another process.
const STEP: Duration = Duration::from_mins(1);

/// A running process of the province with its metrics, as `sandbox.json` names it.
#[derive(Debug, Clone, Serialize)]
pub struct Endpoint {
    /// Address of `/metrics`.
    pub metrics: String,
    /// Its pid.
    pub pid: u32,
}

/// A running guard.
#[derive(Debug, Clone, Serialize)]
pub struct Guard {
    /// Where it takes citizens' requests.
    pub http: String,
    /// Its metrics and pid.
    #[serde(flatten)]
    pub endpoint: Endpoint,
}

/// The running province.
#[derive(Debug)]
pub struct Province {
    /// The binary `jiuzhou` that everything runs.
    pub binary: PathBuf,
    /// Address of the console, once there is one.
    pub console: Option<String>,
    /// The hub.
    pub hub: Endpoint,
    /// Agents by name of their cluster; a pushed cluster's runs inside the hub.
    pub agents: BTreeMap<String, Endpoint>,
    /// Guards by name of their cluster.
    pub guards: BTreeMap<String, Vec<Guard>>,
    /// All processes, in the order in which they were started.
    pub processes: Vec<Process>,
    _held: Held,
}

/// How soon faults show, and where to follow what happens.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Silence after which a cluster counts as out of contact.
    pub unreachable_after: &'static str,
    /// What was lent is taken back after this time.
    pub reclaim_grace: &'static str,
    /// Steadiness after which it counts as in contact again.
    pub reachable_after: &'static str,
    /// Time between two signs of life.
    pub heartbeat: &'static str,
    /// Time after which another replica of the hub takes over from a silent leader.
    pub lease_duration: &'static str,
    /// Where the processes send their traces, if anywhere.
    pub traces: Option<&'static str>,
    /// Port on loopback at which the hub finds its API server by plain HTTP: that of a proxy before it.
    pub hub_through: Option<u16>,
    /// Guards in each cluster, with what leads them and the kinds of Gateway API; nothing of it where it is not
    /// given.
    pub guards: Option<u16>,
    /// Addresses that are given to Gateways, one to each; with none of them Gateways share those of the guards. One
    /// guard alone can have them, since all guards here are on one machine.
    pub gateway_addresses: u16,
}

impl Pace {
    /// Within seconds instead of a minute.
    pub const QUICK: Self = Self {
        unreachable_after: "12s",
        reclaim_grace: "15s",
        reachable_after: "6s",
        heartbeat: "3s",
        lease_duration: "15s",
        traces: None,
        hub_through: None,
        guards: None,
        gateway_addresses: 0,
    };
    /// As soon as a busy machine allows, for tests of outages.
    pub const HASTY: Self = Self {
        unreachable_after: "5s",
        reclaim_grace: "6s",
        reachable_after: "3s",
        heartbeat: "1s",
        lease_duration: "6s",
        traces: None,
        hub_through: None,
        guards: None,
        gateway_addresses: 0,
    };
}

impl Province {
    /// Ends all processes, the last one started first.
    pub async fn stop(self) -> Result<()> {
        // Guards wait for nobody else, and finish their requests at one time.
        let guards = self.guards.values().flatten();
        let guards: BTreeSet<u32> = guards.map(|guard| guard.endpoint.pid).collect();
        for process in &self.processes {
            if process.pid().is_some_and(|pid| guards.contains(&pid)) {
                process.terminate()?;
            }
        }
        for process in self.processes.iter().rev() {
            process.stop(STOP_GRACE).await?;
        }
        Ok(())
    }

    /// The process of that name, for example `hub` or `agent-hangzhou-a`.
    pub fn process(&self, name: &str) -> Result<&Process> {
        let found = self.processes.iter().find(|process| process.name() == name);
        found.with_context(|| format!("no process {name} in the province"))
    }
}

/// Installs Jiuzhou everywhere and starts its processes.
pub async fn start(fleet: &Fleet, members: &[Member], progress: fn(&str)) -> Result<Province> {
    start_at(fleet, members, Pace::QUICK, progress).await
}

/// As [`start`], at a pace.
pub async fn start_at(
    fleet: &Fleet,
    members: &[Member],
    pace: Pace,
    progress: fn(&str),
) -> Result<Province> {
    progress("building jiuzhou (minutes in a fresh clone)");
    let binary = tokio::task::spawn_blocking(binary::jiuzhou).await??;
    progress("installing kinds, roles and policies");
    install_everywhere(fleet, members, pace).await?;
    progress("starting the hub");
    let mut starter = Starter::new(fleet, binary, pace);
    let hub = starter.hub("hub").await?;
    describe(fleet, members).await?;
    let mut agents = BTreeMap::new();
    for member in members {
        progress(&format!("joining {}", member.name));
        let endpoint = match member.mode {
            Mode::Pull => starter.agent(member).await?,
            Mode::Local | Mode::Push => hub.clone(),
        };
        agents.insert(member.name.clone(), endpoint);
    }
    let guards = starter.all_guards(members, progress).await?;
    Ok(Province {
        binary: starter.binary,
        console: None,
        hub,
        agents,
        guards,
        processes: starter.processes,
        _held: starter.held,
    })
}

/// Starts another replica of the hub beside the running one. It ends when it is dropped.
pub async fn hub_replica(fleet: &Fleet, name: &str, pace: Pace) -> Result<(Process, Endpoint)> {
    let binary = tokio::task::spawn_blocking(binary::jiuzhou).await??;
    let mut starter = Starter::new(fleet, binary, pace);
    let endpoint = starter.hub(name).await?;
    let process = starter
        .processes
        .pop()
        .context("a replica was just started")?;
    Ok((process, endpoint))
}

async fn install_everywhere(fleet: &Fleet, members: &[Member], pace: Pace) -> Result<()> {
    let hub = fleet.hub().client().await?;
    install::crds(&hub).await?;
    install::chart(&hub, "hub").await?;
    for member in members {
        let client = fleet.cluster(&member.name)?.client().await?;
        install::chart(&client, "region").await?;
        if pace.guards.is_some() {
            guards::install(&client).await?;
        }
    }
    Ok(())
}

/// What the administrators of the province write down.
async fn describe(fleet: &Fleet, members: &[Member]) -> Result<()> {
    let hub = fleet.hub().client().await?;
    objects::regions(&hub).await?;
    for member in members {
        if member.mode == Mode::Push {
            let cluster = fleet.cluster(&member.name)?;
            let kubeconfig = cluster
                .service_account_kubeconfig("jiuzhou-system", "jiuzhou-push", TOKEN_SECONDS)
                .await?;
            let secrets: Api<Secret> = Api::namespaced(hub.clone(), "jiuzhou-system");
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": member.name},
                "stringData": {"kubeconfig": kubeconfig},
            });
            let params = PatchParams::apply("sandbox").force();
            secrets
                .patch(&member.name, &params, &Patch::Apply(&secret))
                .await?;
        }
        objects::member_cluster(&hub, member).await?;
    }
    Ok(())
}

struct Starter<'a> {
    fleet: &'a Fleet,
    binary: PathBuf,
    pace: Pace,
    processes: Vec<Process>,
    held: Held,
}

impl<'a> Starter<'a> {
    fn new(fleet: &'a Fleet, binary: PathBuf, pace: Pace) -> Self {
        Self {
            fleet,
            binary,
            pace,
            processes: Vec::new(),
            held: Held::default(),
        }
    }

    /// Guards in all clusters, by name of the cluster, once all serve.
    async fn all_guards(
        &mut self,
        members: &[Member],
        progress: fn(&str),
    ) -> Result<BTreeMap<String, Vec<Guard>>> {
        let mut all = BTreeMap::new();
        if self.pace.guards.is_none() {
            return Ok(all);
        }
        progress("starting the guards");
        for member in members {
            let (_, guards) = self.guards(self.fleet.cluster(&member.name)?).await?;
            all.insert(member.name.clone(), guards);
        }
        for guards in all.values() {
            guards::serving(&self.processes, guards).await?;
        }
        Ok(all)
    }

    async fn hub(&mut self, name: &str) -> Result<Endpoint> {
        let cluster = self.fleet.hub();
        let kubeconfig = cluster
            .service_account_kubeconfig("jiuzhou-system", "jiuzhou-hub", TOKEN_SECONDS)
            .await?;
        let kubeconfig = match self.pace.hub_through {
            Some(port) => kubeconfig.replace(cluster.url(), &format!("http://127.0.0.1:{port}")),
            None => kubeconfig,
        };
        let file = self.keep(&format!("{name}-process.kubeconfig"), &kubeconfig)?;
        let program = Program::new(name, &self.binary)
            .arg("hub")
            .flag("kubeconfig", &file)
            .flag("unreachable-after", self.pace.unreachable_after)
            .flag("reclaim-grace", self.pace.reclaim_grace)
            .flag("reachable-after", self.pace.reachable_after)
            .flag("heartbeat", self.pace.heartbeat)
            .flag("lease-duration", self.pace.lease_duration);
        self.run(program)
    }

    async fn agent(&mut self, member: &Member) -> Result<Endpoint> {
        let cluster = self.fleet.cluster(&member.name)?;
        let place = format!("jz-{}", member.name);
        await_account(self.fleet.hub(), &place, &self.processes).await?;
        let at_hub = self
            .fleet
            .hub()
            .service_account_kubeconfig(&place, "agent", TOKEN_SECONDS)
            .await?;
        let at_home = cluster
            .service_account_kubeconfig("jiuzhou-system", "jiuzhou-agent", TOKEN_SECONDS)
            .await?;
        let at_hub = self.keep(&format!("agent-{}-hub.kubeconfig", member.name), &at_hub)?;
        let at_home = self.keep(&format!("agent-{}.kubeconfig", member.name), &at_home)?;
        let program = Program::new(format!("agent-{}", member.name), &self.binary)
            .arg("agent")
            .flag("cluster", &member.name)
            .flag("hub-kubeconfig", &at_hub)
            .flag("kubeconfig", &at_home)
            .flag("heartbeat", self.pace.heartbeat);
        self.run(program)
    }

    /// Starts a process with an address for its metrics.
    fn run(&mut self, program: Program) -> Result<Endpoint> {
        let port = Port::reserve()?;
        let address = format!("127.0.0.1:{}", port.number());
        let mut program = program.flag("metrics-address", &address);
        if let Some(collector) = self.pace.traces {
            program = program.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
        }
        let process = self.fleet.supervisor().spawn(program)?;
        let pid = process.pid().context("the process ended at once")?;
        self.processes.push(process);
        self.held.ports.push(port);
        Ok(Endpoint {
            metrics: format!("http://{address}/metrics"),
            pid,
        })
    }

    fn keep(&self, name: &str, text: &str) -> Result<PathBuf> {
        keep(self.fleet.dir(), name, text)
    }
}

/// Credentials of the processes lie apart from those meant for people.
fn keep(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let folder = dir.join("identities");
    fs::create_dir_all(&folder)?;
    let file = folder.join(name);
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

/// Waits until the hub has set up a cluster's place.
async fn await_account(hub: &Cluster, place: &str, processes: &[Process]) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(hub.client().await?, place);
    let there = async {
        while accounts.get_opt("agent").await?.is_none() {
            processes.iter().try_for_each(Process::check)?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(STEP, there)
        .await
        .with_context(|| format!("the hub did not set up {place} in time; see logs/hub.log"))?
}
