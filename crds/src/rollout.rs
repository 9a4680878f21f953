//! How a change of an App's content spreads.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{ContentHash, WaveName};
use crate::placement::RegionSelector;
use crate::scalar::{Period, Timestamp};

/// Waves in which a change of content spreads; without waves all clusters change together.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Waves in order. A cluster belongs to the first wave that selects it; what no wave selects follows in a last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub waves: Vec<Wave>,
}

/// One wave of a rollout.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Wave {
    /// Name of the wave; an Approval names it as its step.
    pub name: WaveName,
    /// Regions of the wave; absent means all that no earlier wave selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<RegionSelector>,
    /// How long the wave must stay healthy before the next one starts; default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<Period>,
    /// Whether the wave starts only after an Approval; default `NotRequired`.
    #[serde(default)]
    pub approval: ApprovalNeed,
}

/// Whether a step needs an Approval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ApprovalNeed {
    /// It starts by itself.
    #[default]
    NotRequired,
    /// It waits for an Approval of exactly this content.
    Required,
}

/// How far the current rollout is. It is also the plan's memory of it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Content that is rolled out; an Approval names it as its `contentHash`.
    pub content_hash: ContentHash,
    /// Wave that the rollout is in; absent once it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<WaveName>,
    /// Whether it goes on, waits, stopped or is complete.
    pub state: RolloutState,
    /// Whether the content was proven here before, so that it goes to all waves at once.
    #[serde(default)]
    pub rollback: bool,
    /// Content that was last rolled out completely; only that is proven and goes back at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<ContentHash>,
    /// Waves the rollout began with. They hold until it is complete, whatever becomes of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub waves: Vec<Wave>,
    /// Since when the current wave has been healthy, or since when the state holds.
    pub since: Timestamp,
}

/// State of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum RolloutState {
    /// The clusters of the wave take the content.
    InProgress,
    /// The wave is healthy and its soak time runs.
    Soaking,
    /// The wave waits for an Approval.
    WaitingForApproval,
    /// A wave became unhealthy: nothing goes on until the content changes.
    Stopped,
    /// All clusters run the content.
    Complete,
}
