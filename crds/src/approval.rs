//! Approval: one person's yes to one exact content.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{ContentHash, NamespaceName};
use crate::scalar::Timestamp;

/// Step of an Approval that puts an App of tier Core into the emergency lane.
pub const EMERGENCY: &str = "emergency";

/// An Approval is one named person's decision on one exact content.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io", version = "v1alpha1", kind = "Approval", plural = "approvals",
    category = "jiuzhou", namespaced, derive = "PartialEq", cel,
    doc = "An Approval is one named person's decision on one exact content. The approver must be the user who creates it and must not be the author of the change. It cannot be edited; it can be deleted.",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target.name"),
    printcolumn(name = "Step", type_ = "string", json_path = ".spec.step"),
    printcolumn(name = "Decision", type_ = "string", json_path = ".spec.decision"),
    printcolumn(name = "Approver", type_ = "string", json_path = ".spec.approver"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expires"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec").message("an Approval is immutable: delete it and create another"),
)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalSpec {
    /// Object whose change is decided on.
    pub target: ApprovalTarget,
    /// Step that is decided on: the name of a rollout wave of an App, or in namespace jiuzhou-system
    /// `cross-zone` of a Link and `emergency` of an App of tier Core.
    #[schemars(length(min = 1, max = 63))]
    pub step: String,
    /// Hash of exactly the content that is decided on, from the `status.rollout.contentHash` of an App or
    /// the `status.contentHash` of a Link; of an emergency from the message of the App's condition `Admitted`.
    pub content_hash: ContentHash,
    /// User name of the person who decides; must be the user who creates the Approval.
    #[schemars(length(min = 1, max = 253))]
    pub approver: String,
    /// The decision.
    pub decision: ApprovalDecision,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Time after which the Approval no longer counts.
    pub expires: Timestamp,
}

/// Object that an Approval is about.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalTarget {
    /// Kind of the object, for example `App`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of a Link or an App that is decided on in jiuzhou-system; otherwise it is the Approval's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceName>,
}

/// What an Approval says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ApprovalDecision {
    /// Yes.
    Approve,
    /// No: the step does not start while this stands.
    Reject,
}
