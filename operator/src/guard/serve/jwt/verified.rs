//! Tokens that were verified, so that the next request with one costs a hash.
//!
//! Only good tokens get in: a flood of bad ones pushes nobody out. When there is no room, those that were not
//! asked for lately go first (the clock algorithm).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Claims;

/// A keyed hash of a token and of what was asked of it.
pub(super) type Tag = [u8; 16];

/// Tokens known at one time, of all policies: more than the 100,000 citizens whom one rule tells apart. Full, it
/// takes about 25 MiB. Beyond it tokens are verified again.
const TOKENS_MAX: usize = 1 << 17;

/// Parts with a lock each: far more than there are threads, so that these seldom meet.
const SHARDS: usize = 64;

#[derive(Debug)]
pub(super) struct Verified {
    shards: Vec<Mutex<Shard>>,
    shard_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<Tag, usize>,
    entries: Vec<Entry>,
    /// Who is looked at next when room is needed.
    hand: usize,
}

#[derive(Debug)]
struct Entry {
    tag: Tag,
    was_asked_for: bool,
    claims: Arc<Claims>,
}

impl Verified {
    pub(super) fn new() -> Self {
        Self::with_room(TOKENS_MAX / SHARDS)
    }

    fn with_room(shard_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_max,
        }
    }

    /// What a token says, if it is known and has not ended.
    pub(super) fn get(&self, tag: &Tag, now: u64) -> Option<Arc<Claims>> {
        let mut shard = self.shard(tag);
        let place = *shard.places.get(tag)?;
        let entry = shard.entries.get_mut(place)?;
        if entry.claims.until <= now {
            return None;
        }
        entry.was_asked_for = true;
        Some(Arc::clone(&entry.claims))
    }

    pub(super) fn insert(&self, tag: Tag, claims: Arc<Claims>, now: u64) {
        let shard_max = self.shard_max;
        let mut shard = self.shard(&tag);
        let entry = Entry {
            tag,
            was_asked_for: false,
            claims,
        };
        if let Some(place) = shard.places.get(&tag).copied() {
            shard.entries[place] = entry;
            return;
        }
        let place = if shard.entries.len() < shard_max {
            shard.entries.push(entry);
            shard.entries.len() - 1
        } else {
            shard.replace(entry, now)
        };
        shard.places.insert(tag, place);
    }

    fn shard(&self, tag: &Tag) -> std::sync::MutexGuard<'_, Shard> {
        // Tags are hashes: any byte chooses evenly.
        let shard = &self.shards[usize::from(tag[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Puts an entry in the place of one that ended, or was not asked for since the hand last came by. It ends
    /// after two rounds at most, since a round leaves nobody as asked for.
    fn replace(&mut self, entry: Entry, now: u64) -> usize {
        loop {
            let place = self.hand;
            self.hand = (place + 1) % self.entries.len();
            let old = &mut self.entries[place];
            if old.was_asked_for && old.claims.until > now {
                old.was_asked_for = false;
                continue;
            }
            let old = std::mem::replace(old, entry);
            self.places.remove(&old.tag);
            return place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(until: u64) -> Arc<Claims> {
        Arc::new(Claims {
            until,
            key: [0; 16],
            values: Box::default(),
        })
    }

    fn tag(number: u8) -> Tag {
        // One shard for all.
        let mut tag = [0; 16];
        tag[1] = number;
        tag
    }

    #[test]
    fn who_is_asked_for_stays_and_room_is_bounded() {
        let verified = Verified::with_room(4);
        for number in 0..100 {
            verified.insert(tag(number), claims(1000), 0);
            // The first is asked for again and again.
            assert!(verified.get(&tag(0), 0).is_some(), "after {number}");
        }
        let kept = (0..100).filter(|number| verified.get(&tag(*number), 0).is_some());
        assert_eq!(kept.count(), 4);
        assert_eq!(verified.shard(&tag(0)).places.len(), 4);
    }

    #[test]
    fn who_ended_is_not_known_and_goes_first() {
        let verified = Verified::with_room(2);
        verified.insert(tag(1), claims(10), 0);
        verified.insert(tag(2), claims(1000), 0);
        for number in [1, 2] {
            assert!(verified.get(&tag(number), 9).is_some());
        }
        assert!(verified.get(&tag(1), 10).is_none());
        verified.insert(tag(3), claims(1000), 10);
        assert!(verified.get(&tag(2), 10).is_some() && verified.get(&tag(3), 10).is_some());
    }
}
