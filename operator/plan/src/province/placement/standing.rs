//! What an App has, and what of it it may keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{ClusterName, Uid};

use super::filter::Consequence;
use super::{At, Class, Load, Refusal, room};
use crate::amount::Resources;
use crate::charge::{Charges, surge_of};
use crate::province::quotas::Desks;
use crate::province::regions::Fleet;
use crate::world::{AppLedger, AppSlot, Footprint, ValidApp, World};

/// What an App has now, by what the ledger or, where a slice was lost, the reports say.
pub(crate) fn current(fleet: &Fleet, ledger: Option<&AppLedger>, now: i64) -> BTreeMap<At, Load> {
    let mut current = BTreeMap::new();
    let Some(ledger) = ledger else {
        return current;
    };
    for (cluster, report) in &ledger.reports {
        if let (Some(at), true) = (fleet.position(cluster), report.content.is_some()) {
            current.insert(at, Load::Replicas(report.replicas));
        }
    }
    for (cluster, held) in &ledger.entries {
        let Some(at) = fleet.position(cluster) else {
            continue;
        };
        if held.entry.state.is_present() {
            current.insert(at, Load::of_stages(&held.entry.stages, now));
        } else {
            current.remove(&at);
        }
    }
    current
}

/// What an App is charged in each cluster, by the ledger: also for removals that no agent has
/// acknowledged yet, and also while the App is parked.
pub(crate) fn charges(
    fleet: &Fleet,
    print: &Footprint,
    ledger: Option<&AppLedger>,
    now: i64,
) -> Vec<(At, Resources)> {
    let Some(ledger) = ledger else {
        return Vec::new();
    };
    let entries = ledger.entries.iter();
    let decided =
        entries.map(|(cluster, held)| (cluster, Load::most_of_stages(&held.entry.stages, now)));
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

/// What Quotas are charged for an App, by cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Charged {
    /// By what was decided.
    pub(crate) decided: BTreeMap<At, Resources>,
    /// By what runs, where that is more: it shrinks, or somebody holds it. Room for it is not there yet.
    pub(crate) running: BTreeMap<At, Resources>,
}

impl Charged {
    /// What is charged.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&At, &Resources)> {
        let all = self.decided.iter();
        all.map(|(at, decided)| (at, self.running.get(at).unwrap_or(decided)))
    }
}

/// What Quotas are charged for an App in each cluster, by the ledger. Removals count until they are
/// acknowledged.
pub(crate) fn charged(
    fleet: &Fleet,
    print: Option<&Footprint>,
    ledger: Option<&AppLedger>,
    now: i64,
) -> Charged {
    let mut charged = Charged::default();
    let Some(ledger) = ledger else { return charged };
    for (cluster, held) in &ledger.entries {
        let Some(at) = fleet.position(cluster) else {
            continue;
        };
        let own;
        let due = match print {
            Some(print) if print.charge == held.entry.charge => &print.charges,
            Some(_) | None => {
                own = Charges::of(&held.entry.charge);
                &own
            }
        };
        let decided = Load::most_of_stages(&held.entry.stages, now).count();
        charged.decided.insert(at, due.at(decided));
        let report = ledger.reports.get(cluster);
        // What it did not tell of yet may run all the same, with what is over by now.
        let heard = report.is_some_and(|report| report.generation >= held.entry.generation);
        let stages = held.entry.stages.iter().filter(|_| !heard);
        let told = stages.map(|stage| Load::of_stage(stage).count()).max();
        if let Some(told) = told.filter(|told| *told > decided) {
            charged.running.insert(at, due.at(told));
        }
        // Reports count the replicas of all workloads of an App together; those of a DaemonSet are as many
        // as there are nodes, which is not known here.
        let alone = due.node.get("pods") == 0;
        let runs = report.map_or(0, |report| report.replicas);
        let runs = i64::from(runs).saturating_sub(due.fixed.get("pods"));
        if alone
            && runs
                > i64::from(told.unwrap_or(0).max(decided)) + surge_of(due.surge, decided.into())
        {
            let runs = i32::try_from(runs).unwrap_or(i32::MAX);
            charged.running.insert(at, due.at(runs));
        }
    }
    // Where a slice was lost, what is reported to run is held all the same.
    for (cluster, report) in &ledger.reports {
        let lost = report.content.is_some() && !ledger.entries.contains_key(cluster);
        if let (true, Some(print), Some(at)) = (lost, print, fleet.position(cluster)) {
            let running = print.charges.at(report.replicas);
            charged.decided.insert(at, running);
        }
    }
    charged
}

/// What an App is charged, and where it draws from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payer {
    /// By cluster; empty when its tenant is not limited.
    pub(crate) charged: Arc<Charged>,
    /// `None` when its tenant is not limited.
    pub(crate) desks: Option<Arc<Desks>>,
}

/// Where an App stands before anything is decided anew.
pub(crate) struct Standing<'a> {
    pub(crate) app: &'a ValidApp,
    pub(crate) uid: &'a Uid,
    /// What Quotas are charged for it.
    pub(crate) charged: Arc<Charged>,
    /// What earlier contents of it are charged that still run somewhere: in a rollout more replicas of
    /// one of them may be needed for a while.
    pub(crate) earlier: Vec<Charges>,
    /// What of its tenant's Quotas counts where; `None` when its tenant is not limited.
    pub(crate) desks: Option<Arc<Desks>>,
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

impl Standing<'_> {
    /// What so many replicas in a cluster may come to be charged: by the content that is wanted, or by one
    /// that still runs.
    pub(crate) fn need(&self, replicas: i32) -> Resources {
        let mut need = self.app.footprint.charges.at(replicas);
        for earlier in &self.earlier {
            need = need.at_least(&earlier.at(replicas));
        }
        need
    }
}

/// What the contents that are not wanted any more are charged.
fn earlier(ledger: Option<&AppLedger>, print: &Footprint) -> Vec<Charges> {
    let entries = ledger
        .into_iter()
        .flat_map(|ledger| ledger.entries.values());
    let mut earlier: Vec<Charges> = Vec::new();
    for held in entries.filter(|held| held.entry.charge != print.charge) {
        let due = Charges::of(&held.entry.charge);
        if !earlier.contains(&due) {
            earlier.push(due);
        }
    }
    earlier
}

/// Splits what an App has into what it may keep and what it must leave.
pub(crate) fn standing<'a>(
    world: &World,
    fleet: &Fleet,
    class: &Class,
    slot: &'a AppSlot,
    app: &'a ValidApp,
    payer: Payer,
) -> Standing<'a> {
    let mut standing = Standing {
        app,
        uid: &slot.uid,
        charged: payer.charged,
        earlier: Vec::new(),
        desks: payer.desks,
        keep: BTreeMap::new(),
        stays: BTreeSet::new(),
        frozen: BTreeMap::new(),
        leaving: BTreeMap::new(),
        releasing: BTreeSet::new(),
        open: Vec::new(),
        blocked: 0,
    };
    for (at, load) in current(fleet, world.ledger(&slot.uid), world.now) {
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
    if standing.desks.is_some() {
        standing.earlier = earlier(world.ledger(&slot.uid), &app.footprint);
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

/// Clusters in which an earlier App of the same name has not been removed yet, or an earlier namespace.
fn predecessors(world: &World, fleet: &Fleet, slot: &AppSlot) -> BTreeSet<At> {
    let mut blocked = BTreeSet::new();
    let key = (slot.namespace.clone(), slot.name.clone());
    let holders = world.entry_names.get(&key).into_iter().flatten();
    for uid in holders.filter(|uid| **uid != slot.uid) {
        let ledger = world.ledger(uid);
        let clusters = ledger.into_iter().flat_map(|l| l.entries.keys());
        blocked.extend(clusters.filter_map(|cluster| fleet.position(cluster)));
    }
    let home = world.home(&slot.namespace).into_iter();
    let going = home
        .flat_map(|l| &l.entries)
        .filter(|(_, held)| !held.entry.state.is_present());
    blocked.extend(going.filter_map(|(cluster, _)| fleet.position(cluster)));
    blocked
}
