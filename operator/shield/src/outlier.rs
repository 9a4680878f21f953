//! Takes single endpoints out of the choice while they fail, and tries them again by and by.
//!
//! Every endpoint has a [`Health`]; those of one service share [`Ejections`], which bounds how many
//! are out at once. Whoever chooses an endpoint asks [`Health::is_ejected`] of the candidates and
//! [`Health::enter`] of the chosen one. When an ejection is over, one real request is let in and
//! its result decides: good ends the ejection, bad makes it longer. If it is not heard of for a while,
//! another tries; it counts for nothing until it is heard, and then as any trial.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Time;
use crate::jitter::Jitter;

/// How long the others wait for the one request that tries an ejected endpoint. It need not be as long as the
/// longest answer, since a trial that is late is heard nevertheless: it only says how many requests an
/// endpoint gets that hangs, which is two in a minute.
const TRIAL_PATIENCE: Duration = Duration::from_secs(30);

/// How far an ejection is lengthened, so that endpoints ejected together do not return together.
const EJECTION_SPREAD_PERCENT: u32 = 10;

/// The bounds of the settings.
const FAILURES_MAX: u32 = 1_000;
const SPAN_MIN: Duration = Duration::from_millis(100);
const SPAN_MAX: Duration = Duration::from_hours(1);

/// When endpoints are ejected, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutlierSettings {
    /// So many failures in a row eject an endpoint.
    pub consecutive_failures: u32,
    /// How long the first time; the second time twice as long, and so on.
    pub eject_for: Duration,
    /// How long at most. Who was good for that long starts again with the first time.
    pub eject_for_max: Duration,
    /// So many percent of the endpoints may be ejected at once; one always may, the last never.
    pub max_ejected_percent: u32,
}

impl Default for OutlierSettings {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            eject_for: Duration::from_secs(30),
            eject_for_max: Duration::from_mins(5),
            max_ejected_percent: 50,
        }
    }
}

/// Why settings of outlier ejection are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OutlierFault {
    /// A number lies outside what is allowed.
    #[error("outlier ejection: {field} is {found}, allowed is {least} to {most}")]
    Number {
        /// The field as its user writes it.
        field: &'static str,
        /// What it says.
        found: u32,
        /// The least it may say.
        least: u32,
        /// The most it may say.
        most: u32,
    },
    /// A span lies outside what is allowed.
    #[error("outlier ejection: {field} is {found:?}, allowed is {least:?} to {most:?}")]
    Span {
        /// The field as its user writes it.
        field: &'static str,
        /// What it says.
        found: Duration,
        /// The shortest it may be.
        least: Duration,
        /// The longest it may be.
        most: Duration,
    },
}

/// What the endpoints of one service share: how many there are, and how many are ejected.
#[derive(Debug)]
pub struct Ejections {
    settings: OutlierSettings,
    /// Endpoints in the high half, the ejected among them in the low half: one word, so that no
    /// thread sees a new number of one with an old number of the other.
    counts: AtomicU64,
    jitter: Jitter,
}

/// The health of one endpoint, as its results tell it.
#[derive(Debug)]
pub struct Health {
    shared: Arc<Ejections>,
    /// Failures since the last success.
    failures: AtomicU32,
    /// When the ejection is over, in nanoseconds; [`NOT_EJECTED`], or [`ON_TRIAL`] while the one
    /// request is under way.
    until: AtomicU64,
    /// How often the endpoint was tried; what began in an earlier epoch says nothing in this one, but for
    /// trials of the same ejection.
    epoch: AtomicU64,
    state: Mutex<State>,
}

/// Not a moment at which an ejection could end: the clock had only started.
const NOT_EJECTED: u64 = 0;

/// Not a moment that any clock reaches.
const ON_TRIAL: u64 = u64::MAX;

#[derive(Debug, Default)]
struct State {
    /// Ejections in a row; they make the next one longer.
    ejections: u32,
    /// When the last ejection ended well.
    returned: Time,
    /// Until when others wait for the request that tries the endpoint, while it is under way.
    trial: Option<Time>,
    /// The last of the trials that tried for an ejection which is over or was made longer since.
    settled: u64,
}

/// Leave to send one request to an endpoint. It comes back by [`Health::report`] or
/// [`Health::cancel`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "others wait a while for a trial that never reports"]
pub struct EndpointPass {
    /// Each trial begins one of its own.
    epoch: u64,
    is_trial: bool,
}

/// What a result says about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointResult {
    /// It answered, were it with an error of the application.
    Good,
    /// It could not be reached, did not answer, or answered as a gateway that could not (502, 503,
    /// 504).
    Failed,
}

impl OutlierSettings {
    /// Says the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), OutlierFault> {
        for (field, found, least, most) in [
            (
                "consecutiveFailures",
                self.consecutive_failures,
                1,
                FAILURES_MAX,
            ),
            ("maxEjectedPercent", self.max_ejected_percent, 1, 100),
        ] {
            if !(least..=most).contains(&found) {
                return Err(OutlierFault::Number {
                    field,
                    found,
                    least,
                    most,
                });
            }
        }
        for (field, found, least) in [
            ("ejectFor", self.eject_for, SPAN_MIN),
            ("ejectForMax", self.eject_for_max, self.eject_for),
        ] {
            if !(least..=SPAN_MAX).contains(&found) {
                return Err(OutlierFault::Span {
                    field,
                    found,
                    least,
                    most: SPAN_MAX,
                });
            }
        }
        Ok(())
    }
}

impl Ejections {
    /// Nothing ejected, no endpoints yet.
    pub fn new(settings: OutlierSettings, seed: u64) -> Result<Self, OutlierFault> {
        settings.validate()?;
        Ok(Self {
            settings,
            counts: AtomicU64::new(0),
            jitter: Jitter::seeded(seed),
        })
    }

    /// How many endpoints are ejected, and of how many.
    pub fn counts(&self) -> (u32, u32) {
        let (endpoints, ejected) = split(self.counts.load(Ordering::Acquire));
        (ejected, endpoints)
    }

    /// Takes one more out if that leaves enough.
    fn try_eject(&self) -> bool {
        let one_more = |word| {
            let (endpoints, ejected) = split(word);
            (ejected < self.allowed(endpoints)).then_some(word + 1)
        };
        self.counts
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok()
    }

    fn allowed(&self, endpoints: u32) -> u32 {
        let percent = u64::from(self.settings.max_ejected_percent);
        let share = u64::from(endpoints) * percent / 100;
        let share = u32::try_from(share).unwrap_or(endpoints);
        share.max(1).min(endpoints.saturating_sub(1))
    }

    fn restore(&self) {
        self.counts.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether no endpoint is left that is not ejected: the good ones were removed meanwhile.
    fn all_are_ejected(&self) -> bool {
        let (endpoints, ejected) = split(self.counts.load(Ordering::Acquire));
        ejected >= endpoints
    }
}

/// One endpoint in the word of the counts.
const ONE_ENDPOINT: u64 = 1 << 32;

fn split(word: u64) -> (u32, u32) {
    let low = word & u64::from(u32::MAX);
    let half = |half| u32::try_from(half).unwrap_or(u32::MAX);
    (half(word >> 32), half(low))
}

impl Health {
    /// A good endpoint, counted among those that share the ejections until it is dropped.
    pub fn new(shared: &Arc<Ejections>) -> Self {
        shared.counts.fetch_add(ONE_ENDPOINT, Ordering::AcqRel);
        Self {
            shared: Arc::clone(shared),
            failures: AtomicU32::new(0),
            until: AtomicU64::new(NOT_EJECTED),
            epoch: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Whether another endpoint should be chosen. Asking changes nothing.
    ///
    /// It is over when the one request that tries the endpoint may be sent. Another thread may be
    /// the first to send it; then [`Health::enter`] says no and the other candidate is asked. If
    /// every endpoint is ejected, none is.
    pub fn is_ejected(&self, now: Time) -> bool {
        match self.until.load(Ordering::Acquire) {
            NOT_EJECTED => false,
            ON_TRIAL => {
                let state = self.lock();
                state.trial.is_some_and(|deadline| now < deadline) && !self.shared.all_are_ejected()
            }
            until => now < Time::from_nanos(until) && !self.shared.all_are_ejected(),
        }
    }

    /// Lets a request in, unless the endpoint is ejected or another request already tries it.
    pub fn enter(&self, now: Time) -> Option<EndpointPass> {
        let epoch = self.epoch.load(Ordering::Acquire);
        if self.until.load(Ordering::Acquire) == NOT_EJECTED {
            let is_trial = false;
            return Some(EndpointPass { epoch, is_trial });
        }
        let mut state = self.lock();
        let until = self.until.load(Ordering::Acquire);
        let is_over = match until {
            NOT_EJECTED => false,
            ON_TRIAL => state.trial.is_none_or(|deadline| deadline <= now),
            until => Time::from_nanos(until) <= now,
        };
        let epoch = self.epoch.load(Ordering::Acquire);
        if !is_over {
            let may = until == NOT_EJECTED || self.shared.all_are_ejected();
            let is_trial = false;
            return may.then_some(EndpointPass { epoch, is_trial });
        }
        let epoch = epoch + 1;
        self.epoch.store(epoch, Ordering::Release);
        state.trial = Some(now.after(TRIAL_PATIENCE));
        self.until.store(ON_TRIAL, Ordering::Release);
        let is_trial = true;
        Some(EndpointPass { epoch, is_trial })
    }

    /// Counts how the request went.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a pass is used up: nobody may report twice"
    )]
    pub fn report(&self, pass: EndpointPass, result: EndpointResult, now: Time) {
        if pass.is_trial {
            return self.conclude(pass.epoch, result, now);
        }
        if pass.epoch != self.epoch.load(Ordering::Acquire) {
            return;
        }
        match result {
            EndpointResult::Good => {
                // Most results are good and follow good ones: they write nothing.
                if self.failures.load(Ordering::Relaxed) != 0 {
                    self.failures.store(0, Ordering::Relaxed);
                }
            }
            EndpointResult::Failed => {
                let failures = self
                    .failures
                    .fetch_add(1, Ordering::Relaxed)
                    .saturating_add(1);
                if failures >= self.shared.settings.consecutive_failures {
                    self.eject(now);
                }
            }
        }
    }

    /// Gives the pass back without a result; if it was the trial, the next request is it.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a pass is used up: nobody may report twice"
    )]
    pub fn cancel(&self, pass: EndpointPass, now: Time) {
        if !pass.is_trial {
            return;
        }
        let mut state = self.lock();
        let is_current = pass.epoch == self.epoch.load(Ordering::Acquire);
        if is_current && state.trial.take().is_some() {
            self.until.store(now.as_nanos().max(1), Ordering::Release);
        }
    }

    fn eject(&self, now: Time) {
        let mut state = self.lock();
        let ejected = self.until.load(Ordering::Acquire) != NOT_EJECTED;
        // Requests that were under way when it was ejected fail afterwards; they change nothing.
        if ejected || !self.shared.try_eject() {
            return;
        }
        if now.since(state.returned) >= self.shared.settings.eject_for_max {
            state.ejections = 0;
        }
        self.extend(&mut state, now);
    }

    fn conclude(&self, epoch: u64, result: EndpointResult, now: Time) {
        let mut state = self.lock();
        // Another that tried for the same ejection was heard first.
        if epoch <= state.settled {
            return;
        }
        match result {
            EndpointResult::Good => {
                state.trial = None;
                state.settled = self.epoch.load(Ordering::Acquire);
                state.returned = now;
                self.failures.store(0, Ordering::Relaxed);
                self.until.store(NOT_EJECTED, Ordering::Release);
                self.shared.restore();
            }
            EndpointResult::Failed => self.extend(&mut state, now),
        }
    }

    /// Begins the next ejection of an endpoint that counts as ejected.
    fn extend(&self, state: &mut State, now: Time) {
        let settings = &self.shared.settings;
        state.trial = None;
        state.settled = self.epoch.load(Ordering::Acquire);
        state.ejections = state.ejections.saturating_add(1);
        let span = settings.eject_for.saturating_mul(state.ejections);
        let span = span.min(settings.eject_for_max);
        let until = now.after(self.shared.jitter.spread(span, EJECTION_SPREAD_PERCENT));
        let until = until.as_nanos().clamp(1, ON_TRIAL - 1);
        self.until.store(until, Ordering::Release);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if *self.until.get_mut() != NOT_EJECTED {
            self.shared.restore();
        }
        self.shared.counts.fetch_sub(ONE_ENDPOINT, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
