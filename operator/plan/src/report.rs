//! What was decided and why, for every object. The same values feed conditions, Events, console,
//! command line and log.

mod app;
mod explain;
mod fleet;
mod isolation;
mod link;
mod policy;
mod quota;
mod tenant;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{
    ClusterName, IsolationStatus, LinkStatus, MemberClusterStatus, QuotaStatus, RegionName,
    RegionStatus, TenantStatus, TrafficPolicyStatus, Uid,
};

pub(crate) use app::{AppFacts, app_report, differs};
pub use app::{AppReport, TargetReport, Waiting};
pub use explain::{Answer, Hold, Left, Run, Share, Undecided, Whole, Why};
pub(crate) use fleet::{cluster_status, region_status};
pub(crate) use isolation::isolation_statuses;
pub(crate) use link::link_statuses;
pub(crate) use policy::policy_status;
pub use policy::{HUB, PolicyAnswer, policies_for};
pub(crate) use quota::quota_statuses;
pub(crate) use tenant::tenant_statuses;

use crate::province::{Baselines, Enforcement, Fleet, Granting, Links, Source, Tenants};
use crate::world::{LinkKey, PolicyKey, QuotaKey, TenantKey};

/// What was decided and why, for every object.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct PlanReport {
    /// Regions and clusters as the decisions saw them.
    pub fleet: Arc<Fleet>,
    /// Tenants as the decisions saw them.
    pub tenants: Arc<Tenants>,
    /// Quotas as the decisions saw them.
    pub quotas: Arc<Granting>,
    /// What isolates namespaces, as the decisions saw it.
    pub baselines: Arc<Baselines>,
    /// Links as the decisions saw them.
    pub links: Arc<Links>,
    /// Statuses of Links that differ from the ones last written.
    pub link_statuses: BTreeMap<LinkKey, LinkStatus>,
    /// Statuses of TrafficPolicies that differ from the ones last written.
    pub policy_statuses: BTreeMap<PolicyKey, TrafficPolicyStatus>,
    /// Where Isolations are in force.
    pub enforcement: BTreeMap<Box<str>, Enforcement>,
    /// Statuses of Isolations that differ from the ones last written.
    pub isolation_statuses: BTreeMap<Box<str>, IsolationStatus>,
    /// Apps.
    pub apps: BTreeMap<Uid, Arc<AppReport>>,
    /// Status of every Region.
    pub regions: BTreeMap<RegionName, RegionStatus>,
    /// Status of every MemberCluster.
    pub clusters: BTreeMap<ClusterName, MemberClusterStatus>,
    /// Statuses of Tenants that differ from the ones last written.
    pub tenant_statuses: BTreeMap<TenantKey, TenantStatus>,
    /// Statuses of Quotas that differ from the ones last written.
    pub quota_statuses: BTreeMap<QuotaKey, QuotaStatus>,
    /// Apps whose status differs from the one last written.
    pub changed: Vec<Uid>,
}

/// What is missing for an App to be scheduled in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Every cluster is refused by a filter.
    NoClusterQualifies,
    /// Fewer regions qualify and have room than the App needs.
    TooFewRegions {
        /// Regions that do.
        found: usize,
        /// Regions it needs.
        needed: usize,
    },
    /// An earlier App of the same name still stands wherever this one could.
    PredecessorRemains {
        /// Clusters that still hold it.
        clusters: usize,
    },
    /// Not all replicas fit.
    Capacity {
        /// Replicas that have a cluster.
        placed: i32,
        /// Replicas it asks for.
        wanted: i32,
    },
    /// The tenant's Quotas have no room: for all replicas, or for a change of the App.
    Quota {
        /// Replicas that have a cluster.
        placed: i32,
        /// Replicas it asks for.
        wanted: i32,
    },
}

/// What a tenant's Quotas have no room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaShort {
    /// Position of the cluster in which it shows.
    pub(crate) at: usize,
    /// What leaves no more; `None` when the tenant has Quotas, but none that counts there.
    pub source: Option<Source>,
    /// Of which resource.
    pub resource: Arc<str>,
    /// What is needed in addition. What is left changes with everything that happens, and is read from the
    /// Quota itself.
    pub needs: i64,
    /// What is granted there.
    pub nominal: i64,
}

impl QuotaShort {
    /// No Quota counts in that cluster.
    pub(crate) fn missing(at: usize) -> Self {
        Self {
            at,
            source: None,
            resource: "".into(),
            needs: 0,
            nominal: 0,
        }
    }
}

/// What came of a cluster that qualifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterVerdict {
    /// The App runs there.
    Chosen(Choice),
    /// Not one replica fits.
    NoRoom,
    /// The tenant's Quotas have no room for one replica, or none counts there.
    NoQuota,
    /// `replicas.weights` gives its Region nothing.
    NoWeight,
    /// Better regions made up `placement.maxRegions`.
    EnoughRegions {
        /// How empty the best cluster of the Region is, 0 to 1000.
        score: i64,
    },
}

/// A cluster that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Replicas there.
    pub count: i32,
    /// How empty it was, 0 to 1000.
    pub score: i64,
}
