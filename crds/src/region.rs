//! Region: a node of the administrative tree.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::name::RegionName;
use crate::scalar::{ResourceQuantity, Timestamp};

/// A Region is a node of the administrative tree: a province, city, county or functional zone.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io", version = "v1alpha1", kind = "Region", plural = "regions",
    shortname = "rg", category = "jiuzhou", status = "RegionStatus", derive = "PartialEq", cel,
    doc = "A Region is a node of the administrative tree: a province, city, county or functional zone. Clusters, grants and placements refer to it; its status adds up everything below it.",
    printcolumn(name = "Code", type_ = "string", json_path = ".spec.code"),
    printcolumn(name = "Level", type_ = "string", json_path = ".spec.level"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Clusters", type_ = "string", json_path = ".status.clusters.summary"),
    printcolumn(name = "CPU", type_ = "string", json_path = ".status.cpu", description = "requested/allocatable cores"),
    printcolumn(name = "Headroom", type_ = "string", json_path = ".status.headroom", description = "free cores"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Granted", type_ = "string", json_path = ".status.granted", priority = 1, description = "granted/budgeted cores"),
    printcolumn(name = "Parent", type_ = "string", json_path = ".spec.parent", priority = 1),
    printcolumn(name = "Display name", type_ = "string", json_path = ".spec.displayName", priority = 1),
    selectable = ".spec.level", selectable = ".spec.parent", selectable = ".spec.code",
    validation = Rule::new("!has(self.spec.parent) || self.spec.parent != self.metadata.name")
        .message("spec.parent must be another Region: a Region cannot be its own parent").reason(Reason::FieldValueInvalid),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.level == 'Zone' ? !has(self.code) : has(self.code)")
    .message("code must be set for Province, City and County, and must be absent for Zone").reason(Reason::FieldValueInvalid))]
#[x_kube(validation = Rule::new("!has(self.code) || (self.level == 'Province' ? self.code.endsWith('0000') : self.level == 'City' ? self.code.endsWith('00') && !self.code.endsWith('0000') : !self.code.endsWith('00'))")
    .message("code must fit level: a province's ends in 0000, a city's in 00, a county's in neither").reason(Reason::FieldValueInvalid))]
#[x_kube(validation = Rule::new("self.level == 'Province' || has(self.parent)")
    .message("parent must name a Region for every level below Province").reason(Reason::FieldValueRequired))]
#[x_kube(validation = Rule::new("has(oldSelf.code) == has(self.code)")
    .message("code can be neither added nor removed: create a new Region and name it in the old one's successor"))]
#[x_kube(validation = Rule::new("has(oldSelf.parent) == has(self.parent)")
    .message("parent can be neither added nor removed: create a new Region and name it in the old one's successor"))]
pub struct RegionSpec {
    /// Name shown to people, for example 杭州市.
    #[schemars(length(min = 1, max = 64))]
    pub display_name: String,
    /// GB/T 2260 code of six digits, for example `330100`; absent for functional zones. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 6, max = 6), regex(pattern = "^[1-9][0-9]{5}$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("code is immutable: create a new Region and name it in this one's successor"))]
    pub code: Option<String>,
    /// Administrative level. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("level is immutable: create a new Region and name it in this one's successor"))]
    pub level: Level,
    /// Region directly above; required for every level below Province. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("parent is immutable: create a new Region and name it in this one's successor"))]
    pub parent: Option<RegionName>,
    /// First day on which this Region exists; absent means always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
    /// Time from which this Region no longer takes new placements; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// Region that replaces this one after an administrative change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<RegionName>,
    /// What root grants may draw on in this Region's subtree, at most 32 resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub budget: Vec<ResourceQuantity>,
}

/// Administrative level of a Region.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum Level {
    /// 省级.
    Province,
    /// 地级.
    City,
    /// 县级.
    County,
    /// A functional zone without a code of its own, such as a development zone.
    Zone,
}

/// What is known of a Region and everything below it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RegionStatus {
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Epoch of the hub leader that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub leader_epoch: Option<i64>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled`, `Reachable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Member clusters in the subtree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<ClusterCount>,
    /// Sums over the subtree's member clusters, by resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub resources: Vec<ResourceTotals>,
    /// Cores requested and allocatable, as printed: `12/40`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 48))]
    pub cpu: Option<String>,
    /// Cores granted to first tenants and budgeted for them, as printed: `40/200`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 48))]
    pub granted: Option<String>,
    /// Free cores, as printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 48))]
    pub headroom: Option<String>,
}

/// How many member clusters a Region's subtree has.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCount {
    /// All member clusters.
    #[schemars(range(min = 0))]
    pub total: i32,
    /// Those in contact.
    #[schemars(range(min = 0))]
    pub reachable: i32,
    /// Both, as printed: `2/3`.
    #[schemars(length(max = 24))]
    pub summary: String,
}

/// One resource, added up over a Region's subtree.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ResourceTotals {
    /// Resource name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What the nodes offer to pods.
    pub allocatable: crate::Quantity,
    /// What is granted to first tenants; absent when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<crate::Quantity>,
    /// What pods request, Jiuzhou's and others'.
    pub requested: crate::Quantity,
    /// What is left.
    pub headroom: crate::Quantity,
}
