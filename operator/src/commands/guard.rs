//! Runs a guard: configuration in, requests through, a drain at the end.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio_util::sync::CancellationToken;

use crate::args::GuardServeArguments;
use crate::guard::serve::{Guard, Observing, Settings, store};
use crate::runtime::serve::{Health, serve_also};
use crate::runtime::shutdown;
use crate::runtime::telemetry::Telemetry;

/// How often the file is looked at: a rule applies within a second of its change.
const LOOK: Duration = Duration::from_millis(250);

/// `jiuzhou guard serve`.
pub(super) async fn serve(arguments: GuardServeArguments) -> anyhow::Result<ExitCode> {
    // The guard itself decides which requests are traced.
    let telemetry = Telemetry::start_sampling("jiuzhou-guard-serve", 1.0)?;
    let stop = shutdown::on_signals()?;
    let guard = Arc::new(Guard::new(
        &settings(&arguments, &telemetry),
        &telemetry.registry(),
    )?);
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
    let server = serve_also(
        arguments.metrics_address,
        telemetry.registry(),
        health,
        protection(Arc::clone(&guard)),
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

/// `/protection`: what protects the routes, and what it did.
fn protection(guard: Arc<Guard>) -> Router {
    let tell = || async move {
        match serde_json::to_string(&guard.standing()) {
            Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
            Err(error) => {
                tracing::error!(error = %error, "the standing of the guard cannot be shown");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    };
    Router::new().route("/protection", get(tell))
}

fn settings(arguments: &GuardServeArguments, telemetry: &Telemetry) -> Settings {
    Settings {
        address: arguments.address,
        seed: uuid::Uuid::new_v4().into_bytes(),
        dial: arguments.connect_to.unwrap_or_default(),
        connections_max: usize::try_from(arguments.connections_max).unwrap_or(usize::MAX),
        body_bytes_max: u64::from(arguments.body_mebibytes_max) << 20,
        body_pause_max: arguments.body_pause_max,
        upgrade_idle_max: arguments.upgrade_idle_max,
        observing: Observing {
            access_log: arguments.access_log.clone(),
            access_log_percent: arguments.access_log_percent,
            tracer: telemetry.tracer(),
            trace_percent: arguments.trace_percent,
        },
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
