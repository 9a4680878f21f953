//! One way to stop: SIGTERM or SIGINT cancels a token, and a second signal ends the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that SIGINT ended; used for a second signal of either kind.
const EXIT_IMPATIENT: i32 = 130;

/// Installs the handlers and returns the token they cancel.
///
/// A second signal exits at once: whoever sends it has already waited for the drain.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping");
        cancel.cancel();
        let name = signals.next().await;
        tracing::warn!(signal = name, "second signal, exiting at once");
        std::process::exit(EXIT_IMPATIENT);
    });
    Ok(stop)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_signal_cancels_and_does_not_kill() {
        let stop = on_signals().unwrap();
        assert!(!stop.is_cancelled());
        let kill = format!("kill -TERM {}", std::process::id());
        assert!(
            std::process::Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
        tokio::time::timeout(std::time::Duration::from_secs(10), stop.cancelled())
            .await
            .unwrap();
    }
}
