//! The few places in which a key may lie.

use std::array::from_fn;
use std::sync::PoisonError;

use crate::rate::{Claim, Pace, Refused, SharedPace, Stretch, race};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::{Mutex, MutexGuard};
use crate::time::Time;

/// How many places a set has: as many as fill four lines of cache with the lock and the pace.
pub(super) const WAYS: usize = if cfg!(loom) { 2 } else { 19 };

/// A set, on cache lines of its own: the tags of the keys and the arrivals of their buckets, each in a
/// row so that a search is a few loads.
///
/// Who writes holds the lock and makes the version odd meanwhile. Who reads takes no lock: if the
/// version was even and is still the same afterwards, nothing that was read had changed (a seqlock).
/// So a refusal writes nothing and waits for nobody, as it should for a key that floods; and what may
/// pass was worked out before the lock is taken, which is held for a few stores.
///
/// A place that was never used looks like the full bucket of key 0. That does no harm: it is full.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Set {
    arrivals: [AtomicU64; WAYS],
    pace: SharedPace,
    tags: [AtomicU32; WAYS],
    version: AtomicU32,
    writing: Mutex<()>,
}

/// Where a key lies, and what a request for it would do there.
#[derive(Debug)]
struct Found {
    place: usize,
    replaces_live: bool,
    claim: Result<Claim, Refused>,
}

impl Set {
    /// A set of full buckets.
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            arrivals: from_fn(|_| AtomicU64::new(0)),
            pace: SharedPace::new(pace),
            tags: from_fn(|_| AtomicU32::new(0)),
            version: AtomicU32::new(0),
            writing: Mutex::new(()),
        }
    }

    /// Takes tokens of a key. Says also whether another live key lost its place.
    pub(super) fn take(
        &self,
        tag: u32,
        cost: u32,
        patience: u64,
        now: Time,
    ) -> Result<(Claim, bool), Refused> {
        let version = self.version.load(Ordering::Acquire);
        let mut found = self.find(tag, cost, patience, now);
        if found.claim.is_err() && self.unchanged(version) {
            return found.claim.map(|claim| (claim, false));
        }
        race::point();
        let writing = self.lock();
        if !self.unchanged(version) {
            found = self.find(tag, cost, patience, now);
        }
        let claim = found.claim?;
        self.write(|| {
            self.tags[found.place].store(tag, Ordering::Relaxed);
            race::point();
            self.arrivals[found.place].store(claim.arrival, Ordering::Relaxed);
        });
        drop(writing);
        Ok((claim, found.replaces_live))
    }

    /// Returns tokens of a key, if it still has its place.
    pub(super) fn give_back(&self, tag: u32, cost: u32) {
        let writing = self.lock();
        if let Some(place) = self.place(tag) {
            let arrival = self.arrivals[place].load(Ordering::Relaxed);
            let arrival = arrival.saturating_sub(self.pace.load().span(cost));
            self.write(|| self.arrivals[place].store(arrival, Ordering::Relaxed));
        }
        drop(writing);
    }

    /// Changes the pace; live keys keep their tokens, and the others stay full.
    pub(super) fn set(&self, pace: Pace, now: Time) {
        let writing = self.lock();
        let old = self.pace.load();
        self.write(|| {
            for place in &self.arrivals {
                let arrival = place.load(Ordering::Relaxed);
                if arrival > now.as_nanos() {
                    place.store(pace.adopt(old, arrival, now), Ordering::Relaxed);
                }
            }
            self.pace.store(pace);
        });
        drop(writing);
    }

    /// How many keys are live.
    pub(super) fn live(&self, now: Time) -> usize {
        let live = |arrival: &&AtomicU64| arrival.load(Ordering::Relaxed) > now.as_nanos();
        self.arrivals.iter().filter(live).count()
    }

    /// Where a key lies, or the place with the fullest bucket, which it gets if it is new; and what
    /// happens there.
    fn find(&self, tag: u32, cost: u32, patience: u64, now: Time) -> Found {
        let known = self.place(tag);
        let place = known.unwrap_or_else(|| self.fullest());
        race::point();
        let arrival = self.arrivals[place].load(Ordering::Relaxed);
        let claim = self
            .pace
            .load()
            .claim(arrival, cost, Stretch::NONE, patience, now);
        Found {
            place,
            replaces_live: known.is_none() && arrival > now.as_nanos(),
            claim,
        }
    }

    fn place(&self, tag: u32) -> Option<usize> {
        let is = |other: &AtomicU32| other.load(Ordering::Relaxed) == tag;
        self.tags.iter().position(is)
    }

    fn fullest(&self) -> usize {
        let arrival = |place: &usize| self.arrivals[*place].load(Ordering::Relaxed);
        (0..WAYS).min_by_key(arrival).expect("a set has places")
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // Nothing under the lock panics half-way, and a set is right whatever its numbers are.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes under the lock, so that readers notice.
    fn write(&self, stores: impl FnOnce()) {
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        // No store moves up past the odd version, and none down past the even one.
        fence(Ordering::Release);
        stores();
        self.version
            .store(version.wrapping_add(2), Ordering::Release);
    }

    /// Whether what was read since this version was loaded is what was there then.
    fn unchanged(&self, version: u32) -> bool {
        // No load moves down past this one.
        fence(Ordering::Acquire);
        version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn one_each() -> Arc<Set> {
        Arc::new(Set::new(Pace::per_second(1.0, 1).unwrap()))
    }

    /// Who got one of two that ask at the same moment.
    fn both(set: &Arc<Set>, tags: [u32; 2]) -> [bool; 2] {
        let now = Time::from_nanos(1);
        let other = Arc::clone(set);
        let asking = thread::spawn(move || other.take(tags[1], 1, 0, now).is_ok());
        let own = set.take(tags[0], 1, 0, now).is_ok();
        [own, asking.join().unwrap()]
    }

    #[test]
    fn of_two_that_take_the_last_token_of_a_key_one_gets_it() {
        crate::models::check(|| {
            let passed = both(&one_each(), [7, 7]);
            assert!(passed[0] != passed[1], "{passed:?}");
        });
    }

    #[test]
    fn nobody_is_refused_for_what_another_key_took() {
        crate::models::check(|| assert_eq!(both(&one_each(), [7, 8]), [true, true]));
    }

    #[test]
    fn what_is_given_back_is_there_for_the_next() {
        crate::models::check(|| {
            let (set, now) = (one_each(), Time::from_nanos(1));
            assert!(set.take(7, 1, 0, now).is_ok());
            let other = Arc::clone(&set);
            let giving = thread::spawn(move || other.give_back(7, 1));
            let early = set.take(7, 1, 0, now).is_ok();
            giving.join().unwrap();
            assert!(early != set.take(7, 1, 0, now).is_ok());
        });
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_set_fills_four_lines_of_cache() {
        assert_eq!(size_of::<Set>(), 256);
        assert_eq!(align_of::<Set>(), 64);
    }

    #[test]
    fn a_refusal_by_what_is_half_written_is_not_believed() {
        let set = Set::new(Pace::per_second(1.0, 1).unwrap());
        let now = Time::from_nanos(0);
        thread::scope(|scope| {
            let writing = set.lock();
            let mut other = None;
            set.write(|| {
                set.tags[0].store(7, Ordering::Relaxed);
                set.arrivals[0].store(u64::MAX >> 2, Ordering::Relaxed);
                let other = other.insert(scope.spawn(|| set.take(7, 1, 0, now)));
                for _ in 0..10_000 {
                    if other.is_finished() {
                        break;
                    }
                    thread::yield_now();
                }
                set.arrivals[0].store(0, Ordering::Relaxed);
            });
            drop(writing);
            let taken = other.expect("it was started").join().unwrap();
            assert!(taken.is_ok(), "{taken:?}");
        });
    }
}
