//! A table of fixed size that keeps count of the most frequent keys (space-saving).
//!
//! A key that has no place takes the one of the least frequent key and inherits its count as an
//! error: for all the table knows the key may have been there before and displaced. The inherited
//! part decides who is displaced next, so that a frequent key that comes late rises quickly; it is
//! kept apart from what was really counted. The table is cut into small sets, one per hash, so that
//! a decision looks at eight places and not at all.

/// Seconds that a count covers, the running one included.
pub(super) const SLOTS: usize = 3;

/// Sets of the table. With its ways it holds 2,048 keys: twenty for each that can be hot at one
/// percent of the traffic.
const SETS: usize = 256;

/// Places of a set.
const WAYS: usize = 8;

/// Requests within the last slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    slots: [u32; SLOTS],
    /// The number of the newest slot, counted from the start of the clock.
    head: u64,
}

impl Counts {
    /// Drops what is older than the slots up to this one; says whether any time has passed. An
    /// earlier slot counts as the newest, since threads read their clocks before they get here.
    pub(super) fn advance(&mut self, slot: u64) -> bool {
        if slot <= self.head {
            return false;
        }
        let passed = slot - self.head;
        if passed >= SLOTS as u64 {
            self.slots = [0; SLOTS];
        } else {
            for number in self.head + 1..=slot {
                self.slots[place(number)] = 0;
            }
        }
        self.head = slot;
        true
    }

    /// Counts one in the slot.
    pub(super) fn add(&mut self, slot: u64) {
        self.advance(slot);
        let held = &mut self.slots[place(self.head)];
        *held = held.saturating_add(1);
    }

    pub(super) fn sum(&self) -> u64 {
        self.slots.iter().copied().map(u64::from).sum()
    }

    /// The newest slot.
    pub(super) fn slot(&self) -> u64 {
        self.head
    }

    /// Both together, slot by slot; both must stand at the same slot.
    fn plus(mut self, other: &Self) -> Self {
        for (own, other) in self.slots.iter_mut().zip(other.slots) {
            *own = own.saturating_add(other);
        }
        self
    }
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).expect("below a small number")
}

/// What is known of one key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry {
    /// What was counted since the key got its place: never more than what was asked.
    pub(super) counted: Counts,
    /// What it took over from the keys it displaced.
    inherited: Counts,
    /// Whether it is hot; then it keeps its place.
    pub(super) is_hot: bool,
}

impl Entry {
    pub(super) fn advance(&mut self, slot: u64) {
        self.counted.advance(slot);
        self.inherited.advance(slot);
    }

    fn rank(&self) -> u64 {
        self.counted.sum() + self.inherited.sum()
    }
}

/// The places that the keys of one set share. The keys stand together, so that finding one reads
/// one line of the cache.
#[derive(Debug, Clone, Default)]
struct Set {
    keys: [u64; WAYS],
    entries: [Entry; WAYS],
}

#[derive(Debug)]
pub(super) struct Table {
    sets: Box<[Set]>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            sets: vec![Set::default(); SETS].into_boxed_slice(),
        }
    }

    /// Counts one for the key and returns its place; none if hot keys hold all of its set.
    pub(super) fn count(&mut self, key: u64, slot: u64) -> Option<&mut Entry> {
        let set = &mut self.sets[set_of(key)];
        let way = match set.keys.iter().position(|held| *held == key) {
            Some(way) => way,
            None => set.displace(key, slot)?,
        };
        let entry = &mut set.entries[way];
        entry.advance(slot);
        entry.counted.add(slot);
        Some(entry)
    }

    /// The place of the key, if it has one.
    pub(super) fn entry(&self, key: u64) -> Option<&Entry> {
        let set = &self.sets[set_of(key)];
        let way = set.keys.iter().position(|held| *held == key)?;
        Some(&set.entries[way])
    }

    /// The place of the key to be changed, if it has one.
    pub(super) fn entry_mut(&mut self, key: u64) -> Option<&mut Entry> {
        let set = &mut self.sets[set_of(key)];
        let way = set.keys.iter().position(|held| *held == key)?;
        Some(&mut set.entries[way])
    }
}

impl Set {
    /// Gives the place of the least frequent key that is not hot to this one.
    fn displace(&mut self, key: u64, slot: u64) -> Option<usize> {
        let mut least: Option<(u64, usize)> = None;
        for (way, entry) in self.entries.iter_mut().enumerate() {
            entry.advance(slot);
            if !entry.is_hot {
                let rank = (entry.rank(), way);
                least = Some(least.map_or(rank, |least| least.min(rank)));
            }
        }
        let (_, way) = least?;
        self.keys[way] = key;
        let old = &mut self.entries[way];
        *old = Entry {
            counted: Counts {
                head: old.counted.head,
                ..Counts::default()
            },
            inherited: old.inherited.plus(&old.counted),
            is_hot: false,
        };
        Some(way)
    }
}

fn set_of(key: u64) -> usize {
    // The high bits: callers that shard by the low ones leave these as they are.
    usize::try_from(key >> (u64::BITS - SETS.ilog2())).expect("below the number of sets")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// All keys fall into one set, which is the worst case.
        #[test]
        fn it_never_counts_more_than_was_asked_and_loses_no_frequent_key(
            asked in prop::collection::vec((0..40_u64, 0..40_u64), 1..2_000),
        ) {
            let mut table = Table::new();
            let mut exact: HashMap<u64, u64> = HashMap::new();
            for (a, b) in &asked {
                // The lesser of two is more often small: some keys are frequent.
                let key = *a.min(b);
                *exact.entry(key).or_default() += 1;
                let entry = table.count(key, 0).unwrap();
                prop_assert!(entry.counted.sum() <= exact[&key]);
                prop_assert!(entry.rank() >= exact[&key]);
            }
            let bound = asked.len() as u64 / WAYS as u64;
            for (key, count) in exact {
                prop_assert!(count <= bound || table.entry(key).is_some());
            }
        }

        #[test]
        fn counts_cover_the_last_slots_and_nothing_else(
            steps in prop::collection::vec(0..5_u64, 1..100),
        ) {
            let mut counts = Counts::default();
            let mut all = Vec::new();
            let mut slot = 0;
            for step in steps {
                slot += step;
                counts.add(slot);
                all.push(slot);
                let within = all.iter().filter(|then| *then + SLOTS as u64 > slot).count();
                prop_assert_eq!(counts.sum(), within as u64);
            }
        }
    }

    #[test]
    fn hot_keys_keep_their_places() {
        let mut table = Table::new();
        for key in 0..WAYS as u64 {
            table.count(key, 0).unwrap().is_hot = true;
        }
        assert!(table.count(99, 0).is_none());
        table.entry_mut(3).unwrap().is_hot = false;
        assert_eq!(table.count(99, 0).unwrap().counted.sum(), 1);
        assert!(table.entry(3).is_none());
    }

    #[test]
    fn inherited_counts_age_like_others() {
        let mut table = Table::new();
        for key in 0..=WAYS as u64 {
            table.count(key, 0).unwrap();
        }
        assert_eq!(table.entry(WAYS as u64).unwrap().rank(), 2);
        let entry = table.count(WAYS as u64, 3).unwrap();
        assert_eq!((entry.counted.sum(), entry.rank()), (1, 1));
    }
}
