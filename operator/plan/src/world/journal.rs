//! What the world notes down so that a turn costs what changed: which objects changed, and how often
//! each content is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::ContentHash;

/// Changes that are kept. A planner that is further behind looks at every object; so many change
/// only when all of a large province do.
const CHANGES_MAX: usize = 50_000;

/// Which objects changed, in order, each at its last change.
#[derive(Clone, Debug)]
pub(crate) struct Journal<K> {
    clock: u64,
    /// Changes up to and with this one may be missing.
    forgotten: u64,
    changes: BTreeMap<u64, K>,
    last: BTreeMap<K, u64>,
}

impl<K> Default for Journal<K> {
    fn default() -> Self {
        Self {
            clock: 0,
            forgotten: 0,
            changes: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }
}

impl<K: Clone + Ord> Journal<K> {
    /// Notes that an object changed, came or went.
    pub(crate) fn note(&mut self, key: &K) {
        self.clock += 1;
        if let Some(before) = self.last.insert(key.clone(), self.clock) {
            self.changes.remove(&before);
        }
        self.changes.insert(self.clock, key.clone());
        while self.changes.len() > CHANGES_MAX {
            let Some((at, key)) = self.changes.pop_first() else {
                break;
            };
            self.forgotten = at;
            self.last.remove(&key);
        }
    }

    /// The number of the last change.
    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }

    /// Objects that changed after `seen`; `None` when that is no longer known.
    pub(crate) fn since(&self, seen: u64) -> Option<impl Iterator<Item = &K>> {
        (self.forgotten <= seen && seen <= self.clock)
            .then(|| self.changes.range(seen + 1..).map(|(_, key)| key))
    }
}

/// How often each content is named by entries, reports and Apps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses(BTreeMap<ContentHash, usize>);

impl Uses {
    /// Whether anything names a content.
    pub(crate) fn contains(&self, hash: &ContentHash) -> bool {
        self.0.contains_key(hash)
    }

    /// Counts what is named now instead of what was named before.
    pub(crate) fn replace<'h>(
        &mut self,
        before: impl IntoIterator<Item = &'h ContentHash>,
        after: impl IntoIterator<Item = &'h ContentHash>,
    ) {
        for hash in after {
            *self.0.entry(hash.clone()).or_default() += 1;
        }
        for hash in before {
            if let Some(count) = self.0.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(hash);
                }
            }
        }
    }
}

/// Equal values, kept once: many entries are charged alike, and two that are the same are equal at a
/// glance.
#[derive(Clone, Debug)]
pub(crate) struct Pool<T> {
    kept: BTreeSet<Arc<T>>,
    /// How many there may be before those that nobody holds any more are let go.
    most: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            kept: BTreeSet::new(),
            most: 1024,
        }
    }
}

impl<T: Ord> Pool<T> {
    /// The one that is kept of all that are equal.
    pub(crate) fn share(&mut self, one: Arc<T>) -> Arc<T> {
        if let Some(known) = self.kept.get(&one) {
            return known.clone();
        }
        if self.kept.len() >= self.most {
            self.kept.retain(|kept| Arc::strong_count(kept) > 1);
            self.most = (self.kept.len() * 2).max(1024);
        }
        self.kept.insert(one.clone());
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_kept_once_and_none_that_nobody_holds() {
        let mut pool = Pool::default();
        let first = pool.share(Arc::new("a".to_owned()));
        assert!(Arc::ptr_eq(&first, &pool.share(Arc::new("a".to_owned()))));
        for n in 0..3_000 {
            pool.share(Arc::new(format!("{n}")));
        }
        assert!(pool.kept.len() <= 1024, "{}", pool.kept.len());
        assert!(Arc::ptr_eq(&first, &pool.share(Arc::new("a".to_owned()))));
    }

    #[test]
    fn each_app_is_noted_once_and_a_reader_too_far_behind_is_told_so() {
        let mut journal = Journal::default();
        for n in 0..CHANGES_MAX + 10 {
            journal.note(&format!("uid-{n}"));
        }
        assert!(journal.since(0).is_none());
        let seen = journal.clock();
        journal.note(&"uid-9".to_owned());
        journal.note(&"uid-9".to_owned());
        assert_eq!(journal.since(seen).map(Iterator::count), Some(1));
    }
}
