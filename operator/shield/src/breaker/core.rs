//! The states of a breaker and what moves it from one to the next, under its lock.

use std::time::Duration;

use super::{BreakerSettings, BreakerState, Gate, Outcome};
use crate::Time;
use crate::jitter::Jitter;
use crate::window::Window;

/// How long a probe keeps its place. It need not be as long as the longest answer, since a probe that is
/// late is heard nevertheless: it only says how often a dependency that hangs is asked, which is by as many
/// requests as there are probes in half a minute.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// Re-opening doubles the time open, up to so many times the first.
const BACK_OFF_MAX: u32 = 10;

/// How far an opening is lengthened, so that the guards of a region do not probe together.
const OPEN_SPREAD_PERCENT: u32 = 10;

/// The share that is admitted when re-admission begins; small enough for a dependency that has just
/// come back, large enough to show a relapse.
const FIRST_SHARE: u64 = 10;

/// How long re-admission takes at the least. Who is refused tries again after some seconds: a share that
/// grows slower than that lets them in beside the new ones, never all at once.
const READMISSION_MIN: Duration = Duration::from_secs(10);

/// All of it.
const WHOLE_SHARE: u64 = 100;

/// What may be due at most after a place was given back: one for whoever comes next, and one that becomes
/// due meanwhile. With less, rules that refuse in turn would let in less than the share; with more, a
/// crowd would come in at once when they cease to.
const CREDIT_MAX: u64 = 2 * WHOLE_SHARE;

/// Results by which a relapse is judged at least: fewer, and one unlucky request would re-open.
const RELAPSE_SAMPLE: u32 = 10;

/// What identifies a request that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// How often the breaker had opened when it was admitted.
    pub(super) epoch: u64,
    /// Which probe it is, if it is one.
    pub(super) probe: Option<u64>,
}

/// Everything that changes under the lock.
#[derive(Debug)]
pub(super) struct Core {
    settings: BreakerSettings,
    phase: Phase,
    /// How often it has opened; what was admitted in another epoch does not count.
    epoch: u64,
    /// How long the last opening was meant to last; none since it closed.
    last_open: Option<Duration>,
    /// All results, and the bad ones among them.
    results: Window<2>,
    next_probe: u64,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open {
        until: Time,
    },
    HalfOpen {
        unfinished: Vec<Probe>,
        good: u32,
    },
    Recovering {
        since: Time,
        until: Time,
        /// Hundredths of a request that are due to be admitted.
        credit: u64,
    },
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    id: u64,
    /// When it leaves its place to another.
    deadline: Time,
}

impl Core {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self {
            results: Window::new(settings.window),
            settings,
            phase: Phase::Closed,
            epoch: 0,
            last_open: None,
            next_probe: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What may be read without the lock.
    pub(super) fn gate(&self) -> Gate {
        match &self.phase {
            Phase::Closed => Gate::Closed { epoch: self.epoch },
            Phase::Open { until } => Gate::Open { until: *until },
            Phase::HalfOpen { .. } | Phase::Recovering { .. } => Gate::Ask,
        }
    }

    /// Goes by other settings, wherever it stands.
    pub(super) fn set(&mut self, settings: &BreakerSettings, now: Time, jitter: &Jitter) {
        self.advance(now);
        if self.settings == *settings {
            return;
        }
        if !self.settings.counts_as(settings) {
            self.results = Window::new(settings.window);
        }
        self.settings = settings.clone();
        match &mut self.phase {
            Phase::Open { until } => {
                let longest = settings.open_for.saturating_mul(BACK_OFF_MAX);
                let latest = now.after(jitter.spread(longest, OPEN_SPREAD_PERCENT));
                *until = latest.min(*until);
            }
            // With fewer probes than were good already nobody would be left to say so.
            Phase::HalfOpen { good, .. } if *good >= settings.probes => self.recover(now),
            Phase::Closed | Phase::HalfOpen { .. } | Phase::Recovering { .. } => {}
        }
    }

    /// Admits, or says until when it will not.
    pub(super) fn admit(&mut self, now: Time) -> Result<Mark, Time> {
        self.advance(now);
        let counted = Mark {
            epoch: self.epoch,
            probe: None,
        };
        match &mut self.phase {
            Phase::Closed => Ok(counted),
            Phase::Open { until } => Err(*until),
            Phase::HalfOpen { unfinished, good } => {
                if count(unfinished) + *good >= self.settings.probes {
                    // Probes may report at any moment, but everybody can be back only once it has closed.
                    return Err(now.after(self.settings.open_for));
                }
                let id = self.next_probe;
                self.next_probe += 1;
                unfinished.push(Probe {
                    id,
                    deadline: now.after(PROBE_PATIENCE),
                });
                Ok(Mark {
                    probe: Some(id),
                    ..counted
                })
            }
            Phase::Recovering {
                since,
                until,
                credit,
            } => {
                *credit += share(now, *since, *until);
                if *credit < WHOLE_SHARE {
                    return Err(*until);
                }
                *credit -= WHOLE_SHARE;
                Ok(counted)
            }
        }
    }

    pub(super) fn finish(&mut self, mark: Mark, outcome: Outcome, now: Time, jitter: &Jitter) {
        self.advance(now);
        if mark.epoch != self.epoch {
            return;
        }
        let Outcome { elapsed, is_error } = outcome;
        let is_bad = self.settings.condition.is_bad(elapsed, is_error);
        match (&mut self.phase, mark.probe) {
            (Phase::Closed | Phase::Recovering { .. }, None) => {
                self.results.add(now, [1, u64::from(is_bad)]);
                self.judge(now, jitter);
            }
            // One that left its place because it was late is heard as well.
            (Phase::HalfOpen { unfinished, good }, Some(id)) if id < self.next_probe => {
                unfinished.retain(|probe| probe.id != id);
                if is_bad {
                    self.open(now, jitter);
                    return;
                }
                *good += 1;
                if *good >= self.settings.probes {
                    self.recover(now);
                }
            }
            // A probe that is later than those by which it recovered has nothing left to decide, and others
            // than probes are of this epoch only afterwards.
            (Phase::Closed | Phase::Recovering { .. }, Some(_))
            | (Phase::HalfOpen { .. } | Phase::Open { .. }, _) => {}
        }
    }

    /// Frees the place of a probe or in the share.
    pub(super) fn cancel(&mut self, mark: Mark, now: Time) {
        self.advance(now);
        match (&mut self.phase, mark.probe) {
            (Phase::HalfOpen { unfinished, .. }, Some(id)) => {
                unfinished.retain(|probe| probe.id != id);
            }
            // What is no probe is of this epoch only if it was admitted since this recovery began.
            (Phase::Recovering { credit, .. }, None) if mark.epoch == self.epoch => {
                *credit = (*credit + WHOLE_SHARE).min(CREDIT_MAX);
            }
            (Phase::Closed | Phase::Open { .. } | Phase::Recovering { .. }, _)
            | (Phase::HalfOpen { .. }, None) => {}
        }
    }

    pub(super) fn state(&mut self, now: Time) -> BreakerState {
        self.advance(now);
        match &self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { until } => BreakerState::Open { until: *until },
            Phase::HalfOpen { unfinished, good } => BreakerState::HalfOpen {
                unfinished: count(unfinished),
                good: *good,
            },
            Phase::Recovering { since, until, .. } => BreakerState::Recovering {
                percent: u32::try_from(share(now, *since, *until)).unwrap_or(100),
            },
        }
    }

    /// Moves on as far as time alone does.
    fn advance(&mut self, now: Time) {
        match &mut self.phase {
            Phase::Open { until } if *until <= now => {
                self.phase = Phase::HalfOpen {
                    unfinished: Vec::new(),
                    good: 0,
                };
            }
            Phase::HalfOpen { unfinished, .. } => unfinished.retain(|probe| now < probe.deadline),
            Phase::Recovering { until, .. } if *until <= now => {
                self.phase = Phase::Closed;
                self.last_open = None;
                self.results.clear();
            }
            Phase::Closed | Phase::Open { .. } | Phase::Recovering { .. } => {}
        }
    }

    /// Opens if the results of the window say so.
    fn judge(&mut self, now: Time, jitter: &Jitter) {
        let [all, bad] = self.results.sums(now);
        let enough = match &self.phase {
            Phase::Recovering { .. } => {
                let sample = self.settings.probes.max(RELAPSE_SAMPLE);
                self.settings.min_requests.min(sample)
            }
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen { .. } => {
                self.settings.min_requests
            }
        };
        if all >= u64::from(enough) && self.settings.condition.is_met(all, bad) {
            self.open(now, jitter);
        }
    }

    fn open(&mut self, now: Time, jitter: &Jitter) {
        let first = self.settings.open_for;
        let span = self.last_open.map_or(first, |last| {
            last.saturating_mul(2)
                .min(first.saturating_mul(BACK_OFF_MAX))
        });
        self.last_open = Some(span);
        self.epoch += 1;
        self.phase = Phase::Open {
            until: now.after(jitter.spread(span, OPEN_SPREAD_PERCENT)),
        };
    }

    fn recover(&mut self, now: Time) {
        self.results.clear();
        self.phase = Phase::Recovering {
            since: now,
            until: now.after(self.settings.open_for.max(READMISSION_MIN)),
            credit: 0,
        };
    }
}

/// The share of requests that is admitted, in percent: it grows evenly from the first share on.
fn share(now: Time, since: Time, until: Time) -> u64 {
    let passed = now.since(since).as_nanos();
    let whole = until.since(since).as_nanos().max(1);
    let grown = u128::from(WHOLE_SHARE - FIRST_SHARE) * passed / whole;
    u64::try_from(grown).map_or(WHOLE_SHARE, |grown| (FIRST_SHARE + grown).min(WHOLE_SHARE))
}

fn count(probes: &[Probe]) -> u32 {
    u32::try_from(probes.len()).expect("no more probes than the settings allow")
}
