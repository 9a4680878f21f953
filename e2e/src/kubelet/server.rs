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
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{echo::Echo, faults::Answer};

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
    /// Answers in its place where the pod runs that image.
    echo: Option<Arc<Echo>>,
    manner: RwLock<Manner>,
}

/// How requests are answered now.
#[derive(Debug, Clone)]
struct Manner {
    answer: Answer,
    /// As many places as the answer's capacity says, which hand themselves on in the order of arrival.
    places: Option<Arc<Semaphore>>,
}

impl Manner {
    fn new(answer: Answer) -> Self {
        let places = answer.capacity.map(|capacity| {
            let places = usize::try_from(capacity.get()).unwrap_or(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)))
        });
        Self { answer, places }
    }

    /// Takes another answer. Who waits for a place goes on waiting for it, unless their number changes:
    /// then the new ones are for those that come from now on.
    fn set(&mut self, answer: Answer) {
        if answer.capacity == self.answer.capacity {
            self.answer = answer;
        } else {
            *self = Self::new(answer);
        }
    }
}

impl PodServer {
    /// Listens on every port, or on none: the error names the port that is not to be had.
    pub(super) async fn start(
        address: Ipv4Addr,
        ports: &[u16],
        backend: Backend,
        echo: Option<Echo>,
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
            echo: echo.map(Arc::new),
            manner: RwLock::new(Manner::new(answer)),
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
        self.shared
            .manner
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .set(answer);
    }
}

impl Shared {
    fn manner(&self) -> Manner {
        let manner = self.manner.read();
        manner.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the time that an answer takes. A request that has waited is answered as it is done when its
    /// turn comes: a server that has become slow is slow for those in its queue as well.
    async fn work(&self) -> Answer {
        let arrived = self.manner();
        let _place = match &arrived.places {
            // Nobody closes it, and without a place a request would only be too quick.
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        let answer = self.manner().answer;
        if !answer.latency.is_zero() {
            tokio::time::sleep(answer.latency).await;
        }
        answer
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
    if let Some(echo) = &shared.echo {
        return Arc::clone(echo).serve(stream).await;
    }
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
    let Answer { status, .. } = shared.work().await;
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

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use futures::{future::join_all, poll};
    use tokio::time::Instant;

    use super::*;

    const LATENCY: Duration = Duration::from_millis(20);

    fn answer(latency: Duration, capacity: u32) -> Answer {
        Answer {
            status: http::StatusCode::OK,
            latency,
            capacity: NonZeroU32::new(capacity),
        }
    }

    fn shared(answer: Answer) -> Shared {
        Shared {
            backend: Backend {
                cluster: String::new(),
                node: String::new(),
                namespace: String::new(),
                pod: String::new(),
            },
            echo: None,
            manner: RwLock::new(Manner::new(answer)),
        }
    }

    fn set(pod: &Shared, answer: Answer) {
        pod.manner.write().unwrap().set(answer);
    }

    fn free(pod: &Shared) -> usize {
        pod.manner().places.unwrap().available_permits()
    }

    #[tokio::test]
    async fn a_pod_does_no_more_a_second_than_its_capacity_says_and_the_rest_waits() {
        let pod = shared(answer(LATENCY, 8));
        let began = Instant::now();
        join_all((0..20).map(|_| pod.work())).await;
        assert!(began.elapsed() >= LATENCY * 3, "8, then 8, then 4");
    }

    #[tokio::test]
    async fn a_pod_that_becomes_slow_is_slow_for_those_that_wait() {
        let pod = shared(answer(LATENCY, 1));
        let (first, second) = (pod.work(), pod.work());
        tokio::pin!(first, second);
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        set(&pod, answer(LATENCY * 5, 1));
        let began = Instant::now();
        assert_eq!(first.await.latency, LATENCY);
        assert_eq!(second.await.latency, LATENCY * 5);
        assert!(began.elapsed() >= LATENCY * 5);
    }

    #[tokio::test]
    async fn another_capacity_is_there_at_once_and_the_same_one_gives_no_fresh_places() {
        let pod = shared(answer(LATENCY, 1));
        let busy = pod.work();
        tokio::pin!(busy);
        assert!(poll!(&mut busy).is_pending());
        set(&pod, answer(LATENCY * 2, 1));
        assert_eq!(free(&pod), 0);
        set(&pod, answer(LATENCY, 2));
        assert_eq!(free(&pod), 2);
    }

    #[tokio::test]
    async fn whoever_goes_away_leaves_its_place_to_the_next() {
        let pod = shared(answer(LATENCY, 1));
        {
            let busy = pod.work();
            tokio::pin!(busy);
            assert!(poll!(&mut busy).is_pending());
            assert_eq!(free(&pod), 0);
        }
        assert_eq!(free(&pod), 1);
    }
}
