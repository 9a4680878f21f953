//! Which Quotas come into force. A change is accepted when the grants below one grant, as they would be
//! then, are no more than it has; otherwise it is refused with the amounts, and the last accepted values
//! stand. What is accepted takes effect once it is in the ledger: a change that needs another one, such as
//! a cut in another Region, waits until that is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{AcceptedGrant, AcceptedResource, NamespaceName, Reason, RegionName, Timestamp, Uid};

use super::Book;
use super::carving::Workbench;
use super::depth;
use super::docket::{Dockets, InForce, roots};
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
    /// It is being held or written down, or waits for what is.
    Coming,
    /// It is refused; what was in force before still is.
    Refused(Parked),
    /// It is being deleted, and what of it is in use goes first.
    Leaving(Parked),
}

/// Quotas as the decisions saw them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Granting {
    /// How each Quota stands that is not simply in force.
    pub standings: BTreeMap<QuotaKey, Standing>,
    /// What is to be in force.
    pub granted: Granted,
    /// Whether something waits until it is no longer used.
    pub(crate) leaving: bool,
    /// What is granted to first tenants, by Region.
    pub(crate) roots: BTreeMap<RegionName, Resources>,
}

impl Granting {
    /// How a Quota stands that is there.
    pub fn standing(&self, key: &QuotaKey) -> &Standing {
        self.standings.get(key).unwrap_or(&Standing::InForce)
    }

    /// Quotas that stand otherwise in another turn.
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<QuotaKey> {
        let all = self.standings.keys().chain(other.standings.keys());
        let differs = |key: &&QuotaKey| self.standings.get(*key) != other.standings.get(*key);
        all.filter(differs).cloned().collect()
    }
}

/// What is in force, by Region and tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Granted(BTreeMap<RegionName, InForce>);

impl Granted {
    /// As the ledgers say.
    fn of(world: &World) -> Self {
        let ledgers = world.quota_ledgers.iter();
        Self(
            ledgers
                .map(|(region, ledger)| (region.clone(), ledger.grants.clone()))
                .collect(),
        )
    }

    /// What is in force of one grant.
    pub fn get(&self, key: &GrantKey) -> Option<&Accepted> {
        self.0.get(&key.1)?.get(&key.0)
    }

    /// What is in force in a Region.
    pub(super) fn region(&self, region: &RegionName) -> Option<&InForce> {
        self.0.get(region)
    }

    fn insert(&mut self, key: &GrantKey, accepted: Accepted) {
        let region = self.0.entry(key.1.clone()).or_default();
        Arc::make_mut(region).insert(key.0.clone(), accepted);
    }

    fn remove(&mut self, key: &GrantKey) {
        if let Some(region) = self.0.get_mut(&key.1) {
            Arc::make_mut(region).remove(&key.0);
        }
    }
}

/// Decides on every Quota, given what is in force and what is used of it.
pub(crate) fn granting(
    world: &World,
    fleet: &Fleet,
    tenants: &Tenants,
    book: &Book,
    dockets: &mut Dockets,
) -> Granting {
    dockets.update(world, fleet, tenants);
    let standings = dockets.iter().flat_map(|(_, docket)| &docket.standings);
    let mut all = Granting {
        standings: standings.cloned().collect(),
        granted: Granted::of(world),
        ..Granting::default()
    };
    let mut bench = Workbench::new(world, fleet, book);
    // What asks for less makes room for what asks for more.
    let asked = asked(world, fleet, dockets);
    let (less, more): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, slot)| {
        let accepted = all.granted.get(&slot.grant);
        accepted.is_some_and(|accepted| shrinks(accepted, slot))
    });
    leave(world, dockets, &mut all, &mut bench, book);
    for (key, slot) in less.into_iter().rev().chain(more) {
        let standing = decide(world, &mut all.granted, &mut bench, slot);
        all.standings.insert(key.clone(), standing);
    }
    all.roots = roots_of(world, &all.granted, dockets);
    all
}

/// What is granted to first tenants, by Region.
fn roots_of(
    world: &World,
    granted: &Granted,
    dockets: &Dockets,
) -> BTreeMap<RegionName, Resources> {
    let one = |(region, now): (&RegionName, &InForce)| {
        let stored = world.quota_ledger(region);
        let known = dockets.get(region);
        let known = known.filter(|_| stored.is_some_and(|s| Arc::ptr_eq(&s.grants, now)));
        let sum = known.map_or_else(|| roots(now), |docket| docket.roots.clone());
        (region.clone(), sum)
    };
    let all = granted.0.iter().map(one);
    all.filter(|(_, sum)| *sum != Resources::default())
        .collect()
}

/// Quotas that are right by themselves and not in force as they are, in the order in which they are
/// heard: tenants above before those below, then by age.
fn asked<'w>(
    world: &'w World,
    fleet: &Fleet,
    dockets: &'w Dockets,
) -> Vec<(&'w QuotaKey, &'w QuotaSlot)> {
    let keys = dockets.iter().flat_map(|(_, docket)| &docket.asked);
    let mut asked: Vec<_> = keys
        .filter_map(|key| Some((key, world.quota(key)?)))
        .collect();
    asked.sort_by_cached_key(|(key, slot)| (depth(fleet, &slot.grant), slot.created, *key));
    asked
}

/// Whether a Quota asks for more of nothing.
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
    let Some(size) = bench.size_with(granted, key, &resources) else {
        let message = format!(
            "the Quotas of Region {} are as many, or as large, as their ledger can hold: delete some, list fewer resources, or grant for a Region above",
            key.1
        );
        return Standing::Refused(Parked::new(Reason::LedgerFull, message));
    };
    match bench.change(key, Some(grants)) {
        Ok(true) => bench.resize(&key.1, size),
        Ok(false) => return Standing::Coming,
        Err(parked) => return Standing::Refused(parked),
    }
    let accepted = Accepted {
        uid: slot.uid.clone(),
        since: Timestamp::from_millis(world.now),
        resources,
        grants: grants.clone(),
    };
    granted.insert(key, accepted);
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
fn leave(
    world: &World,
    dockets: &Dockets,
    all: &mut Granting,
    bench: &mut Workbench<'_>,
    book: &Book,
) {
    let key = |region: &RegionName, own: &NamespaceName| (own.clone(), region.clone());
    let gone = dockets.iter().flat_map(|(region, docket)| {
        let owns = docket.gone.iter();
        owns.map(move |own| key(region, own))
    });
    // Those of inner tenants before those of the tenants above.
    let gone: BTreeSet<GrantKey> = gone.collect();
    for key in gone.iter().rev() {
        if still_used(book, key).is_none() && bench.change(key, None).is_ok_and(|firm| firm) {
            all.granted.remove(key);
        } else {
            all.leaving = true;
        }
    }
    let deleting = dockets.iter().flat_map(|(_, docket)| &docket.deleting);
    for (key, slot) in deleting.filter_map(|key| Some((key, world.quota(key)?))) {
        let standing = if all.granted.get(&slot.grant).is_some() {
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
pub(crate) fn writes(world: &World, granting: &Granting, dockets: &Dockets) -> Vec<QuotaWrite> {
    let mut writes = Vec::new();
    let found = |key: &QuotaKey| Some((key.clone(), world.quota(key)?));
    let unheld = dockets.iter().flat_map(|(_, docket)| &docket.unheld);
    for (key, slot) in unheld.filter_map(found) {
        writes.push(QuotaWrite::Hold(key, slot.uid.clone()));
    }
    for (region, wanted) in &granting.granted.0 {
        let stored = world.quota_ledger(region);
        let same = |stored: &InForce| Arc::ptr_eq(stored, wanted) || stored == wanted;
        if !stored.map_or(wanted.is_empty(), |stored| same(&stored.grants)) {
            let version = stored.map(|ledger| ledger.resource_version.clone());
            writes.push(ledger(region, wanted, version));
        }
    }
    let deleting = dockets.iter().flat_map(|(_, docket)| &docket.deleting);
    for (key, slot) in deleting.filter_map(found).filter(|(_, slot)| slot.held) {
        // Not before the ledger that is stored has nothing of it.
        let ledger = world.quota_ledger(&slot.grant.1);
        let there = ledger.and_then(|ledger| ledger.grants.get(&slot.grant.0));
        if there.is_none_or(|accepted| accepted.uid != slot.uid) {
            writes.push(QuotaWrite::Release(key, slot.uid.clone()));
        }
    }
    writes
}

fn ledger(
    region: &RegionName,
    wanted: &BTreeMap<NamespaceName, Accepted>,
    resource_version: Option<String>,
) -> QuotaWrite {
    let one = |(own, accepted): (&NamespaceName, &Accepted)| AcceptedGrant {
        namespace: own.clone(),
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
