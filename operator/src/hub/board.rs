//! The gauges: what the last report said.

use std::collections::BTreeMap;

use crds::{ConditionStatus, ConditionType, find_condition};
use plan::amount::parse_quantity;
use plan::{PlanReport, Planner};

use super::gather::Gathered;
use crate::runtime::metrics::{Board, Capacity, Grant};

/// Shows a report on the board.
pub(super) fn show(board: &Board, planner: &Planner, gathered: &Gathered) {
    let report = planner.report();
    let mut states: BTreeMap<&'static str, u64> =
        BTreeMap::from([("ready", 0), ("progressing", 0), ("stalled", 0)]);
    for app in report.apps.values() {
        let holds = |kind| {
            find_condition(&app.status.conditions, kind)
                .is_some_and(|c| c.status == ConditionStatus::True)
        };
        let state = match (holds(ConditionType::Ready), holds(ConditionType::Stalled)) {
            (true, _) => "ready",
            (false, true) => "stalled",
            (false, false) => "progressing",
        };
        *states.entry(state).or_default() += 1;
    }
    board.set_apps(states);
    board.set_capacity(capacity(report));
    board.set_grants(gathered.world.quota_clock(), || grants(planner, gathered));
    let contacts = gathered.contacts.iter();
    board.set_contacts(contacts.map(|(name, at)| (name.to_string(), *at)));
    let unreadable = gathered.unreadable.iter();
    board.set_unreadable(unreadable.map(|(kind, names)| (*kind, names.len() as u64)));
}

/// What is granted and used, as the Quotas' statuses last said, and what of it others use.
fn grants(planner: &Planner, gathered: &Gathered) -> Vec<Grant> {
    let (mut rows, lent) = (Vec::new(), planner.lent());
    for (_, slot) in gathered.world.quotas() {
        for told in &slot.status.resources {
            let number = |quantity: &crds::Quantity| in_units(&told.name, &quantity.0);
            let (used, nominal) = (number(&told.used), number(&told.nominal));
            rows.push(Grant {
                region: slot.grant.1.to_string(),
                tenant: slot.grant.0.to_string(),
                resource: told.name.clone(),
                nominal,
                used,
                borrowed: number(&told.borrowed),
                lent: units(&told.name, lent.of(&slot.grant, &told.name)),
            });
        }
    }
    rows
}

fn capacity(report: &PlanReport) -> Vec<Capacity> {
    let mut rows = Vec::new();
    for (region, status) in &report.regions {
        for total in &status.resources {
            let number = |quantity: &crds::Quantity| in_units(&total.name, &quantity.0);
            rows.push(Capacity {
                region: region.to_string(),
                resource: total.name.clone(),
                allocatable: number(&total.allocatable),
                granted: total.granted.as_ref().map(number),
                requested: number(&total.requested),
                headroom: number(&total.headroom),
            });
        }
    }
    rows
}

fn in_units(resource: &str, quantity: &str) -> f64 {
    units(resource, parse_quantity(resource, quantity).unwrap_or(0))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; 2^53 bytes are 8 PiB"
)]
fn units(resource: &str, amount: i64) -> f64 {
    let amount = amount as f64;
    if resource == "cpu" {
        amount / 1000.0
    } else {
        amount
    }
}
