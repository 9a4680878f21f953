//! Slices: edits become slices to write, each at most once in its interval.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{AssignmentSliceSpec, ClusterName, Entry, Uid};

use super::contents::Packs;
use super::regions::Wake;
use super::{Edit, SliceWrite};
use crate::pack::pack;
use crate::world::{ClusterSlot, World};

/// Writes slices, cluster by cluster.
pub(super) struct Scribe<'a> {
    pub(super) world: &'a World,
    /// Packs of entries that have none yet.
    pub(super) packs: &'a Packs<'a>,
    pub(super) wake: &'a mut Wake,
    pub(super) writes: &'a mut Vec<SliceWrite>,
}

impl Scribe<'_> {
    /// Turns edits into slices to write. Edits whose slice was written a moment ago wait.
    pub(super) fn write(&mut self, edits: &BTreeMap<ClusterName, BTreeMap<Uid, Edit>>) {
        let none = BTreeMap::new();
        for (cluster, slot) in &self.world.clusters {
            let Some(header) = header(self.world, cluster, slot) else {
                continue;
            };
            let edits = edits.get(cluster).unwrap_or(&none);
            let stale = slot
                .slices
                .values()
                .any(|s| !same_header(&s.header, &header));
            let tidy = slot.doubled.is_empty() && !slot.slices.is_empty();
            if !edits.is_empty() || stale || !tidy {
                self.one_cluster(cluster, slot, &header, edits);
            }
        }
    }

    fn one_cluster(
        &mut self,
        cluster: &ClusterName,
        slot: &ClusterSlot,
        header: &AssignmentSliceSpec,
        edits: &BTreeMap<Uid, Edit>,
    ) {
        let mut entries: BTreeMap<Uid, Option<Arc<Entry>>> = BTreeMap::new();
        for (uid, edit) in edits {
            match edit {
                Edit::Drop => drop(entries.insert(uid.clone(), None)),
                Edit::Put(entry) => {
                    // What has no pack yet waits for it; the rest goes on.
                    if let Some(entry) = self.numbered(entry, header.sequence + 1) {
                        entries.insert(uid.clone(), Some(Arc::new(entry)));
                    }
                }
            }
        }
        let slices = slot
            .slices
            .iter()
            .map(|(name, s)| (name.clone(), s.entries.clone()))
            .collect();
        let mut changed = pack(&slices, &entries);
        for (name, slice) in &slot.slices {
            if !same_header(&slice.header, header) {
                changed
                    .entry(name.clone())
                    .or_insert_with(|| slice.entries.clone());
            }
        }
        if slot.slices.is_empty() && changed.is_empty() {
            // An empty slice tells the agent which hub it talks to and what it may do.
            changed.insert("a-0000".into(), Vec::new());
        }
        // What is new is held by nobody else from here on, and needs no copy.
        drop((slices, entries));
        for (name, entries) in changed {
            self.one_slice(cluster, slot, header, &name, entries);
        }
    }

    fn one_slice(
        &mut self,
        cluster: &ClusterName,
        slot: &ClusterSlot,
        header: &AssignmentSliceSpec,
        name: &str,
        entries: Vec<Arc<Entry>>,
    ) {
        let old = slot.slices.get(name);
        // A slice written in the future was written before the clock was set back.
        let written = old
            .map(|old| old.written)
            .filter(|at| *at <= self.world.now);
        if let Some(written) = written
            && written + self.world.settings.slice_interval > self.world.now
        {
            self.wake.at(written + self.world.settings.slice_interval);
            return;
        }
        let top = entries
            .iter()
            .map(|entry| entry.generation)
            .max()
            .unwrap_or(0);
        self.writes.push(SliceWrite {
            cluster: cluster.clone(),
            name: name.to_owned(),
            resource_version: old.map(|old| old.resource_version.clone()),
            spec: AssignmentSliceSpec {
                sequence: top.max(header.sequence),
                entries: entries.into_iter().map(Arc::unwrap_or_clone).collect(),
                ..header.clone()
            },
        });
    }

    /// An entry with its generation and pack; `None` while its pack cannot be named yet.
    fn numbered(&self, entry: &Entry, generation: i64) -> Option<Entry> {
        let mut entry = Entry {
            generation,
            ..entry.clone()
        };
        if entry.pack.is_empty() {
            let mine = self.packs.get(&entry.uid)?.iter();
            let found = mine
                .into_iter()
                .find(|(content, _)| **content == entry.content);
            entry.pack = found?.1.clone();
        }
        Some(entry)
    }
}

/// What all slices of a cluster say besides their entries. A cluster gets slices from the moment it
/// joined; one that is gone keeps the header it had.
fn header(world: &World, cluster: &ClusterName, slot: &ClusterSlot) -> Option<AssignmentSliceSpec> {
    let last = slot
        .slices
        .values()
        .max_by_key(|s| s.header.sequence)
        .map(|s| &s.header);
    let (management, cluster_uid) = match (&slot.state, slot.pinned(), last) {
        (Ok(cluster), Some(pinned), _) => (cluster.management, pinned.clone()),
        (Err(_) | Ok(_), _, Some(last)) => (last.management, last.cluster_uid.clone()),
        (Err(_) | Ok(_), _, None) => return None,
    };
    Some(AssignmentSliceSpec {
        hub_id: world.hub.id.clone(),
        hub_epoch: world.hub.epoch,
        leader_epoch: world.hub.leader_epoch,
        sequence: sequence(world, cluster, slot),
        management,
        cluster_uid,
        traceparent: None,
        entries: Vec::new(),
    })
}

/// The highest generation that was ever used for a cluster, as far as slices, their entries,
/// reports, or the agent's own memory tell.
fn sequence(world: &World, cluster: &ClusterName, slot: &ClusterSlot) -> i64 {
    let entries = slot
        .slices
        .values()
        .flat_map(|s| s.entries.iter().map(|e| e.generation));
    let decided = slot.slices.values().map(|s| s.header.sequence);
    let reported = slot.reports.values().flatten().map(|r| r.generation);
    let report = world
        .cluster_report(cluster)
        .and_then(|report| report.hub.as_ref());
    // Another hub's numbers say nothing about ours.
    let seen = report
        .filter(|seen| seen.id == world.hub.id)
        .map(|seen| seen.sequence);
    decided
        .chain(entries)
        .chain(reported)
        .chain(seen)
        .max()
        .unwrap_or(0)
}

/// Equal as far as the agent acts on it; a new leader alone rewrites nothing.
fn same_header(a: &AssignmentSliceSpec, b: &AssignmentSliceSpec) -> bool {
    a.hub_id == b.hub_id
        && a.hub_epoch == b.hub_epoch
        && a.management == b.management
        && a.cluster_uid == b.cluster_uid
}
