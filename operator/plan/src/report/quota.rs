//! Statuses of Quotas.

use std::collections::{BTreeMap, BTreeSet};

use crds::{Condition, ConditionStatus, ConditionType, GrantUse, Quantity, QuotaStatus, Reason};

use super::fleet::Setter;
use crate::amount::format_amount;
use crate::province::{Book, Granting, QuotaStanding, Source};
use crate::world::{GrantKey, Printed, QuotaKey, QuotaSlot, World, home_of, quota_name};

/// What is said of a Quota that is as it should be.
const IN_FORCE: &str = "What it says is in force.";

/// Brings the statuses that differ from the ones last written up to date: of all Quotas, or, when it is
/// known which of them changed, of those and the ones whose use did.
pub(crate) fn quota_statuses(
    world: &World,
    granting: &Granting,
    book: &mut Book,
    changed: Option<BTreeSet<QuotaKey>>,
    differ: &mut BTreeMap<QuotaKey, QuotaStatus>,
) {
    let touched = book.take_touched();
    let Some(mut keys) = changed else {
        differ.retain(|key, _| world.quota(key).is_some());
        for (key, slot) in world.quotas() {
            compare(world, granting, book, (key, slot), differ);
        }
        return;
    };
    let of = |node| match book.name(node).0 {
        Source::Quota(key) => Some(quota_of(key)),
        Source::Budget(_) => None,
    };
    keys.extend(touched.into_iter().filter_map(of));
    for key in &keys {
        match world.quota(key) {
            Some(slot) => compare(world, granting, book, (key, slot), differ),
            None => drop(differ.remove(key)),
        }
    }
}

/// Brings the status of one Quota up to date.
fn compare(
    world: &World,
    granting: &Granting,
    book: &Book,
    (key, slot): (&QuotaKey, &QuotaSlot),
    differ: &mut BTreeMap<QuotaKey, QuotaStatus>,
) {
    let standing = granting.standing(key);
    if !is_told(book, slot, standing) {
        let status = status(world, granting, book, slot, standing);
        if status != without_epoch(&slot.status) {
            differ.insert(key.clone(), status);
            return;
        }
    }
    differ.remove(key);
}

/// Whether the status last written says that a Quota is in force and what of it is used, by numbers
/// alone: to word it takes far longer, and after a restart that is so of nearly all.
fn is_told(book: &Book, slot: &QuotaSlot, standing: &QuotaStanding) -> bool {
    let (status, generation) = (&slot.status, Some(slot.generation));
    let said = match (standing, status.conditions.as_slice()) {
        (QuotaStanding::InForce, [ready, accepted]) => {
            let right = |condition: &Condition, kind| {
                condition.kind == kind
                    && condition.status == ConditionStatus::True
                    && condition.reason == Reason::AsExpected
                    && condition.message == IN_FORCE
                    && condition.observed_generation == generation
            };
            right(ready, ConditionType::Ready) && right(accepted, ConditionType::Accepted)
        }
        (
            QuotaStanding::InForce
            | QuotaStanding::Coming
            | QuotaStanding::Refused(_)
            | QuotaStanding::Leaving(_),
            _,
        ) => false,
    };
    let nodes = book.nodes(&slot.grant);
    if !said || status.observed_generation != generation || nodes.len() != status.resources.len() {
        return false;
    }
    let both = amounts(book, &slot.grant).zip(status.resources.iter().zip(&slot.told));
    let mut is_so =
        both.map(|((resource, now), (grant, told))| *grant.name == *resource && now == *told);
    slot.told.len() == nodes.len() && is_so.all(|so| so)
}

/// What is granted, used, borrowed and granted on of each resource.
fn amounts<'b>(
    book: &'b Book,
    key: &GrantKey,
) -> impl Iterator<Item = (&'b str, [i64; 4])> + use<'b> {
    let tree = book.tree();
    book.nodes(key).iter().map(move |(resource, node)| {
        let amounts = [
            tree.grant(*node).nominal,
            tree.used(*node),
            tree.borrowed(*node),
            tree.carved(*node),
        ];
        (&**resource, amounts)
    })
}

fn without_epoch(status: &QuotaStatus) -> QuotaStatus {
    QuotaStatus {
        leader_epoch: None,
        ..status.clone()
    }
}

/// Where the Quota of a grant lives, and its name.
fn quota_of(key: &GrantKey) -> QuotaKey {
    let (home, _) = home_of(&key.0);
    (home.into(), quota_name(key).into())
}

fn status(
    world: &World,
    granting: &Granting,
    book: &Book,
    slot: &QuotaSlot,
    standing: &QuotaStanding,
) -> QuotaStatus {
    let set = Setter {
        old: &slot.status.conditions,
        generation: slot.generation,
        now: world.now,
    };
    let in_force = granting.granted.get(&slot.grant).is_some();
    let said = said(standing, in_force);
    let conditions = said
        .into_iter()
        .map(|(kind, status, reason, message)| set.to(kind, status, reason, message));
    let (observed_generation, conditions) = (Some(slot.generation), conditions.collect());
    if slot.was_in_force() && world.quota_ledger(&slot.grant.1).is_none() {
        // The ledger is gone. Until it is written again this is all that is known of what it had.
        return QuotaStatus {
            leader_epoch: None,
            observed_generation,
            conditions,
            ..(*slot.status).clone()
        };
    }
    let printed = Printed::of(amounts(book, &slot.grant));
    QuotaStatus {
        observed_generation,
        leader_epoch: None,
        conditions,
        resources: uses(book, &slot.grant).collect(),
        borrowed_cpu: printed.borrowed_cpu,
        cpu: printed.cpu,
        memory: printed.memory,
    }
}

/// What is in force, and what of it is used.
fn uses<'b>(book: &'b Book, key: &GrantKey) -> impl Iterator<Item = GrantUse> + use<'b> {
    amounts(book, key).map(|(resource, amounts)| {
        let [nominal, used, borrowed, carved] =
            amounts.map(|amount| Quantity(format_amount(resource, amount)));
        GrantUse {
            name: resource.to_owned(),
            nominal,
            used,
            borrowed,
            carved,
        }
    })
}

type Said = (ConditionType, ConditionStatus, Reason, String);

fn said(standing: &QuotaStanding, in_force: bool) -> Vec<Said> {
    use ConditionStatus::{False, True, Unknown};
    use ConditionType::{Accepted, Ready, Reconciling, Stalled};
    let stands = if in_force {
        "What was in force before still is."
    } else {
        "Nothing of it is in force."
    };
    match standing {
        QuotaStanding::InForce => {
            let message = IN_FORCE.to_owned();
            vec![
                (Ready, True, Reason::AsExpected, message.clone()),
                (Accepted, True, Reason::AsExpected, message),
            ]
        }
        QuotaStanding::Coming => {
            let message = "Is about to be in force.".to_owned();
            vec![
                (Ready, False, Reason::InProgress, message.clone()),
                (Reconciling, True, Reason::InProgress, message.clone()),
                (Accepted, Unknown, Reason::InProgress, message),
            ]
        }
        QuotaStanding::Refused(parked) => {
            let message = format!("{}. {stands}", parked.message);
            vec![
                (Ready, False, parked.reason, message.clone()),
                (Stalled, True, parked.reason, message.clone()),
                (Accepted, False, parked.reason, message),
            ]
        }
        QuotaStanding::Leaving(parked) => {
            let message = format!("Being deleted; {}.", parked.message);
            vec![
                (Ready, False, parked.reason, message.clone()),
                (Reconciling, True, parked.reason, message),
            ]
        }
    }
}
