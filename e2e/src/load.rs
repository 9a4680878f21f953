//! Load as people make it: an open loop, in which nobody waits for another's answer.
//!
//! A [`schedule::Schedule`] says when each request is meant to be sent, from a seed and before
//! anything is sent. Latency is measured from that time. A server that stalls is thus seen by
//! every request that was meant for the stall, not by the few that were under way (the omission
//! of the others is what closed loops report as speed). How late the generator itself was is
//! measured as well, and a run in which it could not keep up is void and says so.
//!
//! Requests go to this machine alone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::{
    mix::Mix,
    report::{Ending, Verdict},
    schedule::Schedule,
    target::{Protocol, Target},
};

pub mod cli;
pub mod draw;
pub mod latency;
pub mod mix;
pub mod report;
pub mod run;
pub mod schedule;
pub mod target;

mod alarm;
mod connection;
mod lanes;

/// The longest wait for an answer: beyond what people or gateways wait.
pub const TIMEOUT_MAX: Duration = Duration::from_mins(1);
/// Connections: below the ports that loopback has for one address.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Requests at a time on one connection of HTTP/2.
pub const STREAMS_MAX: usize = 1_000;
/// Requests at a time: connections or their streams, some kilobytes each.
pub const LANES_MAX: usize = 100_000;
/// How often a request is tried again: people do not do so more often.
pub const RETRIES_MAX: u32 = 10;
/// The longest wait before another attempt, whoever asks for it. With the other bounds, a run ends
/// within twenty minutes of its schedule.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// A run to make.
#[derive(Debug, Clone)]
pub struct Plan {
    /// When.
    pub schedule: Schedule,
    /// What.
    pub mix: Mix,
    /// Where to.
    pub target: Target,
    /// What people do when they are not served; without it they give up.
    pub retry: Option<Retry>,
    /// Statuses that turn a request away on purpose; they are reported apart from failures.
    pub refusals: Vec<u16>,
    /// How much of everything.
    pub limits: Limits,
    /// Same seed, same run.
    pub seed: u64,
}

/// How a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How long after the answer, or its absence.
    pub after: Duration,
    /// How often at most.
    pub times: u32,
    /// Whether to wait as long as the server says, if it says so in seconds. Browsers do not.
    pub honours_retry_after: bool,
}

/// Bounds of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. A send that finds all of them busy is dropped, and voids the run.
    pub connections: usize,
    /// Requests at a time on a connection of HTTP/2.
    pub streams: usize,
    /// Connections that are opened before the run begins.
    pub warm: usize,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How late a send may be.
    pub lag: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            streams: 100,
            warm: 1,
            timeout: Duration::from_secs(2),
            lag: Duration::from_millis(5),
        }
    }
}

impl Plan {
    /// A plan without retries, by the usual bounds.
    pub fn new(schedule: Schedule, mix: Mix, target: Target) -> Self {
        Self {
            schedule,
            mix,
            target,
            retry: None,
            refusals: vec![429, 503],
            limits: Limits::default(),
            seed: 1,
        }
    }

    /// Refuses what is beyond the bounds.
    pub fn check(&self) -> Result<()> {
        let Limits {
            connections,
            streams,
            warm,
            timeout,
            lag,
        } = self.limits;
        ensure!(
            (1..=CONNECTIONS_MAX).contains(&connections),
            "{connections} connections: allowed are 1 to {CONNECTIONS_MAX}"
        );
        ensure!(
            (1..=STREAMS_MAX).contains(&streams),
            "{streams} streams a connection: allowed are 1 to {STREAMS_MAX}"
        );
        ensure!(
            self.lanes() <= LANES_MAX,
            "{connections} connections of {streams} streams: allowed are {LANES_MAX} streams in all"
        );
        ensure!(
            warm <= connections,
            "{warm} connections to open at first: {connections} are allowed"
        );
        ensure!(
            !timeout.is_zero() && timeout <= TIMEOUT_MAX,
            "a timeout of {timeout:?}: allowed is more than nothing, and at most {TIMEOUT_MAX:?}"
        );
        ensure!(
            !lag.is_zero(),
            "no send is on time to the nanosecond: allow some lag"
        );
        if let Some(retry) = self.retry {
            retry.check().context("retries")?;
        }
        Ok(())
    }

    /// Requests under way at a time.
    fn lanes(&self) -> usize {
        match self.target.protocol() {
            Protocol::Http1 => self.limits.connections,
            Protocol::Http2 => self.limits.connections * self.limits.streams,
        }
    }

    /// How an ending counts. A redirection is an answer as hoped.
    fn verdict(&self, ending: Ending) -> Verdict {
        match ending {
            Ending::Answer(status) if self.refusals.contains(&status) => Verdict::Refused,
            Ending::Answer(..400) => Verdict::Succeeded,
            Ending::Answer(400..) | Ending::Failure(_) => Verdict::Failed,
        }
    }
}

impl Retry {
    /// As people do it: some times after a while, whatever the server asks for.
    pub fn every(after: Duration, times: u32) -> Self {
        Self {
            after,
            times,
            honours_retry_after: false,
        }
    }

    fn check(self) -> Result<()> {
        ensure!(
            self.after <= RETRY_AFTER_MAX,
            "after {:?}: allowed is at most {RETRY_AFTER_MAX:?}",
            self.after
        );
        ensure!(
            self.times <= RETRIES_MAX,
            "{} times: allowed are at most {RETRIES_MAX}",
            self.times
        );
        Ok(())
    }
}
