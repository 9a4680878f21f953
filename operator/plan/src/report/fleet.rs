//! Statuses of Regions and MemberClusters.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{
    ClusterCount, ClusterReportSpec, Condition, ConditionStatus, ConditionType, Connection,
    MemberClusterStatus, Quantity, Reason, RegionName, RegionStatus, ResourceTotals, Timestamp,
    Uid, condition,
};

use crate::amount::{Resources, format_amount, format_cores, format_cores_left};
use crate::province::{ClusterView, Fleet, Granting, Reach, Standing};
use crate::world::{ClusterSlot, RegionSlot, ValidCluster, World};

/// Resources shown; each cluster reports as many, and together they may name more.
const RESOURCES_MAX: usize = 32;

/// Sums over a Region's subtree.
#[derive(Default)]
struct Sum {
    total: i32,
    reachable: i32,
    allocatable: Resources,
    requested: Resources,
    granted: Resources,
    budget: Resources,
}

/// The status of every Region.
pub(crate) fn region_status(
    world: &World,
    fleet: &Fleet,
    quotas: &Granting,
) -> BTreeMap<RegionName, RegionStatus> {
    let mut sums: BTreeMap<&RegionName, Sum> = BTreeMap::new();
    for view in &fleet.clusters {
        let Some(region) = fleet.region_of(view) else {
            continue;
        };
        // A cluster under a second name has no capacity of its own.
        let twice = matches!(view.standing, Standing::Duplicate(_));
        let report = world
            .cluster_report(&view.name)
            .filter(|_| !twice)
            .map(|r| (Resources::of(&r.allocatable), used(r)));
        for name in &region.line {
            let sum = sums.entry(name).or_default();
            sum.total += 1;
            sum.reachable += i32::from(view.reach == Reach::InContact);
            if let Some((allocatable, requested)) = &report {
                sum.allocatable.add(allocatable, 1);
                sum.requested.add(requested, 1);
            }
        }
    }
    for (name, view) in &fleet.regions {
        for above in &view.line {
            let sum = sums.entry(above).or_default();
            sum.budget.add(&view.region.budget, 1);
            if let Some(granted) = quotas.roots.get(name) {
                sum.granted.add(granted, 1);
            }
        }
    }
    let status = |(name, slot): (&RegionName, &RegionSlot)| {
        let sum = sums.remove(name).unwrap_or_default();
        (name.clone(), one_region(world, fleet, name, slot, &sum))
    };
    world.regions.iter().map(status).collect()
}

fn used(report: &ClusterReportSpec) -> Resources {
    let mut used = Resources::of(&report.managed);
    used.add(&Resources::of(&report.others), 1);
    used
}

fn one_region(
    world: &World,
    fleet: &Fleet,
    name: &RegionName,
    slot: &RegionSlot,
    sum: &Sum,
) -> RegionStatus {
    use ConditionStatus::{False, True, Unknown};
    use ConditionType::{Reachable, Ready, Stalled};
    let set = Setter {
        old: &slot.status.conditions,
        generation: slot.generation,
        now: world.now,
    };
    let mut conditions = Vec::new();
    if let Some(parked) = fleet.parked.get(name) {
        conditions.push(set.to(Ready, False, parked.reason, parked.message.clone()));
        conditions.push(set.to(Stalled, True, parked.reason, parked.message.clone()));
    } else {
        let (status, reason, message) = match (sum.total, sum.reachable) {
            (0, _) => (
                Unknown,
                Reason::NoClusters,
                "No member cluster has joined in this Region's subtree yet.".to_owned(),
            ),
            (all, up) if all == up => (
                True,
                Reason::InContact,
                format!("All {all} member clusters are in contact."),
            ),
            (all, 0) => (
                False,
                Reason::OutOfContact,
                format!("None of {all} member clusters is in contact."),
            ),
            (all, up) => (
                False,
                Reason::PartlyReachable,
                format!("{up} of {all} member clusters are in contact."),
            ),
        };
        conditions.push(set.to(Reachable, status, reason, message.clone()));
        // A Region without clusters is as its author wants it: a node of the tree.
        let ready = if status == Unknown { True } else { status };
        conditions.insert(0, set.to(Ready, ready, reason, message));
    }
    let headroom = sum.allocatable.minus(&sum.requested);
    let known = sum.allocatable != Resources::default();
    let cpu = |amounts: &Resources| format_cores(amounts.get("cpu"));
    RegionStatus {
        observed_generation: Some(slot.generation),
        leader_epoch: None,
        conditions,
        clusters: Some(ClusterCount {
            total: sum.total,
            reachable: sum.reachable,
            summary: format!("{}/{}", sum.reachable, sum.total),
        }),
        resources: totals(sum, &headroom),
        granted: granted(sum),
        cpu: known.then(|| format!("{}/{}", cpu(&sum.requested), cpu(&sum.allocatable))),
        headroom: known.then(|| format_cores_left(headroom.get("cpu").max(0))),
    }
}

/// Cores granted to first tenants and budgeted for them, where there is either.
fn granted(sum: &Sum) -> Option<String> {
    let (granted, budget) = (sum.granted.get("cpu"), sum.budget.get("cpu"));
    match (granted, budget) {
        (0, 0) => None,
        (_, 0) => Some(format!("{}/-", format_cores(granted))),
        (..) => Some(format!(
            "{}/{}",
            format_cores(granted),
            format_cores(budget)
        )),
    }
}

fn totals(sum: &Sum, headroom: &Resources) -> Vec<ResourceTotals> {
    let quantity = |name: &str, amount: i64| Quantity(format_amount(name, amount.max(0)));
    let row = |(name, amount): (&str, i64)| ResourceTotals {
        name: name.to_owned(),
        allocatable: quantity(name, amount),
        granted: (sum.granted.get(name) > 0).then(|| quantity(name, sum.granted.get(name))),
        requested: quantity(name, sum.requested.get(name)),
        headroom: quantity(name, headroom.get(name)),
    };
    sum.allocatable
        .iter()
        .take(RESOURCES_MAX)
        .map(row)
        .collect()
}

/// The status of a MemberCluster, or `None` when there is no such object.
pub(crate) fn cluster_status(
    world: &World,
    fleet: &Fleet,
    view: &ClusterView,
    slot: &ClusterSlot,
) -> Option<MemberClusterStatus> {
    use ConditionStatus::{False, True};
    use ConditionType::{Ready, Reconciling, Stalled};
    let set = Setter {
        old: &slot.status.conditions,
        generation: slot.generation,
        now: world.now,
    };
    let report = world.cluster_report(&view.name);
    let mut status = MemberClusterStatus {
        observed_generation: Some(slot.generation),
        cluster_uid: pin(view, slot, report),
        ..MemberClusterStatus::default()
    };
    if !slot.exists() {
        return None;
    }
    if let Err(parked) = &slot.state {
        status.conditions = vec![
            set.to(Ready, False, parked.reason, parked.message.clone()),
            set.to(Stalled, True, parked.reason, parked.message.clone()),
        ];
        return Some(status);
    }
    let mut parts: Vec<Condition> = Vec::new();
    parts.extend(region_known(fleet, view, &set));
    parts.extend(joined(view, slot, &set));
    parts.push(reachable(view, &set));
    parts.push(reported(report, &set));
    let bad = parts.iter().find(|c| c.status != True);
    let ready = match bad {
        Some(c) => set.to(Ready, c.status, c.reason, c.message.clone()),
        None => set.to(
            Ready,
            True,
            Reason::AsExpected,
            "Joined, in contact and reporting.".to_owned(),
        ),
    };
    let mut conditions = vec![ready];
    if let Some(c) = bad {
        let stalled = matches!(
            c.reason,
            Reason::IdentityChanged
                | Reason::ClusterTaken
                | Reason::HubRefused
                | Reason::KubeconfigRefused
                | Reason::RegionMissing
        );
        let kind = if stalled { Stalled } else { Reconciling };
        conditions.push(set.to(kind, True, c.reason, c.message.clone()));
    }
    conditions.extend(parts.into_iter().filter(|c| c.kind != Ready));
    status.conditions = conditions;
    status.mode = slot
        .state
        .as_ref()
        .ok()
        .map(|c| c.connection.mode().to_owned());
    status.kubernetes_version = report.map(|r| r.kubernetes_version.clone());
    status.cpu = report.filter(|r| r.nodes.total > 0).map(|r| {
        let cpu = |amounts: &Resources| format_cores(amounts.get("cpu"));
        format!("{}/{}", cpu(&used(r)), cpu(&Resources::of(&r.allocatable)))
    });
    let entries = slot.slices.values().flat_map(|slice| &slice.entries);
    let placed = entries
        .filter(|entry| entry.state.is_present() && entry.scope.is_app())
        .count();
    status.apps = i32::try_from(placed.saturating_sub(slot.doubled.len())).ok();
    Some(status)
}

/// The identity is pinned at the first report and never changes by itself. One that belongs to
/// another MemberCluster is not pinned a second time.
fn pin(view: &ClusterView, slot: &ClusterSlot, report: Option<&ClusterReportSpec>) -> Option<Uid> {
    let taken = matches!(view.standing, Standing::Duplicate(_));
    slot.pinned()
        .or_else(|| report.filter(|_| !taken).map(|r| &r.cluster_uid))
        .cloned()
}

fn region_known(fleet: &Fleet, view: &ClusterView, set: &Setter<'_>) -> Option<Condition> {
    let region = &view.cluster.as_ref().ok()?.region;
    if fleet.regions.contains_key(region) {
        return None;
    }
    let why = if fleet.parked.contains_key(region) {
        format!("Region {region}, which spec.regionName names, is parked: correct it.")
    } else {
        format!("Region {region}, which spec.regionName names, does not exist: create it.")
    };
    Some(set.to(
        ConditionType::Ready,
        ConditionStatus::False,
        Reason::RegionMissing,
        why,
    ))
}

fn joined(view: &ClusterView, slot: &ClusterSlot, set: &Setter<'_>) -> Option<Condition> {
    use ConditionStatus::{False, True, Unknown};
    let pushed = |c: &Arc<ValidCluster>| matches!(c.connection, Connection::Push(_));
    if view.cluster.as_ref().is_ok_and(pushed)
        && let Some(why) = &slot.refused
    {
        let kind = ConditionType::Joined;
        return Some(set.to(kind, False, Reason::KubeconfigRefused, why.clone()));
    }
    let (status, reason, message) = match &view.standing {
        Standing::NotSeen => (
            Unknown,
            Reason::NotSeen,
            "No agent has reported from this cluster yet.".to_owned(),
        ),
        Standing::IdentityChanged => (
            False,
            Reason::IdentityChanged,
            format!(
                "The cluster behind this name is not the one pinned as {}; nothing is applied there. Join it under a new name, or delete this MemberCluster and create it again if the old cluster is gone for good.",
                slot.pinned().map(Uid::as_str).unwrap_or_default()
            ),
        ),
        Standing::Duplicate(owner) => (
            False,
            Reason::ClusterTaken,
            format!(
                "MemberCluster {owner} already stands for the cluster behind this name (UID of its kube-system); nothing is placed here. Delete one of the two, or let the agent of this one run in its own cluster."
            ),
        ),
        Standing::HubRefused(why) => (False, Reason::HubRefused, why.clone()),
        Standing::Managed => (True, Reason::AsExpected, "Joined.".to_owned()),
        Standing::Observed => (
            True,
            Reason::ObserveOnly,
            "Joined; only observed, nothing is applied.".to_owned(),
        ),
        Standing::Releasing => (
            True,
            Reason::Releasing,
            "Joined; being released, workloads stay.".to_owned(),
        ),
        Standing::Deleting => (True, Reason::Deleting, "Being deleted.".to_owned()),
        Standing::Parked => return None,
    };
    Some(set.to(ConditionType::Joined, status, reason, message))
}

fn reachable(view: &ClusterView, set: &Setter<'_>) -> Condition {
    use ConditionStatus::{False, True, Unknown};
    let (status, reason, message) = match view.reach {
        Reach::InContact => (True, Reason::InContact, "In contact.".to_owned()),
        Reach::NotSeen => (Unknown, Reason::NotSeen, "No heartbeat has been seen yet.".to_owned()),
        Reach::Lost(Some(last)) => (
            False,
            Reason::OutOfContact,
            format!("Out of contact; last heard of at {}. What runs there is kept, and shown as last reported.", Timestamp::from_millis(last)),
        ),
        Reach::Lost(None) => (False, Reason::OutOfContact, "Out of contact since before this hub started. What runs there is kept, and shown as last reported.".to_owned()),
        Reach::Returning(since) => (
            False,
            Reason::Returning,
            format!("In contact again since {}, not yet for long enough to rely on it.", Timestamp::from_millis(since)),
        ),
    };
    set.to(ConditionType::Reachable, status, reason, message)
}

fn reported(report: Option<&ClusterReportSpec>, set: &Setter<'_>) -> Condition {
    use ConditionStatus::{True, Unknown};
    match report {
        Some(r) if r.nodes.total > 0 => set.to(
            ConditionType::CapacityReported,
            True,
            Reason::AsExpected,
            "Capacity and use are known.".to_owned(),
        ),
        Some(_) => set.to(
            ConditionType::CapacityReported,
            True,
            Reason::CapacityUnknown,
            "The cluster has no nodes.".to_owned(),
        ),
        None => set.to(
            ConditionType::CapacityReported,
            Unknown,
            Reason::CapacityUnknown,
            "No capacity report yet.".to_owned(),
        ),
    }
}

/// Builds conditions of one object.
pub(super) struct Setter<'a> {
    pub(super) old: &'a [Condition],
    pub(super) generation: i64,
    pub(super) now: i64,
}

impl Setter<'_> {
    pub(super) fn to(
        &self,
        kind: ConditionType,
        status: ConditionStatus,
        reason: Reason,
        message: String,
    ) -> Condition {
        condition(
            self.old,
            kind,
            status,
            reason,
            message,
            self.generation,
            Timestamp::from_millis(self.now),
        )
    }
}
