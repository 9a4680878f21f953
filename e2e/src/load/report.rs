//! What came of a run: counts, latencies and their course, by label and in total.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::latency::Latency;

pub mod table;

/// The share of sends that may be late, one in so many, before a run says nothing.
pub const LATE_ONE_IN: u64 = 100;

/// Why there was no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Failure {
    /// No connection was made, or the handshake failed.
    Connect,
    /// The connection or the stream ended before the answer did.
    Reset,
    /// The answer was not whole in time.
    Timeout,
    /// What came back is no HTTP, or not the one that was asked for.
    Protocol,
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A whole answer of this status.
    Answer(u16),
    /// None.
    Failure(Failure),
}

/// How an ending counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Served.
    Succeeded,
    /// Turned away on purpose.
    Refused,
    /// Anything else.
    Failed,
}

/// A second of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Second {
    /// Requests that were meant to be sent first in this second.
    pub offered: u64,
    /// Attempts meant for this second, with retries.
    pub attempts: u64,
    /// Successes that came in this second, whenever they were asked for: the goodput.
    pub succeeded: u64,
    /// Refusals that came in this second.
    pub refused: u64,
    /// Failures that came in this second.
    pub failed: u64,
    /// Latencies of the attempts MEANT for this second that succeeded or failed. Refusals are
    /// quick, and would hide what the others wait.
    pub latency: Latency,
}

/// What came of some requests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Requests that people wanted, without retries.
    pub offered: u64,
    /// Sends, with retries. Those that the generator dropped are none.
    pub attempts: u64,
    /// Attempts that were answered as hoped.
    pub succeeded: u64,
    /// Attempts that were turned away.
    pub refused: u64,
    /// Attempts that failed otherwise.
    pub failed: u64,
    /// Requests that succeeded at last.
    pub served: u64,
    /// Those of them whose first attempt did.
    pub served_at_once: u64,
    /// Requests that did not, however often they were tried.
    pub given_up: u64,
    /// Attempts that the generator could not send for want of a free connection.
    pub dropped: u64,
    /// Requests whose end was not awaited, as the run was stopped.
    pub unfinished: u64,
    /// Attempts by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Attempts without an answer, by cause.
    pub failures: BTreeMap<Failure, u64>,
    /// Latency of successes, from the time they were meant to be sent.
    pub success_latency: Latency,
    /// Latency of refusals.
    pub refusal_latency: Latency,
    /// How long failures took; a timeout is here with all its length.
    pub failure_latency: Latency,
    /// From the first attempt of a request to its success, with the waits between attempts.
    pub served_after: Latency,
    /// The course, one entry a second.
    pub series: Vec<Second>,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether more than one in [`LATE_ONE_IN`] sends was later than the bound: the generator
    /// could not keep up, and its figures are void.
    pub lagged: bool,
    /// Whether the run was stopped before its schedule ended.
    pub stopped: bool,
    /// The bound of lateness.
    pub lag_bound: Duration,
    /// Sends that were later.
    pub late: u64,
    /// How late sends were.
    pub lag: Latency,
    /// All labels together.
    pub total: Tally,
    /// By label.
    pub labels: BTreeMap<String, Tally>,
}

/// Why a run says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Void {
    /// Sends were late.
    #[error(
        "{late} of {sends} sends were late by more than {bound:?}: give the generator a core of its own, or lower the rate"
    )]
    Lagged {
        /// How many.
        late: u64,
        /// Of so many.
        sends: u64,
        /// The bound.
        bound: Duration,
    },
    /// Sends were left out.
    #[error("{0} sends had no free connection: allow more connections, or shorten the timeout")]
    Dropped(u64),
}

/// When and how an attempt ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    /// When it was meant to be sent.
    pub(super) intended: Duration,
    /// When its answer was whole.
    pub(super) ended: Duration,
    pub(super) ending: Ending,
    pub(super) verdict: Verdict,
}

impl Tally {
    /// Adds all of another; seconds are counted from the beginning of each run.
    pub fn merge(&mut self, other: &Self) {
        // Destructured, so that a new field is not forgotten here.
        let Self {
            offered,
            attempts,
            succeeded,
            refused,
            failed,
            served,
            served_at_once,
            given_up,
            dropped,
            unfinished,
            statuses,
            failures,
            success_latency,
            refusal_latency,
            failure_latency,
            served_after,
            series,
        } = other;
        self.offered += offered;
        self.attempts += attempts;
        self.succeeded += succeeded;
        self.refused += refused;
        self.failed += failed;
        self.served += served;
        self.served_at_once += served_at_once;
        self.given_up += given_up;
        self.dropped += dropped;
        self.unfinished += unfinished;
        for (status, count) in statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (failure, count) in failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        self.success_latency.merge(success_latency);
        self.refusal_latency.merge(refusal_latency);
        self.failure_latency.merge(failure_latency);
        self.served_after.merge(served_after);
        for (at, second) in series.iter().enumerate() {
            self.second(at).merge(second);
        }
    }

    /// Successes a second between two seconds of the run, the second one excluded.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn goodput(&self, from: usize, to: usize) -> f64 {
        let seconds = self.series.iter().take(to).skip(from);
        let all: u64 = seconds.map(|second| second.succeeded).sum();
        all as f64 / to.saturating_sub(from).max(1) as f64
    }

    pub(super) fn offer(&mut self, intended: Duration) {
        self.offered += 1;
        self.at(intended).offered += 1;
    }

    pub(super) fn sent(&mut self, intended: Duration) {
        self.attempts += 1;
        self.at(intended).attempts += 1;
    }

    pub(super) fn ended(&mut self, attempt: Attempt) {
        let Attempt {
            intended,
            ended,
            ending,
            verdict,
        } = attempt;
        let latency = ended.saturating_sub(intended);
        match ending {
            Ending::Answer(status) => *self.statuses.entry(status).or_default() += 1,
            Ending::Failure(failure) => *self.failures.entry(failure).or_default() += 1,
        }
        match verdict {
            Verdict::Succeeded => {
                self.succeeded += 1;
                self.at(ended).succeeded += 1;
                self.success_latency.record(latency);
                self.at(intended).latency.record(latency);
            }
            Verdict::Refused => {
                self.refused += 1;
                self.at(ended).refused += 1;
                self.refusal_latency.record(latency);
            }
            Verdict::Failed => {
                self.failed += 1;
                self.at(ended).failed += 1;
                self.failure_latency.record(latency);
                self.at(intended).latency.record(latency);
            }
        }
    }

    fn at(&mut self, time: Duration) -> &mut Second {
        self.second(usize::try_from(time.as_secs()).unwrap_or(usize::MAX))
    }

    fn second(&mut self, at: usize) -> &mut Second {
        if self.series.len() <= at {
            self.series.resize_with(at + 1, Second::default);
        }
        &mut self.series[at]
    }
}

impl Second {
    fn merge(&mut self, other: &Self) {
        let Self {
            offered,
            attempts,
            succeeded,
            refused,
            failed,
            latency,
        } = other;
        self.offered += offered;
        self.attempts += attempts;
        self.succeeded += succeeded;
        self.refused += refused;
        self.failed += failed;
        self.latency.merge(latency);
    }
}

impl Report {
    /// Nothing yet.
    pub fn empty(lag_bound: Duration) -> Self {
        Self {
            lagged: false,
            stopped: false,
            lag_bound,
            late: 0,
            lag: Latency::default(),
            total: Tally::default(),
            labels: BTreeMap::new(),
        }
    }

    /// Adds another run, such as that of a generator beside this one. A void run stays void.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            lagged,
            stopped,
            lag_bound,
            late,
            lag,
            total,
            labels,
        } = other;
        self.lagged |= lagged;
        self.stopped |= stopped;
        self.lag_bound = self.lag_bound.max(*lag_bound);
        self.late += late;
        self.lag.merge(lag);
        self.total.merge(total);
        for (label, tally) in labels {
            self.labels.entry(label.clone()).or_default().merge(tally);
        }
    }

    /// Why the run says nothing; empty when its figures count.
    pub fn void(&self) -> Vec<Void> {
        let lagged = self.lagged.then_some(Void::Lagged {
            late: self.late,
            sends: self.lag.count(),
            bound: self.lag_bound,
        });
        let dropped = (self.total.dropped > 0).then_some(Void::Dropped(self.total.dropped));
        lagged.into_iter().chain(dropped).collect()
    }

    pub(super) fn sent_late_by(&mut self, lag: Duration) {
        self.lag.record(lag);
        if lag > self.lag_bound {
            self.late += 1;
        }
    }

    /// Draws the conclusions, once everything is counted.
    pub(super) fn close(&mut self, stopped: bool) {
        self.stopped = stopped;
        self.lagged = self.late * LATE_ONE_IN > self.lag.count();
        self.total = Tally::default();
        for tally in self.labels.values() {
            self.total.merge(tally);
        }
    }
}

#[cfg(test)]
mod tests;
