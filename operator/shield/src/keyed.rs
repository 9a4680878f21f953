//! One limit for each of very many keys, in memory that is bounded.

mod hash;
mod set;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use thiserror::Error;

pub use hash::{KeyHash, KeySeed};
use set::{Set, WAYS};

use crate::rate::{Pace, Refused};
use crate::time::{Time, nanos};

/// How many live keys a table may be made for: at 68 bytes each, a million is the memory of a guard.
const KEYS: RangeInclusive<u32> = 1..=1_000_000;

/// How many keys a set is planned for. It holds 19: with keys spread by chance, one set in ten thousand
/// or fewer is then asked to hold more.
const KEYS_PER_SET: u32 = 8;

/// How many sets are allocated at once: a kilobyte.
const SEGMENT_SETS: usize = 4;

/// A bucket for each key, as with [`Bucket`](crate::Bucket), in memory that is bounded.
///
/// A key that was not seen lately and a key that was never seen have the same full bucket, so only
/// *live* keys need a place: those whose bucket is not full. A key may lie in one small set of places
/// alone, chosen by its hash. When it is new there it takes the place whose bucket is fullest **and
/// goes on with that bucket**. Nearly always that one is full, and nobody can tell the difference. If
/// all the places of a set are live, because more keys come than the table was made for, then
///
/// * the newcomer begins with fewer tokens than it deserves, but
/// * nobody ever begins with more: the key that lost its place finds at its return a bucket that is no
///   fuller than the one it left, however many keys somebody makes up.
///
/// So the error is on one side, and it only shows when the requests of all keys together are more than
/// places times rate. [`Keyed::replaced`] counts it. What is given back after its key lost its place
/// is lost.
///
/// A refusal takes no lock and writes nothing. What passes holds the lock of its set for a few stores.
/// An unused table has no memory of its own; a used one grows by a kilobyte at a time.
#[derive(Debug)]
pub struct Keyed {
    pace: Mutex<Pace>,
    sets: u32,
    segments: OnceLock<Box<[Segment]>>,
    replaced: AtomicU64,
}

type Segment = OnceLock<Box<[Set; SEGMENT_SETS]>>;

impl Keyed {
    /// A table for so many live keys, 1 to 1,000,000. It takes at most 68 bytes for each, 1.1 KiB at
    /// the least.
    pub fn new(pace: impl Into<Pace>, keys: u32) -> Result<Self, KeyedError> {
        if !KEYS.contains(&keys) {
            return Err(KeyedError { given: keys });
        }
        let sets = keys.div_ceil(KEYS_PER_SET).next_power_of_two().max(4);
        Ok(Self {
            pace: Mutex::new(pace.into()),
            sets,
            segments: OnceLock::new(),
            replaced: AtomicU64::new(0),
        })
    }

    /// Takes so many tokens of this key, or says when to try again. Taking none always passes.
    pub fn take(&self, key: KeyHash, cost: u32, now: Time) -> Result<(), Refused> {
        self.take_within(key, cost, now, Duration::ZERO).map(|_| ())
    }

    /// Takes tokens of this key that come within `max_wait`, and says how long the caller has to wait
    /// for them; see [`Bucket::take_within`](crate::Bucket::take_within).
    pub fn take_within(
        &self,
        key: KeyHash,
        cost: u32,
        now: Time,
        max_wait: Duration,
    ) -> Result<Duration, Refused> {
        if cost == 0 {
            return Ok(Duration::ZERO);
        }
        let set = self.set_of(key);
        let (claim, replaced_live) = set.take(key.tag(), cost, nanos(max_wait), now)?;
        if replaced_live {
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
        Ok(claim.wait)
    }

    /// Returns tokens of this key that were taken for a request which did not pass after all.
    pub fn give_back(&self, key: KeyHash, cost: u32) {
        self.set_of(key).give_back(key.tag(), cost);
    }

    /// Changes the pace of every key; live ones keep their tokens, as far as the new burst holds them.
    ///
    /// A key whose bucket is full has the new burst at once, as one that was never seen has. It visits
    /// every set, a millisecond or so for 100,000 keys. Requests go on meanwhile, each by the
    /// pace that its set has.
    pub fn set(&self, pace: impl Into<Pace>, now: Time) {
        let pace = pace.into();
        // Held to the end, so that a segment which comes meanwhile has the new pace.
        let mut current = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == pace {
            return;
        }
        *current = pace;
        for set in self.allocated() {
            set.set(pace, now);
        }
        drop(current);
    }

    /// The pace of every key.
    pub fn pace(&self) -> Pace {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many keys are live. It visits every set: for reports, not for requests.
    pub fn len(&self, now: Time) -> usize {
        self.allocated().map(|set| set.live(now)).sum()
    }

    /// How many places there are. With keys spread by chance, sets begin to overflow at less than half
    /// of it.
    pub fn capacity(&self) -> usize {
        index(self.sets) * WAYS
    }

    /// How often a live key lost its place to another, since the start.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// How much memory the table has taken, in bytes.
    pub fn bytes(&self) -> usize {
        let segments = self.segments.get().map_or(0, |segments| segments.len());
        size_of::<Self>()
            + segments * size_of::<Segment>()
            + self.allocated().count() * size_of::<Set>()
    }

    fn set_of(&self, key: KeyHash) -> &Set {
        let set = index(key.place() & (self.sets - 1));
        let segments = self.segments.get_or_init(|| {
            (0..index(self.sets) / SEGMENT_SETS)
                .map(|_| OnceLock::new())
                .collect()
        });
        let segment = &segments[set / SEGMENT_SETS];
        let sets = match segment.get() {
            Some(sets) => sets,
            None => self.allocate(segment),
        };
        &sets[set % SEGMENT_SETS]
    }

    /// Allocates a segment while no change of pace can pass it by.
    #[cold]
    fn allocate<'a>(&self, segment: &'a Segment) -> &'a [Set; SEGMENT_SETS] {
        let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let sets = segment.get_or_init(|| Box::new(std::array::from_fn(|_| Set::new(*pace))));
        drop(pace);
        sets
    }

    fn allocated(&self) -> impl Iterator<Item = &Set> {
        let segments = self.segments.get().into_iter().flatten();
        segments
            .filter_map(OnceLock::get)
            .flat_map(|sets| sets.iter())
    }
}

/// A table for no keys, or for too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a limit for each of {given} keys; write 1 to 1000000 keys, which is how many are live at once"
)]
pub struct KeyedError {
    /// What was asked for.
    pub given: u32,
}

fn index(number: u32) -> usize {
    usize::try_from(number).expect("pointers have 32 bits at least")
}
