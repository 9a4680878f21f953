//! AssignmentSlice: what the hub decided for one cluster, many Apps in one object.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::app::{TakeOver, Tier};
use crate::member_cluster::Management;
use crate::name::{AppName, ContentHash, NamespaceName, RuleName, Uid};
use crate::scalar::{Quantity, Timestamp};

/// Most entries in one slice: at about 200 bytes each, a write stays near 20 kB.
pub const SLICE_ENTRIES_MAX: usize = 100;
/// Most bytes of entries in one slice, far below the store's limit of 1.5 MiB per object.
pub const SLICE_BYTES_MAX: usize = 256 * 1024;

/// An AssignmentSlice holds what the hub decided for many Apps in one cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io",
    version = "v1alpha1",
    kind = "AssignmentSlice",
    plural = "assignmentslices",
    namespaced,
    derive = "PartialEq",
    doc = "Internal. An AssignmentSlice in namespace jz-<cluster> holds what the hub decided for many Apps in that cluster. The hub writes it; the cluster's agent carries it out. It is also the hub's ledger of its decisions.",
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.leaderEpoch"),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".spec.sequence"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentSliceSpec {
    /// Identity of the hub that decided.
    pub hub_id: Uid,
    /// Epoch of that hub; an administrator raises it after a restore.
    #[schemars(range(min = 1))]
    pub hub_epoch: i64,
    /// Epoch of the leader that wrote the slice; the store refuses lower ones.
    #[schemars(range(min = 0))]
    pub leader_epoch: i64,
    /// Highest generation of any entry of this cluster when the slice was written.
    #[schemars(range(min = 0))]
    pub sequence: i64,
    /// What the agent may do in the cluster.
    pub management: Management,
    /// UID of the cluster the decisions are for; an agent in another cluster refuses them.
    #[serde(rename = "clusterUID")]
    pub cluster_uid: Uid,
    /// W3C trace context of the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub traceparent: Option<String>,
    /// One entry per App, per namespace that Apps live in and per TrafficPolicy, at most 100. A missing entry is never an instruction.
    #[serde(default)]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub entries: Vec<Entry>,
}

/// What the hub decided for one App, one namespace or one TrafficPolicy, in one cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// UID of the App; of a namespace, a word made from its name; of a TrafficPolicy, its UID after
    /// `policy-`.
    pub uid: Uid,
    /// What the entry is about; default `App`.
    #[serde(default, skip_serializing_if = "Scope::is_app")]
    pub scope: Scope,
    /// Namespace of the App or TrafficPolicy, and of its objects; or the namespace that the entry is about.
    pub namespace: NamespaceName,
    /// Name of the App or TrafficPolicy; of a namespace, once more its own.
    pub name: AppName,
    /// Grows with every decision for this cluster; the highest one for a UID counts.
    #[schemars(range(min = 1))]
    pub generation: i64,
    /// Present, to be removed, or to be let go; default `Present`.
    #[serde(default, skip_serializing_if = "EntryState::is_present")]
    pub state: EntryState,
    /// Hash of the App's content; of a namespace, of what isolates it; of a TrafficPolicy, of what it
    /// says in regions.
    pub content: ContentHash,
    /// Content object that holds it.
    #[schemars(length(min = 1, max = 63))]
    pub pack: Arc<str>,
    /// Positions of the App's overrides that apply in this cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 0, max = 31)), extend("x-kubernetes-list-type" = "atomic"))]
    pub overrides: Vec<i32>,
    /// Replicas over time; the agent's clock goes through it. Empty means as the manifests say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub stages: Vec<Stage>,
    /// Secrets delivered with the App.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub secrets: Vec<SecretCopy>,
    /// Whether unmanaged objects may be taken over; default `Never`.
    #[serde(default, skip_serializing_if = "is_never")]
    pub take_over: TakeOver,
    /// Tier of the App, which says what is kept first in the cluster; default `General`.
    #[serde(default, skip_serializing_if = "is_general")]
    pub tier: Tier,
    /// Resources of a namespace that Quotas limit: no more of them is used there than its Apps are charged.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub limits: Arc<[String]>,
    /// What Quotas are charged for it, until its removal is acknowledged.
    #[serde(default)]
    pub charge: Arc<Charge>,
    /// This cluster's shares of what a TrafficPolicy lets pass in the province or in its Region as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub shares: Vec<LimitShare>,
}

/// A cluster's share of one rate of a TrafficPolicy.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LimitShare {
    /// Name of the rule.
    pub name: RuleName,
    /// Requests that pass in this cluster.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub requests: i64,
    /// In how many of the rule's periods; default 1. More where one period lets pass fewer than there
    /// are clusters.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 4096))]
    pub periods: i64,
    /// Share of the rule's burst; absent where the rule names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub burst: Option<i64>,
}

fn one() -> i64 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if asks for a reference"
)]
fn is_one(number: &i64) -> bool {
    *number == 1
}

/// What an entry is about.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum Scope {
    /// One App.
    #[default]
    App,
    /// The namespace that Apps live in: what isolates it stands before any App starts there.
    Namespace,
    /// One TrafficPolicy: what protects the routes of its Apps.
    Policy,
}

impl Scope {
    /// Whether the entry is about an App.
    pub fn is_app(&self) -> bool {
        *self == Self::App
    }

    /// Whether the entry is about a namespace.
    pub fn is_namespace(&self) -> bool {
        *self == Self::Namespace
    }
}

fn is_empty(list: &[String]) -> bool {
    list.is_empty()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if asks for a reference"
)]
fn is_general(tier: &Tier) -> bool {
    *tier == Tier::General
}

/// What Quotas are charged for an App in one cluster.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "camelCase")]
pub struct Charge {
    /// For each replica, by resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "amounts_schema")]
    pub each: BTreeMap<String, Quantity>,
    /// For everything else, by resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "amounts_schema")]
    pub fixed: BTreeMap<String, Quantity>,
    /// For each node, by resource: what DaemonSets run there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "amounts_schema")]
    pub node: BTreeMap<String, Quantity>,
    /// Replicas that a rolling update adds for a while.
    #[serde(default, skip_serializing_if = "Surge::is_none")]
    pub surge: Surge,
}

/// Replicas that a rolling update adds for a while.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "camelCase")]
pub struct Surge {
    /// In percent of the replicas, rounded up.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,
    /// So many; added to the above.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 100_000))]
    pub count: i32,
}

impl Surge {
    /// Whether a rolling update adds nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if asks for a reference"
)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

fn amounts_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 24},
    })
}

/// Whether an entry is to be carried out, taken back or let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum EntryState {
    /// To be carried out.
    #[default]
    Present,
    /// To be removed; the entry stays until the agent acknowledged.
    Removed,
    /// To be let go: the objects stay and run on, ownership marks are removed.
    Released,
}

impl EntryState {
    /// Whether the entry is to be carried out.
    pub fn is_present(&self) -> bool {
        *self == Self::Present
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if asks for a reference"
)]
fn is_never(take_over: &TakeOver) -> bool {
    *take_over == TakeOver::Never
}

/// What holds from a point in time on. It never carries other content.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// From when on; absent means from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Replicas of the App's workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub replicas: Option<i32>,
    /// Bounds of the App's HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hpa: Option<HpaBounds>,
}

/// Bounds of a HorizontalPodAutoscaler.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HpaBounds {
    /// Least replicas.
    #[schemars(range(min = 1, max = 100_000))]
    pub min: i32,
    /// Most replicas.
    #[schemars(range(min = 1, max = 100_000))]
    pub max: i32,
}

/// A Secret delivered with an App.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretCopy {
    /// Name of the Secret in the App's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Secret in this slice's namespace that holds the values.
    #[schemars(length(min = 1, max = 253))]
    pub copy: String,
}
