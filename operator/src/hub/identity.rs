//! The hub's identity: made once, kept for good. A hub that lost it is another hub, and members
//! refuse it until an administrator says otherwise.

use std::collections::BTreeMap;

use crds::{SYSTEM_NAMESPACE, Uid};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use plan::world::Hub;

use super::events::IDENTITY;

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The API server did not answer as it should.
    #[error("cannot read or create ConfigMap {SYSTEM_NAMESPACE}/{IDENTITY}")]
    Api(#[source] Box<kube::Error>),
    /// Somebody damaged it.
    #[error(
        "ConfigMap {SYSTEM_NAMESPACE}/{IDENTITY} must hold an id and a whole number as epoch: restore it from a backup"
    )]
    Damaged,
}

/// Reads the identity, or makes one on the very first start.
pub(super) async fn identity(client: &Client) -> Result<Hub, IdentityError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let api = |error| IdentityError::Api(Box::new(error));
    let map = match maps.get_opt(IDENTITY).await.map_err(api)? {
        Some(map) => map,
        None => match maps.create(&PostParams::default(), &fresh()).await {
            Ok(map) => map,
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                maps.get(IDENTITY).await.map_err(api)?
            }
            Err(error) => return Err(api(error)),
        },
    };
    let field = |name: &str| map.data.as_ref().and_then(|data| data.get(name));
    let epoch = field("epoch")
        .and_then(|epoch| epoch.parse().ok())
        .filter(|epoch| *epoch >= 1);
    match (field("id").filter(|id| !id.is_empty()), epoch) {
        (Some(id), Some(epoch)) => Ok(Hub {
            id: Uid::from(id.as_str()),
            epoch,
            leader_epoch: 0,
        }),
        _ => Err(IdentityError::Damaged),
    }
}

fn fresh() -> ConfigMap {
    let data = BTreeMap::from([
        ("id".to_owned(), uuid::Uuid::new_v4().to_string()),
        ("epoch".to_owned(), "1".to_owned()),
    ]);
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(IDENTITY.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..ConfigMap::default()
    }
}
