//! What rooms take for the time, so that tests can turn it.

use std::fmt::Debug;
use std::time::{Instant, SystemTime};

use shield::Time;
use shield::ticket::Wall;

/// Both clocks of a machine.
pub(in crate::guard::serve) trait Clock: Debug + Send + Sync {
    /// The one that may step.
    fn wall(&self) -> Wall;
    /// The one that only goes on.
    fn now(&self) -> Time;
}

/// This machine's.
#[derive(Debug)]
pub(super) struct Machine(Instant);

impl Machine {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Machine {
    fn wall(&self) -> Wall {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // A clock before 1970 is no clock; the coordinator's is taken instead.
        Wall::default().after(since.unwrap_or_default())
    }

    fn now(&self) -> Time {
        Time::ZERO.after(self.0.elapsed())
    }
}
