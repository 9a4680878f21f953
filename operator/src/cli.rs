//! The command line for people and pipelines.

mod output;
mod status;
mod table;
mod world;

use std::io::Write as _;
use std::process::ExitCode;

pub use output::Format;

/// Prints all custom resource definitions as YAML.
pub fn crds() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for crd in crds::all() {
        writeln!(out, "---\n{}", crds::to_yaml(&crd).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
