//! Step: placement. Which clusters qualify, which of them an App uses, and with how many replicas.
//!
//! Decisions are sticky: what the ledger says stands as long as it is allowed and adds up. Only
//! what is missing is decided anew, on the room that is left after every earlier decision was
//! debited, in one order: tier, then age, then UID.

mod divide;
mod filter;
mod room;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crds::{ClusterName, HpaBounds, RegionName, Stage, Uid};

use super::regions::Fleet;
use crate::amount::Resources;
use crate::report::{Choice, ClusterVerdict, Shortage};
use crate::world::{AppLedger, AppSlot, Footprint, ValidApp, World};

pub use filter::Refusal;
pub(crate) use filter::{Class, Consequence, class_of};
pub(crate) use room::Room;

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
    /// What is missing, if anything.
    pub(crate) shortage: Option<Shortage>,
    /// Candidates that were weighed and what came of it; empty when nothing had to be weighed.
    pub(crate) weighed: Vec<(At, ClusterVerdict)>,
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

    /// The load that an entry's timetable begins with.
    pub(crate) fn of_stages(stages: &[Stage]) -> Self {
        match stages.first() {
            Some(Stage {
                hpa: Some(bounds), ..
            }) => Self::Autoscaled(*bounds),
            Some(Stage {
                replicas: Some(n), ..
            }) => Self::Replicas(*n),
            Some(_) | None => Self::Manifests,
        }
    }
}

/// What an App has now, by what the ledger or, where a slice was lost, the reports say.
pub(crate) fn current(fleet: &Fleet, ledger: Option<&AppLedger>) -> BTreeMap<At, Load> {
    let mut now = BTreeMap::new();
    let Some(ledger) = ledger else { return now };
    for (cluster, report) in &ledger.reports {
        if let (Some(at), true) = (fleet.position(cluster), report.content.is_some()) {
            now.insert(at, Load::Replicas(report.replicas));
        }
    }
    for (cluster, held) in &ledger.entries {
        let Some(at) = fleet.position(cluster) else {
            continue;
        };
        if held.entry.state.is_present() {
            now.insert(at, Load::of_stages(&held.entry.stages));
        } else {
            now.remove(&at);
        }
    }
    now
}

/// What an App is charged in each cluster, by the ledger: also for removals that no agent has
/// acknowledged yet, and also while the App is parked.
pub(crate) fn charges(
    fleet: &Fleet,
    print: &Footprint,
    ledger: Option<&AppLedger>,
) -> Vec<(At, Resources)> {
    let Some(ledger) = ledger else {
        return Vec::new();
    };
    let entries = ledger.entries.iter();
    let decided = entries.map(|(cluster, held)| (cluster, Load::of_stages(&held.entry.stages)));
    // Where a slice was lost, what is reported to run is held all the same.
    let lost = ledger.reports.iter().filter(|(cluster, report)| {
        report.content.is_some() && !ledger.entries.contains_key(*cluster)
    });
    let running = lost.map(|(cluster, report)| (cluster, Load::Replicas(report.replicas)));
    let charge = |(cluster, load): (&ClusterName, Load)| {
        Some((fleet.position(cluster)?, room::debit(print, load)))
    };
    decided.chain(running).filter_map(charge).collect()
}

/// Where an App stands before anything is decided anew.
pub(crate) struct Standing<'a> {
    pub(crate) app: &'a ValidApp,
    pub(crate) uid: &'a Uid,
    /// Clusters that it has and may keep.
    pub(crate) keep: BTreeMap<At, Load>,
    /// Those of them that it could not take anew.
    pub(crate) stays: BTreeSet<At>,
    /// Clusters that it has and of which too little is known to decide anything.
    pub(crate) frozen: BTreeMap<At, Load>,
    /// Clusters that it has and must leave.
    pub(crate) leaving: BTreeMap<At, Load>,
    /// Clusters that are being released with it.
    pub(crate) releasing: BTreeSet<At>,
    /// Clusters that it may take in addition.
    pub(crate) open: Vec<At>,
    /// Clusters that it may take once its predecessor is gone from there.
    pub(crate) blocked: usize,
}

/// Splits what an App has into what it may keep and what it must leave.
pub(crate) fn standing<'a>(
    world: &World,
    fleet: &Fleet,
    class: &Class,
    slot: &'a AppSlot,
    app: &'a ValidApp,
) -> Standing<'a> {
    let mut standing = Standing {
        app,
        uid: &slot.uid,
        keep: BTreeMap::new(),
        stays: BTreeSet::new(),
        frozen: BTreeMap::new(),
        leaving: BTreeMap::new(),
        releasing: BTreeSet::new(),
        open: Vec::new(),
        blocked: 0,
    };
    for (at, load) in current(fleet, world.ledger(&slot.uid)) {
        match class.refusal(at).map(Refusal::consequence) {
            Some(Consequence::Freeze) => drop(standing.frozen.insert(at, load)),
            Some(Consequence::Leave) => drop(standing.leaving.insert(at, load)),
            Some(Consequence::LetGo) => drop(standing.releasing.insert(at)),
            Some(Consequence::Stay) => {
                standing.stays.insert(at);
                standing.keep.insert(at, load);
            }
            None => drop(standing.keep.insert(at, load)),
        }
    }
    let blocked = predecessors(world, fleet, slot);
    let free = |at: &At| !standing.keep.contains_key(at) && !blocked.contains(at);
    standing.open = class.feasible().iter().copied().filter(free).collect();
    standing.blocked = class
        .feasible()
        .iter()
        .filter(|at| blocked.contains(at))
        .count();
    standing
}

/// Clusters in which an earlier App of the same name has not been removed yet.
fn predecessors(world: &World, fleet: &Fleet, slot: &AppSlot) -> BTreeSet<At> {
    let mut blocked = BTreeSet::new();
    let key = (slot.namespace.clone(), slot.name.clone());
    let holders = world.entry_names.get(&key).into_iter().flatten();
    for uid in holders.filter(|uid| **uid != slot.uid) {
        let ledger = world.ledger(uid);
        let clusters = ledger.into_iter().flat_map(|l| l.entries.keys());
        blocked.extend(clusters.filter_map(|cluster| fleet.position(cluster)));
    }
    blocked
}

/// Keeps what adds up without looking at any room; `None` when something has to be decided anew.
pub(crate) fn settled(fleet: &Fleet, standing: &Standing<'_>) -> Option<Placed> {
    let regions = regions_of(fleet, standing.keep.keys());
    let bounds = RegionBounds::of(standing, regions.len());
    if !standing.leaving.is_empty() || regions.len() > bounds.most || regions.len() < bounds.least {
        return None;
    }
    let mut unused = BTreeSet::new();
    if regions.len() < bounds.most {
        unused = regions_of(fleet, standing.open.iter());
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

/// Decides anew on the room that is left, and takes what it decides from the room.
pub(crate) fn place(fleet: &Fleet, standing: &Standing<'_>, room: &mut Room) -> Placed {
    let kept = regions_of(fleet, standing.keep.keys()).len();
    let bounds = RegionBounds::of(standing, kept);
    let mut placed = Placed::standing(standing);
    let chosen = choose_regions(fleet, standing, room, bounds.most, &mut placed.weighed);
    if chosen.len() < bounds.least {
        // Nothing could replace what the App would leave, so it leaves nothing.
        placed.targets.clone_from(&standing.keep);
        placed.targets.extend(&standing.leaving);
        placed.shortage = Some(match (standing.blocked, placed.targets.is_empty()) {
            (1.., true) => Shortage::PredecessorRemains {
                clusters: standing.blocked,
            },
            (0, true) if placed.weighed.is_empty() && chosen.is_empty() => {
                Shortage::NoClusterQualifies
            }
            _ => Shortage::TooFewRegions {
                found: (chosen.len() + standing.frozen.len()).min(bounds.asked.saturating_sub(1)),
                needed: bounds.asked,
            },
        });
        return placed;
    }
    (placed.targets, placed.shortage) = divide::divide(standing, &chosen, bounds.least, room);
    let had = standing.keep.keys().chain(standing.leaving.keys());
    placed.leaving = had
        .copied()
        .filter(|at| !placed.targets.contains_key(at))
        .collect();
    for (at, load) in &placed.targets {
        let score = room.score(*at);
        let had = standing.keep.get(at).map(|load| load.count());
        let more = (load.count() - had.unwrap_or(0)).max(0);
        room.take(*at, &standing.app.footprint, more, had.is_none());
        let choice = Choice {
            count: load.count(),
            score,
        };
        placed.weighed.push((*at, ClusterVerdict::Chosen(choice)));
    }
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

/// Clusters by region: those an App has first, then the ones with most room.
pub(crate) type ByRegion = BTreeMap<RegionName, Vec<At>>;

/// The regions to use: those the App has, then the best of the others. Of these, regions that can
/// take a fair share come before those that cannot, heavy ones before light ones, empty ones before
/// full ones.
fn choose_regions(
    fleet: &Fleet,
    standing: &Standing<'_>,
    room: &Room,
    most: usize,
    weighed: &mut Vec<(At, ClusterVerdict)>,
) -> ByRegion {
    let mut by_region: BTreeMap<&RegionName, Vec<At>> = BTreeMap::new();
    for at in standing.keep.keys().chain(&standing.open) {
        if let Some(region) = region(fleet, *at) {
            by_region.entry(region).or_default().push(*at);
        }
    }
    let fair = divide::fair_share(standing, by_region.len().min(most));
    let mut ranked = Vec::new();
    for (region, mut clusters) in by_region {
        if !divide::wants(standing.app, region) {
            weighed.extend(clusters.iter().map(|at| (*at, ClusterVerdict::NoWeight)));
            continue;
        }
        clusters.sort_by_key(|at| (!standing.keep.contains_key(at), -room.score(*at), *at));
        let new = !clusters.iter().any(|at| standing.keep.contains_key(at));
        let mut fits = fair;
        if new {
            let fit = clusters
                .iter()
                .map(|at| divide::could_start(standing, room, *at));
            fits = fit.fold(0, i32::saturating_add);
            if fits == 0 {
                weighed.extend(clusters.iter().map(|at| (*at, ClusterVerdict::NoRoom)));
                continue;
            }
        }
        let score = clusters.iter().map(|at| room.score(*at)).max().unwrap_or(0);
        let tie = spread(standing.uid, region);
        let weight = Reverse(divide::weight_of(standing.app, region));
        ranked.push((new, fits < fair, weight, -score, tie, region, clusters));
    }
    ranked.sort();
    for (_, _, _, score, .., clusters) in ranked.iter().skip(most) {
        let enough = ClusterVerdict::EnoughRegions { score: -score };
        weighed.extend(clusters.iter().map(|at| (*at, enough)));
    }
    let chosen = ranked.into_iter().take(most);
    chosen
        .map(|(.., region, clusters)| (region.clone(), clusters))
        .collect()
}

/// Breaks ties differently for every App, so that equal regions fill evenly (FNV-1a).
fn spread(uid: &Uid, region: &RegionName) -> u64 {
    let bytes = uid
        .as_str()
        .bytes()
        .chain([0])
        .chain(region.as_str().bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
