//! When objects have arrived in a cluster, by one metadata-only watch of its Deployments.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{sync::watch, task::JoinSet};

use super::tenant::REVISION;

/// What a namespace holds.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Revision by name.
    objects: BTreeMap<String, String>,
    /// Deletions so far.
    deleted: usize,
}

/// The Deployments of one namespace in one cluster that carry a revision.
pub struct Arrivals {
    seen: watch::Receiver<Seen>,
    _task: JoinSet<()>,
}

impl Arrivals {
    /// Starts watching. Neither the namespace nor any object needs to exist.
    pub fn watch(client: Client, namespace: &str) -> Self {
        let api: Api<PartialObjectMeta<Deployment>> = Api::namespaced(client, namespace);
        let (sender, seen) = watch::channel(Seen::default());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let events = watcher(api, watcher::Config::default());
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                // An interrupted watch is taken up again by the watcher itself.
                let Ok(event) = event else { continue };
                sender.send_modify(|seen| seen.take(event));
            }
        });
        Self { seen, _task: task }
    }

    /// Waits until `count` objects carry `revision`.
    pub async fn reach(&mut self, revision: &str, count: usize, limit: Duration) -> Result<()> {
        self.until(
            limit,
            &format!("{count} objects of revision {revision}"),
            |seen| {
                seen.objects
                    .values()
                    .filter(|found| *found == revision)
                    .count()
                    >= count
            },
        )
        .await
    }

    /// Waits until no object that carries `revision` is left.
    pub async fn leave(&mut self, revision: &str, limit: Duration) -> Result<()> {
        self.until(limit, "all objects to go", |seen| {
            seen.objects.values().all(|found| found != revision)
        })
        .await
    }

    /// Deletions seen so far.
    pub fn deletions(&self) -> usize {
        self.seen.borrow().deleted
    }

    /// Waits until `deletions` were seen and `count` objects carry `revision`.
    pub async fn recover(
        &mut self,
        deletions: usize,
        revision: &str,
        count: usize,
        limit: Duration,
    ) -> Result<()> {
        self.until(limit, "all deletions", |seen| seen.deleted >= deletions)
            .await?;
        self.reach(revision, count, limit).await
    }

    async fn until(
        &mut self,
        limit: Duration,
        what: &str,
        done: impl Fn(&Seen) -> bool,
    ) -> Result<()> {
        tokio::time::timeout(limit, self.seen.wait_for(|seen| done(seen)))
            .await
            .with_context(|| format!("waited {} s for {what}", limit.as_secs()))?
            .context("the watch ended")?;
        Ok(())
    }
}

impl Seen {
    fn take(&mut self, event: Event<PartialObjectMeta<Deployment>>) {
        match event {
            Event::Init => self.objects.clear(),
            Event::InitDone => {}
            Event::Apply(object) | Event::InitApply(object) => {
                let revision = object.labels().get(REVISION).cloned().unwrap_or_default();
                self.objects.insert(object.name_any(), revision);
            }
            Event::Delete(object) => {
                self.objects.remove(&object.name_any());
                self.deleted += 1;
            }
        }
    }
}
