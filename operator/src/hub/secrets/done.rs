//! Who needs a copy of a Secret no more: only what says so counts, never what is missing.

use std::collections::BTreeSet;

use crds::{ClusterName, Uid};
use plan::World;
use plan::province::copy_name;
use plan::world::{AppState, ValidApp};

/// Those of a copy's former users that may need it still.
pub(super) fn still<'u>(
    world: &World,
    cluster: &ClusterName,
    copy: &str,
    users: impl IntoIterator<Item = &'u Uid>,
) -> BTreeSet<Uid> {
    let users = users.into_iter();
    users
        .filter(|uid| !is_done(world, cluster, copy, uid))
        .cloned()
        .collect()
}

/// Whether it is known that an App needs a copy no more: an entry says so, or it neither stands nor
/// runs in the cluster and the App itself is gone, is going or no longer names the Secret.
fn is_done(world: &World, cluster: &ClusterName, copy: &str, uid: &Uid) -> bool {
    let ledger = world.ledger(uid);
    if let Some(held) = ledger.and_then(|l| l.entries.get(cluster)) {
        let named = held.entry.secrets.iter().any(|s| s.copy == copy);
        return !held.entry.state.is_present() || !named;
    }
    if ledger.is_some_and(|l| l.reports.contains_key(cluster)) {
        return false;
    }
    let Some(slot) = world.app(uid) else {
        // Its finalizer went when the last cluster that answers had acknowledged.
        return true;
    };
    let leaves = matches!(slot.life, AppState::Deleting | AppState::Released);
    let names = |app: &ValidApp| {
        let mut names = app.secret_names.iter();
        names.any(|name| copy_name(&slot.namespace, name) == copy)
    };
    leaves || slot.state.as_ref().is_ok_and(|app| !names(app))
}
