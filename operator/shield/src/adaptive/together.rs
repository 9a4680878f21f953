//! Probes of several guards before one target, at the same time.
//!
//! A guard that lets in less while the others do not measures their queue: it takes the target for slower
//! than it is, lets in more, and the others do the same in turn. So none probes when it likes. All of them
//! do at the same marks of the clock, if the limit holds requests back.

use std::time::Duration;

use super::probe::{self, Probe};
use super::window::Window;
use super::{Adaptive, MOVED};
use crate::Time;
use crate::time::nanos;

/// Clocks of guards before one target must stand at the same moment of this, to some 50 ms: a probe lasts 250 ms
/// at least, and most of it is then one of all guards.
pub const SHARED_CYCLE: Duration = Duration::from_secs(8);

/// Marks in a cycle: one of a deep probe, one of another. A probe lasts a quarter of a second, or some latencies:
/// with latencies of half a second there is still time between two.
const MARKS: u64 = 2;

/// What a probe lets in of what the target works on for this guard: the queue drains as long as the floor is
/// less than a sixth too high, and most of what matters still passes.
const SHARE: f64 = 0.85;

/// What every other probe lets in: so little that the queue drains although the floor is more than twice too
/// high, as after a target became faster.
const SHARE_DEEP: f64 = 0.5;

/// The floor follows what a probe saw by this much: guards that measured differently by chance would divide
/// the target unevenly.
const FOLLOW: f64 = 0.25;

/// What differs by so much seldom does so by chance.
const NOTICED: f64 = 1.25;

/// A target that became slower is as slow with half of the requests: less than this of the latency before
/// a probe is a queue, ours or that of a guard whose clock is wrong.
const STILL: f64 = 0.8;

/// So many times the root of the limit is let in besides what the target works on for a guard: with 20 in
/// flight twice that, as for a guard alone.
const ROOTS: f64 = 2.25;

/// What is let in, of which the target works on so much for this guard.
///
/// By a multiple any division of the target among guards would stay as chance made it, since who has more
/// in flight is served more. What is added to all of them alike makes the small ones grow and the large ones
/// shrink. It has to be much: so, a guard that takes the floor for a twentieth too high has a tenth more than
/// the others; with the root alone beside one and a half of what is worked on, it would have a third more.
pub(super) fn wanted(works_on: f64, limit: f64) -> f64 {
    works_on + ROOTS * limit.sqrt()
}

/// How many marks the clock has passed.
fn mark(now: Time) -> u64 {
    now.as_nanos() / (nanos(SHARED_CYCLE) / MARKS)
}

/// What a guard knows of its last window.
#[derive(Debug, Default)]
pub(super) struct Together {
    /// The mark up to which it probed or had no reason to.
    mark: u64,
    /// Seconds that a request took, if the limit held others back.
    held_back: Option<f64>,
}

impl Together {
    pub(super) fn learn(&mut self, window: &Window) {
        let latency = window.latency();
        self.held_back = latency.filter(|_| window.is_saturated());
    }
}

impl Adaptive {
    /// Begins a probe if this is the first request after a mark.
    pub(super) fn begins_together(&mut self, now: Time) -> bool {
        let Some(together) = &mut self.together else {
            return false;
        };
        let mark = mark(now);
        let is_new = mark != std::mem::replace(&mut together.mark, mark);
        let (true, Some(latency), Some(floor)) = (is_new, together.held_back, self.floor) else {
            return false;
        };
        let rate = self.rates.highest();
        // A floor that is far too low must not stop the traffic.
        let share = if mark.is_multiple_of(MARKS) {
            SHARE_DEEP
        } else {
            SHARE
        };
        let least = f64::from(self.limit) / 6.0;
        let level = probe::level((share * rate * floor).max(least));
        self.probe = Some(Probe::new(level, now, latency, rate, false));
        true
    }

    /// Takes over what a probe saw. There is no deeper one: the others have ended theirs.
    pub(super) fn probed_together(&mut self, seen: &Window, now: Time) {
        self.probe = None;
        let Some(together) = &mut self.together else {
            return;
        };
        // A mark that went by meanwhile went by for the others too, or they are as late.
        together.mark = mark(now);
        let before = together.held_back.take();
        if let (Some(latency), Some(floor), Some(before)) = (seen.latency(), self.floor, before) {
            let is_still = latency >= before * STILL;
            let ratio = latency / floor;
            let follow = if ratio * MOVED < 1.0 || ratio > MOVED && is_still {
                1.0
            } else if ratio * NOTICED < 1.0 || ratio > NOTICED && is_still {
                0.5
            } else if ratio > NOTICED {
                0.0
            } else {
                FOLLOW
            };
            self.floor = Some(floor + (latency - floor) * follow);
            self.follow_failing(seen);
        }
        self.aim(self.rates.highest());
        self.proof.at = now;
        self.proof.limit = self.limit;
        self.window = Window::new(now);
    }
}
