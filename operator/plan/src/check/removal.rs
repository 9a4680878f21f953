//! The second judge on what leaves a cluster: by somebody's word, and not before the App stands elsewhere.

use std::collections::BTreeSet;

use crds::{ClusterName, Division, Entry, NamespaceName, ReportState, label_selector_matches};

use super::{Judge, tenancy};
use crate::province::SliceWrite;
use crate::world::{AppState, Scale, ValidApp, ValidCluster};

/// Where else an App is placed.
struct Other<'a> {
    cluster: &'a ClusterName,
    entry: &'a Entry,
    /// Whether it does what it should there.
    well: bool,
}

impl<'a> Judge<'a> {
    /// A removal needs somebody's word, the App's deletion or its own rules, and a living App must
    /// stand elsewhere first.
    pub(super) fn may_remove(&self, write: &SliceWrite, entry: &Entry) -> bool {
        let Some(slot) = self.world.app(&entry.uid) else {
            return false;
        };
        if matches!(slot.life, AppState::Deleting | AppState::Released) {
            return true;
        }
        let Ok(app) = &slot.state else { return false };
        let leaves = |cluster: &ClusterName| self.must_leave(&slot.namespace, app, cluster);
        let mut others = self.others(write, entry);
        // What has to go itself, and is written a moment later, neither replaces anything nor holds it up.
        others.retain(|other| !leaves(other.cluster));
        let well = others.iter().filter(|other| other.well);
        let well: Vec<&Entry> = well.map(|other| other.entry).collect();
        let all: Vec<&Entry> = others.iter().map(|other| other.entry).collect();
        let stands = !well.is_empty() && (well.len() == all.len() || carry(app, &well));
        stands && (leaves(&write.cluster) || self.surplus(app, write, &all))
    }

    /// Where else an App is placed, and whether it is well there.
    fn others(&self, write: &SliceWrite, entry: &Entry) -> Vec<Other<'a>> {
        let Some(ledger) = self.world.ledger(&entry.uid) else {
            return Vec::new();
        };
        let (mut others, lost) = (Vec::new(), |c: &ClusterName| self.region(c).is_none());
        for (cluster, held) in &ledger.entries {
            if *cluster == write.cluster || !held.entry.state.is_present() {
                continue;
            }
            let leaves = self
                .plan
                .slices
                .iter()
                .filter(|other| other.cluster == *cluster)
                .any(|w| {
                    w.spec
                        .entries
                        .iter()
                        .any(|e| e.uid == entry.uid && !e.state.is_present())
                });
            let report = ledger
                .reports
                .get(cluster)
                .filter(|r| r.generation >= held.entry.generation);
            let well = report
                .is_some_and(|r| matches!(r.state, ReportState::Healthy | ReportState::Observed));
            if !leaves {
                others.push(Other {
                    cluster,
                    entry: &held.entry,
                    well: well || lost(cluster),
                });
            }
        }
        others
    }

    /// Whether the App's own rules, its tenants, or the loss of a region take it away from a cluster.
    fn must_leave(&self, tenant: &NamespaceName, app: &ValidApp, name: &ClusterName) -> bool {
        let slot = self
            .world
            .clusters
            .get(name)
            .and_then(|slot| slot.state.as_ref().ok());
        let Some(cluster) = slot else { return false };
        let line = self.line(&cluster.region);
        let labels = app.placement.clusters.as_ref();
        let chosen = app.placement.regions.as_ref().is_none_or(|selector| {
            let within =
                selector.within.is_empty() || line.iter().any(|r| selector.within.contains(r));
            let region = self
                .world
                .regions
                .get(&cluster.region)
                .and_then(|r| r.state.as_ref().ok());
            within
                && region.is_none_or(|region| {
                    (selector.levels.is_empty() || selector.levels.contains(&region.level))
                        && (selector.selector.as_ref())
                            .is_none_or(|s| label_selector_matches(s, &region.labels))
                })
        });
        !fits(app, cluster)
            || tenancy::bars(self.world, tenant, app, &line)
            || !chosen
            || labels.is_some_and(|s| !label_selector_matches(s, &cluster.labels))
            || line.iter().any(|region| self.world.lost.contains(*region))
    }

    /// Whether an App has what it asks for without a cluster.
    fn surplus(&self, app: &ValidApp, write: &SliceWrite, others: &[&Entry]) -> bool {
        if divides(app).is_some() {
            return carry(app, others);
        }
        let most = app.placement.max_regions;
        let most = most.and_then(|n| usize::try_from(n).ok());
        let here = self.region(&write.cluster);
        let ledger = others.first().and_then(|e| self.world.ledger(&e.uid));
        let entries = ledger.into_iter().flat_map(|l| &l.entries);
        let present = entries
            .filter(|(cluster, held)| **cluster != write.cluster && held.entry.state.is_present());
        let regions: Vec<_> = present
            .filter_map(|(cluster, _)| self.region(cluster))
            .collect();
        here.is_some_and(|here| regions.contains(&here))
            || most.is_some_and(|most| regions.iter().collect::<BTreeSet<_>>().len() >= most)
    }
}

/// The replicas that an App divides over its clusters; `None` if each has all of them.
fn divides(app: &ValidApp) -> Option<i32> {
    let (Scale::Replicas {
        total, division, ..
    }
    | Scale::Autoscaled {
        max: total,
        division,
        ..
    }) = &app.scale
    else {
        return None;
    };
    (*division != Division::Duplicate).then_some(*total)
}

/// Whether these have all the replicas that an App divides.
fn carry(app: &ValidApp, entries: &[&Entry]) -> bool {
    let count = |entry: &&Entry| match entry.stages.first() {
        Some(stage) => stage.replicas.or(stage.hpa.map(|hpa| hpa.max)).unwrap_or(1),
        None => 1,
    };
    let placed: i64 = entries.iter().map(|entry| i64::from(count(entry))).sum();
    divides(app).is_some_and(|total| placed >= i64::from(total))
}

pub(super) fn fits(app: &ValidApp, cluster: &ValidCluster) -> bool {
    cluster.zone == app.zone
        && cluster.max_data_grade >= app.grade
        && cluster.protection_level >= app.protection_level
}
