//! The load: a few keep-alive connections that each send one request after the other.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result};
use kube::Client;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::fleet::Cluster;

/// Connections of a load.
const CONNECTIONS: usize = 8;

/// What to send for each number.
#[derive(Clone)]
pub enum Call {
    /// POST to a collection.
    Create(fn(&str, &str) -> Value, String),
    /// JSON patch of one object.
    Update(Value),
    /// DELETE of one object.
    Delete,
}

/// Connections to one cluster.
pub struct Load {
    clients: Vec<Client>,
}

impl Load {
    /// Prepares connections as the cluster's administrator; they open with the first request.
    pub async fn on(cluster: &Cluster) -> Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            // A client of its own is a connection of its own.
            clients.push(cluster.client().await?);
        }
        Ok(Self { clients })
    }

    /// Sends a call for each number below `count` to a collection such as
    /// `/apis/apps/v1/namespaces/x/deployments`.
    pub async fn run(&self, collection: &str, count: usize, call: &Call) -> Result<()> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut connections = JoinSet::new();
        for client in &self.clients {
            let (client, next) = (client.clone(), Arc::clone(&next));
            let (collection, call) = (collection.to_owned(), call.clone());
            connections.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return anyhow::Ok(());
                    }
                    send(&client, &collection, &super::tenant::name(number), &call).await?;
                }
            });
        }
        while let Some(ended) = connections.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Sends one call about the object `name`.
pub async fn send(client: &Client, collection: &str, name: &str, call: &Call) -> Result<()> {
    let json = "application/json";
    let one = format!("{collection}/{name}");
    let request = match call {
        Call::Create(object, revision) => http::Request::post(collection)
            .header("content-type", json)
            .body(object(name, revision).to_string().into_bytes())?,
        Call::Update(patch) => http::Request::patch(one)
            .header("content-type", "application/json-patch+json")
            .body(patch.to_string().into_bytes())?,
        Call::Delete => http::Request::delete(one)
            .header("content-type", json)
            .body(br#"{"propagationPolicy":"Background"}"#.to_vec())?,
    };
    let answer = client.request_text(request).await;
    answer
        .map(drop)
        .with_context(|| format!("load {collection}/{name}"))
}
