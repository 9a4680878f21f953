//! A well-behaved agent: does what its slices say, one step a turn, and reports it.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    AssignmentSlice, ClusterName, ContentHash, Entry, EntryState, Reason, ReportEntry, ReportSlice,
    ReportSliceSpec, ReportState, Uid,
};
use serde_json::{Value, json};

use super::count;

/// The agent of one cluster.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) silent: bool,
    pub(crate) cluster_report: Value,
    pub(crate) reports: BTreeMap<Uid, ReportEntry>,
}

impl Agent {
    pub(crate) fn new(name: &ClusterName) -> Self {
        let cluster_report = json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "ClusterReport",
            "metadata": {"name": "cluster", "namespace": format!("jz-{name}")},
            "spec": {
                "clusterUID": format!("kube-system-of-{name}"), "agentVersion": "0.1.0",
                "kubernetesVersion": "v1.33.1", "nodes": {"total": 3, "ready": 3},
            },
        });
        Self {
            silent: false,
            cluster_report,
            reports: BTreeMap::new(),
        }
    }

    /// Goes one step on, and returns what is to be reported if it changed.
    pub(crate) fn act<'s>(
        &mut self,
        slices: impl Iterator<Item = &'s AssignmentSlice>,
        bad: &BTreeSet<ContentHash>,
        refused: (&BTreeSet<ContentHash>, Reason),
        now: i64,
    ) -> Option<ReportSlice> {
        if self.silent {
            return None;
        }
        let before = self.reports.clone();
        let mut assigned: BTreeMap<&Uid, &Entry> = BTreeMap::new();
        for entry in slices.flat_map(|slice| &slice.spec.entries) {
            let known = assigned.entry(&entry.uid).or_insert(entry);
            if entry.generation > known.generation {
                *known = entry;
            }
        }
        for (uid, entry) in &assigned {
            let next = step(entry, self.reports.get(*uid), bad, refused, now);
            self.reports.insert((*uid).clone(), next);
        }
        // What is without an entry is kept; only what is gone for good need not be reported.
        self.reports.retain(|uid, report| {
            assigned.contains_key(uid) || report.state != ReportState::Removed
        });
        (self.reports != before).then(|| self.report())
    }

    pub(crate) fn report(&self) -> ReportSlice {
        let entries = self.reports.values().cloned().collect();
        ReportSlice::new("r-0000", ReportSliceSpec { entries })
    }
}

fn step(
    entry: &Entry,
    last: Option<&ReportEntry>,
    bad: &BTreeSet<ContentHash>,
    (refused, reason): (&BTreeSet<ContentHash>, Reason),
    now: i64,
) -> ReportEntry {
    let same = last.filter(|last| last.generation == entry.generation);
    let replicas = count(entry, now);
    let mut next = ReportEntry {
        uid: entry.uid.clone(),
        generation: entry.generation,
        content: Some(entry.content.clone()),
        state: ReportState::Progressing,
        replicas,
        ready: last.map_or(0, |last| last.ready.min(replicas)),
        reason: None,
        message: None,
    };
    if let (EntryState::Present, Some(_)) = (entry.state, same) {
        if refused.contains(&entry.content) {
            next.state = ReportState::Failed;
            next.reason = Some(reason);
            next.message = Some("Deployment web was refused: correct it.".to_owned());
        } else if bad.contains(&entry.content) {
            next.state = ReportState::Unhealthy;
            next.reason = Some(Reason::Unhealthy);
            next.message = Some("Deployment web is not ready: look at its pods.".to_owned());
        } else {
            next.state = ReportState::Healthy;
            next.ready = replicas;
        }
    }
    if entry.state != EntryState::Present {
        next.state = ReportState::Removing;
        if same.is_some() {
            next.state = ReportState::Removed;
            (next.content, next.replicas, next.ready) = (None, 0, 0);
        }
    }
    next
}
