//! Where each Isolation is in force, from what agents report.

use std::collections::BTreeMap;

use crds::{ClusterName, NamespaceName, Reason, ReportEntry, ReportState};

use super::super::regions::Fleet;
use super::super::tenants::Tenants;
use super::baselines::{Baselines, applies, grade_in};
use super::presence::Edited;
use crate::world::{LedgerEntry, World};

/// Where an Isolation is to be in force, where it is, and what stands in its way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Enforcement {
    /// Namespaces in member clusters where it is to be.
    pub wanted: usize,
    /// Those of them where it is.
    pub in_force: usize,
    /// Where something stands in its way, first of all, and why.
    pub obstacle: Option<Remark>,
    /// Where somebody weakened it of late and it was put back, first of all.
    pub reverted: Option<Remark>,
}

/// What a cluster tells of the isolation of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The namespace.
    pub namespace: NamespaceName,
    /// The cluster.
    pub cluster: ClusterName,
    /// What it is, as one word.
    pub reason: Reason,
    /// What it is, as a sentence without its stop.
    pub message: String,
}

/// How far what isolates a namespace is in force in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Its agent has not acknowledged it yet.
    Coming,
    /// It is.
    InForce,
    /// Something stands in its way.
    Obstructed(Reason),
}

impl Force {
    /// From the entry and what was reported last.
    pub(super) fn of(held: &LedgerEntry, report: Option<&ReportEntry>) -> Self {
        let report = report.filter(|report| report.generation >= held.entry.generation);
        match report.map(|report| report.state) {
            Some(ReportState::Healthy | ReportState::Observed) => Self::InForce,
            Some(ReportState::Failed) => {
                let reason = report.and_then(|report| report.reason);
                Self::Obstructed(reason.unwrap_or(Reason::InProgress))
            }
            Some(
                ReportState::Unhealthy
                | ReportState::Pending
                | ReportState::Progressing
                | ReportState::Removing
                | ReportState::Removed,
            )
            | None => Self::Coming,
        }
    }
}

/// Where each Isolation is to be in force, and where it is.
pub(super) fn enforcement(
    world: &World,
    fleet: &Fleet,
    baselines: &Baselines,
    tenants: &Tenants,
    edited: &Edited,
) -> BTreeMap<Box<str>, Enforcement> {
    let mut all: BTreeMap<Box<str>, Enforcement> = baselines
        .specs
        .keys()
        .map(|name| (name.clone(), Enforcement::default()))
        .collect();
    if all.is_empty() {
        return all;
    }
    for (namespace, uid) in &world.enclosed {
        let Some(ledger) = world.ledger(uid) else {
            continue;
        };
        let present = |(_, held): &(&ClusterName, &LedgerEntry)| held.entry.state.is_present();
        for (name, held) in ledger.entries.iter().filter(present) {
            let cluster = fleet.position(name).map(|at| &fleet.clusters[at].cluster);
            let Some(Ok(cluster)) = cluster else { continue };
            let grade = grade_in(tenants, namespace, cluster.max_data_grade);
            let report = ledger.reports.get(name);
            let force = edited.force((namespace, name), held, report);
            let specs = baselines.specs.iter();
            for (isolation, _) in specs.filter(|(_, spec)| applies(spec, cluster.zone, grade)) {
                let sum = all.entry(isolation.clone()).or_default();
                sum.wanted += 1;
                sum.in_force += usize::from(force == Force::InForce);
                let (place, reason) = match force {
                    Force::Obstructed(reason) => (&mut sum.obstacle, reason),
                    Force::InForce => (&mut sum.reverted, Reason::Drifted),
                    Force::Coming => continue,
                };
                let message = report.and_then(|report| report.message.as_ref());
                if let (None, Some(message)) = (&place, message) {
                    *place = Some(Remark {
                        namespace: namespace.clone(),
                        cluster: name.clone(),
                        reason,
                        message: message.clone(),
                    });
                }
            }
        }
    }
    all
}
