//! `guard serve`: faces the citizens with the configuration that it was last given.
//!
//! ```text
//! connection ─ request ─ host, path ─ rule ─ changes ─ endpoint ─ answer
//!   server      proxy    headers,     prepare,          endpoint    body,
//!   tls                  path         matching          pool,       answer
//!                                                       retry
//! ```
//!
//! It holds no credentials of Kubernetes and asks nobody on the way of a request.

mod access_log;
mod answer;
mod answers;
mod arrived;
mod body;
mod by_host;
mod changes;
mod client;
mod dial;
mod due;
mod endpoint;
pub mod fetch;
mod framing;
mod given;
mod headers;
pub(super) mod jwt;
mod keys;
mod language;
mod listening;
mod matching;
mod metrics;
mod outgoing;
mod passing;
mod patterns;
mod pool;
mod prepare;
mod protection;
mod proxy;
mod queued;
mod ready;
mod record;
mod retry;
mod room;
mod scrape;
mod seat;
mod server;
mod shares;
pub mod store;
mod tls;
mod trace;
mod tunnel;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use opentelemetry_sdk::trace::SdkTracer;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use access_log::{AccessLogError, AccessLogTarget};
pub use dial::Dial;
pub use prepare::PrepareError;
pub use room::{RoomFault, RoomLink};

use super::config::{Configuration, Opening};
use super::exchange::{ByRule, Demand};
use super::standing::Standing;
use access_log::AccessLog;
use listening::Listening;
use metrics::Metrics;
use outgoing::Bounds;
use prepare::Serving;
use proxy::Shared;
use scrape::Scrape;
use server::Ports;
use shares::Held;
use trace::Tracing;

/// Proxies in a row that may be trusted. Real ways have two or three; each is an entry to read in every request.
pub const TRUSTED_HOPS_MAX: u8 = 16;
/// What is cut ends as soon as its task has its turn.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// How a guard serves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address that ports are opened on which name none.
    pub address: IpAddr,
    /// Random bits that nobody else knows: by them keys of limits are hashed.
    pub seed: [u8; 16],
    /// Where addresses of pods are really reached.
    pub dial: Dial,
    /// Connections of clients at one time.
    pub connections_max: usize,
    /// Bytes of one request's body.
    pub body_bytes_max: u64,
    /// Between two parts of a request's body.
    pub body_pause_max: Duration,
    /// How long neither side of a WebSocket may say anything.
    pub upgrade_idle_max: Duration,
    /// What is told of single requests.
    pub observing: Observing,
    /// Proxies in front whose word is taken for who the client is, at most [`TRUSTED_HOPS_MAX`].
    pub trusted_hops: u8,
}

/// What is told of single requests; by default nothing is.
#[derive(Clone, Debug, Default)]
pub struct Observing {
    /// Where the access log goes.
    pub access_log: AccessLogTarget,
    /// The share of requests that are logged.
    pub access_log_percent: u32,
    /// Where traces go; none where they go nowhere.
    pub tracer: Option<SdkTracer>,
    /// The share of the traces beginning here that are sampled.
    pub trace_percent: f64,
}

/// Why a guard cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A metric is there already.
    #[error("cannot register the guard's metrics")]
    Metrics(#[from] prometheus::Error),
    /// The access log.
    #[error("cannot set up the access log")]
    AccessLog(#[from] AccessLogError),
    /// A constant of ours.
    #[error("cannot bound the traces that clients ask for")]
    Traces(#[from] shield::QuotaError),
}

/// Why a configuration is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// What is in it.
    #[error("{} cannot be served; the one before it stays in force", named(.revision))]
    Prepare {
        /// Which one.
        revision: String,
        /// Why.
        source: PrepareError,
    },
    /// A fault of ours, or the process ends.
    #[error("{} was not made ready to the end; the one before it stays in force", named(.revision))]
    Unprepared {
        /// Which one.
        revision: String,
        /// Why.
        source: JoinError,
    },
}

/// A configuration, as errors name it.
fn named(revision: &str) -> String {
    if revision.is_empty() {
        "a configuration without a revision".to_owned()
    } else {
        format!("configuration {revision}")
    }
}

/// A guard that serves. Dropping it ends nothing; [`Guard::drain`] does.
pub struct Guard {
    ports: Ports,
    listening: Listening,
    tending: Once,
    held: Held,
    /// Held while a configuration comes into force or shares are set: shares that were set by a configuration
    /// that is no more would undo what the next one says of the same limits.
    changing: Mutex<()>,
}

impl Guard {
    /// A guard without a configuration, which listens on nothing.
    pub fn new(settings: &Settings, registry: &prometheus::Registry) -> Result<Self, SetupError> {
        let metrics = Metrics::register(registry)?;
        let serving = Serving::nothing(settings.dial, settings.seed, metrics.tokens.clone());
        let clock = serving.policies.clock;
        let observing = &settings.observing;
        let log = AccessLog::open(
            &observing.access_log,
            observing.access_log_percent,
            &metrics.log_dropped,
            clock,
        )?;
        let tracer = observing.tracer.clone();
        let tracing = tracer.map(|tracer| Tracing::new(tracer, observing.trace_percent, clock));
        let shared = Arc::new(Shared {
            current: ArcSwap::from_pointee(serving),
            bounds: Bounds {
                bytes_max: settings.body_bytes_max,
                pause_max: settings.body_pause_max,
                kept: Arc::new(AtomicUsize::new(0)),
            },
            upgraded: TaskTracker::new(),
            ends: AtomicBool::new(false),
            cut: CancellationToken::new(),
            upgrade_idle_max: settings.upgrade_idle_max,
            trusted_hops: settings.trusted_hops.min(TRUSTED_HOPS_MAX),
            metrics,
            log,
            tracing: tracing.transpose()?,
        });
        registry.register(Box::new(Scrape::new(Arc::clone(&shared))?))?;
        let ports = Ports {
            shared,
            room: Arc::new(Semaphore::new(settings.connections_max)),
            tracker: TaskTracker::new(),
            drain: CancellationToken::new(),
        };
        Ok(Self {
            listening: Listening::new(settings.address, ports.clone()),
            ports,
            tending: Once::new(),
            held: Held::default(),
            changing: Mutex::default(),
        })
    }

    /// Serves by another configuration from now on. Requests that are under way end by the one they
    /// began with; an error leaves everything as it is. A port that cannot be opened now is tried again
    /// every second.
    pub async fn apply(&self, wanted: &Configuration) -> Result<(), ApplyError> {
        let before = self.ports.shared.current.load_full();
        let serving = self.prepare(wanted, &before).await?;
        let wanted: Vec<Opening> = serving.ports.keys().copied().collect();
        let has_rooms = !serving.rooms.is_empty();
        self.put_in_force(serving);
        if has_rooms {
            let shared = Arc::downgrade(&self.ports.shared);
            self.tending
                .call_once(|| drop(tokio::spawn(room::tend(shared))));
        }
        self.listening.listen(&wanted).await;
        self.forget(&before);
        Ok(())
    }

    /// Aside, since requests go on meanwhile: expressions, certificates and keys of a large configuration take
    /// seconds.
    async fn prepare(
        &self,
        wanted: &Configuration,
        before: &Arc<Serving>,
    ) -> Result<Serving, ApplyError> {
        let (shared, before) = (Arc::clone(&self.ports.shared), Arc::clone(before));
        let revision = wanted.revision.clone();
        let wanted = wanted.clone();
        let preparing = tokio::task::spawn_blocking(move || {
            Serving::prepare(&wanted, &before, &shared.metrics)
        });
        match preparing.await {
            Ok(Ok(serving)) => Ok(serving),
            Ok(Err(source)) => Err(ApplyError::Prepare { revision, source }),
            Err(source) => Err(ApplyError::Unprepared { revision, source }),
        }
    }

    /// Drops the series of routes that are no more.
    fn forget(&self, before: &Serving) {
        let now = self.ports.shared.current.load();
        let mut gone: BTreeSet<&str> = before.routes().collect();
        for route in now.routes() {
            gone.remove(route);
        }
        self.ports.shared.metrics.forget(&gone);
    }

    /// Nothing here can fail, and before it nothing of what is in force was changed.
    fn put_in_force(&self, serving: Serving) {
        let changing = self.changing.lock();
        let _changing = changing.unwrap_or_else(PoisonError::into_inner);
        serving.policies.adopt();
        self.held.apply(&serving.policies);
        tracing::info!(revision = serving.revision, "configuration in force");
        self.ports.shared.current.store(Arc::new(serving));
    }

    /// Lets somebody else coordinate waiting rooms over so many guards; until then this guard does so
    /// alone. To be called before the first configuration.
    pub fn share_rooms(&self, guards: NonZeroU32) -> RoomLink {
        RoomLink::new(Arc::clone(&self.ports.shared), guards)
    }

    /// Enforces these parts of shared limits from now on, and `otherwise` of those that are not named.
    pub fn hold(&self, given: ByRule<shield::Share>, otherwise: shield::Share) {
        let changing = self.changing.lock();
        let _changing = changing.unwrap_or_else(PoisonError::into_inner);
        self.held.set(given, otherwise);
        let serving = self.ports.shared.current.load();
        if !serving.revision.is_empty() {
            self.held.apply(&serving.policies);
        }
    }

    /// What is asked of each shared limit, and which part of it is enforced here.
    pub fn demand(&self) -> ByRule<Demand> {
        shares::demand(&self.ports.shared.current.load().policies)
    }

    /// The revision in force; empty before the first.
    pub fn revision(&self) -> String {
        self.ports.shared.current.load().revision.clone()
    }

    /// The ports of the configuration in force that cannot be opened yet, in their order.
    pub fn closed(&self) -> Vec<Opening> {
        self.listening.closed()
    }

    /// What protects the routes, and what it did.
    pub fn standing(&self) -> Standing {
        scrape::standing(&self.ports.shared)
    }

    /// Keeps no connection of HTTP/1 from now on: each answer says that its connection ends. To be called when it
    /// is known that the guard will end, a while before [`Guard::drain`], which can only close those on which
    /// nothing is asked.
    pub fn keep_no_more(&self) {
        self.ports.shared.ends.store(true, Ordering::Relaxed);
    }

    /// Accepts no more, lets what is under way end, and returns after it did. What goes on when `patience` is over
    /// is cut.
    pub async fn drain(&self, patience: Duration) {
        self.keep_no_more();
        self.ports.drain.cancel();
        self.ports.tracker.close();
        self.ports.shared.upgraded.close();
        if tokio::time::timeout(patience, self.ended()).await.is_err() {
            tracing::warn!("connections were still open when the time for draining was over");
            self.ports.shared.cut.cancel();
            // So that the log has the last lines of what was cut.
            let _ended = tokio::time::timeout(CUT_PATIENCE, self.ended()).await;
        }
        if let Some(log) = &self.ports.shared.log {
            log.flush().await;
        }
    }

    /// Waits until no connection is left.
    async fn ended(&self) {
        self.ports.tracker.wait().await;
        self.ports.shared.upgraded.wait().await;
    }
}
