//! The connections to one endpoint.
//!
//! Connections are kept per endpoint, never by the name in a request: many names lead to one pod, and a
//! pod's address is nothing that an application should see as its host.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::dial::is_own_lack;
use super::outgoing::Outgoing;
use crate::guard::config::Protocol;

/// Loopback and the networks of a cluster answer in well under a millisecond; what takes a second is
/// gone, and another endpoint is asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Servers end idle connections, many after five seconds: younger ones are used first, older ones never.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Beyond this many idle connections to one endpoint the next is closed.
const IDLE_COUNT_MAX: usize = 256;
/// Memory for the head of an answer, and for what an HTTP/1.1 endpoint sends ahead of its client.
const READ_BYTES_MAX: usize = 128 * 1024;
/// Requests at one time on one connection of HTTP/2. Servers take a hundred or more; what is beyond their
/// limit would wait unseen, for whatever the others take.
const STREAMS_MAX: usize = 100;
/// What an HTTP/2 endpoint may send ahead of one client.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Room for all of them: clients that take nothing must not hold up the answers of the others.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// A kept connection may have ended unseen; so many of them are tried before the request is given up.
const STALE_MAX: usize = 3;

/// A connection that many requests share is asked whether it still lives while any of them waits, and is given
/// up where it says nothing: a network that lost it would let all of them hang for a quarter of an hour.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an endpoint gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// Nothing was sent.
    #[error("cannot connect to {at}")]
    Connect {
        at: SocketAddr,
        source: std::io::Error,
    },
    /// Nothing was sent, and the endpoint has nothing to do with it.
    #[error("cannot connect to {at}, for what the guard itself lacks")]
    Lacking {
        at: SocketAddr,
        source: std::io::Error,
    },
    /// Nothing was sent.
    #[error("{at} does not speak the protocol that its port declares")]
    Handshake {
        at: SocketAddr,
        source: hyper::Error,
    },
    /// It was not handled: not sent whole, or the endpoint says that it did not look at it.
    #[error("{at} refused the request unseen")]
    Refused {
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
    pub(super) lent: Lent,
}

/// The connections to one endpoint.
#[derive(Debug)]
pub(super) struct Pool {
    at: SocketAddr,
    protocol: Protocol,
    in_flight: AtomicUsize,
    idle: Mutex<Vec<(http1::SendRequest<Outgoing>, Instant)>>,
    lines: Mutex<Lines>,
    /// Held by who makes the next of them. When none could be made, and why: who waited for that attempt need not
    /// make it again.
    failed: tokio::sync::Mutex<Option<(Instant, std::io::ErrorKind)>>,
}

/// The connections of HTTP/2, in the order in which they are filled: no more than their requests need, and one.
#[derive(Debug, Default)]
struct Lines(Vec<Line>);

/// A connection that many requests use at a time.
#[derive(Debug)]
struct Line {
    sender: http2::SendRequest<Outgoing>,
    under_way: Arc<AtomicUsize>,
}

/// What a request uses of the connections.
#[derive(Debug)]
pub(super) enum Lent {
    /// A connection of its own.
    Alone(http1::SendRequest<Outgoing>, Arc<Pool>),
    /// A place on one that it shares, which is free when this is dropped.
    Among(Place),
}

/// One of the requests under way on a connection.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Pool {
    pub(super) fn new(at: SocketAddr, protocol: Protocol) -> Self {
        Self {
            at,
            protocol,
            in_flight: AtomicUsize::new(0),
            idle: Mutex::default(),
            lines: Mutex::default(),
            failed: tokio::sync::Mutex::default(),
        }
    }

    /// Requests under way.
    pub(super) fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn at(&self) -> SocketAddr {
        self.at
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
            let mut sender = match kept {
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
            match sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(Sent {
                        response,
                        lent: Lent::Alone(sender, Arc::clone(self)),
                    });
                }
                Err(mut failed) => {
                    let unsent = failed.take_message();
                    let error = self.broken(unsent.is_some(), failed.into_error());
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
            let (mut sender, place) = match self.shared_http2(&mut is_new).await {
                Ok(line) => line,
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
                        lent: Lent::Among(place),
                    });
                }
                Err(mut failed) => {
                    let unsent = failed.take_message();
                    let error = self.broken(unsent.is_some(), failed.into_error());
                    match unsent {
                        // Tried once more on a new connection, which ends the loop.
                        Some(back) if !is_new => request = back,
                        request => return Err(Unsent { error, request }),
                    }
                }
            }
        }
    }

    fn broken(&self, is_unsent: bool, source: hyper::Error) -> SendError {
        let at = self.at;
        if is_unsent || is_refused(&source) {
            SendError::Refused { at, source }
        } else {
            SendError::Broken { at, source }
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
        let at = self.at;
        let stream = connected.map_err(|source| {
            if is_own_lack(&source, self.at.ip()) {
                SendError::Lacking { at, source }
            } else {
                SendError::Connect { at, source }
            }
        })?;
        // Answers are written whole; waiting for more to send only delays them.
        let _ = stream.set_nodelay(true);
        Ok(TokioIo::new(stream))
    }

    async fn connect_http1(&self) -> Result<http1::SendRequest<Outgoing>, SendError> {
        let stream = self.connect().await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(READ_BYTES_MAX);
        let shaken = builder.handshake(stream).await;
        let (sender, connection) = shaken.map_err(|source| SendError::Handshake {
            at: self.at,
            source,
        })?;
        // It ends with an error when the endpoint goes away, which the next request finds out.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    /// A place on a connection, or on a new one. Who finds room never waits for who makes one.
    async fn shared_http2(
        &self,
        is_new: &mut bool,
    ) -> Result<(http2::SendRequest<Outgoing>, Place), SendError> {
        if let Some(line) = self.lines().with_room() {
            return Ok(line);
        }
        let asked = Instant::now();
        let mut failed = self.failed.lock().await;
        if let Some(line) = self.lines().with_room() {
            return Ok(line);
        }
        *is_new = true;
        if let Some((_, kind)) = failed.filter(|(since, _)| *since >= asked) {
            let error = SendError::Connect {
                at: self.at,
                source: kind.into(),
            };
            return self.lines().emptiest().ok_or(error);
        }
        let stream = match self.connect().await {
            Ok(stream) => stream,
            Err(error) => {
                // What the guard lacks is found out at once, by each for itself.
                if let SendError::Connect { source, .. } = &error {
                    *failed = Some((Instant::now(), source.kind()));
                }
                return self.lines().emptiest().ok_or(error);
            }
        };
        let shaken = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await;
        let (sender, connection) = shaken.map_err(|source| SendError::Handshake {
            at: self.at,
            source,
        })?;
        tokio::spawn(connection);
        let under_way = Arc::default();
        let line = Line { sender, under_way };
        let taken = line.take();
        self.lines().0.push(line);
        Ok(taken)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// The first connection on which another request has room. Behind the last that is used one is kept.
    fn with_room(&mut self) -> Option<(http2::SendRequest<Outgoing>, Place)> {
        self.0.retain(|line| !line.sender.is_closed());
        let has_room = |line: &Line| line.load() < STREAMS_MAX;
        let first = self.0.iter().position(has_room)?;
        let taken = self.0[first].take();
        let needed = self.0.iter().rposition(|line| line.load() > 0);
        self.0.truncate(needed.unwrap_or(first) + 2);
        Some(taken)
    }

    /// What is open serves, if only later, where no other connection can be made.
    fn emptiest(&mut self) -> Option<(http2::SendRequest<Outgoing>, Place)> {
        self.0.retain(|line| !line.sender.is_closed());
        self.0.iter().min_by_key(|line| line.load()).map(Line::take)
    }
}

impl Line {
    fn load(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    fn take(&self) -> (http2::SendRequest<Outgoing>, Place) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        (self.sender.clone(), Place(Arc::clone(&self.under_way)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sent {
    /// Nobody wants the answer. A body that is over leaves its connection to the next request.
    pub(super) fn discard(self) {
        let Self { response, lent } = self;
        if response.body().is_end_stream() {
            lent.give_back();
        }
    }
}

impl Lent {
    /// The body was read to its end, so the connection is free for the next request.
    pub(super) fn give_back(self) {
        match self {
            Self::Alone(sender, pool) => pool.give_back(sender),
            Self::Among(place) => drop(place),
        }
    }
}

/// Whether the endpoint says that it did not look at the request: the stream was refused, or lies beyond
/// the last one that it takes before it goes away (RFC 9113 sections 6.8 and 8.7).
fn is_refused(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error);
    let Some(cause) = cause.and_then(|cause| cause.downcast_ref::<h2::Error>()) else {
        return false;
    };
    let is_refused = cause.reason() == Some(h2::Reason::REFUSED_STREAM);
    cause.is_remote() && (cause.is_go_away() || is_refused)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::FutureExt as _;
    use tokio::net::TcpSocket;

    use super::*;

    /// An address that takes one connection; a second is neither made nor refused.
    fn of_one_connection() -> (tokio::net::TcpListener, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    #[tokio::test]
    async fn who_finds_room_does_not_wait_for_who_makes_a_connection() {
        let (_listener, at) = of_one_connection();
        let pool = Pool::new(at, Protocol::H2c);
        let mut places = Vec::new();
        for _ in 0..STREAMS_MAX {
            places.push(pool.shared_http2(&mut false).await.unwrap());
        }
        let mut is_new = false;
        let mut beyond = Box::pin(pool.shared_http2(&mut is_new));
        assert!(beyond.as_mut().now_or_never().is_none());
        places.pop();
        let mut is_new = false;
        let next = pool.shared_http2(&mut is_new).now_or_never();
        assert!(next.is_some_and(|place| place.is_ok()));
    }
}
