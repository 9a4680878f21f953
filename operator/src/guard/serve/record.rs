//! What is known about one request, from its head until its last byte: for the access log, for its
//! trace, and for the counters.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, Version};

use super::access_log::{Line, Text, Upstream};
use super::answer::Refusal;
use super::body::Answer;
use super::metrics::Outcome;
use super::outgoing::Intake;
use super::prepare::Rule;
use super::proxy::Shared;
use super::ready::Ready;
use super::trace::{Seen, Trace, trace_id};
use super::tunnel::Tunnel;

/// What is logged where a client left before it was answered, or was cut, as other servers write it.
const CLIENT_GONE: u16 = 499;

/// A request. Dropped before it was answered, its client went away.
#[derive(Debug)]
pub(super) struct Record {
    shared: Arc<Shared>,
    started: Instant,
    client: IpAddr,
    method: Method,
    version: Version,
    trace: Option<Trace>,
    /// As the client sent it, where nothing is exported.
    came_with: Option<opentelemetry::TraceId>,
    pub(super) host: String,
    pub(super) path: String,
    /// The rule that is for it.
    pub(super) rule: Option<Arc<Rule>>,
    status: Option<u16>,
    is_own: bool,
    why: Option<&'static str>,
    refused_by: Option<Arc<str>>,
    intake: Option<Intake>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    attempts: u32,
    upstream: Option<SocketAddr>,
    sent: Option<Instant>,
    upstream_took: Duration,
    tunnel: Option<Tunnel>,
}

/// Why an answer that had begun was not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The client closed its connection.
    ClientGone,
    /// The client took nothing of the answer for too long.
    ClientStalled,
    /// The endpoint did.
    EndpointBroke,
    /// The time for the whole request was over.
    EndpointTimeout,
    /// Neither side of a connection that changed its protocol said anything for too long.
    Idle,
    /// The guard ends, and the time for what was under way was over.
    Drained,
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Self::ClientGone => "ClientGone",
            Self::ClientStalled => "ClientStalled",
            Self::EndpointBroke => "EndpointBroke",
            Self::EndpointTimeout => "EndpointTimeout",
            Self::Idle => "Idle",
            Self::Drained => "Drained",
        }
    }
}

impl Record {
    /// When the request's head was there.
    pub(super) fn started(&self) -> tokio::time::Instant {
        self.started.into()
    }

    pub(super) fn begin<B>(shared: &Arc<Shared>, client: IpAddr, request: &Request<B>) -> Self {
        let (method, headers) = (request.method(), request.headers());
        let tracing = shared.tracing.as_ref();
        let trace = tracing.map(|tracing| tracing.begin(method, headers));
        let is_logged = shared.log.is_some() && trace.is_none();
        Self {
            shared: Arc::clone(shared),
            started: Instant::now(),
            client,
            method: method.clone(),
            version: request.version(),
            trace,
            came_with: is_logged.then(|| trace_id(headers)).flatten(),
            host: String::new(),
            path: String::new(),
            rule: None,
            status: None,
            is_own: false,
            why: None,
            refused_by: None,
            intake: None,
            bytes_in: 0,
            bytes_out: 0,
            attempts: 0,
            upstream: None,
            sent: None,
            upstream_took: Duration::ZERO,
            tunnel: None,
        }
    }

    /// Its place in a trace.
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// Where its body is counted.
    pub(super) fn reads(&mut self, intake: &Intake) {
        self.intake = Some(intake.clone());
    }

    /// It is sent to an endpoint now.
    pub(super) fn sends(&mut self, at: SocketAddr) {
        self.attempts += 1;
        self.upstream = Some(at);
        self.sent = Some(Instant::now());
    }

    /// The endpoint answered, or failed to.
    pub(super) fn heard(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.upstream_took = sent.elapsed();
        }
    }

    /// The client and the endpoint change to another protocol.
    pub(super) fn tunnel(&mut self, tunnel: Tunnel) {
        self.tunnel = Some(tunnel);
    }

    /// The guard answers itself; this is what is known of it before.
    pub(super) fn refused(&mut self, refusal: &Refusal) -> Option<&Ready> {
        self.is_own = true;
        self.why = Some(refusal.name());
        self.refused_by = refusal.rule_name();
        let rule = self.rule.as_deref();
        let ready = match (rule, refusal) {
            (Some(rule), Refusal::Shed(shed)) => rule.refusals.get(shed, &rule.metrics),
            (_, Refusal::Own(_) | Refusal::Shed(_) | Refusal::Waiting(_)) => None,
        };
        if let Some(ready) = ready {
            ready.counter.inc();
        } else {
            let route = rule.map(|rule| &rule.metrics);
            self.shared.metrics.count_refusal(refusal, route);
        }
        ready
    }

    /// An answer that had begun broke off; what was said first stays.
    pub(super) fn broke(&mut self, why: Why) {
        let why = if why == Why::ClientGone {
            self.gone().1
        } else {
            why
        };
        self.why.get_or_insert(why.name());
    }

    /// What it means that nobody waits any more: whoever is still there when the guard cuts what is under way has
    /// not gone.
    fn gone(&self) -> (Outcome, Why) {
        if self.shared.cut.is_cancelled() {
            (Outcome::Drained, Why::Drained)
        } else {
            (Outcome::Gone, Why::ClientGone)
        }
    }

    /// This is the answer. The record ends when its body does.
    pub(super) fn follow(mut self, mut response: Response<Answer>) -> Response<Answer> {
        let status = response.status();
        let outcome = if self.is_own {
            Outcome::Guard
        } else {
            Outcome::of(status)
        };
        self.status = Some(status.as_u16());
        self.count(outcome);
        if !self.is_told() {
            return response;
        }
        match self.tunnel.take() {
            Some(tunnel) => {
                let shared = Arc::clone(&self.shared);
                let cut = shared.cut.clone();
                shared.upgraded.spawn(tunnel.carry(self, cut));
            }
            None => response.body_mut().record(self),
        }
        response
    }

    /// Whether anybody hears of its end.
    fn is_told(&self) -> bool {
        let is_traced = self.trace.as_ref().is_some_and(Trace::is_sampled);
        self.shared.log.is_some() || is_traced || self.tunnel.is_some()
    }

    fn count(&self, outcome: Outcome) {
        let route = self.rule.as_ref().map(|rule| &rule.metrics);
        let took = self.started.elapsed();
        self.shared.metrics.count(route, outcome, took);
    }

    fn log(&self, status: u16) {
        let Some(log) = self.shared.log.as_ref() else {
            return;
        };
        if !log.wants(self.is_own) {
            return;
        }
        let took = self.started.elapsed();
        let time =
            jiff::Timestamp::now() - jiff::SignedDuration::try_from(took).unwrap_or_default();
        let trace = self.trace.as_ref().map(Trace::id).or(self.came_with);
        let upstream = self.upstream.map(|address| Upstream {
            address,
            micros: micros(self.upstream_took),
            attempts: self.attempts,
        });
        log.write(&Line {
            time: format!("{time:.3}"),
            method: Text(self.method.as_str()),
            host: Text(&self.host),
            path: Text(&self.path),
            protocol: protocol(self.version),
            status,
            reason: self.why,
            rule: self.refused_by.as_deref().unwrap_or_default(),
            route: self.route(),
            client: self.client,
            bytes_in: self.bytes_in + self.intake.as_ref().map_or(0, Intake::bytes),
            bytes_out: self.bytes_out,
            micros: micros(took),
            upstream,
            trace: trace.map(|trace| trace.to_string()),
        });
    }

    fn route(&self) -> &str {
        self.rule.as_ref().map_or("", |rule| &rule.route)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let status = self.status.unwrap_or(CLIENT_GONE);
        if self.status.is_none() {
            let (outcome, why) = self.gone();
            self.broke(why);
            self.count(outcome);
        }
        self.log(status);
        if let Some(trace) = self.trace.take() {
            trace.end(&Seen {
                method: &self.method,
                path: &self.path,
                host: &self.host,
                route: self.route(),
                rule: self.refused_by.as_deref().unwrap_or_default(),
                status,
                reason: self.why,
                attempts: self.attempts,
                upstream: self.upstream,
            });
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
