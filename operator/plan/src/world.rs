//! The world as the plan sees it: all objects and everything clusters reported, behind the gate.
//!
//! Raw objects go in through `apply_*`, `replace_*` and `remove_*`. The gate turns each into a
//! valid one or parks it with a reason; behind it nothing is checked twice. Absence is never an
//! instruction: an App that merely vanished keeps what the ledger says of it.
//!
//! ```text
//! Region ──parent──> Region          MemberCluster ──regionName──> Region
//! App ──placement──> Region*         Approval ──target, contentHash──> App
//! Link ──from, to──> App             LinkGrant ──to──> App
//! TrafficPolicy ──targetRefs──> App*
//! Quota ──tenantName, regionName──> Tenant, Region      QuotaLedger: what of Quotas is in force
//! AssignmentSlice (the ledger) ──uid──> App      ReportSlice ──uid──> App
//! ```

mod app;
mod app_gate;
mod approvals;
mod fleet;
mod footprint;
mod gate;
mod isolations;
mod journal;
mod ledger;
mod links;
mod policies;
mod quotas;
mod tenants;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{
    AppName, Approval, Charge, ClusterName, ClusterReportSpec, ContentHash, LinkGrantSpec,
    NamespaceName, RegionName, Uid,
};

pub use app::{AppSlot, AppState, Scale, ValidApp, ValidWave};
pub(crate) use fleet::fleet_capacity;
pub use fleet::{ClusterSlot, Contact, RegionSlot, ValidCluster, ValidRegion};
pub use footprint::{Footprint, Object};
pub use gate::{Parked, Verdict};
pub(crate) use isolations::is_of_namespace;
pub use isolations::{IsolationSlot, namespace_uid};
use journal::{Journal, Pool, Uses};
pub(crate) use ledger::older;
pub use ledger::{AppLedger, LedgerEntry, SliceState};
pub use links::{LinkKey, LinkSlot};
pub(crate) use policies::is_of_policy;
pub use policies::{PolicyKey, PolicySlot, policy_uid};
pub use quotas::{Accepted, GrantKey, Grants, QuotaKey, QuotaLedgerState, QuotaSlot};
pub(crate) use quotas::{Printed, QuotaIndex, quota_name};
pub(crate) use tenants::home_of;
pub use tenants::{
    NamespaceSlot, Subject, TenantKey, TenantRole, TenantSlot, ValidTenant, owned_namespace,
};

/// Settings of the plan, fixed when the hub starts. All times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A cluster not heard of for longer than this is out of contact.
    pub unreachable_after: i64,
    /// A cluster heard of without a gap for this long is in contact again.
    pub reachable_after: i64,
    /// Least time between two writes of one slice.
    pub slice_interval: i64,
    /// What was lent is taken back after this time, so that whoever borrowed it can prepare.
    pub reclaim_grace: i64,
    /// A Content that nothing names is collected after this time.
    pub content_retention: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Four heartbeats of 10 s: one lost request or one slow garbage collection is no outage.
            unreachable_after: 40_000,
            reachable_after: 30_000,
            slice_interval: 1_000,
            reclaim_grace: 60_000,
            content_retention: 24 * 3_600_000,
        }
    }
}

/// Who decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// Identity of the hub.
    pub id: Uid,
    /// Epoch of the hub; an administrator raises it after a restore.
    pub epoch: i64,
    /// Epoch of the leader.
    pub leader_epoch: i64,
}

/// A validated snapshot of everything a decision may depend on.
#[derive(Clone, Debug)]
pub struct World {
    /// Now, in milliseconds since the Unix epoch, by the hub's clock.
    pub now: i64,
    /// When this hub began to listen for heartbeats; silence before that says nothing.
    pub started: i64,
    /// Up to when every heartbeat was heard; silence after that says nothing, since the hub may
    /// have been deaf. By default it hears everything.
    pub heard: i64,
    /// Settings.
    pub settings: Settings,
    /// Who decides.
    pub hub: Hub,
    /// Regions that are taken to be lost, by a simulation or by an administrator.
    pub lost: BTreeSet<RegionName>,
    pub(crate) regions: BTreeMap<RegionName, RegionSlot>,
    pub(crate) clusters: BTreeMap<ClusterName, ClusterSlot>,
    pub(crate) apps: BTreeMap<Uid, AppSlot>,
    pub(crate) app_names: BTreeMap<(NamespaceName, AppName), BTreeSet<Uid>>,
    pub(crate) claims: BTreeMap<(NamespaceName, Object), BTreeSet<(i64, Uid)>>,
    pub(crate) approvals: BTreeMap<(NamespaceName, Box<str>), Arc<Approval>>,
    /// Names of those in the hub's own namespace that put an App into the emergency lane.
    pub(crate) emergencies: BTreeMap<(NamespaceName, AppName), BTreeSet<Box<str>>>,
    pub(crate) ledger: BTreeMap<Uid, AppLedger>,
    pub(crate) entry_names: BTreeMap<(NamespaceName, AppName), BTreeSet<Uid>>,
    pub(crate) cluster_reports: BTreeMap<ClusterName, Arc<ClusterReportSpec>>,
    pub(crate) contents: BTreeMap<Box<str>, StoredContent>,
    pub(crate) content_index: BTreeMap<(NamespaceName, ContentHash), BTreeSet<Box<str>>>,
    pub(crate) tenants: BTreeMap<TenantKey, TenantSlot>,
    pub(crate) namespaces: BTreeMap<NamespaceName, NamespaceSlot>,
    pub(crate) bindings: BTreeMap<(NamespaceName, TenantRole), BTreeSet<Subject>>,
    /// Grows with every change of Tenants and namespaces.
    pub(crate) tenancy: u64,
    pub(crate) quotas: BTreeMap<QuotaKey, Arc<QuotaSlot>>,
    pub(crate) quota_index: QuotaIndex,
    /// What entries and Apps are charged.
    pub(crate) charges: Pool<Charge>,
    pub(crate) quota_ledgers: BTreeMap<RegionName, QuotaLedgerState>,
    /// Grows with every change of Quotas and of what of them is in force.
    pub(crate) quota_changes: u64,
    /// Grows with every change of what is in force, and of what is about to be no longer.
    pub(crate) ledger_changes: u64,
    pub(crate) isolations: BTreeMap<Box<str>, IsolationSlot>,
    /// Grows with every change of what Isolations ask for.
    pub(crate) isolation_changes: u64,
    pub(crate) links: BTreeMap<LinkKey, LinkSlot>,
    pub(crate) link_grants: BTreeMap<LinkKey, Arc<LinkGrantSpec>>,
    /// Apps that Links name, or named.
    pub(crate) linked_apps: BTreeSet<(NamespaceName, AppName)>,
    /// Grows with every change of what Links depend on.
    pub(crate) link_changes: u64,
    /// Grows with every Link that is heard of, a status of our own included.
    pub(crate) link_echoes: u64,
    pub(crate) policies: BTreeMap<PolicyKey, PolicySlot>,
    /// The same by what stands for them in the ledger.
    pub(crate) policy_uids: BTreeMap<Uid, PolicyKey>,
    /// The same by the Apps that they name.
    pub(crate) app_policies: BTreeMap<(NamespaceName, AppName), BTreeSet<PolicyKey>>,
    /// Namespaces that stand in the ledger, with what stands for them.
    pub(crate) enclosed: BTreeMap<NamespaceName, Uid>,
    /// Apps that are gone but stand in the ledger.
    pub(crate) orphans: BTreeSet<Uid>,
    pub(crate) uses: Uses,
    pub(crate) journal: Journal<Uid>,
    /// Quotas of which anything changed, the status included.
    pub(crate) quota_journal: Journal<QuotaKey>,
}

/// A Content object that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredContent {
    /// Tenant it belongs to.
    pub tenant: NamespaceName,
    /// What it holds.
    pub hashes: Vec<ContentHash>,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created: i64,
}

impl World {
    /// An empty world.
    pub fn new(hub: Hub, settings: Settings) -> Self {
        Self {
            now: 0,
            started: 0,
            heard: i64::MAX,
            settings,
            hub,
            lost: BTreeSet::new(),
            regions: BTreeMap::new(),
            clusters: BTreeMap::new(),
            apps: BTreeMap::new(),
            app_names: BTreeMap::new(),
            claims: BTreeMap::new(),
            approvals: BTreeMap::new(),
            emergencies: BTreeMap::new(),
            ledger: BTreeMap::new(),
            entry_names: BTreeMap::new(),
            cluster_reports: BTreeMap::new(),
            contents: BTreeMap::new(),
            content_index: BTreeMap::new(),
            tenants: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            bindings: BTreeMap::new(),
            tenancy: 0,
            quotas: BTreeMap::new(),
            quota_index: QuotaIndex::default(),
            charges: Pool::default(),
            quota_ledgers: BTreeMap::new(),
            quota_changes: 0,
            ledger_changes: 0,
            isolations: BTreeMap::new(),
            isolation_changes: 0,
            links: BTreeMap::new(),
            link_grants: BTreeMap::new(),
            linked_apps: BTreeSet::new(),
            link_changes: 0,
            link_echoes: 0,
            policies: BTreeMap::new(),
            policy_uids: BTreeMap::new(),
            app_policies: BTreeMap::new(),
            enclosed: BTreeMap::new(),
            orphans: BTreeSet::new(),
            uses: Uses::default(),
            journal: Journal::default(),
            quota_journal: Journal::default(),
        }
    }

    /// Marks an App as changed, so that the planner decides it anew.
    fn touch(&mut self, uid: &Uid) {
        self.journal.note(uid);
    }

    /// Keeps track of Apps that are gone but stand in the ledger.
    fn sort_orphan(&mut self, uid: &Uid) {
        let of_app = !is_of_namespace(uid) && !is_of_policy(uid) && !self.apps.contains_key(uid);
        if of_app && self.ledger.contains_key(uid) {
            self.orphans.insert(uid.clone());
        } else {
            self.orphans.remove(uid);
        }
    }

    /// Takes in a Content object that exists.
    pub fn apply_content(&mut self, name: &str, content: StoredContent) {
        if self.contents.get(name) == Some(&content) {
            return;
        }
        self.remove_content(name);
        for hash in &content.hashes {
            self.content_index
                .entry((content.tenant.clone(), hash.clone()))
                .or_default()
                .insert(name.into());
        }
        self.touch_users(&content);
        self.contents.insert(name.into(), content);
    }

    /// Forgets a Content object that was deleted; Apps that need it store it again.
    pub fn remove_content(&mut self, name: &str) {
        let Some(gone) = self.contents.remove(name) else {
            return;
        };
        for hash in &gone.hashes {
            let key = (gone.tenant.clone(), hash.clone());
            if let Some(packs) = self.content_index.get_mut(&key) {
                packs.remove(name);
                if packs.is_empty() {
                    self.content_index.remove(&key);
                }
            }
        }
        self.touch_users(&gone);
    }

    /// Marks the Apps of a tenant that want, or have somewhere, what a pack holds.
    fn touch_users(&mut self, pack: &StoredContent) {
        if let Some(uid) = self.enclosed.get(&pack.tenant) {
            self.journal.note(uid);
        }
        self.touch_policies_in(&pack.tenant);
        let hashes: BTreeSet<&ContentHash> = pack.hashes.iter().collect();
        let names = self
            .app_names
            .range((pack.tenant.clone(), AppName::from(""))..);
        let mine = names.take_while(|((tenant, _), _)| *tenant == pack.tenant);
        for uid in mine.flat_map(|(_, uids)| uids) {
            let wants = self.apps.get(uid).and_then(|slot| slot.state.as_ref().ok());
            let entries = self
                .ledger
                .get(uid)
                .into_iter()
                .flat_map(|l| l.entries.values());
            if wants.is_some_and(|app| hashes.contains(&app.content))
                || entries
                    .into_iter()
                    .any(|held| hashes.contains(&held.entry.content))
            {
                self.journal.note(uid);
            }
        }
    }

    /// Whether a Content object of that name exists.
    pub fn stores(&self, pack: &str) -> bool {
        self.contents.contains_key(pack)
    }

    /// The Content object that holds this content of this tenant.
    pub fn pack_of(&self, tenant: &NamespaceName, hash: &ContentHash) -> Option<&str> {
        let packs = self.content_index.get(&(tenant.clone(), hash.clone()))?;
        packs.first().map(|name| &**name)
    }

    /// The App of that UID, valid or parked.
    pub fn app(&self, uid: &Uid) -> Option<&AppSlot> {
        self.apps.get(uid)
    }

    /// All Apps, valid and parked.
    pub fn apps(&self) -> impl Iterator<Item = (&Uid, &AppSlot)> {
        self.apps.iter()
    }

    /// The Apps of that name: one, or several while an earlier one is still being removed.
    pub fn apps_named(&self, namespace: &NamespaceName, name: &AppName) -> Vec<&AppSlot> {
        let uids = self.app_names.get(&(namespace.clone(), name.clone()));
        uids.into_iter()
            .flatten()
            .filter_map(|uid| self.apps.get(uid))
            .collect()
    }

    /// All Regions, valid and parked.
    pub fn regions(&self) -> impl Iterator<Item = (&RegionName, &RegionSlot)> {
        self.regions.iter()
    }

    /// All clusters, valid and parked.
    pub fn clusters(&self) -> impl Iterator<Item = (&ClusterName, &ClusterSlot)> {
        self.clusters.iter()
    }

    /// One cluster, valid or parked.
    pub fn cluster(&self, name: &ClusterName) -> Option<&ClusterSlot> {
        self.clusters.get(name)
    }

    /// What the ledger and the reports say of an App.
    pub fn ledger(&self, uid: &Uid) -> Option<&AppLedger> {
        self.ledger.get(uid)
    }

    /// The last report of a cluster.
    pub fn cluster_report(&self, cluster: &ClusterName) -> Option<&ClusterReportSpec> {
        self.cluster_reports.get(cluster).map(|report| &**report)
    }
}
