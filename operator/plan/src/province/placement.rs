//! Step: placement. Which clusters qualify, which of them an App uses, and with how many replicas.
//!
//! Decisions are sticky: what the ledger says stands as long as it is allowed and adds up. Only
//! what is missing is decided anew, on the room that is left after every earlier decision was
//! debited, in one order: tier, then age, then UID.

mod afford;
mod choose;
mod divide;
mod filter;
mod room;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{HpaBounds, RegionName, Stage};

use super::regions::Fleet;
use crate::report::{Choice, ClusterVerdict, QuotaShort, Shortage};

use choose::{ByRegion, choose_regions};
pub(crate) use divide::wants;
pub use filter::Refusal;
pub(crate) use filter::{Class, Consequence, class_of};
pub(crate) use room::{Receipt, Room};
pub(crate) use standing::{Payer, Standing, charged, charges, current, standing};

/// Position of a cluster in the fleet.
pub(crate) type At = usize;

/// What one App gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Placed {
    /// Clusters it runs on.
    pub(crate) targets: BTreeMap<At, Load>,
    /// Clusters it runs on that stay exactly as they are.
    pub(crate) frozen: BTreeMap<At, Load>,
    /// Clusters it leaves, once the others are healthy.
    pub(crate) leaving: BTreeSet<At>,
    /// Clusters that let it go as it is.
    pub(crate) releasing: BTreeSet<At>,
    /// Clusters that keep the content they have, since the tenant's Quotas have no room for the change.
    pub(crate) withheld: BTreeSet<At>,
    /// What is missing, if anything.
    pub(crate) shortage: Option<Shortage>,
    /// What the tenant's Quotas have no room for, if that is what is missing.
    pub(crate) short: Option<Arc<QuotaShort>>,
    /// Its place among the Apps that wait for the same.
    pub(crate) position: Option<usize>,
    /// Candidates that were weighed and what came of it; empty when nothing had to be weighed.
    pub(crate) weighed: Arc<[(At, ClusterVerdict)]>,
}

/// What runs in one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// What the manifests say.
    Manifests,
    /// So many replicas.
    Replicas(i32),
    /// An autoscaler between these bounds.
    Autoscaled(HpaBounds),
}

impl Load {
    /// Replicas to charge.
    pub(crate) fn count(self) -> i32 {
        match self {
            Self::Manifests => 1,
            Self::Replicas(n) => n,
            Self::Autoscaled(bounds) => bounds.max,
        }
    }

    /// The load as an entry's timetable.
    pub(crate) fn stages(self) -> Vec<Stage> {
        match self {
            Self::Manifests => Vec::new(),
            Self::Replicas(n) => vec![Stage {
                replicas: Some(n),
                ..Stage::default()
            }],
            Self::Autoscaled(bounds) => vec![Stage {
                hpa: Some(bounds),
                ..Stage::default()
            }],
        }
    }

    /// The load of one stage.
    pub(crate) fn of_stage(stage: &Stage) -> Self {
        match (stage.hpa, stage.replicas) {
            (Some(bounds), _) => Self::Autoscaled(bounds),
            (None, Some(n)) => Self::Replicas(n),
            (None, None) => Self::Manifests,
        }
    }

    /// The load of an entry's timetable that is in force.
    pub(crate) fn of_stages(stages: &[Stage], now: i64) -> Self {
        let begun = stages.iter().rev().find(|stage| has_begun(stage, now));
        begun
            .or(stages.first())
            .map_or(Self::Manifests, Self::of_stage)
    }

    /// The largest load of an entry's timetable from now on.
    pub(crate) fn most_of_stages(stages: &[Stage], now: i64) -> Self {
        let later = stages.iter().filter(|stage| !has_begun(stage, now));
        let loads = later
            .map(Self::of_stage)
            .chain([Self::of_stages(stages, now)]);
        loads
            .max_by_key(|load| load.count())
            .unwrap_or(Self::Manifests)
    }

    /// The same with so many replicas at most.
    pub(crate) fn at_most(self, count: i32) -> Self {
        match self {
            Self::Manifests => self,
            Self::Replicas(n) => Self::Replicas(n.min(count)),
            Self::Autoscaled(bounds) => Self::Autoscaled(HpaBounds {
                min: bounds.min.min(count).max(1),
                max: bounds.max.min(count).max(1),
            }),
        }
    }
}

fn has_begun(stage: &Stage, now: i64) -> bool {
    stage.not_before.is_none_or(|at| at.millis() <= now)
}

/// Keeps what adds up without looking at any room; `None` when something has to be decided anew.
pub(crate) fn settled(fleet: &Fleet, standing: &Standing<'_>) -> Option<Placed> {
    if standing.keep.is_empty() && standing.frozen.is_empty() {
        return None;
    }
    let regions = regions_of(fleet, standing.keep.keys());
    let bounds = RegionBounds::of(standing, regions.len());
    if !standing.leaving.is_empty() || regions.len() > bounds.most || regions.len() < bounds.least {
        return None;
    }
    let mut unused: Vec<&RegionName> = Vec::new();
    if regions.len() < bounds.most {
        unused.extend(standing.open.iter().filter_map(|at| region(fleet, *at)));
        unused.dedup();
        unused.retain(|r| !regions.contains(r) && divide::wants(standing.app, r));
    }
    if !regions
        .iter()
        .all(|region| divide::wants(standing.app, region))
    {
        return None;
    }
    let targets = divide::adds_up(fleet, standing, &unused)?;
    Some(Placed {
        targets,
        ..Placed::standing(standing)
    })
}

/// Fewest and most regions of an App.
struct RegionBounds {
    asked: usize,
    least: usize,
    most: usize,
}

impl RegionBounds {
    /// What stands where nothing can be decided takes up a region each, but takes none away that
    /// the App has elsewhere: whether it still runs there is not known.
    fn of(standing: &Standing<'_>, kept: usize) -> Self {
        let number = |n: Option<i32>| n.and_then(|n| usize::try_from(n).ok());
        let placement = &standing.app.placement;
        let frozen = standing.frozen.len();
        let most = number(placement.max_regions).unwrap_or(usize::MAX);
        let asked = number(placement.min_regions).unwrap_or(1);
        // Nothing is left for places of which nobody knows whether they still stand.
        let somewhere = usize::from(!standing.leaving.is_empty());
        Self {
            asked,
            least: asked.saturating_sub(frozen).max(somewhere),
            most: most.saturating_sub(frozen).max(kept.min(most)),
        }
    }
}

impl Placed {
    /// Whether the same was decided, on whatever room.
    pub(crate) fn same_outcome(&self, other: &Self) -> bool {
        let Self {
            targets,
            frozen,
            leaving,
            releasing,
            withheld,
            shortage,
            short,
            position,
            weighed: _,
        } = self;
        *withheld == other.withheld
            && *short == other.short
            && *position == other.position
            && *targets == other.targets
            && *frozen == other.frozen
            && *leaving == other.leaving
            && *releasing == other.releasing
            && *shortage == other.shortage
    }

    /// What holds of an App whatever is decided.
    fn standing(standing: &Standing<'_>) -> Self {
        let (frozen, releasing) = (standing.frozen.clone(), standing.releasing.clone());
        Self {
            frozen,
            releasing,
            ..Self::default()
        }
    }
}

/// Whether what stands needs more of the tenant's Quotas than it is charged: after a change that asks
/// for more.
pub(crate) fn grows(standing: &Standing<'_>, placed: &Placed) -> bool {
    let grows = |(at, load): (&At, &Load)| {
        let had = standing.keep.get(at).map_or(0, |had| had.count());
        room::more_than_charged(standing, *at, &standing.need(load.count().max(had)))
    };
    standing.desks.is_some() && placed.targets.iter().any(grows)
}

/// Decides on the room that is left: what adds up stays, everything else is decided anew.
pub(crate) fn place(fleet: &Fleet, standing: &Standing<'_>, room: &mut Room) -> Placed {
    if let Some(mut placed) = settled(fleet, standing) {
        afford::keep(standing, &mut placed, room);
        return placed;
    }
    place_anew(fleet, standing, room)
}

/// Decides anew on the room that is left, and takes what it decides from the room.
fn place_anew(fleet: &Fleet, standing: &Standing<'_>, room: &mut Room) -> Placed {
    let kept = regions_of(fleet, standing.keep.keys()).len();
    let bounds = RegionBounds::of(standing, kept);
    let mut placed = Placed::standing(standing);
    let mut weighed = Vec::new();
    let chosen = choose_regions(fleet, standing, room, bounds.most, &mut weighed);
    if chosen.len() < bounds.least {
        // Nothing could replace what the App would leave, so it leaves nothing.
        placed.targets.clone_from(&standing.keep);
        placed.targets.extend(&standing.leaving);
        let no_quota = |(at, verdict): &(At, ClusterVerdict)| {
            (*verdict == ClusterVerdict::NoQuota).then(|| room.short_of(standing, *at, None))?
        };
        placed.short = weighed.iter().find_map(no_quota);
        let quota = placed.short.is_some().then(|| Shortage::Quota {
            placed: placed.targets.values().map(|load| load.count()).sum(),
            wanted: divide::wanted(standing),
        });
        placed.shortage =
            Some(
                quota.unwrap_or_else(|| match (standing.blocked, placed.targets.is_empty()) {
                    (clusters @ 1.., true) => Shortage::PredecessorRemains { clusters },
                    (0, true) if weighed.is_empty() && chosen.is_empty() => {
                        Shortage::NoClusterQualifies
                    }
                    _ => Shortage::TooFewRegions {
                        found: (chosen.len() + standing.frozen.len())
                            .min(bounds.asked.saturating_sub(1)),
                        needed: bounds.asked,
                    },
                }),
            );
        afford::keep(standing, &mut placed, room);
    } else {
        let bought = afford::buy(standing, &chosen, bounds.least, room);
        (placed.targets, placed.withheld) = (bought.targets, bought.withheld);
        (placed.shortage, placed.short) = (bought.shortage, bought.short);
        let had = standing.keep.keys().chain(standing.leaving.keys());
        placed.leaving = had
            .copied()
            .filter(|at| !placed.targets.contains_key(at))
            .collect();
        for (at, load) in &placed.targets {
            let (score, count) = (room.score(*at), load.count());
            let had = standing.keep.get(at).map(|load| load.count());
            let more = (count - had.unwrap_or(0)).max(0);
            room.take(*at, &standing.app.footprint, more, had.is_none());
            weighed.push((*at, ClusterVerdict::Chosen(Choice { count, score })));
        }
    }
    weighed.sort_by_key(|(at, _)| *at);
    placed.weighed = weighed.into();
    placed
}

fn region(fleet: &Fleet, at: At) -> Option<&RegionName> {
    fleet.clusters[at].cluster.as_ref().ok().map(|c| &c.region)
}

fn regions_of(
    fleet: &Fleet,
    clusters: impl Iterator<Item = impl std::borrow::Borrow<At>>,
) -> BTreeSet<&RegionName> {
    clusters
        .filter_map(|at| region(fleet, *at.borrow()))
        .collect()
}
