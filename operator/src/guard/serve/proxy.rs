//! One request: find its rule, ask its protection, pass it to an endpoint, pass the answer back.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use super::access_log::AccessLog;
use super::answer::{Reason, Refusal, redirect, refuse};
use super::body::Answer;
use super::headers::host;
use super::matching::Asked;
use super::metrics::Metrics;
use super::outgoing::Bounds;
use super::passing::Passing;
use super::path::normalise;
use super::prepare::{NotFound, Rule, Serving};
use super::protection::Keys;
use super::record::Record;
use super::room::{Entered, Pass};
use super::trace::Tracing;
use crate::guard::config::Redirect;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) current: ArcSwap<Serving>,
    pub(super) bounds: Bounds,
    /// Connections that changed to another protocol; a drain waits for them.
    pub(super) upgraded: TaskTracker,
    /// How long neither side of such a connection may say anything.
    pub(super) upgrade_idle_max: Duration,
    /// Proxies in front whose word is taken for who the client is.
    pub(super) trusted_hops: u8,
    pub(super) metrics: Metrics,
    /// Absent where nothing is logged.
    pub(super) log: Option<AccessLog>,
    /// Absent where nothing is exported.
    pub(super) tracing: Option<Tracing>,
}

/// Where requests come from.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) client: IpAddr,
    /// The way here, if trusted proxies told it.
    pub(super) forwarded_for: Option<HeaderValue>,
    /// What the client asked for when TLS began.
    pub(super) server_name: Option<String>,
    /// The Gateway's port.
    pub(super) port: u16,
    /// The port that the client asked, as far as anybody knows.
    pub(super) shown_port: u16,
    pub(super) is_tls: bool,
    /// Its place among all connections; one that changed to another protocol keeps it.
    pub(super) room: Arc<OwnedSemaphorePermit>,
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
        let mut record = Record::begin(&self.shared, self.client, &request);
        let accept = request.headers().get(http::header::ACCEPT).cloned();
        let serving = self.shared.current.load_full();
        let mut pass = None;
        let answered = self.decide(&serving, request, &mut record, &mut pass).await;
        let is_error = match &answered {
            Ok(response) => Some(response.status().is_server_error()),
            Err(refusal) => refusal.is_failure(),
        };
        let mut response = match answered {
            Ok(response) => response,
            Err(refusal) => {
                record.refused(&refusal);
                refuse(&refusal, accept.as_ref(), fastrand::u64(..))
            }
        };
        if let Some(mut pass) = pass {
            // Also with what a later rule refuses: else who asks again is another newcomer.
            pass.stamp(response.headers_mut());
            pass.ended(is_error);
        }
        record.follow(response)
    }

    async fn decide(
        &self,
        serving: &Serving,
        request: Request<Incoming>,
        record: &mut Record,
        pass: &mut Option<Pass>,
    ) -> Result<Response<Answer>, Refusal> {
        let Some(host) = host(request.uri(), request.headers(), request.version()) else {
            record.path = request.uri().path().to_owned();
            return Err(Reason::BadRequest.into());
        };
        record.host = host;
        let path = request.uri().path();
        let normal = normalise(path);
        let is_bad = normal.is_err();
        // What has no meaning is logged as it came.
        record.path = normal.map_or_else(|_| path.to_owned(), Cow::into_owned);
        let port = serving.ports.get(&self.port);
        let Some(port) = port.filter(|_| !is_bad) else {
            return Err(Reason::BadRequest.into());
        };
        if request.method() == Method::CONNECT {
            return Err(Reason::BadRequest.into());
        }
        let asked = Asked {
            method: request.method().as_str(),
            path: &record.path,
            query: request.uri().query(),
            headers: request.headers(),
        };
        let found = port.find(self.server_name.as_deref(), &record.host, &asked);
        let found = found.map_err(|not_found| match not_found {
            NotFound::NoRoute => Reason::NoRoute,
            NotFound::Misdirected => Reason::Misdirected,
        })?;
        let (rule, prefix) = (Arc::clone(found.rule), found.prefix);
        record.rule = Some(Arc::clone(&rule));
        if let Some(room) = &rule.room {
            match room.enter(&request, self.is_tls) {
                Entered::Passes(here) => *pass = Some(here),
                Entered::Waits(waiting) => return Err(Refusal::Waiting(waiting)),
            }
        }
        self.protected(&rule, prefix, request, record).await
    }

    /// Asks the rule's protection, and only then spends anything on the request.
    async fn protected(
        &self,
        rule: &Rule,
        prefix: Option<&str>,
        request: Request<Incoming>,
        record: &mut Record,
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
            let (host, path) = (&record.host, &record.path);
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
        };
        Ok(passing.pass(request, guarded, record).await?)
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
            self.shown_port
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
