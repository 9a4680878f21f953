//! A limit that many threads share without a lock.

#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
mod tests;

use std::sync::PoisonError;
use std::time::Duration;

use crate::rate::{Claim, LAST, Pace, Refused, SharedPace, Stretch, race};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::{Time, nanos};

/// How many bits of the word say which pace is in force.
const SLOT_BITS: u32 = 2;

const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// A token bucket: requests pass at a [`Pace`], after a pause a burst of them at once.
///
/// Its whole state is one 64-bit word: the moment at which it is full again (see GCRA), and which of
/// four paces is in force. Looking and taking are one compare-and-exchange of that word, so however
/// many threads share it, never more pass than the pace allows. A refusal writes nothing: under an
/// attack all cores read the word, and none takes it from another.
///
/// The paces lie beside the word. A change writes its pace into the next of the four places, and then
/// exchanges the word: a request decided by the old pace finds another word and decides anew. To
/// slip through, it would have to sleep through four changes and find the same nanosecond.
#[derive(Debug)]
pub struct Bucket {
    word: Word,
    paces: [SharedPace; SLOTS],
    changing: Mutex<()>,
}

impl Bucket {
    /// A bucket that lets a whole burst pass at once.
    pub fn full(pace: impl Into<Pace>) -> Self {
        Self::at(pace.into(), 0)
    }

    /// A bucket that begins empty, as one must that holds a share of a common limit: if it began full,
    /// a restart would be worth a burst.
    pub fn empty(pace: impl Into<Pace>, now: Time) -> Self {
        let pace = pace.into();
        let arrival = now.as_nanos().saturating_add(pace.fill()).min(LAST);
        Self::at(pace, arrival)
    }

    /// Takes so many tokens, or says when to try again. Taking none always passes.
    pub fn take(&self, cost: u32, now: Time) -> Result<(), Refused> {
        self.claim(cost, Stretch::NONE, 0, now).map(|_| ())
    }

    /// Takes tokens that come within `max_wait`, and says how long the caller has to wait for them.
    ///
    /// The place in the queue is taken: later requests come after it. With a burst of 1 requests leave
    /// evenly, one interval apart. Who gives up waiting gives the tokens back.
    pub fn take_within(
        &self,
        cost: u32,
        now: Time,
        max_wait: Duration,
    ) -> Result<Duration, Refused> {
        self.claim(cost, Stretch::NONE, nanos(max_wait), now)
            .map(|claim| claim.wait)
    }

    /// Returns tokens that were taken for a request which did not pass after all. The bucket never
    /// holds more than its burst.
    pub fn give_back(&self, cost: u32) {
        self.give_back_stretched(cost, Stretch::NONE);
    }

    /// Changes the pace and keeps the tokens, as far as the new burst holds them; a larger burst fills
    /// with time.
    pub fn set(&self, pace: impl Into<Pace>, now: Time) {
        let pace = pace.into();
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut word = self.word.0.load(Ordering::Acquire);
        let old = self.pace_of(word);
        if old == pace {
            return;
        }
        // Only a change, of which there is one at a time, moves the word to another place.
        let slot = (word + 1) & SLOT_MASK;
        self.slot(slot).store(pace);
        race::point();
        loop {
            let arrival = pace.adopt(old, arrival_of(word), now);
            match self.exchange(word, arrival, slot) {
                Ok(()) => break,
                Err(seen) => word = seen,
            }
        }
        drop(changing);
    }

    /// The pace in force.
    pub fn pace(&self) -> Pace {
        self.pace_of(self.word.0.load(Ordering::Acquire))
    }

    /// How many whole tokens are there; below zero, how many places ahead are taken.
    pub fn tokens(&self, now: Time) -> i64 {
        let word = self.word.0.load(Ordering::Acquire);
        let pace = self.pace_of(word);
        let tokens = pace
            .held(arrival_of(word), now)
            .div_euclid(i128::from(pace.interval_nanos()));
        i64::try_from(tokens).unwrap_or(i64::MIN)
    }

    /// Takes tokens that cost more than they should; see [`Pace::claim`].
    pub(crate) fn claim(
        &self,
        cost: u32,
        stretch: Stretch,
        patience: u64,
        now: Time,
    ) -> Result<Claim, Refused> {
        let mut word = self.word.0.load(Ordering::Acquire);
        if cost == 0 {
            return Ok(nothing(word));
        }
        loop {
            let pace = self.pace_of(word);
            let claim = pace.claim(arrival_of(word), cost, stretch, patience, now)?;
            match self.exchange(word, claim.arrival, word & SLOT_MASK) {
                Ok(()) => return Ok(claim),
                Err(seen) => word = seen,
            }
        }
    }

    /// Returns tokens that cost more than they should.
    pub(crate) fn give_back_stretched(&self, cost: u32, stretch: Stretch) {
        let mut word = self.word.0.load(Ordering::Acquire);
        loop {
            let span = stretch.of(self.pace_of(word).span(cost));
            let arrival = arrival_of(word).saturating_sub(span);
            match self.exchange(word, arrival, word & SLOT_MASK) {
                Ok(()) => return,
                Err(seen) => word = seen,
            }
        }
    }

    fn at(pace: Pace, arrival: u64) -> Self {
        Self {
            word: Word(AtomicU64::new(arrival << SLOT_BITS)),
            paces: std::array::from_fn(|_| SharedPace::new(pace)),
            changing: Mutex::new(()),
        }
    }

    fn exchange(&self, word: u64, arrival: u64, slot: u64) -> Result<(), u64> {
        race::point();
        let next = arrival << SLOT_BITS | slot;
        // Release: who reads the word sees the pace that was written before it.
        self.word
            .0
            .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
    }

    fn pace_of(&self, word: u64) -> Pace {
        self.slot(word & SLOT_MASK).load()
    }

    fn slot(&self, slot: u64) -> &SharedPace {
        &self.paces[usize::try_from(slot).expect("two bits")]
    }
}

/// The word, on a line of cache of its own: a thread that lost a race for it still has the paces.
#[derive(Debug)]
#[repr(align(64))]
struct Word(AtomicU64);

const fn arrival_of(word: u64) -> u64 {
    word >> SLOT_BITS
}

/// What taking no token does.
fn nothing(word: u64) -> Claim {
    Claim {
        arrival: arrival_of(word),
        wait: Duration::ZERO,
        span: 0,
        plain: 0,
    }
}
