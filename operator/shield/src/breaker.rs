//! Stops asking a dependency that is slow or failing, and finds out when it has recovered.
//!
//! ```text
//!            the condition is met              open long enough
//!   Closed ----------------------> Open -----------------------> HalfOpen
//!     ^                             ^ ^                            |   |
//!     |                             | |       a probe is bad       |   |
//!     |          a relapse          | +----------------------------+   |
//!     +--- Recovering --------------+                                  |
//!   done       ^              all probes are good                      |
//!              +-------------------------------------------------------+
//! ```
//!
//! Only what was admitted since the breaker last opened counts. A request that began before says
//! nothing about the dependency of now, however late it finishes.
//!
//! A probe that is not heard of leaves its place to another after a while and counts for nothing until it
//! is: so a dependency that hangs stays half-open, asked by a few at a time, and one that answers slowly
//! recovers by the answers that it gives.
//!
//! A rule in shadow has a breaker of its own that sees the requests and enforces nothing: what it
//! refuses is counted and goes on without a [`Pass`], so that its state moves by the very results
//! it would have had if it had been enforced.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Time;
use crate::jitter::Jitter;

mod core;
mod settings;

pub use self::settings::{BreakerFault, BreakerSettings, Condition};

use self::core::{Core, Mark};

/// How far Retry-After is spread beyond the earliest useful moment, so that those refused together
/// do not come back together.
const RETRY_SPREAD_PERCENT: u32 = 50;

/// A breaker, shared by all threads that ask the dependency.
#[derive(Debug)]
pub struct Breaker {
    /// What the last change under the lock left to be read without it; see [`Gate`].
    gate: AtomicU64,
    core: Mutex<Core>,
    jitter: Jitter,
}

/// Leave to ask the dependency. It must come back by [`Breaker::finish`], [`Breaker::cancel`] or
/// [`Breaker::forget`] of the breaker that gave it; a probe that does not keeps its place for a while.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pass that is neither finished nor cancelled keeps the place of a probe"]
pub struct Pass {
    mark: Mark,
}

/// The dependency is not to be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// When asking again may be of use, spread so that not everybody does so at once.
    pub retry_after: Duration,
}

/// How a request went that had a [`Pass`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The time it took, until it was answered or given up.
    pub elapsed: Duration,
    /// Whether it failed by the dependency's fault.
    pub is_error: bool,
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// All requests pass.
    Closed,
    /// None passes.
    Open {
        /// Until then.
        until: Time,
    },
    /// Some identified requests pass and find out.
    HalfOpen {
        /// Probes that have not reported and may still soon.
        unfinished: u32,
        /// Probes that reported well.
        good: u32,
    },
    /// A growing share passes.
    Recovering {
        /// The share, in percent.
        percent: u32,
    },
}

/// What the atomic says, in one word: open until a moment, or closed since an opening, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Every request passes and counts for this epoch.
    Closed { epoch: u64 },
    /// None passes until then.
    Open { until: Time },
    /// It takes the lock to know.
    Ask,
}

impl Gate {
    /// Set for a closed gate. Clocks do not reach it in 292 years.
    const CLOSED: u64 = 1 << 63;

    fn of(word: u64) -> Self {
        if word & Self::CLOSED != 0 {
            Self::Closed {
                epoch: word ^ Self::CLOSED,
            }
        } else if word == 0 {
            Self::Ask
        } else {
            Self::Open {
                until: Time::from_nanos(word),
            }
        }
    }

    fn word(self) -> u64 {
        match self {
            Self::Closed { epoch } => epoch | Self::CLOSED,
            Self::Open { until } if until.as_nanos() < Self::CLOSED => until.as_nanos(),
            Self::Open { .. } | Self::Ask => 0,
        }
    }
}

impl Breaker {
    /// A closed breaker. The seed keeps the breakers of one dependency from probing together.
    pub fn new(settings: BreakerSettings, seed: u64) -> Result<Self, BreakerFault> {
        settings.validate()?;
        let core = Core::new(settings);
        Ok(Self {
            gate: AtomicU64::new(core.gate().word()),
            core: Mutex::new(core),
            jitter: Jitter::seeded(seed),
        })
    }

    /// Goes by other settings from now on, which were [validated](BreakerSettings::validate).
    ///
    /// It stays where it stands, and what was admitted counts on: a dependency that is left alone is not well
    /// since somebody writes another number. But no opening lasts longer than the settings ever let one last, and
    /// what was counted is forgotten if it would now be counted otherwise.
    pub(crate) fn set(&self, settings: &BreakerSettings, now: Time) {
        self.change(|core| core.set(settings, now, &self.jitter));
    }

    /// Whether a request may ask the dependency now.
    pub fn admit(&self, now: Time) -> Result<Pass, Open> {
        match Gate::of(self.gate.load(Ordering::Acquire)) {
            Gate::Closed { epoch } => Ok(Pass {
                mark: Mark { epoch, probe: None },
            }),
            Gate::Open { until } if now < until => Err(self.refusal(until.since(now))),
            Gate::Open { .. } | Gate::Ask => self.ask(now),
        }
    }

    /// Counts how the request went.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a pass is used up: nobody may report twice"
    )]
    pub fn finish(&self, pass: Pass, outcome: Outcome, now: Time) {
        let Pass { mark } = pass;
        self.change(|core| core.finish(mark, outcome, now, &self.jitter));
    }

    /// Gives the pass back without a result: a later rule refused the request, or its client left
    /// before the dependency was asked. A client that lost its patience with the dependency is a
    /// result; [`Breaker::finish`] it with the time it waited.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a pass is used up: nobody may report twice"
    )]
    pub fn cancel(&self, pass: Pass, now: Time) {
        // Closed and open there are no places to give back.
        if Gate::of(self.gate.load(Ordering::Acquire)) == Gate::Ask {
            self.change(|core| core.cancel(pass.mark, now));
        }
    }

    /// Expects no result of a request that was sent: its client left before anybody could tell how it
    /// went. Another may probe in its place, but of a growing share it has used its part.
    pub fn forget(&self, pass: Pass, now: Time) {
        if pass.mark.probe.is_some() {
            self.cancel(pass, now);
        }
    }

    /// Where the breaker stands.
    pub fn state(&self, now: Time) -> BreakerState {
        self.change(|core| core.state(now))
    }

    fn ask(&self, now: Time) -> Result<Pass, Open> {
        let asked = self.change(|core| core.admit(now));
        asked
            .map(|mark| Pass { mark })
            .map_err(|until| self.refusal(until.since(now)))
    }

    fn refusal(&self, wait: Duration) -> Open {
        Open {
            retry_after: self.jitter.spread(wait, RETRY_SPREAD_PERCENT),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Core) -> T) -> T {
        // A panic elsewhere cannot leave the counters half changed in a way that matters.
        let mut core: MutexGuard<'_, Core> =
            self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let before = core.gate();
        let answer = change(&mut core);
        let after = core.gate();
        if before != after {
            self.gate.store(after.word(), Ordering::Release);
        }
        answer
    }
}

#[cfg(test)]
mod tests;
