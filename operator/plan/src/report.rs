//! What was decided and why, for every object. The same values feed conditions, Events, console,
//! command line and log.

mod app;
mod explain;
mod fleet;
mod tenant;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{ClusterName, MemberClusterStatus, RegionName, RegionStatus, TenantStatus, Uid};

pub(crate) use app::{AppFacts, app_report, differs};
pub use app::{AppReport, TargetReport, Waiting};
pub use explain::{Answer, Hold, Left, Run, Share, Undecided, Whole, Why};
pub(crate) use fleet::{cluster_status, region_status};
pub(crate) use tenant::tenant_statuses;

use crate::province::{Fleet, Tenants};
use crate::world::TenantKey;

/// What was decided and why, for every object.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct PlanReport {
    /// Regions and clusters as the decisions saw them.
    pub fleet: Arc<Fleet>,
    /// Tenants as the decisions saw them.
    pub tenants: Arc<Tenants>,
    /// Apps.
    pub apps: BTreeMap<Uid, Arc<AppReport>>,
    /// Status of every Region.
    pub regions: BTreeMap<RegionName, RegionStatus>,
    /// Status of every MemberCluster.
    pub clusters: BTreeMap<ClusterName, MemberClusterStatus>,
    /// Statuses of Tenants that differ from the ones last written.
    pub tenant_statuses: BTreeMap<TenantKey, TenantStatus>,
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
}

/// What came of a cluster that qualifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterVerdict {
    /// The App runs there.
    Chosen(Choice),
    /// Not one replica fits.
    NoRoom,
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
