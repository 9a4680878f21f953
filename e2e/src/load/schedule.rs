//! When requests are meant to be sent. It follows from the stages and the seed alone, never from
//! an answer: a slow server cannot slow the load down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::draw::Draw;

/// The highest rate of a stage per second: beyond what one thread sends, at 15 to 40 us of CPU each,
/// so that whoever asks for too much learns it from a void run.
pub const RATE_MAX: f64 = 200_000.0;
/// The longest schedule: the two hours around a deadline.
pub const TIME_MAX: Duration = Duration::from_hours(2);
/// Sends of a schedule: 20,000 a second for a quarter of an hour and a margin.
pub const SENDS_MAX: f64 = 20_000_000.0;
/// Steps of a stage: one a second for an hour.
pub const STEPS_MAX: u32 = 3_600;

/// Which of the seed's streams the gaps come from.
const STREAM: u64 = 1;
/// Less than any two sends lie apart, counted in sends: what rounding may add to a count.
const ROUNDING: f64 = 1e-6;

/// How a rate goes within a stage, in requests per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Rate {
    /// The same throughout.
    Constant(f64),
    /// From one to another in a straight line.
    Ramp {
        /// At the stage's beginning.
        from: f64,
        /// At its end.
        to: f64,
    },
    /// From one to another in equal steps of equal length, both included.
    Steps {
        /// The first step.
        from: f64,
        /// The last step.
        to: f64,
        /// How many.
        count: u32,
    },
}

/// How sends lie within a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Arrivals {
    /// Evenly, each as far from the next as the rate says.
    Uniform,
    /// As people come who do not know of each other.
    Poisson,
}

/// A rate for a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// How fast.
    pub rate: Rate,
    /// How evenly.
    pub arrivals: Arrivals,
    /// How long.
    pub lasts: Duration,
}

/// Stages one after the other. A stage of rate 0 is a pause.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Schedule {
    stages: Vec<Stage>,
}

/// Why stages are no schedule.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Unfit {
    /// A rate that cannot be sent.
    #[error("a rate of {0} per second: allowed are 0 to {RATE_MAX}")]
    Rate(f64),
    /// A number of steps that makes no stage.
    #[error("{0} steps in a stage: allowed are 1 to {STEPS_MAX}")]
    Steps(u32),
    /// It takes too long, or no time.
    #[error("stages of {0:?} together: allowed is more than nothing, and at most {TIME_MAX:?}")]
    Time(Duration),
    /// It sends too much.
    #[error("about {0} sends: allowed are at most {SENDS_MAX}; shorten a stage or lower its rate")]
    Sends(f64),
}

impl Schedule {
    /// Takes stages in order.
    pub fn of(stages: impl IntoIterator<Item = Stage>) -> Result<Self, Unfit> {
        let stages: Vec<Stage> = stages.into_iter().collect();
        for stage in &stages {
            stage.check()?;
        }
        let schedule = Self { stages };
        let (time, sends) = (schedule.lasts(), schedule.expected());
        if time.is_zero() || time > TIME_MAX {
            return Err(Unfit::Time(time));
        }
        if sends > SENDS_MAX {
            return Err(Unfit::Sends(sends));
        }
        Ok(schedule)
    }

    /// One stage of a constant rate.
    pub fn constant(rate: f64, arrivals: Arrivals, lasts: Duration) -> Result<Self, Unfit> {
        let rate = Rate::Constant(rate);
        Self::of([Stage {
            rate,
            arrivals,
            lasts,
        }])
    }

    /// How long all stages take.
    pub fn lasts(&self) -> Duration {
        // Too long a sum is refused as any other beyond the bound.
        self.stages
            .iter()
            .fold(Duration::ZERO, |sum, stage| sum.saturating_add(stage.lasts))
    }

    /// How many sends to expect: exact for uniform stages but for the fraction at their ends.
    pub fn expected(&self) -> f64 {
        self.stages.iter().map(Stage::expected).sum()
    }

    /// When each request is meant to be sent, from the beginning of the run, in order.
    pub fn sends(&self, seed: u64) -> impl Iterator<Item = Duration> + use<> {
        let mut draw = Draw::seeded(seed, STREAM);
        let mut begin = Duration::ZERO;
        let legs = self.stages.clone().into_iter().flat_map(Stage::legs);
        let mut legs = legs.map(move |leg| {
            let at = begin;
            begin += leg.lasts;
            (at, leg)
        });
        let mut now: Option<(Duration, Leg, f64)> = None;
        std::iter::from_fn(move || {
            loop {
                if let Some((begin, leg, sent)) = &mut now
                    && let Some(after) = leg.next(sent, &mut draw)
                {
                    return Some(*begin + after);
                }
                let (begin, leg) = legs.next()?;
                now = Some((begin, leg, leg.before_first()));
            }
        })
    }
}

impl Stage {
    fn check(&self) -> Result<(), Unfit> {
        let (rates, steps) = match self.rate {
            Rate::Constant(rate) => ([rate, rate], 1),
            Rate::Ramp { from, to } => ([from, to], 1),
            Rate::Steps { from, to, count } => ([from, to], count),
        };
        for rate in rates {
            if !(0.0..=RATE_MAX).contains(&rate) {
                return Err(Unfit::Rate(rate));
            }
        }
        if !(1..=STEPS_MAX).contains(&steps) {
            return Err(Unfit::Steps(steps));
        }
        Ok(())
    }

    fn expected(&self) -> f64 {
        let mean = match self.rate {
            Rate::Constant(rate) => rate,
            Rate::Ramp { from, to } | Rate::Steps { from, to, .. } => f64::midpoint(from, to),
        };
        mean * self.lasts.as_secs_f64()
    }

    /// The stage as straight lines.
    fn legs(self) -> impl Iterator<Item = Leg> {
        let (first, last, count) = match self.rate {
            Rate::Constant(rate) => ((rate, rate), rate, 1),
            Rate::Ramp { from, to } => ((from, to), to, 1),
            Rate::Steps { from, to, count } => ((from, from), to, count),
        };
        let rise = (last - first.0) / f64::from(count.saturating_sub(1).max(1));
        (0..count).map(move |step| {
            let by = if count == 1 {
                0.0
            } else {
                rise * f64::from(step)
            };
            Leg {
                from: first.0 + by,
                to: first.1 + by,
                arrivals: self.arrivals,
                lasts: self.lasts / count,
            }
        })
    }
}

/// A straight line of the rate over time.
#[derive(Debug, Clone, Copy)]
struct Leg {
    from: f64,
    to: f64,
    arrivals: Arrivals,
    lasts: Duration,
}

impl Leg {
    /// Where the count stands before the first send: a uniform leg begins with one.
    fn before_first(&self) -> f64 {
        match self.arrivals {
            Arrivals::Uniform => -1.0,
            Arrivals::Poisson => 0.0,
        }
    }

    /// When the next send is, after `sent` of them. A process of any rate is one of rate 1 whose
    /// time is stretched: sends are counted evenly or by exponential gaps, and the count is
    /// looked up in the rate's integral.
    fn next(&self, sent: &mut f64, draw: &mut Draw) -> Option<Duration> {
        *sent += match self.arrivals {
            Arrivals::Uniform => 1.0,
            Arrivals::Poisson => draw.exponential(),
        };
        let lasts = self.lasts.as_secs_f64();
        let all = f64::midpoint(self.from, self.to) * lasts;
        (*sent + ROUNDING < all).then(|| Duration::from_secs_f64(self.when(*sent)).min(self.lasts))
    }

    /// The time at which the rate's integral reaches `count`.
    fn when(&self, count: f64) -> f64 {
        let slope = (self.to - self.from) / self.lasts.as_secs_f64();
        let root = (self.from * self.from + 2.0 * slope * count)
            .max(0.0)
            .sqrt();
        // This form of the root has no cancellation when the slope is small.
        let speed = self.from + root;
        if speed > 0.0 {
            2.0 * count / speed
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests;
