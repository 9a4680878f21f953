//! The guards of a cluster: guard control with its own account, and the guards that it leads, which have none.

use std::{fs, net::Ipv4Addr};

use anyhow::{Context, Result, bail};
use kube::{Client, Config};

use super::{Endpoint, Guard, Pace, Starter, TOKEN_SECONDS, binary, install};
use crate::{
    assets,
    certs::GuardCertificates,
    fleet::{Cluster, Fleet, ready},
    process::{
        Process, Program,
        reserve::{Address, Port},
    },
};

/// Namespace of guards and of what leads them.
pub const NAMESPACE: &str = "jiuzhou-guard";
/// Name of the Gateway that every region has, in [`NAMESPACE`].
pub const GATEWAY: &str = "region";
/// That Gateway.
const GATEWAY_MANIFEST: &str = include_str!("guards/gateway.yaml");
/// A guard opens port 80 of a Gateway here.
const HTTP_PORT: u16 = 10_080;
/// What guards read. The other kinds of Gateway API would only cost every API server time and memory.
const KINDS: [&str; 4] = [
    "_gatewayclasses",
    "_gateways",
    "_httproutes",
    "_referencegrants",
];
/// Nothing here takes a guard out of a balancer before it ends.
const DRAIN_DELAY: &str = "100ms";
/// Shorter than the time after which a process that is told to end is killed.
const DRAIN_TIMEOUT: &str = "2s";

/// The running guards of one cluster, ended when they are dropped.
#[derive(Debug)]
pub struct Guards {
    /// Guard control.
    pub control: Endpoint,
    /// The guards.
    pub guards: Vec<Guard>,
    /// Guard control `guard-control-<cluster>`, then the guards `guard-<cluster>-1`, …
    pub processes: Vec<Process>,
    held: Held,
}

/// Ports and addresses, reserved as long as processes may be restarted on them.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) ports: Vec<Port>,
    pub(super) addresses: Vec<Address>,
}

impl Guards {
    /// The process of that name.
    pub fn process(&self, name: &str) -> Result<&Process> {
        let found = self.processes.iter().find(|process| process.name() == name);
        found.with_context(|| format!("no process {name} among the guards"))
    }

    /// Addresses of the guards, and those that are given to Gateways.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.held.addresses.iter().map(Address::ip)
    }
}

/// Gateway API's kinds as far as guards read them, what is shipped for guards, and the region's Gateway.
pub async fn install(client: &Client) -> Result<()> {
    kinds(client, |stem| KINDS.iter().any(|kind| stem.ends_with(kind))).await?;
    install::chart(client, "guard").await?;
    install::apply(client, GATEWAY_MANIFEST).await
}

/// As [`install()`] with all kinds of Gateway API's standard channel, and without a Gateway.
pub async fn install_with_all_kinds(client: &Client) -> Result<()> {
    kinds(client, |_| true).await?;
    install::chart(client, "guard").await
}

/// Those kinds of Gateway API whose file has such a name.
async fn kinds(client: &Client, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let Some(files) = assets::gateway_api_crds()? else {
        bail!(
            "guards need the kinds of Gateway API, which come by Go's module cache: install Go 1.26 or newer, \
             or start without jiuzhou (--bare)"
        );
    };
    for file in files {
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        if stem.is_some_and(&wanted) {
            let text = fs::read_to_string(&file)?;
            install::apply(client, &text)
                .await
                .with_context(|| format!("apply {}", file.display()))?;
        }
    }
    Ok(())
}

/// Starts guards in a cluster where all is installed, and waits until they serve.
pub async fn start(fleet: &Fleet, cluster: &Cluster, pace: Pace) -> Result<Guards> {
    let binary = tokio::task::spawn_blocking(binary::jiuzhou).await??;
    let mut starter = Starter::new(fleet, binary, pace);
    let (control, guards) = starter.guards(cluster).await?;
    serving(&starter.processes, &guards).await?;
    Ok(Guards {
        control,
        guards,
        processes: starter.processes,
        held: starter.held,
    })
}

/// Waits until guards serve.
pub(super) async fn serving(processes: &[Process], guards: &[Guard]) -> Result<()> {
    for guard in guards {
        let mut processes = processes.iter();
        let process = processes.find(|process| process.pid() == Some(guard.endpoint.pid));
        let process = process.context("a guard ended at once; see its log")?;
        let address = guard.endpoint.metrics.trim_end_matches("/metrics");
        ready::answers(process, Config::new(address.parse()?), "/readyz").await?;
    }
    Ok(())
}

impl Starter<'_> {
    /// Starts what leads the guards of a cluster, and as many guards as the pace says.
    pub(super) async fn guards(&mut self, cluster: &Cluster) -> Result<(Endpoint, Vec<Guard>)> {
        let name = cluster.name();
        let folder = self.fleet.dir().join("guards").join(name);
        let certificates = GuardCertificates::create(&folder.join("pki"))?;
        let count = self.pace.guards.unwrap_or_default();
        let addresses: Vec<Address> = (0..count)
            .map(|_| Address::reserve())
            .collect::<Result<_>>()?;
        let named = texts(&addresses);
        let for_gateways: Vec<Address> = (0..self.pace.gateway_addresses)
            .map(|_| Address::reserve())
            .collect::<Result<_>>()?;
        let exchange = Port::reserve()?;
        let asked = format!("127.0.0.1:{}", exchange.number());
        self.held.ports.push(exchange);

        let kubeconfig = cluster
            .service_account_kubeconfig(NAMESPACE, "jiuzhou-guard-control", TOKEN_SECONDS)
            .await?;
        let kubeconfig = self.keep(&format!("guard-control-{name}.kubeconfig"), &kubeconfig)?;
        let mut program = Program::new(format!("guard-control-{name}"), &self.binary)
            .arg("guard")
            .arg("control")
            .flag("kubeconfig", &kubeconfig)
            .flag("address", &asked)
            .flag("certificate", &certificates.control.certificate)
            .flag("key", &certificates.control.key)
            .flag("client-ca", &certificates.guard.ca)
            .flag("lease-duration", self.pace.lease_duration);
        if count > 0 {
            let told = if for_gateways.is_empty() {
                &named
            } else {
                program = program.flag("sharing", "apart");
                &texts(&for_gateways)
            };
            program = program
                .flag("addresses", told.join(","))
                .flag("replicas", count.to_string());
        }
        let control = self.run(program)?;

        let mut guards = Vec::new();
        for (number, address) in named.iter().enumerate() {
            let guard = format!("{name}-{}", number + 1);
            let program = Program::new(format!("guard-{guard}"), &self.binary)
                .arg("guard")
                .arg("serve")
                .flag("control", format!("https://{asked}"))
                .flag("control-ca", &certificates.control.ca)
                .flag("certificate", &certificates.guard.certificate)
                .flag("key", &certificates.guard.key)
                .flag("name", &guard)
                .flag("state-directory", folder.join(&guard))
                .flag("replicas", count.to_string())
                .flag("address", address)
                .flag("connect-to", "198.18.0.0/15=127.18.0.0/15")
                .flag("drain-delay", DRAIN_DELAY)
                .flag("drain-timeout", DRAIN_TIMEOUT);
            guards.push(Guard {
                http: format!("http://{address}:{HTTP_PORT}"),
                endpoint: self.run(program)?,
            });
        }
        self.held.addresses.extend(addresses);
        self.held.addresses.extend(for_gateways);
        Ok((control, guards))
    }
}

fn texts(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(|a| a.ip().to_string()).collect()
}
