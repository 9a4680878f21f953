//! A request on its way to an endpoint, and the answer on its way back.

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use shield::EndpointResult;
use tokio::time::Instant;

use super::answer::Reason;
use super::body::{Answer, Passed};
use super::due::Due;
use super::endpoint::{Endpoints, Flight};
use super::framing::{for_http1, is_coded};
use super::given::Given;
use super::headers::{Client, drop_underscores, forwarded, is_grpc, strip_hop_by_hop, websocket};
use super::outgoing::{Intake, Outgoing};
use super::pool::{Pool, SendError, Sent, Unsent};
use super::prepare::{Backend, Rule};
use super::protection::{Clock, Guarded};
use super::proxy::Connection;
use super::record::Record;
use super::retry::{Failure, Verdict};
use super::room::{self, Pass};
use super::tunnel::Tunnel;

/// A request that is on its way.
pub(super) struct Passing<'a> {
    pub(super) connection: &'a Connection,
    pub(super) rule: &'a Rule,
    pub(super) backend: &'a Backend,
    pub(super) service: &'a Endpoints,
    pub(super) prefix: usize,
}

/// A request as it is sent again: its head, and its body as far as it is known.
struct Spare {
    method: Method,
    target: Uri,
    version: Version,
    headers: HeaderMap,
    intake: Intake,
}

/// The sendings of one request.
struct Course<'a> {
    passing: &'a Passing<'a>,
    record: &'a mut Record,
    method: Method,
    intake: Intake,
    spare: Option<Spare>,
    tried: Vec<Arc<Pool>>,
    sent: u8,
    due: Option<Due>,
    clock: Clock,
}

/// What one sending brought.
enum Brought {
    Answer(Sent),
    /// Nothing, and the request itself where it was not sent.
    Error(SendError, Option<Request<Outgoing>>),
    TimedOut,
}

impl Passing<'_> {
    pub(super) async fn pass(
        &self,
        mut request: Request<Incoming>,
        mut guarded: Option<Guarded>,
        let_in: Option<&mut Pass>,
        record: &mut Record,
    ) -> Result<Response<Answer>, Reason> {
        let due = self.rule.due(record);
        let bounds = &self.connection.shared.bounds;
        if request.body().size_hint().lower() > bounds.bytes_max {
            return Err(Reason::BodyTooLong);
        }
        // HTTP/1.0 changes to nothing (RFC 9110 section 7.8).
        let may_change = request.version() != Version::HTTP_10;
        let upgrade = strip_hop_by_hop(request.headers_mut()).filter(|_| may_change);
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        self.change(&mut request, record)?;
        if let Some(protocol) = &upgrade {
            let headers = request.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        }
        dress(&mut request, self.service.speaks_http2());
        let is_kept = upgrade.is_none() && self.rule.retrying.keeps(request.method());
        let (head, body) = request.into_parts();
        let (intake, body) = Intake::new(body, bounds, is_kept);
        if self.service.speaks_http2() && is_grpc(&head.headers) {
            // Its messages come when there is something to say, and its answer may wait for the last of them.
            intake.relax();
        }
        record.reads(&intake);
        let request = Request::from_parts(head, body);
        if let Some(guarded) = &mut guarded {
            guarded.sent(intake.clone());
        }
        if let Some(let_in) = let_in {
            let_in.sent(intake.clone());
        }
        let course = self.course(&request, intake.clone(), is_kept, due, record);
        let sent = course.run(request).await;
        intake.relax();
        let sent = sent.and_then(|got| sound(got, upgrade.is_some()));
        if let Some(guarded) = &mut guarded {
            match is_error(&sent) {
                Some(is_error) => guarded.heard(is_error),
                None => guarded.forget(),
            }
        }
        Ok(self.answered(sent?, guarded, client, due, record))
    }

    fn course<'a>(
        &'a self,
        request: &Request<Outgoing>,
        intake: Intake,
        is_kept: bool,
        due: Option<Due>,
        record: &'a mut Record,
    ) -> Course<'a> {
        let spare = is_kept.then(|| Spare {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            intake: intake.clone(),
        });
        Course {
            passing: self,
            record,
            method: request.method().clone(),
            intake,
            spare,
            tried: Vec::new(),
            sent: 0,
            due,
            clock: self.service.clock(),
        }
    }

    /// Makes the request what the endpoint shall see.
    fn change(&self, request: &mut Request<Incoming>, record: &Record) -> Result<(), Reason> {
        let connection = self.connection;
        let (host, port) = (record.host.as_str(), connection.shown_port);
        let changes = [&self.rule.changes, &self.backend.changes];
        // The backend's word is the narrower one; what it leaves open is as the rule says.
        let rewrites = || changes.iter().rev().filter_map(|c| c.rewrite.as_ref());
        let path = rewrites().find_map(|rewrite| rewrite.path.as_ref());
        let path = path.map_or_else(
            || record.path.clone(),
            |path| path.of(&record.path, self.prefix),
        );
        let target = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let shown = rewrites().find_map(|rewrite| rewrite.hostname.clone());
        let authority = original_authority(request);
        let target = PathAndQuery::try_from(target).map_err(|_| Reason::BrokenRoute)?;
        *request.uri_mut() = Uri::from(target);
        let headers = request.headers_mut();
        headers.remove(EXPECT);
        drop_underscores(headers);
        room::strip(headers);
        let client = Client {
            address: connection.client,
            forwarded_for: connection.forwarded_for.as_ref(),
            host,
            is_tls: connection.is_tls,
            port,
        };
        forwarded(headers, &client);
        let shown = shown.as_deref().or(authority.as_deref()).unwrap_or(host);
        if let Ok(value) = HeaderValue::from_str(shown) {
            headers.insert(HOST, value);
        }
        if let Some(trace) = record.trace() {
            trace.pass_on(headers);
        }
        for changes in changes {
            changes.request.apply(headers);
        }
        Ok(())
    }

    fn answered(
        &self,
        (flight, sent): (Flight, Sent),
        guarded: Option<Guarded>,
        client: Option<OnUpgrade>,
        due: Option<Due>,
        record: &mut Record,
    ) -> Response<Answer> {
        let Sent { mut response, lent } = sent;
        if response.headers().contains_key(TRANSFER_ENCODING) {
            // It is not what the body was read by (RFC 9112 section 6.3).
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        let upgrade = strip_hop_by_hop(response.headers_mut());
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let server = is_upgrade.then(|| hyper::upgrade::on(&mut response));
        *response.version_mut() = Version::default();
        let mut response = response.map(|body| {
            let given = Given::new(body, lent, flight, due, guarded);
            let taken = self.connection.answers.begin(given);
            Answer::Passed(Box::new(Passed::new(taken)))
        });
        let headers = response.headers_mut();
        for changes in [&self.rule.changes, &self.backend.changes] {
            changes.response.apply(headers);
        }
        if let (Some(client), Some(server), Some(protocol)) = (client, server, upgrade) {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol);
            headers.remove(CONTENT_LENGTH);
            record.tunnel(Tunnel {
                client,
                server,
                seat: Arc::clone(&self.connection.seat),
                idle_max: self.connection.shared.upgrade_idle_max,
            });
        }
        response
    }
}

impl Course<'_> {
    /// Sends the request, again where the rule wants it, until there is an answer to be passed on.
    async fn run(mut self, request: Request<Outgoing>) -> Result<(Flight, Sent), Reason> {
        let retrying = &self.passing.rule.retrying;
        retrying.request(self.clock.now());
        let sent = self.send(request).await;
        self.intake.settle();
        if self.sent > 1 {
            let metrics = &retrying.metrics;
            match is_error(&sent) {
                Some(false) => metrics.recovered.inc(),
                Some(true) => metrics.failed.inc(),
                None => {}
            }
        }
        sent
    }

    async fn send(&mut self, mut request: Request<Outgoing>) -> Result<(Flight, Sent), Reason> {
        let Some(mut flight) = self.begin() else {
            return Err(Reason::NoEndpoint);
        };
        loop {
            let brought = self.once(&mut flight, request).await;
            self.record.heard();
            if let Some(result) = self.result(&brought) {
                flight.report(result);
            }
            let failure = match &brought {
                Brought::Answer(sent) => Failure::of_status(sent.response.status()),
                Brought::Error(error, _) => Some(Failure::of(error)),
                Brought::TimedOut => None,
            };
            self.tried.push(Arc::clone(flight.pool()));
            let again = match failure.filter(|_| self.intake.fault().is_none()) {
                Some(failure) => self.again(failure, brought).await,
                None => Err(brought),
            };
            match again {
                Ok((next, back)) => (flight, request) = (next, back),
                Err(Brought::Answer(sent)) => return Ok((flight, sent)),
                Err(Brought::Error(error, _)) => return Err(self.reason(&error)),
                Err(Brought::TimedOut) => return Err(self.late()),
            }
        }
    }

    /// An endpoint that was not asked yet; an earlier one only if the rule wants retries.
    fn begin(&self) -> Option<Flight> {
        let service = self.passing.service;
        let random = |count| fastrand::usize(..count);
        let other = service.begin(&self.tried, random);
        if other.is_some() || !self.passing.rule.retrying.repeats() {
            return other;
        }
        service.begin(&[], random)
    }

    async fn once(&mut self, flight: &mut Flight, request: Request<Outgoing>) -> Brought {
        let pool = Arc::clone(flight.pool());
        self.record.sends(pool.at());
        self.sent += 1;
        let sending = pool.send(request);
        let backend = self.passing.rule.backend_timeout;
        let backend = backend.map(|span| Instant::now() + span);
        let due = self.due.map(|due| due.at);
        let sent = match due.into_iter().chain(backend).min() {
            Some(deadline) => {
                let Ok(sent) = tokio::time::timeout_at(deadline, sending).await else {
                    // Found out now: what the client sends later is no excuse for the endpoint.
                    self.intake.end();
                    return Brought::TimedOut;
                };
                sent
            }
            None => sending.await,
        };
        match sent {
            Ok(sent) => Brought::Answer(sent),
            Err(Unsent { error, request }) => {
                let route = &self.passing.rule.route;
                tracing::debug!(route, error = %error, "an endpoint gave no answer");
                Brought::Error(error, request)
            }
        }
    }

    /// What it says about the endpoint; none if it is the client's fault or the guard's, if the endpoint goes away
    /// in good order, or if only the end of the answer's body will tell.
    fn result(&self, brought: &Brought) -> Option<EndpointResult> {
        if self.intake.fault().is_some() {
            return None;
        }
        match brought {
            Brought::Answer(sent) if Failure::of_status(sent.response.status()).is_none() => None,
            Brought::Error(SendError::Refused { .. } | SendError::Lacking { .. }, _) => None,
            Brought::TimedOut if self.is_late() => None,
            Brought::Answer(_) | Brought::Error(..) | Brought::TimedOut => {
                Some(EndpointResult::Failed)
            }
        }
    }

    /// The request for another sending and where it goes, or what there was if there is none.
    async fn again(
        &mut self,
        failure: Failure,
        mut brought: Brought,
    ) -> Result<(Flight, Request<Outgoing>), Brought> {
        let retrying = &self.passing.rule.retrying;
        let chance = fastrand::f64();
        let verdict = retrying.verdict(failure, &self.method, self.sent, chance);
        let Verdict::Again(pause) = verdict else {
            return Err(brought);
        };
        if self.due.is_some_and(|due| Instant::now() + pause >= due.at) {
            return Err(brought);
        }
        let is_kept = self.spare.as_ref().is_some_and(Spare::is_whole);
        let is_back = matches!(&brought, Brought::Error(_, Some(_)));
        if !is_kept && !is_back {
            retrying.metrics.too_long.inc();
            return Err(brought);
        }
        if !retrying.spend(failure, self.clock.now()) {
            return Err(brought);
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let Some(flight) = self.begin() else {
            return Err(brought);
        };
        let back = match &mut brought {
            Brought::Error(_, back) => back.take(),
            Brought::Answer(_) | Brought::TimedOut => None,
        };
        let request = back.or_else(|| self.spare.as_ref().and_then(Spare::request));
        let Some(request) = request else {
            // More of the body came during the pause than is kept.
            retrying.metrics.too_long.inc();
            return Err(brought);
        };
        if let Brought::Answer(sent) = brought {
            sent.discard();
        }
        Ok((flight, request))
    }

    /// Whether the time is over of which waiting for its turn left too little.
    fn is_late(&self) -> bool {
        let due = self.due.filter(|due| due.is_late);
        due.is_some_and(|due| due.at <= Instant::now())
    }

    /// Whose fault it is that the time is over.
    fn late(&self) -> Reason {
        match self.intake.fault() {
            Some(fault) => fault.into(),
            None if self.is_late() => Reason::TurnTimeout,
            None => Reason::EndpointTimeout,
        }
    }

    fn reason(&self, error: &SendError) -> Reason {
        if let Some(fault) = self.intake.fault() {
            return fault.into();
        }
        match error {
            SendError::Connect { .. } => Reason::ConnectFailure,
            SendError::Lacking { .. } => Reason::Exhausted,
            SendError::Handshake { .. } | SendError::Refused { .. } | SendError::Broken { .. } => {
                Reason::EndpointBroke
            }
        }
    }
}

impl Spare {
    fn is_whole(&self) -> bool {
        self.intake.is_whole()
    }

    fn request(&self) -> Option<Request<Outgoing>> {
        let mut request = Request::new(self.intake.again()?);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.version_mut() = self.version;
        request.headers_mut().clone_from(&self.headers);
        Some(request)
    }
}

/// An answer that can be passed on as it is meant. Nobody changes to another protocol that the client did not ask
/// for, or that the endpoint does not name.
fn sound((mut flight, sent): (Flight, Sent), is_asked: bool) -> Result<(Flight, Sent), Reason> {
    let headers = sent.response.headers();
    let is_upgrade = sent.response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let is_agreed = is_asked && websocket(headers).is_some();
    if is_upgrade && !is_agreed {
        flight.report(EndpointResult::Failed);
        return Err(Reason::EndpointBroke);
    }
    // How an application writes its headers is the same at each of its endpoints.
    if is_coded(headers) {
        return Err(Reason::EndpointBroke);
    }
    Ok((flight, sent))
}

/// Whether the target failed; none where it is the client's fault or the guard's, which says nothing about it.
fn is_error(sent: &Result<(Flight, Sent), Reason>) -> Option<bool> {
    match sent {
        Ok((_, sent)) => Some(sent.response.status().is_server_error()),
        Err(
            Reason::BodyTooLong
            | Reason::BodyTooSlow
            | Reason::BodyCut
            | Reason::Exhausted
            | Reason::TurnTimeout,
        ) => None,
        Err(_) => Some(true),
    }
}

/// HTTP/2 names scheme and host in the target, HTTP/1.1 only the path.
fn dress<B: Body>(request: &mut Request<B>, is_http2: bool) {
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
    } else {
        for_http1(request);
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
