//! Where each Isolation is in force, from what agents report.

use std::collections::BTreeMap;

use crds::{ClusterName, DataGrade, NamespaceName, Reason, ReportState};

use super::super::regions::Fleet;
use super::super::tenants::Tenants;
use super::baselines::{Baselines, applies};
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

/// Where each Isolation is to be in force, and where it is.
pub(super) fn enforcement(
    world: &World,
    fleet: &Fleet,
    baselines: &Baselines,
    tenants: &Tenants,
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
            let grade = tenants
                .owner(namespace)
                .map_or(DataGrade::Core, |own| own.limits.grade);
            let grade = grade.min(cluster.max_data_grade);
            let report = ledger.reports.get(name);
            let report = report.filter(|report| report.generation >= held.entry.generation);
            let specs = baselines.specs.iter();
            for (isolation, _) in specs.filter(|(_, spec)| applies(spec, cluster.zone, grade)) {
                let sum = all.entry(isolation.clone()).or_default();
                sum.wanted += 1;
                let well = |state| matches!(state, ReportState::Healthy | ReportState::Observed);
                sum.in_force += usize::from(report.is_some_and(|report| well(report.state)));
                let Some(report) = report else { continue };
                let (place, reason) = if report.state == ReportState::Failed {
                    let reason = report.reason.unwrap_or(Reason::InProgress);
                    (&mut sum.obstacle, reason)
                } else if well(report.state) {
                    (&mut sum.reverted, Reason::Drifted)
                } else {
                    continue;
                };
                if let (None, Some(message)) = (&place, &report.message) {
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
