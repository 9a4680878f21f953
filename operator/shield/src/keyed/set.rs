//! The few places in which a key may lie.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::rate::{Pace, Refused, Stretch};
use crate::time::Time;

/// How many places a set has: as many as fill four lines of cache with the lock and the pace.
pub(super) const WAYS: usize = 19;

/// A set, on cache lines of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Set(Mutex<Places>);

impl Set {
    /// A set of full buckets.
    pub(super) fn new(pace: Pace) -> Self {
        Self(Mutex::new(Places {
            pace,
            tags: [0; WAYS],
            arrivals: [0; WAYS],
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing under the lock panics half-way, and a set is right whatever its numbers are.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The places: a key's tag and the arrival of its bucket, each in a row so that a search is a few
/// loads.
///
/// A place that was never used looks like the full bucket of key 0. That does no harm: it is full.
#[derive(Debug)]
pub(super) struct Places {
    pace: Pace,
    tags: [u32; WAYS],
    arrivals: [u64; WAYS],
}

/// What taking did.
#[derive(Debug)]
pub(super) struct Taken {
    /// How long the request has to wait.
    pub(super) wait: Duration,
    /// Whether a live key lost its place.
    pub(super) replaced_live: bool,
}

impl Places {
    /// Takes tokens of a key.
    pub(super) fn take(
        &mut self,
        tag: u32,
        cost: u32,
        patience: u64,
        now: Time,
    ) -> Result<Taken, Refused> {
        let place = self.place(tag);
        let arrival = self.arrivals[place];
        let claim = self
            .pace
            .claim(arrival, cost, Stretch::NONE, patience, now)?;
        let replaced_live = self.tags[place] != tag && arrival > now.as_nanos();
        self.tags[place] = tag;
        self.arrivals[place] = claim.arrival;
        Ok(Taken {
            wait: claim.wait,
            replaced_live,
        })
    }

    /// What taking would answer.
    pub(super) fn look(&self, tag: u32, cost: u32, now: Time) -> Result<(), Refused> {
        let arrival = self.arrivals[self.place(tag)];
        self.pace
            .claim(arrival, cost, Stretch::NONE, 0, now)
            .map(|_| ())
    }

    /// Returns tokens of a key, if it still has its place.
    pub(super) fn give_back(&mut self, tag: u32, cost: u32) {
        let place = self.place(tag);
        if self.tags[place] == tag {
            self.arrivals[place] = self.arrivals[place].saturating_sub(self.pace.span(cost));
        }
    }

    /// Changes the pace; live keys keep their tokens, and the others stay full.
    pub(super) fn set(&mut self, pace: Pace, now: Time) {
        for arrival in &mut self.arrivals {
            if *arrival > now.as_nanos() {
                *arrival = pace.adopt(self.pace, *arrival, now);
            }
        }
        self.pace = pace;
    }

    /// How many keys are live.
    pub(super) fn live(&self, now: Time) -> usize {
        let live = |arrival: &&u64| **arrival > now.as_nanos();
        self.arrivals.iter().filter(live).count()
    }

    /// Where a key lies, or the place with the fullest bucket, which it gets if it is new.
    fn place(&self, tag: u32) -> usize {
        let found = self.tags.iter().position(|other| *other == tag);
        found.unwrap_or_else(|| {
            let fullest = (0..WAYS).min_by_key(|place| self.arrivals[*place]);
            fullest.expect("a set has places")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_fills_four_lines_of_cache() {
        assert_eq!(size_of::<Set>(), 256);
        assert_eq!(align_of::<Set>(), 64);
    }
}
