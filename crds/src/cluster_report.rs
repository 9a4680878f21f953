//! ClusterReport: what an agent reports of its cluster.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::Uid;
use crate::scalar::ResourceQuantity;

/// A ClusterReport holds what one cluster's agent reports of the cluster itself.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io",
    version = "v1alpha1",
    kind = "ClusterReport",
    plural = "clusterreports",
    namespaced,
    derive = "PartialEq",
    doc = "Internal. The ClusterReport in namespace jz-<cluster> holds what that cluster's agent reports of the cluster itself: identity, capacity and use, what it cannot do, and what it refuses.",
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".spec.kubernetesVersion"
    ),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".spec.nodes.ready"),
    printcolumn(name = "Frozen", type_ = "string", json_path = ".spec.frozen"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterReportSpec {
    /// UID of the cluster's `kube-system` namespace.
    #[serde(rename = "clusterUID")]
    pub cluster_uid: Uid,
    /// Version of the agent.
    #[schemars(length(max = 64))]
    pub agent_version: String,
    /// Version of the API server.
    #[schemars(length(max = 64))]
    pub kubernetes_version: String,
    /// Newest hub state that the agent accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubSeen>,
    /// Why the agent refuses every change from this hub; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub frozen: Option<String>,
    /// Nodes.
    #[serde(default)]
    pub nodes: Nodes,
    /// What the ready nodes offer to pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub allocatable: Vec<ResourceQuantity>,
    /// What pods of managed Apps request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub managed: Vec<ResourceQuantity>,
    /// What all other pods request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub others: Vec<ResourceQuantity>,
    /// Allowed kinds that the cluster does not know, as `group/version/Kind`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 128)), extend("x-kubernetes-list-type" = "set"))]
    pub missing_kinds: Vec<String>,
    /// Managed objects that no assignment claims; they are kept.
    #[serde(default)]
    pub unclaimed: Unclaimed,
}

/// Newest hub state that an agent accepted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HubSeen {
    /// Identity of the hub.
    pub id: Uid,
    /// Its epoch.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// Epoch of its leader.
    #[schemars(range(min = 0))]
    pub leader_epoch: i64,
    /// Highest generation of an entry when the cluster's use was last reported.
    #[schemars(range(min = 0))]
    pub sequence: i64,
}

/// Nodes of a cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Nodes {
    /// All nodes.
    #[schemars(range(min = 0))]
    pub total: i32,
    /// Nodes that are ready and schedulable.
    #[schemars(range(min = 0))]
    pub ready: i32,
}

/// Managed objects that no assignment claims.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Unclaimed {
    /// How many there are.
    #[schemars(range(min = 0))]
    pub count: i32,
    /// Up to 16 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub objects: Vec<UnclaimedObject>,
}

/// One object that no assignment claims.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UnclaimedObject {
    /// Kind.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name.
    #[schemars(length(max = 253))]
    pub name: String,
}
