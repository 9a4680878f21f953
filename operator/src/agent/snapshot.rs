//! The agent's memory in its own cluster: compressed, in content-addressed chunks, the index last.
//!
//! With it a restarted agent goes on at once with the hub gone: it repairs, follows its timetable,
//! and knows which hub it serves. A crash between two writes leaves the old index with the old
//! chunks, so a snapshot is read whole or not at all. An agent writes over nothing but what it read or
//! wrote itself: of two that run at once, as while one replaces the other, the older one's memory must
//! not come last.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use crds::{ContentHash, FIELD_MANAGER, HubSeen, ReportEntry, SYSTEM_NAMESPACE, Uid, label};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{
    DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions,
};
use kube::{Api, Client, ResourceExt as _};
use plan::content::{AppContent, hash_of};
use plan::held::Held;
use plan::object::ObjectKey;
use plan::realize::{Delivered, SecretKey, Settled};
use serde::{Deserialize, Serialize};

/// Largest chunk: with base64 it stays well below the 1 MiB limit of a Secret.
const CHUNK_BYTES: usize = 512 * 1024;
/// Most bytes a snapshot may unpack to: 10,000 Apps take about 10 MiB.
const UNPACKED_MAX: u64 = 256 * 1024 * 1024;
/// Writes without an answer that are remembered, each some dozens of bytes. Beyond it an own one may be
/// taken for another agent's, which costs a new start.
const TRIED_MAX: usize = 64;
/// Annotation on the index: the hub an administrator of this cluster acknowledged.
const ACKNOWLEDGED: &str = "jiuzhou.io/acknowledged-hub";
/// Key of the index: the hub that is served, and the newest of it that was seen.
const HUB: &str = "hub";

/// What an agent remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot {
    pub(crate) held: Held,
    pub(crate) contents: BTreeMap<ContentHash, Arc<AppContent>>,
    pub(crate) settled: Vec<(ObjectKey, Settled)>,
    pub(crate) reports: BTreeMap<Uid, ReportEntry>,
    #[serde(default)]
    pub(crate) delivered: Vec<(SecretKey, Delivered)>,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("cannot read or write the snapshot")]
    Api(#[from] kube::Error),
    #[error(
        "another agent of this cluster has written the snapshot {0}; this one begins anew with it"
    )]
    Overtaken(String),
    #[error("the snapshot's index names chunk {0}, which is missing or damaged")]
    Chunk(String),
    #[error("the snapshot cannot be unpacked")]
    Unpack(#[from] std::io::Error),
    #[error("the snapshot cannot be understood")]
    Parse(#[from] serde_json::Error),
    #[error(
        "key hub of Secret jiuzhou-system/{index} does not say which hub is served: restore it, or delete the Secret to serve whichever hub decides now"
    )]
    Pin {
        index: String,
        source: serde_json::Error,
    },
}

/// Where an agent's snapshot is kept.
pub(crate) struct Store {
    secrets: Api<Secret>,
    prefix: String,
    /// Epoch of the hub leader in whose process the agent runs; every write carries it.
    epoch: Option<i64>,
    /// The index as it was read or written last.
    index: Option<Secret>,
    /// Names of the chunks of writes whose answers are not known.
    tried: BTreeSet<String>,
    /// Whether a chunk does not hold what its name says: none is then taken for good.
    damaged: bool,
}

/// A snapshot as it was found, and the hub that an administrator acknowledged, if one did.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) snapshot: Snapshot,
    pub(crate) acknowledged: Option<Uid>,
    /// Why the snapshot holds nothing but the hub that is served, if it was damaged.
    pub(crate) damage: Option<SnapshotError>,
}

impl Store {
    pub(crate) fn new(client: Client, cluster: &crds::ClusterName, epoch: Option<i64>) -> Self {
        let prefix = format!("jiuzhou-snapshot-{cluster}");
        Self {
            secrets: Api::namespaced(client, SYSTEM_NAMESPACE),
            prefix,
            epoch,
            index: None,
            tried: BTreeSet::new(),
            damaged: false,
        }
    }

    /// Whether an earlier run of the agent left its memory here.
    pub(crate) fn holds_something(&self) -> bool {
        self.index.is_some()
    }

    /// Reads the snapshot, if there is one.
    pub(crate) async fn read(&mut self) -> Result<Option<Found>, SnapshotError> {
        self.index = self.secrets.get_opt(&self.prefix).await?;
        let Some(index) = &self.index else {
            return Ok(None);
        };
        let packed = self.read_chunks(index).await;
        self.damaged = matches!(packed, Err(SnapshotError::Chunk(_)));
        found(index, packed).map(Some)
    }

    async fn read_chunks(&self, index: &Secret) -> Result<Vec<u8>, SnapshotError> {
        let mut packed = Vec::new();
        for name in chunks(index).split_whitespace() {
            let chunk = self.secrets.get_opt(name).await?;
            let bytes = chunk
                .as_ref()
                .and_then(|chunk| value(chunk, "data"))
                .filter(|bytes| self.chunk_name(bytes) == name);
            packed.extend(bytes.ok_or_else(|| SnapshotError::Chunk(name.to_owned()))?);
        }
        Ok(packed)
    }

    /// The hub that an administrator of this cluster acknowledged, if one did.
    pub(crate) async fn acknowledged(&self) -> Result<Option<Uid>, SnapshotError> {
        let index = self.secrets.get_metadata_opt(&self.prefix).await?;
        Ok(index.and_then(|index| acknowledged(&index.metadata)))
    }

    /// Writes chunks that are new, then the index, then deletes chunks that are no longer named.
    /// Which hub is served also stands in the index: losing a chunk must not lose that.
    pub(crate) async fn write(
        &mut self,
        packed: &[u8],
        hub: Option<&HubSeen>,
    ) -> Result<(), SnapshotError> {
        let selector =
            ListParams::default().labels(&format!("jiuzhou.io/snapshot={}", self.prefix));
        let known: BTreeMap<String, Preconditions> = self
            .secrets
            .list_metadata(&selector)
            .await?
            .items
            .into_iter()
            .map(|chunk| {
                let preconditions = Preconditions {
                    uid: chunk.uid(),
                    resource_version: chunk.resource_version(),
                };
                (chunk.name_any(), preconditions)
            })
            .collect();
        let chunks = packed.chunks(CHUNK_BYTES);
        let chunks: Vec<_> = chunks
            .map(|chunk| (self.chunk_name(chunk), chunk))
            .collect();
        let names: Vec<&str> = chunks.iter().map(|(name, _)| name.as_str()).collect();
        let mut index = self.secret(&self.prefix, "chunks", names.join(" ").into_bytes());
        if let (Some(data), Some(hub)) = (&mut index.data, hub) {
            let hub = serde_json::to_vec(hub).map_err(SnapshotError::Parse)?;
            data.insert(HUB.to_owned(), ByteString(hub));
        }
        let good = |name: &str| !self.damaged && known.contains_key(name);
        if names.iter().all(|name| good(name)) && self.stands(&index, known.get(&self.prefix)) {
            return Ok(());
        }
        let apply = PatchParams::apply(FIELD_MANAGER).force();
        for (name, chunk) in &chunks {
            if good(name) {
                continue;
            }
            let secret = self.secret(name, "data", chunk.to_vec());
            let written = if known.contains_key(name) {
                self.secrets
                    .patch(name, &apply, &Patch::Apply(&secret))
                    .await
            } else {
                self.secrets.create(&PostParams::default(), &secret).await
            };
            match written {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.write_index(index).await?;
        self.damaged = false;
        for (old, preconditions) in known {
            if old == self.prefix || names.contains(&old.as_str()) {
                continue;
            }
            let params = DeleteParams {
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            };
            match self.secrets.delete(&old, &params).await {
                Ok(_) => {}
                // Gone already, or somebody made it anew: the next write looks again.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the index says this already. What changed and changed back is not written again.
    fn stands(&self, index: &Secret, there: Option<&Preconditions>) -> bool {
        let Some((known, there)) = self.index.as_ref().zip(there) else {
            return false;
        };
        known.data == index.data && known.resource_version() == there.resource_version
    }

    /// Writes the index over the one that is known. That somebody annotated it is no matter.
    async fn write_index(&mut self, index: Secret) -> Result<(), SnapshotError> {
        let ours = |found: &Secret, store: &Self| {
            let named = chunks(found);
            store.index.as_ref().map(chunks) == Some(named.clone()) || store.tried.contains(&named)
        };
        let written = match self.put(&index).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                let found = self.secrets.get_opt(&self.prefix).await?;
                if found.as_ref().is_some_and(|found| !ours(found, self)) {
                    return Err(SnapshotError::Overtaken(self.prefix.clone()));
                }
                self.index = found;
                self.put(&index).await
            }
            answer => answer,
        };
        if self.tried.len() >= TRIED_MAX {
            self.tried.clear();
        }
        self.tried.insert(chunks(&index));
        self.index = Some(written?);
        self.tried.clear();
        Ok(())
    }

    async fn put(&self, index: &Secret) -> Result<Secret, kube::Error> {
        let Some(known) = &self.index else {
            return self.secrets.create(&PostParams::default(), index).await;
        };
        let mut index = index.clone();
        index.metadata.resource_version = known.resource_version();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&index);
        self.secrets.patch(&self.prefix, &params, &patch).await
    }

    fn chunk_name(&self, bytes: &[u8]) -> String {
        format!("{}-{}", self.prefix, hash_of(bytes))
    }

    fn secret(&self, name: &str, key: &str, value: Vec<u8>) -> Secret {
        let labels = BTreeMap::from([
            (
                label::MANAGED_BY.to_owned(),
                label::MANAGED_BY_VALUE.to_owned(),
            ),
            ("jiuzhou.io/snapshot".to_owned(), self.prefix.clone()),
        ]);
        let annotations = self
            .epoch
            .map(|epoch| BTreeMap::from([(label::LEADER_EPOCH.to_owned(), epoch.to_string())]));
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(labels),
                annotations,
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(key.to_owned(), ByteString(value))])),
            ..Secret::default()
        }
    }
}

fn acknowledged(index: &ObjectMeta) -> Option<Uid> {
    let hub = index.annotations.as_ref()?.get(ACKNOWLEDGED)?;
    Some(Uid::from(hub.as_str()))
}

/// Names of the chunks that an index holds.
fn chunks(index: &Secret) -> String {
    String::from_utf8_lossy(value(index, "chunks").unwrap_or_default()).into_owned()
}

fn value<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let value = secret.data.as_ref()?.get(key)?;
    Some(&value.0)
}

/// What an index and its chunks say. A damaged snapshot is left aside, since the hub has everything
/// that was in it; but not which hub that is.
fn found(index: &Secret, packed: Result<Vec<u8>, SnapshotError>) -> Result<Found, SnapshotError> {
    let (snapshot, damage) = match packed.and_then(|packed| unpack(&packed)) {
        Ok(snapshot) => (snapshot, None),
        Err(error @ (SnapshotError::Api(_) | SnapshotError::Pin { .. })) => return Err(error),
        Err(
            error @ (SnapshotError::Chunk(_)
            | SnapshotError::Unpack(_)
            | SnapshotError::Parse(_)
            | SnapshotError::Overtaken(_)),
        ) => {
            let mut snapshot = Snapshot::default();
            let pin = value(index, HUB).map(serde_json::from_slice).transpose();
            snapshot.held.hub = pin.map_err(|source| SnapshotError::Pin {
                index: index.name_any(),
                source,
            })?;
            (snapshot, Some(error))
        }
    };
    Ok(Found {
        snapshot,
        acknowledged: acknowledged(&index.metadata),
        damage,
    })
}

/// Packs a snapshot. Equal snapshots give equal bytes, so that nothing is written twice.
pub(crate) fn pack(snapshot: &Snapshot) -> Vec<u8> {
    // Written in one piece: the encoder clears its whole buffer for each write, however small.
    let json = serde_json::to_vec(snapshot).expect("a snapshot is plain data");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(&json)
        .and_then(|()| encoder.finish())
        .expect("a Vec takes all bytes")
}

fn unpack(packed: &[u8]) -> Result<Snapshot, SnapshotError> {
    if packed.is_empty() {
        return Ok(Snapshot::default());
    }
    let mut json = Vec::new();
    GzDecoder::new(packed)
        .take(UNPACKED_MAX)
        .read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::Fake;

    #[test]
    fn a_snapshot_survives_packing() {
        let mut snapshot = Snapshot::default();
        let content = AppContent {
            manifests: vec![serde_json::json!({"kind": "Service"})],
            images: vec![],
            workload: None,
            tier: crds::Tier::General,
            overrides: vec![],
        };
        snapshot
            .contents
            .insert("0".repeat(20).into(), Arc::new(content));
        let packed = pack(&snapshot);
        assert_eq!(unpack(&packed).unwrap(), snapshot);
        assert_eq!(pack(&snapshot), packed);
    }

    #[test]
    fn a_damaged_snapshot_is_an_error_and_not_an_empty_one() {
        let mut packed = pack(&Snapshot::default());
        let middle = packed.len() / 2;
        packed[middle] ^= 0xff;
        assert!(unpack(&packed).is_err());
    }

    const SECRETS: &str = "/api/v1/namespaces/jiuzhou-system/secrets";
    const INDEX: &str = "/api/v1/namespaces/jiuzhou-system/secrets/jiuzhou-snapshot-ningbo-a";

    fn store(fake: &Fake) -> Store {
        Store::new(fake.client(), &"ningbo-a".into(), None)
    }

    #[tokio::test]
    async fn chunks_are_written_before_the_index_and_old_ones_go_after_it() {
        let fake = Fake::default();
        let mut agent = store(&fake);
        agent.write(b"one", None).await.unwrap();
        let begun = fake.log().len();
        agent.write(b"two", None).await.unwrap();
        let log = fake.log().split_off(begun);
        let verbs: Vec<&str> = log
            .iter()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(verbs, ["GET", "POST", "PATCH", "DELETE"]);
        assert!(log[2].contains(INDEX), "{log:?}");
    }

    #[tokio::test]
    async fn what_changed_and_changed_back_is_not_written_again_unless_it_was_damaged() {
        let fake = Fake::default();
        let mut agent = store(&fake);
        agent.write(b"one", None).await.unwrap();
        let begun = fake.log().len();
        agent.write(b"one", None).await.unwrap();
        let log = fake.log().split_off(begun);
        assert!(log.iter().all(|line| line.starts_with("GET")), "{log:?}");
        let chunk = agent.chunk_name(b"one");
        let gone = Api::<Secret>::namespaced(fake.client(), SYSTEM_NAMESPACE);
        gone.delete(&chunk, &DeleteParams::default()).await.unwrap();
        agent.write(b"one", None).await.unwrap();
        let path = format!("{SECRETS}/{chunk}");
        let stored = fake.get(&path).unwrap();
        let mut spoilt = stored.clone();
        spoilt["data"]["data"] = serde_json::json!("c3BvaWx0");
        fake.put(&path, spoilt);
        let mut later = store(&fake);
        assert!(later.read().await.unwrap().unwrap().damage.is_some());
        later.write(b"one", None).await.unwrap();
        assert_eq!(fake.get(&path).unwrap()["data"], stored["data"]);
    }

    #[tokio::test]
    async fn an_agent_never_writes_over_what_another_one_remembers() {
        let fake = Fake::default();
        let (mut old, mut new) = (store(&fake), store(&fake));
        old.write(b"old", None).await.unwrap();
        assert!(new.read().await.unwrap().is_some());
        new.write(b"new", None).await.unwrap();
        let late = old.write(b"late", None).await;
        assert!(matches!(late, Err(SnapshotError::Overtaken(_))), "{late:?}");
        new.write(b"newer", None).await.unwrap();
    }

    #[tokio::test]
    async fn an_annotation_or_a_deletion_of_the_index_is_no_other_agent() {
        let fake = Fake::default();
        let mut agent = store(&fake);
        agent.write(b"one", None).await.unwrap();
        let mut index = fake.get(INDEX).unwrap();
        index["metadata"]["annotations"] = serde_json::json!({(ACKNOWLEDGED): "hub-2"});
        fake.put(INDEX, index);
        agent.write(b"two", None).await.unwrap();
        let gone = Api::<Secret>::namespaced(fake.client(), SYSTEM_NAMESPACE);
        gone.delete("jiuzhou-snapshot-ningbo-a", &DeleteParams::default())
            .await
            .unwrap();
        agent.write(b"three", None).await.unwrap();
        assert!(fake.get(INDEX).is_some());
        assert!(fake.log().iter().all(|line| line.contains(SECRETS)));
    }

    fn index(hub: &[u8]) -> Secret {
        let data = BTreeMap::from([(HUB.to_owned(), ByteString(hub.to_vec()))]);
        Secret {
            data: Some(data),
            ..Secret::default()
        }
    }

    #[test]
    fn a_lost_chunk_does_not_lose_which_hub_is_served() {
        let hub = HubSeen {
            id: "hub-1".into(),
            epoch: 2,
            leader_epoch: 3,
            sequence: 4,
        };
        let lost = Err(SnapshotError::Chunk("c-1".to_owned()));
        let found = found(&index(&serde_json::to_vec(&hub).unwrap()), lost).unwrap();
        assert_eq!(found.snapshot.held.hub, Some(hub));
        assert!(found.damage.is_some());
    }

    #[test]
    fn an_agent_that_cannot_tell_which_hub_it_serves_does_not_start() {
        let lost = Err(SnapshotError::Chunk("c-1".to_owned()));
        assert!(matches!(
            found(&index(b"{"), lost),
            Err(SnapshotError::Pin { .. })
        ));
    }
}
