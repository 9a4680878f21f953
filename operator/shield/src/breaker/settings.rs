//! What a breaker may be told, and what it may not.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Requests that a window must have seen at most; beyond it no breaker of ours would ever judge.
const REQUESTS_MAX: u32 = 1_000_000;

/// Probes at most: enough to judge by, few enough that a sick dependency is not kept sick by them.
const PROBES_MAX: u32 = 100;

/// The shortest span that says anything: requests take milliseconds.
const SPAN_MIN: Duration = Duration::from_millis(100);

/// The longest window and the longest first opening: a breaker that remembers longer reacts to
/// another day's troubles.
const SPAN_MAX: Duration = Duration::from_mins(10);

/// The slowest limit for a slow call; nobody waits longer for an answer.
const SLOW_MAX: Duration = Duration::from_mins(1);

/// When and how a breaker opens and closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreakerSettings {
    /// What makes it open.
    pub condition: Condition,
    /// The span over which it judges.
    pub window: Duration,
    /// Results the window must hold before it judges at all.
    pub min_requests: u32,
    /// How long it stays open the first time, and how long re-admission takes afterwards.
    pub open_for: Duration,
    /// Requests let through to find out whether the dependency has recovered; all must be good.
    pub probes: u32,
}

/// What makes a breaker open. Percentages are reached at "as many or more".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Condition {
    /// So many percent of the calls take longer than this: a percentile, not an average.
    SlowCalls {
        /// What takes longer is slow.
        over: Duration,
        /// The share of slow calls, 1 to 100.
        percent: u32,
    },
    /// So many percent of the calls fail.
    Errors {
        /// The share of failures, 1 to 100.
        percent: u32,
    },
    /// So many calls fail within the window.
    ErrorCount {
        /// The number of failures.
        count: u32,
    },
}

/// Why settings of a breaker are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BreakerFault {
    /// A number lies outside what is allowed.
    #[error("breaker: {field} is {found}, allowed is {least} to {most}")]
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
    #[error("breaker: {field} is {found:?}, allowed is {least:?} to {most:?}")]
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

impl BreakerSettings {
    /// Says the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), BreakerFault> {
        self.condition.validate()?;
        span("window", self.window, SPAN_MIN..=SPAN_MAX)?;
        number("minRequests", self.min_requests, 1..=REQUESTS_MAX)?;
        span("openFor", self.open_for, SPAN_MIN..=SPAN_MAX)?;
        number("probes", self.probes, 1..=PROBES_MAX)
    }

    /// Whether by both a result counts for as long, and the same results are bad.
    pub(super) fn counts_as(&self, other: &Self) -> bool {
        let bad = |condition| match condition {
            Condition::SlowCalls { over, percent: _ } => Some(over),
            Condition::Errors { percent: _ } | Condition::ErrorCount { count: _ } => None,
        };
        self.window == other.window && bad(self.condition) == bad(other.condition)
    }
}

impl Condition {
    fn validate(self) -> Result<(), BreakerFault> {
        match self {
            Self::SlowCalls { over, percent } => {
                span("slowCalls.over", over, Duration::from_millis(1)..=SLOW_MAX)?;
                number("slowCalls.percent", percent, 1..=100)
            }
            Self::Errors { percent } => number("errors.percent", percent, 1..=100),
            Self::ErrorCount { count } => number("errorCount.count", count, 1..=REQUESTS_MAX),
        }
    }

    /// Whether this result speaks against the dependency.
    pub(super) fn is_bad(self, elapsed: Duration, is_error: bool) -> bool {
        match self {
            Self::SlowCalls { over, .. } => elapsed > over,
            Self::Errors { .. } | Self::ErrorCount { .. } => is_error,
        }
    }

    /// Whether so many bad results among all of them are too many.
    pub(super) fn is_met(self, all: u64, bad: u64) -> bool {
        match self {
            Self::SlowCalls { percent, .. } | Self::Errors { percent } => {
                bad.saturating_mul(100) >= all.saturating_mul(u64::from(percent))
            }
            Self::ErrorCount { count } => bad >= u64::from(count),
        }
    }
}

fn number(
    field: &'static str,
    found: u32,
    allowed: RangeInclusive<u32>,
) -> Result<(), BreakerFault> {
    let (least, most) = allowed.into_inner();
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(BreakerFault::Number {
        field,
        found,
        least,
        most,
    })
}

fn span(
    field: &'static str,
    found: Duration,
    allowed: RangeInclusive<Duration>,
) -> Result<(), BreakerFault> {
    let (least, most) = allowed.into_inner();
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(BreakerFault::Span {
        field,
        found,
        least,
        most,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> BreakerSettings {
        BreakerSettings {
            condition: Condition::Errors { percent: 50 },
            window: Duration::from_secs(10),
            min_requests: 20,
            open_for: Duration::from_secs(5),
            probes: 5,
        }
    }

    fn refusal(change: impl FnOnce(&mut BreakerSettings)) -> String {
        let mut settings = good();
        change(&mut settings);
        settings.validate().unwrap_err().to_string()
    }

    #[test]
    fn every_field_has_bounds_and_a_refusal_names_them() {
        assert_eq!(good().validate(), Ok(()));
        assert_eq!(
            refusal(|s| s.window = Duration::ZERO),
            "breaker: window is 0ns, allowed is 100ms to 600s"
        );
        assert_eq!(
            refusal(|s| s.open_for = Duration::from_secs(601)),
            "breaker: openFor is 601s, allowed is 100ms to 600s"
        );
        assert_eq!(
            refusal(|s| s.probes = 0),
            "breaker: probes is 0, allowed is 1 to 100"
        );
        assert_eq!(
            refusal(|s| s.min_requests = 0),
            "breaker: minRequests is 0, allowed is 1 to 1000000"
        );
        assert_eq!(
            refusal(|s| s.condition = Condition::Errors { percent: 101 }),
            "breaker: errors.percent is 101, allowed is 1 to 100"
        );
        assert_eq!(
            refusal(|s| s.condition = Condition::ErrorCount { count: 0 }),
            "breaker: errorCount.count is 0, allowed is 1 to 1000000"
        );
        let over = Duration::ZERO;
        assert_eq!(
            refusal(|s| s.condition = Condition::SlowCalls { over, percent: 50 }),
            "breaker: slowCalls.over is 0ns, allowed is 1ms to 60s"
        );
        let over = Duration::from_secs(1);
        assert_eq!(
            refusal(|s| s.condition = Condition::SlowCalls { over, percent: 0 }),
            "breaker: slowCalls.percent is 0, allowed is 1 to 100"
        );
    }

    #[test]
    fn they_are_written_as_users_write_them_and_read_back() {
        let text = serde_json::to_string(&good()).unwrap();
        for name in [r#""errors":{"percent":50}"#, "minRequests", "openFor"] {
            assert!(text.contains(name), "{text}");
        }
        assert_eq!(
            serde_json::from_str::<BreakerSettings>(&text).unwrap(),
            good()
        );
        let unknown = text.replace("probes", "probs");
        assert!(serde_json::from_str::<BreakerSettings>(&unknown).is_err());
    }

    #[test]
    fn a_call_is_slow_only_beyond_the_limit() {
        let over = Duration::from_millis(800);
        let slow = Condition::SlowCalls { over, percent: 50 };
        assert!(!slow.is_bad(over, true));
        assert!(slow.is_bad(over + Duration::from_nanos(1), false));
    }

    #[test]
    fn a_percentage_is_reached_at_as_many_or_more() {
        let errors = Condition::Errors { percent: 50 };
        assert!(errors.is_met(20, 10));
        assert!(!errors.is_met(21, 10));
        assert!(Condition::ErrorCount { count: 3 }.is_met(1_000, 3));
    }
}
