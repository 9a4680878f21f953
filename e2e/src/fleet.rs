//! A fleet: real control planes that share one etcd, one CA and one folder.
//!
//! ```text
//! etcd <-- kube-apiserver (one per cluster, each under its own prefix)
//!              ^-- kube-controller-manager, kube-scheduler, sandbox kubelet
//! ```
//!
//! Processes belong to the fleet and not to a tokio runtime, so one fleet serves the tests of a
//! whole binary; only [`Cluster::client`] binds to the runtime it is called in.

mod cluster;
mod components;
mod etcd;
mod folder;
mod kubeconfig;
pub(crate) mod ready;

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;

pub use cluster::Cluster;
pub use folder::InUse;
pub use kubeconfig::client_from;

use crate::{
    assets::Binaries,
    certs::Certificates,
    process::{Process, Supervisor},
};
use cluster::Context as ClusterContext;
use etcd::Etcd;
use folder::Folder;

/// The user name of [`Cluster::client`] and of the kubeconfig files: `system:masters`.
pub const ADMIN: &str = "admin";
/// Time for a process to end by itself before it is killed. What it would save is thrown away
/// with the fleet, so this only lets connections close in order.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// A user that the API servers know by a static token.
#[derive(Debug, Clone)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
}

impl Identity {
    /// A user in some groups.
    pub fn new<G: Into<String>>(
        user: impl Into<String>,
        groups: impl IntoIterator<Item = G>,
    ) -> Self {
        Self {
            user: user.into(),
            groups: groups.into_iter().map(Into::into).collect(),
        }
    }
}

/// What one cluster looks like.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Its name: part of file names and node names.
    pub name: String,
    /// Number of fake nodes; none means no kubelet, so that pods stay unscheduled.
    pub nodes: u32,
    /// How many pods one node takes.
    pub pods_per_node: u32,
    /// CPU of one node, as a quantity.
    pub node_cpu: String,
    /// Memory of one node, as a quantity.
    pub node_memory: String,
    /// Labels of every node.
    pub node_labels: Vec<(String, String)>,
    /// Time from a pod's binding until it is Ready.
    pub start_delay: Duration,
    /// Gives the cluster an etcd of its own, which a test may then stop.
    pub own_etcd: bool,
}

impl ClusterSpec {
    /// Three nodes of 8 cores, 32 GiB and 110 pods.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            nodes: 3,
            pods_per_node: 110,
            node_cpu: "8".into(),
            node_memory: "32Gi".into(),
            node_labels: vec![],
            start_delay: Duration::from_millis(300),
            own_etcd: false,
        }
    }
}

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// The fleet's folder; a previous fleet's content is removed, a living one's never.
    pub dir: PathBuf,
    /// The clusters, hub first.
    pub clusters: Vec<ClusterSpec>,
    /// Users that every cluster knows besides [`ADMIN`].
    pub identities: Vec<Identity>,
    /// The `sandbox` executable, which is also the reaper and the kubelet; when not given, it is
    /// looked for beside the running program.
    pub sandbox: Option<PathBuf>,
    /// Receives a line for each step; does nothing unless set.
    pub progress: fn(&str),
}

impl FleetConfig {
    /// Clusters of default size in `dir`.
    pub fn new<N: Into<String>>(
        dir: impl Into<PathBuf>,
        clusters: impl IntoIterator<Item = N>,
    ) -> Self {
        Self {
            dir: dir.into(),
            clusters: clusters.into_iter().map(ClusterSpec::new).collect(),
            identities: vec![],
            sandbox: None,
            progress: |_| {},
        }
    }
}

/// Running control planes. Dropping it kills them at once; [`Fleet::stop`] ends them in order.
#[derive(Debug)]
pub struct Fleet {
    // Fields end in this order: clusters before the etcd they use, all before the reaper's
    // supervisor, and the folder's lock last.
    clusters: Vec<Cluster>,
    etcd: Etcd,
    supervisor: Supervisor,
    folder: Folder,
    sandbox: PathBuf,
}

impl Fleet {
    /// Starts everything and returns once every API server answers and every node is Ready.
    ///
    /// Blocks while binaries are being built, if any are missing: call [`Binaries::ensure`]
    /// before where that matters.
    pub async fn start(config: FleetConfig) -> Result<Self> {
        ensure!(
            !config.clusters.is_empty(),
            "a fleet needs at least one cluster"
        );
        let progress = config.progress;
        let folder = Folder::claim(&config.dir)?;
        let binaries = Binaries::ensure(progress)?;
        let sandbox = sandbox_executable(config.sandbox.as_deref())?;
        let certificates = Certificates::create(&folder.path().join("pki"))?;
        let supervisor = Supervisor::start(&sandbox, folder.path())?;
        let data = folder.data_dir(&supervisor)?;

        let etcd = Etcd::start(&supervisor, &binaries.etcd, &data, "etcd").await?;
        progress("etcd is ready");
        let context = ClusterContext {
            folder: folder.path(),
            data: &data,
            binaries: &binaries,
            certificates: &certificates,
            supervisor: &supervisor,
            identities: &config.identities,
            sandbox: &sandbox,
            etcd_url: etcd.url(),
            progress,
        };
        let clusters = try_join_all(
            config
                .clusters
                .iter()
                .map(|spec| Cluster::start(spec, &context)),
        )
        .await?;
        Ok(Self {
            clusters,
            etcd,
            supervisor,
            folder,
            sandbox,
        })
    }

    /// The fleet's folder, absolute.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The `sandbox` executable in use; other programs of the same build lie beside it.
    pub fn sandbox_executable(&self) -> &Path {
        &self.sandbox
    }

    /// Starts further programs under the same supervision.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// The first cluster, by convention the hub's.
    pub fn hub(&self) -> &Cluster {
        // `start` refuses a fleet without clusters.
        &self.clusters[0]
    }

    /// All clusters, hub first.
    pub fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    /// A cluster by name.
    pub fn cluster(&self, name: &str) -> Result<&Cluster> {
        let found = self.clusters.iter().find(|cluster| cluster.name() == name);
        found.with_context(|| format!("the fleet has no cluster {name}"))
    }

    /// The etcd that clusters share.
    pub fn etcd(&self) -> &Process {
        self.etcd.process()
    }

    /// Every process of the fleet, for status files and supervision.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.clusters
            .iter()
            .flat_map(Cluster::processes)
            .chain([self.etcd.process()])
    }

    /// Ends all processes, dependants first, and removes the data; logs and kubeconfigs stay.
    pub async fn stop(self) -> Result<()> {
        // Told all at once, since each waits for its own connections and not for the others.
        for cluster in &self.clusters {
            cluster.processes().try_for_each(Process::terminate)?;
        }
        for cluster in &self.clusters {
            for process in cluster.processes() {
                process.stop(STOP_GRACE).await?;
            }
        }
        self.etcd.process().stop(STOP_GRACE).await?;
        Ok(())
    }
}

fn sandbox_executable(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let current = env::current_exe().context("find the running program")?;
    let current = current.as_path();
    // Test programs lie in `deps`, one folder below the binaries.
    let mut folders = current.ancestors().skip(1).take(2);
    let found = folders.find_map(|folder| {
        let candidate = folder.join("sandbox");
        candidate.is_file().then_some(candidate)
    });
    match found {
        Some(path) => Ok(path),
        None => bail!(
            "no `sandbox` program beside {}: build it with `cargo build -p e2e`",
            current.display()
        ),
    }
}
