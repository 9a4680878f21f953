//! Which ports are open: those that the configuration wants, as soon as the system lets them be opened.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::proxy::Shared;
use super::server::Ports;
use super::tls;
use crate::guard::config::Opening;
use crate::guard::ports::opened;

/// After this a port that could not be opened is tried again: what took it may be gone by then, and
/// an attempt costs three system calls.
const AGAIN: Duration = Duration::from_secs(1);

/// The ports of a guard.
#[derive(Debug)]
pub(super) struct Listening {
    address: IpAddr,
    ports: Ports,
    /// Ports that are wanted, open or not yet.
    wanted: Mutex<BTreeMap<Opening, Wanted>>,
}

/// A port that is wanted.
#[derive(Debug)]
struct Wanted {
    /// What ends it.
    stop: CancellationToken,
    /// Set while it cannot be opened.
    closed: Arc<AtomicBool>,
}

impl Listening {
    pub(super) fn new(address: IpAddr, ports: Ports) -> Self {
        Self {
            address,
            ports,
            wanted: Mutex::default(),
        }
    }

    /// Listens on exactly these from now on. What can be opened is open when it returns.
    pub(super) async fn listen(&self, wanted: &[Opening]) {
        self.lock().retain(|opening, known| {
            let stays = wanted.contains(opening);
            if !stays {
                known.stop.cancel();
            }
            stays
        });
        for opening in wanted.iter().copied() {
            if self.lock().contains_key(&opening) {
                continue;
            }
            let address = opening.address.unwrap_or(self.address);
            let address = SocketAddr::new(address, opened(opening.port));
            let bound = TcpListener::bind(address).await;
            let stop = self.ports.drain.child_token();
            let known = Wanted {
                stop: stop.clone(),
                closed: Arc::default(),
            };
            let ports = self.ports.clone();
            let closed = bound
                .is_err()
                .then(|| Closed::count(&ports, Arc::clone(&known.closed)));
            self.lock().insert(opening, known);
            let tls = self.tls(opening);
            self.ports.tracker.spawn(async move {
                let opened = open(closed, address, opening.port, bound);
                if let Some(listener) = stop.run_until_cancelled(opened).await {
                    ports.accept(listener, opening, tls, stop).await;
                }
            });
        }
    }

    /// The ports that cannot be opened yet, in their order.
    pub(super) fn closed(&self) -> Vec<Opening> {
        let wanted = self.lock();
        let closed = wanted
            .iter()
            .filter(|(_, known)| known.closed.load(Ordering::Relaxed));
        closed.map(|(opening, _)| *opening).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Opening, Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tls(&self, opening: Opening) -> Arc<ServerConfig> {
        let shared = Arc::clone(&self.ports.shared);
        tls::server(Arc::new(tls::Resolver(
            move |find: &dyn Fn(&tls::Certificates) -> _| {
                let serving = shared.current.load();
                serving
                    .ports
                    .get(&opening)
                    .and_then(|port| find(&port.certificates))
            },
        )))
    }
}

/// Tries until the port is open. `first` is what the first attempt brought; until then it is `closed`.
async fn open(
    closed: Option<Closed>,
    address: SocketAddr,
    port: u16,
    first: io::Result<TcpListener>,
) -> TcpListener {
    let error = match first {
        Ok(listener) => return listener,
        Err(error) => error,
    };
    tracing::error!(
        port,
        %address,
        %error,
        "cannot listen for a port of a Gateway; free the address, it is tried again every second"
    );
    let _closed = closed;
    loop {
        tokio::time::sleep(AGAIN).await;
        if let Ok(listener) = TcpListener::bind(address).await {
            tracing::info!(port, %address, "the port is open now");
            return listener;
        }
    }
}

/// Counts a port among those that are not open while it lives.
struct Closed {
    shared: Arc<Shared>,
    is_closed: Arc<AtomicBool>,
}

impl Closed {
    fn count(ports: &Ports, is_closed: Arc<AtomicBool>) -> Self {
        ports.shared.metrics.ports_closed.inc();
        is_closed.store(true, Ordering::Relaxed);
        Self {
            shared: Arc::clone(&ports.shared),
            is_closed,
        }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.is_closed.store(false, Ordering::Relaxed);
        self.shared.metrics.ports_closed.dec();
    }
}
