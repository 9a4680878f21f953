//! The second judge: restates the invariants on a plan, by other means than the plan was made.
//!
//! It runs in every plan test and before every apply. What it finds is a defect of ours, so the hub
//! applies nothing of a plan that has a finding.

mod finding;
mod isolation;
mod protection;
mod quotas;
mod removal;
mod tenancy;

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    ClusterName, Entry, EntryState, Management, NamespaceName, RegionName, ReportState,
    SLICE_ENTRIES_MAX, Scope, TakeOver, Uid,
};

pub use finding::Finding;
pub use quotas::{Limit, Use, uses};

use crate::province::{Plan, QuotaWrite, SliceWrite};
use crate::world::{ValidApp, ValidCluster, World};
use removal::fits;

/// A plan without the Apps that findings are about, so that a defect in what is decided for one holds
/// up nobody else; `None` when it cannot be told whose writes they are.
pub fn spare(world: &World, mut plan: Plan, findings: &[Finding]) -> Option<Plan> {
    let apps: Option<Vec<Vec<Uid>>> = findings.iter().map(Finding::apps).collect();
    let apps: BTreeSet<Uid> = apps?.into_iter().flatten().collect();
    let overgrants = |finding: &Finding| matches!(finding, Finding::Overgranted(..));
    if findings.iter().any(overgrants) {
        plan.quotas
            .retain(|write| !matches!(write, QuotaWrite::Ledger { .. }));
    }
    plan.collect.retain(|name| {
        let kept = |finding: &Finding| matches!(finding, Finding::Collected(kept) if kept == name);
        !findings.iter().any(kept)
    });
    let slices = plan.slices.into_iter();
    plan.slices = slices
        .filter_map(|write| write.keeping(world, |entry| apps.contains(&entry.uid)))
        .collect();
    plan.releases.retain(|uid| !apps.contains(uid));
    plan.wake_at = plan.wake_at.or(Some(world.now + SPARED_AGAIN));
    Some(plan)
}

/// When to look again at what was left out of a plan, in milliseconds.
const SPARED_AGAIN: i64 = 5_000;

/// All broken invariants of a plan.
pub fn check(world: &World, plan: &Plan) -> Vec<Finding> {
    let mut judge = Judge {
        world,
        plan,
        enclosing: isolation::enclosing(plan),
        findings: Vec::new(),
    };
    let tenants = plan.tenants.iter();
    judge
        .findings
        .extend(tenants.filter_map(|write| tenancy::judge(world, write)));
    for write in &plan.slices {
        judge.slice(write);
    }
    judge.quotas();
    judge.shares();
    for uid in &plan.releases {
        let entries = world
            .ledger(uid)
            .into_iter()
            .flat_map(|l| l.entries.values());
        if entries
            .into_iter()
            .any(|held| held.entry.state == EntryState::Present)
        {
            judge.findings.push(Finding::Released(uid.clone()));
        }
    }
    for name in &plan.collect {
        let named = |write: &SliceWrite| write.spec.entries.iter().any(|e| *e.pack == **name);
        if plan.slices.iter().any(named) || judge.is_named(name) {
            judge.findings.push(Finding::Collected(name.clone()));
        }
    }
    judge.findings
}

struct Judge<'a> {
    world: &'a World,
    plan: &'a Plan,
    /// Namespaces that the plan isolates, by cluster.
    enclosing: BTreeSet<(&'a ClusterName, &'a NamespaceName)>,
    findings: Vec<Finding>,
}

impl<'a> Judge<'a> {
    fn slice(&mut self, write: &SliceWrite) {
        let uids: BTreeSet<&Uid> = write.spec.entries.iter().map(|e| &e.uid).collect();
        let (name, cluster) = (write.name.clone(), write.cluster.to_string());
        if uids.len() != write.spec.entries.len() || uids.len() > SLICE_ENTRIES_MAX {
            self.findings
                .push(Finding::Shape(name.clone(), cluster.clone()));
        }
        if let Some(old) = self.world.slice(&write.cluster, &write.name) {
            let (old, new) = (&old.header, &write.spec);
            let older = (new.hub_epoch, new.leader_epoch) < (old.hub_epoch, old.leader_epoch);
            if old.hub_id == new.hub_id && (older || new.sequence < old.sequence) {
                self.findings.push(Finding::OldHeader(name, cluster));
            }
        }
        for entry in &write.spec.entries {
            self.entry(write, entry);
        }
        self.vanished(write, &uids);
    }

    fn held(&self, cluster: &ClusterName, uid: &Uid) -> Option<&'a Entry> {
        Some(&*self.world.ledger(uid)?.entries.get(cluster)?.entry)
    }

    fn entry(&mut self, write: &SliceWrite, entry: &Entry) {
        let before = self.held(&write.cluster, &entry.uid);
        if before == Some(entry) {
            return;
        }
        let (at, uid) = (write.cluster.to_string(), entry.uid.clone());
        if before.is_some_and(|before| entry.generation <= before.generation) {
            // During a move the older of the two may be rewritten as it is; never as the only one.
            let home = self
                .world
                .ledger(&uid)
                .and_then(|l| l.entries.get(&write.cluster));
            if home.is_some_and(|held| &*held.slice == write.name.as_str()) {
                self.findings
                    .push(Finding::Backwards(at, uid, entry.generation));
            }
            return;
        }
        match entry.scope {
            Scope::App => {}
            Scope::Namespace => return self.enclosure(write, entry),
            Scope::Policy => return self.protection(write, entry),
        }
        match entry.state {
            EntryState::Present => self.present(write, entry, before),
            EntryState::Removed if !self.may_remove(write, entry) => {
                self.findings.push(Finding::Unasked(at, uid));
            }
            EntryState::Removed | EntryState::Released => {}
        }
    }

    fn present(&mut self, write: &SliceWrite, entry: &Entry, before: Option<&Entry>) {
        let (at, uid) = (write.cluster.to_string(), entry.uid.clone());
        self.content(write, entry, before);
        if !self.is_enclosed(write, entry) && before.is_none() {
            self.findings
                .push(Finding::Exposed(at.clone(), uid.clone()));
        }
        let report = self
            .world
            .ledger(&uid)
            .and_then(|l| l.reports.get(&write.cluster));
        let runs = report.is_some_and(|report| report.content.is_some());
        if runs || before.is_some_and(|before| before.state.is_present()) {
            return;
        }
        self.newly(write, entry);
    }

    /// What an entry names is stored, or is about to be.
    fn content(&mut self, write: &SliceWrite, entry: &Entry, before: Option<&Entry>) {
        let (at, uid) = (write.cluster.to_string(), entry.uid.clone());
        let known = self.world.contents.contains_key(&*entry.pack);
        let planned = self
            .plan
            .contents
            .iter()
            .any(|content| *content.name == *entry.pack);
        let same = before.is_some_and(|before| before.content == entry.content);
        if !known && !planned && !same && *entry.pack != *"lost" {
            self.findings.push(Finding::NoContent(at, uid));
        }
    }

    /// An App that was not in a cluster before may be there.
    fn newly(&mut self, write: &SliceWrite, entry: &Entry) {
        let (at, uid) = (write.cluster.to_string(), entry.uid.clone());
        let Some(cluster) = self.usable(&write.cluster, entry) else {
            self.findings.push(Finding::Unmanaged(at, uid));
            return;
        };
        if self.predecessor(write, entry) {
            self.findings.push(Finding::Beside(at.clone(), uid.clone()));
        }
        let app = self.world.app(&uid).and_then(|a| a.state.as_ref().ok());
        let barred = |app: &ValidApp| {
            let line = self.line(&cluster.region);
            tenancy::bars(self.world, &entry.namespace, app, &line)
        };
        if app.is_some_and(|app| !fits(app, cluster) || barred(app)) {
            self.findings.push(Finding::Forbidden(at, uid));
        }
    }

    /// The cluster, when something new may be applied there.
    fn usable(&self, name: &ClusterName, entry: &Entry) -> Option<&'a ValidCluster> {
        let slot = self.world.clusters.get(name)?;
        let cluster = slot.state.as_ref().ok()?;
        let report = self.world.cluster_report(name)?;
        let manages = match cluster.management {
            Management::Manage => true,
            Management::Observe => entry.take_over != TakeOver::Never,
            Management::Release => false,
        };
        let same = slot
            .pinned()
            .is_none_or(|pinned| *pinned == report.cluster_uid);
        (manages && same && report.frozen.is_none() && !slot.deleting).then_some(&**cluster)
    }

    fn predecessor(&self, write: &SliceWrite, entry: &Entry) -> bool {
        let slices = self.world.clusters.get(&write.cluster).into_iter();
        let mut entries = slices
            .flat_map(|c| c.slices.values())
            .flat_map(|slice| &slice.entries);
        entries.any(|other| {
            other.scope.is_app()
                && other.uid != entry.uid
                && other.namespace == entry.namespace
                && other.name == entry.name
        })
    }

    fn region(&self, cluster: &ClusterName) -> Option<&'a RegionName> {
        Some(
            &self
                .world
                .clusters
                .get(cluster)?
                .state
                .as_ref()
                .ok()?
                .region,
        )
    }

    /// The Region and all above it; empty when it is not known.
    fn line(&self, region: &RegionName) -> Vec<&'a RegionName> {
        let mut line = Vec::new();
        let mut next = self.world.regions.get_key_value(region);
        while let Some((name, slot)) = next.filter(|(name, _)| !line.contains(name)) {
            line.push(name);
            let parent = slot
                .state
                .as_ref()
                .ok()
                .and_then(|region| region.parent.as_ref());
            next = parent.and_then(|parent| self.world.regions.get_key_value(parent));
        }
        line
    }

    fn vanished(&mut self, write: &SliceWrite, kept: &BTreeSet<&Uid>) {
        let Some(old) = self.world.slice(&write.cluster, &write.name) else {
            return;
        };
        let mut gone: BTreeMap<&Uid, &Entry> = BTreeMap::new();
        for entry in old
            .entries
            .iter()
            .filter(|entry| !kept.contains(&entry.uid))
        {
            gone.insert(&entry.uid, entry);
        }
        for (uid, entry) in gone {
            let ledger = self.world.ledger(uid);
            let report = ledger.and_then(|l| l.reports.get(&write.cluster));
            let acknowledged = !entry.state.is_present()
                && report.is_some_and(|r| {
                    r.state == ReportState::Removed && r.generation >= entry.generation
                });
            let home = ledger.and_then(|l| l.entries.get(&write.cluster));
            let moved = home.is_some_and(|held| {
                &*held.slice != write.name.as_str() && held.entry.generation >= entry.generation
            });
            if !acknowledged && !moved {
                self.findings
                    .push(Finding::Vanished(write.cluster.to_string(), uid.clone()));
            }
        }
    }

    /// Whether a pack is named by an entry, or holds what an App wants or a cluster runs.
    fn is_named(&self, pack: &str) -> bool {
        let Some(content) = self.world.contents.get(pack) else {
            return false;
        };
        let hashes: BTreeSet<_> = content.hashes.iter().collect();
        let wanted = self.world.apps().any(|(_, slot)| {
            slot.state
                .as_ref()
                .is_ok_and(|app| hashes.contains(&app.content))
        });
        wanted
            || self.world.ledger.values().any(|ledger| {
                ledger
                    .entries
                    .values()
                    .any(|held| *held.entry.pack == *pack)
                    || ledger.reports.values().any(|r| {
                        r.content
                            .as_ref()
                            .is_some_and(|content| hashes.contains(content))
                    })
            })
    }
}
