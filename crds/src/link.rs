//! Link and LinkGrant: a declared path between Apps, and the other side's consent.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::Owner;
use crate::condition::Condition;
use crate::name::{AppName, ContentHash, NamespaceName};
use crate::scalar::Timestamp;

/// A Link lets Apps of one tenant reach an App of another.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io", version = "v1alpha1", kind = "Link", plural = "links",
    shortname = "lnk", category = "jiuzhou", namespaced, status = "LinkStatus", derive = "PartialEq", cel,
    doc = "A Link lets Apps of its namespace open connections to an App of another namespace, on the ports that it names, until it expires. A LinkGrant in the other namespace must allow it. A Link to another network zone needs an Approval in namespace jiuzhou-system. Nothing else may cross.",
    printcolumn(name = "From", type_ = "string", json_path = ".spec.from.appNames", description = "Apps that open connections"),
    printcolumn(name = "To-Namespace", type_ = "string", json_path = ".spec.to.namespace", description = "namespace of the App that is reached"),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.to.appName", description = "App that is reached"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expires"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner.unit", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name must be at most 63 characters").reason(Reason::FieldValueInvalid),
)]
#[serde(rename_all = "camelCase")]
pub struct LinkSpec {
    /// Who opens the connections.
    pub from: LinkSource,
    /// Who is reached.
    pub to: LinkTarget,
    /// Why, for whoever reviews it.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
    /// Who answers for it.
    pub owner: Owner,
    /// When it ends, also while the hub is gone.
    pub expires: Timestamp,
}

/// Who opens the connections of a Link.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LinkSource {
    /// Apps of the Link's namespace; at most 16.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub app_names: Vec<AppName>,
    /// Addresses under which they appear in other clusters, as CIDR; needed where the target runs in
    /// a cluster in which they do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 3, max = 43), regex(pattern = r"^[0-9a-fA-F:.]{2,39}/[0-9]{1,3}$")), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<String>,
}

/// Who is reached by a Link.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LinkTarget {
    /// Namespace of the App.
    pub namespace: NamespaceName,
    /// The App.
    pub app_name: AppName,
    /// Ports on which it is reached; at most 16.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub ports: Vec<LinkPort>,
    /// Addresses under which it is reached from other clusters, as CIDR; needed where the source runs in
    /// a cluster in which it does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 3, max = 43), regex(pattern = r"^[0-9a-fA-F:.]{2,39}/[0-9]{1,3}$")), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<String>,
}

/// A port, or a range of them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.endPort >= self.port")
    .message("endPort must not be below port").reason(Reason::FieldValueInvalid))]
pub struct LinkPort {
    /// The port, or the first of a range.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// The last of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub end_port: Option<i32>,
    /// Protocol; default `TCP`.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A transport protocol.
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
pub enum Protocol {
    /// TCP.
    #[default]
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
}

/// Whether a Link is in force.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Epoch of the hub leader that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub leader_epoch: Option<i64>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled`, `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Hash of exactly what the spec says, for an Approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<ContentHash>,
}

/// A LinkGrant lets Links of other namespaces reach Apps of its own.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io",
    version = "v1alpha1",
    kind = "LinkGrant",
    plural = "linkgrants",
    category = "jiuzhou",
    namespaced,
    derive = "PartialEq",
    cel,
    doc = "A LinkGrant is the consent of a namespace that Links of other namespaces reach its Apps. It takes effect at once, and ends when it is deleted.",
    printcolumn(name = "From", type_ = "string", json_path = ".spec.from[*].namespace"),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.to[*].appName"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct LinkGrantSpec {
    /// Whose Links are allowed; at most 32.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub from: Vec<LinkGrantFrom>,
    /// The Apps that they may reach; at most 32.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub to: Vec<LinkGrantTo>,
}

/// Whose Links are allowed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LinkGrantFrom {
    /// Namespace in which they are.
    pub namespace: NamespaceName,
}

/// An App that may be reached.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LinkGrantTo {
    /// Its name.
    pub app_name: AppName,
}
