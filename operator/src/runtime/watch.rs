//! Endless list and watch of one kind, for any kind.
//!
//! kube's own watcher hides bookmarks, reopens a watch that ends without a pause, and resumes a
//! version that the server will never know again for ever. This one shows each sign of life
//! ([`Freshness`]), waits longer after each failure, for this kind alone, and lists anew when
//! resuming keeps failing. A list is handed over whole or not at all.

use std::{convert::Infallible, fmt::Debug, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::backoff::Backoff;

mod freshness;
#[cfg(test)]
mod tests;

pub use freshness::{Freshness, Proof};

/// What happened to a kind's objects.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<K> {
    /// All objects there are; whatever else was known is gone.
    Replaced(Vec<K>),
    /// One object as it is now.
    Applied(K),
    /// One object as it last was.
    Deleted(K),
}

/// Which objects of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Label selector.
    pub labels: Option<String>,
    /// Field selector.
    pub fields: Option<String>,
}

/// The times of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The server ends a watch after this; it is then resumed. Shorter than the usual minutes so
    /// that a connection that died silently is noticed by the next two.
    pub server_ends: Duration,
    /// Without a byte for this long the connection is given up. A healthy one has at least ended
    /// by then, and a frozen one is noticed within a minute.
    pub idle: Duration,
    /// Bounds of the waits after failures.
    pub backoff: (Duration, Duration),
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            server_ends: Duration::from_secs(50),
            idle: Duration::from_mins(1),
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
        }
    }
}

/// Objects per page: as kubectl, and small enough that an answer fits its deadline.
const PAGE: u32 = 500;
/// Objects of one kind that are taken in. Four times what the largest province has of any; more are
/// a mistake or an attack, and taking them in would cost the memory that everything else needs.
const OBJECTS_MAX: usize = 200_000;
/// Pages of one list. A server that hands out ever more pages with little in them ends here.
const PAGES_MAX: usize = OBJECTS_MAX / PAGE as usize;
/// Failures to resume after which the version is thought lost, for example because the cluster was
/// restored from an older backup and will not reach that version for days.
const RESUMES: u32 = 3;

/// Why a list or watch ended. Each is followed by another attempt.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A page of the list failed.
    #[error("cannot list")]
    List(#[source] Box<kube::Error>),
    /// The list has no end, or is longer than anything here can be.
    #[error("the list is longer than {OBJECTS_MAX} objects or {PAGES_MAX} pages")]
    TooLong,
    /// The watch did not begin.
    #[error("cannot start watching")]
    Start(#[source] Box<kube::Error>),
    /// The watch broke or carried something that cannot be read.
    #[error("the watch failed")]
    Stream(#[source] Box<kube::Error>),
    /// The server no longer knows the version to resume from.
    #[error("the watched version is no longer known")]
    Expired,
    /// Nothing came for longer than a healthy watch lasts.
    #[error("the watch was silent for {0:?}")]
    Silent(Duration),
    /// The server ends watches as soon as they begin.
    #[error("the watch ended at once")]
    Short,
    /// The server sent objects without a version, so nothing could be resumed.
    #[error("the server sent no resourceVersion")]
    NoVersion,
}

/// Lists and watches until the receiver of `sink` is dropped.
///
/// Where objects may be unreadable, watch `kube::core::DeserializeGuard<K>`: otherwise one bad
/// object keeps its whole kind from being listed. A full channel holds the watch back, which shows
/// as a stale [`Proof`].
pub async fn watch<K, T>(
    api: Api<K>,
    selection: Selection,
    timing: Timing,
    sink: mpsc::Sender<T>,
    proof: Proof,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    Change<K>: Into<T>,
{
    let heard = sink.clone();
    let watch = Watch {
        api,
        selection,
        timing,
        sink,
        proof,
        version: None,
    };
    tokio::select! {
        biased;
        () = heard.closed() => {}
        never = watch.run() => match never {},
    }
}

struct Watch<K, T> {
    api: Api<K>,
    selection: Selection,
    timing: Timing,
    sink: mpsc::Sender<T>,
    proof: Proof,
    /// Where to resume; `None` means list first.
    version: Option<String>,
}

impl<K, T> Watch<K, T>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    Change<K>: Into<T>,
{
    async fn run(mut self) -> Infallible {
        let mut backoff = Backoff::new(self.timing.backoff.0, self.timing.backoff.1);
        loop {
            let Err(error) = self.step(&mut backoff).await else {
                continue;
            };
            if lost(&error, backoff.failures() + 1) {
                self.version = None;
            }
            let pause = backoff.wait();
            self.report(&error, pause);
            tokio::time::sleep(pause).await;
        }
    }

    fn report(&self, error: &WatchError, pause: Duration) {
        let (kind, relist) = (self.proof.kind(), self.version.is_none());
        let error: &dyn std::error::Error = error;
        tracing::warn!(kind, error, ?pause, relist, "watch interrupted");
    }

    /// One list or one watch.
    async fn step(&mut self, backoff: &mut Backoff) -> Result<(), WatchError> {
        if let Some(version) = self.version.clone() {
            return self.follow(version, backoff).await;
        }
        let (objects, version) = self.list().await?;
        self.proof.renew();
        self.send(Change::Replaced(objects)).await;
        self.version = Some(version);
        Ok(())
    }

    /// Every page, from the leader's own store: an old list must never look like a new one.
    async fn list(&self) -> Result<(Vec<K>, String), WatchError> {
        let mut parameters = ListParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let mut objects = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.api.list(&parameters).await;
            let page = page.map_err(|error| WatchError::List(Box::new(error)))?;
            objects.extend(page.items.into_iter().map(lighten));
            if objects.len() > OBJECTS_MAX {
                break;
            }
            parameters.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if parameters.continue_token.is_none() {
                let version = page
                    .metadata
                    .resource_version
                    .filter(|version| !version.is_empty());
                return Ok((objects, version.ok_or(WatchError::NoVersion)?));
            }
        }
        Err(WatchError::TooLong)
    }

    /// One watch, until it ends.
    async fn follow(&mut self, version: String, backoff: &mut Backoff) -> Result<(), WatchError> {
        let parameters = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(u32::try_from(self.timing.server_ends.as_secs()).unwrap_or(u32::MAX)),
            bookmarks: true,
            ..WatchParams::default()
        };
        let began = Instant::now();
        let stream = self.api.watch(&parameters, &version);
        let stream = tokio::select! {
            stream = timeout(self.timing.idle, stream) => stream,
            () = self.proof.nudged() => return Ok(()),
        };
        let stream = stream.map_err(|_| WatchError::Silent(self.timing.idle))?;
        let stream = stream.map_err(|error| failed(error, WatchError::Start))?;
        self.proof.renew();
        let mut stream = stream.into_stream().boxed();
        let mut news = false;
        loop {
            let event = tokio::select! {
                event = timeout(self.timing.idle, stream.next()) => event,
                () = self.proof.nudged() => return Ok(()),
            };
            let event = event.map_err(|_| WatchError::Silent(self.timing.idle))?;
            let Some(event) = event else { break };
            let event = event.map_err(|error| failed(error, WatchError::Stream))?;
            self.pass_on(event).await?;
            news = true;
            backoff.reset();
        }
        if !news && began.elapsed() < self.timing.backoff.0 {
            return Err(WatchError::Short);
        }
        backoff.reset();
        Ok(())
    }

    async fn pass_on(&mut self, event: WatchEvent<K>) -> Result<(), WatchError> {
        let (version, change) = match event {
            WatchEvent::Bookmark(bookmark) => (Some(bookmark.metadata.resource_version), None),
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (
                object.meta().resource_version.clone(),
                Some(Change::Applied(lighten(object))),
            ),
            WatchEvent::Deleted(object) => (
                object.meta().resource_version.clone(),
                Some(Change::Deleted(lighten(object))),
            ),
            WatchEvent::Error(status) => {
                let error = kube::Error::Api(Box::new(*status));
                return Err(failed(error, WatchError::Stream));
            }
        };
        let version = version.filter(|version| !version.is_empty());
        let version = version.ok_or(WatchError::NoVersion)?;
        self.proof.renew();
        if let Some(change) = change {
            self.send(change).await;
        }
        self.version = Some(version);
        Ok(())
    }

    async fn send(&self, change: Change<K>) {
        // Fails only when the receiver is gone, and that has ended the watch already.
        let _ = self.sink.send(change.into()).await;
    }
}

/// Must we list again, after this many failures in a row?
const fn lost(error: &WatchError, failures: u32) -> bool {
    match error {
        WatchError::List(_) | WatchError::TooLong | WatchError::Expired | WatchError::NoVersion => {
            true
        }
        WatchError::Start(_) | WatchError::Stream(_) => failures >= RESUMES,
        // The connection was at fault, not the version.
        WatchError::Silent(_) | WatchError::Short => false,
    }
}

/// 410 has a meaning of its own wherever it appears.
fn failed(error: kube::Error, other: fn(Box<kube::Error>) -> WatchError) -> WatchError {
    let expired = matches!(&error, kube::Error::Api(status) if status.code == 410);
    if expired {
        WatchError::Expired
    } else {
        other(Box::new(error))
    }
}

/// Without managedFields, which nothing here reads and which are often half of an object.
fn lighten<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}
