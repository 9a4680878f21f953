//! Who leads: one Lease, and a fence that outlives it.
//!
//! [`decide`] is the whole policy and pure. A holder is judged by whether its Lease changed while
//! we watched, never by the time written in it: two machines' clocks need not agree. The numbers
//! keep leaders apart: whoever leads stops at most [`Timing::renew_deadline`] after it sent its
//! last successful renewal, while a challenger waits [`Timing::duration`] after it saw that
//! renewal, which is later. The difference is for requests already on their way; what is later
//! still (a process stopped and continued) meets the fence.

use std::time::Duration;

use tokio::time::Instant;

mod elector;
mod fence;
mod heartbeat;
mod leadership;
#[cfg(test)]
mod tests;

pub use elector::Elector;
pub use fence::Fence;
pub use heartbeat::Heartbeat;
pub use leadership::{Election, Leadership};

/// The times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// An unchanged Lease may be taken over after this.
    pub duration: Duration,
    /// A leader renews this often.
    pub renew_every: Duration,
    /// A leader that could not renew for this long stops.
    pub renew_deadline: Duration,
    /// How often to try again, and how often others look whether the Lease was given up.
    pub retry_every: Duration,
}

impl Timing {
    /// The default times, stretched or shrunk to this duration.
    pub fn of(duration: Duration) -> Self {
        let default = Self::default();
        let scale = duration.as_secs_f64() / default.duration.as_secs_f64();
        let scaled = |time: Duration| time.mul_f64(scale);
        Self {
            duration,
            renew_every: scaled(default.renew_every),
            renew_deadline: scaled(default.renew_deadline),
            retry_every: scaled(default.retry_every),
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            // Long enough to ride out a rolling restart of the API servers (some seconds), short
            // enough that a dead leader costs a quarter of a minute.
            duration: Duration::from_secs(15),
            // Two renewals fit into the deadline, with time left to repeat the second.
            renew_every: Duration::from_secs(4),
            // Five seconds less than the duration: what was sent at the last moment has arrived or
            // failed before anybody else leads.
            renew_deadline: Duration::from_secs(10),
            // With its answer, a Lease that was given up changes hands within two seconds.
            retry_every: Duration::from_secs(1),
        }
    }
}

/// Why a step of the election failed. The elector tries again by itself.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The Lease could not be read.
    #[error("cannot read the lease {name}")]
    Read {
        /// Name of the Lease.
        name: String,
        /// What the API server says.
        source: Box<kube::Error>,
    },
    /// The Lease could not be written.
    #[error("cannot write the lease {name}")]
    Write {
        /// Name of the Lease.
        name: String,
        /// What the API server says.
        source: Box<kube::Error>,
    },
    /// No answer while it still mattered.
    #[error("no answer about the lease {name} within {after:?}")]
    Slow {
        /// Name of the Lease.
        name: String,
        /// The time given.
        after: Duration,
    },
    /// The fence could not be raised.
    #[error("cannot raise the fence")]
    Fence(#[source] Box<kube::Error>),
    /// Other writers kept winning.
    #[error("the fence changed {tries} times while it was being raised")]
    Contended {
        /// Attempts made.
        tries: u32,
    },
    /// The fence holds something that is no epoch. Guessing could move it backwards.
    #[error("ConfigMap {name} has {value:?} for {key}; put the highest epoch ever used there",
        name = fence::NAME, key = fence::KEY)]
    Unreadable {
        /// What it holds, cut to a readable length.
        value: String,
    },
    /// Somebody is ahead of us: we are the old one.
    #[error(
        "ConfigMap jiuzhou-system/{name} there has {key} {at}, beyond this leader's {ours}: after a restore of the hub, raise {key} of the hub's own {name} above {at}",
        name = fence::NAME, key = fence::KEY
    )]
    Behind {
        /// What the fence holds.
        at: i64,
        /// What we tried to raise it to.
        ours: i64,
    },
}

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who holds it; empty when it was given up.
    pub holder: String,
    /// When it was renewed by the holder's clock. Only compared for equality.
    pub renewed: Option<jiff::Timestamp>,
    /// Changes with every write.
    pub resource_version: String,
    /// How long the holder counts on not being taken over.
    pub duration: Option<Duration>,
}

/// The Lease as we see it, and since when it has not changed, by our own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    held: Option<Held>,
    since: Instant,
}

impl Observed {
    /// Seen for the first time.
    pub const fn new(held: Option<Held>, now: Instant) -> Self {
        Self { held, since: now }
    }

    /// Seen again: only a change starts the wait anew.
    pub fn see(&mut self, held: Option<Held>, now: Instant) {
        if self.held != held {
            *self = Self::new(held, now);
        }
    }
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody holds it, or its holder fell silent: try to take it.
    Acquire,
    /// It is ours.
    Renew,
    /// Somebody else's until this moment, if it does not change before.
    StandBy {
        /// When the holder counts as silent.
        until: Instant,
    },
}

/// A holder that asks for more than this is not waited for longer: a typing error must not leave
/// the province without a leader for a day.
const LONGEST: Duration = Duration::from_mins(1);

/// The policy. `duration` is our own setting; a holder with a longer one gets its time.
pub fn decide(observed: &Observed, me: &str, duration: Duration, now: Instant) -> Decision {
    match &observed.held {
        None => Decision::Acquire,
        Some(held) if held.holder.is_empty() => Decision::Acquire,
        Some(held) if held.holder == me => Decision::Renew,
        Some(held) => {
            let theirs = held.duration.unwrap_or(duration).min(LONGEST);
            let until = observed.since + duration.max(theirs);
            if now >= until {
                Decision::Acquire
            } else {
                Decision::StandBy { until }
            }
        }
    }
}
