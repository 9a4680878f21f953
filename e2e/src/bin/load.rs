//! `load`: an open loop against this machine. See the library for how it measures.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use e2e::load::{Plan, cli};
use tokio::runtime::Builder;

/// Usage errors, as in BSD's sysexits and everywhere else in this project.
const USAGE: u8 = 64;

/// Send requests at set times, whatever the answers, and measure from those times.
///
/// A run whose generator was late, or had no free connection, is void: it says so and fails.
#[derive(Parser)]
#[command(name = "load")]
struct Command {
    #[command(flatten)]
    options: cli::Options,
    /// How to report
    #[arg(long, short, value_enum, default_value = "table")]
    output: cli::Output,
}

fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
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
    let plan = match command.options.plan() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("load: {error:#}");
            return ExitCode::from(USAGE);
        }
    };
    match run(plan, command.output) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: Plan, output: cli::Output) -> Result<bool> {
    // The generator has a thread of its own; this one writes the lines.
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(cli::load(plan, output))
}
