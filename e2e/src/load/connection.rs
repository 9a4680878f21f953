//! One attempt on one connection: dial if needed, send, and read the whole answer.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::Mutex, task::JoinSet};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::{
    report::{Ending, Failure},
    target::{Protocol, Target},
};

/// Dials of one attempt: an idle connection that the server closed just then is no failure of the
/// request, which was never sent; a new connection closed as well is one.
const DIALS: usize = 2;

type Socket = TokioIo<Either<TcpStream, TlsStream<TcpStream>>>;
type Body = Full<Bytes>;

/// A whole answer, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) ending: Ending,
    /// What the server asks to wait before another attempt.
    pub(super) retry_after: Option<Duration>,
}

/// A connection, or a share of one.
pub(super) enum Line {
    Http1(Whole),
    Http2(http2::SendRequest<Body>),
}

/// A connection of one user. It is polled by that user: a task for it would be woken twice for
/// each request.
pub(super) struct Whole {
    sender: http1::SendRequest<Body>,
    /// Dropped when it ended, which tells the sender.
    driver: Option<Pin<Box<http1::Connection<Socket, Body>>>>,
}

/// A connection of HTTP/2 that many lines share.
#[derive(Default)]
pub(super) struct Trunk(Mutex<Shared>);

#[derive(Default)]
struct Shared {
    sender: Option<http2::SendRequest<Body>>,
    /// Drives the connection; replaced with it.
    driver: JoinSet<()>,
}

/// Why there is no answer.
struct Broken {
    failure: Failure,
    /// The server has seen nothing of the request.
    unsent: bool,
}

/// Attempts one request on a line, which is dialled when there is none, and is gone afterwards
/// when it broke.
pub(super) async fn attempt(
    line: &mut Option<Line>,
    target: &Target,
    trunk: &Trunk,
    request: impl Fn() -> Request<Body>,
) -> Outcome {
    let mut dials = 0;
    loop {
        let mut now = match line.take().filter(|line| !line.is_closed()) {
            Some(line) => line,
            None if dials == DIALS => return Outcome::failed(Failure::Reset),
            None => {
                dials += 1;
                match Line::dial(target, trunk).await {
                    Ok(line) => line,
                    Err(_) => return Outcome::failed(Failure::Connect),
                }
            }
        };
        match now.exchange(request()).await {
            Ok(outcome) => {
                *line = Some(now);
                return outcome;
            }
            Err(Broken { unsent: true, .. }) => {}
            Err(Broken { failure, .. }) => return Outcome::failed(failure),
        }
    }
}

impl Outcome {
    pub(super) fn failed(failure: Failure) -> Self {
        Self {
            ending: Ending::Failure(failure),
            retry_after: None,
        }
    }
}

impl Line {
    /// Opens a connection, or joins that of the trunk.
    pub(super) async fn dial(target: &Target, trunk: &Trunk) -> io::Result<Self> {
        match target.protocol() {
            Protocol::Http1 => {
                let socket = connect(target).await?;
                let opened = http1::handshake(socket).await;
                let (sender, driver) = opened.map_err(io::Error::other)?;
                Ok(Self::Http1(Whole {
                    sender,
                    driver: Some(Box::pin(driver)),
                }))
            }
            Protocol::Http2 => trunk.join(target).await.map(Self::Http2),
        }
    }

    /// Waits for something else while the connection is looked after.
    pub(super) async fn idle<F: Future>(line: &mut Option<Self>, until: F) -> F::Output {
        match line {
            Some(Self::Http1(whole)) => whole.drive(until).await,
            Some(Self::Http2(_)) | None => until.await,
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(whole) => whole.driver.is_none(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    async fn exchange(&mut self, request: Request<Body>) -> Result<Outcome, Broken> {
        match self {
            Self::Http1(whole) => whole.exchange(request).await,
            Self::Http2(sender) => {
                sender.ready().await.map_err(|_| Broken::unsent())?;
                let sent = sender.try_send_request(request).await;
                whole_answer(sent.map_err(Broken::by)?).await
            }
        }
    }
}

impl Whole {
    async fn exchange(&mut self, request: Request<Body>) -> Result<Outcome, Broken> {
        let Self { sender, driver } = self;
        let exchange = async {
            sender.ready().await.map_err(|_| Broken::unsent())?;
            let sent = sender.try_send_request(request).await;
            whole_answer(sent.map_err(Broken::by)?).await
        };
        alongside(driver, exchange).await
    }

    async fn drive<F: Future>(&mut self, until: F) -> F::Output {
        alongside(&mut self.driver, until).await
    }
}

impl Trunk {
    async fn join(&self, target: &Target) -> io::Result<http2::SendRequest<Body>> {
        let mut shared = self.0.lock().await;
        if let Some(sender) = shared.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let socket = connect(target).await?;
        let opened = http2::handshake(TokioExecutor::new(), socket).await;
        let (sender, driver) = opened.map_err(io::Error::other)?;
        // Streams of the connection before may still be answered; those tasks end by themselves.
        while shared.driver.try_join_next().is_some() {}
        shared.driver.spawn(async move {
            // Every stream learns of the error.
            let _ = driver.await;
        });
        shared.sender = Some(sender.clone());
        Ok(sender)
    }
}

impl Broken {
    fn unsent() -> Self {
        Self {
            failure: Failure::Reset,
            unsent: true,
        }
    }

    fn by<T>(mut error: TrySendError<T>) -> Self {
        Self {
            unsent: error.take_message().is_some(),
            failure: class(error.error()),
        }
    }
}

/// Polls a connection beside what uses it.
async fn alongside<D: Future, F: Future>(driver: &mut Option<Pin<Box<D>>>, user: F) -> F::Output {
    let mut user = pin!(user);
    poll_fn(|context| {
        // The user comes first, as it may have something to send, and last, as the connection may
        // have brought the answer: its own wake-up would cost another turn.
        if let Poll::Ready(output) = user.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        let Some(running) = driver else {
            return Poll::Pending;
        };
        if running.as_mut().poll(context).is_ready() {
            *driver = None;
        }
        user.as_mut().poll(context)
    })
    .await
}

async fn connect(target: &Target) -> io::Result<Socket> {
    let socket = reach(target).await?;
    socket.set_nodelay(true)?;
    let Some(tls) = target.tls() else {
        return Ok(TokioIo::new(Either::Left(socket)));
    };
    let connector = TlsConnector::from(tls.config.clone());
    let stream = connector.connect(tls.server.clone(), socket).await?;
    let agreed = stream.get_ref().1.alpn_protocol();
    // A server without ALPN speaks HTTP/1.1; HTTP/2 must have been agreed on.
    if target.protocol() == Protocol::Http2 && agreed != Some(target.protocol().alpn()) {
        return Err(io::Error::other("the server does not speak HTTP/2"));
    }
    Ok(TokioIo::new(Either::Right(stream)))
}

/// Connects to the first address that takes the connection.
async fn reach(target: &Target) -> io::Result<TcpStream> {
    let mut refused = io::Error::other("a target without an address");
    for address in target.turn() {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

async fn whole_answer(answer: Response<Incoming>) -> Result<Outcome, Broken> {
    let (parts, mut body) = answer.into_parts();
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| Broken {
            failure: class(&error),
            unsent: false,
        })?;
    }
    Ok(Outcome {
        ending: Ending::Answer(parts.status.as_u16()),
        retry_after: retry_after(parts.status, &parts.headers),
    })
}

/// Seconds alone: a date would need the server's clock.
fn retry_after(status: StatusCode, headers: &http::HeaderMap) -> Option<Duration> {
    if status.is_success() {
        return None;
    }
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(seconds.trim().parse().ok()?))
}

fn class(error: &hyper::Error) -> Failure {
    if error.is_parse() || error.is_user() {
        Failure::Protocol
    } else {
        Failure::Reset
    }
}
