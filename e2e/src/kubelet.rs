//! Plays the nodes of one cluster: the hidden command `sandbox kubelet`.
//!
//! ```text
//! watch of pods --> lifecycle (pure) --> status patches, deletions
//!                                   \--> HTTP on the twin address of each pod
//! ```
//!
//! Nothing is run. A bound pod becomes Running and Ready after a delay, its declared ports answer
//! real HTTP, and it is removed once its termination grace has passed. Annotations make pods fail
//! and nodes die: see the constants re-exported here.
//!
//! It works on changes alone; at rest it only renews the nodes' leases.

mod backoff;
mod echo;
mod faults;
mod lifecycle;
mod network;
mod nodes;
mod pods;
mod server;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};

pub use faults::{CAPACITY, DEAD, LATENCY, READY, RUN_FOR, START_DELAY, STATUS};
pub use network::twin;

use crate::fleet::client_from;
use network::{AddressPool, Network};
use nodes::{Living, Nodes};
use pods::Pods;

/// A write that is not answered in this time is given up and tried again.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The command line of `sandbox kubelet`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Kubeconfig with all rights in the cluster
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The cluster's name; part of the nodes' names
    #[arg(long)]
    cluster: String,
    /// How many nodes to play
    #[arg(long)]
    nodes: u32,
    /// Addresses to give to nodes and pods, inside 198.18.0.0/15
    #[arg(long)]
    pod_network: Network,
    /// How many pods one node takes
    #[arg(long, default_value_t = 110)]
    pods_per_node: u32,
    /// CPU of one node
    #[arg(long, default_value = "8")]
    node_cpu: String,
    /// Memory of one node
    #[arg(long, default_value = "32Gi")]
    node_memory: String,
    /// A label of every node, KEY=VALUE
    #[arg(long = "node-label", value_parser = label)]
    node_labels: Vec<(String, String)>,
    /// Milliseconds from a pod's binding until it is Ready
    #[arg(long, default_value_t = 300)]
    start_delay_ms: u64,
    /// The longest termination grace that is waited for, in milliseconds
    #[arg(long, default_value_t = 2000)]
    longest_grace_ms: u64,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Plays the nodes until the process is ended.
pub async fn run(options: Options) -> Result<()> {
    raise_file_limit();
    let text = std::fs::read_to_string(&options.kubeconfig)
        .with_context(|| format!("read {}", options.kubeconfig.display()))?;
    let client = client_from(&text).await?;
    let mut pool = AddressPool::new(options.pod_network);
    let nodes = Nodes::new(
        client.clone(),
        &options,
        node_addresses(&options, &mut pool)?,
    );
    let pods = Pods::new(client, &options, pool, nodes.living());
    tokio::select! {
        ended = nodes.run() => ended.context("keep the nodes"),
        ended = pods.run() => ended.context("run the pods"),
    }
}

/// Nodes take the network's first addresses, so they have the same ones after a restart.
fn node_addresses(options: &Options, pool: &mut AddressPool) -> Result<Living> {
    (1..=options.nodes)
        .map(|number| {
            let Some(address) = pool.take() else {
                bail!("more nodes than addresses")
            };
            Ok((format!("{}-node-{number}", options.cluster), address))
        })
        .collect()
}

/// Each served port is an open file, and the usual soft limit is 1024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("limit of open files not raised: {error}");
    }
}

/// Bounds a write; a hung API server would otherwise hold it for ever.
async fn write_deadline<T>(write: impl Future<Output = kube::Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout(WRITE_DEADLINE, write).await;
    Ok(answer.context("no answer from the API server")??)
}
