//! Signs of a service in distress, in numbers that add up over guards.

use std::ops::Add;

use serde::{Deserialize, Serialize};

use super::advance::Cause;
use super::settings::OpenWhen;

/// How many seconds are judged together: two bad ones among five good ones are a hiccup.
const WINDOW: usize = 5;

/// Fewer requests in the window say nothing: one slow request in a hundred is not a percentile.
const MIN_REQUESTS: u64 = 200;

/// What became of the requests of some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signals {
    /// Requests that ended.
    pub requests: u64,
    /// Those that failed for the service's fault.
    pub errors: u64,
    /// Those that took longer than `openWhen.p99Over`.
    pub slow: u64,
}

/// The last seconds of one guard.
#[derive(Debug, Default)]
pub(super) struct Window {
    seconds: [Signals; WINDOW],
    next: usize,
}

impl Add for Signals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            errors: self.errors.saturating_add(other.errors),
            slow: self.slow.saturating_add(other.slow),
        }
    }
}

impl Window {
    pub(super) fn push(&mut self, second: Signals) {
        self.seconds[self.next] = second;
        self.next = (self.next + 1) % WINDOW;
    }

    pub(super) fn sum(&self) -> Signals {
        self.seconds.into_iter().fold(Signals::default(), Add::add)
    }
}

impl Signals {
    /// What is wrong, if anything.
    pub(super) fn distress(self, when: OpenWhen) -> Option<Cause> {
        if self.requests < MIN_REQUESTS {
            return None;
        }
        // The 99th percentile is over the limit if more than one in a hundred is.
        if when.p99_over.is_some() && self.slow.saturating_mul(100) > self.requests {
            return Some(Cause::Latency);
        }
        let fails = |percent| percent_of(percent, self.requests) <= self.errors.saturating_mul(100);
        when.error_percent
            .is_some_and(fails)
            .then_some(Cause::Errors)
    }

    /// Whether all is so well that it is not in distress again at once: half the limits.
    pub(super) fn is_calm(self, when: OpenWhen) -> bool {
        let doubled = Self {
            requests: self.requests,
            errors: self.errors.saturating_mul(2),
            slow: self.slow.saturating_mul(2),
        };
        doubled.distress(when).is_none()
    }
}

fn percent_of(percent: u8, requests: u64) -> u64 {
    requests.saturating_mul(u64::from(percent))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WHEN: OpenWhen = OpenWhen {
        p99_over: Some(Duration::from_secs(1)),
        error_percent: Some(5),
    };

    fn of(requests: u64, errors: u64, slow: u64) -> Signals {
        Signals {
            requests,
            errors,
            slow,
        }
    }

    #[test]
    fn more_than_one_slow_in_a_hundred_is_distress_and_half_of_it_is_calm() {
        assert_eq!(of(1000, 0, 10).distress(WHEN), None);
        assert_eq!(of(1000, 0, 11).distress(WHEN), Some(Cause::Latency));
        assert!(!of(1000, 0, 6).is_calm(WHEN));
        assert!(of(1000, 0, 5).is_calm(WHEN));
    }

    #[test]
    fn the_share_of_errors_is_distress_and_less_than_half_of_it_is_calm() {
        assert_eq!(of(1000, 49, 0).distress(WHEN), None);
        assert_eq!(of(1000, 50, 0).distress(WHEN), Some(Cause::Errors));
        assert!(!of(1000, 25, 0).is_calm(WHEN));
        assert!(of(1000, 24, 0).is_calm(WHEN));
    }

    #[test]
    fn a_handful_of_requests_or_a_sign_not_asked_for_says_nothing() {
        assert_eq!(of(MIN_REQUESTS - 1, 199, 199).distress(WHEN), None);
        let never = OpenWhen::default();
        assert_eq!(of(1000, 1000, 1000).distress(never), None);
    }

    #[test]
    fn the_window_forgets_what_is_older() {
        let mut window = Window::default();
        window.push(of(9, 9, 9));
        for _ in 0..WINDOW {
            window.push(of(1, 0, 0));
        }
        assert_eq!(window.sum(), of(5, 0, 0));
    }
}
