//! What the hub hears: one watch per kind, all feeding one queue.

use std::fmt::Debug;

use crds::{
    App, Approval, AssignmentSlice, CONTENT_NAMESPACE, ClusterName, ClusterReport, ContentHash,
    Isolation, Link, LinkGrant, MemberCluster, NamespaceName, Quota, QuotaLedger, Region,
    ReportSlice, SYSTEM_NAMESPACE, Tenant, TrafficPolicy, label,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::core::ApiResource;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::secrets::Head;
use crate::agent::View;
use crate::runtime::metrics::Metrics;
use crate::runtime::watch::{Change, Freshness, Selection, Timing, watch};

/// Changes waiting to be taken in; a full queue holds the watches back.
const QUEUE: usize = 4096;
/// Name of the ConfigMap that holds the hub's identity and epoch.
pub(super) const IDENTITY: &str = "jiuzhou-hub";

/// Name of the watch on heartbeats, for its signs of life.
pub(super) const LEASES: &str = "leases";

/// One thing heard.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "each moves through the queue once; a box would cost more"
)]
pub(super) enum Heard {
    Regions(Change<DeserializeGuard<Region>>),
    Clusters(Change<DeserializeGuard<MemberCluster>>),
    Apps(Change<DeserializeGuard<App>>),
    Approvals(Change<DeserializeGuard<Approval>>),
    Tenants(Change<DeserializeGuard<Tenant>>),
    Quotas(Change<DeserializeGuard<Quota>>),
    Isolations(Change<DeserializeGuard<Isolation>>),
    Links(Change<DeserializeGuard<Link>>),
    LinkGrants(Change<DeserializeGuard<LinkGrant>>),
    Policies(Change<DeserializeGuard<TrafficPolicy>>),
    QuotaLedgers(Change<DeserializeGuard<QuotaLedger>>),
    /// RoleBindings that the hub made.
    Bindings(Change<RoleBinding>),
    Slices(Change<DeserializeGuard<AssignmentSlice>>),
    Reports(Change<DeserializeGuard<ReportSlice>>),
    ClusterReports(Change<DeserializeGuard<ClusterReport>>),
    Contents(Change<DeserializeGuard<Stored>>),
    Leases(Change<Lease>),
    Namespaces(Change<View>),
    Identity(Change<ConfigMap>),
    /// A whole list of what is watched under this name went before.
    Listed(Box<str>),
    /// Whether the kubeconfig of a cluster is refused, and the sentence that says why.
    Connection(ClusterName, Option<String>),
    /// Secrets of a tenant's namespace.
    Sources(NamespaceName, Change<Head>),
    /// Copies of Secrets in a cluster's namespace.
    Copies(ClusterName, Change<Head>),
}

/// A Content object without its data: the hub needs to know only what is stored where.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = crds::Content)]
pub(crate) struct Stored {
    pub(crate) metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    pub(crate) spec: StoredSpec,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StoredSpec {
    pub(crate) tenant: NamespaceName,
    pub(crate) items: Vec<StoredItem>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StoredItem {
    pub(crate) hash: ContentHash,
}

/// Starts all watches. Dropping the set ends them.
pub(super) fn watches(
    client: &Client,
    freshness: &Freshness,
    metrics: &Metrics,
) -> (JoinSet<()>, mpsc::Sender<Heard>, mpsc::Receiver<Heard>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut all = Watches {
        tasks: JoinSet::new(),
        sender,
        freshness: freshness.clone(),
        metrics: metrics.clone(),
    };
    all.every(Api::all(client.clone()), Heard::Regions);
    all.every(Api::all(client.clone()), Heard::Clusters);
    all.every(Api::all(client.clone()), Heard::Apps);
    all.every(Api::all(client.clone()), Heard::Approvals);
    all.every(Api::all(client.clone()), Heard::Tenants);
    all.every(Api::all(client.clone()), Heard::Quotas);
    all.every(Api::all(client.clone()), Heard::Isolations);
    all.every(Api::all(client.clone()), Heard::Links);
    all.every(Api::all(client.clone()), Heard::LinkGrants);
    all.every(Api::all(client.clone()), Heard::Policies);
    let system = || Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    all.every(system(), Heard::QuotaLedgers);
    all.one(
        "rolebindings",
        Api::all(client.clone()),
        ours(),
        Heard::Bindings,
    );
    all.every(Api::all(client.clone()), Heard::Slices);
    all.every(Api::all(client.clone()), Heard::Reports);
    all.every(Api::all(client.clone()), Heard::ClusterReports);
    all.every(
        Api::namespaced(client.clone(), CONTENT_NAMESPACE),
        Heard::Contents,
    );
    all.one(
        LEASES,
        Api::all(client.clone()),
        named("agent"),
        Heard::Leases,
    );
    let namespace = ApiResource::erase::<Namespace>(&());
    all.one(
        "namespaces",
        Api::all_with(client.clone(), &namespace),
        Selection::default(),
        Heard::Namespaces,
    );
    let identity = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    all.one("identity", identity, named(IDENTITY), Heard::Identity);
    (all.tasks, all.sender, receiver)
}

fn ours() -> Selection {
    Selection {
        labels: Some(format!("{}={}", label::MANAGED_BY, label::MANAGED_BY_VALUE)),
        fields: None,
    }
}

fn named(name: &str) -> Selection {
    Selection {
        labels: None,
        fields: Some(format!("metadata.name={name}")),
    }
}

struct Watches {
    tasks: JoinSet<()>,
    sender: mpsc::Sender<Heard>,
    freshness: Freshness,
    metrics: Metrics,
}

impl Watches {
    fn every<K>(&mut self, api: Api<K>, heard: fn(Change<K>) -> Heard)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        self.one(&K::plural(&()), api, Selection::default(), heard);
    }

    fn one<K>(
        &mut self,
        name: &str,
        api: Api<K>,
        selection: Selection,
        heard: fn(Change<K>) -> Heard,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (sink, mut changes) = mpsc::channel::<Change<K>>(64);
        let proof = self.freshness.kind(name);
        // A watch that ended by a fault must become stale; without its proof it would be forgotten.
        let kept = proof.clone();
        self.tasks.spawn(async move {
            std::future::pending::<()>().await;
            drop(kept);
        });
        self.tasks
            .spawn(watch(api, selection, Timing::default(), sink, proof));
        let (sender, metrics) = (self.sender.clone(), self.metrics.clone());
        let name: Box<str> = name.into();
        self.tasks.spawn(async move {
            while let Some(change) = changes.recv().await {
                if sender.capacity() == 0 {
                    metrics.overflowed("hub");
                }
                let list = matches!(change, Change::Replaced(_));
                if sender.send(heard(change)).await.is_err() {
                    return;
                }
                if list && sender.send(Heard::Listed(name.clone())).await.is_err() {
                    return;
                }
            }
        });
    }
}
