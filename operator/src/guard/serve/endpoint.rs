//! Endpoints and the connections to each.
//!
//! Connections are kept per endpoint, never by the name in a request: many names lead to one pod, and a
//! pod's address is nothing that an application should see as its host.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::body::Outgoing;
use crate::guard::config::{self, Endpoint, Protocol};

/// Loopback and the networks of a cluster answer in well under a millisecond; what takes a second is
/// gone, and another endpoint is asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Servers end idle connections, many after five seconds: younger ones are used first, older ones never.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Beyond this many idle connections to one endpoint the next is closed.
const IDLE_COUNT_MAX: usize = 256;
/// A kept connection may have ended unseen; so many of them are tried before the request is given up.
const STALE_MAX: usize = 3;

/// Why an endpoint gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// Nothing was sent.
    #[error("cannot connect to {at}")]
    Connect {
        at: SocketAddr,
        source: std::io::Error,
    },
    /// Nothing was sent.
    #[error("{at} does not speak the protocol that its port declares")]
    Handshake {
        at: SocketAddr,
        source: hyper::Error,
    },
    /// It may have been handled.
    #[error("{at} broke the connection")]
    Broken {
        at: SocketAddr,
        source: hyper::Error,
    },
}

/// A request that was not sent can be sent to another endpoint.
pub(super) struct Unsent {
    pub(super) error: SendError,
    pub(super) request: Option<Request<Outgoing>>,
}

/// An answer, and the connection that goes back when its body ended.
pub(super) struct Sent {
    pub(super) response: Response<Incoming>,
    pub(super) lent: Option<Lent>,
}

/// A service's endpoints.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Arc<Pool>>,
}

/// All services of a configuration.
#[derive(Debug, Default)]
pub(super) struct Services {
    by_name: BTreeMap<String, Arc<Endpoints>>,
    pools: BTreeMap<(Endpoint, bool), Arc<Pool>>,
    dial: Dial,
}

/// Where the addresses of pods are really reached: a sandbox serves them on loopback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dial(Option<(Network, Network)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: u32,
    bits: u8,
}

/// The connections to one endpoint.
#[derive(Debug)]
pub(super) struct Pool {
    at: SocketAddr,
    protocol: Protocol,
    in_flight: AtomicUsize,
    idle: Mutex<Vec<(http1::SendRequest<Outgoing>, Instant)>>,
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Outgoing>>>,
}

/// A connection that is in use for one request.
#[derive(Debug)]
pub(super) struct Lent {
    sender: http1::SendRequest<Outgoing>,
    pool: Arc<Pool>,
}

/// Counts a request among those under way at an endpoint while it lives.
#[derive(Debug)]
pub(super) struct Flight(Arc<Pool>);

impl Services {
    pub(super) fn new(dial: Dial) -> Self {
        Self {
            dial,
            ..Self::default()
        }
    }

    /// Those of the next configuration; endpoints that stay keep their connections.
    pub(super) fn next(&self, wanted: &BTreeMap<String, config::Service>) -> Self {
        let mut next = Self::new(self.dial);
        for (name, service) in wanted {
            let pools = service.endpoints.iter().map(|endpoint| {
                let key = (*endpoint, service.protocol == Protocol::H2c);
                let pool = self
                    .pools
                    .get(&key)
                    .or_else(|| next.pools.get(&key))
                    .cloned();
                let pool = pool.unwrap_or_else(|| {
                    let at = SocketAddr::new(self.dial.of(endpoint.address), endpoint.port);
                    Arc::new(Pool::new(at, service.protocol))
                });
                next.pools.insert(key, Arc::clone(&pool));
                pool
            });
            let all = pools.collect();
            next.by_name
                .insert(name.clone(), Arc::new(Endpoints { all }));
        }
        next
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Endpoints>> {
        self.by_name.get(name).cloned()
    }
}

impl Endpoints {
    /// The less busy of two that chance names, without those that were tried.
    pub(super) fn pick(
        &self,
        tried: &[Arc<Pool>],
        mut random: impl FnMut(usize) -> usize,
    ) -> Option<Arc<Pool>> {
        let is_new = |pool: &&Arc<Pool>| !tried.iter().any(|other| Arc::ptr_eq(pool, other));
        let count = self.all.len();
        if !tried.is_empty() {
            return self.all.iter().find(is_new).cloned();
        }
        match count {
            0 => None,
            1 => self.all.first().cloned(),
            _ => {
                let first = random(count);
                // Another one: the two are never the same.
                let second = (first + 1 + random(count - 1)) % count;
                let [first, second] = [&self.all[first], &self.all[second]];
                let load = |pool: &Pool| pool.in_flight.load(Ordering::Relaxed);
                Some(Arc::clone(if load(second) < load(first) {
                    second
                } else {
                    first
                }))
            }
        }
    }
}

impl Pool {
    fn new(at: SocketAddr, protocol: Protocol) -> Self {
        Self {
            at,
            protocol,
            in_flight: AtomicUsize::new(0),
            idle: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn begin(self: &Arc<Self>) -> Flight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Flight(Arc::clone(self))
    }

    pub(super) fn speaks_http2(&self) -> bool {
        self.protocol == Protocol::H2c
    }

    /// Sends a request, on a kept connection if there is one.
    pub(super) async fn send(self: &Arc<Self>, request: Request<Outgoing>) -> Result<Sent, Unsent> {
        match self.protocol {
            Protocol::Http1 => self.send_http1(request).await,
            Protocol::H2c => self.send_http2(request).await,
        }
    }

    async fn send_http1(self: &Arc<Self>, mut request: Request<Outgoing>) -> Result<Sent, Unsent> {
        for attempt in 0..=STALE_MAX {
            let kept = if attempt < STALE_MAX {
                self.take()
            } else {
                None
            };
            let is_new = kept.is_none();
            let sender = match kept {
                Some(sender) => sender,
                None => match self.connect_http1().await {
                    Ok(sender) => sender,
                    Err(error) => {
                        return Err(Unsent {
                            error,
                            request: Some(request),
                        });
                    }
                },
            };
            let mut lent = Lent {
                sender,
                pool: Arc::clone(self),
            };
            match lent.sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(Sent {
                        response,
                        lent: Some(lent),
                    });
                }
                Err(mut failed) => {
                    let unsent = failed.take_message();
                    let error = SendError::Broken {
                        at: self.at,
                        source: failed.into_error(),
                    };
                    match unsent {
                        Some(back) if !is_new => request = back,
                        request => return Err(Unsent { error, request }),
                    }
                }
            }
        }
        unreachable!("the last attempt is made on a new connection")
    }

    async fn send_http2(self: &Arc<Self>, mut request: Request<Outgoing>) -> Result<Sent, Unsent> {
        let mut is_new = false;
        loop {
            let mut sender = match self.shared_http2(&mut is_new).await {
                Ok(sender) => sender,
                Err(error) => {
                    return Err(Unsent {
                        error,
                        request: Some(request),
                    });
                }
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(Sent {
                        response,
                        lent: None,
                    });
                }
                Err(mut failed) => {
                    let unsent = failed.take_message();
                    let error = SendError::Broken {
                        at: self.at,
                        source: failed.into_error(),
                    };
                    match unsent {
                        // Tried once more on a new connection, which ends the loop.
                        Some(back) if !is_new => request = back,
                        request => return Err(Unsent { error, request }),
                    }
                }
            }
        }
    }

    /// The youngest connection that is free.
    fn take(&self) -> Option<http1::SendRequest<Outgoing>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest are at the front.
        let old = idle.partition_point(|(_, since)| since.elapsed() > IDLE_MAX);
        idle.drain(..old);
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            // One whose body ended this moment may not be free yet; it will be, and stays.
            if idle[at].0.is_ready() {
                return Some(idle.remove(at).0);
            }
            if idle[at].0.is_closed() {
                idle.remove(at);
            }
        }
        None
    }

    fn give_back(&self, sender: http1::SendRequest<Outgoing>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_COUNT_MAX && !sender.is_closed() {
            idle.push((sender, Instant::now()));
        }
    }

    async fn connect(&self) -> Result<TokioIo<TcpStream>, SendError> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.at)).await;
        let connected = connecting.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|source| SendError::Connect {
            at: self.at,
            source,
        })?;
        // Answers are written whole; waiting for more to send only delays them.
        let _ = stream.set_nodelay(true);
        Ok(TokioIo::new(stream))
    }

    async fn connect_http1(&self) -> Result<http1::SendRequest<Outgoing>, SendError> {
        let stream = self.connect().await?;
        let shaken = http1::handshake(stream).await;
        let (sender, connection) = shaken.map_err(|source| SendError::Handshake {
            at: self.at,
            source,
        })?;
        // It ends with an error when the endpoint goes away, which the next request finds out.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    async fn shared_http2(
        &self,
        is_new: &mut bool,
    ) -> Result<http2::SendRequest<Outgoing>, SendError> {
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        *is_new = true;
        let stream = self.connect().await?;
        let shaken = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(stream)
            .await;
        let (sender, connection) = shaken.map_err(|source| SendError::Handshake {
            at: self.at,
            source,
        })?;
        tokio::spawn(connection);
        *shared = Some(sender.clone());
        Ok(sender)
    }
}

impl Lent {
    /// The body was read to its end, so the connection is free for the next request.
    pub(super) fn give_back(self) {
        self.pool.give_back(self.sender);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Dial {
    fn of(self, address: IpAddr) -> IpAddr {
        let (Self(Some((from, to))), IpAddr::V4(v4)) = (self, address) else {
            return address;
        };
        let mask = u32::MAX.checked_shl(32 - u32::from(from.bits)).unwrap_or(0);
        let number = u32::from(v4);
        if number & mask != from.address & mask {
            return address;
        }
        IpAddr::V4((to.address & mask | number & !mask).into())
    }
}

impl std::str::FromStr for Dial {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str =
            "must be two IPv4 networks of one size, as in 198.18.0.0/15=127.18.0.0/15";
        let network = |text: &str| {
            let (address, bits) = text.split_once('/')?;
            let address: std::net::Ipv4Addr = address.parse().ok()?;
            let bits = bits.parse().ok().filter(|bits| *bits <= 32)?;
            Some(Network {
                address: address.into(),
                bits,
            })
        };
        let (from, to) = text.split_once('=').ok_or(SHAPE)?;
        match (network(from), network(to)) {
            (Some(from), Some(to)) if from.bits == to.bits => Ok(Self(Some((from, to)))),
            _ => Err(SHAPE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8) -> Endpoint {
        Endpoint {
            address: IpAddr::from([127, 0, 0, last]),
            port: 1,
        }
    }

    fn services(endpoints: &[Endpoint]) -> BTreeMap<String, config::Service> {
        let service = config::Service {
            endpoints: endpoints.to_vec(),
            ..config::Service::default()
        };
        BTreeMap::from([("a/b:80".to_owned(), service)])
    }

    #[test]
    fn the_less_busy_of_two_is_taken_and_what_was_tried_is_not() {
        let all = Services::default().next(&services(&[endpoint(1), endpoint(2)]));
        let endpoints = all.get("a/b:80").unwrap();
        let busy = endpoints.all[0].begin();
        let picked = endpoints.pick(&[], |_| 0).unwrap();
        assert!(Arc::ptr_eq(&picked, &endpoints.all[1]));
        drop(busy);
        let other = endpoints
            .pick(std::slice::from_ref(&picked), |_| 0)
            .unwrap();
        assert!(Arc::ptr_eq(&other, &endpoints.all[0]));
        assert!(endpoints.pick(&[picked, other], |_| 0).is_none());
    }

    #[test]
    fn an_endpoint_that_stays_keeps_its_connections() {
        let before = Services::default().next(&services(&[endpoint(1)]));
        let after = before.next(&services(&[endpoint(1), endpoint(2)]));
        let [old, new] = [before.get("a/b:80").unwrap(), after.get("a/b:80").unwrap()];
        assert!(Arc::ptr_eq(&old.all[0], &new.all[0]));
    }

    #[test]
    fn addresses_of_a_network_are_dialled_in_another() {
        let dial: Dial = "198.18.0.0/15=127.18.0.0/15".parse().unwrap();
        assert_eq!(
            dial.of([198, 19, 3, 4].into()),
            IpAddr::from([127, 19, 3, 4])
        );
        assert_eq!(dial.of([10, 0, 0, 1].into()), IpAddr::from([10, 0, 0, 1]));
        assert!("198.18.0.0/15=127.18.0.0/16".parse::<Dial>().is_err());
    }
}
