//! How long changes at the hub take to reach every member, and what that costs.
//!
//! A thousand Apps of one Deployment each are created, updated, drift, and are deleted; the floor
//! does the same with plain Deployments in the same run. Real control planes, real identities,
//! release processes; the workload controllers of the members run, so that statuses really change.
//! Jiuzhou's processes do not run while the floor is measured.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use e2e::measure::{
    contest::{Contest, Phase, Times},
    floor, print, round, say,
    slow::SlowLine,
    stage::Stage,
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
    /// Measure as well with one more member, pushed to over a line that delays each answer by 10 s
    #[arg(long)]
    slow: bool,
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
/// How long the idle hub is watched for its background noise.
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
    let stage = Stage::start(dir, sandbox, args.members, usize::from(args.slow)).await?;
    let idle = idle(&stage).await?;
    let this = std::env::current_exe().context("find this program")?;
    let mut jiuzhou = Contest::jiuzhou(&stage, "bench-jiuzhou", args.apps).await?;
    stage.stop_jiuzhou().await?;
    let mut floor = Contest::floor(&stage, "bench-floor", args.apps, &this).await?;
    let mut created = None;
    for &phase in &args.phases {
        let (floor_times, floor_costs) = one(&stage, &mut floor, phase, idle, args.apps).await?;
        stage.start_jiuzhou().await?;
        let (times, mut costs) = one(&stage, &mut jiuzhou, phase, idle, args.apps).await?;
        costs["peak_rss_mib"] = stage.peak_rss()?;
        if phase != Phase::Delete {
            costs["ledger"] = ledger(&stage, args).await?;
        }
        stage.stop_jiuzhou().await?;
        show(args, phase, (times, costs), (floor_times, floor_costs))?;
        if phase == Phase::Create {
            created = Some(times);
        }
    }
    if args.slow {
        slow(&stage, args, idle, created.context("create was measured")?).await?;
    }
    stage.fleet.hub().controllers().resume()?;
    stage.fleet.stop().await
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
fn show(args: &Args, phase: Phase, jiuzhou: (Times, Value), floor: (Times, Value)) -> Result<()> {
    let ratio = round(jiuzhou.0.arrived / floor.0.arrived);
    let cpu = |side: &Value, group: &str| side["cpu_seconds"][group].as_f64().unwrap_or(0.0);
    let operator = cpu(&jiuzhou.1, "hub") + cpu(&jiuzhou.1, "agents");
    say(&format!(
        "{:8} jiuzhou {:6.1} s (ready {:6.1} s), floor {:6.1} s, ratio {ratio:.2} of {:.1} | CPU s: hub {:.2} + agents {:.2}, floor {:.2}; hub apiserver {:.1} / {:.1}, members' {:.1} / {:.1} | hub requests per App {} / {}",
        phase.name(),
        jiuzhou.0.arrived,
        jiuzhou.0.ready.unwrap_or(0.0),
        floor.0.arrived,
        target(phase),
        cpu(&jiuzhou.1, "hub"),
        cpu(&jiuzhou.1, "agents"),
        cpu(&floor.1, "floor"),
        cpu(&jiuzhou.1, "hub_apiserver"),
        cpu(&floor.1, "hub_apiserver"),
        cpu(&jiuzhou.1, "member_apiservers"),
        cpu(&floor.1, "member_apiservers"),
        jiuzhou.1["hub_requests_per_app"],
        floor.1["hub_requests_per_app"],
    ));
    print(&json!({
        "bench": "propagate", "phase": phase.name(), "apps": args.apps, "members": args.members,
        "jiuzhou": jiuzhou.1, "floor": floor.1, "operator_cpu_seconds": round(operator),
        "ratio": ratio, "target": target(phase),
    }))
}

/// The same creation with a slow member in the province; the others must hardly notice.
async fn slow(stage: &Stage, args: &Args, idle: f64, without: Times) -> Result<()> {
    stage.start_jiuzhou().await?;
    let name = format!("m{}", args.members + 1);
    let _line = SlowLine::join(stage, &name, DELAY).await?;
    let mut contest = Contest::jiuzhou(stage, "bench-slow", args.apps).await?;
    let (times, costs) = one(stage, &mut contest, Phase::Create, idle, args.apps).await?;
    let ratio = round(times.arrived / without.arrived);
    say(&format!(
        "with a slow member {:.1} s, without {:.1} s, ratio {ratio:.2} of 1.2",
        times.arrived, without.arrived
    ));
    print(&json!({
        "bench": "propagate", "phase": "create-with-slow-member", "apps": args.apps,
        "jiuzhou": costs, "without": without.json(), "ratio": ratio, "target": 1.2,
    }))?;
    stage.stop_jiuzhou().await
}
