//! How long changes at the hub take to reach every member, and what that costs.
//!
//! A thousand Apps of one Deployment each are created, updated, drift, and are deleted; the floor
//! does the same with plain Deployments in the same run. Real control planes, real identities,
//! release processes. All is done twice: first with the workload controllers of the members paused,
//! so that what is compared is what both sides do, then with them running, so that statuses really
//! change. Jiuzhou's processes do not run while the floor is measured.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use e2e::measure::{
    contest::{Contest, Phase, Times},
    floor, print, round, say,
    slow::SlowLine,
    stage::{Controllers, Stage},
};
use serde_json::{Value, json};

/// How fast changes reach every member, against the least that any program must do.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Number of Apps
    #[arg(long, default_value_t = 1000)]
    apps: usize,
    /// Number of member clusters
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// Phases to measure, in order; each needs the ones before
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Phase::ALL)]
    phases: Vec<Phase>,
    /// Workload controllers of the members: `off`, `on`, or first one and then the other
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Controllers::Off, Controllers::On])]
    controllers: Vec<Controllers>,
    /// Leave out the creations with one more member that the hub pushes to and that is slow, then dead
    #[arg(long)]
    no_trouble: bool,
    /// Given by Cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// The floor program
    #[command(hide = true)]
    Floor(floor::Options),
}

/// Delay of a slow member's answers.
const DELAY: Duration = Duration::from_secs(10);
/// The bar of a create: CPU seconds of hub and agents together.
const OPERATOR_CPU: f64 = 5.0;
/// The bar of a create: requests to the hub per App, the user's own included.
const REQUESTS: f64 = 3.0;
/// The bar of a create: peak memory of the hub process, in MiB.
const HUB_MIB: f64 = 64.0;
/// How long the idle hub is watched for its background noise, and what comes before is let settle.
const IDLE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let run = async {
        match args.command {
            Some(Command::Floor(options)) => floor::run(options).await,
            None => bench(&args).await,
        }
    };
    match runtime
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(run))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("propagate: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn bench(args: &Args) -> Result<()> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("propagate");
    let sandbox = env!("CARGO_BIN_EXE_sandbox");
    let spare = usize::from(!args.no_trouble);
    let mut stage = Stage::start(dir, sandbox, args.members, spare).await?;
    let idle = idle(&stage).await?;
    for &controllers in &args.controllers {
        stage.set_controllers(controllers)?;
        match_up(&stage, args, idle).await?;
    }
    if !args.no_trouble {
        stage.set_controllers(Controllers::Off)?;
        trouble(&stage, args).await?;
    }
    stage.end().await
}

/// Jiuzhou against the floor, phase by phase, in namespaces of their own.
async fn match_up(stage: &Stage, args: &Args, idle: f64) -> Result<()> {
    let this = std::env::current_exe().context("find this program")?;
    let name = stage.controllers().name();
    stage.start_jiuzhou().await?;
    let mut jiuzhou = Contest::jiuzhou(stage, &format!("bench-jiuzhou-{name}"), args.apps).await?;
    stage.stop_jiuzhou().await?;
    let mut floor = Contest::floor(stage, &format!("bench-floor-{name}"), args.apps, &this).await?;
    for &phase in &args.phases {
        let (floor_times, floor_costs) = one(stage, &mut floor, phase, idle, args.apps).await?;
        stage.start_jiuzhou().await?;
        let (times, mut costs) = one(stage, &mut jiuzhou, phase, idle, args.apps).await?;
        costs["peak_rss_mib"] = stage.peak_rss()?;
        if phase != Phase::Delete {
            costs["ledger"] = ledger(stage, args).await?;
        }
        stage.stop_jiuzhou().await?;
        show(
            stage,
            args,
            phase,
            (times, costs),
            (floor_times, floor_costs),
        )?;
    }
    Ok(())
}

/// Requests a second at the hub when nothing happens.
async fn idle(stage: &Stage) -> Result<f64> {
    let before = stage.hub_requests().await?;
    tokio::time::sleep(IDLE).await;
    Ok(stage.hub_requests().await?.since(&before).total() / IDLE.as_secs_f64())
}

/// One phase of one side, with everything it costs until all is quiet again.
async fn one(
    stage: &Stage,
    contest: &mut Contest,
    phase: Phase,
    idle: f64,
    apps: usize,
) -> Result<(Times, Value)> {
    stage.settle().await?;
    let before = stage.read(contest.program()).await?;
    let times = contest.run(stage, phase).await?;
    stage.settle().await?;
    let after = stage.read(contest.program()).await?;
    #[expect(clippy::cast_precision_loss, reason = "a number of Apps")]
    let mut costs = after.since(&before, idle, apps as f64);
    if let (Value::Object(costs), Value::Object(times)) = (&mut costs, times.json()) {
        costs.extend(times);
    }
    Ok((times, costs))
}

/// What the hub stores for each App in each cluster, besides the App and its Content.
async fn ledger(stage: &Stage, args: &Args) -> Result<Value> {
    let (assignments, reports) = stage.ledger_bytes().await?;
    let targets = args.apps * args.members;
    Ok(json!({
        "assignment_bytes": assignments, "report_bytes": reports,
        "bytes_per_target": (assignments + reports) / targets, "target": 500,
    }))
}

/// The bar, as multiples of the floor.
fn target(phase: Phase) -> f64 {
    match phase {
        Phase::Create => 1.4,
        Phase::Update => 1.3,
        // Repair is what the floor does not do; a little more than doing it by hand is fine.
        Phase::Drift => 2.0,
        Phase::Delete => 1.2,
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "called once with what it prints"
)]
fn show(
    stage: &Stage,
    args: &Args,
    phase: Phase,
    jiuzhou: (Times, Value),
    floor: (Times, Value),
) -> Result<()> {
    let ratio = round(jiuzhou.0.arrived / floor.0.arrived);
    let controllers = stage.controllers().name();
    let cpu = |side: &Value, group: &str| side["cpu_seconds"][group].as_f64().unwrap_or(0.0);
    let operator = round(cpu(&jiuzhou.1, "hub") + cpu(&jiuzhou.1, "agents"));
    say(&format!(
        "{:6} controllers {controllers:3}: jiuzhou {:5.1} s (told {:5.1} s), floor {:5.1} s, ratio {ratio:.2} of {:.1} | CPU s: operator {operator:.1} of {OPERATOR_CPU:.0} ({:.1} hub, {:.1} agents), floor {:.1}; API servers: hub {:.1} / {:.1}, members {:.1} / {:.1} | hub requests per App {:.2} of {REQUESTS:.0} | hub {} MiB of {HUB_MIB:.0}",
        phase.name(),
        jiuzhou.0.arrived,
        jiuzhou.0.told.unwrap_or(0.0),
        floor.0.arrived,
        target(phase),
        cpu(&jiuzhou.1, "hub"),
        cpu(&jiuzhou.1, "agents"),
        cpu(&floor.1, "floor"),
        cpu(&jiuzhou.1, "hub_apiserver"),
        cpu(&floor.1, "hub_apiserver"),
        cpu(&jiuzhou.1, "member_apiservers"),
        cpu(&floor.1, "member_apiservers"),
        jiuzhou.1["hub_requests_per_app"].as_f64().unwrap_or(0.0),
        jiuzhou.1["peak_rss_mib"]["hub"],
    ));
    print(&json!({
        "bench": "propagate", "phase": phase.name(), "controllers": controllers,
        "apps": args.apps, "members": args.members, "jiuzhou": jiuzhou.1, "floor": floor.1,
        "operator_cpu_seconds": operator, "ratio": ratio, "target": target(phase),
        "targets_of_create": {
            "operator_cpu_seconds": OPERATOR_CPU, "hub_requests_per_app": REQUESTS,
            "hub_peak_rss_mib": HUB_MIB,
        },
    }))
}

/// Creations with a member more, which the hub pushes to: first in order, then slow, then dead. The
/// others must hardly notice.
async fn trouble(stage: &Stage, args: &Args) -> Result<()> {
    stage.start_jiuzhou().await?;
    let without = create_anew(stage, args, "whole").await?;
    let name = format!("m{}", args.members + 1);
    let line = SlowLine::join(stage, &name, DELAY).await?;
    let slow = create_anew(stage, args, "slow").await?;
    // From now on nobody listens there.
    drop(line);
    let dead = create_anew(stage, args, "dead").await?;
    for (member, seconds) in [("slow", slow), ("dead", dead)] {
        let ratio = round(seconds / without);
        say(&format!(
            "create with a {member} member besides: the others {seconds:.1} s, without it {without:.1} s, ratio {ratio:.2} of 1.2"
        ));
        print(&json!({
            "bench": "propagate", "phase": format!("create-with-{member}-member"), "apps": args.apps,
            "members": args.members, "seconds": round(seconds), "without": round(without),
            "ratio": ratio, "target": 1.2,
        }))?;
    }
    stage.stop_jiuzhou().await
}

async fn create_anew(stage: &Stage, args: &Args, name: &str) -> Result<f64> {
    let mut contest = Contest::jiuzhou(stage, &format!("bench-{name}"), args.apps).await?;
    // Beside a member that is slow or dead the province is never quiet.
    tokio::time::sleep(IDLE).await;
    contest.create().await
}
