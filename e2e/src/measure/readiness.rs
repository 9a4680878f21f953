//! When Apps say how far they are, by one watch of their statuses at the hub.
//!
//! A watch costs the API server next to nothing: what it sends is encoded once for the hub's own
//! watch and this one. Listing a thousand Apps again and again would cost more than is measured.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    runtime::watcher::{self, Event, watcher},
};
use tokio::{sync::watch, task::JoinSet};

/// What the status of an App has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// That its objects are applied in every cluster. Without workload controllers nothing runs.
    Applied,
    /// That it is Ready.
    Ready,
}

impl Says {
    fn condition(self) -> &'static str {
        match self {
            Self::Applied => "Applied",
            Self::Ready => "Ready",
        }
    }
}

/// Each App of one namespace, and whether its status says so of the App as it is now.
pub struct Readiness {
    seen: watch::Receiver<BTreeMap<String, bool>>,
    _task: JoinSet<()>,
}

impl Readiness {
    /// Starts watching.
    pub fn watch(client: Client, namespace: &str, says: Says) -> Self {
        let kind = ApiResource::erase::<crds::App>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &kind);
        let (sender, seen) = watch::channel(BTreeMap::new());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                // An interrupted watch is taken up again by the watcher itself.
                let Ok(event) = event else { continue };
                sender.send_modify(|seen| take(seen, &event, says));
            }
        });
        Self { seen, _task: task }
    }

    /// Waits until `count` Apps are there and all of their statuses say so.
    pub async fn reach(&mut self, count: usize, limit: Duration) -> Result<()> {
        let ready = |seen: &BTreeMap<String, bool>| {
            seen.len() == count && seen.values().all(|ready| *ready)
        };
        let reached = async { self.seen.wait_for(ready).await.map(drop) };
        if let Ok(reached) = tokio::time::timeout(limit, reached).await {
            return reached.context("the watch ended");
        }
        let seen = self.seen.borrow();
        let late: Vec<&String> = seen
            .iter()
            .filter(|(_, ready)| !**ready)
            .map(|(name, _)| name)
            .collect();
        anyhow::bail!(
            "waited {} s for the statuses of {count} Apps; {} are there, {} of them not yet: {:?}",
            limit.as_secs(),
            seen.len(),
            late.len(),
            late.iter().take(3).collect::<Vec<_>>()
        )
    }
}

fn take(seen: &mut BTreeMap<String, bool>, event: &Event<DynamicObject>, says: Says) {
    match event {
        Event::Init => seen.clear(),
        Event::InitDone => {}
        Event::Apply(app) | Event::InitApply(app) => {
            seen.insert(app.name_any(), told(app, says));
        }
        Event::Delete(app) => {
            seen.remove(&app.name_any());
        }
    }
}

fn told(app: &DynamicObject, says: Says) -> bool {
    let status = &app.data["status"];
    let conditions = status["conditions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    app.metadata.deletion_timestamp.is_none()
        && status["observedGeneration"].as_i64() == app.metadata.generation
        && conditions
            .iter()
            .any(|c| c["type"] == says.condition() && c["status"] == "True")
}
