//! What a restart of Jiuzhou costs when nothing has changed: CPU, and writes that nobody needs.
//!
//! Hub and agents are told to end and started again, once in an empty province (the reference) and
//! once with a thousand Apps in place, and are watched until they ask for nothing any more.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use e2e::measure::{
    contest::{Contest, Phase},
    print,
    requests::Requests,
    round, say,
    stage::Stage,
};
use serde_json::{Value, json};

/// What a restart costs when nothing has changed.
#[derive(Parser)]
struct Args {
    /// Number of Apps
    #[arg(long, default_value_t = 1000)]
    apps: usize,
    /// Given by Cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// So long without a request means that the start is over.
const QUIET: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_mins(3);
/// The bar: CPU seconds of all processes together.
const CPU_TARGET: f64 = 1.5;
const MEMBERS: usize = 3;

/// What one restart cost.
struct Cost {
    cpu_seconds: f64,
    seconds: f64,
    hub: Requests,
    members: Requests,
    peak_rss_mib: Value,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(bench(&args)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("restart: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn bench(args: &Args) -> Result<()> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("restart");
    let stage = Stage::start(dir, env!("CARGO_BIN_EXE_sandbox"), MEMBERS, 0).await?;
    let empty = restart(&stage).await?;
    let mut apps = Contest::jiuzhou(&stage, "bench-restart", args.apps).await?;
    apps.run(&stage, Phase::Create).await?;
    stage.settle().await?;
    let full = restart(&stage).await?;
    let ratio = round(full.cpu_seconds / empty.cpu_seconds);
    say(&format!(
        "restart with {} Apps: {:.2} CPU s of {CPU_TARGET} in {:.1} s, writes: hub {}, members {}; empty: {:.2} CPU s",
        args.apps,
        full.cpu_seconds,
        full.seconds,
        full.hub.writes(),
        full.members.writes(),
        empty.cpu_seconds,
    ));
    print(&json!({
        "bench": "restart", "apps": args.apps, "jiuzhou": full.json(), "empty": empty.json(),
        "ratio": ratio, "target": {"cpu_seconds": CPU_TARGET, "writes": 0},
    }))?;
    stage.stop_jiuzhou().await?;
    stage.end().await
}

impl Cost {
    fn json(&self) -> Value {
        json!({
            "cpu_seconds": round(self.cpu_seconds), "seconds": round(self.seconds),
            "hub_writes": self.hub.writes(), "member_writes": self.members.writes(),
            "hub_requests": self.hub.0, "member_requests": self.members.0,
            "peak_rss_mib": self.peak_rss_mib,
        })
    }
}

/// Ends everything, starts it again, and waits until it is quiet.
async fn restart(stage: &Stage) -> Result<Cost> {
    // The controllers of the members answer to what happened before; theirs are not ours.
    stage.settle().await?;
    stage.stop_jiuzhou().await?;
    let (hub, members) = (stage.hub_requests().await?, stage.member_requests().await?);
    let began = Instant::now();
    stage.start_jiuzhou().await?;
    let (mut last, mut changed) = (0.0, Instant::now());
    loop {
        let (hub_now, members_now) = (stage.hub_requests().await?, stage.member_requests().await?);
        let total = hub_now.total() + members_now.total();
        if (total - last).abs() > 0.5 {
            (last, changed) = (total, Instant::now());
        }
        if changed.elapsed() >= QUIET {
            return Ok(Cost {
                cpu_seconds: stage.jiuzhou_cpu()?,
                seconds: (changed - began).as_secs_f64(),
                hub: hub_now.since(&hub),
                members: members_now.since(&members),
                peak_rss_mib: stage.peak_rss()?,
            });
        }
        if began.elapsed() > LIMIT {
            let (hub, members) = (hub_now.since(&hub).0, members_now.since(&members).0);
            bail!(
                "not quiet within {} s: hub {hub:?}, members {members:?}",
                LIMIT.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
