//! Writes whose answer was lost, or that were refused since the store has something else. Until it is
//! known what the store has nothing new is decided: what was granted once must not be granted twice.

use crds::{
    AssignmentSlice, ClusterName, QuotaLedger, RegionName, SYSTEM_NAMESPACE, cluster_namespace,
};
use kube::{Api, Client};

use super::gather::Gathered;

/// An object of which it is not known what the store has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    Slice(ClusterName, String),
    Ledger(RegionName),
}

/// Looks each of them up, and says whether none is left.
pub(super) async fn settle(client: &Client, gathered: &mut Gathered) -> bool {
    while let Some(doubt) = gathered.doubts.pop_first() {
        if let Err(error) = look_up(client, gathered, &doubt).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                ?doubt,
                "nothing is decided until it is known what is stored"
            );
            // They all lie in one store: what does not answer now is not asked for the others as well.
            gathered.doubts.insert(doubt);
            return false;
        }
    }
    true
}

/// Takes in what the store has; what it does not have the next turn writes anew.
async fn look_up(
    client: &Client,
    gathered: &mut Gathered,
    doubt: &Doubt,
) -> Result<(), kube::Error> {
    match doubt {
        Doubt::Slice(cluster, name) => {
            let place = cluster_namespace(cluster);
            let slices: Api<AssignmentSlice> = Api::namespaced(client.clone(), &place);
            if let Some(stored) = slices.get_opt(name).await? {
                gathered.take_slice(cluster, stored, None);
            }
        }
        Doubt::Ledger(region) => {
            let ledgers: Api<QuotaLedger> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
            if let Some(stored) = ledgers.get_opt(region.as_str()).await? {
                gathered.world.apply_quota_ledger(&stored);
            }
        }
    }
    Ok(())
}
