//! The address that guards ask, over TLS of which both sides prove who they are.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Unanswered};
use crate::guard::exchange::{
    CONFIGURATIONS, EXCHANGE, GUARDS_MAX, MESSAGE_BYTES_MAX, Problem, written,
};
use crate::guard::mutual_tls::Renewed;

/// Connections at one time: each guard has one, and perhaps another while it replaces it.
const CONNECTIONS_MAX: usize = 2 * GUARDS_MAX;
/// A handshake is three messages.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
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
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "a guard's connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(%peer, "a connection is closed at once, since too many are open");
            continue;
        };
        let (tls, desk, stop) = (tls.get(), Arc::clone(&desk), stop.clone());
        tokio::spawn(async move {
            connection(stream, peer, tls, desk, stop).await;
            drop(permit);
        });
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Arc<ServerConfig>,
    desk: Arc<Desk>,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let accepted = timeout(HANDSHAKE_MAX, TlsAcceptor::from(tls).accept(stream)).await;
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!(%peer, error = %error, "a connection is refused");
            return;
        }
        Err(_) => return,
    };
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
