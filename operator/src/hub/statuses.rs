//! Writing statuses: on a task of their own, after assignments, at most once a second per object,
//! and only what differs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crds::{
    App, AppName, AppStatus, ClusterName, MemberCluster, MemberClusterStatus, NamespaceName,
    Region, RegionName, RegionStatus, Uid,
};
use futures::{StreamExt as _, stream};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::prepare::MANAGER;
use crate::runtime::lease::Leadership;

/// Statuses written at a time: fewer than assignments, which go first.
const CONCURRENCY: usize = 6;
/// Least time between two statuses of one object.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time that a first status may wait for the next one: most Apps are done within it, and one write
/// then says what two would have.
const SETTLE: Duration = Duration::from_millis(700);

/// An object with a status.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    App(NamespaceName, AppName, Uid),
    Region(RegionName),
    Cluster(ClusterName),
}

/// A status to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Status {
    App(Box<AppStatus>),
    Region(Box<RegionStatus>),
    Cluster(Box<MemberClusterStatus>),
}

/// Statuses that wait to be written: one per object, the newest.
#[derive(Clone, Default)]
pub(super) struct Statuses {
    waiting: Arc<Mutex<Waiting>>,
    news: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    wanted: BTreeMap<Owner, (Status, Instant)>,
    /// Last status written of each object, and when it may be written again.
    written: BTreeMap<Owner, (Status, Instant)>,
}

impl Statuses {
    /// Asks for a status to be written, in place of any that still waits.
    pub(super) fn want(&self, owner: Owner, status: Status, urgent: bool) {
        let now = Instant::now();
        let mut waiting = self.lock();
        let due = match (waiting.written.get(&owner), waiting.wanted.get(&owner)) {
            (Some((written, _)), _) if *written == status => {
                waiting.wanted.remove(&owner);
                return;
            }
            (_, Some((_, due))) if urgent => (*due).min(now),
            (_, Some((_, due))) => *due,
            (Some((_, again)), None) => (*again).max(now),
            (None, None) if urgent => now,
            (None, None) => now + SETTLE,
        };
        waiting.wanted.insert(owner, (status, due));
        drop(waiting);
        self.news.notify_one();
    }

    /// Forgets everything: another leader writes from now on.
    pub(super) fn clear(&self) {
        *self.lock() = Waiting::default();
    }

    /// Writes statuses as long as we lead.
    pub(super) async fn write(&self, client: &Client, leadership: &Leadership) {
        loop {
            let (due, next) = self.take_due();
            if due.is_empty() {
                let pause = next.map_or(Duration::from_hours(1), |at| {
                    at.saturating_duration_since(Instant::now())
                });
                tokio::select! {
                    () = self.news.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                continue;
            }
            let writes = due
                .into_iter()
                .map(|(owner, status)| self.one(client, leadership.epoch(), owner, status));
            stream::iter(writes)
                .buffer_unordered(CONCURRENCY)
                .for_each(|()| async {})
                .await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_due(&self) -> (Vec<(Owner, Status)>, Option<Instant>) {
        let now = Instant::now();
        let mut waiting = self.lock();
        let due: Vec<Owner> = waiting
            .wanted
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(o, _)| o.clone())
            .take(64)
            .collect();
        let taken = due
            .into_iter()
            .filter_map(|owner| waiting.wanted.remove_entry(&owner))
            .map(|(o, (s, _))| (o, s))
            .collect();
        (taken, waiting.wanted.values().map(|(_, at)| *at).min())
    }

    async fn one(&self, client: &Client, epoch: i64, owner: Owner, status: Status) {
        let result = write_one(client, epoch, &owner, &status).await;
        let mut waiting = self.lock();
        match result {
            Ok(()) => drop(
                waiting
                    .written
                    .insert(owner, (status, Instant::now() + INTERVAL)),
            ),
            // The object is gone or another one of that name: nobody waits for this status.
            Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, ?owner, "status not written");
                waiting
                    .wanted
                    .entry(owner)
                    .or_insert((status, Instant::now() + INTERVAL));
            }
        }
    }
}

async fn write_one(
    client: &Client,
    epoch: i64,
    owner: &Owner,
    status: &Status,
) -> Result<(), kube::Error> {
    let params = PatchParams::apply(MANAGER).force();
    let mut body = match status {
        Status::App(status) => json!(status),
        Status::Region(status) => json!(status),
        Status::Cluster(status) => json!(status),
    };
    body["leaderEpoch"] = json!(epoch);
    let object = |kind: &str, metadata: Value| {
        Patch::Apply(
            json!({"apiVersion": "jiuzhou.io/v1alpha1", "kind": kind, "metadata": metadata, "status": body}),
        )
    };
    match owner {
        Owner::App(namespace, name, uid) => {
            let api: Api<App> = Api::namespaced(client.clone(), namespace.as_str());
            let patch = object(
                "App",
                json!({"name": name, "namespace": namespace, "uid": uid}),
            );
            api.patch_status(name.as_str(), &params, &patch).await?;
        }
        Owner::Region(name) => {
            let api: Api<Region> = Api::all(client.clone());
            api.patch_status(
                name.as_str(),
                &params,
                &object("Region", json!({"name": name})),
            )
            .await?;
        }
        Owner::Cluster(name) => {
            let api: Api<MemberCluster> = Api::all(client.clone());
            api.patch_status(
                name.as_str(),
                &params,
                &object("MemberCluster", json!({"name": name})),
            )
            .await?;
        }
    }
    Ok(())
}
