//! Where Apps stand, so that it is known where their namespaces have to be enclosed.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ClusterName, NamespaceName, ReportEntry};

use super::super::placement::At;
use super::super::regions::Fleet;
use super::enforcement::Force;
use crate::world::{LedgerEntry, World};

/// Where Apps stand, or are about to, by namespace.
#[derive(Debug, Default)]
pub(in crate::province) struct Presence {
    /// How many in each cluster.
    pub(super) counts: BTreeMap<NamespaceName, Vec<u32>>,
    /// Namespaces where that may have changed between none and some.
    moved: BTreeSet<NamespaceName>,
    /// Where Apps stood when each was decided on last.
    seen: BTreeMap<NamespaceName, BTreeSet<At>>,
    /// Namespaces that something changed for.
    pub(super) due: BTreeSet<NamespaceName>,
    /// What is about to be written.
    pub(super) edited: Edited,
    orphans: BTreeMap<NamespaceName, BTreeSet<At>>,
}

/// Clusters for which there is an edit of a namespace: what is to be in force there is not yet.
#[derive(Debug, Default)]
pub(crate) struct Edited(BTreeMap<NamespaceName, Vec<ClusterName>>);

impl Edited {
    /// How far what isolates a namespace is in force in a cluster, from its entry and what was reported last.
    pub(crate) fn force(
        &self,
        (namespace, cluster): (&NamespaceName, &ClusterName),
        held: &LedgerEntry,
        report: Option<&ReportEntry>,
    ) -> Force {
        let clusters = self.0.get(namespace);
        if clusters.is_some_and(|clusters| clusters.contains(cluster)) {
            return Force::Coming;
        }
        Force::of(held, report)
    }

    pub(super) fn insert(&mut self, namespace: &NamespaceName, clusters: Vec<ClusterName>) {
        self.0.insert(namespace.clone(), clusters);
    }

    pub(super) fn remove(&mut self, namespace: &NamespaceName) -> Vec<ClusterName> {
        self.0.remove(namespace).unwrap_or_default()
    }
}

impl Presence {
    /// Counts an App in these clusters.
    pub(in crate::province) fn come(
        &mut self,
        namespace: &NamespaceName,
        at: &[At],
        clusters: usize,
    ) {
        if at.is_empty() {
            return;
        }
        let counts = self.counts.entry(namespace.clone());
        let counts = counts.or_insert_with(|| vec![0; clusters]);
        let mut first = false;
        for at in at {
            first |= counts[*at] == 0;
            counts[*at] += 1;
        }
        if first {
            self.moved.insert(namespace.clone());
        }
    }

    /// Counts an App no longer.
    pub(in crate::province) fn go(&mut self, namespace: &NamespaceName, at: &[At]) {
        let Some(counts) = self.counts.get_mut(namespace) else {
            return;
        };
        let mut last = false;
        for at in at {
            counts[*at] -= 1;
            last |= counts[*at] == 0;
        }
        if last {
            self.moved.insert(namespace.clone());
        }
    }

    /// Namespaces to decide on. An App that is decided anew goes and comes, which changes nothing.
    pub(super) fn take_due(&mut self) -> BTreeSet<NamespaceName> {
        let mut due = std::mem::take(&mut self.due);
        for namespace in std::mem::take(&mut self.moved) {
            if self.seen.get(&namespace) != Some(&self.clusters(&namespace)) {
                due.insert(namespace);
            }
        }
        for namespace in &due {
            self.seen
                .insert(namespace.clone(), self.clusters(namespace));
        }
        due
    }

    pub(super) fn is_at(&self, namespace: &NamespaceName, at: At) -> bool {
        let counted = self
            .counts
            .get(namespace)
            .is_some_and(|counts| counts[at] > 0);
        let orphans = self.orphans.get(namespace);
        counted || orphans.is_some_and(|here| here.contains(&at))
    }

    pub(super) fn clusters(&self, namespace: &NamespaceName) -> BTreeSet<At> {
        let counts = self.counts.get(namespace).into_iter().flatten().enumerate();
        let counted = counts.filter(|(_, count)| **count > 0).map(|(at, _)| at);
        let orphans = self.orphans.get(namespace).into_iter().flatten();
        counted.chain(orphans.copied()).collect()
    }

    /// Takes in where Apps stand that are gone at the hub.
    pub(super) fn see_orphans(&mut self, world: &World, fleet: &Fleet) {
        let before = std::mem::take(&mut self.orphans);
        for uid in &world.orphans {
            let ledger = world.ledger(uid).into_iter();
            for (cluster, held) in ledger.flat_map(|ledger| &ledger.entries) {
                let here = self
                    .orphans
                    .entry(held.entry.namespace.clone())
                    .or_default();
                here.extend(fleet.position(cluster));
            }
        }
        let changed = |name: &&NamespaceName| before.get(*name) != self.orphans.get(*name);
        let names = before.keys().chain(self.orphans.keys());
        let changed: Vec<_> = names.filter(changed).cloned().collect();
        self.due.extend(changed);
    }
}
