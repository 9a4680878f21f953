//! `/metrics`, `/livez` and `/readyz` on one address.
//!
//! Health is computed when somebody asks, from checks that the parts of the process registered;
//! the answer says for each check what is wrong.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{Request, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::telemetry::render;

/// A scrape that is under way at shutdown gets this long; then the process ends without it.
const DRAIN: Duration = Duration::from_secs(2);
/// A head is one packet of a neighbour. Less than the 15 s after which scrapers come again, so that no kept
/// connection ends just when it is used.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// Two scrapers, the probes and some people with all that they leave open, several times over; what they hold
/// is little beside the descriptors of a process, which are a thousand or more.
const CONNECTIONS_MAX: usize = 64;
/// So that nobody keeps a connection by never taking an answer; to open one anew every five minutes costs
/// nothing.
const LIFE_MAX: Duration = Duration::from_mins(5);
/// What is under way then gets as long as scrapers wait by default.
const SCRAPE_MAX: Duration = Duration::from_secs(10);
/// After an error of accepting, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The registered checks. Clones share them.
#[derive(Clone, Default)]
pub struct Health(Arc<RwLock<Checks>>);

#[derive(Default)]
struct Checks {
    live: Vec<(&'static str, Check)>,
    ready: Vec<(&'static str, Check)>,
}

impl Health {
    /// Without a check, everything is well.
    pub fn new() -> Self {
        Self::default()
    }

    /// Restarting the process would help if `check` fails. Counts for readiness as well.
    pub fn live(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let mut checks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        checks.live.push((name, Box::new(check)));
    }

    /// The process should get no requests while `check` fails.
    pub fn ready(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let mut checks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        checks.ready.push((name, Box::new(check)));
    }

    fn livez(&self) -> Report {
        let checks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Report::of(checks.live.iter())
    }

    fn readyz(&self) -> Report {
        let checks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Report::of(checks.live.iter().chain(&checks.ready))
    }
}

struct Report {
    well: bool,
    text: String,
}

impl Report {
    fn of<'a>(checks: impl Iterator<Item = &'a (&'static str, Check)>) -> Self {
        let mut report = Self {
            well: true,
            text: String::new(),
        };
        for (name, check) in checks {
            let line = match check() {
                Ok(()) => format!("ok {name}\n"),
                Err(wrong) => {
                    report.well = false;
                    format!("failed {name}: {wrong}\n")
                }
            };
            report.text.push_str(&line);
        }
        report
            .text
            .push_str(if report.well { "ok\n" } else { "failed\n" });
        report
    }
}

impl IntoResponse for Report {
    fn into_response(self) -> Response {
        let status = if self.well {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, self.text).into_response()
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where it really listens: port 0 was replaced by the port the system chose.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Waits until it has stopped, which it does soon after its token was cancelled.
    pub async fn stopped(self) {
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the metrics server ended badly");
        }
    }
}

/// Listens on `address` until `stop`.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    health: Health,
    stop: CancellationToken,
) -> Result<Server, ServeError> {
    serve_also(address, registry, health, Router::new(), stop).await
}

/// The same, with more pages.
pub async fn serve_also(
    address: SocketAddr,
    registry: Registry,
    health: Health,
    more: Router,
    stop: CancellationToken,
) -> Result<Server, ServeError> {
    let failed = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let router = router(registry, health).merge(more);
    let task = tokio::spawn(listen(listener, router, stop));
    Ok(Server { address, task })
}

/// Accepts until `stop`, and gives what is under way then a little longer.
async fn listen(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut serving = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _client)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while serving.try_join_next().is_some() {}
        open.retain(|one| !one.is_finished());
        // The oldest goes and not the newest: whoever holds many connections keeps no probe away.
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(serving.spawn(converse(stream, router.clone(), stop.clone())));
    }
    drop(listener);
    let ended = async { while serving.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        tracing::debug!("connections for metrics were open at the end");
    }
}

/// One connection, until its client has enough or its time is over.
async fn converse(stream: TcpStream, router: Router, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| router.clone().oneshot(request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        // What a client breaks is its own business.
        _ended = serving.as_mut() => return,
        () = stop.cancelled() => {}
        () = tokio::time::sleep(LIFE_MAX) => {}
    }
    serving.as_mut().graceful_shutdown();
    // Nobody waits for what is cut: the scraper has given up.
    let _ended = tokio::time::timeout(SCRAPE_MAX, serving).await;
}

fn router(registry: Registry, health: Health) -> Router {
    let probes = Router::new()
        .route(
            "/livez",
            get(|State(health): State<Health>| async move { health.livez() }),
        )
        .route(
            "/readyz",
            get(|State(health): State<Health>| async move { health.readyz() }),
        )
        .with_state(health);
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(registry)
        .merge(probes)
}

async fn metrics(State(registry): State<Registry>) -> Response {
    match render(&registry) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(router: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_failing_check_is_named_with_its_reason() {
        let health = Health::new();
        health.live("watches", || Ok(()));
        health.ready("lists", || Err("apps are not listed yet".into()));
        let router = router(Registry::new(), health.clone());
        assert_eq!(
            ask(&router, "/livez").await,
            (200, "ok watches\nok\n".into())
        );
        let expected = "ok watches\nfailed lists: apps are not listed yet\nfailed\n";
        assert_eq!(ask(&router, "/readyz").await, (503, expected.into()));
        health.live("late", || Err("stuck".into()));
        assert_eq!(ask(&router, "/livez").await.0, 503);
    }

    #[tokio::test]
    async fn metrics_are_served_as_text() {
        let (registry, provider) = crate::runtime::telemetry::meters("test").unwrap();
        let meter = opentelemetry::metrics::MeterProvider::meter(&provider, "test");
        crate::runtime::metrics::Metrics::new(&meter).overflowed("changes");
        let (status, text) = ask(&router(registry, Health::new()), "/metrics").await;
        assert_eq!(status, 200);
        assert!(
            text.contains(r#"jiuzhou_queue_overflow_total{queue="changes"} 1"#),
            "{text}"
        );
    }

    #[tokio::test]
    async fn port_zero_is_told_and_shutdown_does_not_wait_for_idle_clients() {
        let stop = CancellationToken::new();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = serve(address, Registry::new(), Health::new(), stop.clone())
            .await
            .unwrap();
        assert_ne!(server.address.port(), 0);
        let _idle = tokio::net::TcpStream::connect(server.address)
            .await
            .unwrap();
        stop.cancel();
        tokio::time::timeout(DRAIN * 5, server.stopped())
            .await
            .unwrap();
    }

    /// A client that says so much.
    async fn say(at: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// What comes until the server has closed, in good order or not.
    async fn rest(mut stream: TcpStream) -> String {
        let mut rest = Vec::new();
        let reading = stream.read_to_end(&mut rest);
        let _ended = tokio::time::timeout(Duration::from_mins(1), reading)
            .await
            .unwrap();
        String::from_utf8(rest).unwrap()
    }

    #[tokio::test]
    async fn a_head_that_never_ends_closes_its_connection() {
        let stop = CancellationToken::new();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = serve(address, Registry::new(), Health::new(), stop.clone())
            .await
            .unwrap();
        let answer = rest(say(server.address, "GET /livez HTTP/1.1\r\n").await).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        stop.cancel();
    }

    #[tokio::test]
    async fn who_holds_many_connections_keeps_no_probe_away() {
        let stop = CancellationToken::new();
        let address = "127.0.0.1:0".parse().unwrap();
        let more = Router::new().route("/never", get(std::future::pending::<StatusCode>));
        let (registry, health) = (Registry::new(), Health::new());
        let server = serve_also(address, registry, health, more, stop.clone())
            .await
            .unwrap();
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            held.push(say(server.address, "GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await);
        }
        let probe = "GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = rest(say(server.address, probe).await).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // The oldest made room.
        assert_eq!(rest(held.remove(0)).await, "");
        stop.cancel();
    }

    #[tokio::test]
    async fn a_taken_address_is_an_error_that_names_it() {
        let stop = CancellationToken::new();
        let address = "127.0.0.1:0".parse().unwrap();
        let first = serve(address, Registry::new(), Health::new(), stop.clone())
            .await
            .unwrap();
        let error = serve(first.address, Registry::new(), Health::new(), stop)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&first.address.to_string()));
    }
}
