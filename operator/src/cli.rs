//! The command line for people and pipelines.

mod apply;
mod capacity;
mod effective;
mod explain;
mod failure;
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
use failure::Asked;
use simulate::Change;

/// A command that reads the hub ends by then: a list of each kind of a large province takes seconds.
const DEADLINE: Duration = Duration::from_mins(1);
/// The cluster that most commands ask.
const HUB: &str = "the hub";
/// The cluster of guards.
const REGION: &str = "the region";
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
    let hub = connect(arguments, HUB).await?;
    hub.within(status::status(&hub.client, arguments.output))
        .await
}

/// `jiuzhou capacity`.
pub async fn capacity(arguments: &CapacityArguments) -> anyhow::Result<ExitCode> {
    let CapacityArguments { by, read } = arguments;
    let hub = connect(read, HUB).await?;
    hub.within(capacity::capacity(&hub.client, *by, read.output))
        .await
}

/// `jiuzhou reach`.
pub async fn reach(arguments: &ReachArguments) -> anyhow::Result<ExitCode> {
    let ReachArguments { from, to, read } = arguments;
    let member = connect(read, "the cluster that both are in").await?;
    member
        .within(reach::reach(&member.client, from, to, read.output))
        .await
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
        let region = connect(&read, REGION).await.context(
            "the guards are found through the API server of their cluster; without it name them by --guard",
        )?;
        region
            .within(protection::found(&region.client, &service))
            .await?
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
    let EffectiveArguments {
        target,
        namespace,
        read,
    } = arguments;
    let cluster = match target {
        PolicyTarget::HttpRoute(..) => REGION,
        PolicyTarget::App(_) => HUB,
        PolicyTarget::TrafficPolicy(_) => "the hub for Apps, or of the region for routes",
    };
    let there = connect(read, cluster).await?;
    let namespace = namespace.as_deref().unwrap_or(&there.namespace);
    let answer = effective::effective(&there.client, namespace, target, read.output);
    there.within(answer).await
}

/// `jiuzhou apply`.
pub async fn apply(arguments: &ApplyArguments) -> anyhow::Result<ExitCode> {
    let hub = connect(&arguments.read, HUB).await?;
    apply::apply(
        &hub.client,
        &hub.asked,
        &arguments.files,
        arguments.timeout,
        arguments.read.output,
    )
    .await
}

/// `jiuzhou explain app`.
pub async fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let hub = connect(&arguments.read, HUB).await?;
    let namespace = arguments.namespace.as_deref().unwrap_or(&hub.namespace);
    let (name, format) = (&arguments.name, arguments.read.output);
    hub.within(explain::app(&hub.client, namespace, name, format))
        .await
}

/// `jiuzhou simulate`.
pub async fn simulate(arguments: SimulateArguments) -> anyhow::Result<ExitCode> {
    let SimulateArguments {
        files,
        lose,
        at,
        read,
    } = arguments;
    let hub = connect(&read, HUB).await?;
    let change = Change { files, lose, at };
    hub.within(simulate::simulate(&hub.client, change, read.output))
        .await
}

/// A cluster that can be asked.
struct Connection {
    client: Client,
    asked: Asked,
    /// The namespace of the context: the one that is meant where none is given.
    namespace: String,
}

impl Connection {
    /// The answer of a command, unless it takes longer than anybody waits.
    async fn within<T>(
        &self,
        answer: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        within(DEADLINE, &self.asked, answer).await
    }
}

async fn within<T>(
    limit: Duration,
    asked: &Asked,
    answer: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(|error| asked.plainly(error)),
        Err(_) => bail!(
            "{} did not answer within {limit:?}: check that its API server at {} can be reached",
            asked.cluster,
            asked.server()
        ),
    }
}

/// A cluster, as the user's own kubeconfig has it.
async fn connect(arguments: &ReadArguments, cluster: &'static str) -> anyhow::Result<Connection> {
    let config = config(arguments).await?;
    let asked = Asked::new(&config, cluster);
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| asked.plainly(error.into()))?;
    Ok(Connection {
        client,
        asked,
        namespace,
    })
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
        assert_eq!(here.default_namespace, "health");
        let bare = configured("bare", contexts, Some("bare")).await;
        assert_eq!(bare.default_namespace, "default");
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
        let config = kube::Config::new("https://10.0.0.1:6443".parse().unwrap());
        let asked = Asked::new(&config, HUB);
        let error = within(Duration::from_millis(5), &asked, never)
            .await
            .unwrap_err();
        let next = "check that its API server at https://10.0.0.1:6443 can be reached";
        assert!(error.to_string().contains(next), "{error}");
    }
}
