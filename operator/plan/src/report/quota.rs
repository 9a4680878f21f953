//! Statuses of Quotas.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    ConditionStatus, ConditionType, GrantUse, NamespaceName, Quantity, QuotaStatus, Reason,
    SYSTEM_NAMESPACE,
};

use super::fleet::Setter;
use crate::amount::{format_amount, format_cores};
use crate::province::{Book, Granting, QuotaStanding, Source};
use crate::world::{GrantKey, QuotaKey, QuotaSlot, World, quota_name};

/// Brings the statuses that differ from the ones last written up to date: of all Quotas, or, when it is
/// known which of them changed, of those and the ones whose use did.
pub(crate) fn quota_statuses(
    world: &World,
    granting: &Granting,
    book: &mut Book,
    changed: Option<BTreeSet<QuotaKey>>,
    differ: &mut BTreeMap<QuotaKey, QuotaStatus>,
) {
    let mut keys: BTreeSet<QuotaKey> = differ.keys().cloned().collect();
    let touched = book.take_touched();
    if let Some(changed) = changed {
        keys.extend(changed);
        let of = |node| match book.name(node).0 {
            Source::Quota(key) => Some(quota_of(key)),
            Source::Budget(_) => None,
        };
        keys.extend(touched.into_iter().filter_map(of));
    } else {
        keys.extend(granting.standings.keys().cloned());
    }
    for key in keys {
        let found = world.quota(&key).zip(granting.standings.get(&key));
        let status =
            found.map(|(slot, standing)| (status(world, granting, book, slot, standing), slot));
        match status {
            Some((status, slot)) if status != without_epoch(&slot.status) => {
                differ.insert(key, status);
            }
            Some(_) | None => drop(differ.remove(&key)),
        }
    }
}

fn without_epoch(status: &QuotaStatus) -> QuotaStatus {
    QuotaStatus {
        leader_epoch: None,
        ..status.clone()
    }
}

/// Where the Quota of a grant lives, and its name.
fn quota_of(key: &GrantKey) -> QuotaKey {
    let home = key.0.as_str().rsplit_once('-').map(|(home, _)| home);
    let home = NamespaceName::from(home.unwrap_or(SYSTEM_NAMESPACE));
    (home, quota_name(key).into())
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
    let in_force = granting.granted.contains_key(&slot.grant);
    let said = said(standing, in_force);
    let conditions = said
        .into_iter()
        .map(|(kind, status, reason, message)| set.to(kind, status, reason, message));
    let resources: Vec<GrantUse> = uses(book, &slot.grant).collect();
    let printed = |resource: &str, text: &dyn Fn(i64) -> String| {
        let nodes = book.nodes(&slot.grant).iter();
        let node = nodes.clone().find(|(name, _)| **name == *resource)?.1;
        let tree = book.tree();
        let (used, nominal) = (text(tree.used(node)), text(tree.grant(node).nominal));
        Some((format!("{used}/{nominal}"), text(tree.borrowed(node))))
    };
    let cpu = printed("cpu", &format_cores);
    let memory = printed("memory", &|amount| format_amount("memory", amount));
    QuotaStatus {
        observed_generation: Some(slot.generation),
        leader_epoch: None,
        conditions: conditions.collect(),
        resources,
        borrowed_cpu: cpu.as_ref().map(|(_, borrowed)| borrowed.clone()),
        cpu: cpu.map(|(printed, _)| printed),
        memory: memory.map(|(printed, _)| printed),
    }
}

/// What is in force, and what of it is used.
fn uses<'b>(book: &'b Book, key: &GrantKey) -> impl Iterator<Item = GrantUse> + use<'b> {
    let tree = book.tree();
    book.nodes(key).iter().map(move |(resource, node)| {
        let text = |amount| Quantity(format_amount(resource, amount));
        GrantUse {
            name: resource.to_string(),
            nominal: text(tree.grant(*node).nominal),
            used: text(tree.used(*node)),
            borrowed: text(tree.borrowed(*node)),
            carved: text(tree.carved(*node)),
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
            let message = "What it says is in force.".to_owned();
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
