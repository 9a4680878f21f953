//! The arithmetic of every limit: the generic cell rate algorithm (GCRA) on one number.
//!
//! A bucket is one moment: its *arrival*, the theoretical arrival time at which it is full again. A
//! request moves it by one interval for each token; one that would move it further ahead of now than
//! the whole bucket is refused. Nothing refills a bucket but time, so nothing has to run.

use std::time::Duration;

use thiserror::Error;

use super::QuotaError;
use super::quota::{BURST, FILL_MAX};
use crate::time::{Time, nanos};

/// The last arrival that a bucket can keep, in nanoseconds: 146 years after the start of the clock.
///
/// The two bits above it are the bucket's own. Past it everything is refused: a clock that says so is
/// wrong, and a limit that lets everything pass is the worse way to be wrong.
pub(crate) const LAST: u64 = u64::MAX >> 2;

/// The highest rate per second, and the interval that it leaves between tokens.
const RATE_MAX: f64 = 10_000_000.0;
const INTERVAL_MIN: u64 = 100;

const FILL_MAX_NANOS: u64 = FILL_MAX.as_secs() * 1_000_000_000;

/// How much of its rate a share of a limit holds as burst, in nanoseconds: 200 ms.
///
/// Enough to ride out the scheduling of a busy machine, and little against the second in which shares
/// change.
const SHARE_BURST: u64 = 200_000_000;

/// How fast tokens come, and how many a bucket holds.
///
/// Tokens come one by one, a whole number of nanoseconds apart, rounded so that never more pass than
/// asked for: at 100,000 requests a second the rounding takes at most 0.01 %. So a pace may be a
/// fraction of a request per second, as a share of a limit that many guards hold together often is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pace {
    interval: u64,
    burst: u32,
}

impl Pace {
    /// Nothing passes. A bucket that comes from here begins empty.
    pub const STOPPED: Self = Self {
        interval: FILL_MAX_NANOS,
        burst: 0,
    };

    /// So many requests per second, also below one, with a burst that refills within 100 days.
    pub fn per_second(rate: f64, burst: u32) -> Result<Self, QuotaError> {
        let interval = interval_of(rate).ok_or(QuotaError::PerSecond { given: rate })?;
        if !BURST.contains(&burst) {
            return Err(QuotaError::Burst { given: burst });
        }
        if u64::from(burst).saturating_mul(interval) > FILL_MAX_NANOS {
            return Err(QuotaError::Fill {
                burst,
                fill_days: f64::from(burst) / rate / 86_400.0,
            });
        }
        Ok(Self { interval, burst })
    }

    /// A share of a limit in requests per second: its burst is what 200 ms of it let pass, at least 1.
    ///
    /// What is no rate, or less than one request in 100 days, is [`Pace::STOPPED`]; what is more than
    /// ten million is ten million.
    pub fn of_share(rate: f64) -> Self {
        let rate = if rate > RATE_MAX { RATE_MAX } else { rate };
        interval_of(rate).map_or(Self::STOPPED, |interval| {
            let burst = u32::try_from(SHARE_BURST / interval).unwrap_or(*BURST.end());
            Self::exactly(interval, burst.max(1))
        })
    }

    /// How long after one token the next one comes.
    pub const fn interval(self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// How many tokens a bucket holds.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// A pace in the form in which a bucket keeps it. The caller has checked the bounds.
    pub(crate) const fn exactly(interval: u64, burst: u32) -> Self {
        Self { interval, burst }
    }

    /// Nanoseconds between tokens.
    pub(crate) const fn interval_nanos(self) -> u64 {
        self.interval
    }

    /// How long an empty bucket takes to fill.
    pub(crate) fn fill(self) -> u64 {
        self.interval * u64::from(self.burst)
    }

    /// How far tokens move an arrival, as far as the bucket holds them.
    pub(crate) fn span(self, tokens: u32) -> u64 {
        self.interval * u64::from(tokens.min(self.burst))
    }

    /// Decides on a request for tokens that may wait so long, with tokens that cost more than they
    /// should.
    ///
    /// A request that the bucket can hold is decided as if the bucket held at least that, so that one
    /// with stretched tokens passes when the bucket is full.
    pub(crate) fn claim(
        self,
        arrival: u64,
        cost: u32,
        stretch: Stretch,
        patience: u64,
        now: Time,
    ) -> Result<Claim, Refused> {
        if cost > self.burst {
            return Err(Refused::Never { burst: self.burst });
        }
        let now = now.as_nanos();
        let plain = self.span(cost);
        let span = stretch.of(plain);
        let room = self.fill().max(span);
        let next = arrival.max(now).saturating_add(span);
        if next > LAST {
            return Err(Refused::Never { burst: self.burst });
        }
        let ahead = next - now;
        let wait = ahead.saturating_sub(room);
        if wait > patience {
            return Err(Refused::Later {
                retry_after: Duration::from_nanos(wait - patience),
            });
        }
        Ok(Claim {
            arrival: next,
            wait: Duration::from_nanos(wait),
            span,
            plain,
        })
    }

    /// What a bucket holds, in nanoseconds of this pace: below zero when places ahead are taken.
    pub(crate) fn held(self, arrival: u64, now: Time) -> i128 {
        i128::from(self.fill()) - i128::from(arrival.saturating_sub(now.as_nanos()))
    }

    /// The arrival of a bucket that held `old` and keeps its tokens, as far as this pace holds them.
    ///
    /// Keeping the arrival would keep time instead: what 2 tokens are at 10 a second are 200 tokens at
    /// 1000 a second. Every rounding is against the bucket, so that changing there and back makes no
    /// token. A debt is kept as well, up to what this pace works off in 100 days.
    pub(crate) fn adopt(self, old: Self, arrival: u64, now: Time) -> u64 {
        let fill = i128::from(self.fill());
        let tokens = old.held(arrival, now) * i128::from(self.interval);
        let held = tokens.div_euclid(i128::from(old.interval)).min(fill);
        let owed = (fill - held).min(fill + i128::from(FILL_MAX_NANOS));
        let owed = u64::try_from(owed).expect("a bucket holds no more than it can");
        if owed == 0 {
            arrival.min(now.as_nanos())
        } else {
            now.as_nanos().saturating_add(owed).min(LAST)
        }
    }
}

/// How much more a token costs than it should, in parts of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch(u64);

impl Stretch {
    /// As much as it should.
    pub(crate) const NONE: Self = Self(Self::ONE);

    /// What counts as one.
    pub(crate) const ONE: u64 = 1024;

    /// So many parts of 1024, of which there are at least that many.
    pub(crate) fn new(parts: u64) -> Self {
        Self(parts.max(Self::ONE))
    }

    /// This span, stretched.
    pub(crate) fn of(self, span: u64) -> u64 {
        let stretched = u128::from(span) * u128::from(self.0) / u128::from(Self::ONE);
        u64::try_from(stretched).unwrap_or(u64::MAX)
    }
}

/// What a request that may pass does to a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The arrival from then on.
    pub(crate) arrival: u64,
    /// How long the request has to wait.
    pub(crate) wait: Duration,
    /// How far it moved the arrival.
    pub(crate) span: u64,
    /// How far it would have without stretch.
    pub(crate) plain: u64,
}

/// Why a request may not pass, and when it is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// Too few tokens are there.
    #[error("the limit is reached; it has room again in {retry_after:?}")]
    Later {
        /// After this long the same request would pass if no other came.
        retry_after: Duration,
    },
    /// It asks for more than the bucket ever holds, or the limit is stopped: no waiting helps, only
    /// another setting.
    #[error("the request asks for more than the burst of {burst}; it can never pass")]
    Never {
        /// What the bucket holds at most.
        burst: u32,
    },
}

impl Refused {
    /// After how long the same request would pass if no other came; `None` if no waiting helps.
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Later { retry_after } => Some(retry_after),
            Self::Never { .. } => None,
        }
    }
}

/// The nanoseconds between requests at a rate per second, rounded up; `None` if it is out of bounds.
fn interval_of(rate: f64) -> Option<u64> {
    if !(rate > 0.0 && rate <= RATE_MAX) {
        return None;
    }
    let exact = 1.0 / rate;
    let nearest = Duration::try_from_secs_f64(exact).ok()?;
    // A rate that is whole in nanoseconds is not to lose one to the last bit of a division.
    let short = exact - nearest.as_secs_f64() > 1e-12;
    let interval = nanos(nearest) + u64::from(short);
    (INTERVAL_MIN..=FILL_MAX_NANOS)
        .contains(&interval)
        .then_some(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_may_be_a_fraction_of_a_request_per_second() {
        let pace = Pace::of_share(0.3);
        assert_eq!(pace.burst(), 1);
        assert_eq!(pace.interval(), Duration::from_nanos(3_333_333_334));
        assert_eq!(
            Pace::of_share(1000.0),
            Pace::per_second(1000.0, 200).unwrap()
        );
    }

    #[test]
    fn what_is_no_rate_stops_a_share_and_is_refused_as_a_pace() {
        for rate in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY, 1e-12] {
            assert_eq!(Pace::of_share(rate), Pace::STOPPED, "{rate}");
            assert!(Pace::per_second(rate, 1).is_err(), "{rate}");
        }
        assert_eq!(Pace::of_share(f64::INFINITY), Pace::of_share(1e7));
        assert!(Pace::per_second(1e7 + 1.0, 1).is_err());
        assert!(Pace::per_second(1.0, 10_000_000).is_err(), "116 days");
        assert!(Pace::per_second(2.0, 10_000_000).is_ok());
    }

    #[test]
    fn whole_intervals_stay_whole() {
        for rate in [1.0, 5.0, 10.0, 1000.0, 1e5, 1e6, 1e7] {
            let pace = Pace::per_second(rate, 1).unwrap();
            let second = pace.interval().as_secs_f64() * rate;
            assert!((second - 1.0).abs() < 1e-15, "{rate}: {second}");
        }
    }
}
