//! MemberCluster: one Kubernetes cluster of the province.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::name::{RegionName, Uid};
use crate::scalar::{DataGrade, Zone};

/// A MemberCluster is one Kubernetes cluster in one Region and one network zone.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io", version = "v1alpha1", kind = "MemberCluster", plural = "memberclusters",
    shortname = "mbc", category = "jiuzhou", status = "MemberClusterStatus", derive = "PartialEq", cel,
    doc = "A MemberCluster is one Kubernetes cluster in one Region and one network zone. Its identity is pinned when it joins: another cluster under the same name is refused.",
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.regionName"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.zone", priority = 1),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode", description = "how the hub and the cluster talk: local, pull or push"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "CPU", type_ = "string", json_path = ".status.cpu", description = "requested/allocatable cores"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1),
    printcolumn(name = "Management", type_ = "string", json_path = ".spec.management", priority = 1),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.kubernetesVersion", priority = 1),
    selectable = ".spec.regionName", selectable = ".spec.zone", selectable = ".spec.management",
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label of at most 40 characters, since the hub namespace jz-<name> carries it").reason(Reason::FieldValueInvalid),
)]
#[serde(rename_all = "camelCase")]
pub struct MemberClusterSpec {
    /// Region in which the cluster stands. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("regionName is immutable: release the cluster and join it under a new name"))]
    pub region_name: RegionName,
    /// Network zone of the cluster. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("zone is immutable: release the cluster and join it under a new name"))]
    pub zone: Zone,
    /// Whether the cloud is dedicated to government or a government area of a public one; default `Dedicated`.
    #[serde(default)]
    pub form: Form,
    /// Who built the cloud, for example `example-cloud`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub vendor: Option<String>,
    /// 等保 level of the cloud, 1 to 5. An App's level must not exceed it.
    #[schemars(range(min = 1, max = 5))]
    pub protection_level: i32,
    /// Highest data grade the cluster may hold.
    pub max_data_grade: DataGrade,
    /// Whether Jiuzhou only observes, manages or releases the cluster; default `Observe`.
    #[serde(default)]
    pub management: Management,
    /// How the hub and the cluster talk; exactly one of `local`, `pull` and `push`.
    #[x_kube(validation = Rule::new("[has(self.local), has(self.pull), has(self.push)].filter(x, x).size() == 1").message("exactly one of local, pull and push must be set"))]
    pub connection: ConnectionSpec,
}

/// How the hub and a cluster talk; exactly one field is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSpec {
    /// The hub's own cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalConnection>,
    /// An agent in the cluster calls the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullConnection>,
    /// The hub calls the cluster with a kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushConnection>,
}

/// The hub's own cluster; takes no settings.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalConnection {}

/// An agent in the cluster calls the hub; takes no settings.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct PullConnection {}

/// The hub calls the cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PushConnection {
    /// Secret in `jiuzhou-system` whose key `kubeconfig` holds server, CA and a token or client certificate, inline and nothing else.
    #[schemars(length(min = 1, max = 253))]
    pub kubeconfig_secret_name: String,
}

/// A [`ConnectionSpec`] that says exactly one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The hub's own cluster.
    Local,
    /// An agent in the cluster calls the hub.
    Pull,
    /// The hub calls the cluster with the kubeconfig in this Secret.
    Push(String),
}

impl Connection {
    /// The connection the spec asks for, unless it asks for none or for several.
    pub fn of(spec: &ConnectionSpec) -> Option<Self> {
        match (&spec.local, &spec.pull, &spec.push) {
            (Some(_), None, None) => Some(Self::Local),
            (None, Some(_), None) => Some(Self::Pull),
            (None, None, Some(push)) => Some(Self::Push(push.kubeconfig_secret_name.clone())),
            _ => None,
        }
    }

    /// The word users know it by.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Pull => "pull",
            Self::Push(_) => "push",
        }
    }
}

/// Kind of cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Form {
    /// A cloud of its own.
    #[default]
    Dedicated,
    /// A government area of a public cloud.
    GovernmentZone,
}

/// What Jiuzhou may do in a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Management {
    /// Report only; nothing is written in the cluster.
    #[default]
    Observe,
    /// Apply what is placed there.
    Manage,
    /// Let go: workloads stay and run on, ownership marks are removed.
    Release,
}

/// What is known of a member cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MemberClusterStatus {
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Epoch of the hub leader that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub leader_epoch: Option<i64>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled`, `Joined`, `Reachable`, `CapacityReported`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// UID of the cluster's `kube-system` namespace, pinned when it joined.
    #[serde(
        default,
        rename = "clusterUID",
        skip_serializing_if = "Option::is_none"
    )]
    pub cluster_uid: Option<Uid>,
    /// How the hub and the cluster talk, as printed: `local`, `pull` or `push`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub mode: Option<String>,
    /// Version of the cluster's API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub kubernetes_version: Option<String>,
    /// Cores requested and allocatable, as printed: `12/40`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 48))]
    pub cpu: Option<String>,
    /// Apps placed on the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub apps: Option<i32>,
}
