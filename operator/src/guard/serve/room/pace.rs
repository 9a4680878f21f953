//! How fast a queue really moves: what `newPerMinute` allows says nothing while the service is full
//! or in distress.

use std::collections::VecDeque;
use std::time::Duration;

use shield::Time;

/// How far back is looked: the longest that somebody is told to wait before asking again.
const WINDOW: Duration = Duration::from_mins(1);

/// How often a look is kept: 60 of them, and a second more or less changes no estimate.
const STEP: Duration = Duration::from_secs(1);

/// Fewer people are luck, not a pace.
const PEOPLE_MIN: u64 = 10;

/// How many were let in by when, while the queue is open.
#[derive(Debug, Default)]
pub(super) struct Pace {
    looks: VecDeque<(Time, u64)>,
    /// The last look, kept or not.
    last: (Time, u64),
}

impl Pace {
    /// Notes how many were let in until now.
    pub(super) fn note(&mut self, is_open: bool, admitted: u64, now: Time) {
        if !is_open || admitted < self.last.1 {
            // Before it opened nobody queued, and a count that goes back is another fleet's.
            self.looks.clear();
        }
        self.last = (now, admitted);
        if is_open
            && self
                .looks
                .back()
                .is_none_or(|(at, _)| now.since(*at) >= STEP)
        {
            self.looks.push_back(self.last);
        }
        while self
            .looks
            .front()
            .is_some_and(|(at, _)| now.since(*at) > WINDOW)
        {
            self.looks.pop_front();
        }
    }

    /// Seconds until so many are let in; none while nobody is, although many could be.
    pub(super) fn estimate(&self, people: u64, per_minute: u64) -> Option<u64> {
        let (since, before) = self.looks.front().copied().unwrap_or(self.last);
        let span = u64::try_from(self.last.0.since(since).as_millis()).unwrap_or(u64::MAX);
        let admitted = self.last.1.saturating_sub(before);
        let expected = per_minute.saturating_mul(span) / 60_000;
        let millis = if admitted.min(expected) >= PEOPLE_MIN {
            people.saturating_mul(span) / admitted
        } else if expected < PEOPLE_MIN {
            people.saturating_mul(60_000) / per_minute
        } else {
            people.saturating_mul(span).checked_div(admitted)?
        };
        Some(millis.div_ceil(1000).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64, each: u64) -> Pace {
        let mut pace = Pace::default();
        pace.note(false, 5000, Time::ZERO);
        for second in 0..=seconds {
            let now = Time::ZERO.after(Duration::from_secs(second));
            pace.note(true, 5000 + second * each, now);
        }
        pace
    }

    #[test]
    fn a_queue_that_moves_slower_than_it_may_is_told_as_it_moves() {
        assert_eq!(after(30, 2).estimate(100, 6000), Some(50));
        assert_eq!(after(600, 2).estimate(100, 6000), Some(50));
    }

    #[test]
    fn a_queue_that_has_just_opened_is_told_as_it_may_move() {
        assert_eq!(after(0, 0).estimate(100, 6000), Some(1));
        assert_eq!(Pace::default().estimate(600, 60), Some(600));
        assert_eq!(after(60, 0).estimate(3, 1), Some(180), "too slow to see");
    }

    #[test]
    fn a_queue_that_stands_still_is_not_told_a_time() {
        assert_eq!(after(30, 0).estimate(100, 6000), None);
    }
}
