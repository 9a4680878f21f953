//! A wall clock that does not jump when the machine's does.

use std::time::Duration;

use crate::Time;
use crate::ticket::{SKEW, Wall};
use crate::time::nanos;

/// A clock is set right by a 64th of the time that passes: thirty times what keeps an honest clock
/// in step, and a step of an hour moves places by less than a second a minute.
const SLEW: u64 = 64;

/// The wall clock as the monotonic clock carries it on.
///
/// A step of the machine's clock is believed at once only if the anchor, which is the clock of the
/// others, says the same; otherwise the clock drifts there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Steady {
    /// Nanoseconds since 1970; `None` before the first reading.
    reading: Option<u64>,
    at: Time,
    anchored: bool,
}

impl Steady {
    /// The moment it is, given the machine's clock and what the others' clock says, if known.
    pub(super) fn read(&mut self, wall: Wall, anchor: Option<Wall>, now: Time) -> Wall {
        let target = in_nanos(anchor.unwrap_or(wall));
        let passed = nanos(now.since(self.at));
        let carried = self.reading.map(|reading| reading.saturating_add(passed));
        let reading = carried.map_or(target, |carried| {
            let stepped = carried.abs_diff(target) > nanos(SKEW);
            if stepped && self.believes(wall, anchor) {
                return target;
            }
            let step = passed / SLEW;
            target.clamp(carried.saturating_sub(step), carried.saturating_add(step))
        });
        self.anchored |= anchor.is_some();
        self.reading = Some(reading);
        self.at = self.at.max(now);
        Wall::from_millis(reading / 1_000_000)
    }

    /// Whether the others' clock has been heard.
    pub(super) const fn is_anchored(&self) -> bool {
        self.anchored
    }

    /// Whether two clocks say the same, or the others are heard for the first time: then it is more
    /// likely that this machine started with a wrong clock than that all others have one.
    fn believes(&self, wall: Wall, anchor: Option<Wall>) -> bool {
        anchor.is_some_and(|anchor| {
            let apart = anchor.since(wall).max(wall.since(anchor));
            !self.anchored || apart <= SKEW
        })
    }
}

fn in_nanos(wall: Wall) -> u64 {
    nanos(Duration::from_millis(wall.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Wall = Wall::from_millis(1_790_000_000_000);
    const HOUR: Duration = Duration::from_hours(1);

    fn minute_later(clock: &mut Steady, wall: Wall, anchor: Option<Wall>) -> Wall {
        let mut reading = START;
        for second in 1..=60 {
            reading = clock.read(wall, anchor, Time::ZERO.after(Duration::from_secs(second)));
        }
        reading
    }

    #[test]
    fn a_step_of_an_hour_moves_the_clock_by_less_than_a_second_in_a_minute() {
        for stepped in [START.after(HOUR), START.before(HOUR)] {
            let mut clock = Steady::default();
            assert_eq!(clock.read(START, None, Time::ZERO), START);
            let reading = minute_later(&mut clock, stepped, None);
            let true_time = START.after(Duration::from_mins(1));
            let off = reading.since(true_time).max(true_time.since(reading));
            assert!(off < Duration::from_secs(1), "{off:?}");
        }
    }

    #[test]
    fn a_guard_that_starts_with_a_wrong_clock_takes_that_of_the_others() {
        for wrong in [START.after(HOUR), START.before(HOUR)] {
            let mut clock = Steady::default();
            assert_eq!(clock.read(wrong, None, Time::ZERO), wrong);
            assert_eq!(clock.read(wrong, Some(START), Time::ZERO), START);
        }
    }

    #[test]
    fn a_step_that_the_others_confirm_is_believed() {
        let mut clock = Steady::default();
        clock.read(START, Some(START), Time::ZERO);
        let woken = START.after(HOUR);
        assert_eq!(clock.read(woken, Some(woken), Time::ZERO), woken);
    }

    #[test]
    fn a_step_of_the_others_is_not_believed_against_the_own_clock() {
        let mut clock = Steady::default();
        clock.read(START, Some(START), Time::ZERO);
        let theirs = START.after(HOUR);
        assert_eq!(clock.read(START, Some(theirs), Time::ZERO), START);
    }
}
