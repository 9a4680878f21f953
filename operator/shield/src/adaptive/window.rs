//! What was delivered in a short span, and the best of the last spans.

use std::time::Duration;

use super::{Finished, MOVED};
use crate::Time;
use crate::concurrency::Outcome;
use crate::time::nanos;

/// A window has at least so many requests: their mean is then known to about a fifth even if single
/// latencies vary as much as they are long.
pub(super) const SAMPLES: u32 = 20;

/// And it lasts at least so long, or the clustering of departures passes for throughput.
const LENGTH: Duration = Duration::from_millis(100);

/// Of so many windows the highest rate counts: half a second at 200 requests a second or more, two
/// seconds at 50. Fewer would take a pause of the target for its end, more would make a real fall
/// go unnoticed for longer.
const RATES: usize = 5;

/// Each rate is smoothed by this share, so that the highest of several is not the luckiest; by twice
/// as much if it is too far away to be chance.
const SMOOTH: f64 = 0.25;

/// The requests that ended in one span.
#[derive(Debug)]
pub(super) struct Window {
    started: Time,
    ended: u32,
    delivered: u32,
    failed: u32,
    /// Nanoseconds of all that were delivered.
    latencies: u64,
    /// The most that ran at a time.
    peak: u32,
    /// Departures at which the limit held others back.
    at_limit: u32,
    idle: bool,
}

impl Window {
    pub(super) fn new(now: Time) -> Self {
        Self {
            started: now,
            ended: 0,
            delivered: 0,
            failed: 0,
            latencies: 0,
            peak: 0,
            at_limit: 0,
            idle: false,
        }
    }

    pub(super) fn finished(&mut self, finished: Finished, limit: u32) {
        let Finished {
            started,
            now,
            outcome,
            running,
        } = finished;
        self.ended += 1;
        match outcome {
            Outcome::Success => {
                self.delivered += 1;
                let latency = nanos(now.since(started));
                self.latencies = self.latencies.saturating_add(latency);
            }
            Outcome::Failure => self.failed += 1,
            Outcome::Dropped => {}
        }
        // The number that run is highest just before one ends, so no other moment need be seen.
        self.peak = self.peak.max(running);
        self.at_limit += u32::from(running >= limit);
        self.idle |= running <= 1;
    }

    pub(super) fn is_over(&self, now: Time, limit: u32) -> bool {
        self.ended >= SAMPLES.min(limit) && now.since(self.started) >= LENGTH
    }

    /// Whether demand never ceased and the limit held it back most of the time: then what was
    /// delivered is all that could be.
    pub(super) fn is_saturated(&self) -> bool {
        !self.idle && self.at_limit * 2 >= self.ended
    }

    pub(super) fn peak(&self) -> u32 {
        self.peak
    }

    pub(super) fn delivered(&self) -> u32 {
        self.delivered
    }

    /// Mean seconds of what was delivered.
    pub(super) fn latency(&self) -> Option<f64> {
        let total = Duration::from_nanos(self.latencies).as_secs_f64();
        (self.delivered > 0).then(|| total / f64::from(self.delivered))
    }

    /// Share of failures among those of which anything is known.
    pub(super) fn failing(&self) -> f64 {
        let known = self.delivered + self.failed;
        f64::from(self.failed) / f64::from(known.max(1))
    }

    /// Requests a second that were served as well as this target serves at rest, where `failing` of
    /// all fail: those failures are no sign of load.
    pub(super) fn rate(&self, now: Time, failing: f64) -> f64 {
        let known = f64::from(self.delivered + self.failed);
        let served = (f64::from(self.delivered) / (1.0 - failing)).min(known);
        served / now.since(self.started).as_secs_f64().max(1e-9)
    }
}

/// The rates of the last windows in which the limit held requests back.
#[derive(Debug, Default)]
pub(super) struct Rates {
    smooth: Option<f64>,
    last: [f64; RATES],
    next: usize,
}

impl Rates {
    pub(super) fn push(&mut self, rate: f64) {
        let smooth = self.smooth.map_or(rate, |smooth| {
            let chance = (smooth / MOVED..=smooth * MOVED).contains(&rate);
            let share = if chance { SMOOTH } else { SMOOTH * 2.0 };
            smooth + (rate - smooth) * share
        });
        self.smooth = Some(smooth);
        self.last[self.next] = smooth;
        self.next = (self.next + 1) % RATES;
    }

    pub(super) fn highest(&self) -> f64 {
        self.last.iter().copied().fold(0.0, f64::max)
    }
}
