//! `sandbox`: a province on this machine. See the library for what each command does.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use e2e::{conformance, kubelet, process::reaper, sandbox, tour};
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;

/// Usage errors, as in BSD's sysexits and everywhere else in this project.
const USAGE: u8 = 64;

/// Real control planes on this machine, with nodes and pods played by the sandbox.
#[derive(Parser)]
#[command(name = "sandbox", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: sandbox::Up,
}

#[derive(Subcommand)]
enum Command {
    /// Start the sandbox and keep it until Ctrl-C (the default)
    Up(sandbox::Up),
    /// Play a health code's life over a province, each step with its evidence
    Tour(tour::Tour),
    /// Hold guards to Gateway API's official conformance suite, and tell the result by feature
    Conformance(conformance::Options),
    /// Play the nodes of one cluster
    #[command(hide = true)]
    Kubelet(kubelet::Options),
    /// Clear up once the parent is gone
    #[command(hide = true)]
    Reap,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody reads the message when standard error is closed; the code still tells.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    match args.command.unwrap_or(Command::Up(args.up)) {
        Command::Reap => {
            reaper::run();
            Ok(())
        }
        Command::Kubelet(options) => {
            log();
            // Two threads keep one slow pod from holding the others; more would only cost memory
            // in each of many kubelets.
            let runtime = Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            runtime
                .context("start the runtime")?
                .block_on(kubelet::run(options))
        }
        Command::Tour(options) => {
            log();
            sandbox::prepare()?;
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime
                .context("start the runtime")?
                .block_on(tour::tour(options))
        }
        Command::Conformance(options) => {
            log();
            sandbox::prepare()?;
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime
                .context("start the runtime")?
                .block_on(conformance::run(options))
        }
        Command::Up(options) => {
            log();
            sandbox::prepare()?;
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime
                .context("start the runtime")?
                .block_on(sandbox::up(options))
        }
    }
}

fn log() {
    // The client logs each refused connection as an error, and waiting for a server to start is a
    // row of them; what matters comes back as an error value.
    let default = || EnvFilter::new("warn,kube_client=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
