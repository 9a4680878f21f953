//! `guard serve`: faces the citizens with the configuration that it was last given.
//!
//! ```text
//! connection ─ request ─ host, path ─ rule ─ changes ─ endpoint ─ answer
//!   server      proxy    headers,     prepare,          endpoint    body,
//!   tls                  path         matching                      answer
//! ```
//!
//! It holds no credentials of Kubernetes and asks nobody on the way of a request.

mod answer;
mod body;
mod by_host;
mod endpoint;
mod headers;
mod matching;
mod metrics;
mod path;
mod prepare;
mod protection;
mod proxy;
mod server;
pub mod store;
mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use endpoint::Dial;
pub use prepare::PrepareError;

use super::config::Configuration;
use metrics::Metrics;
use prepare::Serving;
use protection::Policies;
use proxy::{Bounds, Shared};
use server::Ports;

/// Ports below 1024 need rights that a guard shall not have; they are served so much higher.
const PRIVILEGED: u16 = 1024;
const SHIFT: u16 = 10_000;

/// How a guard serves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address that ports are opened on.
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
}

/// Why a configuration is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// What is in it.
    #[error("configuration {revision} cannot be served; the one before it stays in force")]
    Prepare {
        /// Which one.
        revision: String,
        /// Why.
        source: PrepareError,
    },
    /// A port is taken or not ours.
    #[error("cannot listen on {address} for port {port} of a Gateway")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The Gateway's port.
        port: u16,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A guard that serves. Dropping it ends nothing; [`Guard::drain`] does.
pub struct Guard {
    settings: Settings,
    ports: Ports,
    open: Mutex<BTreeMap<u16, CancellationToken>>,
}

/// The port that is really opened for a Gateway's port.
pub fn opened(port: u16) -> u16 {
    if port < PRIVILEGED {
        port + SHIFT
    } else {
        port
    }
}

impl Guard {
    /// A guard without a configuration, which listens on nothing.
    pub fn new(
        settings: Settings,
        registry: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        let shared = Shared {
            current: ArcSwap::from_pointee(Serving {
                revision: String::new(),
                ports: BTreeMap::new(),
                services: endpoint::Services::new(settings.dial),
                policies: Policies::new(settings.seed),
            }),
            bounds: Bounds {
                body_bytes_max: settings.body_bytes_max,
                body_pause_max: settings.body_pause_max,
            },
            upgraded: TaskTracker::new(),
            metrics: Metrics::register(registry)?,
        };
        let ports = Ports {
            shared: Arc::new(shared),
            room: Arc::new(Semaphore::new(settings.connections_max)),
            tracker: TaskTracker::new(),
            drain: CancellationToken::new(),
        };
        Ok(Self {
            settings,
            ports,
            open: Mutex::default(),
        })
    }

    /// Serves by another configuration from now on. Requests that are under way end by the one they
    /// began with; an error leaves everything as it is.
    pub async fn apply(&self, wanted: &Configuration) -> Result<(), ApplyError> {
        let before = self.ports.shared.current.load_full();
        let metrics = &self.ports.shared.metrics;
        let serving = Serving::prepare(wanted, &before, metrics).map_err(|source| {
            let revision = wanted.revision.clone();
            ApplyError::Prepare { revision, source }
        })?;
        let wanted: Vec<u16> = serving.ports.keys().copied().collect();
        let listeners = self.bind(&wanted).await?;
        tracing::info!(revision = serving.revision, "configuration in force");
        self.ports.shared.current.store(Arc::new(serving));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|port, stop| {
            let stays = wanted.contains(port);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for (listener, port) in listeners {
            let stop = self.ports.drain.child_token();
            open.insert(port, stop.clone());
            let accepting = self
                .ports
                .clone()
                .accept(listener, port, self.tls(port), stop);
            self.ports.tracker.spawn(accepting);
        }
        Ok(())
    }

    /// The revision in force; empty before the first.
    pub fn revision(&self) -> String {
        self.ports.shared.current.load().revision.clone()
    }

    /// Accepts no more, lets what is under way end, and returns after it did or `patience` is over.
    pub async fn drain(&self, patience: Duration) {
        self.ports.drain.cancel();
        self.ports.tracker.close();
        self.ports.shared.upgraded.close();
        let ended = async {
            self.ports.tracker.wait().await;
            self.ports.shared.upgraded.wait().await;
        };
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::warn!("connections were still open when the time for draining was over");
        }
    }

    async fn bind(&self, wanted: &[u16]) -> Result<Vec<(TcpListener, u16)>, ApplyError> {
        let is_open = |port: &u16| {
            self.open
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains_key(port)
        };
        let mut listeners = Vec::new();
        for port in wanted.iter().filter(|port| !is_open(port)) {
            let address = SocketAddr::new(self.settings.address, opened(*port));
            let listener = TcpListener::bind(address).await;
            let bad = |source| ApplyError::Bind {
                address,
                port: *port,
                source,
            };
            listeners.push((listener.map_err(bad)?, *port));
        }
        Ok(listeners)
    }

    fn tls(&self, port: u16) -> Arc<rustls::ServerConfig> {
        let shared = Arc::clone(&self.ports.shared);
        tls::server(Arc::new(tls::Resolver(
            move |find: &dyn Fn(&tls::Certificates) -> _| {
                let serving = shared.current.load();
                serving
                    .ports
                    .get(&port)
                    .and_then(|port| find(&port.certificates))
            },
        )))
    }
}
