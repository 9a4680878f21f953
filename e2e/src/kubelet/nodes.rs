//! The nodes: created, kept Ready, kept alive by leases, and dead when annotated so.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeAddress, NodeCondition, NodeStatus},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{Options, backoff::Steady, faults, write_deadline};
use crate::assets::kubernetes_version;

/// Marks the nodes that a sandbox's kubelet plays.
const PLAYED: &str = "sandbox.jiuzhou.io/kubelet";
const NOT_READY_TAINT: &str = "node.kubernetes.io/not-ready";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Two renewals may be missed before the controllers' 20 s are over.
const RENEW_EVERY: Duration = Duration::from_secs(6);
const LEASE_SECONDS: i32 = 20;

/// The nodes that live now, with their addresses.
pub(super) type Living = BTreeMap<String, Ipv4Addr>;

/// Keeps a cluster's nodes.
pub(super) struct Nodes {
    client: Client,
    options: Options,
    addresses: Living,
    living: watch::Sender<Living>,
}

impl Nodes {
    pub(super) fn new(client: Client, options: &Options, addresses: Living) -> Self {
        let living = watch::Sender::new(Living::new());
        Self {
            client,
            options: options.clone(),
            addresses,
            living,
        }
    }

    pub(super) fn living(&self) -> watch::Receiver<Living> {
        self.living.subscribe()
    }

    /// Creates the nodes and keeps them until the process ends.
    pub(super) async fn run(self) -> Result<()> {
        self.create_missing().await?;
        let api: Api<Node> = Api::all(self.client.clone());
        let config = watcher::Config::default().labels(&format!("{PLAYED}=true"));
        let mut events = watcher(api, config).backoff(Steady::default()).boxed();
        let mut renew = tokio::time::interval(RENEW_EVERY);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Filled anew by each complete list: nodes that are not in it are gone.
        let mut listed = Living::new();
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(Event::Init) => listed.clear(),
                    Ok(Event::InitApply(node)) => {
                        if self.lives(&node).await {
                            listed.extend(self.entry(&node.name_any()));
                        }
                    }
                    Ok(Event::InitDone) => self.set_living(|living| living.clone_from(&listed)),
                    Ok(Event::Apply(node)) => self.applied(&node).await,
                    Ok(Event::Delete(node)) => {
                        self.set_living(|living| { living.remove(&node.name_any()); });
                    }
                    Err(error) => tracing::warn!("watch of nodes: {error}"),
                },
                _ = renew.tick() => {
                    if !self.renew().await {
                        // The server is away: be early once it is back.
                        renew.reset_after(Duration::from_secs(1));
                    }
                }
            }
        }
    }

    async fn create_missing(&self) -> Result<()> {
        let api: Api<Node> = Api::all(self.client.clone());
        for name in self.addresses.keys() {
            match api.create(&PostParams::default(), &self.node(name)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(error) => return Err(error).with_context(|| format!("create node {name}")),
            }
        }
        Ok(())
    }

    fn node(&self, name: &str) -> Node {
        let mut labels: BTreeMap<String, String> =
            self.options.node_labels.iter().cloned().collect();
        let fixed = [
            ("kubernetes.io/hostname", name),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
            (PLAYED, "true"),
        ];
        labels.extend(fixed.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let mut node = Node::default();
        node.metadata.name = Some(name.to_owned());
        node.metadata.labels = Some(labels);
        node
    }

    fn entry(&self, name: &str) -> Option<(String, Ipv4Addr)> {
        self.addresses
            .get_key_value(name)
            .map(|(name, address)| (name.clone(), *address))
    }

    fn set_living(&self, change: impl FnOnce(&mut Living)) {
        self.living.send_if_modified(|living| {
            let before = living.clone();
            change(living);
            *living != before
        });
    }

    async fn applied(&self, node: &Node) {
        let name = node.name_any();
        if self.lives(node).await {
            self.set_living(|living| living.extend(self.entry(&name)));
        } else {
            self.set_living(|living| {
                living.remove(&name);
            });
        }
    }

    /// Whether a node lives; if so, its status is brought in order.
    async fn lives(&self, node: &Node) -> bool {
        let Some(address) = self.addresses.get(&node.name_any()) else {
            return false;
        };
        if faults::is_dead(node.annotations()) {
            return false;
        }
        if let Err(error) = self.keep_ready(node, *address).await {
            // The next event or the next renewal tries again.
            tracing::warn!(node = node.name_any(), "status not written: {error:#}");
        }
        true
    }

    async fn keep_ready(&self, node: &Node, address: Ipv4Addr) -> Result<()> {
        let api: Api<Node> = Api::all(self.client.clone());
        let name = node.name_any();
        let status = ready_status(node, &self.options, address, Timestamp::now());
        if node.status.as_ref() != Some(&status) {
            let patch = json!({"metadata": {"uid": node.uid()}, "status": status});
            let params = PatchParams::default();
            write_deadline(api.patch_status(&name, &params, &Patch::Merge(&patch))).await?;
        }
        // The admission of a new node adds this taint, and the controllers remove it a little
        // later; pods are to be scheduled at once.
        let taints = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default();
        if taints.iter().any(|taint| taint.key == NOT_READY_TAINT) {
            let rest: Vec<_> = taints
                .iter()
                .filter(|taint| taint.key != NOT_READY_TAINT)
                .collect();
            let patch = json!({"metadata": {"uid": node.uid()}, "spec": {"taints": rest}});
            write_deadline(api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)))
                .await?;
        }
        Ok(())
    }

    /// Renews the leases of the living; false if one could not be renewed.
    async fn renew(&self) -> bool {
        let names: Vec<String> = self.living.borrow().keys().cloned().collect();
        let api: Api<Lease> = Api::namespaced(self.client.clone(), LEASE_NAMESPACE);
        for name in names {
            // Server-side apply creates the lease if it is not there.
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name},
                "spec": {
                    "holderIdentity": name,
                    "leaseDurationSeconds": LEASE_SECONDS,
                    "renewTime": format!("{:.6}", Timestamp::now()),
                },
            });
            let params = PatchParams::apply("sandbox-kubelet").force();
            let written = write_deadline(api.patch(&name, &params, &Patch::Apply(&lease))).await;
            if let Err(error) = written {
                tracing::warn!(node = name, "lease not renewed: {error:#}");
                return false;
            }
        }
        true
    }
}

/// The status of a healthy node; what is unchanged keeps its times.
fn ready_status(node: &Node, options: &Options, address: Ipv4Addr, now: Timestamp) -> NodeStatus {
    let mut status = node.status.clone().unwrap_or_default();
    let capacity: BTreeMap<String, Quantity> = [
        ("cpu", options.node_cpu.clone()),
        ("memory", options.node_memory.clone()),
        ("pods", options.pods_per_node.to_string()),
        ("ephemeral-storage", "100Gi".to_owned()),
    ]
    .map(|(name, quantity)| (name.to_owned(), Quantity(quantity)))
    .into();
    status.allocatable = Some(capacity.clone());
    status.capacity = Some(capacity);
    status.addresses = Some(
        [
            ("InternalIP", address.to_string()),
            ("Hostname", node.name_any()),
        ]
        .map(|(type_, address)| NodeAddress {
            type_: type_.to_owned(),
            address,
        })
        .into(),
    );
    let info = status.node_info.get_or_insert_default();
    kubernetes_version().clone_into(&mut info.kubelet_version);
    info.os_image = "jiuzhou sandbox".into();
    info.operating_system = "linux".into();
    info.architecture = "amd64".into();
    info.container_runtime_version = "sandbox://1".into();

    let old = status.conditions.take().unwrap_or_default();
    let types = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ];
    let conditions = types.map(|(type_, value, reason)| {
        let unchanged = old.iter().find(|c| c.type_ == type_ && c.status == value);
        unchanged.cloned().unwrap_or_else(|| NodeCondition {
            type_: type_.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
            ..NodeCondition::default()
        })
    });
    status.conditions = Some(conditions.into());
    status
}
