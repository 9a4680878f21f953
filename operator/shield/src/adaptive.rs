//! Finds by itself how many requests a target stands at a time.
//!
//! By Little's law a target that delivers `r` answers a second, each `f` seconds after it was asked
//! when nothing waits, works on `r * f` requests at a time. Twice as many are let in. The rate is
//! the highest of the last [windows](window) in which the limit held requests back. The latency is the
//! *floor*: learnt while the load is so small that nothing waits, and otherwise from a short
//! [probe](probe) with fewer requests in flight than the target works on. So a queue that stands at
//! the target cannot pass for its latency, and a probe refuses nobody: who arrives meanwhile waits
//! in our queue.

mod probe;
mod together;
mod window;

use std::time::Duration;

use crate::Time;
use crate::concurrency::Outcome;
use probe::{Probe, Step};
pub use together::SHARED_CYCLE;
use together::Together;
use window::{Rates, Window};

/// The limit is never above this: as many connections as one process can hold to one target with
/// some 50 KiB each for buffers, in 500 MiB.
pub const LIMIT_MAX: u32 = 10_000;

/// The limit is never below this, but in a probe: so few requests hurt nobody, and fewer would not
/// fill even one worker while requests and answers are on their way.
pub const LIMIT_MIN: u32 = 4;

/// The limit of a target about which nothing is known: as many as make a window.
const LIMIT_START: u32 = window::SAMPLES;

/// So many times what the target works on is let in.
///
/// Where latency grows with the square of concurrency (contention over shared state, as in the
/// universal scalability law), throughput peaks just where latency has doubled, that is at 2. For a
/// fixed number of workers 2 means one request waiting for each, so none idles between two. And a
/// floor measured too low by half still does not make the limit fall below what the target works on.
const GAIN: f64 = 2.0;

/// What a probe lets in of what the target works on: little enough that the queue at the target
/// drains although the floor is a third too high, and enough to keep most of the throughput.
const PROBE_SHARE: f64 = 0.75;

/// What a probe lets in that must tell a standing queue from a slow target: with half as many in flight
/// the latency halves, or it does not.
const PROBE_SHARE_DEEP: f64 = 0.5;

/// The floor is measured anew after so long at the limit: a probe costs a quarter of the throughput
/// for two or three latencies, at 100 ms that is less than 1 % of ten seconds.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// But at once, and at most once in this time, when the limit has moved away from where the floor was
/// measured by more than [`MOVED`].
const PROBE_EVERY_MIN: Duration = Duration::from_secs(1);

/// What differs by so much does so once in some forty times by chance, if latencies vary as much as they
/// are long: the target is another than the one measured.
const MOVED: f64 = 1.5;

/// In one window the limit doubles or halves at most, so one odd window does no harm.
const STEP: f64 = 2.0;

/// The floor follows single windows slowly, since the mean of one is known to a fifth only; upwards not
/// at all while more than three quarters of the limit run, or the queue that every target has close to
/// its capacity would pass for its latency.
const SLOW: f64 = 0.0625;

/// But it follows a target that became much faster at once.
const FAST: f64 = 0.25;

/// More failures than this at rest are those of a broken target, which a breaker must stop.
const FAILING_MAX: f64 = 0.9;

/// A share of failures further away is no chance: a dozen requests tell it to a seventh.
const FAILING_MOVED: f64 = 0.3;

/// A request that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// When it began to run.
    pub started: Time,
    /// When it ended.
    pub now: Time,
    /// How.
    pub outcome: Outcome,
    /// How many ran, it included.
    pub running: u32,
}

/// A limit that follows what the target delivers. There is nothing to configure.
#[derive(Debug)]
pub struct Adaptive {
    limit: u32,
    /// Seconds that a request takes when nothing waits.
    floor: Option<f64>,
    /// Share of requests that fail when nothing waits: no smaller limit would help them.
    failing: f64,
    rates: Rates,
    window: Window,
    probe: Option<Probe>,
    proof: Proof,
    /// Where others let requests in to the same target.
    together: Option<Together>,
}

/// When the floor was last seen with nothing waiting.
#[derive(Debug)]
struct Proof {
    at: Time,
    limit: u32,
    /// No probe has confirmed the floor since it was learnt.
    missing: bool,
}

impl Adaptive {
    /// The limit of a target about which nothing is known.
    pub fn new(now: Time) -> Self {
        Self::under_way(0, now)
    }

    /// The limit of a target on which so many requests run already: so many it stood until now, and a smaller
    /// limit would let nobody in until most of them have ended.
    pub fn under_way(running: u32, now: Time) -> Self {
        let limit = running.clamp(LIMIT_START, LIMIT_MAX);
        Self {
            limit,
            floor: None,
            failing: 0.0,
            rates: Rates::default(),
            window: Window::new(now),
            probe: None,
            proof: Proof {
                at: now,
                limit,
                missing: true,
            },
            together: None,
        }
    }

    /// From now on others let requests in to the same target as well, or nobody does any more.
    ///
    /// Then all of them have to ask with fewer requests in flight at the same time, or the queue of the
    /// others passes for the target's latency: see [`SHARED_CYCLE`] for what their clocks must agree on.
    pub fn share(&mut self, is_shared: bool) {
        match (is_shared, &self.together) {
            (true, None) => self.together = Some(Together::default()),
            (false, Some(_)) => self.together = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// How many requests may run now.
    pub fn limit(&self) -> u32 {
        self.probe
            .as_ref()
            .map_or(self.limit, |probe| probe.level().min(self.limit))
    }

    /// Learns from a request that ended.
    pub fn finished(&mut self, finished: Finished) {
        if let Some(probe) = &mut self.probe {
            match probe.finished(finished) {
                Step::Going => {}
                Step::Done(seen) if self.together.is_some() => {
                    self.probed_together(&seen, finished.now);
                }
                Step::Done(seen) => self.probed(&seen, finished.now),
            }
            return;
        }
        if self.begins_together(finished.now) {
            return;
        }
        self.window.finished(finished, self.limit);
        if self.window.is_over(finished.now, self.limit) {
            let over = std::mem::replace(&mut self.window, Window::new(finished.now));
            self.learn(&over, finished.now);
        }
    }

    fn learn(&mut self, window: &Window, now: Time) {
        if let Some(latency) = window.latency() {
            let floor = self.floor.get_or_insert(latency);
            if latency * MOVED < *floor {
                *floor += (latency - *floor) * FAST;
            } else if latency < *floor || window.peak() <= self.limit / 4 * 3 {
                *floor += (latency - *floor) * SLOW;
            }
        }
        let rate = window.rate(now, self.failing);
        if let Some(together) = &mut self.together {
            together.learn(window);
        }
        if window.is_saturated() {
            self.rates.push(rate);
            self.aim(self.rates.highest());
            if self.together.is_none() {
                self.probe_if_due(window, now);
            }
        } else if window.peak() <= self.limit / 2 {
            let failing = window.failing().min(FAILING_MAX);
            self.failing += (failing - self.failing) * SLOW;
            self.proof.at = now;
            self.proof.limit = self.limit;
        } else if let Some(floor) = self.floor {
            // The limit is near: it may grow before it holds anybody back, but what was not asked
            // for says nothing about what can be delivered.
            let target = clamped(self.wanted(rate, floor));
            let most = clamped(f64::from(self.limit) * STEP);
            self.limit = self.limit.max(target.min(most));
        }
    }

    /// Moves the limit to what this rate calls for.
    fn aim(&mut self, rate: f64) {
        let Some(floor) = self.floor else {
            // Nothing was delivered yet, so the smallest limit is as good as any.
            self.limit = clamped(f64::from(self.limit) / STEP);
            return;
        };
        let now = f64::from(self.limit);
        self.limit = clamped(self.wanted(rate, floor).clamp(now / STEP, now * STEP));
    }

    /// How many requests a rate and a latency call for.
    fn wanted(&self, rate: f64, floor: f64) -> f64 {
        match self.together {
            None => GAIN * rate * floor,
            Some(_) => together::wanted(rate * floor, f64::from(self.limit)),
        }
    }

    fn probe_if_due(&mut self, window: &Window, now: Time) {
        let (Some(floor), Some(latency)) = (self.floor, window.latency()) else {
            return;
        };
        let age = now.since(self.proof.at);
        let ratio = f64::from(self.limit) / f64::from(self.proof.limit);
        let moved = !(1.0 / MOVED..=MOVED).contains(&ratio);
        if age < PROBE_EVERY_MIN || age < PROBE_EVERY && !moved && !self.proof.missing {
            return;
        }
        let rate = self.rates.highest();
        let deep = self.proof.missing;
        let share = if deep { PROBE_SHARE_DEEP } else { PROBE_SHARE };
        // A floor that is far too low must not stop the traffic: half of the limit is what the target
        // works on, by GAIN, so a third is a probe as well.
        let third = f64::from(self.limit.max(self.proof.limit)) / 3.0;
        let level = probe::level((share * rate * floor).max(third));
        self.probe = Some(Probe::new(level, now, latency, rate, deep));
    }

    /// Takes over what a step of a probe saw: a deeper step or the end follows.
    fn probed(&mut self, seen: &Window, now: Time) {
        let probe = self.probe.take();
        let mut doubtful = false;
        if let (Some(latency), Some(floor)) = (seen.latency(), self.floor) {
            let before = probe.as_ref().and_then(Probe::before);
            let expected = before.unwrap_or(floor);
            let lower = latency * MOVED < expected;
            let higher = latency > expected * MOVED;
            // A queue still stood at the target if fewer requests made it so much faster.
            if lower && let Some(deeper) = probe.and_then(|probe| probe.deeper(now, latency)) {
                self.probe = Some(deeper);
                return;
            }
            // Either the target changed, or a queue stands, or it was chance. The next probe tells.
            doubtful = (lower || higher) && !self.proof.missing;
            self.floor = Some(if higher && before.is_none() {
                latency
            } else {
                f64::midpoint(expected, latency)
            });
            self.follow_failing(seen);
        }
        self.aim(self.rates.highest());
        self.proof = Proof {
            at: now,
            limit: self.limit,
            missing: doubtful,
        };
        self.window = Window::new(now);
    }

    /// Takes over how many failed in a probe, at which nothing waited.
    fn follow_failing(&mut self, seen: &Window) {
        let failing = seen.failing().min(FAILING_MAX);
        self.failing = if (failing - self.failing).abs() > FAILING_MOVED {
            failing
        } else {
            f64::midpoint(self.failing, failing)
        };
    }
}

/// A whole number of requests within the bounds.
fn clamped(target: f64) -> u32 {
    whole(target.clamp(f64::from(LIMIT_MIN), f64::from(LIMIT_MAX)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates, and the callers' numbers are small and positive"
)]
fn whole(number: f64) -> u32 {
    number.round() as u32
}

#[cfg(test)]
mod tests;
