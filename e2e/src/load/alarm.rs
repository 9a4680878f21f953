//! An alarm clock of the kernel. The runtime's own timers are whole milliseconds, which is more
//! than a quick answer takes.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::{io::AsyncReadExt as _, net::unix::pipe};

/// No time at all would disarm it.
const SOONEST: Duration = Duration::from_nanos(1);
/// Twice what the kernel writes: a read that does not fill its buffer tells the runtime that
/// there is no more, and saves a second one.
const RINGS: usize = 16;

/// Rings once for each time it is set.
#[derive(Debug)]
pub(super) struct Alarm {
    /// A timer is read like a pipe, and a pipe needs no unsafe code to be waited for.
    timer: pipe::Receiver,
}

impl Alarm {
    pub(super) fn new() -> Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, flags).context("create a kernel timer")?;
        let timer = pipe::Receiver::from_owned_fd_unchecked(timer);
        Ok(Self {
            timer: timer.context("wait for a kernel timer")?,
        })
    }

    /// Lets it ring after a while, and not when it was to before.
    pub(super) fn set(&self, after: Duration) -> Result<()> {
        let none = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let after = Timespec::try_from(after.max(SOONEST)).context("a time within bounds")?;
        let at = Itimerspec {
            it_interval: none,
            it_value: after,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &at)
            .context("set a kernel timer")?;
        Ok(())
    }

    /// Waits until it rings.
    pub(super) async fn rings(&mut self) -> Result<()> {
        let read = self.timer.read(&mut [0; RINGS]).await;
        read.context("wait for a kernel timer")?;
        Ok(())
    }
}
