//! Settings of a rate limit, checked once.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Pace;

/// What a rate may ask for in one period: ten million a second is more than one machine decides.
const REQUESTS: RangeInclusive<u32> = 1..=10_000_000;

/// Periods in seconds: below a second a rate says the same with smaller numbers, and past a day it is
/// a quota of the calendar, which no bucket keeps.
const PERIOD_SECONDS: RangeInclusive<u64> = 1..=24 * 60 * 60;

/// Bursts: as many as the largest rate lets pass in a second.
pub(super) const BURST: RangeInclusive<u32> = 1..=10_000_000;

/// The longest time that an empty bucket may take to fill: 100 days.
///
/// It bounds every sum of nanoseconds in this crate, so that none can overflow, and a bucket that
/// takes longer to fill is a number that somebody mistyped.
pub(super) const FILL_MAX: Duration = Duration::from_hours(100 * 24);

/// So many requests in so long, spread evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RateFields", into = "RateFields")]
pub struct Rate {
    requests: u32,
    per: Duration,
}

impl Rate {
    /// A rate of 1 to 10,000,000 requests in 1 second to 24 hours, in whole seconds.
    pub fn new(requests: u32, per: Duration) -> Result<Self, QuotaError> {
        if !REQUESTS.contains(&requests) {
            return Err(QuotaError::Requests { given: requests });
        }
        if !PERIOD_SECONDS.contains(&per.as_secs()) || per.subsec_nanos() != 0 {
            return Err(QuotaError::Period { given: per });
        }
        Ok(Self { requests, per })
    }

    /// How many requests.
    pub const fn requests(self) -> u32 {
        self.requests
    }

    /// In how long.
    pub const fn per(self) -> Duration {
        self.per
    }

    /// The same as requests in one second.
    pub fn per_second(self) -> f64 {
        f64::from(self.requests) / self.per.as_secs_f64()
    }
}

/// A rate, and how many requests may come at one moment after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "QuotaFields", into = "QuotaFields")]
pub struct Quota {
    rate: Rate,
    burst: u32,
}

impl Quota {
    /// This rate with a burst of 1 to 10,000,000 requests that refills within 100 days.
    pub fn new(rate: Rate, burst: u32) -> Result<Self, QuotaError> {
        if !BURST.contains(&burst) {
            return Err(QuotaError::Burst { given: burst });
        }
        let fill = rate.per.as_secs_f64() / f64::from(rate.requests) * f64::from(burst);
        if fill > FILL_MAX.as_secs_f64() {
            return Err(QuotaError::Fill {
                burst,
                fill_days: fill / 86_400.0,
            });
        }
        Ok(Self { rate, burst })
    }

    /// The rate.
    pub const fn rate(self) -> Rate {
        self.rate
    }

    /// How many requests may come at one moment after a pause.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// What a bucket keeps to.
    pub fn pace(self) -> Pace {
        let period = crate::time::nanos(self.rate.per);
        Pace::exactly(period.div_ceil(u64::from(self.rate.requests)), self.burst)
    }
}

impl From<Quota> for Pace {
    fn from(quota: Quota) -> Self {
        quota.pace()
    }
}

/// A rate or burst that is not allowed, and what is.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum QuotaError {
    /// Too few or too many requests.
    #[error(
        "requests is {given}; write 1 to 10000000, and make the period longer for a lower rate"
    )]
    Requests {
        /// What was written.
        given: u32,
    },
    /// A period that is too short, too long, or not in whole seconds.
    #[error("the period is {given:?}; write whole seconds from 1 to 86400 (24 hours)")]
    Period {
        /// What was written.
        given: Duration,
    },
    /// No burst, or too large a one.
    #[error("burst is {given}; write 1 to 10000000; 1 lets requests pass one by one")]
    Burst {
        /// What was written.
        given: u32,
    },
    /// A burst that takes too long to refill at its rate.
    #[error(
        "a burst of {burst} takes {fill_days:.0} days to refill at this rate; at most 100 days are \
         allowed: lower burst or raise the rate"
    )]
    Fill {
        /// What was written.
        burst: u32,
        /// How long it takes to refill.
        fill_days: f64,
    },
    /// A rate in requests per second that no bucket keeps.
    #[error(
        "{given} requests per second is no rate; write a number above 0 and up to 10000000, and stop \
         a limit with Pace::STOPPED"
    )]
    PerSecond {
        /// What was given.
        given: f64,
    },
}

/// How a rate is written: the unit is in the name, as everywhere in settings.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RateFields {
    requests: u32,
    per_seconds: u64,
}

impl TryFrom<RateFields> for Rate {
    type Error = QuotaError;

    fn try_from(fields: RateFields) -> Result<Self, QuotaError> {
        Self::new(fields.requests, Duration::from_secs(fields.per_seconds))
    }
}

impl From<Rate> for RateFields {
    fn from(rate: Rate) -> Self {
        Self {
            requests: rate.requests,
            per_seconds: rate.per.as_secs(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct QuotaFields {
    rate: Rate,
    burst: u32,
}

impl TryFrom<QuotaFields> for Quota {
    type Error = QuotaError;

    fn try_from(fields: QuotaFields) -> Result<Self, QuotaError> {
        Self::new(fields.rate, fields.burst)
    }
}

impl From<Quota> for QuotaFields {
    fn from(quota: Quota) -> Self {
        Self {
            rate: quota.rate,
            burst: quota.burst,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(requests: u32, seconds: u64) -> Rate {
        Rate::new(requests, Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn a_rate_outside_its_bounds_is_refused_with_what_is_allowed() {
        let second = Duration::from_secs(1);
        assert_eq!(Rate::new(0, second), Err(QuotaError::Requests { given: 0 }));
        assert!(Rate::new(10_000_001, second).is_err());
        assert!(Rate::new(1, Duration::from_millis(1500)).is_err());
        assert!(Rate::new(1, Duration::ZERO).is_err());
        assert!(Rate::new(10_000_000, second).is_ok());
        assert!(Rate::new(1, Duration::from_hours(24)).is_ok());
        let text = Rate::new(1, Duration::from_secs(86_401))
            .unwrap_err()
            .to_string();
        assert!(text.contains("86400"), "{text}");
    }

    #[test]
    fn a_burst_that_takes_years_to_refill_is_refused() {
        assert!(Quota::new(rate(1, 86_400), 100).is_ok());
        let error = Quota::new(rate(1, 86_400), 101).unwrap_err().to_string();
        assert!(
            error.contains("101 days") && error.contains("100 days"),
            "{error}"
        );
        assert!(Quota::new(rate(1, 1), 0).is_err());
        assert!(Quota::new(rate(1, 1), 10_000_001).is_err());
    }

    #[test]
    fn settings_are_written_with_their_units_and_checked_when_read() {
        let quota = Quota::new(rate(100, 60), 5).unwrap();
        let text = r#"{"rate":{"requests":100,"perSeconds":60},"burst":5}"#;
        assert_eq!(serde_json::to_string(&quota).unwrap(), text);
        assert_eq!(serde_json::from_str::<Quota>(text).unwrap(), quota);
        for bad in [
            r#"{"rate":{"requests":0,"perSeconds":60},"burst":5}"#,
            r#"{"rate":{"requests":1,"perSeconds":60},"burst":0}"#,
            r#"{"rate":{"requests":1,"perSeconds":60,"per":1},"burst":1}"#,
        ] {
            assert!(serde_json::from_str::<Quota>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pace_is_never_faster_than_its_quota() {
        let pace = Quota::new(rate(3, 1), 2).unwrap().pace();
        assert_eq!(pace.interval(), Duration::from_nanos(333_333_334));
        assert!((rate(3, 10).per_second() - 0.3).abs() < 1e-12);
    }
}
