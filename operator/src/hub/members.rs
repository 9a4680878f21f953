//! Agents that run inside the hub: for the hub's own cluster and for clusters it pushes to.
//!
//! They run on the leader only, so that a cluster has one writer, and end with its leadership.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::{ClusterName, Connection, SYSTEM_NAMESPACE};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use plan::World;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::events::Heard;
use super::fence;
use crate::agent::Agent;
use crate::runtime::client::{Limits, client};
use crate::runtime::errors::chain;
use crate::runtime::first_write::FirstWrite;
use crate::runtime::kubeconfig::Member;
use crate::runtime::metrics::Metrics;
use crate::runtime::watch::Freshness;

/// Pause before a kubeconfig that could not be used is looked at again, and before an agent that
/// ended by itself is started again.
const RETRY: Duration = Duration::from_secs(5);
/// Time between two looks whether a kubeconfig was replaced: credentials are rotated well before
/// they expire, and one small read in half a minute is nothing.
const ROTATION: Duration = Duration::from_secs(30);
/// An agent whose kubeconfig was replaced gets this long for what it has under way: as long as one
/// request.
const REPLACED_WITHIN: Duration = Duration::from_secs(15);
/// When the hub ends its agents get this long, and no longer: the next leader waits for it.
const LAST_SAVE: Duration = Duration::from_secs(3);

/// What agents inside the hub share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) hub: Client,
    pub(super) heartbeat: Duration,
    pub(super) metrics: Metrics,
    /// Takes what the hub has to know of kubeconfigs.
    pub(super) sender: mpsc::Sender<Heard>,
}

/// The agents that run.
pub(super) struct Members {
    shared: Shared,
    running: BTreeMap<ClusterName, (Connection, AbortOnDropHandle<()>)>,
    stop: CancellationToken,
}

impl Members {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared,
            running: BTreeMap::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Starts agents for clusters that need one here, and ends those that no longer do.
    pub(super) fn follow(&mut self, world: &World, first: &FirstWrite) {
        let term = Term {
            epoch: world.hub.leader_epoch,
            first: first.clone(),
        };
        let mut wanted: BTreeMap<ClusterName, Connection> = BTreeMap::new();
        for (name, slot) in world.clusters() {
            match slot
                .state
                .as_ref()
                .map(|cluster| cluster.connection.clone())
            {
                Ok(connection @ (Connection::Local | Connection::Push(_))) => {
                    wanted.insert(name.clone(), connection);
                }
                Ok(Connection::Pull) | Err(_) => {}
            }
        }
        self.running.retain(|name, (connection, task)| {
            wanted.get(name) == Some(connection) && !task.is_finished()
        });
        for (name, connection) in wanted {
            if !self.running.contains_key(&name) {
                let task = run(
                    self.shared.clone(),
                    name.clone(),
                    connection.clone(),
                    term.clone(),
                    self.stop.child_token(),
                );
                self.running.insert(
                    name,
                    (connection, AbortOnDropHandle::new(tokio::spawn(task))),
                );
            }
        }
    }

    /// Ends all agents once they saved what they remember, or had their time for it.
    pub(super) async fn wind_down(&mut self) {
        let tasks = self.running.values_mut().map(|(_, task)| task);
        self.stop.cancel();
        wait_for(tasks, LAST_SAVE).await;
        self.end();
    }

    /// Ends all agents at once.
    pub(super) fn end(&mut self) {
        self.stop.cancel();
        self.running.clear();
        self.stop = CancellationToken::new();
    }
}

/// Waits until tasks have ended, for all of them together no longer than that.
async fn wait_for<'a>(
    tasks: impl Iterator<Item = &'a mut AbortOnDropHandle<()>>,
    within: Duration,
) {
    let deadline = Instant::now() + within;
    for task in tasks {
        let _ended_or_late = tokio::time::timeout_at(deadline, task).await;
    }
}

/// The term in which an agent runs.
#[derive(Clone)]
struct Term {
    epoch: i64,
    /// What comes before the leader's first write.
    first: FirstWrite,
}

/// A kubeconfig that is in use.
struct Connected {
    client: Client,
    first: FirstWrite,
    /// Name and version of its Secret, for a cluster that is pushed to.
    secret: Option<(String, Option<String>)>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Unconnected {
    /// Somebody has to act; the sentence says who and how.
    #[error("{0}")]
    Refused(String),
    /// It may pass by itself.
    #[error("the cluster cannot be connected to")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Unconnected {
    Unconnected::Failed(error.into())
}

/// Keeps an agent running until `stop`: anew when it ended or panicked, and with the kubeconfig as
/// it is now when that was replaced.
async fn run(
    shared: Shared,
    cluster: ClusterName,
    connection: Connection,
    term: Term,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let connects = connect(&shared, &cluster, &connection, &term);
        let connected = match stop.run_until_cancelled(connects).await {
            None => return,
            Some(Ok(connected)) => connected,
            Some(Err(error)) => {
                tracing::warn!(%cluster, error = chain(&error), "the cluster's kubeconfig cannot be used");
                let refused = match error {
                    Unconnected::Refused(why) => Some(why),
                    Unconnected::Failed(_) => None,
                };
                let wait = async {
                    say(&shared, &cluster, refused).await;
                    tokio::time::sleep(RETRY).await;
                };
                stop.run_until_cancelled(wait).await;
                continue;
            }
        };
        say(&shared, &cluster, None).await;
        let agent = Agent {
            cluster: cluster.clone(),
            hub: shared.hub.clone(),
            member: connected.client,
            local: connection == Connection::Local,
            leader_epoch: Some(term.epoch),
            first: Some(connected.first),
            heartbeat: shared.heartbeat,
            metrics: shared.metrics.clone(),
            // The hub's health does not depend on a member cluster's.
            freshness: Freshness::new(),
        };
        let ends = stop.child_token();
        let agent = agent.run(ends.clone());
        let replaced = replaced(&shared, connected.secret);
        match Box::pin(watched(agent, replaced, ends)).await {
            Ended::Replaced => tracing::info!(%cluster, "the cluster's kubeconfig was replaced"),
            Ended::ByItself(why) if !stop.is_cancelled() => {
                tracing::error!(%cluster, why, "the cluster's agent ended and is started again");
                stop.run_until_cancelled(tokio::time::sleep(RETRY)).await;
            }
            Ended::ByItself(_) => {}
        }
    }
}

/// Tells the hub whether a kubeconfig is refused; the status of the MemberCluster says it.
async fn say(shared: &Shared, cluster: &ClusterName, refused: Option<String>) {
    // Fails only when the hub is gone, and then nobody wants to know.
    let _ = shared
        .sender
        .send(Heard::Connection(cluster.clone(), refused))
        .await;
}

/// Why an agent no longer runs.
#[derive(Debug, PartialEq)]
enum Ended {
    Replaced,
    ByItself(String),
}

/// Runs an agent on a task of its own, so that its panic is only its own, until it ends or what it
/// runs with was replaced.
async fn watched(
    agent: impl Future<Output = ()> + Send + 'static,
    replaced: impl Future<Output = ()>,
    ends: CancellationToken,
) -> Ended {
    let mut task = AbortOnDropHandle::new(tokio::spawn(agent));
    tokio::select! {
        ended = &mut task => Ended::ByItself(match ended {
            Ok(()) => "it returned".to_owned(),
            Err(error) => error.to_string(),
        }),
        () = replaced => {
            ends.cancel();
            let _ended_or_aborted = tokio::time::timeout(REPLACED_WITHIN, task).await;
            Ended::Replaced
        }
    }
}

/// Ends once the Secret is another one than that in use.
async fn replaced(shared: &Shared, secret: Option<(String, Option<String>)>) {
    let Some((name, used)) = secret else {
        return std::future::pending().await;
    };
    let secrets: Api<Secret> = Api::namespaced(shared.hub.clone(), SYSTEM_NAMESPACE);
    loop {
        tokio::time::sleep(ROTATION).await;
        // A Secret that is gone is no instruction: the agent goes on with what it has.
        let now = secrets.get_metadata_opt(&name).await;
        if let Ok(Some(now)) = now
            && now.metadata.resource_version != used
        {
            return;
        }
    }
}

async fn connect(
    shared: &Shared,
    cluster: &ClusterName,
    connection: &Connection,
    term: &Term,
) -> Result<Connected, Unconnected> {
    let Connection::Push(name) = connection else {
        return Ok(Connected {
            client: term.first.client(shared.hub.clone()),
            first: term.first.clone(),
            secret: None,
        });
    };
    let secrets: Api<Secret> = Api::namespaced(shared.hub.clone(), SYSTEM_NAMESPACE);
    let secret = secrets.get_opt(name).await.map_err(failed)?;
    let config = usable(name, secret.as_ref()).map_err(Unconnected::Refused)?;
    let requests = &shared.metrics.requests;
    let member = client(cluster.as_str(), config, Limits::default(), requests);
    let member = member.map_err(|_| {
        // What the library says could quote the file.
        Unconnected::Refused(format!(
            "Secret {SYSTEM_NAMESPACE}/{name}, key kubeconfig: its CA, certificate or key cannot be read: put PEM in base64 there"
        ))
    })?;
    let first = fence::in_member(term.first.clone(), member.clone(), term.epoch);
    let version = secret.and_then(|secret| secret.metadata.resource_version);
    Ok(Connected {
        client: first.client(member),
        first,
        secret: Some((name.clone(), version)),
    })
}

/// The connection that a Secret holds, or one sentence that names the Secret, the field, what is
/// allowed and the next step.
fn usable(name: &str, secret: Option<&Secret>) -> Result<kube::Config, String> {
    let place = format!("Secret {SYSTEM_NAMESPACE}/{name}");
    let Some(secret) = secret else {
        return Err(format!(
            "{place}, which spec.connection.push.kubeconfigSecretName names, does not exist: create it with the cluster's kubeconfig in key kubeconfig"
        ));
    };
    let text = secret.data.as_ref().and_then(|data| data.get("kubeconfig"));
    let Some(text) = text else {
        return Err(format!(
            "{place} has no key kubeconfig: put the cluster's kubeconfig there"
        ));
    };
    let text = String::from_utf8_lossy(&text.0);
    let member = Member::parse(&text).map_err(|error| {
        format!(
            "{place}, key kubeconfig: {error}. Allowed are one server, its CA, and a token or a client certificate, all inline"
        )
    })?;
    Ok(member.config())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::Fake;
    use k8s_openapi::ByteString;

    fn secret(key: &str, text: &str) -> Secret {
        Secret {
            data: Some([(key.to_owned(), ByteString(text.into()))].into()),
            ..Secret::default()
        }
    }

    #[test]
    fn a_kubeconfig_that_is_refused_names_its_secret_the_field_and_the_next_step() {
        let refused = |secret: Option<&Secret>| usable("quzhou-a", secret).err().unwrap();
        let missing = refused(None);
        assert!(missing.contains("jiuzhou-system/quzhou-a"), "{missing}");
        assert!(missing.contains("kubeconfigSecretName"), "{missing}");
        let keyless = refused(Some(&secret("config", "x")));
        assert!(keyless.contains("has no key kubeconfig"), "{keyless}");
        let exec = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
            clusters: [{name: k, cluster: {server: 'https://h', certificate-authority-data: eA==}}]\n\
            users: [{name: u, user: {exec: {command: /bin/sh}}}]\n\
            contexts: [{name: c, context: {cluster: k, user: u}}]\n";
        let exec = refused(Some(&secret("kubeconfig", exec)));
        assert!(exec.contains("exec"), "{exec}");
        assert!(exec.contains("Allowed are one server"), "{exec}");
        assert!(!exec.contains("/bin/sh"), "{exec}");
    }

    #[tokio::test]
    async fn an_agent_that_ended_or_panicked_is_noticed() {
        let never = std::future::pending::<()>;
        let ended = watched(async {}, never(), CancellationToken::new()).await;
        assert_eq!(ended, Ended::ByItself("it returned".to_owned()));
        let panicked = async { assert!(std::hint::black_box(false), "a bug") };
        let ended = watched(panicked, never(), CancellationToken::new()).await;
        assert!(matches!(ended, Ended::ByItself(why) if why.contains("panicked")));
    }

    #[tokio::test]
    async fn agents_save_what_they_remember_before_the_hub_ends() {
        let (sender, _heard) = mpsc::channel(1);
        let mut members = Members::new(Shared {
            hub: Fake::default().client(),
            heartbeat: RETRY,
            metrics: Metrics::new(&opentelemetry::global::meter("test")),
            sender,
        });
        let (told, saved) = (members.stop.child_token(), CancellationToken::new());
        let done = saved.clone();
        let agent = async move {
            told.cancelled().await;
            tokio::task::yield_now().await;
            done.cancel();
        };
        let task = AbortOnDropHandle::new(tokio::spawn(agent));
        members
            .running
            .insert("quzhou-a".into(), (Connection::Local, task));
        members.wind_down().await;
        assert!(saved.is_cancelled());
    }

    #[tokio::test]
    async fn an_agent_that_hangs_does_not_hold_up_the_end_of_the_hub() {
        let mut hangs = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        let waits = wait_for([&mut hangs].into_iter(), Duration::from_millis(1));
        tokio::time::timeout(RETRY, waits).await.unwrap();
        assert!(!hangs.is_finished());
    }

    #[tokio::test]
    async fn an_agent_whose_kubeconfig_was_replaced_ends_what_it_has_under_way() {
        let ends = CancellationToken::new();
        let agent = ends.clone().cancelled_owned();
        let ended = watched(agent, async {}, ends.clone()).await;
        assert_eq!(ended, Ended::Replaced);
        assert!(ends.is_cancelled());
    }
}
