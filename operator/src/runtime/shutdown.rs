//! One way to stop: SIGTERM, SIGINT or SIGHUP cancels a token, and a second signal ends the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that SIGINT ended; used for a second signal of any kind.
const EXIT_IMPATIENT: i32 = 130;
/// Many send it to have a configuration read anew.
const HANG_UP: &str = "SIGHUP";

/// Installs the handlers and returns the token they cancel.
///
/// A second signal but SIGHUP exits at once: whoever sends it has already waited for the drain.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut signals = Signals::install()?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        let name = signals.next().await;
        if name == HANG_UP {
            tracing::warn!(
                signal = name,
                "stopping as on SIGTERM: what has changed is taken in without a signal"
            );
        } else {
            tracing::info!(signal = name, "stopping");
        }
        cancel.cancel();
        let name = loop {
            let name = signals.next().await;
            // Who sends it has not waited for anything; a terminal that closes sends it twice.
            if name != HANG_UP {
                break name;
            }
        };
        tracing::warn!(signal = name, "second signal, exiting at once");
        std::process::exit(EXIT_IMPATIENT);
    });
    Ok(stop)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// None where whoever started the process had it ignored, as nohup does.
    hang_up: Option<Signal>,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            // Left alone it would end the process at once, with all that is under way.
            hang_up: if is_hang_up_ignored() {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = heard(&mut self.hang_up) => HANG_UP,
        }
    }
}

async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// By the mask of ignored signals, whose lowest bit is SIGHUP.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(kind: &str) {
        let kill = format!("kill -{kind} {}", std::process::id());
        let sent = std::process::Command::new("sh")
            .args(["-c", &kill])
            .status();
        assert!(sent.unwrap().success());
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        let patience = std::time::Duration::from_secs(10);
        tokio::time::timeout(patience, future).await.unwrap()
    }

    /// One test: signals reach all that listen in a process, and the second would end it.
    #[tokio::test]
    async fn the_first_signal_cancels_and_does_not_kill() {
        let mut signals = Signals::install().unwrap();
        let mut kinds = vec![("TERM", "SIGTERM"), ("INT", "SIGINT")];
        // The tests themselves may have been started by nohup.
        if !is_hang_up_ignored() {
            kinds.push(("HUP", HANG_UP));
        }
        for (kind, name) in &kinds {
            send(kind);
            assert_eq!(within(signals.next()).await, *name);
        }
        let stop = on_signals().unwrap();
        assert!(!stop.is_cancelled());
        let (last, _) = kinds[kinds.len() - 1];
        send(last);
        within(stop.cancelled()).await;
    }
}
