//! The time that decisions take for now.

use std::time::Instant;

/// The clock is at most this part of the time passed faster or slower than the monotonic one: an
/// hour's jump of the wall clock is made up in ten hours, and no span is judged by more than a
/// tenth too long or too short.
const SLEW: i64 = 10;
/// As even as the monotonic clock and, in the long run, as right as the wall clock: a wall clock
/// that is set forward silences no cluster, ends no soak and begins no stage, and one that is set
/// back stops nothing.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// The last answer, in microseconds since the Unix epoch.
    at: i64,
    since: Instant,
}

impl Clock {
    /// Starts with the wall clock's time.
    pub(crate) fn start() -> Self {
        Self::anchored(wall(), Instant::now())
    }

    const fn anchored(wall: i64, since: Instant) -> Self {
        Self { at: wall, since }
    }

    /// Now, in milliseconds since the Unix epoch.
    pub(crate) fn now(&mut self) -> i64 {
        self.advance(wall(), Instant::now())
    }

    fn advance(&mut self, wall: i64, instant: Instant) -> i64 {
        let passed = instant.saturating_duration_since(self.since).as_micros();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX / 4);
        let steady = self.at.saturating_add(passed);
        let most = passed / SLEW;
        self.at = steady + wall.saturating_sub(steady).clamp(-most, most);
        self.since = instant;
        self.at.div_euclid(1_000)
    }
}

fn wall() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const START: i64 = 1_800_000_000_000_000;

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_wall_clock_that_is_set_forward_is_followed_slowly() {
        let begin = Instant::now();
        let mut clock = Clock::anchored(START, begin);
        let wall = |seconds: i64| START + seconds * 1_000_000 + HOUR;
        assert_eq!(
            clock.advance(wall(10), after(begin, 10)),
            START / 1000 + 11_000
        );
        assert_eq!(
            clock.advance(wall(11), after(begin, 11)),
            START / 1000 + 12_100
        );
        let ten_hours = 36_011;
        let caught_up = clock.advance(wall(ten_hours), after(begin, 36_011));
        assert_eq!(caught_up, wall(ten_hours) / 1000);
    }

    #[test]
    fn a_wall_clock_that_is_set_back_slows_decisions_and_never_turns_them_back() {
        let begin = Instant::now();
        let mut clock = Clock::anchored(START, begin);
        let mut last = START / 1000;
        for second in 1..100_i64 {
            let wall = START + second * 1_000_000 - HOUR;
            let now = clock.advance(wall, begin + Duration::from_secs(second.unsigned_abs()));
            assert_eq!(now, last + 900);
            last = now;
        }
    }

    #[test]
    fn an_even_wall_clock_is_followed_to_the_millisecond_however_often_it_is_asked() {
        let begin = Instant::now();
        let mut clock = Clock::anchored(START, begin);
        for step in 1..5_000_u32 {
            let instant = begin + Duration::from_nanos(333_333) * step;
            let wall = START + i64::from(step) * 333;
            clock.advance(wall, instant);
        }
        assert!((clock.at - START - 4_999 * 333).abs() < 3_000);
    }
}
