//! The second judge on Quotas. It knows nothing of what was reserved, lent or remembered: it adds up what
//! every entry is charged, and what every grant gives on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{ClusterName, Entry, NamespaceName, RegionName, Uid};

use super::{Finding, Judge};
use crate::amount::Resources;
use crate::charge::Charges;
use crate::province::{QuotaWrite, SliceWrite};
use crate::quota::Grant;
use crate::world::{Accepted, GrantKey, World};

/// What limits: the Quota of a tenant for a Region, or, without a tenant, a Region's budget; and of which
/// resource.
pub type Limit = (Option<NamespaceName>, RegionName, Arc<str>);

/// What is used, and the most that may be.
pub type Use = (i64, i64);

/// What is in force: everywhere, or as it would be after a plan.
type InForce = BTreeMap<GrantKey, BTreeMap<Arc<str>, Grant>>;

fn in_force(world: &World) -> InForce {
    let all = world.accepted();
    all.map(|(key, accepted)| (key, (*accepted.grants).clone()))
        .collect()
}

/// The tenants above, from the name alone; nobody is above a namespace that is no tenant's.
fn above(world: &World, own: &NamespaceName) -> Vec<NamespaceName> {
    let plain = |slot: &crate::world::NamespaceSlot| slot.owner.is_none();
    if world.namespace(own).is_some_and(plain) {
        return Vec::new();
    }
    let parts: Vec<&str> = own.as_str().split('-').collect();
    let lengths = (1..parts.len()).rev();
    lengths.map(|n| parts[..n].join("-").into()).collect()
}

/// The Region and all above it.
fn region_line(world: &World, region: &RegionName) -> Vec<RegionName> {
    let mut line = vec![region.clone()];
    while let Some(slot) = line.last().and_then(|last| world.regions.get(last)) {
        let parent = slot.state.as_ref().ok().and_then(|r| r.parent.clone());
        match parent.filter(|parent| !line.contains(parent)) {
            Some(parent) => line.push(parent),
            None => break,
        }
    }
    line
}

/// Everything that limits what a namespace uses in a Region, from the inside out.
fn limits(
    world: &World,
    grants: &InForce,
    own: &NamespaceName,
    region: &RegionName,
    resource: &str,
) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut from = region.clone();
    let tenants = std::iter::once(own.clone()).chain(above(world, own));
    for tenant in tenants {
        let lists = |region: &RegionName| {
            let grant = grants.get(&(tenant.clone(), region.clone()));
            grant.is_some_and(|grant| grant.contains_key(resource))
        };
        if let Some(found) = region_line(world, &from).into_iter().find(lists) {
            limits.push((Some(tenant), found.clone(), resource.into()));
            from = found;
        }
    }
    // Budgets are for first tenants.
    let first = |(own, ..): &Limit| own.as_ref().is_some_and(|own| above(world, own).is_empty());
    if limits.last().is_some_and(first) && budget(world, &from, resource).is_some() {
        limits.push((None, from, resource.into()));
    }
    limits
}

fn budget(world: &World, region: &RegionName, resource: &str) -> Option<i64> {
    let region = world.regions.get(region)?.state.as_ref().ok()?;
    let mut budget = region.budget.iter();
    budget.find_map(|(name, amount)| (name == resource).then_some(amount))
}

fn most(world: &World, grants: &InForce, (own, region, resource): &Limit) -> i64 {
    match own {
        Some(own) => {
            let grant = grants.get(&(own.clone(), region.clone()));
            let grant = grant.and_then(|grant| grant.get(resource));
            grant.map_or(0, |grant| grant.nominal + grant.borrows)
        }
        None => budget(world, region, resource).unwrap_or(i64::MAX),
    }
}

/// What an App is charged in one cluster, and in whose namespace.
type Amount<'w> = (&'w NamespaceName, Resources);
/// What all Apps are charged.
type Amounts<'w> = BTreeMap<(&'w ClusterName, &'w Uid), Amount<'w>>;

/// What is used of every Quota and budget.
pub fn uses(world: &World) -> BTreeMap<Limit, Use> {
    add_up(world, &amounts(world, |_| true))
}

/// What is charged by all entries of the ledger; where a slice was lost, by what is reported to run.
fn amounts(world: &World, of: impl Fn(&NamespaceName) -> bool) -> Amounts<'_> {
    let mut amounts = Amounts::new();
    for (uid, ledger) in &world.ledger {
        for (cluster, held) in &ledger.entries {
            let amount = (&held.entry.namespace, charge(&held.entry, world.now));
            amounts.insert((cluster, uid), amount);
        }
        let Some(app) = world.app(uid) else { continue };
        for (cluster, report) in &ledger.reports {
            if report.content.is_some() && !ledger.entries.contains_key(cluster) {
                let running = app.footprint.charges.at(report.replicas);
                amounts.insert((cluster, uid), (&app.namespace, running));
            }
        }
    }
    amounts.retain(|_, (own, _)| of(own));
    amounts
}

fn add_up(world: &World, amounts: &Amounts<'_>) -> BTreeMap<Limit, Use> {
    let grants = in_force(world);
    let mut uses: BTreeMap<Limit, Use> = BTreeMap::new();
    for ((cluster, _), (own, charged)) in amounts {
        let slot = world.clusters.get(*cluster);
        let Some(region) = slot.and_then(|slot| Some(&slot.state.as_ref().ok()?.region)) else {
            continue;
        };
        for (resource, amount) in charged.iter() {
            for limit in limits(world, &grants, own, region, resource) {
                let most = most(world, &grants, &limit);
                uses.entry(limit).or_insert((0, most)).0 += amount;
            }
        }
    }
    uses
}

/// What an entry is charged at the largest stage that is not over yet.
fn charge(entry: &Entry, now: i64) -> Resources {
    let begun = |stage: &crds::Stage| stage.not_before.is_none_or(|at| at.millis() <= now);
    let first = entry.stages.iter().rposition(begun).unwrap_or(0);
    let count = |stage: &crds::Stage| {
        let most = stage.hpa.map(|bounds| bounds.max);
        most.or(stage.replicas).unwrap_or(1)
    };
    let ahead = entry.stages.get(first..).unwrap_or_default();
    let replicas = ahead.iter().map(count).max().unwrap_or(1);
    Charges::of(&entry.charge).at(replicas)
}

impl Judge<'_> {
    /// Nothing may come into force that gives more on than there is, and nothing may grow beyond what is
    /// in force.
    pub(super) fn quotas(&mut self) {
        self.granted();
        if self.world.quota_ledgers.is_empty() {
            return;
        }
        let growing = self.growing();
        if growing.is_empty() {
            return;
        }
        let roots: BTreeSet<&str> = growing.keys().map(String::as_str).collect();
        let before = amounts(self.world, |own| roots.contains(root(own)));
        let mut after = before.clone();
        for write in &self.plan.slices {
            for entry in self.changed(write) {
                if roots.contains(root(&entry.namespace)) {
                    let amount = (&entry.namespace, charge(entry, self.world.now));
                    after.insert((&write.cluster, &entry.uid), amount);
                }
            }
        }
        let (before, after) = (add_up(self.world, &before), add_up(self.world, &after));
        for (limit, (used, most)) in after {
            let had = before.get(&limit).map_or(0, |(used, _)| *used);
            if used > most && used > had {
                let by = limit.0.as_ref().map(root);
                let of = growing
                    .iter()
                    .filter(|(name, _)| by.is_none_or(|by| **name == *by));
                let uids = of.flat_map(|(_, uids)| uids.iter().cloned()).collect();
                let finding = Finding::Overdrawn(shown(&limit), used, most, uids);
                self.findings.push(finding);
            }
        }
    }

    /// Entries that a plan makes or changes.
    fn changed<'p>(&self, write: &'p SliceWrite) -> impl Iterator<Item = &'p Entry> {
        write.spec.entries.iter().filter(|entry| {
            let before = self.held(&write.cluster, &entry.uid);
            before.is_none_or(|before| before.generation < entry.generation)
        })
    }

    /// Apps that use more by this plan, by their first tenant.
    fn growing(&self) -> BTreeMap<String, BTreeSet<Uid>> {
        let mut roots: BTreeMap<String, BTreeSet<Uid>> = BTreeMap::new();
        let limited: BTreeSet<NamespaceName> =
            self.world.accepted().map(|((own, _), _)| own).collect();
        let limited: BTreeSet<&str> = limited.iter().map(root).collect();
        for write in &self.plan.slices {
            let entries = self.changed(write);
            for entry in entries.filter(|e| limited.contains(root(&e.namespace))) {
                let before = self.held(&write.cluster, &entry.uid);
                let had = before
                    .map(|before| charge(before, self.world.now))
                    .unwrap_or_default();
                let now = charge(entry, self.world.now);
                if now.iter().any(|(name, amount)| amount > had.get(name)) {
                    let mine = roots.entry(root(&entry.namespace).to_owned());
                    mine.or_default().insert(entry.uid.clone());
                }
            }
        }
        roots
    }

    /// Sums of what is granted on, before what is about to be written, and whatever part of it is stored:
    /// each Region has a ledger of its own.
    fn granted(&mut self) {
        let before = in_force(self.world);
        let mut after = before.clone();
        for write in &self.plan.quotas {
            let QuotaWrite::Ledger { region, grants, .. } = write else {
                continue;
            };
            after.retain(|(_, other), _| other != region);
            for grant in grants {
                let key = (grant.namespace.clone(), region.clone());
                after.insert(key, (*Accepted::of(grant).grants).clone());
            }
        }
        if before == after {
            return;
        }
        let had = given(self.world, &before, &before);
        let worst = merged(&before, &after, i64::max);
        let least = merged(&before, &after, i64::min);
        for (limit, (sum, nominal)) in given(self.world, &worst, &least) {
            let (sum_before, nominal_before) = had.get(&limit).copied().unwrap_or((0, nominal));
            if sum > nominal && (sum > sum_before || nominal < nominal_before) {
                self.findings
                    .push(Finding::Overgranted(shown(&limit), sum, nominal));
            }
        }
    }
}

/// What is in force before or after, each with the larger or the smaller of both nominal amounts.
fn merged(before: &InForce, after: &InForce, of: fn(i64, i64) -> i64) -> InForce {
    let mut merged = after.clone();
    for (key, resources) in before {
        let mine = merged.entry(key.clone()).or_default();
        for (resource, old) in resources {
            let grant = mine.entry(resource.clone()).or_insert(*old);
            grant.nominal = of(grant.nominal, old.nominal);
        }
    }
    merged
}

/// What every Quota and budget gives on, and what it `has`.
fn given(world: &World, grants: &InForce, has: &InForce) -> BTreeMap<Limit, (i64, i64)> {
    let mut given: BTreeMap<Limit, (i64, i64)> = BTreeMap::new();
    for ((own, region), resources) in grants {
        for (resource, grant) in resources {
            let line = limits(world, grants, own, region, resource);
            // The first is the grant itself.
            let Some(limit) = line.get(1) else { continue };
            let nominal = match &limit.0 {
                Some(above) => has[&(above.clone(), limit.1.clone())][resource].nominal,
                None => most(world, grants, limit),
            };
            given.entry(limit.clone()).or_insert((0, nominal)).0 += grant.nominal;
        }
    }
    given
}

fn root(own: &NamespaceName) -> &str {
    let name = own.as_str();
    name.split_once('-').map_or(name, |(root, _)| root)
}

fn shown((own, region, resource): &Limit) -> String {
    match own {
        Some(own) => format!("{resource} of {own} in Region {region}"),
        None => format!("{resource} in the budget of Region {region}"),
    }
}
