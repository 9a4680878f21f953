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
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

pub use lint::lint;
pub use output::Format;

use crate::args::{ExplainArguments, ReadArguments, SimulateArguments};
use simulate::Change;

/// A command that reads the hub ends by then: a list of each kind of a large province takes seconds.
const DEADLINE: Duration = Duration::from_mins(1);
/// A TCP and TLS handshake takes three round trips; five seconds is a very bad line.
const CONNECT: Duration = Duration::from_secs(5);
/// A server that sends nothing for this long will not answer any more.
const SILENCE: Duration = Duration::from_secs(15);

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
    let answer = async { status::status(&connect(arguments).await?, arguments.output).await };
    within(DEADLINE, answer).await
}

/// `jiuzhou explain app`.
pub async fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let answer = async {
        let client = connect(&arguments.read).await?;
        let (namespace, name) = (&arguments.namespace, &arguments.name);
        explain::app(&client, namespace, name, arguments.read.output).await
    };
    within(DEADLINE, answer).await
}

/// `jiuzhou simulate`.
pub async fn simulate(arguments: SimulateArguments) -> anyhow::Result<ExitCode> {
    let SimulateArguments {
        files,
        lose,
        at,
        read,
    } = arguments;
    let answer = async {
        let client = connect(&read).await?;
        simulate::simulate(&client, Change { files, lose, at }, read.output).await
    };
    within(DEADLINE, answer).await
}

/// The answer of a command, unless it takes longer than anybody waits.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| {
            bail!(
                "the hub did not answer within {limit:?}: check that its API server can be reached"
            )
        })
}

/// The hub, as the user's own kubeconfig has it.
async fn connect(arguments: &ReadArguments) -> anyhow::Result<Client> {
    let options = KubeConfigOptions {
        context: arguments.context.clone(),
        ..KubeConfigOptions::default()
    };
    let mut config = match &arguments.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file)
                .with_context(|| format!("cannot read kubeconfig {}", file.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?
        }
        None => kube::Config::from_kubeconfig(&options)
            .await
            .context("no kubeconfig: set KUBECONFIG or --kubeconfig to the hub's")?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hub_that_never_answers_ends_the_command_with_the_next_step() {
        let never = std::future::pending::<anyhow::Result<ExitCode>>();
        let error = within(Duration::from_millis(5), never).await.unwrap_err();
        assert!(
            error.to_string().contains("check that its API server"),
            "{error}"
        );
    }
}
