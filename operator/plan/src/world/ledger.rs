//! The ledger: what the hub decided (slices) and what agents say runs (reports), by App.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{
    AssignmentSlice, AssignmentSliceSpec, ClusterName, Entry, ReportEntry, ReportSlice, Uid,
};

use super::{World, is_of_namespace, is_of_policy};

/// What is written in the slices and reports of all clusters about one App.
#[derive(Clone, Debug, Default)]
pub struct AppLedger {
    /// Decisions, by cluster.
    pub entries: BTreeMap<ClusterName, LedgerEntry>,
    /// Reports, by cluster.
    pub reports: BTreeMap<ClusterName, ReportEntry>,
}

/// A decision and the slice that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The decision.
    pub entry: Arc<Entry>,
    /// Name of the slice.
    pub slice: Box<str>,
}

/// An AssignmentSlice as it is stored.
#[derive(Clone, Debug)]
pub struct SliceState {
    /// `metadata.resourceVersion`, the precondition of the next write.
    pub resource_version: String,
    /// Everything but the entries.
    pub header: AssignmentSliceSpec,
    /// The entries, in order.
    pub entries: Vec<Arc<Entry>>,
    /// When the hub last wrote it, by its own clock; 0 when it did not.
    pub written: i64,
}

impl World {
    /// Takes in a slice as the store has it; `written` is set when the hub itself just wrote it.
    pub fn apply_slice(
        &mut self,
        cluster: &ClusterName,
        slice: AssignmentSlice,
        written: Option<i64>,
    ) {
        let name: Box<str> = slice.metadata.name.unwrap_or_default().into();
        let version = slice.metadata.resource_version.unwrap_or_default();
        let mut header = slice.spec;
        let mut new: Vec<Arc<Entry>> = Vec::with_capacity(header.entries.len());
        for mut entry in header.entries.drain(..) {
            entry.charge = self.charges.share(entry.charge);
            new.push(Arc::new(entry));
        }
        let slot = self.cluster_slot(cluster);
        let old = slot.slices.get(&name);
        // A watch may deliver what is older than our own write; the store's versions only grow.
        if old.is_some_and(|old| older(&version, &old.resource_version)) {
            return;
        }
        let written = written.or(old.map(|o| o.written)).unwrap_or(0);
        let before = old.map(|o| o.entries.as_slice()).unwrap_or_default();
        let mut changed = changed_uids(before, &new);
        changed.extend(
            before
                .iter()
                .map(|e| &e.uid)
                .filter(|u| slot.doubled.contains(*u))
                .cloned(),
        );
        let state = SliceState {
            resource_version: version,
            header,
            entries: new,
            written,
        };
        slot.slices.insert(name, state);
        self.reindex_entries(cluster, &changed);
    }

    /// Takes what comes next for the newest, whatever its version: the store was restored to an
    /// earlier state. A list must follow at once.
    pub fn forget_slice_versions(&mut self) {
        let slots = self.clusters.values_mut();
        for slice in slots.flat_map(|slot| slot.slices.values_mut()) {
            slice.resource_version.clear();
        }
    }

    /// Forgets a slice that somebody deleted. What it said is gone from the ledger; reports remain.
    pub fn remove_slice(&mut self, cluster: &ClusterName, name: &str) {
        let Some(slot) = self.clusters.get_mut(cluster) else {
            return;
        };
        let Some(gone) = slot.slices.remove(name) else {
            return;
        };
        let uids = gone.entries.iter().map(|entry| entry.uid.clone()).collect();
        self.reindex_entries(cluster, &uids);
        self.prune_cluster(cluster);
    }

    /// Names of the slices known for a cluster.
    pub fn slice_names(&self, cluster: &ClusterName) -> Vec<String> {
        let slices = self.clusters.get(cluster).map(|slot| &slot.slices);
        slices
            .into_iter()
            .flatten()
            .map(|(name, _)| name.to_string())
            .collect()
    }

    /// A slice as it is stored.
    pub fn slice(&self, cluster: &ClusterName, name: &str) -> Option<&SliceState> {
        self.clusters.get(cluster)?.slices.get(name)
    }

    /// During a move an App stands in two slices: the higher generation counts, the last slice on a
    /// tie.
    fn reindex_entries(&mut self, cluster: &ClusterName, changed: &BTreeSet<Uid>) {
        let slot = self.cluster_slot(cluster);
        let mut best: BTreeMap<Uid, LedgerEntry> = BTreeMap::new();
        for uid in changed {
            slot.doubled.remove(uid);
        }
        for (name, slice) in &slot.slices {
            for entry in slice
                .entries
                .iter()
                .filter(|entry| changed.contains(&entry.uid))
            {
                let known = best.get(&entry.uid).map(|b| b.entry.generation);
                if known.is_some() {
                    slot.doubled.insert(entry.uid.clone());
                }
                if known.is_none_or(|known| entry.generation >= known) {
                    let found = LedgerEntry {
                        entry: entry.clone(),
                        slice: name.clone(),
                    };
                    best.insert(entry.uid.clone(), found);
                }
            }
        }
        for uid in changed {
            self.put_entry(cluster, uid, best.get(uid));
        }
    }

    fn put_entry(&mut self, cluster: &ClusterName, uid: &Uid, found: Option<&LedgerEntry>) {
        let ledger = self.ledger.entry(uid.clone()).or_default();
        let before = match found {
            Some(found) => ledger.entries.insert(cluster.clone(), found.clone()),
            None => ledger.entries.remove(cluster),
        };
        let anywhere = !ledger.entries.is_empty();
        let hash = |held: &LedgerEntry| held.entry.content.clone();
        self.uses
            .replace(&before.as_ref().map(hash), &found.map(hash));
        if let Some(held) = found
            .or(before.as_ref())
            .filter(|held| held.entry.scope.is_app())
        {
            let key = (held.entry.namespace.clone(), held.entry.name.clone());
            let holders = self.entry_names.entry(key.clone()).or_default();
            if anywhere {
                holders.insert(uid.clone());
            } else {
                holders.remove(uid);
            }
            if holders.is_empty() {
                self.entry_names.remove(&key);
            }
            if before.is_some() != found.is_some() {
                self.touch_named(&key.0, &key.1);
            }
            self.touch_policies_of(&key.0, &key.1);
        }
        let gone = before.filter(|_| found.is_none());
        if let Some(home) = gone.filter(|held| held.entry.scope.is_namespace()) {
            // Apps may have waited for it to go.
            let here: Vec<Uid> = self.apps_in(&home.entry.namespace).cloned().collect();
            here.iter().for_each(|app| self.touch(app));
        }
        self.settle_ledger(uid);
    }

    /// Forgets an App of which neither slices nor reports say anything any more.
    fn settle_ledger(&mut self, uid: &Uid) {
        if self
            .ledger
            .get(uid)
            .is_some_and(|l| l.entries.is_empty() && l.reports.is_empty())
        {
            self.ledger.remove(uid);
        }
        if is_of_namespace(uid) {
            self.sort_namespace(uid);
            return self.touch(uid);
        }
        if is_of_policy(uid) {
            return self.touch_policy(uid);
        }
        self.sort_orphan(uid);
        if self.orphans.contains(uid) {
            self.touch_policies_of_orphan(uid);
        }
        self.touch_rivals(uid);
        self.touch(uid);
    }

    /// Takes in a report slice.
    pub fn apply_report(&mut self, cluster: &ClusterName, report: ReportSlice) {
        let name: Box<str> = report.metadata.name.unwrap_or_default().into();
        let new = report.spec.entries;
        let mut changed: BTreeMap<Uid, ReportEntry> = BTreeMap::new();
        let slot = self.cluster_slot(cluster);
        let old = slot.reports.insert(name, new.clone()).unwrap_or_default();
        changed.extend(old.into_iter().map(|entry| (entry.uid.clone(), entry)));
        for entry in new {
            if changed.get(&entry.uid) == Some(&entry) {
                changed.remove(&entry.uid);
            } else {
                changed.insert(entry.uid.clone(), entry);
            }
        }
        self.reindex_reports(cluster, &changed.into_keys().collect());
    }

    /// Forgets a report slice that was deleted.
    pub fn remove_report(&mut self, cluster: &ClusterName, name: &str) {
        let Some(slot) = self.clusters.get_mut(cluster) else {
            return;
        };
        let gone = slot.reports.remove(name).unwrap_or_default();
        self.reindex_reports(cluster, &gone.into_iter().map(|entry| entry.uid).collect());
        self.prune_cluster(cluster);
    }

    /// Of two reports on one App the one on the higher generation counts.
    fn reindex_reports(&mut self, cluster: &ClusterName, changed: &BTreeSet<Uid>) {
        let mut best: BTreeMap<&Uid, &ReportEntry> = BTreeMap::new();
        let reports = self
            .clusters
            .get(cluster)
            .into_iter()
            .flat_map(|slot| slot.reports.values());
        for entry in reports
            .flatten()
            .filter(|entry| changed.contains(&entry.uid))
        {
            let better = |known: &&ReportEntry| entry.generation >= known.generation;
            if best.get(&entry.uid).is_none_or(better) {
                best.insert(&entry.uid, entry);
            }
        }
        let best: Vec<(Uid, Option<ReportEntry>)> = changed
            .iter()
            .map(|uid| (uid.clone(), best.get(uid).map(|e| (*e).clone())))
            .collect();
        for (uid, found) in best {
            let ledger = self.ledger.entry(uid.clone()).or_default();
            let after = found.as_ref().and_then(|report| report.content.clone());
            let before = match found {
                Some(report) => ledger.reports.insert(cluster.clone(), report),
                None => ledger.reports.remove(cluster),
            };
            self.uses
                .replace(&before.and_then(|report| report.content), &after);
            self.settle_ledger(&uid);
        }
    }
}

/// Whether resource version `a` is older than `b`. They are compared as numbers, which Kubernetes
/// guarantees for one store; what is no number is taken as newer, so that nothing is missed.
pub(crate) fn older(a: &str, b: &str) -> bool {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a < b,
        (Ok(_) | Err(_), _) => false,
    }
}

fn changed_uids(old: &[Arc<Entry>], new: &[Arc<Entry>]) -> BTreeSet<Uid> {
    let mut before: BTreeMap<&Uid, &Entry> = old.iter().map(|e| (&e.uid, &**e)).collect();
    let mut changed = BTreeSet::new();
    for entry in new {
        if before.remove(&entry.uid) != Some(&**entry) {
            changed.insert(entry.uid.clone());
        }
    }
    changed.extend(before.into_keys().cloned());
    changed
}
