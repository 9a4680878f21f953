//! The address that guards ask, over TLS of which both sides prove who they are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Unanswered};
use crate::guard::exchange::{
    CONFIGURATIONS, EXCHANGE, GUARDS_MAX, MESSAGE_BYTES_MAX, Problem, written,
};
use crate::guard::mutual_tls::Renewed;

/// Connections of guards at one time: each has one, and perhaps another while it replaces it.
const CONNECTIONS_MAX: usize = 2 * GUARDS_MAX;
/// A handshake is three messages.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Handshakes at one time, each of a socket and some 20 kB. Whoever reaches the port may begin one, so they take
/// no place of a guard. All guards come at once to a new leader, and 50 addresses of strangers leave them
/// these places.
const HANDSHAKES_MAX: usize = 1_024;
/// Of them from one address: a guard gives one up after 2 s, so three are of one guard, and some guards of a node
/// may have one address.
const HANDSHAKES_OF_ONE_MAX: usize = 16;
const _: () = assert!(HANDSHAKES_MAX >= CONNECTIONS_MAX / 2 + 50 * HANDSHAKES_OF_ONE_MAX);
/// A report comes whole in this time.
const BODY_MAX: Duration = Duration::from_secs(10);
/// A connection lives this long, so that a certificate that was replaced or withdrawn soon counts for
/// nothing. Guards connect anew at once.
const CONNECTION_LIFE: Duration = Duration::from_mins(10);
/// What is under way has this long to end with the connection.
const GRACE: Duration = Duration::from_secs(5);
/// Requests at one time on one connection: a report and a configuration, and one more of each that was
/// given up.
const STREAMS_MAX: u32 = 4;
/// After an error of accepting, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether something was left out of an answer of this process.
static IS_SHORTENED: AtomicBool = AtomicBool::new(false);

/// Answers guards until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<Renewed<ServerConfig>>,
    desk: Arc<Desk>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let handshakes = Arc::new(Handshakes::default());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "a guard's connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(under_way) = handshakes.begin(peer.ip()) else {
            // Not louder: strangers decide how often this is said.
            tracing::debug!(%peer, "a connection is closed at once, since too many handshakes are under way");
            continue;
        };
        let (tls, desk, stop) = (tls.get(), Arc::clone(&desk), stop.clone());
        let room = Arc::clone(&room);
        tokio::spawn(async move {
            let Some(stream) = shake(stream, peer, tls).await else {
                return;
            };
            let Ok(permit) = room.try_acquire_owned() else {
                tracing::warn!(%peer, "a guard's connection is closed at once, since too many are open");
                return;
            };
            drop(under_way);
            connection(stream, desk, stop).await;
            drop(permit);
        });
    }
}

/// Handshakes under way, by who makes them.
#[derive(Default)]
struct Handshakes(Mutex<BTreeMap<IpAddr, usize>>);

/// One of them; dropping it ends it.
struct UnderWay {
    all: Arc<Handshakes>,
    address: IpAddr,
}

impl Handshakes {
    /// One more, unless there are too many.
    fn begin(self: &Arc<Self>, address: IpAddr) -> Option<UnderWay> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let of_one = counts.get(&address).copied().unwrap_or_default();
        if all >= HANDSHAKES_MAX || of_one >= HANDSHAKES_OF_ONE_MAX {
            return None;
        }
        counts.insert(address, of_one + 1);
        let all = Arc::clone(self);
        Some(UnderWay { all, address })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// A connection of somebody who is certified.
async fn shake(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Arc<ServerConfig>,
) -> Option<TlsStream<TcpStream>> {
    let _ = stream.set_nodelay(true);
    let accepted = timeout(HANDSHAKE_MAX, TlsAcceptor::from(tls).accept(stream)).await;
    match accepted {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::warn!(%peer, error = %error, "a connection is refused");
            None
        }
        Err(_) => None,
    }
}

async fn connection(stream: TlsStream<TcpStream>, desk: Arc<Desk>, stop: CancellationToken) {
    let service = service_fn(|request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(answer(request, &desk).await) }
    });
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(BODY_MAX)
        .keep_alive_timeout(BODY_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        // What a guard breaks it makes anew.
        _ended = serving.as_mut() => return,
        () = stop.cancelled() => {}
        () = tokio::time::sleep(CONNECTION_LIFE) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ended = timeout(GRACE, serving).await;
}

async fn answer(request: Request<Incoming>, desk: &Desk) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if request.method() == Method::POST && path == EXCHANGE {
        return exchange(request, desk).await;
    }
    let revision = path.strip_prefix(CONFIGURATIONS);
    match revision.filter(|_| request.method() == Method::GET) {
        Some(revision) => match desk.configuration(revision) {
            Some(document) => json(StatusCode::OK, document),
            None => problem(
                StatusCode::NOT_FOUND,
                "Gone",
                "no such configuration is handed out now; ask which is the newest",
            ),
        },
        None => problem(StatusCode::NOT_FOUND, "NotFound", "nothing is here"),
    }
}

async fn exchange(request: Request<Incoming>, desk: &Desk) -> Response<Full<Bytes>> {
    let body = Limited::new(request.into_body(), MESSAGE_BYTES_MAX).collect();
    let Ok(Ok(body)) = timeout(BODY_MAX, body).await else {
        let detail = "the report is longer than 4 MiB, or did not come in 10 s";
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "TooLong", detail);
    };
    let report = match serde_json::from_slice(&body.to_bytes()) {
        Ok(report) => report,
        Err(error) => {
            return problem(StatusCode::BAD_REQUEST, "NoReport", &error.to_string());
        }
    };
    match desk.answer(report) {
        Ok(answer) => match written(answer) {
            Ok((document, is_whole)) => {
                // Said once: it comes with each answer.
                if !is_whole && !IS_SHORTENED.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "answers would be too long; of the namespaces that have most, the longest waiting rooms and \
                         policies are left out, and guards go on with their parts of these"
                    );
                }
                json(StatusCode::OK, document.into())
            }
            Err(error) => problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Broken",
                &error.to_string(),
            ),
        },
        Err(why) => {
            let (status, title) = match why {
                Unanswered::NotLeading => (StatusCode::SERVICE_UNAVAILABLE, "NotLeading"),
                Unanswered::Late => (StatusCode::CONFLICT, "Late"),
                Unanswered::Name => (StatusCode::BAD_REQUEST, "NoName"),
                Unanswered::TooMany => (StatusCode::TOO_MANY_REQUESTS, "TooManyGuards"),
            };
            problem(status, title, &why.to_string())
        }
    }
}

fn json(status: StatusCode, document: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(document));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn problem(status: StatusCode, title: &str, detail: &str) -> Response<Full<Bytes>> {
    let problem = Problem {
        title: title.to_owned(),
        detail: detail.to_owned(),
    };
    let document = serde_json::to_vec(&problem).unwrap_or_default();
    json(status, document.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    #[test]
    fn who_begins_too_many_handshakes_keeps_nobody_else_from_one() {
        let handshakes = Arc::new(Handshakes::default());
        let begin = |number| handshakes.begin(address(number));
        let mut under_way: Vec<_> = (0..HANDSHAKES_OF_ONE_MAX).map(|_| begin(1)).collect();
        assert!(under_way.iter().all(Option::is_some));
        assert!(begin(1).is_none() && begin(2).is_some());
        under_way.pop();
        assert!(begin(1).is_some());
        drop(under_way);
        assert!(handshakes.0.lock().unwrap().is_empty());
    }

    #[test]
    fn handshakes_of_all_together_are_bounded() {
        let handshakes = Arc::new(Handshakes::default());
        let mut under_way = Vec::new();
        for number in 1..=100 {
            for _ in 0..HANDSHAKES_OF_ONE_MAX {
                under_way.extend(handshakes.begin(address(number)));
            }
        }
        assert_eq!(under_way.len(), HANDSHAKES_MAX);
    }
}
