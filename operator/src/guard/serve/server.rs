//! Ports, connections, and how they end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answers::Answers;
use super::arrived::Arrived;
use super::client;
use super::proxy::{Connection, Shared};
use super::seat::Seat;
use crate::guard::config::Opening;

/// A head must be whole in this time, and a kept connection ask again.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// A handshake is three messages.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A connection on which nothing is under way ends after this.
const IDLE_MAX: Duration = Duration::from_mins(2);
/// How often connections are looked at, if nothing is to be found out sooner.
const LOOK: Duration = Duration::from_secs(5);
/// Memory for one head; servers behind take as much or less.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of one request.
pub(super) const HEADERS_MAX: usize = 128;
/// Requests at one time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// What waits for a client to take it, of one answer: with all streams 16 MiB.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// What a client may send ahead of an endpoint that reads nothing, of one request.
const STREAM_WINDOW: u32 = 256 * 1024;
/// And of all: one such request does not hold up the others of its connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams that a client opened and reset at once; beyond it the connection ends (rapid reset).
const RESETS_MAX: usize = 32;
/// After an error of accepting, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all ports share.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    pub(super) shared: Arc<Shared>,
    /// One for each connection that may be open.
    pub(super) room: Arc<Semaphore>,
    pub(super) tracker: TaskTracker,
    /// Connections finish what is under way and end.
    pub(super) drain: CancellationToken,
}

/// How a connection has to end.
enum End {
    /// What is under way is answered before.
    Graceful,
    AtOnce,
}

/// When something last happened on a connection.
struct Pulse {
    start: Instant,
    under_way: AtomicUsize,
    last_millis: AtomicU64,
    seen: AtomicUsize,
}

impl Ports {
    /// Accepts until told to stop.
    pub(super) async fn accept(
        self,
        listener: TcpListener,
        opening: Opening,
        tls: Arc<ServerConfig>,
        stop: CancellationToken,
    ) {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(port = opening.port, error = %error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
                self.shared.metrics.connections_refused.inc();
                continue;
            };
            let serving = self
                .clone()
                .serve(stream, client, opening, Arc::clone(&tls), permit);
            self.tracker.spawn(serving);
        }
    }

    async fn serve(
        self,
        stream: TcpStream,
        client: SocketAddr,
        opening: Opening,
        tls: Arc<ServerConfig>,
        permit: OwnedSemaphorePermit,
    ) {
        let seat = Seat::take(permit, &self.shared.metrics.connections);
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            shared: Arc::clone(&self.shared),
            client: client.ip().to_canonical(),
            forwarded_for: None,
            server_name: None,
            opening,
            shown_port: opening.port,
            is_tls: self.shared.speaks_tls(opening),
            answers: Arc::new(Answers::new(self.shared.bounds.pause_max)),
            seat: Arc::new(seat),
        };
        if connection.is_tls {
            let accepting = TlsAcceptor::from(tls).accept(stream);
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, accepting).await {
                let name = stream.get_ref().1.server_name();
                let server_name = name.map(str::to_ascii_lowercase);
                let connection = Connection {
                    server_name,
                    ..connection
                };
                self.run(stream, connection).await;
            }
        } else {
            self.run(stream, connection).await;
        }
    }

    async fn run<S>(&self, stream: S, connection: Connection)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::new(connection);
        let pulse = Arc::new(Pulse::new());
        let service = service_fn(|request: Request<Incoming>| {
            let beat = pulse.begin();
            let connection = client::of_request(&connection, request.headers());
            let answering = connection.answer(request);
            async move {
                let answer = answering.await;
                drop(beat);
                Ok::<_, Infallible>(answer)
            }
        });
        let arrived = Arrived::new(self.tracker.clone());
        let builder = builder(arrived.clone());
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        // Kept apart, so that it is looked at when it has something to say and not at every packet.
        let answers = &connection.answers;
        let graceful = self.ending(&pulse, answers).left_future();
        let mut ending = FuturesUnordered::from_iter([graceful]);
        loop {
            let serve = poll_fn(|context| {
                let ended = serving.as_mut().poll(context);
                arrived.answer();
                ended
            });
            tokio::select! {
                biased;
                // What a client breaks is its own business.
                _ended = serve => return,
                Some(end) = ending.next() => match end {
                    End::AtOnce => return,
                    End::Graceful => {
                        serving.as_mut().graceful_shutdown();
                        ending.push(self.stuck(&pulse, answers).right_future());
                    }
                }
            }
        }
    }

    /// Waits until a connection has to end whatever its client does.
    async fn ending(&self, pulse: &Pulse, answers: &Answers) -> End {
        let mut looks = self.looks();
        loop {
            tokio::select! {
                () = self.drain.cancelled() => return End::Graceful,
                _ = looks.tick() => {
                    if pulse.is_stuck(answers) {
                        return End::AtOnce;
                    }
                    if pulse.is_idle() && answers.is_empty() {
                        return End::Graceful;
                    }
                }
            }
        }
    }

    /// Waits until a connection that was told to end must not be waited for any more.
    async fn stuck(&self, pulse: &Pulse, answers: &Answers) -> End {
        let (told, mut looks) = (Instant::now(), self.looks());
        loop {
            tokio::select! {
                () = self.shared.cut.cancelled() => return End::AtOnce,
                _ = looks.tick() => {
                    // What is left then are words of the guard itself, which the client does not take.
                    let is_at_rest = pulse.is_at_rest() && answers.is_empty();
                    let is_over = is_at_rest && told.elapsed() >= self.shared.bounds.pause_max;
                    if is_over || pulse.is_stuck(answers) {
                        return End::AtOnce;
                    }
                }
            }
        }
    }

    fn looks(&self) -> Interval {
        let every = LOOK.min(self.shared.bounds.pause_max);
        let mut looks = tokio::time::interval_at(Instant::now() + every, every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks
    }
}

fn builder(arrived: Arrived) -> auto::Builder<Arrived> {
    let mut builder = auto::Builder::new(arrived);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(HEAD_MAX)
        .keep_alive_timeout(HANDSHAKE_MAX);
    builder
}

impl Pulse {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            under_way: AtomicUsize::new(0),
            last_millis: AtomicU64::new(0),
            seen: AtomicUsize::new(0),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn begin(self: &Arc<Self>) -> Beat {
        self.seen.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Beat(Arc::clone(self))
    }

    /// Whether the client holds the connection for nothing. What it does not take is cut first.
    fn is_stuck(&self, answers: &Answers) -> bool {
        let is_left = answers.look();
        self.is_mute() || (is_left && self.is_at_rest())
    }

    fn is_at_rest(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    /// Connected long ago and never asked for anything whole.
    fn is_mute(&self) -> bool {
        self.seen.load(Ordering::Relaxed) == 0 && self.start.elapsed() > HEAD_MAX
    }

    fn is_idle(&self) -> bool {
        let idle = self
            .millis()
            .saturating_sub(self.last_millis.load(Ordering::Relaxed));
        self.is_at_rest() && u128::from(idle) > IDLE_MAX.as_millis()
    }
}

/// A request that is being answered.
struct Beat(Arc<Pulse>);

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.last_millis.store(self.0.millis(), Ordering::Relaxed);
    }
}
