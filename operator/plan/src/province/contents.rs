//! Contents: new ones are packed together by tenant, unused ones collected after a day.

use std::collections::{BTreeMap, BTreeSet};

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

/// Names of the packs that this plan stores, by tenant and content.
pub(super) type Packs = BTreeMap<(NamespaceName, ContentHash), String>;

/// Packs all contents that edits need and the store does not have.
pub(super) fn store<'a>(
    world: &'a World,
    isolating: impl Fn(&Entry) -> Option<&'a str>,
    edits: &'a BTreeMap<ClusterName, BTreeMap<Uid, Edit>>,
    writes: &mut Vec<ContentWrite>,
) -> Packs {
    // What isolates a tenant outlives its Apps, and so does its pack.
    let mut missing: BTreeMap<(&NamespaceName, bool), BTreeMap<&ContentHash, &str>> =
        BTreeMap::new();
    for edit in edits.values().flat_map(BTreeMap::values) {
        let Edit::Put(entry) = edit else { continue };
        if !entry.pack.is_empty() || world.pack_of(&entry.namespace, &entry.content).is_some() {
            continue;
        }
        if let Some(data) = data(world, &isolating, entry) {
            missing
                .entry((&entry.namespace, entry.scope.is_app()))
                .or_default()
                .insert(&entry.content, data);
        }
    }
    let mut packs = Packs::new();
    for ((tenant, _), contents) in missing {
        // Names depend on the tenant's UID, which the next turn will know.
        let Some(key) = world.namespaces.get(tenant).map(|slot| &slot.uid) else {
            continue;
        };
        for items in split(contents) {
            let name = pack_name(key, &items);
            packs.extend(
                items
                    .iter()
                    .map(|i| ((tenant.clone(), i.hash.clone()), name.clone())),
            );
            writes.push(ContentWrite {
                name,
                tenant: tenant.clone(),
                items,
            });
        }
    }
    packs
}

/// The content of an entry, if it is what is wanted now.
fn data<'a>(
    world: &'a World,
    isolating: impl Fn(&Entry) -> Option<&'a str>,
    entry: &Entry,
) -> Option<&'a str> {
    match entry.scope {
        Scope::Namespace => isolating(entry),
        Scope::App => {
            let app = world.app(&entry.uid)?.state.as_ref().ok()?;
            (app.content == entry.content).then_some(&*app.data)
        }
    }
}

fn split(contents: BTreeMap<&ContentHash, &str>) -> Vec<Vec<ContentItem>> {
    let mut packs: Vec<Vec<ContentItem>> = Vec::new();
    let mut bytes = 0;
    for (hash, data) in contents {
        let size = stored_bytes(data);
        let item = ContentItem {
            hash: hash.clone(),
            data: data.to_owned(),
        };
        if let Some(pack) = packs
            .last_mut()
            .filter(|pack| pack.len() < PACK_ITEMS_MAX && bytes + size <= PACK_BYTES_MAX)
        {
            bytes += size;
            pack.push(item);
        } else {
            bytes = size;
            packs.push(vec![item]);
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
