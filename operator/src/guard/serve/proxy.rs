//! One request: find its rule, change what the rule says, pass it to an endpoint, pass the answer back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::answer::{Reason, Refusal, redirect, refuse};
use super::body::{Answer, BodyError, Outgoing, Passed};
use super::endpoint::{Endpoints, Flight, SendError, Sent, Unsent};
use super::headers::{Client, drop_underscores, forwarded, host, strip_hop_by_hop};
use super::matching::Asked;
use super::metrics::{Metrics, Outcome};
use super::path::normalise;
use super::prepare::{Backend, NotFound, Rule, Serving};
use super::protection::{Guarded, Keys};
use crate::guard::config::Redirect;

/// Endpoints that are asked for a connection before a request is given up.
const ENDPOINTS_MAX: usize = 2;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) current: ArcSwap<Serving>,
    pub(super) bounds: Bounds,
    /// Connections that changed to another protocol; a drain waits for them.
    pub(super) upgraded: TaskTracker,
    pub(super) metrics: Metrics,
}

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) body_bytes_max: u64,
    /// Between two parts of a body.
    pub(super) body_pause_max: Duration,
}

/// Where requests come from.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) client: IpAddr,
    /// What the client asked for when TLS began.
    pub(super) server_name: Option<String>,
    /// The Gateway's port.
    pub(super) port: u16,
    pub(super) is_tls: bool,
    /// Its place among all connections; one that changed to another protocol keeps it.
    pub(super) room: Arc<OwnedSemaphorePermit>,
}

/// A request that is on its way.
struct Passing<'a> {
    connection: &'a Connection,
    rule: &'a Rule,
    backend: &'a Backend,
    service: &'a Endpoints,
    prefix: Option<&'a str>,
    host: &'a str,
    path: &'a str,
}

impl Shared {
    /// Whether TLS ends at a port, by the configuration in force.
    pub(super) fn speaks_tls(&self, port: u16) -> bool {
        self.current
            .load()
            .ports
            .get(&port)
            .is_some_and(|port| port.is_tls)
    }
}

impl Connection {
    /// Answers a request, whatever it is.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let started = std::time::Instant::now();
        let accept = request.headers().get(http::header::ACCEPT).cloned();
        let serving = self.shared.current.load_full();
        let (rule, answered) = self.decide(&serving, request).await;
        let route = rule.as_ref().map(|rule| &rule.metrics);
        let (outcome, response) = match answered {
            Ok(response) => (Outcome::of(response.status()), response),
            Err(refusal) => {
                self.shared.metrics.count_refusal(&refusal, route);
                (
                    Outcome::Guard,
                    refuse(&refusal, accept.as_ref(), fastrand::u64(..)),
                )
            }
        };
        self.shared.metrics.count(route, outcome, started.elapsed());
        response
    }

    async fn decide(
        &self,
        serving: &Serving,
        request: Request<Incoming>,
    ) -> (Option<Arc<Rule>>, Result<Response<Answer>, Refusal>) {
        let Some(host) = host(request.uri(), request.headers(), request.version()) else {
            return (None, Err(Reason::BadRequest.into()));
        };
        let target = request.uri().path().to_owned();
        let (Ok(path), Some(port)) = (normalise(&target), serving.ports.get(&self.port)) else {
            return (None, Err(Reason::BadRequest.into()));
        };
        if request.method() == Method::CONNECT {
            return (None, Err(Reason::BadRequest.into()));
        }
        let asked = Asked {
            method: request.method().as_str(),
            path: &path,
            query: request.uri().query(),
            headers: request.headers(),
        };
        let found = match port.find(self.server_name.as_deref(), &host, &asked) {
            Ok(found) => found,
            Err(NotFound::NoRoute) => return (None, Err(Reason::NoRoute.into())),
            Err(NotFound::Misdirected) => return (None, Err(Reason::Misdirected.into())),
        };
        let rule = Arc::clone(found.rule);
        let prefix = found.prefix;
        let answered = self.protected(&rule, &host, &path, prefix, request).await;
        (Some(rule), answered)
    }

    /// Asks the rule's protection, and only then spends anything on the request.
    async fn protected(
        &self,
        rule: &Rule,
        host: &str,
        path: &str,
        prefix: Option<&str>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Refusal> {
        let guarded = match &rule.protection {
            Some(protection) => {
                let keys = Keys {
                    headers: request.headers(),
                    query: request.uri().query(),
                    client: self.client,
                };
                Some(protection.enter(&keys).await.map_err(Refusal::Shed)?)
            }
            None => None,
        };
        if let Some(wanted) = &rule.redirect {
            let location = self.location(wanted, host, path, request.uri().query(), prefix);
            return Ok(redirect(wanted.status, &location));
        }
        let backend = rule.backend(fastrand::u64(..));
        let Some((backend, service)) = backend.and_then(|b| Some((b, b.service.as_deref()?)))
        else {
            return Err(Reason::BrokenRoute.into());
        };
        let passing = Passing {
            connection: self,
            rule,
            backend,
            service,
            prefix,
            host,
            path,
        };
        Ok(passing.pass(request, guarded).await?)
    }

    fn location(
        &self,
        wanted: &Redirect,
        host: &str,
        path: &str,
        query: Option<&str>,
        prefix: Option<&str>,
    ) -> String {
        let own = if self.is_tls { "https" } else { "http" };
        let scheme = wanted.scheme.as_deref().unwrap_or(own);
        let usual = if scheme == "https" { 443 } else { 80 };
        // Another scheme is another listener, whose port is the usual one unless it is given.
        let port = wanted.port.unwrap_or(if wanted.scheme.is_some() {
            usual
        } else {
            self.port
        });
        let host = wanted.hostname.as_deref().unwrap_or(host);
        let path = wanted
            .path
            .as_ref()
            .map_or_else(|| path.to_owned(), |p| p.of(path, prefix));
        let port = if port == usual {
            String::new()
        } else {
            format!(":{port}")
        };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{scheme}://{host}{port}{path}{query}")
    }
}

impl Passing<'_> {
    async fn pass(
        &self,
        mut request: Request<Incoming>,
        mut guarded: Option<Guarded>,
    ) -> Result<Response<Answer>, Reason> {
        let end = self.rule.request_timeout.map(|span| Instant::now() + span);
        let bounds = self.connection.shared.bounds;
        if request.body().size_hint().lower() > bounds.body_bytes_max {
            return Err(Reason::BodyTooLong);
        }
        let upgrade = strip_hop_by_hop(request.headers_mut());
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        self.change(&mut request);
        if let Some(protocol) = &upgrade {
            let headers = request.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        }
        let request =
            request.map(|body| Outgoing::new(body, bounds.body_bytes_max, bounds.body_pause_max));
        if let Some(guarded) = &mut guarded {
            guarded.sent();
        }
        let sending = self.send(request);
        let sent = match self.deadline(end) {
            Some(deadline) => tokio::time::timeout_at(deadline, sending)
                .await
                .unwrap_or(Err(Reason::EndpointTimeout)),
            None => sending.await,
        };
        if let Some(guarded) = &mut guarded
            && let Some(is_error) = is_error(&sent)
        {
            guarded.answered(is_error);
        }
        Ok(self.answered(sent?, guarded, client, end))
    }

    /// The earlier of the two timeouts.
    fn deadline(&self, end: Option<Instant>) -> Option<Instant> {
        let backend = self.rule.backend_timeout.map(|span| Instant::now() + span);
        end.into_iter().chain(backend).min()
    }

    /// Makes the request what the endpoint shall see.
    fn change(&self, request: &mut Request<Incoming>) {
        let connection = self.connection;
        let (host, port) = (self.host, connection.port);
        let rewrites = [&self.rule.changes, &self.backend.changes];
        let rewrite = rewrites.iter().find_map(|changes| changes.rewrite.as_ref());
        let path = rewrite.and_then(|rewrite| rewrite.path.as_ref());
        let path = path.map_or(self.path.to_owned(), |path| path.of(self.path, self.prefix));
        let target = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let shown = rewrite.and_then(|rewrite| rewrite.hostname.clone());
        let authority = original_authority(request);
        *request.uri_mut() = PathAndQuery::try_from(target)
            .map(Uri::from)
            .unwrap_or_default();
        let headers = request.headers_mut();
        headers.remove(EXPECT);
        drop_underscores(headers);
        let client = Client {
            address: connection.client,
            host,
            is_tls: connection.is_tls,
            port,
        };
        forwarded(headers, &client);
        let shown = shown.as_deref().or(authority.as_deref()).unwrap_or(host);
        if let Ok(value) = HeaderValue::from_str(shown) {
            headers.insert(HOST, value);
        }
        for changes in rewrites {
            changes.request.apply(headers);
        }
    }

    /// Sends it to an endpoint, and to another one if nothing was sent to the first.
    async fn send(&self, mut request: Request<Outgoing>) -> Result<(Flight, Sent), Reason> {
        let mut tried = Vec::new();
        loop {
            let picked = self.service.pick(&tried, |count| fastrand::usize(..count));
            let Some(pool) = picked.filter(|_| tried.len() < ENDPOINTS_MAX) else {
                return Err(if tried.is_empty() {
                    Reason::NoEndpoint
                } else {
                    Reason::ConnectFailure
                });
            };
            let flight = pool.begin();
            dress(&mut request, pool.speaks_http2());
            match pool.send(request).await {
                Ok(sent) => return Ok((flight, sent)),
                Err(Unsent {
                    error,
                    request: back,
                }) => {
                    tracing::debug!(route = self.rule.route, error = %error, "an endpoint gave no answer");
                    match back {
                        Some(back) if is_unsent(&error) => request = back,
                        _ => return Err(reason(&error)),
                    }
                }
            }
            tried.push(pool);
        }
    }

    fn answered(
        &self,
        (flight, sent): (Flight, Sent),
        guarded: Option<Guarded>,
        client: Option<OnUpgrade>,
        end: Option<Instant>,
    ) -> Response<Answer> {
        let Sent { mut response, lent } = sent;
        let upgrade = strip_hop_by_hop(response.headers_mut());
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let server = is_upgrade.then(|| hyper::upgrade::on(&mut response));
        *response.version_mut() = Version::default();
        let mut response = response
            .map(|body| Answer::Passed(Box::new(Passed::new(body, lent, flight, end, guarded))));
        let headers = response.headers_mut();
        for changes in [&self.rule.changes, &self.backend.changes] {
            changes.response.apply(headers);
        }
        if let (Some(client), Some(server), Some(protocol)) = (client, server, upgrade) {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol);
            headers.remove(CONTENT_LENGTH);
            let room = Arc::clone(&self.connection.room);
            let joined = join(client, server, room);
            self.connection.shared.upgraded.spawn(joined);
        }
        response
    }
}

/// Whether the target failed; none where it is the client's fault, which says nothing about the target.
fn is_error(sent: &Result<(Flight, Sent), Reason>) -> Option<bool> {
    match sent {
        Ok((_, sent)) => Some(sent.response.status().is_server_error()),
        Err(Reason::BodyTooLong | Reason::BodyTooSlow) => None,
        Err(_) => Some(true),
    }
}

/// HTTP/2 names scheme and host in the target, HTTP/1.1 only the path.
fn dress(request: &mut Request<Outgoing>, is_http2: bool) {
    *request.version_mut() = if is_http2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    let path = request.uri().path_and_query().cloned();
    let mut parts = http::uri::Parts::default();
    if is_http2 {
        let host = request.headers_mut().remove(HOST);
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        parts.scheme = authority.is_some().then_some(Scheme::HTTP);
        parts.authority = authority;
    }
    parts.path_and_query = path;
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// The host as the client wrote it, with its port.
fn original_authority(request: &Request<Incoming>) -> Option<String> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str().to_owned()),
        None => request
            .headers()
            .get(HOST)?
            .to_str()
            .ok()
            .map(str::to_owned),
    }
}

fn is_unsent(error: &SendError) -> bool {
    match error {
        SendError::Connect { .. } | SendError::Handshake { .. } => true,
        SendError::Broken { .. } => false,
    }
}

fn reason(error: &SendError) -> Reason {
    match error {
        SendError::Connect { .. } => Reason::ConnectFailure,
        SendError::Handshake { .. } => Reason::EndpointBroke,
        SendError::Broken { source, .. } => {
            let cause = std::error::Error::source(source);
            match cause.and_then(|cause| cause.downcast_ref::<BodyError>()) {
                Some(BodyError::TooLong) => Reason::BodyTooLong,
                Some(BodyError::TooSlow) => Reason::BodyTooSlow,
                Some(BodyError::Overdue | BodyError::Cut(_)) | None => Reason::EndpointBroke,
            }
        }
    }
}

/// Carries bytes both ways until either side ends.
async fn join(client: OnUpgrade, server: OnUpgrade, _room: Arc<OwnedSemaphorePermit>) {
    let (Ok(client), Ok(server)) = (client.await, server.await) else {
        return;
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    // How it ends is between the two of them.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
