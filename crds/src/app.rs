//! App: what a tenant runs, over one or many regions.

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::condition::Condition;
use crate::name::{ClusterName, ContentHash, WaveName};
use crate::placement::{Failover, Placement, RegionSelector, Replicas, Scaling};
use crate::report_slice::ReportState;
use crate::rollout::{Rollout, RolloutStatus};
use crate::scalar::{DataGrade, Zone};

/// One Kubernetes object of an App, as its author wrote it.
pub type Manifest = Value;

/// Kinds an App's manifests may have, as (group, version, kind, plural), in the order in which they are applied.
pub const ALLOWED_KINDS: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("", "v1", "Service", "services"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    ("apps", "v1", "DaemonSet", "daemonsets"),
    ("batch", "v1", "Job", "jobs"),
    ("batch", "v1", "CronJob", "cronjobs"),
    (
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    ),
    (
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    ),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
];

/// An App is what a tenant runs, over one or many regions.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io", version = "v1alpha1", kind = "App", plural = "apps",
    shortname = "japp", category = "jiuzhou", namespaced, status = "AppStatus", derive = "PartialEq", cel,
    doc = "An App is a set of Kubernetes objects of one tenant, placed over one or many regions, kept as written there, and reported back.",
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.readiness", description = "ready/placed replicas over all clusters"),
    printcolumn(name = "Clusters", type_ = "string", json_path = ".status.clusters", description = "clusters that run the current content / clusters placed"),
    printcolumn(name = "Wave", type_ = "string", json_path = ".status.rollout.wave"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    selectable = ".spec.tier", selectable = ".spec.zone",
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name must be at most 63 characters, since it becomes a label value").reason(Reason::FieldValueInvalid),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.replicas) && has(self.scaling))")
    .message("replicas and scaling exclude each other: set one of them").reason(Reason::FieldValueInvalid))]
pub struct AppSpec {
    /// Name shown to people, for example 健康码.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub display_name: Option<String>,
    /// Who answers for the App.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// What is kept first when not everything can be; default `General`.
    #[serde(default)]
    pub tier: Tier,
    /// Network zone the App must run in.
    pub zone: Zone,
    /// Grade of the App's data; only clusters that may hold it qualify.
    pub data_grade: DataGrade,
    /// 等保 level of the App, 1 to 5; only clusters of at least this level qualify. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub protection_level: Option<i32>,
    /// Replaces image names, tags or digests in the manifests, as kustomize does. CI changes only this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub images: Vec<Image>,
    /// Secrets of the App's namespace, delivered only to clusters that run the App; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub secret_names: Vec<String>,
    /// Where the App may run; absent means every cluster that qualifies.
    #[serde(default)]
    pub placement: Placement,
    /// Replicas and their division; absent means as the manifests say, in every region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// Autoscaling bounds and their division, instead of `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// Requests per second that one replica serves, as its authors declare it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub requests_per_second_per_replica: Option<i64>,
    /// Whether objects that exist in a cluster and are not managed may be taken over; default `Never`.
    #[serde(default)]
    pub take_over: TakeOver,
    /// The App's objects, 1 to 64, of the allowed kinds, in the App's namespace.
    #[schemars(length(min = 1, max = 64), schema_with = "manifests_schema")]
    #[x_kube(validation = Rule::new("self.all(m, \
        m.apiVersion == 'v1' && m.kind in ['ServiceAccount', 'ConfigMap', 'PersistentVolumeClaim', 'Service'] || \
        m.apiVersion == 'apps/v1' && m.kind in ['Deployment', 'StatefulSet', 'DaemonSet'] || \
        m.apiVersion == 'batch/v1' && m.kind in ['Job', 'CronJob'] || \
        m.apiVersion == 'autoscaling/v2' && m.kind in ['HorizontalPodAutoscaler'] || \
        m.apiVersion == 'policy/v1' && m.kind in ['PodDisruptionBudget'] || \
        m.apiVersion == 'gateway.networking.k8s.io/v1' && m.kind in ['HTTPRoute'])")
        .message("each manifest must be one of v1 ServiceAccount, ConfigMap, PersistentVolumeClaim, Service; apps/v1 Deployment, StatefulSet, DaemonSet; batch/v1 Job, CronJob; autoscaling/v2 HorizontalPodAutoscaler; policy/v1 PodDisruptionBudget; gateway.networking.k8s.io/v1 HTTPRoute")
        .reason(Reason::FieldValueForbidden))]
    #[x_kube(validation = Rule::new("self.all(m, has(m.metadata) && has(m.metadata.name))")
        .message("each manifest must have metadata.name").reason(Reason::FieldValueRequired))]
    pub manifests: Vec<Manifest>,
    /// Changes to the manifests in some regions, applied in order; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub overrides: Vec<Override>,
    /// How a change of content spreads; absent means to all clusters together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// What happens to replicas when a cluster is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
}

/// Who answers for an App.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Organisation, for example 卫生健康委信息中心.
    #[schemars(length(min = 1, max = 128))]
    pub unit: String,
    /// How to reach it, for example an e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub contact: Option<String>,
}

/// What is kept first when not everything can be.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[schemars(inline)]
pub enum Tier {
    /// Kept to the last.
    Core,
    /// Kept before General.
    Important,
    /// The usual.
    #[default]
    General,
    /// Given up first.
    Ancillary,
}

impl Tier {
    /// All of them, from the last to be given up to the first.
    pub const ALL: [Self; 4] = [Self::Core, Self::Important, Self::General, Self::Ancillary];

    /// The PriorityClass of its pods, which the region's chart brings.
    pub fn priority_class(self) -> &'static str {
        match self {
            Self::Core => "jiuzhou-core",
            Self::Important => "jiuzhou-important",
            Self::General => "jiuzhou-general",
            Self::Ancillary => "jiuzhou-ancillary",
        }
    }
}

/// Whether unmanaged objects may be taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TakeOver {
    /// No: the App reports `NotManaged` and leaves them alone.
    #[default]
    Never,
    /// Yes, whatever they hold now.
    Always,
}

/// Replaces an image in the manifests.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.newTag) && has(self.digest))").message("newTag and digest exclude each other: set one of them").reason(Reason::FieldValueInvalid))]
pub struct Image {
    /// Image as the manifests name it, without tag or digest.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// Image to use instead, without tag or digest; absent keeps the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub new_name: Option<String>,
    /// Tag to use; absent keeps the manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    )]
    pub new_tag: Option<String>,
    /// Digest to use instead of a tag, for example `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 135),
        regex(pattern = "^[a-z0-9]+:[0-9a-f]{32,128}$")
    )]
    pub digest: Option<String>,
}

/// A change to one manifest in some regions.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// Regions in which it applies.
    pub regions: RegionSelector,
    /// Manifest that it changes.
    pub target: Target,
    /// JSON Patch (RFC 6902) operations, at most 32.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub patch: Vec<PatchOperation>,
}

/// Names one of the App's manifests.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// API group; empty for the core group.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One JSON Patch operation.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PatchOperation {
    /// What to do.
    pub op: PatchOp,
    /// Where, as a JSON Pointer, for example `/spec/template/spec/containers/0/env/0/value`.
    #[schemars(length(min = 1, max = 512), regex(pattern = "^/"))]
    pub path: String,
    /// Value for `add`, `replace` and `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_schema")]
    pub value: Option<Value>,
}

/// Kind of a JSON Patch operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum PatchOp {
    /// Add a member or list item.
    Add,
    /// Remove a member or list item.
    Remove,
    /// Replace a value that exists.
    Replace,
    /// Fail unless the value is this one.
    Test,
}

/// What is known of an App.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Epoch of the hub leader that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub leader_epoch: Option<i64>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled`, `Admitted`, `Scheduled`, `Applied`, `Healthy`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Hash of the current content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<ContentHash>,
    /// Replicas placed over all clusters.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Replicas ready over all clusters, as last reported.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// Ready and placed replicas, as printed: `10/12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    pub readiness: Option<String>,
    /// Clusters that run the current content and clusters placed, as printed: `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    pub clusters: Option<String>,
    /// Clusters the App is placed on, the worst first; at most 32 of `placementCount`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub placements: Vec<PlacementStatus>,
    /// Clusters the App is placed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub placement_count: Option<i32>,
    /// The current or last rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
}

/// An App in one cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PlacementStatus {
    /// The cluster.
    pub cluster_name: ClusterName,
    /// Replicas placed there; absent when the manifests decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    /// Replicas ready there, as last reported.
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// Wave of the rollout to which the cluster belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<WaveName>,
    /// State there, as last reported.
    pub state: ReportState,
    /// Why, when the state is not `Healthy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
}

fn manifests_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 64, "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "description": "One Kubernetes object, as its author wrote it.",
            "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-embedded-resource": true,
        },
    })
}

fn any_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}
