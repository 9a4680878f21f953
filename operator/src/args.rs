//! The command line's words. Every flag can also be set by the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use crds::ClusterName;

/// One cloud of many regions.
#[derive(Debug, Parser)]
#[command(name = "jiuzhou", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Decide the whole province; runs in the province's cluster.
    Hub(HubArguments),
    /// Keep one member cluster as the hub assigned it; runs in that cluster.
    Agent(AgentArguments),
    /// Print all custom resource definitions as YAML.
    Crds,
}

/// Flags of `jiuzhou hub`.
#[derive(Debug, Args)]
pub struct HubArguments {
    /// Kubeconfig of the hub's own cluster; without it the hub takes what its pod was given.
    #[arg(long, env = "JIUZHOU_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "JIUZHOU_METRICS_ADDRESS", default_value = "0.0.0.0:9090")]
    pub metrics_address: SocketAddr,
    /// A cluster not heard of for longer than this is out of contact.
    #[arg(long, env = "JIUZHOU_UNREACHABLE_AFTER", default_value = "40s", value_parser = span)]
    pub unreachable_after: Duration,
    /// A cluster heard of without a gap for this long is in contact again.
    #[arg(long, env = "JIUZHOU_REACHABLE_AFTER", default_value = "30s", value_parser = span)]
    pub reachable_after: Duration,
    /// Time between two signs of life of the agents that run inside the hub.
    #[arg(long, env = "JIUZHOU_HEARTBEAT", default_value = "10s", value_parser = span)]
    pub heartbeat: Duration,
}

/// Flags of `jiuzhou agent`.
#[derive(Debug, Args)]
pub struct AgentArguments {
    /// Name of this cluster at the hub.
    #[arg(long, env = "JIUZHOU_CLUSTER", value_parser = cluster)]
    pub cluster: ClusterName,
    /// Kubeconfig of the agent's own identity at the hub.
    #[arg(long, env = "JIUZHOU_HUB_KUBECONFIG")]
    pub hub_kubeconfig: PathBuf,
    /// Kubeconfig of this cluster; without it the agent takes what its pod was given.
    #[arg(long, env = "JIUZHOU_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Address of /metrics, /livez and /readyz.
    #[arg(long, env = "JIUZHOU_METRICS_ADDRESS", default_value = "0.0.0.0:9090")]
    pub metrics_address: SocketAddr,
    /// Time between two signs of life.
    #[arg(long, env = "JIUZHOU_HEARTBEAT", default_value = "10s", value_parser = span)]
    pub heartbeat: Duration,
}

fn span(text: &str) -> Result<Duration, String> {
    let millis = crds::Period(text.to_owned()).millis().and_then(|m| u64::try_from(m).ok());
    let span = millis.filter(|millis| *millis > 0).map(Duration::from_millis);
    span.ok_or_else(|| "must be a number and ms, s, m or h, as in 10s".to_owned())
}

fn cluster(text: &str) -> Result<ClusterName, String> {
    let name = ClusterName::from(text);
    if name.is_valid() { Ok(name) } else { Err("must be a DNS label of at most 40 characters".to_owned()) }
}
