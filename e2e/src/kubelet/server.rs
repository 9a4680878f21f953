//! Serves a pod's ports for real, on the twin of the pod's address.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use http::{Request, Response, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::faults::Answer;

/// Who answers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Backend {
    pub(super) cluster: String,
    pub(super) node: String,
    pub(super) namespace: String,
    pub(super) pod: String,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    backend: &'a Backend,
    path: &'a str,
}

/// One pod's listeners. Dropping it closes them and cuts all connections, as a dead pod does.
#[derive(Debug)]
pub(super) struct PodServer {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    backend: Backend,
    answer: RwLock<Answer>,
}

impl PodServer {
    /// Listens on every port, or on none: the error names the port that is not to be had.
    pub(super) async fn start(
        address: Ipv4Addr,
        ports: &[u16],
        backend: Backend,
        answer: Answer,
    ) -> Result<Self, String> {
        let mut listeners = Vec::with_capacity(ports.len());
        for port in ports {
            let at = SocketAddr::from((address, *port));
            let listener = TcpListener::bind(at).await;
            listeners.push(listener.map_err(|error| unavailable(at, &error))?);
        }
        let shared = Arc::new(Shared {
            backend,
            answer: RwLock::new(answer),
        });
        let stop = CancellationToken::new();
        for listener in listeners {
            let stop = stop.clone();
            let accepting = accept(listener, Arc::clone(&shared), stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(accepting).await });
        }
        Ok(Self {
            shared,
            _stop: stop.drop_guard(),
        })
    }

    /// Changes how requests are answered from now on.
    pub(super) fn set_answer(&self, answer: Answer) {
        *self
            .shared
            .answer
            .write()
            .unwrap_or_else(PoisonError::into_inner) = answer;
    }
}

fn unavailable(at: SocketAddr, error: &io::Error) -> String {
    let hint = if error.kind() == io::ErrorKind::PermissionDenied && at.port() < 1024 {
        "; a sandbox that does not run as root serves ports from 1024 on"
    } else {
        ""
    };
    format!("the sandbox cannot listen on {at}: {error}{hint}")
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = serve(stream, Arc::clone(&shared));
                let stop = stop.clone();
                tokio::spawn(async move { stop.run_until_cancelled(serving).await });
            }
            // Out of file descriptors, or the peer left: neither is a reason to stop for good.
            Err(error) => {
                tracing::warn!("accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| respond(request, &shared));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away in mid-request is its own business.
    let _ = connection.await;
}

async fn respond(
    request: Request<Incoming>,
    shared: &Shared,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let Answer { status, latency } = *shared.answer.read().unwrap_or_else(PoisonError::into_inner);
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let body = Body {
        backend: &shared.backend,
        path: request.uri().path(),
    };
    let body = serde_json::to_vec(&body).expect("strings serialise");
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
