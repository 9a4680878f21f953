//! Up to when silence is silence.

use std::time::{Duration, Instant};

/// A sign of life of the watch on Leases counts after this time. A watch that resumes shows life
/// first and delivers what was missed right after; two seconds are many turns of the loop.
const SETTLE: Duration = Duration::from_secs(2);

/// Up to when the hub would have heard a heartbeat. A watch that is frozen delivers none, and that
/// says nothing about the clusters.
#[derive(Debug)]
pub(super) struct Hearing {
    until: i64,
    /// The sign of life that counts next, and when it was noticed.
    next: Option<(i64, Instant)>,
}

impl Hearing {
    /// Nothing was heard before `now`.
    pub(super) const fn since(now: i64) -> Self {
        Self {
            until: now,
            next: None,
        }
    }

    /// Takes in the watch's last sign of life and says up to when everything was heard.
    pub(super) fn until(&mut self, last: Option<Instant>, instant: Instant, now: i64) -> i64 {
        if let Some((sign, noticed)) = self.next
            && instant.saturating_duration_since(noticed) >= SETTLE
        {
            self.until = self.until.max(sign);
            self.next = None;
        }
        if let (None, Some(last)) = (self.next, last) {
            let age = instant.saturating_duration_since(last).as_millis();
            let sign = now - i64::try_from(age).unwrap_or(i64::MAX / 2);
            self.next = Some((sign, instant));
        }
        self.until
    }
}

/// The longest a new leader waits to hear what came before it: a frozen watch goes unnoticed no
/// longer, and a kind that cannot be watched must not keep the province without a leader.
const CATCH_UP_MAX: Duration = Duration::from_mins(1);

/// A new leader's wait until it has heard what its predecessor did. Some of its watches may have been
/// frozen, each without the others, and what looks newest to it is then the past.
#[derive(Debug)]
pub(super) struct CatchUp {
    since: Instant,
    /// When every watch had shown life since then.
    heard: Option<Instant>,
}

impl CatchUp {
    /// The term began.
    pub(super) const fn begun(now: Instant) -> Self {
        Self {
            since: now,
            heard: None,
        }
    }

    /// When the term began.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// Whether the wait is over, given whether every watch has shown life since the term began.
    pub(super) fn is_over(&mut self, heard: bool, now: Instant) -> bool {
        if heard {
            self.heard.get_or_insert(now);
        }
        let settled = |heard| now.saturating_duration_since(heard) >= SETTLE;
        self.heard.is_some_and(settled) || now.saturating_duration_since(self.since) >= CATCH_UP_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_leader_decides_once_every_watch_has_delivered_what_it_missed() {
        let begin = Instant::now();
        let mut catch_up = CatchUp::begun(begin);
        assert!(!catch_up.is_over(false, after(begin, 1)));
        assert!(
            !catch_up.is_over(true, after(begin, 5)),
            "it may be on its way"
        );
        assert!(catch_up.is_over(false, after(begin, 7)));
        assert!(!CatchUp::begun(begin).is_over(false, after(begin, 59)));
        assert!(CatchUp::begun(begin).is_over(false, after(begin, 60)));
    }

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_frozen_watch_hears_nothing_and_what_it_missed_comes_before_its_silence_counts() {
        let begin = Instant::now();
        let mut hearing = Hearing::since(0);
        assert_eq!(hearing.until(Some(begin), begin, 0), 0);
        let mut at = |last: u64, now: u64| {
            let millis = i64::try_from(now).unwrap() * 1000;
            hearing.until(Some(after(begin, last)), after(begin, now), millis)
        };
        assert_eq!(at(10, 10), 0);
        assert_eq!(at(10, 13), 10_000);
        assert_eq!(at(10, 100), 10_000, "frozen since then");
        assert_eq!(
            at(100, 101),
            10_000,
            "it resumes and delivers what it missed"
        );
        assert_eq!(at(102, 102), 10_000);
        assert_eq!(at(104, 104), 102_000);
    }

    #[test]
    fn a_watch_that_never_began_has_heard_nothing() {
        let mut hearing = Hearing::since(5);
        assert_eq!(hearing.until(None, Instant::now(), 90_000), 5);
    }
}
