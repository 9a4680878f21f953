//! Carrying out what was decided on Quotas: holding them, letting them go, and writing down what of them
//! is in force.

use crds::{
    AcceptedGrant, Quota, QuotaLedger, QuotaLedgerSpec, RegionName, SYSTEM_NAMESPACE, Uid, label,
};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use plan::province::QuotaWrite;
use plan::world::QuotaKey;

use super::apply::{WriteResult, Written, failed};
use super::doubts::Doubt;
use super::finalizers;
use super::prepare::MANAGER;

/// One write for Quotas.
pub(super) async fn write(client: Client, write: QuotaWrite, epoch: i64) -> WriteResult {
    match write {
        QuotaWrite::Hold(key, uid) => finalizer(&client, &key, &uid, true, epoch).await,
        QuotaWrite::Release(key, uid) => finalizer(&client, &key, &uid, false, epoch).await,
        QuotaWrite::Ledger {
            region,
            resource_version,
            grants,
        } => ledger(&client, &region, resource_version, grants, epoch).await,
    }
}

async fn finalizer(
    client: &Client,
    (home, name): &QuotaKey,
    uid: &Uid,
    held: bool,
    epoch: i64,
) -> WriteResult {
    let quotas: Api<Quota> = Api::namespaced(client.clone(), home.as_str());
    let written = finalizers::set(&quotas, name, uid, held, epoch).await;
    let written = written.map_err(failed(format!("the finalizer of Quota {home}/{name}")))?;
    Ok(written.map(|quota| Written::Quota(Box::new(quota))))
}

/// Writes a ledger in place of exactly the version that was decided on.
async fn ledger(
    client: &Client,
    region: &RegionName,
    resource_version: Option<String>,
    grants: Vec<AcceptedGrant>,
    leader_epoch: i64,
) -> WriteResult {
    let ledgers: Api<QuotaLedger> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let spec = QuotaLedgerSpec {
        leader_epoch,
        grants,
    };
    let mut object = QuotaLedger::new(region.as_str(), spec);
    object.labels_mut().insert(
        label::MANAGED_BY.to_owned(),
        label::MANAGED_BY_VALUE.to_owned(),
    );
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    let written = if resource_version.is_some() {
        object.metadata.resource_version = resource_version;
        ledgers.replace(region.as_str(), &params, &object).await
    } else {
        ledgers.create(&params, &object).await
    };
    match written {
        Ok(written) => Ok(Some(Written::QuotaLedger(Box::new(written)))),
        Err(error) => {
            let error = failed(format!("QuotaLedger {region}"))(error);
            Err(error.leaves(Doubt::Ledger(region.clone())))
        }
    }
}
