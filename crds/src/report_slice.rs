//! ReportSlice: what an agent reports of many Apps.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Reason;
use crate::name::{ContentHash, Uid};

/// A ReportSlice holds what one cluster's agent reports of many Apps.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io",
    version = "v1alpha1",
    kind = "ReportSlice",
    plural = "reportslices",
    namespaced,
    derive = "PartialEq",
    doc = "Internal. A ReportSlice in namespace jz-<cluster> holds what that cluster's agent reports of many Apps. The agent writes it, coalesced; nothing is written at rest.",
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ReportSliceSpec {
    /// One entry per App, at most 100.
    #[serde(default)]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub entries: Vec<ReportEntry>,
}

/// What an agent reports of one App.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReportEntry {
    /// UID of the App.
    pub uid: Uid,
    /// Generation of the assignment that this reports on.
    #[schemars(range(min = 1))]
    pub generation: i64,
    /// Content that runs; absent when nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentHash>,
    /// State of the App in this cluster.
    pub state: ReportState,
    /// Replicas that the App's workloads want.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Replicas that are ready.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// Why, when the state is not `Healthy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why, as one sentence naming the object and the fix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
}

/// State of an App in one cluster.
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
pub enum ReportState {
    /// Something was refused or cannot be applied; see `reason`.
    Failed,
    /// Applied, but a workload did not become healthy in time.
    Unhealthy,
    /// Decided, not yet reported.
    #[default]
    Pending,
    /// Applied; workloads are on their way.
    Progressing,
    /// Only observed; `message` says what would change.
    Observed,
    /// Applied, and every workload is as wanted.
    Healthy,
    /// Being removed.
    Removing,
    /// Removed or released: nothing of the App is managed here any more.
    Removed,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if asks for a reference"
)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}
