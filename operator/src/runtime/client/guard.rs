//! The service that holds one cluster's requests to their limits and counts them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

// axum's body is the general-purpose box for any http body, with a bounded way to read it whole.
use axum::body::{Body as AnyBody, Bytes, HttpBody, to_bytes};
use http::{Request, Response, StatusCode};
use kube::client::Body;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tower::{BoxError, Service, ServiceExt as _};
use tracing::Instrument as _;

use super::{
    ClientError, Limits,
    retry::{Budget, backoff, patience},
    verb::verb,
};
use crate::runtime::metrics::{Outcome, Requests, Verb};

/// The largest answer read. A page of 500 objects at 128 KiB; larger pages mean a broken server.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Wraps the service of one cluster.
#[derive(Clone)]
pub(super) struct Guard<S> {
    inner: S,
    shared: Arc<Shared>,
}

struct Shared {
    cluster: String,
    limits: Limits,
    permits: Semaphore,
    budget: Budget,
    requests: Requests,
}

impl<S> Guard<S> {
    pub(super) fn new(cluster: &str, inner: S, limits: Limits, requests: Requests) -> Self {
        let shared = Shared {
            cluster: cluster.to_owned(),
            limits,
            permits: Semaphore::new(limits.in_flight),
            budget: Budget::new(),
            requests,
        };
        Self {
            inner,
            shared: Arc::new(shared),
        }
    }
}

impl<S, B> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Waiting happens inside each request, under its deadline.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let guard = self.clone();
        let verb = verb(request.method(), request.uri());
        let span = tracing::debug_span!(
            "api request",
            cluster = %guard.shared.cluster,
            verb = verb.as_str(),
            path = request.uri().path(),
            otel.kind = "client",
        );
        Box::pin(
            async move {
                let deadline = Instant::now() + guard.shared.limits.deadline;
                let shared = guard.shared.clone();
                match timeout_at(deadline, guard.answer(request, verb, deadline)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(Box::new(ClientError::Deadline {
                        cluster: shared.cluster.clone(),
                        verb,
                        after: shared.limits.deadline,
                    }) as BoxError),
                }
            }
            .instrument(span),
        )
    }
}

impl<S, B> Guard<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    async fn answer(
        mut self,
        mut request: Request<Body>,
        verb: Verb,
        deadline: Instant,
    ) -> Result<Response<AnyBody>, BoxError> {
        if verb == Verb::Watch {
            // A watch lives for minutes: holding a permit, a few would starve everything else.
            return self.stream(request).await;
        }
        // Held while waiting to repeat: who was told to slow down should not send more meanwhile.
        let shared = self.shared.clone();
        let _permit = shared.permits.acquire().await?;
        if Instant::now() >= deadline {
            // Polled once more at the very end, it must not send what nobody will wait for.
            return std::future::pending().await;
        }
        shared.budget.earn();
        let mut waits = backoff();
        let mut tries = shared.limits.tries;
        loop {
            let again = copy(&request);
            let answer = self.unary(request, verb).await?;
            tries = tries.saturating_sub(1);
            let wait =
                patience(verb, answer.status(), answer.headers(), &mut waits).filter(|wait| {
                    // A server may wish for longer than any clock goes.
                    let again = Instant::now().checked_add(*wait);
                    tries > 0 && again.is_some_and(|again| again < deadline)
                });
            let (Some(wait), Some(again)) = (wait, again) else {
                return Ok(answer);
            };
            if !shared.budget.spend() {
                return Ok(answer);
            }
            tokio::time::sleep(wait).await;
            request = again;
        }
    }

    async fn stream(&mut self, request: Request<Body>) -> Result<Response<AnyBody>, BoxError> {
        let mut attempt = Attempt::new(&self.shared, Verb::Watch);
        let answer = self.inner.clone().oneshot(request).await;
        attempt.ended(answer.as_ref().ok().map(Response::status));
        answer.map(|answer| answer.map(AnyBody::new))
    }

    /// One try, read to its end: what follows is parsing, which needs no deadline.
    async fn unary(
        &mut self,
        request: Request<Body>,
        verb: Verb,
    ) -> Result<Response<AnyBody>, BoxError> {
        let sent = self.inner.clone().oneshot(request);
        let mut attempt = Attempt::new(&self.shared, verb);
        let answer = async {
            let (parts, body) = sent.await?.into_parts();
            let bytes = to_bytes(AnyBody::new(body), MAX_BODY).await?;
            Ok(Response::from_parts(parts, AnyBody::from(bytes)))
        }
        .await;
        attempt.ended(answer.as_ref().ok().map(Response::status));
        answer
    }
}

/// Counts one request sent, also when nobody waits for its end any longer.
struct Attempt<'a> {
    shared: &'a Shared,
    verb: Verb,
    outcome: Outcome,
}

impl<'a> Attempt<'a> {
    const fn new(shared: &'a Shared, verb: Verb) -> Self {
        Self {
            shared,
            verb,
            outcome: Outcome::Timeout,
        }
    }

    fn ended(&mut self, status: Option<StatusCode>) {
        self.outcome = status.map_or(Outcome::Error, outcome);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let Self {
            shared,
            verb,
            outcome,
        } = self;
        shared.requests.count(&shared.cluster, *verb, *outcome);
        tracing::debug!(outcome = outcome.as_str(), "API request ended");
    }
}

fn outcome(status: StatusCode) -> Outcome {
    match status {
        StatusCode::NOT_FOUND => Outcome::NotFound,
        StatusCode::CONFLICT => Outcome::Conflict,
        StatusCode::TOO_MANY_REQUESTS => Outcome::Throttled,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Denied,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Outcome::Timeout,
        status if status.is_client_error() || status.is_server_error() => Outcome::Error,
        _ => Outcome::Ok,
    }
}

/// The same request once more; none where its body is a stream.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}
