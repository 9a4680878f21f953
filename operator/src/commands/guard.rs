//! Runs a guard: configuration in, requests through, a drain at the end. And what guards are led by.

mod file;

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio_util::sync::CancellationToken;

use super::Shell;
use crate::args::{GuardControlArguments, GuardServeArguments};
use crate::guard::compile::Sharing;
use crate::guard::control::{Control, address_status};
use crate::guard::mutual_tls::Files;
use crate::guard::serve::fetch::{Follower, Following};
use crate::guard::serve::{Guard, Observing, Settings};
use crate::runtime::client::{Limits, client};
use crate::runtime::descriptors;
use crate::runtime::kubeconfig::Source;
use crate::runtime::lease::Timing;
use crate::runtime::serve::{Health, serve_also};
use crate::runtime::shutdown;
use crate::runtime::telemetry::Telemetry;
use crate::runtime::watch::Freshness;

/// A client's connection, and the one to an endpoint for what it asks.
const FILES_PER_CONNECTION: u64 = 2;

/// `jiuzhou guard serve`.
pub(super) async fn serve(arguments: GuardServeArguments) -> anyhow::Result<ExitCode> {
    // The guard itself decides which requests are traced.
    let telemetry = Telemetry::start_sampling("jiuzhou-guard-serve", 1.0)?;
    let stop = shutdown::on_signals()?;
    files_suffice(arguments.connections_max);
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
    let drain = async {
        guard.keep_no_more();
        tokio::time::sleep(arguments.drain_delay).await;
        guard.drain(arguments.drain_timeout).await;
    };
    if let Some(path) = &arguments.configuration {
        if let Some(failed) = stop.run_until_cancelled(file::follow(&guard, path)).await {
            failed?;
        }
        drain.await;
    } else {
        let following = following(&arguments)?;
        let mut follower = Follower::new(Arc::clone(&guard), following, stop.clone())?;
        stop.run_until_cancelled(follower.run()).await;
        // Until the last request ended, it holds its parts of limits and says so.
        tokio::select! {
            () = drain => {}
            never = follower.run() => match never {},
        }
        follower.leave().await;
    }
    end.cancel();
    server.stopped().await;
    telemetry.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// `jiuzhou guard control`.
pub(super) async fn control(arguments: GuardControlArguments) -> anyhow::Result<ExitCode> {
    let shell = Shell::start("jiuzhou-guard-control", arguments.metrics_address).await?;
    let wedged = shell.freshness.clone();
    shell
        .health
        .live("watches", move || wedged.fresh(Freshness::WEDGED));
    addresses_suffice(arguments.sharing, &arguments.addresses)?;
    let config = Source::choose(arguments.kubeconfig)
        .config()
        .await
        .context("cannot reach the cluster of the guards")?;
    let control = Control {
        client: client("self", config, Limits::default(), &shell.metrics.requests)?,
        namespace: arguments.namespace,
        service: arguments.service,
        addresses: arguments
            .addresses
            .iter()
            .map(|text| address_status(text))
            .collect(),
        sharing: arguments.sharing,
        address: arguments.address,
        files: Files {
            certificate: arguments.certificate,
            key: arguments.key,
            authority: arguments.client_ca,
        },
        replicas: arguments.replicas,
        spreads_keys: arguments.spreads_keys,
        lease: Timing::of(arguments.lease_duration),
        metrics: shell.metrics.clone(),
        registry: shell.telemetry.registry(),
        freshness: shell.freshness.clone(),
        health: shell.health.clone(),
    };
    let ran = control.run(|_address| {}, shell.stop.clone()).await;
    shell.end().await;
    ran?;
    Ok(ExitCode::SUCCESS)
}

/// Has as many files as there may be, and warns where they are fewer than clients may take.
fn files_suffice(connections_max: u32) {
    let wanted = FILES_PER_CONNECTION * u64::from(connections_max);
    if let Some(files) = descriptors::raise().filter(|files| *files < wanted) {
        tracing::warn!(
            files,
            wanted,
            "clients may take more open files than the process may have; raise the hard limit \
             (RLIMIT_NOFILE) to two for each of --connections-max, or lower that"
        );
    }
}

/// Ports can be opened on addresses, and on nothing else.
fn addresses_suffice(sharing: Sharing, addresses: &[String]) -> anyhow::Result<()> {
    if sharing != Sharing::Apart {
        return Ok(());
    }
    ensure!(
        !addresses.is_empty(),
        "--sharing apart gives each Gateway one of --addresses, but there are none; name as many as there \
         are Gateways"
    );
    for address in addresses {
        ensure!(
            address.parse::<IpAddr>().is_ok(),
            "--addresses: {address:?} is no IP address, on which --sharing apart could open a Gateway's \
             ports; leave it out"
        );
    }
    Ok(())
}

/// Who the guard follows; the command line holds that all of it is there.
fn following(arguments: &GuardServeArguments) -> anyhow::Result<Following> {
    let file = |path: &Option<std::path::PathBuf>, flag: &str| {
        path.clone()
            .with_context(|| format!("{flag} is missing; --control needs it"))
    };
    let control = arguments.control.clone();
    let folder = file(&arguments.state_directory, "--state-directory")?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(Following {
        control: control.context("--control or --configuration is missing")?,
        files: Files {
            certificate: file(&arguments.certificate, "--certificate")?,
            key: file(&arguments.key, "--key")?,
            authority: file(&arguments.control_ca, "--control-ca")?,
        },
        name: arguments.name.clone().context("--name is missing")?,
        folder,
        replicas: arguments.replicas,
    })
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
        trusted_hops: arguments.trusted_hops,
    }
}
