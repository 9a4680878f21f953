//! Runs a command: wires the loops to clients, telemetry, health and shutdown.

mod guard;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use plan::world::Settings;

use crate::agent::Agent;
use crate::args::{AgentArguments, Command, GuardCommand, HubArguments};
use crate::hub::Hub;
use crate::runtime::client::{Limits, client};
use crate::runtime::kubeconfig::Source;
use crate::runtime::lease::Timing;
use crate::runtime::metrics::Metrics;
use crate::runtime::serve::{Health, Server, serve};
use crate::runtime::shutdown;
use crate::runtime::telemetry::Telemetry;
use crate::runtime::watch::Freshness;

/// Runs a command to its end.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Hub(arguments) => hub(arguments).await,
        Command::Agent(arguments) => Box::pin(agent(arguments)).await,
        Command::Guard(GuardCommand::Serve(arguments)) => Box::pin(guard::serve(arguments)).await,
        Command::Guard(GuardCommand::Control(arguments)) => {
            Box::pin(guard::control(arguments)).await
        }
        Command::Crds => crate::cli::crds(),
        Command::Lint(arguments) => crate::cli::lint(&arguments),
        Command::Status(arguments) => crate::cli::status(&arguments).await,
        Command::Capacity(arguments) => crate::cli::capacity(&arguments).await,
        Command::Explain(arguments) => crate::cli::explain(&arguments).await,
        Command::Reach(arguments) => crate::cli::reach(&arguments).await,
        Command::Protection(arguments) => crate::cli::protection(arguments).await,
        Command::Effective(arguments) => crate::cli::effective(&arguments).await,
        Command::Apply(arguments) => crate::cli::apply(&arguments).await,
        Command::Simulate(arguments) => crate::cli::simulate(arguments).await,
    }
}

async fn hub(arguments: HubArguments) -> anyhow::Result<ExitCode> {
    let shell = Shell::start("jiuzhou-hub", arguments.metrics_address).await?;
    let (fresh, wedged) = (shell.freshness.clone(), shell.freshness.clone());
    // An agent has no such check: it must go on while its hub is gone.
    shell
        .health
        .ready("fresh", move || fresh.fresh(Freshness::STALE));
    shell
        .health
        .live("watches", move || wedged.fresh(Freshness::WEDGED));
    let config = Source::choose(arguments.kubeconfig)
        .config()
        .await
        .context("cannot reach the hub's cluster")?;
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let hub = Hub {
        client: client("hub", config, Limits::default(), &shell.metrics.requests)?,
        settings: Settings {
            unreachable_after: millis(arguments.unreachable_after),
            reclaim_grace: millis(arguments.reclaim_grace),
            reachable_after: millis(arguments.reachable_after),
            ..Settings::default()
        },
        lease: Timing::of(arguments.lease_duration),
        heartbeat: arguments.heartbeat,
        metrics: shell.metrics.clone(),
        freshness: shell.freshness.clone(),
    };
    let ran = hub.run(shell.stop.clone()).await;
    shell.end().await;
    ran?;
    Ok(ExitCode::SUCCESS)
}

async fn agent(arguments: AgentArguments) -> anyhow::Result<ExitCode> {
    let shell = Shell::start("jiuzhou-agent", arguments.metrics_address).await?;
    let hub = Source::File(arguments.hub_kubeconfig)
        .config()
        .await
        .context("cannot use --hub-kubeconfig")?;
    let member = Source::choose(arguments.kubeconfig)
        .config()
        .await
        .context("cannot reach the agent's cluster")?;
    let requests = &shell.metrics.requests;
    let agent = Agent {
        cluster: arguments.cluster.clone(),
        hub: client("hub", hub, Limits::default(), requests)?,
        member: client(
            arguments.cluster.as_str(),
            member,
            Limits::default(),
            requests,
        )?,
        local: false,
        leader_epoch: None,
        first: None,
        heartbeat: arguments.heartbeat,
        metrics: shell.metrics.clone(),
        freshness: shell.freshness.clone(),
    };
    agent.run(shell.stop.clone()).await;
    shell.end().await;
    Ok(ExitCode::SUCCESS)
}

/// What every long-running command has around its loop.
struct Shell {
    telemetry: Telemetry,
    metrics: Metrics,
    freshness: Freshness,
    health: Health,
    stop: tokio_util::sync::CancellationToken,
    server: Server,
}

impl Shell {
    async fn start(service: &'static str, address: std::net::SocketAddr) -> anyhow::Result<Self> {
        let telemetry = Telemetry::start(service)?;
        let metrics = Metrics::new(&telemetry.meter());
        let freshness = Freshness::new();
        let health = Health::new();
        let listed = freshness.clone();
        health.ready("listed", move || listed.listed());
        let stop = shutdown::on_signals()?;
        let server = serve(address, telemetry.registry(), health.clone(), stop.clone()).await?;
        tracing::info!(address = %server.address, "serving metrics and health");
        Ok(Self {
            telemetry,
            metrics,
            freshness,
            health,
            stop,
            server,
        })
    }

    async fn end(self) {
        self.stop.cancel();
        self.server.stopped().await;
        self.telemetry.shutdown().await;
    }
}
