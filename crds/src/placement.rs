//! Where an App runs and how its replicas are divided.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::RegionName;
use crate::region::Level;
use crate::scalar::Selector;

/// Which regions and clusters an App may use, and how many regions it needs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minRegions) || !has(self.maxRegions) || self.minRegions <= self.maxRegions")
    .message("minRegions must not exceed maxRegions").reason(Reason::FieldValueInvalid))]
pub struct Placement {
    /// Regions that qualify; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<RegionSelector>,
    /// Labels of the MemberClusters that qualify; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<Selector>,
    /// Most regions to use; absent means all that qualify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_regions: Option<i32>,
    /// Fewest regions the App can start with; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_regions: Option<i32>,
}

/// Selects regions; every field that is set must hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RegionSelector {
    /// Subtrees: the named Regions and everything below them; empty means the whole tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub within: Vec<RegionName>,
    /// Levels; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub levels: Vec<Level>,
    /// Labels of the Region objects; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

/// How many replicas the App has in all, and how they are divided over the regions.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.division) && self.division == 'Weight') == has(self.weights)")
    .message("weights must be set exactly when division is Weight").reason(Reason::FieldValueInvalid))]
pub struct Replicas {
    /// Replicas over all regions; with division `Duplicate`, replicas in each region. 0 to 100000.
    #[schemars(range(min = 0, max = 100_000))]
    pub total: i32,
    /// How the total is divided; default `Duplicate`.
    #[serde(default)]
    pub division: Division,
    /// Weight of each region for division `Weight`; a region not listed gets none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["regionName".into()]))]
    pub weights: Vec<RegionWeight>,
    /// Name of the Deployment or StatefulSet that carries the replicas; needed when the manifests hold several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub workload_name: Option<String>,
}

/// Bounds of an autoscaled App, divided over the regions; its manifests hold a HorizontalPodAutoscaler.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("min must not exceed max").reason(Reason::FieldValueInvalid))]
#[x_kube(validation = Rule::new("(has(self.division) && self.division == 'Weight') == has(self.weights)")
    .message("weights must be set exactly when division is Weight").reason(Reason::FieldValueInvalid))]
pub struct Scaling {
    /// Least replicas over all regions; with division `Duplicate`, in each region. 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub min: i32,
    /// Most replicas, counted as `min` is; capacity is charged for it. 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max: i32,
    /// How both are divided; default `Duplicate`.
    #[serde(default)]
    pub division: Division,
    /// Weight of each region for division `Weight`; a region not listed gets none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["regionName".into()]))]
    pub weights: Vec<RegionWeight>,
}

/// How replicas are divided over regions.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[schemars(inline)]
pub enum Division {
    /// Every region gets the whole number.
    #[default]
    Duplicate,
    /// Equal shares.
    Even,
    /// Shares by the given weights.
    Weight,
    /// Shares by free capacity.
    Capacity,
}

/// Weight of one region.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RegionWeight {
    /// The Region.
    pub region_name: RegionName,
    /// Its weight, 0 to 1000000.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: i32,
}

/// What happens to an App's replicas when a cluster is lost.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.policy != 'Automatic'")
    .message("policy must be Never or Manual: Automatic is not served yet, and nothing moves by itself").reason(Reason::FieldValueForbidden))]
pub struct Failover {
    /// Who moves them; default `Manual`.
    #[serde(default)]
    pub policy: FailoverPolicy,
}

/// Who moves replicas away from a lost cluster.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[schemars(inline)]
pub enum FailoverPolicy {
    /// Nobody: they wait for the cluster.
    Never,
    /// A person, who changes `placement`.
    #[default]
    Manual,
    /// The plan, within its budget. Not served yet.
    Automatic,
}
