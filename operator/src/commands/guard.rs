//! Runs a guard: configuration in, requests through, a drain at the end.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::args::GuardServeArguments;
use crate::guard::serve::{Guard, Settings, store};
use crate::runtime::serve::{Health, serve as serve_health};
use crate::runtime::shutdown;
use crate::runtime::telemetry::Telemetry;

/// How often the file is looked at: a rule applies within a second of its change.
const LOOK: Duration = Duration::from_millis(250);

/// `jiuzhou guard serve`.
pub(super) async fn serve(arguments: GuardServeArguments) -> anyhow::Result<ExitCode> {
    let telemetry = Telemetry::start("jiuzhou-guard-serve")?;
    let stop = shutdown::on_signals()?;
    let guard = Arc::new(Guard::new(settings(&arguments), &telemetry.registry())?);
    let health = Health::new();
    let (configured, stopping) = (Arc::clone(&guard), stop.clone());
    health.ready("configured", move || match configured.revision() {
        none if none.is_empty() => Err("no configuration yet".to_owned()),
        _ => Ok(()),
    });
    health.ready("serving", move || {
        (!stopping.is_cancelled())
            .then_some(())
            .ok_or_else(|| "draining".to_owned())
    });
    // Health is told until the very end: whoever waits for a drain asks for it.
    let end = CancellationToken::new();
    let server = serve_health(
        arguments.metrics_address,
        telemetry.registry(),
        health,
        end.clone(),
    )
    .await?;
    tracing::info!(address = %server.address, "serving metrics and health");
    let following = follow(&guard, &arguments.configuration);
    if let Some(failed) = stop.run_until_cancelled(following).await {
        failed?;
    }
    tokio::time::sleep(arguments.drain_delay).await;
    guard.drain(arguments.drain_timeout).await;
    end.cancel();
    server.stopped().await;
    telemetry.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn settings(arguments: &GuardServeArguments) -> Settings {
    Settings {
        address: arguments.address,
        seed: uuid::Uuid::new_v4().into_bytes(),
        dial: arguments.connect_to.unwrap_or_default(),
        connections_max: usize::try_from(arguments.connections_max).unwrap_or(usize::MAX),
        body_bytes_max: u64::from(arguments.body_mebibytes_max) << 20,
        body_pause_max: arguments.body_pause_max,
    }
}

/// Serves by the file, and by what it becomes. The first configuration must be good; a later one that
/// is not is told, and the last good one stays.
async fn follow(guard: &Guard, path: &Path) -> anyhow::Result<()> {
    let mut seen = None;
    loop {
        // A file that is gone is told once.
        let changed = Some(changed(path));
        if changed != seen {
            let is_first = guard.revision().is_empty();
            match take(guard, path).await {
                Ok(()) => {}
                Err(error) if is_first => return Err(error),
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "configuration refused");
                }
            }
            seen = changed;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|file| file.modified())
        .ok()
}

async fn take(guard: &Guard, path: &Path) -> anyhow::Result<()> {
    let configuration = store::read(path)?;
    let configuration =
        configuration.with_context(|| format!("{} does not exist", path.display()))?;
    Ok(guard.apply(&configuration).await?)
}
