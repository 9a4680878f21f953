//! Which process a pid meant when it was written down.
//!
//! Pids are reused. The start time that the kernel keeps beside one tells two bearers of the same
//! pid apart, and a pidfd pins the process between looking and killing.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A pid together with its start time in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    pub(crate) started: u64,
}

impl ProcessId {
    /// The process that has `pid` now, if it still runs.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        parse_stat(&stat).map(|started| Self { pid, started })
    }

    /// Whether this very process still runs.
    pub(crate) fn runs(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Kills this very process; does nothing if it is gone.
    pub(crate) fn kill(self) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return;
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        // Looked at after the handle was taken: whatever the handle means, it is this process.
        if self.runs() {
            // It may end by itself at this moment, which is as good.
            let _ = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
}

/// The start time from a line of `/proc/PID/stat`; none for a process that has already ended and
/// only waits to be collected.
fn parse_stat(stat: &str) -> Option<u64> {
    // The second field is the command in parentheses and may itself hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_start_time_behind_a_command_with_parentheses() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1";
        assert_eq!(parse_stat(stat), Some(777));
    }

    #[test]
    fn counts_a_zombie_as_gone() {
        let stat = "42 (x) Z 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1";
        assert_eq!(parse_stat(stat), None);
    }

    #[test]
    fn knows_itself_and_not_a_later_bearer_of_its_pid() {
        let me = ProcessId::of(std::process::id()).expect("this process runs");
        assert!(me.runs());
        assert!(
            !ProcessId {
                started: me.started + 1,
                ..me
            }
            .runs()
        );
    }
}
