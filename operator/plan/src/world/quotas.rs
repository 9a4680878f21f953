//! Quotas and the ledgers of what of them is in force, behind the gate.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{
    APP_FINALIZER, AcceptedGrant, AcceptedResource, GrantUse, NamespaceName, Quantity, Quota,
    QuotaLedger, QuotaStatus, Reason, RegionName, ResourceGrant, Timestamp, Uid,
};

use super::World;
use super::gate::{Parked, Verdict};
use super::ledger::older;
use super::tenants::{home_of, owned_namespace};
use crate::amount::{format_amount, format_cores, parse_quantity};
use crate::quota::Grant;

/// Where a Quota lives, and its name.
pub type QuotaKey = (NamespaceName, Box<str>);
/// Whom and where a grant is for: the namespace that the tenant owns, and the Region.
pub type GrantKey = (NamespaceName, RegionName);
/// What is granted, by resource.
pub type Grants = BTreeMap<Arc<str>, Grant>;

/// A Quota as the API server has it, behind the gate.
#[derive(Clone, Debug)]
pub struct QuotaSlot {
    /// UID.
    pub uid: Uid,
    /// `metadata.generation`.
    pub generation: i64,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether our finalizer holds it.
    pub held: bool,
    /// Whom and where it is for.
    pub grant: GrantKey,
    /// What it asks for, or why it is parked.
    pub state: Verdict<Grants>,
    /// Status as last written.
    pub status: Arc<QuotaStatus>,
    /// What it says of each resource, as numbers: granted, used, borrowed and granted on. Empty when any of
    /// that is no number, or what it prints says otherwise.
    pub told: Vec<[i64; 4]>,
}

impl QuotaSlot {
    /// Whether anything of it was in force when its status was written.
    pub(crate) fn was_in_force(&self) -> bool {
        !self.told.is_empty()
    }

    /// What that was, as far as the status says.
    pub(crate) fn told_grants(&self) -> Grants {
        let names = self.status.resources.iter().map(|told| &*told.name);
        let all = names.zip(&self.told);
        all.map(|(name, [nominal, ..])| (name.into(), Grant::budget(*nominal)))
            .collect()
    }
}

/// What a status prints for people: cores and memory used and granted, and borrowed cores.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) cpu: Option<String>,
    pub(crate) borrowed_cpu: Option<String>,
    pub(crate) memory: Option<String>,
}

impl Printed {
    /// Of resources that are granted, used, borrowed and granted on.
    pub(crate) fn of<'r>(resources: impl Iterator<Item = (&'r str, [i64; 4])>) -> Self {
        let mut printed = Self::default();
        for (name, [nominal, used, borrowed, _]) in resources {
            let memory = |amount| format_amount(name, amount);
            match name {
                "cpu" => {
                    let cpu = format!("{}/{}", format_cores(used), format_cores(nominal));
                    printed.cpu = Some(cpu);
                    printed.borrowed_cpu = Some(format_cores(borrowed));
                }
                "memory" => {
                    printed.memory = Some(format!("{}/{}", memory(used), memory(nominal)));
                }
                _ => {}
            }
        }
        printed
    }
}

/// What of a Region's Quotas is in force, as the store has it.
#[derive(Clone, Debug, Default)]
pub struct QuotaLedgerState {
    /// `metadata.resourceVersion`, the precondition of the next write.
    pub resource_version: String,
    /// By the namespace that the tenant owns.
    pub grants: Arc<BTreeMap<NamespaceName, Accepted>>,
}

/// What of a Quota is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// UID of the Quota.
    pub uid: Uid,
    /// Since when.
    pub since: Timestamp,
    /// What is in force, as it stands in the ledger.
    pub resources: Arc<[AcceptedResource]>,
    /// The same as numbers.
    pub grants: Arc<Grants>,
}

impl Accepted {
    /// What a ledger says.
    pub fn of(grant: &AcceptedGrant) -> Self {
        Self {
            uid: grant.uid.clone(),
            since: grant.since,
            resources: grant.resources.clone().into(),
            grants: Arc::new(grant.resources.iter().filter_map(in_force).collect()),
        }
    }
}

/// Quotas by what decisions ask of them, so that one that changed costs no look at all others.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuotaIndex {
    /// Quotas of each Region, by the namespace that their tenant owns, and how often any of them changed.
    pub(crate) regions: BTreeMap<RegionName, RegionQuotas>,
    /// How many Quotas a tenant has, by the namespace that it owns.
    pub(crate) asking: BTreeMap<NamespaceName, usize>,
    /// Grants whose Quotas are being deleted, and how many those are.
    pub(crate) closing: BTreeMap<GrantKey, usize>,
    /// Grows when Quotas come, go or begin to be deleted.
    pub(crate) shape: u64,
}

/// Quotas of one Region.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegionQuotas {
    pub(crate) quotas: BTreeMap<(NamespaceName, QuotaKey), Arc<QuotaSlot>>,
    pub(crate) clock: u64,
}

impl QuotaIndex {
    /// Takes in a Quota as it is now, or that it is gone.
    fn note(&mut self, key: &QuotaKey, before: Option<&QuotaSlot>, now: Option<&Arc<QuotaSlot>>) {
        let place = |slot: &QuotaSlot| (slot.grant.0.clone(), key.clone());
        if let Some(slot) = before {
            let region = self.regions.entry(slot.grant.1.clone()).or_default();
            region.quotas.remove(&place(slot));
            region.clock += u64::from(now.is_none_or(|now| !now.says_as(slot)));
            count(&mut self.asking, &slot.grant.0, false);
            if slot.deleting {
                count(&mut self.closing, &slot.grant, false);
            }
        }
        if let Some(slot) = now {
            let region = self.regions.entry(slot.grant.1.clone()).or_default();
            region.quotas.insert(place(slot), slot.clone());
            region.clock += u64::from(before.is_none_or(|before| before.grant != slot.grant));
            count(&mut self.asking, &slot.grant.0, true);
            if slot.deleting {
                count(&mut self.closing, &slot.grant, true);
            }
        }
        let shape = |slot: &QuotaSlot| (slot.grant.clone(), slot.deleting);
        if before.map(shape) != now.map(|now| shape(now)) {
            self.shape += 1;
        }
    }
}

impl QuotaSlot {
    /// Whether it asks for the same as another one, and is as far in its life.
    fn says_as(&self, other: &Self) -> bool {
        self.uid == other.uid
            && (self.deleting, self.held) == (other.deleting, other.held)
            && self.grant == other.grant
            && self.state == other.state
    }
}

/// Counts one more, or one less.
fn count<K: Clone + Ord>(counts: &mut BTreeMap<K, usize>, key: &K, more: bool) {
    let one = counts.entry(key.clone()).or_default();
    *one = if more {
        *one + 1
    } else {
        one.saturating_sub(1)
    };
    if *one == 0 {
        counts.remove(key);
    }
}

impl World {
    /// Takes in a Quota.
    pub fn apply_quota(&mut self, quota: &Quota) {
        let meta = &quota.metadata;
        let home = NamespaceName::from(meta.namespace.clone().unwrap_or_default());
        let key = (home, Box::from(meta.name.as_deref().unwrap_or_default()));
        let created = meta.creation_timestamp.as_ref();
        let mut finalizers = meta.finalizers.iter().flatten();
        let tenant = (key.0.clone(), quota.spec.tenant_name.clone());
        let slot = QuotaSlot {
            uid: meta.uid.clone().unwrap_or_default().into(),
            generation: meta.generation.unwrap_or(0),
            created: created.map_or(0, |t| t.0.as_millisecond()),
            deleting: meta.deletion_timestamp.is_some(),
            held: finalizers.any(|f| f == APP_FINALIZER),
            grant: (owned_namespace(&tenant), quota.spec.region_name.clone()),
            state: quota_gate(&key.1, quota).map(Arc::new),
            told: told(quota.status.as_ref()).unwrap_or_default(),
            status: Arc::new(quota.status.clone().unwrap_or_default()),
        };
        let slot = Arc::new(slot);
        let before = self.quotas.get(&key);
        let same = before.is_some_and(|before| before.says_as(&slot));
        self.quota_changes += u64::from(!same);
        self.quota_index
            .note(&key, before.map(|before| &**before), Some(&slot));
        self.quota_journal.note(&key);
        self.quotas.insert(key, slot);
    }

    /// Forgets a Quota that was deleted. What of it is in force stands in the ledger.
    pub fn remove_quota(&mut self, home: &NamespaceName, name: &str) {
        let key = (home.clone(), Box::from(name));
        if let Some(gone) = self.quotas.remove(&key) {
            self.quota_changes += 1;
            self.quota_index.note(&key, Some(&gone), None);
            self.quota_journal.note(&key);
        }
    }

    /// Takes in what of a Region's Quotas is in force.
    pub fn apply_quota_ledger(&mut self, ledger: &QuotaLedger) {
        let region = RegionName::from(ledger.metadata.name.clone().unwrap_or_default());
        let version = ledger.metadata.resource_version.clone().unwrap_or_default();
        let known = self.quota_ledgers.get(&region);
        // A watch may deliver what is older than our own write; the store's versions only grow.
        if known.is_some_and(|known| older(&version, &known.resource_version)) {
            return;
        }
        let all = ledger.spec.grants.iter();
        let grants = all.map(|grant| (grant.namespace.clone(), Accepted::of(grant)));
        let state = QuotaLedgerState {
            resource_version: version,
            grants: Arc::new(grants.collect()),
        };
        self.quota_ledgers.insert(region, state);
        self.quota_changes += 1;
        self.ledger_changes += 1;
    }

    /// Takes what comes next for the newest, whatever its version: the store was restored to an
    /// earlier state. A list must follow at once.
    pub fn forget_quota_ledger_versions(&mut self) {
        for ledger in self.quota_ledgers.values_mut() {
            ledger.resource_version.clear();
        }
    }

    /// Forgets a ledger that somebody deleted: what Quotas ask for is accepted anew.
    pub fn remove_quota_ledger(&mut self, region: &RegionName) {
        if self.quota_ledgers.remove(region).is_some() {
            self.quota_changes += 1;
            self.ledger_changes += 1;
        }
    }

    /// All Quotas, valid and parked.
    pub fn quotas(&self) -> impl Iterator<Item = (&QuotaKey, &QuotaSlot)> {
        self.quotas.iter().map(|(key, slot)| (key, &**slot))
    }

    /// Grows with every change of any Quota, the status included.
    pub fn quota_clock(&self) -> u64 {
        self.quota_journal.clock()
    }

    /// One Quota, valid or parked.
    pub fn quota(&self, key: &QuotaKey) -> Option<&QuotaSlot> {
        self.quotas.get(key).map(|slot| &**slot)
    }

    /// What is in force, by Region.
    pub fn quota_ledger(&self, region: &RegionName) -> Option<&QuotaLedgerState> {
        self.quota_ledgers.get(region)
    }

    /// Quotas that live in a namespace.
    pub(crate) fn quotas_in(
        &self,
        namespace: &NamespaceName,
    ) -> impl Iterator<Item = (&QuotaKey, &QuotaSlot)> {
        let all = self.quotas.range((namespace.clone(), "".into())..);
        let here = all.take_while(move |((home, _), _)| home == namespace);
        here.map(|(key, slot)| (key, &**slot))
    }

    /// All that is in force.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (GrantKey, &Accepted)> {
        self.quota_ledgers.iter().flat_map(|(region, ledger)| {
            let grants = ledger.grants.iter();
            grants.map(move |(own, accepted)| ((own.clone(), region.clone()), accepted))
        })
    }
}

/// The Quota of a tenant for a Region, as people know it.
pub(crate) fn quota_name((own, region): &GrantKey) -> String {
    let (_, tenant) = home_of(own);
    format!("{tenant}.{region}")
}

fn quota_gate(name: &str, quota: &Quota) -> Result<Grants, Parked> {
    let spec = &quota.spec;
    let needed = format!("{}.{}", spec.tenant_name, spec.region_name);
    if !spec.tenant_name.is_valid() || !spec.region_name.is_valid() || *name != needed {
        let message = format!(
            "metadata.name {name:?} must be <spec.tenantName>.<spec.regionName>, which is {needed:?}"
        );
        return Err(Parked::new(Reason::Invalid, message));
    }
    amounts(&spec.resources)
}

/// What a status says of each resource, as numbers.
fn told(status: Option<&QuotaStatus>) -> Option<Vec<[i64; 4]>> {
    let one = |told: &GrantUse| {
        let amount = |quantity: &Quantity| parse_quantity(&told.name, &quantity.0);
        Some([
            amount(&told.nominal)?,
            amount(&told.used)?,
            amount(&told.borrowed)?,
            amount(&told.carved)?,
        ])
    };
    let status = status?;
    let told: Vec<[i64; 4]> = status.resources.iter().map(one).collect::<Option<_>>()?;
    let names = status.resources.iter().map(|grant| &*grant.name);
    let printed = Printed::of(names.zip(told.iter().copied()));
    let as_printed = printed.cpu == status.cpu
        && printed.borrowed_cpu == status.borrowed_cpu
        && printed.memory == status.memory;
    as_printed.then_some(told)
}

/// What a ledger says of one resource, as numbers.
fn in_force(resource: &AcceptedResource) -> Option<(Arc<str>, Grant)> {
    let amount = |quantity: &Quantity| parse_quantity(&resource.name, &quantity.0);
    let grant = Grant {
        nominal: amount(&resource.nominal)?,
        borrows: amount(&resource.borrowing_limit)?,
        lends: amount(&resource.lending_limit)?,
    };
    Some((resource.name.as_str().into(), grant))
}

/// Grants as numbers, or what is wrong with them.
fn amounts(resources: &[ResourceGrant]) -> Result<Grants, Parked> {
    let mut grants = Grants::new();
    for (at, grant) in resources.iter().enumerate() {
        let amount = |field: &str, quantity: &Quantity| {
            let parsed = parse_quantity(&grant.name, &quantity.0);
            // Sums of a thousand of them must not overflow either.
            parsed.filter(|n| *n <= i64::MAX >> 12).ok_or_else(|| {
                Parked::new(
                    Reason::Invalid,
                    format!(
                        "spec.resources[{at}].{field} {:?} of {} is no amount, or too large: write it as 40, 500m or 80Gi",
                        quantity.0, grant.name
                    ),
                )
            })
        };
        let nominal = amount("nominal", &grant.nominal)?;
        let limit = |field: &str, quantity: &Option<Quantity>, absent: i64| match quantity {
            Some(quantity) => amount(field, quantity),
            None => Ok(absent),
        };
        let borrows = limit("borrowingLimit", &grant.borrowing_limit, 0)?;
        let lends = limit("lendingLimit", &grant.lending_limit, nominal)?;
        if lends > nominal {
            let message = format!(
                "spec.resources[{at}].lendingLimit of {} must not exceed its nominal: nobody lends more than he has",
                grant.name
            );
            return Err(Parked::new(Reason::Invalid, message));
        }
        let parsed = Grant {
            nominal,
            borrows,
            lends,
        };
        if grants.insert(grant.name.as_str().into(), parsed).is_some() {
            let message = format!("spec.resources names {} twice: leave one out", grant.name);
            return Err(Parked::new(Reason::Invalid, message));
        }
    }
    Ok(grants)
}
