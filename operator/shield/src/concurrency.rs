//! How many requests one target serves at a time, and who waits in front of it.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Time;
use crate::adaptive::{Adaptive, Finished};
use crate::queue::{Place, Queue, Waiting};
use crate::tier::{ClassId, Classes, Tier};

/// How long a request may wait for a permit.
///
/// Who waits longer has a user who already reloads: half of the second after which people do so
/// leaves the other half for the answer.
pub const WAIT_MAX: Duration = Duration::from_millis(500);

/// So many requests may wait for each that runs.
///
/// With twice what the upstream works on in flight, eight times as many take four times the usual
/// latency to get through. A longer queue would be served no sooner.
pub const QUEUE_PER_PERMIT: u32 = 4;

/// At least so many requests may wait, for bursts at a small limit.
///
/// A browser opens six connections; ten people at the same moment must find a place.
pub const QUEUE_MIN: u32 = 64;

/// A refused client is never told to stay away for longer than this.
///
/// A minute is about as long as people keep a page open that told them to wait.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// How many requests may run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// This many.
    Fixed(NonZeroU32),
    /// As many as the target is found to stand: see [`Adaptive`].
    Adaptive,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered in time.
    Success,
    /// The target failed or timed out.
    Failure,
    /// Nobody can tell: the client went away, or the request was never sent.
    Dropped,
}

/// The right to run one request. It must come back through [`Concurrency::leave`], whatever happens.
#[must_use = "a permit that does not leave is lost"]
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    class: ClassId,
    since: Time,
}

/// What becomes of a request that asks to run.
#[must_use]
#[derive(Debug)]
pub enum Entered<W> {
    /// It runs.
    Now(Permit),
    /// It waits.
    Queued {
        /// Where; for [`Concurrency::abandon`].
        place: Place,
        /// From this moment on nobody lets it run any more.
        until: Time,
        /// Who had to go for it: each of them is refused.
        turns: Vec<Turn<W>>,
    },
    /// It must not run.
    Refused(Refusal),
}

/// What became of a request that waited; the caller wakes it.
#[must_use]
#[derive(Debug)]
pub enum Turn<W> {
    /// It runs, with a permit of its own. If it cannot be reached, the permit must
    /// [leave](Concurrency::leave) as [`Outcome::Dropped`].
    Run(W, Permit),
    /// It must not run.
    Refused(W, Refusal),
}

/// Why a request must not run, and when to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Longer the more is refused, and spread so that clients do not come back together.
    pub retry_after: Duration,
}

/// Why a request must not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Too many wait already, and each matters at least as much.
    QueueFull,
    /// A more important request took its place in the queue.
    Displaced,
    /// It waited as long as anybody may.
    Waited,
}

/// What happened to the requests of one tier since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that ran, after a wait or at once.
    pub admitted: u64,
    /// Those of them that waited.
    pub waited: u64,
    /// Refused because the queue was full.
    pub queue_full: u64,
    /// Refused for a more important request.
    pub displaced: u64,
    /// Refused because they had waited too long.
    pub expired: u64,
    /// Gone while waiting, because the client went away.
    pub abandoned: u64,
    /// Waiting at this moment.
    pub waiting: u64,
}

/// One look at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// How many may run.
    pub limit: u32,
    /// How many run; more than the limit only after it fell.
    pub running: u32,
    /// By tier, in the order of [`Tier::ALL`].
    pub tiers: [Counts; 4],
}

/// The concurrency of one target, with a bounded queue by priority in front of it.
///
/// `W` is whatever the caller needs to wake a request that waited; it is made only if one must wait.
#[derive(Debug)]
pub struct Concurrency<W>(Mutex<State<W>>);

impl<W> Concurrency<W> {
    /// A target on which nothing runs yet.
    pub fn new(limit: Limit, classes: &Classes, now: Time) -> Self {
        Self(Mutex::new(State {
            bound: Bound::new(limit, now),
            running: 0,
            queue: Queue::new(classes),
            tiers: [Counts::default(); 4],
            pressure: Pressure::default(),
        }))
    }

    /// Asks to run a request of this class.
    pub fn enter(&self, class: ClassId, now: Time, waiter: impl FnOnce() -> W) -> Entered<W> {
        let mut state = self.lock();
        // Whoever waits is let in the moment the limit allows, so nobody is overtaken here.
        if state.running < state.bound.limit() {
            return Entered::Now(state.admit(class, now));
        }
        let mut turns = Vec::new();
        if state.queue_is_full() {
            state.expire(now, &mut turns);
        }
        // Who has just gone leaves a place, even if the queue is too long for a limit that fell: it does
        // not grow.
        if turns.is_empty() && state.queue_is_full() {
            let limit = state.bound.limit();
            let tier = state.queue.tier(class);
            let Some(displaced) = state.queue.displace(class, limit) else {
                return Entered::Refused(state.refuse(tier, Reason::QueueFull, now));
            };
            let refusal = state.refuse(displaced.tier, Reason::Displaced, now);
            turns.push(Turn::Refused(displaced.waiter, refusal));
        }
        let place = state.queue.push(class, now, waiter());
        Entered::Queued {
            place,
            until: now.after(WAIT_MAX),
            turns,
        }
    }

    /// Gives a permit back; whoever may run for it, or has waited too long, is in the answer.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a permit that has left is used up"
    )]
    pub fn leave(&self, permit: Permit, outcome: Outcome, now: Time) -> Vec<Turn<W>> {
        let Permit { class, since } = permit;
        let mut state = self.lock();
        let finished = Finished {
            started: since,
            now,
            outcome,
            running: state.running,
        };
        state.bound.finished(finished);
        state.queue.ended(class);
        state.running -= 1;
        state.turns(now)
    }

    /// Takes a request out of the queue whose client went away.
    ///
    /// Nothing comes back if its turn came first: then the permit is on its way to the caller, who
    /// must let it leave.
    pub fn abandon(&self, place: Place) -> Option<W> {
        let mut state = self.lock();
        let gone = state.queue.remove(place)?;
        state.tiers[gone.tier.index()].abandoned += 1;
        Some(gone.waiter)
    }

    /// Refuses all that have waited too long. Leaving requests do the same on the way, so this is for
    /// moments at which none leaves.
    pub fn expire(&self, now: Time) -> Vec<Turn<W>> {
        let mut turns = Vec::new();
        self.lock().expire(now, &mut turns);
        turns
    }

    /// Changes the limit under running requests. None of them is stopped: below a smaller limit
    /// nobody runs anew until enough have left.
    pub fn set_limit(&self, limit: Limit, now: Time) -> Vec<Turn<W>> {
        let mut state = self.lock();
        let running = state.running;
        state.bound.set(limit, running, now);
        state.turns(now)
    }

    /// Changes the classes under requests that run and wait. All go on: what a class may always use
    /// counts those of its requests that run already, if it was a class before; those of a class that is gone
    /// are guaranteed nothing and keep their tier.
    pub fn set_classes(&self, classes: &Classes) {
        self.lock().queue.set(classes);
    }

    /// Whether other guards let requests in to the same target: see [`Adaptive::share`].
    pub fn share(&self, is_shared: bool) {
        match &mut self.lock().bound {
            Bound::Fixed(_) => {}
            Bound::Adaptive(adaptive) => adaptive.share(is_shared),
        }
    }

    /// Limit, load and counters at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let mut tiers = state.tiers;
        for (counts, waiting) in tiers.iter_mut().zip(state.queue.len_by_tier()) {
            counts.waiting = u64::try_from(waiting).unwrap_or(u64::MAX);
        }
        Snapshot {
            limit: state.bound.limit(),
            running: state.running,
            tiers,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        // Only the caller's making of a waiter could panic under the lock. At worst a displaced waiter
        // is then dropped, which its owner sees; the state stays true, so others go on.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State<W> {
    bound: Bound,
    running: u32,
    queue: Queue<W>,
    tiers: [Counts; 4],
    pressure: Pressure,
}

impl<W> State<W> {
    fn admit(&mut self, class: ClassId, now: Time) -> Permit {
        self.running += 1;
        self.queue.started(class);
        self.tiers[self.queue.tier(class).index()].admitted += 1;
        self.pressure.admitted(now);
        Permit { class, since: now }
    }

    /// Lets in whom the limit allows, after those who have waited too long are gone.
    fn turns(&mut self, now: Time) -> Vec<Turn<W>> {
        let mut turns = Vec::new();
        self.expire(now, &mut turns);
        let limit = self.bound.limit();
        while self.running < limit {
            let Some(next) = self.queue.pop(limit) else {
                break;
            };
            let Waiting {
                class,
                tier,
                waiter,
            } = next;
            self.tiers[tier.index()].waited += 1;
            let permit = self.admit(class, now);
            turns.push(Turn::Run(waiter, permit));
        }
        turns
    }

    fn expire(&mut self, now: Time, turns: &mut Vec<Turn<W>>) {
        let Some(since) = now.as_nanos().checked_sub(crate::time::nanos(WAIT_MAX)) else {
            return;
        };
        while let Some(late) = self.queue.pop_older(Time::from_nanos(since)) {
            let refusal = self.refuse(late.tier, Reason::Waited, now);
            turns.push(Turn::Refused(late.waiter, refusal));
        }
    }

    fn refuse(&mut self, tier: Tier, reason: Reason, now: Time) -> Refusal {
        let counts = &mut self.tiers[tier.index()];
        match reason {
            Reason::QueueFull => counts.queue_full += 1,
            Reason::Displaced => counts.displaced += 1,
            Reason::Waited => counts.expired += 1,
        }
        Refusal {
            reason,
            retry_after: self.pressure.refused(now),
        }
    }

    fn queue_is_full(&self) -> bool {
        let places = self.bound.limit().saturating_mul(QUEUE_PER_PERMIT);
        let places = places.max(QUEUE_MIN);
        self.queue.len() >= usize::try_from(places).unwrap_or(usize::MAX)
    }
}

#[derive(Debug)]
enum Bound {
    Fixed(u32),
    Adaptive(Box<Adaptive>),
}

impl Bound {
    fn new(limit: Limit, now: Time) -> Self {
        match limit {
            Limit::Fixed(max) => Self::Fixed(max.get()),
            Limit::Adaptive => Self::Adaptive(Box::new(Adaptive::new(now))),
        }
    }

    fn set(&mut self, limit: Limit, running: u32, now: Time) {
        match (&*self, limit) {
            // What was learned about the target stays true.
            (Self::Adaptive(_), Limit::Adaptive) => {}
            (Self::Fixed(_), Limit::Adaptive) => {
                *self = Self::Adaptive(Box::new(Adaptive::under_way(running, now)));
            }
            (Self::Adaptive(_) | Self::Fixed(_), Limit::Fixed(max)) => {
                *self = Self::Fixed(max.get());
            }
        }
    }

    fn limit(&self) -> u32 {
        match self {
            Self::Fixed(max) => *max,
            Self::Adaptive(adaptive) => adaptive.limit(),
        }
    }

    fn finished(&mut self, finished: Finished) {
        match self {
            Self::Fixed(_) => {}
            Self::Adaptive(adaptive) => adaptive.finished(finished),
        }
    }
}

/// How much is refused for each request that runs, by the second, and when to come again therefore.
#[derive(Debug, Default)]
struct Pressure {
    started: Time,
    admitted: u32,
    refused: u32,
    /// Refused for each admitted, in the second before.
    before: u32,
    spread: u32,
}

impl Pressure {
    fn admitted(&mut self, now: Time) {
        self.turn(now);
        self.admitted = self.admitted.saturating_add(1);
    }

    /// If n are refused for each that runs, they must stay away for n seconds: then those that come
    /// again are as many as can run. The golden ratio spreads any number of clients evenly over once
    /// to twice that time without a drawn number.
    fn refused(&mut self, now: Time) -> Duration {
        const GOLDEN: u32 = 0x9E37_79B9;
        self.turn(now);
        self.refused = self.refused.saturating_add(1);
        self.spread = self.spread.wrapping_add(GOLDEN);
        let half = RETRY_AFTER_MAX / 2;
        let base = Duration::from_secs(u64::from(self.before) + 1).min(half);
        base + base.mul_f64(f64::from(self.spread) / f64::from(u32::MAX))
    }

    fn turn(&mut self, now: Time) {
        let age = now.since(self.started);
        if age < Duration::from_secs(1) {
            return;
        }
        // After a silence the second before was a quiet one.
        let recent = age < Duration::from_secs(2);
        self.before = if recent {
            self.refused / self.admitted.max(1)
        } else {
            0
        };
        self.started = now;
        self.admitted = 0;
        self.refused = 0;
    }
}

#[cfg(test)]
mod tests;
