//! Contents: new ones are packed together by tenant, unused ones collected after a day.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{
    ClusterName, ContentHash, ContentItem, Entry, NamespaceName, PACK_BYTES_MAX, Scope, Uid,
};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::regions::Wake;
use super::{ContentWrite, Edit};
use crate::content::{hex, stored_bytes};
use crate::world::World;

/// Most contents in one pack. An agent that needs one of them reads the pack whole.
const PACK_ITEMS_MAX: usize = 50;

/// Names of packs for entries that have none yet, by what the entry is about and its content.
pub(super) type Packs<'a> = BTreeMap<&'a Uid, Vec<(&'a ContentHash, Arc<str>)>>;

/// Contents that the store does not have, by namespace and what they are about, Apps last; each with whose it
/// is.
type Missing<'a> =
    BTreeMap<(&'a NamespaceName, Reverse<Scope>), BTreeMap<&'a ContentHash, Wanted<'a>>>;

/// A content, and which entries name it.
struct Wanted<'a> {
    data: &'a Arc<str>,
    by: Vec<&'a Uid>,
}

/// Packs all contents that edits need and the store does not have.
pub(super) fn store<'a>(
    world: &'a World,
    ours: impl Fn(&Entry) -> Option<&'a Arc<str>>,
    edits: &'a BTreeMap<ClusterName, BTreeMap<Uid, Edit>>,
    writes: &mut Vec<ContentWrite>,
) -> Packs<'a> {
    let mut packs = Packs::new();
    // What isolates a tenant outlives its Apps, and so does its pack; policies come and go alone.
    let mut missing = Missing::new();
    for (uid, entry) in unpacked(edits) {
        if let Some(name) = world.pack_of(&entry.namespace, &entry.content) {
            let mine = packs.entry(uid).or_default();
            mine.push((&entry.content, name.into()));
        } else if let Some(data) = data(world, &ours, entry) {
            let tenant = missing
                .entry((&entry.namespace, Reverse(entry.scope)))
                .or_default();
            let by = Vec::new();
            let wanted = tenant.entry(&entry.content).or_insert(Wanted { data, by });
            wanted.by.push(uid);
        }
    }
    for ((tenant, _), contents) in missing {
        // Names depend on the tenant's UID, which the next turn will know.
        let Some(key) = world.namespaces.get(tenant).map(|slot| &slot.uid) else {
            continue;
        };
        for contents in split(contents) {
            let items: Vec<ContentItem> = contents.iter().map(item).collect();
            let name: Arc<str> = pack_name(key, &items).into();
            for (hash, wanted) in contents {
                for uid in wanted.by {
                    packs.entry(uid).or_default().push((hash, name.clone()));
                }
            }
            writes.push(ContentWrite {
                name: name.to_string(),
                tenant: tenant.clone(),
                items,
            });
        }
    }
    packs
}

/// Entries without a pack: one of each content that something has anywhere.
fn unpacked(
    edits: &BTreeMap<ClusterName, BTreeMap<Uid, Edit>>,
) -> impl Iterator<Item = (&Uid, &Entry)> {
    let mut all: BTreeMap<&Uid, Vec<&Entry>> = BTreeMap::new();
    for (uid, edit) in edits.values().flatten() {
        let Edit::Put(entry) = edit else { continue };
        if entry.pack.is_empty() {
            let mine = all.entry(uid).or_default();
            if !mine.iter().any(|other| other.content == entry.content) {
                mine.push(entry);
            }
        }
    }
    all.into_iter()
        .flat_map(|(uid, entries)| entries.into_iter().map(move |entry| (uid, entry)))
}

/// The content of an entry, if it is what is wanted now.
fn data<'a>(
    world: &'a World,
    ours: impl Fn(&Entry) -> Option<&'a Arc<str>>,
    entry: &Entry,
) -> Option<&'a Arc<str>> {
    match entry.scope {
        Scope::Namespace | Scope::Policy => ours(entry),
        Scope::App => {
            let app = world.app(&entry.uid)?.state.as_ref().ok()?;
            (app.content == entry.content).then_some(&app.data)
        }
    }
}

fn item((hash, wanted): &(&ContentHash, Wanted<'_>)) -> ContentItem {
    ContentItem {
        hash: (*hash).clone(),
        data: wanted.data.clone(),
    }
}

fn split<'a>(
    contents: BTreeMap<&'a ContentHash, Wanted<'a>>,
) -> Vec<Vec<(&'a ContentHash, Wanted<'a>)>> {
    let mut packs: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for (hash, wanted) in contents {
        let size = stored_bytes(wanted.data);
        if let Some(pack) = packs
            .last_mut()
            .filter(|pack| pack.len() < PACK_ITEMS_MAX && bytes + size <= PACK_BYTES_MAX)
        {
            bytes += size;
            pack.push((hash, wanted));
        } else {
            bytes = size;
            packs.push(vec![(hash, wanted)]);
        }
    }
    packs
}

/// The name cannot be guessed without the tenant's UID, so that knowing a content does not tell
/// who runs it.
fn pack_name(key: &Uid, items: &[ContentItem]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_str().as_bytes())
        .expect("HMAC takes keys of any length");
    for item in items {
        mac.update(item.hash.as_str().as_bytes());
    }
    let digest = mac.finalize().into_bytes();
    format!("c-{}", hex(&digest[..12]))
}

/// Packs of which nothing names any content, a day after they were made.
pub(super) fn collect(
    world: &World,
    edits: &BTreeMap<ClusterName, BTreeMap<Uid, Edit>>,
    wake: &mut Wake,
    names: &mut Vec<String>,
) {
    // What is about to be named is not thrown away.
    let edits = edits.values().flat_map(BTreeMap::values);
    let entries = edits.filter_map(|edit| match edit {
        Edit::Put(entry) => Some(&entry.content),
        Edit::Drop => None,
    });
    let mut entries = Some(entries);
    let mut wanted: BTreeSet<&ContentHash> = BTreeSet::new();
    for (name, pack) in &world.contents {
        let due = pack.created + world.settings.content_retention;
        if due > world.now {
            wake.at(due);
        } else if !pack.hashes.iter().any(|hash| world.uses.contains(hash)) {
            wanted.extend(entries.take().into_iter().flatten());
            if !pack.hashes.iter().any(|hash| wanted.contains(hash)) {
                names.push(name.to_string());
            }
        }
    }
}
