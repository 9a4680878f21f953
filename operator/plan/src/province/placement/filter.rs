//! Hard filters: which clusters an App may use, and the reason for every no.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::{DataGrade, RegionName, TakeOver, Zone, label_selector_matches};

use super::At;
use crate::province::regions::{
    ClusterView, Fleet, Reach, RegionView, SelectorRefusal, Standing, refusal_of,
};
use crate::province::tenants::Limits;
use crate::world::ValidApp;

/// Why a cluster does not qualify for an App.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The MemberCluster is parked.
    ClusterParked,
    /// The Region is parked.
    RegionParked,
    /// The MemberCluster is being deleted.
    Deleting,
    /// No agent has reported yet.
    NotJoined,
    /// The cluster behind the name is another one.
    IdentityChanged,
    /// An older MemberCluster stands for the same cluster.
    Duplicate,
    /// Its agent refuses this hub.
    HubRefused,
    /// Only observed, and the App takes nothing over.
    ObserveOnly,
    /// Being released.
    Releasing,
    /// Outside the subtrees that `placement.regions.within` names.
    OutsideRegions,
    /// Not of the levels that `placement.regions.levels` names.
    Level,
    /// The Region's labels do not match `placement.regions.selector`.
    RegionLabels,
    /// The cluster's labels do not match `placement.clusters`.
    ClusterLabels,
    /// In another network zone.
    Zone {
        /// The cluster's.
        has: Zone,
        /// The App's.
        needs: Zone,
    },
    /// May not hold data of the App's grade.
    Grade {
        /// The cluster's.
        has: DataGrade,
        /// The App's.
        needs: DataGrade,
    },
    /// Of a lower 等保 level than the App.
    Protection {
        /// The cluster's.
        has: i32,
        /// The App's.
        needs: i32,
    },
    /// Outside the Regions that the tenant may use.
    TenantRegions,
    /// In a zone that the tenant may not use.
    TenantZone {
        /// The App's.
        needs: Zone,
    },
    /// Of a grade of data that the tenant may not process.
    TenantGrade {
        /// The tenant's.
        has: DataGrade,
        /// The App's.
        needs: DataGrade,
    },
    /// The Region is not valid yet or no longer.
    RegionClosed,
    /// Out of contact.
    OutOfContact,
    /// In contact again, but not for long enough.
    Returning,
    /// Taken to be lost.
    Lost,
}

/// What a refusal means for an App that already runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// It stays exactly as it is: without a place in the tree nothing can be decided for it.
    Freeze,
    /// It stays: nothing moves because something cannot be seen.
    Stay,
    /// It moves elsewhere.
    Leave,
    /// It is let go as it is.
    LetGo,
}

impl Refusal {
    /// What it means for an App that already runs there.
    pub(crate) fn consequence(&self) -> Consequence {
        match self {
            Self::ClusterParked | Self::RegionParked => Consequence::Freeze,
            Self::Deleting
            | Self::NotJoined
            | Self::IdentityChanged
            | Self::Duplicate
            | Self::HubRefused
            | Self::ObserveOnly
            | Self::RegionClosed
            | Self::OutOfContact
            | Self::Returning => Consequence::Stay,
            Self::OutsideRegions
            | Self::Level
            | Self::RegionLabels
            | Self::ClusterLabels
            | Self::Zone { .. }
            | Self::Grade { .. }
            | Self::Protection { .. }
            | Self::TenantRegions
            | Self::TenantZone { .. }
            | Self::TenantGrade { .. }
            | Self::Lost => Consequence::Leave,
            Self::Releasing => Consequence::LetGo,
        }
    }
}

/// Candidates of all Apps with the same filters.
#[derive(Debug)]
pub(crate) struct Class {
    refusals: Vec<Option<Refusal>>,
    feasible: Vec<At>,
}

impl Class {
    /// Why a cluster does not qualify; `None` when it does.
    pub(crate) fn refusal(&self, at: At) -> Option<&Refusal> {
        self.refusals[at].as_ref()
    }

    /// Clusters that qualify, region by region.
    pub(crate) fn feasible(&self) -> &[At] {
        &self.feasible
    }
}

/// The candidates of an App and of all that share its filters.
pub(crate) fn class_of(fleet: &Fleet, app: &ValidApp, limits: &Limits) -> Arc<Class> {
    let refusals: Vec<_> = fleet
        .clusters
        .iter()
        .map(|c| refusal(fleet, app, limits, c))
        .collect();
    let feasible = fleet
        .by_region
        .iter()
        .copied()
        .filter(|at| refusals[*at].is_none())
        .collect();
    Arc::new(Class { refusals, feasible })
}

/// The first filter that refuses. What the App's author can change comes before what only time can,
/// so that the reason shown is the one to act on.
fn refusal(fleet: &Fleet, app: &ValidApp, limits: &Limits, view: &ClusterView) -> Option<Refusal> {
    let Ok(cluster) = &view.cluster else {
        return Some(Refusal::ClusterParked);
    };
    if view.standing == Standing::Releasing {
        return Some(Refusal::Releasing);
    }
    let Some(region) = fleet.regions.get(&cluster.region) else {
        return Some(Refusal::RegionParked);
    };
    if let Some(selector) = &app.placement.regions
        && let Some(why) = refusal_of(selector, region)
    {
        return Some(match why {
            SelectorRefusal::Subtree => Refusal::OutsideRegions,
            SelectorRefusal::Level => Refusal::Level,
            SelectorRefusal::Labels => Refusal::RegionLabels,
        });
    }
    let labels = app.placement.clusters.as_ref();
    if labels.is_some_and(|s| !label_selector_matches(s, &cluster.labels)) {
        return Some(Refusal::ClusterLabels);
    }
    if let Some(refusal) = limited(app, limits, region) {
        return Some(refusal);
    }
    if cluster.zone != app.zone {
        return Some(Refusal::Zone {
            has: cluster.zone,
            needs: app.zone,
        });
    }
    if cluster.max_data_grade < app.grade {
        return Some(Refusal::Grade {
            has: cluster.max_data_grade,
            needs: app.grade,
        });
    }
    if cluster.protection_level < app.protection_level {
        let (has, needs) = (cluster.protection_level, app.protection_level);
        return Some(Refusal::Protection { has, needs });
    }
    if region.lost {
        return Some(Refusal::Lost);
    }
    passing(app, view).or((!region.open).then_some(Refusal::RegionClosed))
}

/// What the tenant may not use.
fn limited(app: &ValidApp, limits: &Limits, region: &RegionView) -> Option<Refusal> {
    let within = |tops: &BTreeSet<RegionName>| region.line.iter().any(|r| tops.contains(r));
    if !limits.regions.as_ref().is_none_or(within) {
        return Some(Refusal::TenantRegions);
    }
    if !limits.zones.contains(&app.zone) {
        return Some(Refusal::TenantZone { needs: app.zone });
    }
    (app.grade > limits.grade).then_some(Refusal::TenantGrade {
        has: limits.grade,
        needs: app.grade,
    })
}

/// What may pass by itself.
fn passing(app: &ValidApp, view: &ClusterView) -> Option<Refusal> {
    match view.standing {
        Standing::Managed => {}
        Standing::Observed if app.take_over != TakeOver::Never => {}
        Standing::Observed => return Some(Refusal::ObserveOnly),
        Standing::Releasing => return Some(Refusal::Releasing),
        Standing::NotSeen => return Some(Refusal::NotJoined),
        Standing::IdentityChanged => return Some(Refusal::IdentityChanged),
        Standing::Duplicate(_) => return Some(Refusal::Duplicate),
        Standing::HubRefused(_) => return Some(Refusal::HubRefused),
        Standing::Deleting => return Some(Refusal::Deleting),
        Standing::Parked => return Some(Refusal::ClusterParked),
    }
    match view.reach {
        Reach::InContact => None,
        Reach::NotSeen => Some(Refusal::NotJoined),
        Reach::Lost(_) => Some(Refusal::OutOfContact),
        Reach::Returning(_) => Some(Refusal::Returning),
    }
}
