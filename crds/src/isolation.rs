//! Isolation: what holds in every tenant's namespace of a network zone.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::scalar::{DataGrade, Zone};

/// An Isolation is the baseline that holds in every tenant's namespace of a zone.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io", version = "v1alpha1", kind = "Isolation", plural = "isolations",
    shortname = "iso", category = "jiuzhou", status = "IsolationStatus", derive = "PartialEq", cel,
    doc = "An Isolation is the baseline that holds in every tenant's namespace in the clusters of a zone, and of some grades of data if it names them. Of several that apply to a namespace the strictest part of each holds. Without any, pods are held to the Baseline standard and no traffic crosses namespaces.",
    printcolumn(name = "Zones", type_ = "string", json_path = ".spec.zones"),
    printcolumn(name = "PodSecurity", type_ = "string", json_path = ".spec.podSecurity"),
    printcolumn(name = "Egress", type_ = "string", json_path = ".spec.egress"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Namespaces", type_ = "string", json_path = ".status.enforcement", description = "namespaces in member clusters where it is in force / where it is to be"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name must be at most 63 characters").reason(Reason::FieldValueInvalid),
)]
#[serde(rename_all = "camelCase")]
pub struct IsolationSpec {
    /// Network zones whose clusters it applies to; at least one.
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub zones: Vec<Zone>,
    /// Applies only where data of one of these grades may be: the lower of what the tenant may process and
    /// what the cluster may hold. Empty means everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub data_grades: Vec<DataGrade>,
    /// Pod Security Standard that pods are held to; default `Baseline`.
    #[serde(default)]
    pub pod_security: PodSecurity,
    /// Whether pods may open connections to anything that no Link names; default `Deny`. DNS, the guard and
    /// pods of the same namespace are always reached.
    #[serde(default)]
    pub egress: Egress,
    /// Registries from which images may come, as in `registry.example` or `registry.example/health`; empty
    /// means any. An image without a registry is one of `docker.io`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]([-a-z0-9._/]*[a-z0-9])?)?$")),
        extend("x-kubernetes-list-type" = "set"),
    )]
    pub allowed_registries: Vec<String>,
    /// Kinds that Apps may carry, out of those that an App may carry at all; empty means all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_kinds: Vec<AllowedKind>,
    /// What happens when somebody changes or deletes by hand what holds a namespace to this; default
    /// `Revert`. It is reported in both cases.
    #[serde(default)]
    pub on_drift: OnDrift,
}

/// A Pod Security Standard of Kubernetes.
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
pub enum PodSecurity {
    /// No restriction.
    Privileged,
    /// Nothing by which a pod could take over its node.
    #[default]
    Baseline,
    /// Hardened: no root, no capabilities, a seccomp profile.
    Restricted,
}

impl PodSecurity {
    /// The level as the label of a namespace has it.
    pub fn level(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// Whether pods may open connections that no Link names.
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
pub enum Egress {
    /// To anything. What listens in another tenant's namespace still refuses them.
    Allow,
    /// Only to what is declared.
    #[default]
    Deny,
}

/// What happens when somebody weakens the isolation of a namespace by hand.
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
pub enum OnDrift {
    /// It is shown, and left as it is.
    Report,
    /// It is put back, and counted.
    #[default]
    Revert,
}

/// A kind that Apps may carry.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
#[expect(missing_docs, reason = "each is the Kubernetes kind of that name")]
pub enum AllowedKind {
    ServiceAccount,
    ConfigMap,
    PersistentVolumeClaim,
    Service,
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    HorizontalPodAutoscaler,
    PodDisruptionBudget,
    HTTPRoute,
}

/// Where an Isolation is in force.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IsolationStatus {
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Epoch of the hub leader that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub leader_epoch: Option<i64>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Namespaces in member clusters where it is in force, and where it is to be, as in `11/12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    pub enforcement: Option<String>,
}
