//! What is known of the Quotas of one Region by themselves, before anybody weighs them against each
//! other. It is kept until one of them changes, so that a turn costs what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{NamespaceName, Reason, RegionName};

use super::accept::Standing;
use crate::amount::Resources;
use crate::province::regions::{Fleet, RegionView};
use crate::province::tenants::Tenants;
use crate::world::{Accepted, Parked, QuotaKey, QuotaSlot, World};

/// What is in force in a Region, by the namespace that the tenant owns.
pub(super) type InForce = Arc<BTreeMap<NamespaceName, Accepted>>;

/// Dockets of all Regions.
#[derive(Debug, Default)]
pub(crate) struct Dockets(BTreeMap<RegionName, Docket>);

/// The Quotas of one Region that are not simply in force.
#[derive(Debug)]
pub(super) struct Docket {
    seen: Seen,
    /// How those stand of which that is clear.
    pub(super) standings: Vec<(QuotaKey, Standing)>,
    /// Those that ask for something that is not in force.
    pub(super) asked: Vec<QuotaKey>,
    /// Those that are to be held.
    pub(super) unheld: Vec<QuotaKey>,
    /// Those that are being deleted.
    pub(super) deleting: Vec<QuotaKey>,
    /// What is in force and no longer asked for.
    pub(super) gone: Vec<NamespaceName>,
    /// What is granted to first tenants.
    pub(super) roots: Resources,
}

/// What a docket was made from.
#[derive(Debug)]
struct Seen {
    clock: u64,
    tenancy: u64,
    in_force: Option<InForce>,
}

impl Seen {
    fn is(&self, other: &Self) -> bool {
        let same = match (&self.in_force, &other.in_force) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same && (self.clock, self.tenancy) == (other.clock, other.tenancy)
    }
}

impl Dockets {
    /// Brings the dockets up to date.
    pub(super) fn update(&mut self, world: &World, fleet: &Fleet, tenants: &Tenants) {
        let regions: BTreeSet<&RegionName> = regions(world).collect();
        self.0.retain(|region, _| regions.contains(region));
        for region in regions {
            let quotas = world.quota_index.regions.get(region);
            let seen = Seen {
                clock: quotas.map_or(0, |quotas| quotas.clock),
                tenancy: world.tenancy,
                in_force: world
                    .quota_ledger(region)
                    .map(|ledger| ledger.grants.clone()),
            };
            if !self.0.get(region).is_some_and(|known| known.seen.is(&seen)) {
                let docket = Docket::of(world, fleet, tenants, region, seen);
                self.0.insert(region.clone(), docket);
            }
        }
    }

    /// One of a Region.
    pub(super) fn get(&self, region: &RegionName) -> Option<&Docket> {
        self.0.get(region)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RegionName, &Docket)> {
        self.0.iter()
    }
}

/// Regions with Quotas, or with something in force.
pub(super) fn regions(world: &World) -> impl Iterator<Item = &RegionName> {
    let asked = world.quota_index.regions.keys();
    asked.chain(world.quota_ledgers.keys())
}

impl Docket {
    fn of(
        world: &World,
        fleet: &Fleet,
        tenants: &Tenants,
        region: &RegionName,
        seen: Seen,
    ) -> Self {
        let nothing = BTreeMap::new();
        let in_force = seen.in_force.clone();
        let in_force = in_force.as_deref().unwrap_or(&nothing);
        let mut docket = Self {
            seen,
            standings: Vec::new(),
            asked: Vec::new(),
            unheld: Vec::new(),
            deleting: Vec::new(),
            gone: Vec::new(),
            roots: roots(in_force),
        };
        let view = fleet.regions.get(region);
        // Both are in the order of tenants, so that they are walked side by side.
        let mut stored = in_force.iter().peekable();
        let quotas = world.quota_index.regions.get(region).into_iter();
        let asked = quotas.flat_map(|quotas| &quotas.quotas);
        let mut alive: Option<&NamespaceName> = None;
        for ((own, key), slot) in asked {
            if slot.deleting {
                docket.deleting.push(key.clone());
                continue;
            }
            while let Some((gone, _)) = stored.next_if(|(other, _)| *other < own) {
                docket
                    .gone
                    .extend((alive != Some(gone)).then(|| gone.clone()));
            }
            alive = Some(own);
            let accepted = stored.peek().filter(|(other, _)| *other == own);
            let accepted = accepted.map(|(_, accepted)| *accepted);
            docket.enter(fleet, tenants, view, accepted, (key, slot));
        }
        for (gone, _) in stored {
            docket
                .gone
                .extend((alive != Some(gone)).then(|| gone.clone()));
        }
        docket
    }

    fn enter(
        &mut self,
        fleet: &Fleet,
        tenants: &Tenants,
        view: Option<&RegionView>,
        accepted: Option<&Accepted>,
        (key, slot): (&QuotaKey, &QuotaSlot),
    ) {
        if !slot.held && slot.state.is_ok() {
            self.unheld.push(key.clone());
        }
        if let Some(parked) = objection(fleet, tenants, view, key, slot) {
            let standing = Standing::Refused(parked);
            self.standings.push((key.clone(), standing));
        } else if !slot.held {
            self.standings.push((key.clone(), Standing::Coming));
        } else if !accepted.is_some_and(|accepted| is_in_force(accepted, slot)) {
            self.asked.push(key.clone());
        }
    }
}

/// Whether what a Quota asks for is in force.
fn is_in_force(accepted: &Accepted, slot: &QuotaSlot) -> bool {
    let asks = |asked: &Arc<_>| *asked == accepted.grants;
    accepted.uid == slot.uid && slot.state.as_ref().is_ok_and(asks)
}

/// What is granted to first tenants in a Region.
pub(super) fn roots(in_force: &BTreeMap<NamespaceName, Accepted>) -> Resources {
    let mut sum = Resources::default();
    let first = |own: &NamespaceName| !own.as_str().contains('-');
    for (_, accepted) in in_force.iter().filter(|(own, _)| first(own)) {
        for (resource, grant) in &*accepted.grants {
            sum.set(resource, sum.get(resource) + grant.nominal);
        }
    }
    sum
}

/// What is wrong with a Quota whatever others ask for.
fn objection(
    fleet: &Fleet,
    tenants: &Tenants,
    view: Option<&RegionView>,
    key: &QuotaKey,
    slot: &QuotaSlot,
) -> Option<Parked> {
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
    let Some(view) = view else {
        let message = format!(
            "spec.regionName {region} does not exist or is parked: create the Region, or name another one"
        );
        return Some(Parked::new(Reason::RegionMissing, message));
    };
    let may = owner.limits.regions.as_ref();
    let within = |tops: &BTreeSet<RegionName>| view.line.iter().any(|name| tops.contains(name));
    let contains = |tops: &BTreeSet<RegionName>| {
        let mut lines = tops.iter().filter_map(|top| fleet.regions.get(top));
        lines.any(|top| top.line.contains(region))
    };
    if may.is_some_and(|tops| !within(tops) && !contains(tops)) {
        let message = format!(
            "spec.regionName {region} is not among the Regions that Tenant {tenant} may use: add it to the Tenant's spec.regions, or name another one"
        );
        return Some(Parked::new(Reason::RegionNotAllowed, message));
    }
    None
}
