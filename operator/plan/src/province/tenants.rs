//! Step: tenants. Who owns which namespace, and what each may use: what its parent may, less what its
//! own spec leaves out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{DataGrade, NamespaceName, Reason, RegionName, SYSTEM_NAMESPACE, Tier, Uid, Zone};

use super::regions::Fleet;
use crate::world::{
    NamespaceSlot, Parked, TenantKey, TenantSlot, ValidTenant, World, home_of, owned_namespace,
};

/// Tenants below each other, the first included.
const DEPTH_MAX: usize = 4;
const ZONES: [Zone; 3] = [
    Zone::Internet,
    Zone::ExtranetPublic,
    Zone::ExtranetDedicated,
];

/// All tenants, as decisions see them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tenants {
    /// Those that are right, by the namespace that they own.
    pub owners: BTreeMap<NamespaceName, Arc<TenantView>>,
    /// The others, and why.
    pub parked: BTreeMap<TenantKey, Parked>,
    /// Namespaces whose Tenant is not there or parked, and what that means for their Apps.
    vacant: BTreeMap<NamespaceName, Parked>,
}

/// A tenant as decisions see it.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantView {
    /// Where it lives, and its name.
    pub key: TenantKey,
    /// UID.
    pub uid: Uid,
    /// The namespace that it owns, then those of the tenants above.
    pub line: Vec<NamespaceName>,
    /// The Tenant.
    pub tenant: Arc<ValidTenant>,
    /// What it may use.
    pub limits: Arc<Limits>,
    /// What it asks for and cannot have, if anything; the rest it may use all the same.
    pub objection: Option<Parked>,
    /// What is known of its namespace.
    pub place: Place,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// What is known of a tenant's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is to be made.
    Absent,
    /// It is there, belongs to nobody, and says that this tenant may have it.
    Claimable(Uid),
    /// It is the tenant's.
    Owned(Uid),
    /// It is the tenant's and being deleted.
    Going,
    /// It is somebody else's; why.
    Taken(String),
}

/// What a tenant may use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limits {
    /// Regions whose subtrees it may use; `None` means all.
    pub regions: Option<BTreeSet<RegionName>>,
    /// Zones.
    pub zones: BTreeSet<Zone>,
    /// Highest grade of data.
    pub grade: DataGrade,
    /// Highest tier of Apps.
    pub tier: Tier,
}

impl Limits {
    /// No limit.
    pub fn none() -> Self {
        Self {
            regions: None,
            zones: ZONES.into(),
            grade: DataGrade::Core,
            tier: Tier::Core,
        }
    }

    /// Why an App is parked for its tier, if it is: nobody raises himself above others.
    pub(crate) fn tier_objection(&self, tier: Tier) -> Option<Parked> {
        (tier < self.tier).then(|| {
            let message = format!(
                "spec.tier {tier:?} is above {:?}, which is the highest that its tenant may have: lower it, or let whoever runs the tenant above raise spec.maxTier",
                self.tier
            );
            Parked::new(Reason::TierExceeded, message)
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::none()
    }
}

impl Tenants {
    /// The tenant whose namespace this is. One whose namespace is somebody else's, or not its own yet,
    /// has no say there.
    pub fn owner(&self, namespace: &NamespaceName) -> Option<&Arc<TenantView>> {
        let view = self.owners.get(namespace)?;
        matches!(view.place, Place::Owned(_) | Place::Going).then_some(view)
    }

    /// Why Apps of a namespace are parked, if they are. A namespace that no Tenant owns and none may
    /// claim is a tenant of its own, without limits.
    pub(crate) fn objection(&self, namespace: &NamespaceName) -> Option<Parked> {
        let Some(view) = self.owners.get(namespace) else {
            return self.vacant.get(namespace).cloned();
        };
        let says = |reason, what| {
            let (home, name) = &view.key;
            Some(Parked::new(
                reason,
                format!("Tenant {name} in namespace {home} {what}"),
            ))
        };
        match view.place {
            Place::Owned(_) | Place::Going if view.deleting => {
                says(Reason::Deleting, "is being deleted")
            }
            Place::Claimable(_) => says(Reason::InProgress, "is about to own this namespace"),
            // A namespace of a Tenant that is gone waits for somebody's word.
            Place::Taken(_) => self.vacant.get(namespace).cloned(),
            Place::Owned(_) | Place::Going | Place::Absent => None,
        }
    }

    /// Namespaces about which anything is said.
    pub(crate) fn homes(&self) -> impl Iterator<Item = &NamespaceName> {
        self.owners.keys().chain(self.vacant.keys())
    }

    /// Everything about a namespace that decisions on its Apps depend on.
    pub(crate) fn says(&self, namespace: &NamespaceName) -> (Option<&Limits>, Option<Parked>) {
        let limits = self.owner(namespace).map(|owner| &*owner.limits);
        (limits, self.objection(namespace))
    }
}

/// All tenants, parents before their children.
pub(crate) fn tenants(world: &World, fleet: &Fleet) -> Tenants {
    let mut tenants = Tenants::default();
    let mut next: Vec<NamespaceName> = vec![SYSTEM_NAMESPACE.into()];
    while let Some(home) = next.pop() {
        for (key, slot) in world.tenants_in(&home) {
            match view(world, fleet, &tenants, key, slot) {
                Ok(view) => {
                    // Of a namespace that is not really its own it is nobody's parent.
                    if matches!(view.place, Place::Owned(_) | Place::Going) {
                        next.push(view.line[0].clone());
                    }
                    tenants.owners.insert(view.line[0].clone(), Arc::new(view));
                }
                Err(parked) => drop(tenants.parked.insert(key.clone(), parked)),
            }
        }
    }
    let seen: BTreeSet<TenantKey> = tenants
        .owners
        .values()
        .map(|view| view.key.clone())
        .collect();
    let lost = world.tenants().map(|(key, _)| key);
    for key in lost.filter(|key| !seen.contains(*key)) {
        let missing = || {
            let home = &key.0;
            Parked::new(
                Reason::TenantMissing,
                format!(
                    "metadata.namespace {home} is owned by no tenant that stands: create a Tenant in {SYSTEM_NAMESPACE} or in a namespace that a tenant owns"
                ),
            )
        };
        tenants.parked.entry(key.clone()).or_insert_with(missing);
    }
    tenants.vacant = vacant(world, &tenants);
    tenants
}

/// Namespaces that belong to a Tenant, or may be claimed by one, that does not stand.
fn vacant(world: &World, tenants: &Tenants) -> BTreeMap<NamespaceName, Parked> {
    let parked: BTreeMap<NamespaceName, (&TenantKey, &Parked)> = tenants
        .parked
        .iter()
        .map(|(key, parked)| (owned_namespace(key), (key, parked)))
        .collect();
    let spoken_for = world.namespaces.iter().filter(|(name, slot)| {
        let claimed = slot.claim.as_ref() == Some(*name);
        let stands = tenants.owner(name).is_some() || claimed && tenants.owners.contains_key(*name);
        (slot.owner.is_some() || claimed) && !stands
    });
    let why = |(name, slot): (&NamespaceName, &NamespaceSlot)| {
        let why = match (parked.get(name), &slot.owner) {
            (Some((key, parked)), _) => Parked::new(
                parked.reason,
                format!(
                    "Tenant {} in namespace {}: {}",
                    key.1, key.0, parked.message
                ),
            ),
            (None, Some(owner)) => Parked::new(
                Reason::TenantMissing,
                format!(
                    "namespace {name} belongs to a Tenant with UID {owner} that is gone: {}",
                    to_claim(name)
                ),
            ),
            (None, None) => {
                let (home, tenant) = home_of(name);
                Parked::new(
                    Reason::TenantMissing,
                    format!(
                        "namespace {name} is kept for a Tenant: create Tenant {tenant} in namespace {home}, or take the label jiuzhou.io/claim away"
                    ),
                )
            }
        };
        (name.clone(), why)
    };
    spoken_for.map(why).collect()
}

/// What to do about a namespace whose Tenant is gone.
fn to_claim(namespace: &NamespaceName) -> String {
    let (home, tenant) = home_of(namespace);
    format!(
        "delete the namespace, or take its annotation jiuzhou.io/tenant-uid away and set its label jiuzhou.io/claim to {namespace} to let Tenant {tenant} of namespace {home} have it"
    )
}

fn view(
    world: &World,
    fleet: &Fleet,
    above: &Tenants,
    key: &TenantKey,
    slot: &TenantSlot,
) -> Result<TenantView, Parked> {
    let tenant = slot.state.clone()?;
    let parent = above.owner(&key.0);
    let own = owned_namespace(key);
    let mut line = vec![own.clone()];
    line.extend(parent.iter().flat_map(|parent| parent.line.iter().cloned()));
    if line.len() > DEPTH_MAX {
        return Err(Parked::new(
            Reason::TooDeep,
            format!(
                "metadata.namespace {} is owned by a tenant of depth {DEPTH_MAX}, which is the deepest there is: create the Tenant further up",
                key.0
            ),
        ));
    }
    let unlimited = Arc::new(Limits::none());
    let most = parent.map_or(&unlimited, |parent| &parent.limits);
    let (limits, objection) = limits(fleet, &tenant, most);
    Ok(TenantView {
        key: key.clone(),
        uid: slot.uid.clone(),
        line,
        tenant,
        limits: Arc::new(limits),
        objection,
        place: place(&own, &slot.uid, world.namespaces.get(&own)),
        deleting: slot.deleting || parent.is_some_and(|parent| parent.deleting),
    })
}

/// What a tenant may use, and what it asks for and cannot have.
fn limits(fleet: &Fleet, tenant: &ValidTenant, most: &Limits) -> (Limits, Option<Parked>) {
    let mut objection = None;
    let mut say = |reason: Reason, message: String| {
        objection.get_or_insert_with(|| Parked::new(reason, message));
    };
    let regions = regions(fleet, tenant, most, &mut say);
    let zones = if tenant.zones.is_empty() {
        most.zones.clone()
    } else {
        for zone in tenant.zones.difference(&most.zones) {
            say(
                Reason::ExceedsParent,
                format!(
                    "spec.zones names {zone:?}, which its parent may not use: leave it out, or let the parent use it"
                ),
            );
        }
        tenant.zones.intersection(&most.zones).copied().collect()
    };
    let asked = tenant.max_data_grade.unwrap_or(most.grade);
    if asked > most.grade {
        let message = format!(
            "spec.maxDataGrade {asked:?} is above its parent's {:?}: lower it, or raise the parent's",
            most.grade
        );
        say(Reason::ExceedsParent, message);
    }
    let tier = tenant.max_tier.unwrap_or(most.tier);
    if tier < most.tier {
        let message = format!(
            "spec.maxTier {tier:?} is above its parent's {:?}: lower it, or raise the parent's",
            most.tier
        );
        say(Reason::ExceedsParent, message);
    }
    if regions.as_ref().is_some_and(BTreeSet::is_empty) {
        let message = "spec.regions leaves no Region that it and all above it may use: add one of its parent's, or let the parent have more";
        say(Reason::ExceedsParent, message.to_owned());
    }
    if zones.is_empty() {
        let message = "spec.zones leaves no zone that it and all above it may use: add one of its parent's, or let the parent use more";
        say(Reason::ExceedsParent, message.to_owned());
    }
    let limits = Limits {
        regions,
        zones,
        grade: asked.min(most.grade),
        // The first of the tiers is the highest.
        tier: tier.max(most.tier),
    };
    (limits, objection)
}

/// Regions that a tenant may use; `None` means all.
fn regions(
    fleet: &Fleet,
    tenant: &ValidTenant,
    most: &Limits,
    say: &mut impl FnMut(Reason, String),
) -> Option<BTreeSet<RegionName>> {
    if tenant.regions.is_empty() {
        return most.regions.clone();
    }
    let mut within = BTreeSet::new();
    for name in &tenant.regions {
        let found = overlap(fleet, name, most.regions.as_ref());
        if !fleet.regions.contains_key(name) {
            let message = format!(
                "spec.regions names {name}, which does not exist or is parked: create it, or leave it out"
            );
            say(Reason::RegionMissing, message);
        } else if !found.contains(name) {
            let message = format!(
                "spec.regions names {name}, which is not among the Regions of its parent{}: leave it out, or let the parent have it",
                shown(most.regions.as_ref()),
            );
            say(Reason::ExceedsParent, message);
        }
        within.extend(found);
    }
    Some(within)
}

/// What a Region's subtree and those of others have in common, as the tops of subtrees.
fn overlap(
    fleet: &Fleet,
    name: &RegionName,
    most: Option<&BTreeSet<RegionName>>,
) -> BTreeSet<RegionName> {
    let Some(most) = most else {
        return [name.clone()].into();
    };
    let line = |name: &RegionName| fleet.regions.get(name).map(|region| &region.line);
    if line(name).is_some_and(|line| line.iter().any(|above| most.contains(above))) {
        return [name.clone()].into();
    }
    let below = |other: &&RegionName| line(other).is_some_and(|line| line.contains(name));
    most.iter().filter(below).cloned().collect()
}

fn shown(regions: Option<&BTreeSet<RegionName>>) -> String {
    let names: Vec<&str> = regions
        .into_iter()
        .flatten()
        .take(8)
        .map(RegionName::as_str)
        .collect();
    format!(" ({})", names.join(", "))
}

/// What is known of the namespace that a tenant owns.
pub(super) fn place(own: &NamespaceName, uid: &Uid, slot: Option<&NamespaceSlot>) -> Place {
    let Some(slot) = slot else {
        return Place::Absent;
    };
    match &slot.owner {
        Some(owner) if owner == uid && slot.deleting => Place::Going,
        Some(owner) if owner == uid => Place::Owned(slot.uid.clone()),
        Some(owner) => Place::Taken(format!(
            "namespace {own} belongs to a Tenant with UID {owner}, which is gone or another one: {}",
            to_claim(own)
        )),
        None if slot.deleting => Place::Taken(format!(
            "namespace {own} is somebody else's and being deleted: wait until it is gone"
        )),
        None if slot.claim.as_ref() == Some(own) => Place::Claimable(slot.uid.clone()),
        None => Place::Taken(format!(
            "namespace {own} exists and is no tenant's: set its label jiuzhou.io/claim to {own} to let this tenant have it, delete it, or give the Tenant another name; until then its Apps run without the limits of this Tenant and its Quotas"
        )),
    }
}
