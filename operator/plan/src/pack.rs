//! Packing entries into slices, moving as little as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{Entry, SLICE_BYTES_MAX, SLICE_ENTRIES_MAX, Uid};

/// The entries of one slice.
pub type SliceEntries = Vec<Arc<Entry>>;

/// Slices by name, after `edits` (`None` drops), and the names of those that changed.
///
/// An entry stays in the slice it is in. A new one goes to the first slice with room, so that
/// slices fill up one after the other and few are written. An entry that no longer fits its slice
/// is put into another one first and dropped from the old one only when the next turn sees it in
/// both, so that a crash between the two writes loses nothing: of two entries of one UID the
/// higher generation counts.
pub fn pack(
    slices: &BTreeMap<Box<str>, SliceEntries>,
    edits: &BTreeMap<Uid, Option<Arc<Entry>>>,
) -> BTreeMap<Box<str>, SliceEntries> {
    let home = homes(slices);
    let mut bins: BTreeMap<Box<str>, Bin> = slices
        .iter()
        .map(|(name, entries)| (name.clone(), Bin::of(entries)))
        .collect();
    let mut written: BTreeSet<Box<str>> = drop_duplicates(&mut bins, &home);
    let mut homeless: Vec<&Arc<Entry>> = Vec::new();
    for (uid, edit) in edits {
        let bin = home
            .get(uid)
            .and_then(|name| bins.get_mut(name).map(|bin| (name, bin)));
        match (bin, edit) {
            (Some((name, bin)), Some(entry)) => {
                if bin.replace(entry) {
                    written.insert(name.clone());
                } else {
                    homeless.push(entry);
                }
            }
            (Some((name, bin)), None) => {
                bin.remove(uid);
                written.insert(name.clone());
            }
            (None, Some(entry)) => homeless.push(entry),
            (None, None) => {}
        }
    }
    for entry in homeless {
        let open = bins
            .iter()
            .find(|(_, bin)| bin.takes(entry))
            .map(|(name, _)| name.clone());
        let name = open.unwrap_or_else(|| next_name(&bins));
        bins.entry(name.clone()).or_default().push(entry);
        written.insert(name);
    }
    bins.into_iter()
        .filter(|(name, _)| written.contains(name))
        .map(|(name, bin)| (name, bin.entries))
        .collect()
}

/// The slice in which each UID counts: that of its highest generation, the last one on a tie.
fn homes(slices: &BTreeMap<Box<str>, SliceEntries>) -> BTreeMap<Uid, Box<str>> {
    let mut best: BTreeMap<&Uid, (i64, &Box<str>)> = BTreeMap::new();
    for (name, entries) in slices {
        for entry in entries {
            let claim = (entry.generation, name);
            best.entry(&entry.uid)
                .and_modify(|b| *b = (*b).max(claim))
                .or_insert(claim);
        }
    }
    best.into_iter()
        .map(|(uid, (_, name))| (uid.clone(), name.clone()))
        .collect()
}

/// Leaves each entry only where it counts, and there once.
fn drop_duplicates(
    bins: &mut BTreeMap<Box<str>, Bin>,
    home: &BTreeMap<Uid, Box<str>>,
) -> BTreeSet<Box<str>> {
    let mut written = BTreeSet::new();
    for (name, bin) in bins {
        let before = bin.entries.len();
        let mut seen: BTreeMap<Uid, i64> = BTreeMap::new();
        for entry in &bin.entries {
            let top = seen.entry(entry.uid.clone()).or_default();
            *top = (*top).max(entry.generation);
        }
        bin.entries.retain(|entry| {
            let best = seen.get(&entry.uid) == Some(&entry.generation);
            home.get(&entry.uid) == Some(name) && best && seen.remove(&entry.uid).is_some()
        });
        if bin.entries.len() < before {
            bin.bytes = bin.entries.iter().map(|e| size(e)).sum();
            written.insert(name.clone());
        }
    }
    written
}

fn next_name(bins: &BTreeMap<Box<str>, Bin>) -> Box<str> {
    // Zero-padded, so that names sort as they were made. Of one more name than there are bins one
    // is free.
    let mut names = (0..=bins.len()).map(|n| Box::from(format!("a-{n:04}")));
    names
        .find(|name| !bins.contains_key(name))
        .unwrap_or_default()
}

#[derive(Default)]
struct Bin {
    entries: SliceEntries,
    bytes: usize,
}

impl Bin {
    fn of(entries: &SliceEntries) -> Self {
        Self {
            entries: entries.clone(),
            bytes: entries.iter().map(|e| size(e)).sum(),
        }
    }

    fn takes(&self, entry: &Entry) -> bool {
        self.entries.len() < SLICE_ENTRIES_MAX && self.bytes + size(entry) <= SLICE_BYTES_MAX
    }

    fn push(&mut self, entry: &Arc<Entry>) {
        self.bytes += size(entry);
        self.entries.push(entry.clone());
    }

    /// Replaces the entry of the same UID; false, and nothing done, when the new one is too large.
    fn replace(&mut self, entry: &Arc<Entry>) -> bool {
        let Some(old) = self.entries.iter_mut().find(|e| e.uid == entry.uid) else {
            return false;
        };
        let bytes = self.bytes - size(old) + size(entry);
        if bytes > SLICE_BYTES_MAX && self.bytes < bytes {
            return false;
        }
        self.bytes = bytes;
        *old = entry.clone();
        true
    }

    fn remove(&mut self, uid: &Uid) {
        self.entries.retain(|e| e.uid != *uid);
        self.bytes = self.entries.iter().map(|e| size(e)).sum();
    }
}

/// An upper bound of the bytes an entry takes as JSON.
fn size(entry: &Entry) -> usize {
    let names =
        entry.uid.as_str().len() + entry.namespace.as_str().len() + entry.name.as_str().len();
    let secrets: usize = entry
        .secrets
        .iter()
        .map(|s| s.name.len() + s.copy.len() + 24)
        .sum();
    200 + names + entry.pack.len() + secrets + entry.overrides.len() * 3 + entry.stages.len() * 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::{EntryState, TakeOver};
    use proptest::prelude::*;

    fn entry(uid: u32, generation: i64, secrets: usize) -> Arc<Entry> {
        let secret = |n| crds::SecretCopy {
            name: "x".repeat(200),
            copy: format!("s-{n}"),
        };
        Arc::new(Entry {
            uid: format!("uid-{uid}").into(),
            namespace: "health".into(),
            name: format!("app-{uid}").into(),
            generation,
            state: EntryState::Present,
            content: "0".repeat(20).into(),
            pack: "c-0".into(),
            overrides: vec![],
            stages: vec![],
            secrets: (0..secrets).map(secret).collect(),
            take_over: TakeOver::Never,
            scope: crds::Scope::App,
            tier: crds::Tier::General,
            limits: [].into(),
            shares: Vec::new(),
            charge: std::sync::Arc::default(),
        })
    }

    fn put(list: impl IntoIterator<Item = Arc<Entry>>) -> BTreeMap<Uid, Option<Arc<Entry>>> {
        list.into_iter().map(|e| (e.uid.clone(), Some(e))).collect()
    }

    #[test]
    fn a_hundred_entries_make_one_slice_and_the_next_opens_another() {
        let slices = pack(&BTreeMap::new(), &put((0..101).map(|n| entry(n, 1, 0))));
        assert_eq!(slices.values().map(Vec::len).collect::<Vec<_>>(), [100, 1]);
    }

    #[test]
    fn one_change_writes_one_slice() {
        let slices = pack(&BTreeMap::new(), &put((0..250).map(|n| entry(n, 1, 0))));
        let written = pack(&slices, &put([entry(7, 2, 0)]));
        assert_eq!(written.len(), 1);
        assert!(pack(&slices, &BTreeMap::new()).is_empty());
    }

    #[test]
    fn an_entry_that_outgrows_its_slice_is_in_both_until_the_next_turn() {
        let mut slices = pack(&BTreeMap::new(), &put((0..100).map(|n| entry(n, 1, 9))));
        let grown = put((0..100).map(|n| entry(n, 2, 16)));
        slices.extend(pack(&slices, &grown));
        let count =
            |slices: &BTreeMap<_, SliceEntries>| slices.values().map(Vec::len).sum::<usize>();
        assert!(
            count(&slices) > 100,
            "moved entries stand in both slices first"
        );
        slices.extend(pack(&slices, &BTreeMap::new()));
        assert_eq!(count(&slices), 100);
        assert!(slices.values().flatten().all(|e| e.generation == 2));
    }

    proptest! {
        #[test]
        fn every_entry_is_in_exactly_one_slice_with_its_last_value(turns in prop::collection::vec(prop::collection::btree_map(0..300u32, prop::option::of(0..17usize), 0..80), 1..8)) {
            let mut slices: BTreeMap<Box<str>, SliceEntries> = BTreeMap::new();
            let mut want: BTreeMap<Uid, Arc<Entry>> = BTreeMap::new();
            for (turn, edits) in turns.into_iter().enumerate() {
                let generation = i64::try_from(turn).unwrap() + 1;
                let edits: BTreeMap<Uid, Option<Arc<Entry>>> = edits.into_iter().map(|(n, secrets)| {
                    let e = entry(n, generation, secrets.unwrap_or(0));
                    (e.uid.clone(), secrets.map(|_| e))
                }).collect();
                for (uid, edit) in &edits {
                    match edit {
                        Some(e) => want.insert(uid.clone(), e.clone()),
                        None => want.remove(uid),
                    };
                }
                slices.extend(pack(&slices, &edits));
                slices.extend(pack(&slices, &BTreeMap::new()));
                for entries in slices.values() {
                    prop_assert!(entries.len() <= SLICE_ENTRIES_MAX);
                }
                let mut have: BTreeMap<Uid, Arc<Entry>> = BTreeMap::new();
                for e in slices.values().flatten() {
                    prop_assert!(have.insert(e.uid.clone(), e.clone()).is_none());
                }
                prop_assert_eq!(&have, &want);
            }
        }
    }
}
