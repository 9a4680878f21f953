//! The command line for people and pipelines.

mod explain;
mod lint;
mod output;
mod simulate;
mod status;
mod table;
mod world;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

pub use lint::lint;
pub use output::Format;

use crate::args::{ExplainArguments, ReadArguments, SimulateArguments};
use simulate::Change;

/// Prints all custom resource definitions as YAML.
pub fn crds() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for crd in crds::all() {
        writeln!(out, "---\n{}", crds::to_yaml(&crd).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `jiuzhou status`.
pub async fn status(arguments: &ReadArguments) -> anyhow::Result<ExitCode> {
    status::status(&connect(arguments).await?, arguments.output).await
}

/// `jiuzhou explain app`.
pub async fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.read).await?;
    explain::app(
        &client,
        &arguments.namespace,
        &arguments.name,
        arguments.read.output,
    )
    .await
}

/// `jiuzhou simulate`.
pub async fn simulate(arguments: SimulateArguments) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.read).await?;
    let SimulateArguments {
        files,
        lose,
        at,
        read,
    } = arguments;
    simulate::simulate(&client, Change { files, lose, at }, read.output).await
}

/// The hub, as the user's own kubeconfig has it.
async fn connect(arguments: &ReadArguments) -> anyhow::Result<Client> {
    let options = KubeConfigOptions {
        context: arguments.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &arguments.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file)
                .with_context(|| format!("cannot read kubeconfig {}", file.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?
        }
        None => kube::Config::from_kubeconfig(&options)
            .await
            .context("no kubeconfig: set KUBECONFIG or --kubeconfig to the hub's")?,
    };
    Ok(Client::try_from(config)?)
}

/// The documents of a YAML text that hold anything.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    let says_something = |document: &&str| {
        document
            .lines()
            .map(str::trim)
            .any(|line| !line.is_empty() && !line.starts_with('#') && line != "---")
    };
    text.split("\n---").filter(says_something)
}
