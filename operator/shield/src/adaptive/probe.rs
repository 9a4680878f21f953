//! A short time with so few requests in flight that none waits at the target.

use std::time::Duration;

use super::window::Window;
use super::{Finished, whole};
use crate::Time;

/// So few requests say something about the latency when time is over: their mean is known to a
/// half.
const SAMPLES_MIN: u32 = 4;

/// So many are enough: their mean is known to a third even if latencies vary as much as they are long,
/// less than what a doubtful floor is off by.
const SAMPLES: u32 = 12;

/// More say no more: their mean is known to an eighth even if latencies vary as much as they are
/// long, and what differs by a quarter differs.
const SAMPLES_MAX: u32 = 64;

/// As many as come in this time are measured, between [`SAMPLES`] and [`SAMPLES_MAX`].
const LENGTH: Duration = Duration::from_millis(250);

/// Latencies that a step may take: one until the last request of before has ended, one for those
/// that are measured, and as much again for chance.
const LATENCIES: f64 = 4.0;

/// A pause this long ends no matter how slow the target is: half of what a waiting request has.
const LENGTH_MIN: Duration = Duration::from_millis(250);

/// And none lasts longer than this.
const LENGTH_MAX: Duration = Duration::from_secs(5);

/// How many requests a probe lets in.
pub(super) fn level(wanted: f64) -> u32 {
    whole(wanted.clamp(1.0, f64::from(super::LIMIT_MAX)))
}

/// A probe that goes on.
#[derive(Debug)]
pub(super) struct Probe {
    level: u32,
    until: Time,
    rate: f64,
    /// Whether it must find the floor, however far below what is believed that is.
    deep: bool,
    /// Seconds that a request took in the step before, with twice as many in flight.
    before: Option<f64>,
    /// From when on no more ran than the level allows, and what ended that began since.
    drained: Option<(Time, Window)>,
}

/// What a request that ended means to the probe.
#[derive(Debug)]
pub(super) enum Step {
    /// It goes on.
    Going,
    /// It has seen this, which may be too little to say anything.
    Done(Window),
}

impl Probe {
    /// `latency` is that of the last window, in which a queue may have stood at the target.
    pub(super) fn new(level: u32, now: Time, latency: f64, rate: f64, deep: bool) -> Self {
        // At half of the rate, since a smaller load is the point of it.
        let samples = 2.0 * f64::from(SAMPLES) / rate.max(1.0);
        let length = Duration::try_from_secs_f64(LATENCIES * latency + samples)
            .unwrap_or(LENGTH_MAX)
            .clamp(LENGTH_MIN, LENGTH_MAX);
        Self {
            level,
            until: now.after(length),
            rate,
            deep,
            before: None,
            drained: None,
        }
    }

    pub(super) fn level(&self) -> u32 {
        self.level
    }

    /// A step at half of the level, if one is allowed and it would tell anything: with less than two in flight a floor
    /// too high by half gives the smallest limit all the same.
    pub(super) fn deeper(self, now: Time, latency: f64) -> Option<Self> {
        (self.deep && self.level >= super::LIMIT_MIN).then(|| Self {
            before: Some(latency),
            ..Self::new(self.level / 2, now, latency, self.rate, true)
        })
    }

    pub(super) fn before(&self) -> Option<f64> {
        self.before
    }

    pub(super) fn finished(&mut self, finished: Finished) -> Step {
        let now = finished.now;
        if let Some((since, seen)) = &mut self.drained {
            if finished.started >= *since {
                seen.finished(finished, self.level);
            }
        } else if finished.running <= self.level + 1 {
            self.drained = Some((now, Window::new(now)));
        }
        let enough = self.drained.as_ref().is_some_and(|(since, seen)| {
            seen.delivered() >= SAMPLES
                && (now.since(*since) >= LENGTH || seen.delivered() >= SAMPLES_MAX)
        });
        if !enough && now < self.until {
            return Step::Going;
        }
        let seen = self.drained.take().map(|(_, seen)| seen);
        let useful = seen.filter(|seen| seen.delivered() >= SAMPLES_MIN);
        Step::Done(useful.unwrap_or_else(|| Window::new(now)))
    }
}
