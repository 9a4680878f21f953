//! Step: regions. Builds the tree, parks what does not fit into it, and judges who is in contact.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{
    ClusterName, ConditionStatus, ConditionType, Level, Management, Reason, RegionName,
    RegionSelector, Uid, find_condition, label_selector_matches,
};

use crate::world::{ClusterSlot, Parked, RegionSlot, ValidCluster, ValidRegion, World};

/// No administrative tree is deeper; a longer chain of parents is a cycle.
const DEPTH_MAX: usize = 16;
/// Pause before a deaf hub looks again whether it hears, in milliseconds.
const LISTEN_AGAIN: i64 = 2_500;

/// The regions and clusters that decisions are about. Two equal fleets give equal candidates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Regions that fit into the tree.
    pub regions: BTreeMap<RegionName, RegionView>,
    /// Regions that do not, and why.
    pub parked: BTreeMap<RegionName, Parked>,
    /// All clusters, by name.
    pub clusters: Vec<ClusterView>,
    /// Positions of all clusters of which the region is known, region by region.
    pub(crate) by_region: Vec<usize>,
    /// For every cluster the number of its region, which is quicker to compare than its name.
    pub(crate) region_numbers: Vec<Option<usize>>,
}

/// A region in the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionView {
    /// The Region.
    pub region: Arc<ValidRegion>,
    /// The Region itself and all above it.
    pub line: Vec<RegionName>,
    /// Whether it takes new placements now.
    pub open: bool,
    /// Whether it is taken to be lost.
    pub lost: bool,
}

/// A cluster as candidates see it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterView {
    /// Name.
    pub name: ClusterName,
    /// The cluster, or why it is parked.
    pub cluster: Result<Arc<ValidCluster>, Parked>,
    /// Whether it may be used, apart from any App.
    pub standing: Standing,
    /// Whether it is in contact.
    pub reach: Reach,
}

/// Whether a cluster may be used at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It joined and is managed.
    Managed,
    /// It joined and is only observed.
    Observed,
    /// It is being released.
    Releasing,
    /// No agent has reported yet.
    NotSeen,
    /// The cluster behind the name is another one.
    IdentityChanged,
    /// An older MemberCluster stands for the same cluster.
    Duplicate(ClusterName),
    /// Its agent refuses this hub.
    HubRefused(String),
    /// The MemberCluster is being deleted.
    Deleting,
    /// The MemberCluster is parked.
    Parked,
}

/// Whether a cluster is in contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In contact.
    InContact,
    /// Never heard of.
    NotSeen,
    /// Out of contact since the last heartbeat at this time, if this hub saw one.
    Lost(Option<i64>),
    /// Heard of again at this time, not yet long enough.
    Returning(i64),
}

impl Fleet {
    /// The position of a cluster.
    pub fn position(&self, name: &ClusterName) -> Option<usize> {
        self.clusters.binary_search_by(|c| c.name.cmp(name)).ok()
    }

    /// The tree's view of the region a cluster stands in.
    pub fn region_of(&self, cluster: &ClusterView) -> Option<&RegionView> {
        self.regions.get(&cluster.cluster.as_ref().ok()?.region)
    }

    /// Whether a selector of an App, override or wave selects a region.
    pub fn selects(&self, selector: &RegionSelector, region: &RegionView) -> bool {
        refusal_of(selector, region).is_none()
    }
}

/// Which part of a selector refuses a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SelectorRefusal {
    Subtree,
    Level,
    Labels,
}

pub(crate) fn refusal_of(
    selector: &RegionSelector,
    region: &RegionView,
) -> Option<SelectorRefusal> {
    if !selector.within.is_empty() && !selector.within.iter().any(|r| region.line.contains(r)) {
        return Some(SelectorRefusal::Subtree);
    }
    if !selector.levels.is_empty() && !selector.levels.contains(&region.region.level) {
        return Some(SelectorRefusal::Level);
    }
    let labels = selector.selector.as_ref();
    if labels.is_some_and(|s| !label_selector_matches(s, &region.region.labels)) {
        return Some(SelectorRefusal::Labels);
    }
    None
}

/// The fleet now, and when it changes next by the passing of time alone.
pub(crate) fn fleet(world: &World) -> (Fleet, Option<i64>) {
    let mut wake = Wake::default();
    let mut fleet = Fleet::default();
    let codes = code_owners(world);
    let identities = identity_owners(world);
    for (name, slot) in &world.regions {
        match place_in_tree(world, name, slot, &codes) {
            Ok((region, line)) => {
                let open = wake.window(world.now, region.valid_from, region.valid_until);
                let lost = line.iter().any(|r| world.lost.contains(r));
                fleet.regions.insert(
                    name.clone(),
                    RegionView {
                        region,
                        line,
                        open,
                        lost,
                    },
                );
            }
            Err(parked) => {
                fleet.parked.insert(name.clone(), parked);
            }
        }
    }
    for (name, slot) in &world.clusters {
        let reach = reach(world, slot, &mut wake);
        let standing = standing(world, name, slot, &identities);
        let cluster = slot.state.clone();
        fleet.clusters.push(ClusterView {
            name: name.clone(),
            cluster,
            standing,
            reach,
        });
    }
    let region = |at: usize| Some(&fleet.clusters[at].cluster.as_ref().ok()?.region);
    let mut by_region: Vec<usize> = (0..fleet.clusters.len())
        .filter(|at| region(*at).is_some())
        .collect();
    by_region.sort_by_key(|at| (region(*at), *at));
    let mut names: Vec<&RegionName> = by_region.iter().filter_map(|at| region(*at)).collect();
    names.dedup();
    let number = |at: usize| names.binary_search(&region(at)?).ok();
    fleet.region_numbers = (0..fleet.clusters.len()).map(number).collect();
    fleet.by_region = by_region;
    (fleet, wake.at)
}

/// The next point in time at which something changes by itself.
#[derive(Default)]
pub(crate) struct Wake {
    pub(crate) at: Option<i64>,
}

impl Wake {
    pub(crate) fn at(&mut self, time: i64) {
        self.at = Some(self.at.map_or(time, |at| at.min(time)));
    }

    /// Whether `now` lies in the window; its next edge is noted.
    fn window(&mut self, now: i64, from: Option<i64>, until: Option<i64>) -> bool {
        for edge in [from, until]
            .into_iter()
            .flatten()
            .filter(|edge| *edge > now)
        {
            self.at(edge);
        }
        from.is_none_or(|from| now >= from) && until.is_none_or(|until| now < until)
    }
}

/// The oldest Region of each code owns it: a newcomer never parks an old one.
fn code_owners(world: &World) -> BTreeMap<&str, &RegionName> {
    let mut owners: BTreeMap<&str, (i64, &RegionName)> = BTreeMap::new();
    for (name, slot) in &world.regions {
        let Ok(region) = &slot.state else { continue };
        let Some(code) = region.code.as_deref() else {
            continue;
        };
        let claim = (region.created, name);
        owners
            .entry(code)
            .and_modify(|owner| *owner = (*owner).min(claim))
            .or_insert(claim);
    }
    owners
        .into_iter()
        .map(|(code, (_, name))| (code, name))
        .collect()
}

fn place_in_tree(
    world: &World,
    name: &RegionName,
    slot: &RegionSlot,
    codes: &BTreeMap<&str, &RegionName>,
) -> Result<(Arc<ValidRegion>, Vec<RegionName>), Parked> {
    let region = slot.state.clone()?;
    if !owns_code(&region, codes) {
        let owner = region
            .code
            .as_deref()
            .and_then(|code| codes.get(code))
            .copied();
        let owner = owner.map_or("?", RegionName::as_str);
        return Err(Parked::new(
            Reason::CodeTaken,
            format!(
                "spec.code is already that of Region {owner}: every Region has a code of its own"
            ),
        ));
    }
    let mut line = vec![name.clone()];
    let mut below = region.clone();
    while let Some(parent) = below.parent.clone() {
        if line.contains(&parent) || line.len() >= DEPTH_MAX {
            return Err(Parked::new(
                Reason::RegionCycle,
                format!(
                    "spec.parent leads back to {parent} over {}: delete one Region of the cycle and create it under its true parent",
                    join(&line)
                ),
            ));
        }
        let above = match world.regions.get(&parent).map(|slot| &slot.state) {
            Some(Ok(above)) if owns_code(above, codes) => above.clone(),
            Some(Ok(_) | Err(_)) | None => {
                return Err(Parked::new(
                    Reason::ParentMissing,
                    format!(
                        "Region {parent}, the parent of {}, does not exist or is parked: create it or correct it",
                        below.name
                    ),
                ));
            }
        };
        if let Some(parked) = misfit(&below, &above) {
            return Err(parked);
        }
        line.push(parent);
        below = above;
    }
    Ok((region, line))
}

fn owns_code(region: &ValidRegion, codes: &BTreeMap<&str, &RegionName>) -> bool {
    let owner = region.code.as_deref().and_then(|code| codes.get(code));
    owner.is_none_or(|owner| **owner == region.name)
}

fn join(line: &[RegionName]) -> String {
    line.iter()
        .map(RegionName::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Whether a region's level and code fit its parent's.
fn misfit(below: &ValidRegion, above: &ValidRegion) -> Option<Parked> {
    let fits = match below.level {
        Level::Province => false,
        Level::City => above.level == Level::Province,
        Level::County => matches!(above.level, Level::City | Level::Province),
        Level::Zone => true,
    };
    if !fits {
        return Some(Parked::new(
            Reason::LevelMismatch,
            format!(
                "{} is a {:?} under the {:?} {}: a City belongs to a Province, a County to a City or Province, a Province to nothing",
                below.name, below.level, above.level, above.name
            ),
        ));
    }
    let shared = match above.level {
        Level::Province => 2,
        Level::City => 4,
        Level::County => 6,
        Level::Zone => 0,
    };
    let (code, prefix) = (below.code.as_deref()?, above.code.as_deref()?);
    (code.get(..shared) != prefix.get(..shared)).then(|| {
        Parked::new(
            Reason::CodeMismatch,
            format!(
                "spec.code {code} of {} must begin with {}, as its parent {} has {prefix}",
                below.name,
                prefix.get(..shared).unwrap_or_default(),
                above.name
            ),
        )
    })
}

/// In contact or not, with hysteresis: leaving takes silence, returning takes steadiness. Both are
/// judged up to when the hub heard everything: a deaf hub leaves everybody where they are.
fn reach(world: &World, slot: &ClusterSlot, wake: &mut Wake) -> Reach {
    let settings = &world.settings;
    let heard = world.now.min(world.heard);
    let mut wake_for = |due: i64| {
        let passed = due <= world.now;
        wake.at(if passed {
            world.now + LISTEN_AGAIN
        } else {
            due
        });
    };
    let before = find_condition(&slot.status.conditions, ConditionType::Reachable)
        .filter(|c| c.reason != Reason::Pending)
        .map(|c| c.status);
    let Some(contact) = slot.contact else {
        return match before {
            None => Reach::NotSeen,
            // A hub that just started has heard nobody yet; that is no news about the cluster.
            Some(ConditionStatus::True) if heard - world.started <= settings.unreachable_after => {
                wake_for(world.started + settings.unreachable_after + 1);
                Reach::InContact
            }
            Some(ConditionStatus::Unknown) if slot.pinned().is_none() => Reach::NotSeen,
            Some(_) => Reach::Lost(None),
        };
    };
    let silent_at = contact.last + settings.unreachable_after + 1;
    if heard >= silent_at {
        return Reach::Lost(Some(contact.last));
    }
    wake_for(silent_at);
    let steady_at = contact.since + settings.reachable_after;
    if before == Some(ConditionStatus::False) && heard < steady_at {
        wake_for(steady_at);
        return Reach::Returning(contact.since);
    }
    Reach::InContact
}

/// The MemberCluster that each cluster belongs to: of two with one identity the one that joined with
/// it, and of two that did the oldest. The other would place the same machines a second time.
fn identity_owners(world: &World) -> BTreeMap<&Uid, &ClusterName> {
    let mut owners: BTreeMap<&Uid, (bool, i64, &ClusterName)> = BTreeMap::new();
    for (name, slot) in &world.clusters {
        let Ok(cluster) = &slot.state else { continue };
        let report = world.cluster_reports.get(name);
        let Some(uid) = slot.pinned().or(report.map(|r| &r.cluster_uid)) else {
            continue;
        };
        let claim = (slot.pinned().is_none(), cluster.created, name);
        owners
            .entry(uid)
            .and_modify(|owner| *owner = (*owner).min(claim))
            .or_insert(claim);
    }
    owners
        .into_iter()
        .map(|(uid, (.., name))| (uid, name))
        .collect()
}

fn standing(
    world: &World,
    name: &ClusterName,
    slot: &ClusterSlot,
    identities: &BTreeMap<&Uid, &ClusterName>,
) -> Standing {
    let Ok(cluster) = &slot.state else {
        return Standing::Parked;
    };
    if slot.deleting {
        return Standing::Deleting;
    }
    let Some(report) = world.cluster_reports.get(name) else {
        return Standing::NotSeen;
    };
    if slot
        .pinned()
        .is_some_and(|pinned| *pinned != report.cluster_uid)
    {
        return Standing::IdentityChanged;
    }
    if let Some(owner) = identities.get(&report.cluster_uid)
        && *owner != name
    {
        return Standing::Duplicate((*owner).clone());
    }
    if let Some(why) = &report.frozen {
        return Standing::HubRefused(why.clone());
    }
    match cluster.management {
        Management::Manage => Standing::Managed,
        Management::Observe => Standing::Observed,
        Management::Release => Standing::Releasing,
    }
}
