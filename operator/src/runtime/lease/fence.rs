//! The fence: a number that only grows, raised by every new leader before its first write.
//!
//! Admission refuses our writes that carry a lower epoch, so a leader that wakes up late can no
//! longer do harm, whatever it believes.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use super::LeaseError;
use crate::runtime::backoff::Backoff;

/// The ConfigMap that admission takes as its parameter.
pub(super) const NAME: &str = "jiuzhou-fence";
/// Its data key.
pub(super) const KEY: &str = "leaderEpoch";
/// Two replicas contend at most, once each per takeover.
const TRIES: u32 = 5;

/// The fence of one cluster.
#[derive(Clone, Debug)]
pub struct Fence {
    maps: Api<ConfigMap>,
}

impl Fence {
    /// The fence in `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            maps: Api::namespaced(client, namespace),
        }
    }

    /// Raises the fence by one and returns the new epoch: the hub's own cluster, on acquiring.
    pub async fn raise(&self) -> Result<i64, LeaseError> {
        self.change(|old| Ok(old.saturating_add(1))).await
    }

    /// The epoch that comes after the fence, for a leader that may have nothing to write.
    pub async fn next(&self) -> Result<i64, LeaseError> {
        let found = self.maps.get_opt(NAME).await.map_err(failed)?;
        let old = found.as_ref().map_or(Ok(0), epoch)?;
        Ok(old.saturating_add(1))
    }

    /// Raises the fence to an epoch that nobody else has raised it to: the hub's own cluster, before
    /// the first write of a term that began with [`next`](Self::next).
    pub async fn raise_above(&self, epoch: i64) -> Result<(), LeaseError> {
        let next = |at| {
            if at >= epoch {
                Err(LeaseError::Behind { at, ours: epoch })
            } else {
                Ok(epoch)
            }
        };
        self.change(next).await.map(|_| ())
    }

    /// Raises the fence of a push member to a leader's epoch. A member beyond it has seen a newer
    /// leader than the caller.
    pub async fn raise_to(&self, epoch: i64) -> Result<(), LeaseError> {
        let next = |at| {
            if at > epoch {
                Err(LeaseError::Behind { at, ours: epoch })
            } else {
                Ok(epoch)
            }
        };
        self.change(next).await.map(|_| ())
    }

    async fn change(
        &self,
        next: impl Fn(i64) -> Result<i64, LeaseError>,
    ) -> Result<i64, LeaseError> {
        let mut waits = Backoff::new(
            std::time::Duration::from_millis(20),
            std::time::Duration::from_millis(500),
        );
        for _ in 0..TRIES {
            let found = self.maps.get_opt(NAME).await.map_err(failed)?;
            let old = found.as_ref().map_or(Ok(0), epoch)?;
            let new = next(old)?;
            if new == old {
                return Ok(old);
            }
            let written = match found {
                // The version it was read at goes along: a change in between is a conflict.
                Some(map) => {
                    self.maps
                        .replace(NAME, &PostParams::default(), &at(map, new))
                        .await
                }
                None => {
                    self.maps
                        .create(&PostParams::default(), &at(absent(), new))
                        .await
                }
            };
            match written {
                Ok(_) => return Ok(new),
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    tokio::time::sleep(waits.wait()).await;
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Err(LeaseError::Contended { tries: TRIES })
    }
}

fn failed(error: kube::Error) -> LeaseError {
    LeaseError::Fence(Box::new(error))
}

/// A ConfigMap without the key was made by an installer and has fenced nothing yet.
fn epoch(map: &ConfigMap) -> Result<i64, LeaseError> {
    let Some(text) = map.data.as_ref().and_then(|data| data.get(KEY)) else {
        return Ok(0);
    };
    let unreadable = || LeaseError::Unreadable {
        value: text.chars().take(32).collect(),
    };
    text.parse()
        .ok()
        .filter(|epoch| (0..i64::MAX).contains(epoch))
        .ok_or_else(unreadable)
}

fn absent() -> ConfigMap {
    let metadata = ObjectMeta {
        name: Some(NAME.to_owned()),
        ..ObjectMeta::default()
    };
    ConfigMap {
        metadata,
        ..ConfigMap::default()
    }
}

fn at(mut map: ConfigMap, epoch: i64) -> ConfigMap {
    map.data
        .get_or_insert_default()
        .insert(KEY.to_owned(), epoch.to_string());
    map
}
