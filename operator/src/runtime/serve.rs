//! `/metrics`, `/livez` and `/readyz` on one address.
//!
//! Health is computed when somebody asks, from checks that the parts of the process registered;
//! the answer says for each check what is wrong.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::Registry;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::telemetry::render;

/// A scrape that is under way at shutdown gets this long; then the process ends without it.
const DRAIN: Duration = Duration::from_secs(2);

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
    let serving = axum::serve(listener, router(registry, health).merge(more))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let task = tokio::spawn(async move {
        let patience = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                tracing::error!(%error, "the metrics server stopped");
            },
            () = patience => {}
        }
    });
    Ok(Server { address, task })
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
    use axum::{body::Body, http::Request};
    use tower::ServiceExt as _;

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
