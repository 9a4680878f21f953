//! Agents that run inside the hub: for the hub's own cluster and for clusters it pushes to.
//!
//! They run on the leader only, so that a cluster has one writer, and end with its leadership.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::{ClusterName, Connection, SYSTEM_NAMESPACE};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use plan::World;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::agent::Agent;
use crate::runtime::client::{Limits, client};
use crate::runtime::errors::chain;
use crate::runtime::kubeconfig::Member;
use crate::runtime::lease::Fence;
use crate::runtime::metrics::Metrics;
use crate::runtime::watch::Freshness;

/// Time between two looks at a kubeconfig that could not be used.
const RETRY: Duration = Duration::from_secs(5);

/// What agents inside the hub share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) hub: Client,
    pub(super) heartbeat: Duration,
    pub(super) metrics: Metrics,
}

/// The agents that run.
pub(super) struct Members {
    shared: Shared,
    running: BTreeMap<ClusterName, (Connection, AbortOnDropHandle<()>)>,
    stop: CancellationToken,
}

impl Members {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared,
            running: BTreeMap::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Starts agents for clusters that need one here, and ends those that no longer do.
    pub(super) fn follow(&mut self, world: &World) {
        let epoch = world.hub.leader_epoch;
        let mut wanted: BTreeMap<ClusterName, Connection> = BTreeMap::new();
        for (name, slot) in world.clusters() {
            match slot
                .state
                .as_ref()
                .map(|cluster| cluster.connection.clone())
            {
                Ok(connection @ (Connection::Local | Connection::Push(_))) => {
                    wanted.insert(name.clone(), connection);
                }
                Ok(Connection::Pull) | Err(_) => {}
            }
        }
        self.running
            .retain(|name, (connection, _)| wanted.get(name) == Some(connection));
        for (name, connection) in wanted {
            if !self.running.contains_key(&name) {
                let task = run(
                    self.shared.clone(),
                    name.clone(),
                    connection.clone(),
                    epoch,
                    self.stop.child_token(),
                );
                self.running.insert(
                    name,
                    (connection, AbortOnDropHandle::new(tokio::spawn(task))),
                );
            }
        }
    }

    /// Ends all agents.
    pub(super) fn end(&mut self) {
        self.stop.cancel();
        self.running.clear();
        self.stop = CancellationToken::new();
    }
}

async fn run(
    shared: Shared,
    cluster: ClusterName,
    connection: Connection,
    epoch: i64,
    stop: CancellationToken,
) {
    let member = loop {
        match connect(&shared, &cluster, &connection, epoch).await {
            Ok(member) => break member,
            Err(error) => {
                tracing::warn!(%cluster, error = chain(&*error), "the cluster's kubeconfig cannot be used");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let agent = Agent {
        cluster,
        hub: shared.hub,
        member,
        local: connection == Connection::Local,
        leader_epoch: Some(epoch),
        heartbeat: shared.heartbeat,
        metrics: shared.metrics,
        // The hub's health does not depend on a member cluster's.
        freshness: Freshness::new(),
    };
    agent.run(stop).await;
}

async fn connect(
    shared: &Shared,
    cluster: &ClusterName,
    connection: &Connection,
    epoch: i64,
) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let Connection::Push(name) = connection else {
        return Ok(shared.hub.clone());
    };
    let secrets: Api<Secret> = Api::namespaced(shared.hub.clone(), SYSTEM_NAMESPACE);
    let secret = secrets.get(name).await?;
    let text = secret
        .data
        .as_ref()
        .and_then(|data| data.get("kubeconfig"))
        .map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
    let text = text.ok_or_else(|| {
        format!(
            "Secret {} has no key kubeconfig: put the cluster's kubeconfig there",
            secret.name_any()
        )
    })?;
    let config = Member::parse(&text)?.config();
    let member = client(
        cluster.as_str(),
        config,
        Limits::default(),
        &shared.metrics.requests,
    )?;
    // Before the first write there, as at the hub: from now on a former leader is refused.
    Fence::new(member.clone(), SYSTEM_NAMESPACE)
        .raise_to(epoch)
        .await?;
    Ok(member)
}
