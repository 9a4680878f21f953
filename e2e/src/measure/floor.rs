//! The floor: the least that any program must do to keep Deployments of one cluster in others.
//!
//! One watch at the hub; for each event and each member one server-side apply of labels and spec,
//! or one delete; four connections per member, each object always on the same one, so that its
//! events stay in order. No status, no policy, no repair, no cache, no retries.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result};
use futures::TryStreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, WatchEvent, WatchParams},
};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};

use crate::fleet::client_from;

/// Connections per member.
const CONNECTIONS: usize = 4;
/// Events that wait for a connection.
const QUEUE: usize = 4096;

/// The command line of the floor program.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Kubeconfig of the hub
    #[arg(long)]
    hub: PathBuf,
    /// Kubeconfig of a member
    #[arg(long = "member")]
    members: Vec<PathBuf>,
    /// Namespace to keep
    #[arg(long)]
    namespace: String,
}

/// What to do with one object; no body means delete.
struct Work {
    name: String,
    body: Option<Arc<String>>,
}

/// Keeps the members as the hub is, until killed.
pub async fn run(options: Options) -> Result<()> {
    let collection = format!("/apis/apps/v1/namespaces/{}/deployments", options.namespace);
    let mut workers = JoinSet::new();
    let mut members = Vec::new();
    for file in &options.members {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let (sender, work) = mpsc::channel(QUEUE);
            workers.spawn(carry_out(client(file).await?, collection.clone(), work));
            connections.push(sender);
        }
        members.push(connections);
    }
    let hub = client(&options.hub).await?;
    let kind = ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(hub, &options.namespace, &kind);
    let mut version = "0".to_owned();
    loop {
        let mut events = std::pin::pin!(api.watch(&WatchParams::default(), &version).await?);
        while let Some(event) = events.try_next().await? {
            let (object, delete) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => anyhow::bail!("the watch failed: {status}"),
            };
            version = object.resource_version().unwrap_or_default();
            hand_out(&members, &object, delete).await?;
        }
    }
}

async fn client(file: &PathBuf) -> Result<Client> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    client_from(&text).await
}

async fn hand_out(
    members: &[Vec<mpsc::Sender<Work>>],
    object: &DynamicObject,
    delete: bool,
) -> Result<()> {
    let name = object.name_any();
    let body = (!delete).then(|| {
        let applied = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "labels": object.metadata.labels},
            "spec": object.data["spec"],
        });
        Arc::new(applied.to_string())
    });
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let slot = usize::try_from(hasher.finish() % CONNECTIONS as u64)?;
    for connections in members {
        let work = Work {
            name: name.clone(),
            body: body.clone(),
        };
        connections[slot]
            .send(work)
            .await
            .context("a connection failed")?;
    }
    Ok(())
}

async fn carry_out(
    client: Client,
    collection: String,
    mut queue: mpsc::Receiver<Work>,
) -> Result<()> {
    while let Some(Work { name, body }) = queue.recv().await {
        let one = format!("{collection}/{name}");
        let request = match body {
            Some(body) => http::Request::patch(format!("{one}?fieldManager=floor&force=true"))
                .header("content-type", "application/apply-patch+yaml")
                .body(body.as_bytes().to_vec())?,
            None => http::Request::delete(one).body(vec![])?,
        };
        if let Err(error) = client.request_text(request).await {
            super::say(&format!("floor: {name}: {error}"));
        }
    }
    Ok(())
}
