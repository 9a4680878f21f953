//! Statuses of Isolations.

use std::collections::BTreeMap;

use crds::{ConditionStatus, ConditionType, IsolationStatus, Reason};

use super::fleet::Setter;
use crate::province::Enforcement;
use crate::world::{IsolationSlot, World};

/// Statuses that differ from the ones last written.
pub(crate) fn isolation_statuses(
    world: &World,
    enforcement: &BTreeMap<Box<str>, Enforcement>,
) -> BTreeMap<Box<str>, IsolationStatus> {
    let all = enforcement.iter().filter_map(|(name, found)| {
        let slot = world.isolations.get(name)?;
        let status = status(world, slot, found);
        let mut old = (*slot.status).clone();
        old.leader_epoch = None;
        (status != old).then(|| (name.clone(), status))
    });
    all.collect()
}

fn status(world: &World, slot: &IsolationSlot, found: &Enforcement) -> IsolationStatus {
    use ConditionStatus::{False, True};
    use ConditionType::{Ready, Reconciling, Stalled};
    let set = Setter {
        old: &slot.status.conditions,
        generation: slot.generation,
        now: world.now,
    };
    let Enforcement {
        wanted,
        in_force,
        obstacle,
        reverted,
    } = found;
    let so_far = format!("In force in {in_force} of {wanted} namespaces in member clusters.");
    let conditions = match (obstacle, reverted) {
        (Some(at), _) => {
            let message = format!(
                "{so_far} In namespace {} of cluster {}: {}.",
                at.namespace,
                at.cluster,
                at.message.trim_end_matches('.')
            );
            vec![
                set.to(Ready, False, at.reason, message.clone()),
                set.to(Stalled, True, at.reason, message),
            ]
        }
        (None, _) if in_force < wanted => vec![
            set.to(Ready, False, Reason::InProgress, so_far.clone()),
            set.to(Reconciling, True, Reason::InProgress, so_far),
        ],
        (None, Some(at)) => {
            let message = format!(
                "{so_far} In namespace {} of cluster {}: {}.",
                at.namespace,
                at.cluster,
                at.message.trim_end_matches('.')
            );
            vec![set.to(Ready, True, at.reason, message)]
        }
        (None, None) => vec![set.to(Ready, True, Reason::AsExpected, so_far)],
    };
    IsolationStatus {
        observed_generation: Some(slot.generation),
        leader_epoch: None,
        conditions,
        enforcement: Some(format!("{in_force}/{wanted}")),
    }
}
