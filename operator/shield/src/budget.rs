//! Bounds retries to a share of the requests, so that they cannot multiply an overload.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Time;
use crate::window::Window;

/// The span over which retries are compared with requests: longer than the timeouts after which
/// retries come, short enough to follow the load.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// The minimum is meant for routes with little traffic; beyond this it would be the load itself.
const MIN_PER_SECOND_MAX: u32 = 1_000;

/// How many retries a route may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BudgetSettings {
    /// Retries per hundred requests of the last ten seconds, 0 to 100.
    pub percent: u32,
    /// Retries per second that are allowed besides, so that a quiet route can retry at all.
    pub min_per_second: u32,
}

impl Default for BudgetSettings {
    /// A fifth of the requests and three per second: what proxies have settled on.
    fn default() -> Self {
        Self {
            percent: 20,
            min_per_second: 3,
        }
    }
}

/// Why settings of a retry budget are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("retry budget: {field} is {found}, allowed is 0 to {most}")]
pub struct BudgetFault {
    /// The field as its user writes it.
    pub field: &'static str,
    /// What it says.
    pub found: u32,
    /// The most it may say.
    pub most: u32,
}

/// A retry budget, shared by all requests of a route.
#[derive(Debug)]
pub struct RetryBudget {
    settings: BudgetSettings,
    /// Requests, and the retries granted.
    counts: Mutex<Window<2>>,
}

impl RetryBudget {
    /// A budget that has seen nothing.
    pub fn new(settings: BudgetSettings) -> Result<Self, BudgetFault> {
        let BudgetSettings {
            percent,
            min_per_second,
        } = settings;
        for (field, found, most) in [
            ("budgetPercent", percent, 100),
            ("minPerSecond", min_per_second, MIN_PER_SECOND_MAX),
        ] {
            if found > most {
                return Err(BudgetFault { field, found, most });
            }
        }
        Ok(Self {
            settings,
            counts: Mutex::new(Window::new(BUDGET_WINDOW)),
        })
    }

    /// Counts a request; its retries are none.
    pub fn request(&self, now: Time) {
        self.with(|counts| counts.add(now, [1, 0]));
    }

    /// Spends one retry if the budget has it.
    #[must_use = "a retry that was not granted must not be made"]
    pub fn try_retry(&self, now: Time) -> bool {
        self.with(|counts| {
            let [requests, retries] = counts.sums(now);
            let granted = retries < self.allowed(requests);
            if granted {
                counts.add(now, [0, 1]);
            }
            granted
        })
    }

    fn allowed(&self, requests: u64) -> u64 {
        let least = u64::from(self.settings.min_per_second) * BUDGET_WINDOW.as_secs();
        let share = requests.saturating_mul(u64::from(self.settings.percent)) / 100;
        share.saturating_add(least)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Window<2>) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn budget(percent: u32, min_per_second: u32) -> RetryBudget {
        RetryBudget::new(BudgetSettings {
            percent,
            min_per_second,
        })
        .unwrap()
    }

    fn retries(budget: &RetryBudget, now: Time) -> usize {
        std::iter::repeat_with(|| budget.try_retry(now))
            .take(10_000)
            .filter(|granted| *granted)
            .count()
    }

    #[test]
    fn retries_are_a_share_of_the_requests_and_a_minimum() {
        let budget = RetryBudget::new(BudgetSettings::default()).unwrap();
        assert_eq!(retries(&budget, at(0)), 30);
        for _ in 0..1_000 {
            budget.request(at(1_000));
        }
        assert_eq!(retries(&budget, at(1_000)), 200);
        assert_eq!(retries(&budget, at(9_999)), 0);
        assert_eq!(retries(&budget, at(30_000)), 30);
    }

    #[test]
    fn a_dependency_that_is_down_sees_a_fifth_more_and_not_twice_the_load() {
        let budget = budget(20, 3);
        let mut granted = 0;
        for milli in 0..60_000 {
            budget.request(at(milli));
            granted += u32::from(budget.try_retry(at(milli)));
        }
        // Sixty seconds at 1,000 requests, a fifth of each and three per second besides.
        assert!((11_500..=12_600).contains(&granted), "{granted}");
    }

    #[test]
    fn nothing_allowed_is_nothing_granted() {
        let budget = budget(0, 0);
        budget.request(at(0));
        assert_eq!(retries(&budget, at(0)), 0);
    }

    #[test]
    fn settings_out_of_bounds_are_refused_by_name() {
        let refusal = |percent, min_per_second| {
            RetryBudget::new(BudgetSettings {
                percent,
                min_per_second,
            })
            .unwrap_err()
            .to_string()
        };
        assert_eq!(
            refusal(101, 3),
            "retry budget: budgetPercent is 101, allowed is 0 to 100"
        );
        assert_eq!(
            refusal(20, 1_001),
            "retry budget: minPerSecond is 1001, allowed is 0 to 1000"
        );
    }

    proptest! {
        /// The window may hold one bucket more than ten seconds, hence the second of slack.
        #[test]
        fn in_any_ten_seconds_retries_stay_within_the_budget(
            steps in prop::collection::vec((0..700_u64, 0..6_u32, 0..6_u32), 1..200),
            percent in 0..=100_u32,
            min_per_second in 0..4_u32,
        ) {
            let budget = budget(percent, min_per_second);
            let mut now = 0;
            let mut events: Vec<(u64, u64, u64)> = Vec::new();
            for (step, requests, wanted) in steps {
                now += step;
                for _ in 0..requests {
                    budget.request(at(now));
                }
                let granted = (0..wanted).filter(|_| budget.try_retry(at(now))).count() as u64;
                events.push((now, u64::from(requests), granted));
                let within = |span: u64| events.iter().filter(move |e| e.0 + span >= now);
                let made: u64 = within(10_000).map(|e| e.2).sum();
                let seen: u64 = within(11_000).map(|e| e.1).sum();
                let most = seen * u64::from(percent) / 100 + u64::from(min_per_second) * 10;
                // Without a grant now, requests that left since may have paid for earlier ones.
                prop_assert!(granted == 0 || made <= most, "{made} of {most}");
            }
        }
    }
}
