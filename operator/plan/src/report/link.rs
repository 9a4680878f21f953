//! Statuses of Links.

use std::collections::BTreeMap;

use crds::{ConditionStatus, ConditionType, ContentHash, LinkStatus, NamespaceName, Reason};

use super::fleet::Setter;
use crate::province::{Edited, Force, Links};
use crate::world::{LinkKey, LinkSlot, Parked, World};

/// Statuses that differ from the ones last written.
pub(crate) fn link_statuses(
    world: &World,
    links: &Links,
    edited: &Edited,
) -> BTreeMap<LinkKey, LinkStatus> {
    let all = links.verdicts.iter().filter_map(|(key, verdict)| {
        let slot = world.links.get(key)?;
        let hash = links.hashes.get(key).cloned();
        let status = status(world, edited, key, slot, verdict.as_ref().err(), hash);
        let mut old = (*slot.status).clone();
        old.leader_epoch = None;
        (status != old).then(|| (key.clone(), status))
    });
    all.collect()
}

fn status(
    world: &World,
    edited: &Edited,
    key: &LinkKey,
    slot: &LinkSlot,
    parked: Option<&Parked>,
    content_hash: Option<ContentHash>,
) -> LinkStatus {
    use ConditionStatus::{False, True};
    use ConditionType::{Accepted, Ready, Reconciling, Stalled};
    let set = Setter {
        old: &slot.status.conditions,
        generation: slot.generation,
        now: world.now,
    };
    let conditions = if let Some(parked) = parked {
        let message = format!("{}. It lets nothing through.", parked.message);
        let waits = parked.reason == Reason::ApprovalRequired;
        let kind = if waits { Reconciling } else { Stalled };
        vec![
            set.to(Ready, False, parked.reason, message.clone()),
            set.to(kind, True, parked.reason, message.clone()),
            set.to(Accepted, False, parked.reason, message),
        ]
    } else {
        let target = slot.state.as_ref().ok().map(|spec| &spec.to.namespace);
        let (wanted, in_force) = enforced(world, edited, &key.0, target);
        let so_far = format!(
            "In force in {in_force} of {wanted} places where one of the two namespaces is."
        );
        let accepted = set.to(
            Accepted,
            True,
            Reason::AsExpected,
            "Both sides agree.".to_owned(),
        );
        if in_force < wanted {
            vec![
                set.to(Ready, False, Reason::InProgress, so_far.clone()),
                set.to(Reconciling, True, Reason::InProgress, so_far),
                accepted,
            ]
        } else {
            vec![set.to(Ready, True, Reason::AsExpected, so_far), accepted]
        }
    };
    LinkStatus {
        observed_generation: Some(slot.generation),
        leader_epoch: None,
        conditions,
        content_hash,
    }
}

/// Where the two namespaces are isolated, and where as decided last.
fn enforced(
    world: &World,
    edited: &Edited,
    home: &NamespaceName,
    target: Option<&NamespaceName>,
) -> (usize, usize) {
    let (mut wanted, mut in_force) = (0, 0);
    for namespace in std::iter::once(home).chain(target) {
        let Some(ledger) = world.home(namespace) else {
            continue;
        };
        let entries = ledger.entries.iter();
        for (cluster, held) in entries.filter(|(_, held)| held.entry.state.is_present()) {
            let report = ledger.reports.get(cluster);
            let force = edited.force((namespace, cluster), held, report);
            wanted += 1;
            in_force += usize::from(force == Force::InForce);
        }
    }
    (wanted, in_force)
}
