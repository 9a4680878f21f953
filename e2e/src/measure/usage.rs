//! CPU and memory of processes, as the kernel counts them.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// `/proc` counts CPU in hundredths of a second (`USER_HZ`) on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of a process and all its threads since it began.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = read(pid, "stat")?;
    ticks(&stat)
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .with_context(|| format!("understand /proc/{pid}/stat"))
}

/// Most memory that a process ever had resident, in MiB.
pub fn peak_rss_mib(pid: u32) -> Result<f64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib = kib.with_context(|| format!("find VmHWM in /proc/{pid}/status"))?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// CPU time of the calling thread; only differences mean something.
pub fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// User and system time from a line of `/proc/PID/stat`.
fn ticks(stat: &str) -> Option<f64> {
    // The second field is the command in parentheses and may itself hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(user.parse::<f64>().ok()? + system.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_user_and_system_time_behind_a_command_with_parentheses() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 120 30 7 9 20 0 1 0 777 1 1";
        assert_eq!(ticks(stat), Some(150.0));
    }

    #[test]
    fn knows_its_own_use() {
        assert!(cpu_seconds(std::process::id()).is_ok());
        assert!(peak_rss_mib(std::process::id()).unwrap() > 1.0);
        assert!(thread_cpu() > Duration::ZERO);
    }
}
