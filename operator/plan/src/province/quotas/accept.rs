//! Which Quotas come into force. A change is accepted when the grants below one grant, as they would be
//! then, are no more than it has; otherwise it is refused with the amounts, and the last accepted values
//! stand. What is accepted takes effect once it is in the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{AcceptedGrant, AcceptedResource, Reason, RegionName, Timestamp, Uid};

use super::Book;
use super::carving::Workbench;
use super::depth;
use crate::amount::{Resources, format_amount};
use crate::province::regions::Fleet;
use crate::province::tenants::Tenants;
use crate::world::{Accepted, GrantKey, Grants, Parked, QuotaKey, QuotaSlot, World};

/// One write for Quotas.
#[derive(Clone, Debug, PartialEq)]
pub enum QuotaWrite {
    /// Hold the Quota by our finalizer before anything of it is in force.
    Hold(QuotaKey, Uid),
    /// Write down what of a Region's Quotas is in force.
    Ledger {
        /// The Region.
        region: RegionName,
        /// Version to replace; absent to create.
        resource_version: Option<String>,
        /// What is in force.
        grants: Vec<AcceptedGrant>,
    },
    /// Let the Quota go: nothing of it is in force any more.
    Release(QuotaKey, Uid),
}

/// How a Quota stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What it asks for is in force.
    InForce,
    /// It is being held or written down.
    Coming,
    /// It is refused; what was in force before still is.
    Refused(Parked),
    /// It is being deleted, and what of it is in use goes first.
    Leaving(Parked),
}

/// Quotas as the decisions saw them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Granting {
    /// How each Quota stands.
    pub standings: BTreeMap<QuotaKey, Standing>,
    /// What is to be in force.
    pub granted: Granted,
    /// Whether something waits until it is no longer used.
    pub(crate) leaving: bool,
    /// What is granted to first tenants, by Region.
    pub(crate) roots: BTreeMap<RegionName, Resources>,
}

impl Granting {
    /// Quotas that stand otherwise in another turn, or not at all.
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<QuotaKey> {
        let (mine, theirs) = (&self.standings, &other.standings);
        let differs = |(key, standing): &(&QuotaKey, &Standing)| mine.get(*key) != Some(*standing);
        let changed = theirs.iter().filter(differs).map(|(key, _)| key);
        let gone = mine.keys().filter(|key| !theirs.contains_key(*key));
        changed.chain(gone).cloned().collect()
    }
}

/// What is in force, by Region and tenant.
pub type Granted = BTreeMap<GrantKey, Accepted>;

/// Decides on every Quota, given what is in force and what is used of it.
pub(crate) fn granting(world: &World, fleet: &Fleet, tenants: &Tenants, book: &Book) -> Granting {
    let mut all = Granting {
        granted: world.accepted().map(|(key, a)| (key, a.clone())).collect(),
        ..Granting::default()
    };
    let asked = asked(world, &mut all, fleet, tenants);
    let mut bench = Workbench::new(world, fleet);
    // What asks for less makes room for what asks for more.
    let (less, more): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, slot)| {
        all.granted
            .get(&slot.grant)
            .is_some_and(|a| shrinks(a, slot))
    });
    leave(world, &mut all, &mut bench, book);
    for (key, slot) in less.into_iter().rev().chain(more) {
        let standing = decide(world, &mut all.granted, &mut bench, slot);
        all.standings.insert(key.clone(), standing);
    }
    all.roots = roots(&all.granted);
    all
}

/// What is granted to first tenants, by Region.
fn roots(granted: &Granted) -> BTreeMap<RegionName, Resources> {
    let mut roots: BTreeMap<RegionName, Resources> = BTreeMap::new();
    for ((own, region), accepted) in granted {
        if !own.as_str().contains('-') {
            let sum = roots.entry(region.clone()).or_default();
            for (resource, grant) in &*accepted.grants {
                sum.set(resource, sum.get(resource) + grant.nominal);
            }
        }
    }
    roots
}

/// Quotas that are right by themselves and not in force as they are, in the order in which they are
/// heard: tenants above before those below, then by age.
fn asked<'w>(
    world: &'w World,
    all: &mut Granting,
    fleet: &Fleet,
    tenants: &Tenants,
) -> Vec<(&'w QuotaKey, &'w QuotaSlot)> {
    let mut asked = Vec::new();
    for (key, slot) in world.quotas().filter(|(_, slot)| !slot.deleting) {
        let standing = match objection(fleet, tenants, key, slot) {
            Some(parked) => Standing::Refused(parked),
            None if !slot.held => Standing::Coming,
            None if in_force(&all.granted, slot) => Standing::InForce,
            None => {
                asked.push((key, slot));
                continue;
            }
        };
        all.standings.insert(key.clone(), standing);
    }
    asked.sort_by_cached_key(|(key, slot)| (depth(fleet, &slot.grant), slot.created, *key));
    asked
}

/// Whether what a Quota asks for is in force.
fn in_force(granted: &Granted, slot: &QuotaSlot) -> bool {
    let accepted = granted.get(&slot.grant);
    accepted.is_some_and(|accepted| {
        accepted.uid == slot.uid && slot.state.as_ref().is_ok_and(|g| *g == accepted.grants)
    })
}

/// What is wrong with a Quota whatever others ask for.
fn objection(fleet: &Fleet, tenants: &Tenants, key: &QuotaKey, slot: &QuotaSlot) -> Option<Parked> {
    let (own, region) = &slot.grant;
    if let Err(parked) = &slot.state {
        return Some(parked.clone());
    }
    let tenant = key.1.split('.').next().unwrap_or_default();
    let Some(owner) = tenants.owners.get(own).filter(|view| view.key.0 == key.0) else {
        let message = format!(
            "spec.tenantName {tenant} is no Tenant of namespace {} that stands: create it, or name another one",
            key.0
        );
        return Some(Parked::new(Reason::TenantMissing, message));
    };
    let Some(view) = fleet.regions.get(region) else {
        let message = format!(
            "spec.regionName {region} does not exist or is parked: create the Region, or name another one"
        );
        return Some(Parked::new(Reason::RegionMissing, message));
    };
    let may = owner.limits.regions.as_ref();
    let within = |tops: &BTreeSet<RegionName>| view.line.iter().any(|name| tops.contains(name));
    let contains = |tops: &BTreeSet<RegionName>| {
        let line = |top| {
            fleet
                .regions
                .get(top)
                .map(|view: &super::super::RegionView| &view.line)
        };
        tops.iter()
            .any(|top| line(top).is_some_and(|line| line.contains(region)))
    };
    if may.is_some_and(|tops| !within(tops) && !contains(tops)) {
        let message = format!(
            "spec.regionName {region} is not among the Regions that Tenant {tenant} may use: add it to the Tenant's spec.regions, or name another one"
        );
        return Some(Parked::new(Reason::RegionNotAllowed, message));
    }
    None
}

/// Whether a Quota asks for less of something and for more of nothing.
fn shrinks(accepted: &Accepted, slot: &QuotaSlot) -> bool {
    let Ok(asked) = &slot.state else { return false };
    let nominal = |grants: &Grants, name: &str| grants.get(name).map_or(0, |grant| grant.nominal);
    let mut asked = asked.iter();
    asked.all(|(name, grant)| grant.nominal <= nominal(&accepted.grants, name))
}

/// Takes a Quota into force, or says why not.
fn decide(
    world: &World,
    granted: &mut Granted,
    bench: &mut Workbench<'_>,
    slot: &QuotaSlot,
) -> Standing {
    let Ok(grants) = &slot.state else {
        return Standing::Coming;
    };
    let key = &slot.grant;
    let resources: Arc<[AcceptedResource]> = listed(grants).into();
    if !bench.has_place(granted, key, &resources) {
        let message = format!(
            "the Quotas of Region {} are as many, or as large, as their ledger can hold: delete some, list fewer resources, or grant for a Region above",
            key.1
        );
        return Standing::Refused(Parked::new(Reason::LedgerFull, message));
    }
    if let Err(parked) = bench.change(key, Some(grants)) {
        return Standing::Refused(parked);
    }
    let accepted = Accepted {
        uid: slot.uid.clone(),
        since: Timestamp::from_millis(world.now),
        resources,
        grants: grants.clone(),
    };
    granted.insert(key.clone(), accepted);
    Standing::Coming
}

/// Grants as a ledger lists them.
fn listed(grants: &Grants) -> Vec<AcceptedResource> {
    let mut all = Vec::with_capacity(grants.len());
    for (name, grant) in grants {
        let text = |amount| crds::Quantity(format_amount(name, amount));
        all.push(AcceptedResource {
            name: name.to_string(),
            nominal: text(grant.nominal),
            borrowing_limit: text(grant.borrows),
            lending_limit: text(grant.lends),
        });
    }
    all
}

/// Takes out of force what is no longer asked for, once nothing of it is granted on and what is used of
/// it can be used of the Quota above. A root's stays until nothing is used.
fn leave(world: &World, all: &mut Granting, bench: &mut Workbench<'_>, book: &Book) {
    let alive: BTreeSet<&GrantKey> = world
        .quotas()
        .filter(|(_, slot)| !slot.deleting)
        .map(|(_, slot)| &slot.grant)
        .collect();
    let gone: Vec<GrantKey> = all
        .granted
        .keys()
        .filter(|key| !alive.contains(key))
        .cloned()
        .collect();
    for key in gone.iter().rev() {
        if still_used(book, key).is_none() && bench.change(key, None).is_ok() {
            all.granted.remove(key);
        } else {
            all.leaving = true;
        }
    }
    for (key, slot) in world.quotas().filter(|(_, slot)| slot.deleting) {
        let standing = if all.granted.contains_key(&slot.grant) {
            let why = still_used(book, &slot.grant)
                .unwrap_or_else(|| "what of it is in force goes first".to_owned());
            Standing::Leaving(Parked::new(Reason::InUse, why))
        } else {
            Standing::Coming
        };
        all.standings.insert(key.clone(), standing);
    }
}

/// What is still used or granted on of a grant, if that keeps it in force.
fn still_used(book: &Book, key: &GrantKey) -> Option<String> {
    let tree = book.tree();
    book.nodes(key).iter().find_map(|(resource, node)| {
        let text = |amount| format_amount(resource, amount);
        let carved = tree.carved(*node);
        if carved > 0 {
            return Some(format!(
                "{} {resource} of it are granted on to the tenant's own tenants: delete their Quotas first",
                text(carved)
            ));
        }
        let child = tree.parent(*node).is_some_and(|parent| matches!(book.name(parent).0, super::Source::Quota(_)));
        let own = tree.own(*node);
        (!child && own > 0).then(|| {
            format!(
                "{} {resource} of it are in use: delete the tenant's Apps in Region {} first, or move them away",
                text(own), key.1
            )
        })
    })
}

/// What is to be written: holds, ledgers, and Quotas to let go.
pub(crate) fn writes(world: &World, granting: &Granting) -> Vec<QuotaWrite> {
    let mut writes = Vec::new();
    for (key, slot) in world.quotas() {
        if !slot.deleting && !slot.held && slot.state.is_ok() {
            writes.push(QuotaWrite::Hold(key.clone(), slot.uid.clone()));
        }
    }
    let mut by_region: BTreeMap<&RegionName, Vec<(&GrantKey, &Accepted)>> = BTreeMap::new();
    for (key, accepted) in &granting.granted {
        by_region.entry(&key.1).or_default().push((key, accepted));
    }
    let regions = by_region.keys().copied().chain(world.quota_ledgers.keys());
    for region in regions.collect::<BTreeSet<_>>() {
        let wanted = by_region.get(region).map_or(&[][..], Vec::as_slice);
        let stored = world.quota_ledger(region);
        let same = stored.is_some_and(|stored| {
            let now = wanted.iter().map(|(key, accepted)| (&key.0, *accepted));
            stored.grants.iter().eq(now)
        });
        if !same {
            writes.push(ledger(
                region,
                wanted,
                stored.map(|l| l.resource_version.clone()),
            ));
        }
    }
    let leaving = world
        .quotas()
        .filter(|(_, slot)| slot.deleting && slot.held);
    for (key, slot) in leaving {
        // Not before the ledger that is stored has nothing of it.
        let ledger = world.quota_ledger(&slot.grant.1);
        let there = ledger.and_then(|ledger| ledger.grants.get(&slot.grant.0));
        if there.is_none_or(|accepted| accepted.uid != slot.uid) {
            writes.push(QuotaWrite::Release(key.clone(), slot.uid.clone()));
        }
    }
    writes
}

fn ledger(
    region: &RegionName,
    wanted: &[(&GrantKey, &Accepted)],
    resource_version: Option<String>,
) -> QuotaWrite {
    let one = |(key, accepted): &(&GrantKey, &Accepted)| AcceptedGrant {
        namespace: key.0.clone(),
        uid: accepted.uid.clone(),
        since: accepted.since,
        resources: accepted.resources.to_vec(),
    };
    QuotaWrite::Ledger {
        region: region.clone(),
        resource_version,
        grants: wanted.iter().map(one).collect(),
    }
}
