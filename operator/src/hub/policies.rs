//! Holding TrafficPolicies, and letting them go.

use crds::{TrafficPolicy, Uid};
use kube::{Api, Client};
use plan::province::PolicyWrite;
use plan::world::PolicyKey;

use super::apply::{WriteResult, Written, failed};
use super::finalizers;

/// One write for a TrafficPolicy.
pub(super) async fn write(client: &Client, write: PolicyWrite, epoch: i64) -> WriteResult {
    match write {
        PolicyWrite::Hold(key, uid) => finalizer(client, &key, &uid, true, epoch).await,
        PolicyWrite::Release(key, uid) => finalizer(client, &key, &uid, false, epoch).await,
    }
}

async fn finalizer(
    client: &Client,
    (home, name): &PolicyKey,
    uid: &Uid,
    held: bool,
    epoch: i64,
) -> WriteResult {
    let policies: Api<TrafficPolicy> = Api::namespaced(client.clone(), home.as_str());
    let written = finalizers::set(&policies, name, uid, held, epoch).await;
    let written = written.map_err(failed(format!(
        "the finalizer of TrafficPolicy {home}/{name}"
    )))?;
    Ok(written.map(|policy| Written::Policy(Box::new(policy))))
}
