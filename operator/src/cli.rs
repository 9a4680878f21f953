//! The command line for people and pipelines.

mod apply;
mod capacity;
mod effective;
mod explain;
mod lint;
mod manifests;
mod output;
mod protection;
mod reach;
mod simulate;
mod status;
mod table;
mod world;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

pub use effective::PolicyTarget;
pub use lint::lint;
pub use output::Format;
pub use protection::GuardAddress;
pub use reach::{Named, Target};

use crate::args::{
    ApplyArguments, CapacityArguments, EffectiveArguments, ExplainArguments, ProtectionArguments,
    ReachArguments, ReadArguments, SimulateArguments,
};
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

/// `jiuzhou capacity`.
pub async fn capacity(arguments: &CapacityArguments) -> anyhow::Result<ExitCode> {
    let CapacityArguments { by, read } = arguments;
    let answer = async { capacity::capacity(&connect(read).await?, *by, read.output).await };
    within(DEADLINE, answer).await
}

/// `jiuzhou reach`.
pub async fn reach(arguments: &ReachArguments) -> anyhow::Result<ExitCode> {
    let ReachArguments { from, to, read } = arguments;
    let answer = async { reach::reach(&connect(read).await?, from, to, read.output).await };
    within(DEADLINE, answer).await
}

/// `jiuzhou protection`.
pub async fn protection(arguments: ProtectionArguments) -> anyhow::Result<ExitCode> {
    let ProtectionArguments {
        policy,
        namespace,
        guard,
        service,
        read,
    } = arguments;
    let guards = if guard.is_empty() {
        let found = async {
            let client = connect(&read).await.context(
                "the guards are found through the API server of their cluster; without it name them by --guard",
            )?;
            protection::found(&client, &service).await
        };
        within(DEADLINE, found).await?
    } else {
        protection::given(&guard)?
    };
    let wanted = protection::Wanted {
        namespace,
        name: policy,
    };
    protection::show(protection::answers(guards).await, &wanted, read.output)
}

/// `jiuzhou effective`.
pub async fn effective(arguments: &EffectiveArguments) -> anyhow::Result<ExitCode> {
    let answer = async {
        let config = config(&arguments.read).await?;
        let namespace = namespace(arguments.namespace.as_deref(), &config).to_owned();
        let client = Client::try_from(config)?;
        effective::effective(
            &client,
            &namespace,
            &arguments.target,
            arguments.read.output,
        )
        .await
    };
    within(DEADLINE, answer).await
}

/// `jiuzhou apply`.
pub async fn apply(arguments: &ApplyArguments) -> anyhow::Result<ExitCode> {
    let client = connect(&arguments.read).await?;
    apply::apply(
        &client,
        &arguments.files,
        arguments.timeout,
        arguments.read.output,
    )
    .await
}

/// `jiuzhou explain app`.
pub async fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let answer = async {
        let config = config(&arguments.read).await?;
        let namespace = namespace(arguments.namespace.as_deref(), &config).to_owned();
        let client = Client::try_from(config)?;
        explain::app(&client, &namespace, &arguments.name, arguments.read.output).await
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
    Ok(Client::try_from(config(arguments).await?)?)
}

/// The namespace that is meant: the one given, or else the context's.
fn namespace<'a>(given: Option<&'a str>, config: &'a kube::Config) -> &'a str {
    given.unwrap_or(&config.default_namespace)
}

/// How to reach the hub, and the namespace of the context.
async fn config(arguments: &ReadArguments) -> anyhow::Result<kube::Config> {
    let options = KubeConfigOptions {
        context: arguments.context.clone(),
        ..KubeConfigOptions::default()
    };
    let mut config = match &arguments.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(plainly)?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?
        }
        None => kube::Config::from_kubeconfig(&options)
            .await
            .map_err(plainly)
            .context("no kubeconfig: set KUBECONFIG or --kubeconfig to the hub's")?,
    };
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    Ok(config)
}

/// An error of a kubeconfig, said once: the text of kube's own repeats its source.
fn plainly(error: KubeconfigError) -> anyhow::Error {
    if let KubeconfigError::ReadConfig(source, path) = error {
        let what = format!("cannot read kubeconfig {}", path.display());
        return anyhow::Error::new(source).context(what);
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How the hub is reached with the given contexts, and what was asked for.
    async fn configured(name: &str, contexts: &str, context: Option<&str>) -> kube::Config {
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: here, \
             clusters: [{{name: k, cluster: {{server: 'http://127.0.0.1:1'}}}}], \
             users: [{{name: u, user: {{token: t}}}}], contexts: [{contexts}]}}"
        );
        let file = format!("jiuzhou-{name}-{}", std::process::id());
        let file = std::env::temp_dir().join(file);
        std::fs::write(&file, text).unwrap();
        let arguments = ReadArguments {
            kubeconfig: Some(file.clone()),
            context: context.map(str::to_owned),
            output: Format::Table,
        };
        let config = config(&arguments).await;
        std::fs::remove_file(file).unwrap();
        config.unwrap()
    }

    #[tokio::test]
    async fn without_a_namespace_the_one_of_the_context_counts_as_for_kubectl() {
        let contexts = "{name: here, context: {cluster: k, user: u, namespace: health}}, \
                        {name: bare, context: {cluster: k, user: u}}";
        let here = configured("here", contexts, None).await;
        assert_eq!(namespace(None, &here), "health");
        assert_eq!(namespace(Some("police"), &here), "police");
        let bare = configured("bare", contexts, Some("bare")).await;
        assert_eq!(namespace(None, &bare), "default");
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_said_once() {
        let arguments = ReadArguments {
            kubeconfig: Some("/nonexistent".into()),
            context: None,
            output: Format::Table,
        };
        let error = format!("{:#}", config(&arguments).await.unwrap_err());
        assert!(
            error.starts_with("cannot read kubeconfig /nonexistent: "),
            "{error}"
        );
        assert_eq!(error.matches("os error").count(), 1, "{error}");
    }

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
