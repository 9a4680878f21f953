//! Waiting until a server answers, for a bounded time and only while its process lives.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::{Client, Config};

use crate::process::Process;

/// Ten times what a control plane takes when the whole default fleet starts on two cores.
pub(super) const DEADLINE: Duration = Duration::from_secs(150);
const POLL: Duration = Duration::from_millis(100);
/// A server that accepts connections but does not answer yet must not consume the deadline.
const ANSWER: Duration = Duration::from_secs(5);

/// Waits until `path` answers 200 on the server that `config` points at.
pub(crate) async fn answers(process: &Process, config: Config, path: &str) -> Result<()> {
    let client = Client::try_from(config).context("make a client")?;
    until(process, &format!("{path} to answer"), || async {
        let request = http::Request::get(path).body(vec![])?;
        client
            .request_text(request)
            .await
            .map(|_| true)
            .map_err(Into::into)
    })
    .await
}

/// Waits until `done` holds; fails as soon as the process has ended.
pub(super) async fn until<F>(process: &Process, what: &str, done: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let started = Instant::now();
    let mut last = None;
    while started.elapsed() < DEADLINE {
        process.check()?;
        match tokio::time::timeout(ANSWER, done()).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => last = None,
            Ok(Err(error)) => last = Some(format!("{error:#}")),
            Err(_) => last = Some("no answer".to_owned()),
        }
        tokio::time::sleep(POLL).await;
    }
    bail!(
        "{}: waited {} s for {what} ({}); {}",
        process.name(),
        DEADLINE.as_secs(),
        last.unwrap_or_else(|| "not yet so".to_owned()),
        process.log_tail()
    )
}
