//! A limit that lets little pass at first, for what is slow when it is cold.

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;

use crate::bucket::Bucket;
use crate::rate::{Pace, Refused, Stretch};
use crate::time::{Time, nanos};

/// How much slower than warm a cold limit is; the value that users of warm-up know.
const COLD_FACTOR: u64 = 3;

/// How long a warm-up may take: a second is the least anyone sees, and what takes longer than an hour
/// to be ready is not warming up.
const PERIOD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

/// A [`Bucket`] whose rate rises from a third to the whole while it is used, and falls again while it
/// is not.
///
/// The limit has a *heat*, which says how warm what stands behind it is. Every request that passes
/// adds heat, and heat leaks away with time. Without heat a token costs three times what it should, so
/// a third of the rate passes; the warmer, the cheaper; from half of the heat on a token costs what it
/// should, and the whole rate passes. The other half is a reserve: a short pause costs nothing.
///
/// When more comes than passes, a cold limit is warm after exactly one period, and by then half as
/// much has passed as a warm one would have let through. It rises slowly at first and steeply at the
/// end, since what passes is what warms:
///
/// ```text
/// rate that passes, at t of the period:  rate / sqrt(9 - 8 t)
///
/// 100 % |                                        *-------------
///       |                                      *
///  67 % |                                  *
///  50 % |                         *
///  42 % |                 *
///  33 % |*
///   0 % +---------+---------+---------+---------+-------------
///       0        1/4       1/2       3/4    1 period
/// ```
///
/// When less comes than passes, a warm limit stays warm at half of its rate and more, and a cold one
/// becomes warm at a quarter and more. A warm one that nobody uses is cold after one period.
///
/// Heat is time, not tokens: if the rate changes, as a share of a common limit does, the limit stays
/// as warm as it is. No thread runs; heat is worked out when somebody asks. The bucket beneath counts
/// exactly, so however heat is raced for, never more passes than the whole rate allows.
#[derive(Debug)]
pub struct WarmUp {
    bucket: Bucket,
    /// The moment at which the limit is cold.
    cold_at: AtomicU64,
    period: u64,
}

impl WarmUp {
    /// Lets this bucket warm up in 1 second to 1 hour. It begins cold.
    pub fn new(bucket: Bucket, period: Duration) -> Result<Self, WarmUpError> {
        if !PERIOD.contains(&period) {
            return Err(WarmUpError { given: period });
        }
        Ok(Self {
            bucket,
            cold_at: AtomicU64::new(0),
            period: nanos(period),
        })
    }

    /// Takes so many tokens, or says when to try again.
    pub fn take(&self, cost: u32, now: Time) -> Result<(), Refused> {
        self.take_within(cost, now, Duration::ZERO).map(|_| ())
    }

    /// Takes tokens that come within `max_wait`, and says how long the caller has to wait for them;
    /// see [`Bucket::take_within`].
    pub fn take_within(
        &self,
        cost: u32,
        now: Time,
        max_wait: Duration,
    ) -> Result<Duration, Refused> {
        let stretch = self.stretch(now);
        let claim = self.bucket.claim(cost, stretch, nanos(max_wait), now)?;
        self.warm(claim.span.saturating_add(claim.plain), now);
        Ok(claim.wait)
    }

    /// Returns tokens that were taken for a request which did not pass after all, and the heat with
    /// them: what did not pass warmed nothing.
    pub fn give_back(&self, cost: u32, now: Time) {
        let plain = self.bucket.pace().span(cost);
        let heat = self.stretch(now).of(plain).saturating_add(plain);
        self.update(|cold_at| Some(cold_at.saturating_sub(heat)));
        // As cold as before it was taken, the token is as dear as it was.
        self.bucket.give_back_stretched(cost, self.stretch(now));
    }

    /// Changes the pace; tokens and heat stay. See [`Bucket::set`].
    pub fn set(&self, pace: impl Into<Pace>, now: Time) {
        self.bucket.set(pace, now);
    }

    /// The pace of the warm limit.
    pub fn pace(&self) -> Pace {
        self.bucket.pace()
    }

    /// How many whole tokens of the warm limit are there; see [`Bucket::tokens`].
    pub fn tokens(&self, now: Time) -> i64 {
        self.bucket.tokens(now)
    }

    /// How many hundredths of the rate pass at this moment: 33 when cold, 100 when warm.
    pub fn percent(&self, now: Time) -> u64 {
        100 * Stretch::ONE / self.stretch(now).of(Stretch::ONE)
    }

    /// How much more a token costs now: a straight line from three times without heat to once at half
    /// of the heat.
    fn stretch(&self, now: Time) -> Stretch {
        let heat = self
            .cold_at
            .load(Ordering::Relaxed)
            .saturating_sub(now.as_nanos());
        let half = self.period / 2;
        let cold = half - heat.min(half);
        // An hour in nanoseconds times 2048 stays far below 64 bits.
        Stretch::new(Stretch::ONE + (COLD_FACTOR - 1) * Stretch::ONE * cold / half)
    }

    /// Adds heat, up to one period.
    ///
    /// A request adds the time it holds the limit, in which no heat may leak, and the time its token
    /// takes when warm. So in use heat grows by one warm token a token, idle it leaks by the clock.
    fn warm(&self, heat: u64, now: Time) {
        let now = now.as_nanos();
        let hottest = now.saturating_add(self.period);
        self.update(|cold_at| Some(cold_at.max(now).saturating_add(heat).min(hottest)));
    }

    fn update(&self, change: impl FnMut(u64) -> Option<u64>) {
        self.cold_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
            .expect("every change has a result");
    }
}

/// A warm-up period that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the warm-up period is {given:?}; write 1 second to 1 hour, or leave warm-up out")]
pub struct WarmUpError {
    /// What was written.
    pub given: Duration,
}
