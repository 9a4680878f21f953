//! One request: find its rule, ask its protection, pass it to an endpoint, pass the answer back.

use std::borrow::Cow;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::Either;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, CONNECTION};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access_log::AccessLog;
use super::answer::{Reason, Refusal, redirect, refuse, wants_page};
use super::answers::Answers;
use super::body::Answer;
use super::due::Due;
use super::framing;
use super::headers::host;
use super::keys::Keys;
use super::language::Language;
use super::matching::Asked;
use super::metrics::Metrics;
use super::outgoing::Bounds;
use super::passing::Passing;
use super::prepare::{NotFound, Rule, Serving};
use super::protection::{Protection, Stage};
use super::record::Record;
use super::room::{Entered, Pass};
use super::seat::Seat;
use super::trace::Tracing;
use crate::guard::config::{Opening, Redirect};
use crate::guard::path::normalise;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) current: ArcSwap<Serving>,
    pub(super) bounds: Bounds,
    /// Connections that changed to another protocol; a drain waits for them.
    pub(super) upgraded: TaskTracker,
    /// Set when the guard is about to end: no connection of HTTP/1 is kept.
    pub(super) ends: AtomicBool,
    /// The time for a drain is over: what is still under way is cut.
    pub(super) cut: CancellationToken,
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
    /// Where it came in.
    pub(super) opening: Opening,
    /// The port that the client asked, as far as anybody knows.
    pub(super) shown_port: u16,
    pub(super) is_tls: bool,
    /// Those of its answers that are on their way.
    pub(super) answers: Arc<Answers>,
    pub(super) seat: Arc<Seat>,
}

impl Shared {
    /// Whether TLS ends at a port, by the configuration in force.
    pub(super) fn speaks_tls(&self, opening: Opening) -> bool {
        self.current
            .load()
            .ports
            .get(&opening)
            .is_some_and(|port| port.is_tls)
    }
}

/// A request, from its head to the answer's.
struct Visit {
    connection: Arc<Connection>,
    record: Record,
    pass: Option<Pass>,
    version: Version,
    wants_page: bool,
    /// What a page is to be written in; read where one is.
    languages: Option<HeaderValue>,
}

/// How far a request came at once.
struct Settled {
    rule: Arc<Rule>,
    /// So much of its path is the prefix by which it matched.
    prefix: usize,
    /// Absent where nothing protects the target.
    stage: Option<(Arc<Protection>, Stage)>,
}

/// An answer that is there, or one that comes.
pub(super) type Answering =
    Either<Ready<Response<Answer>>, Pin<Box<dyn Future<Output = Response<Answer>> + Send>>>;

impl Connection {
    /// Answers a request, whatever it is. What is refused is refused at once, before anything is made that
    /// only a request needs which goes on.
    pub(super) fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answering {
        let mut visit = Visit::begin(self, &request);
        match visit.settle(&request) {
            Ok(settled) => Either::Right(Box::pin(visit.go_on(settled, request))),
            Err(refusal) => Either::Left(ready(visit.end(Err(refusal)))),
        }
    }

    fn location(
        &self,
        wanted: &Redirect,
        host: &str,
        path: &str,
        query: Option<&str>,
        prefix: usize,
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

impl Visit {
    fn begin(connection: Arc<Connection>, request: &Request<Incoming>) -> Self {
        let headers = request.headers();
        let wants_page = headers.get(ACCEPT).is_some_and(wants_page);
        let languages = headers.get(ACCEPT_LANGUAGE).filter(|_| wants_page);
        Self {
            record: Record::begin(&connection.shared, connection.client, request),
            pass: None,
            version: request.version(),
            wants_page,
            languages: languages.cloned(),
            connection,
        }
    }

    /// Finds the rule for a request and asks what protects it, as far as nothing is waited for.
    fn settle(&mut self, request: &Request<Incoming>) -> Result<Settled, Refusal> {
        let connection = &self.connection;
        let record = &mut self.record;
        let Some(host) = host(request.uri(), request.headers(), request.version()) else {
            request.uri().path().clone_into(&mut record.path);
            return Err(Reason::BadRequest.into());
        };
        record.host = host;
        let path = request.uri().path();
        let normal = normalise(path);
        let is_bad = normal.is_err();
        // What has no meaning is logged as it came.
        record.path = normal.map_or_else(|_| path.to_owned(), Cow::into_owned);
        let serving = connection.shared.current.load();
        if is_bad || request.method() == Method::CONNECT {
            return Err(Reason::BadRequest.into());
        }
        framing::check(request.headers())?;
        // A connection that was made before the port was taken out of the configuration has none.
        let port = serving.ports.get(&connection.opening);
        let port = port.ok_or(Reason::NoRoute)?;
        let asked = Asked {
            method: request.method().as_str(),
            path: &record.path,
            query: request.uri().query(),
            headers: request.headers(),
        };
        let found = port.find(connection.server_name.as_deref(), &record.host, &asked);
        let found = found.map_err(|not_found| match not_found {
            NotFound::NoRoute => Reason::NoRoute,
            NotFound::Misdirected => Reason::Misdirected,
            NotFound::Ambiguous => Reason::BadRequest,
        })?;
        let (rule, prefix) = (Arc::clone(found.rule), found.prefix);
        record.rule = Some(Arc::clone(&rule));
        if let Some(room) = &rule.room {
            match room.enter(request, connection.is_tls) {
                Entered::Passes(here) => self.pass = Some(here),
                Entered::Waits(waiting) => return Err(Refusal::Waiting(waiting)),
            }
        }
        let stage = match &rule.protection {
            Some(protection) => {
                let keys = keys(connection, request);
                if let Some(shed) = protection.ambiguous(&keys) {
                    return Err(Refusal::Shed(shed));
                }
                let stage = protection.ask(&keys).map_err(Refusal::Shed)?;
                Some((Arc::clone(protection), stage))
            }
            None => None,
        };
        Ok(Settled {
            rule,
            prefix,
            stage,
        })
    }

    async fn go_on(mut self, settled: Settled, request: Request<Incoming>) -> Response<Answer> {
        let answered = self.pass_on(settled, request).await;
        self.end(answered)
    }

    /// Waits for the request's turn, and only then spends anything on it.
    async fn pass_on(
        &mut self,
        settled: Settled,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Refusal> {
        let Settled {
            rule,
            prefix,
            stage,
        } = settled;
        let (connection, record) = (&self.connection, &mut self.record);
        let guarded = match stage {
            Some((protection, stage)) => {
                let keys = keys(connection, &request);
                let turn = protection.wait(stage, &keys);
                let waited = within(rule.due(record), turn).await?;
                Some(waited.map_err(Refusal::Shed)?)
            }
            None => None,
        };
        if let Some(wanted) = &rule.redirect {
            let (host, path) = (&record.host, &record.path);
            let location = connection.location(wanted, host, path, request.uri().query(), prefix);
            return Ok(redirect(wanted.status, &location));
        }
        let backend = rule.backend(fastrand::u64(..));
        let Some((backend, service)) = backend.and_then(|b| Some((b, b.service.as_deref()?)))
        else {
            return Err(Reason::BrokenRoute.into());
        };
        let passing = Passing {
            connection,
            rule: &rule,
            backend,
            service,
            prefix,
        };
        Ok(passing
            .pass(request, guarded, self.pass.as_mut(), record)
            .await?)
    }

    fn end(mut self, answered: Result<Response<Answer>, Refusal>) -> Response<Answer> {
        let is_error = match &answered {
            Ok(response) => Some(response.status().is_server_error()),
            Err(refusal) => refusal.is_failure(),
        };
        let mut response = match answered {
            Ok(response) => response,
            Err(refusal) => {
                let ready = self.record.refused(&refusal);
                let page = self.wants_page;
                let page = page.then(|| Language::of(self.languages.as_ref()));
                refuse(&refusal, ready, page, fastrand::u64(..))
            }
        };
        if let Some(mut pass) = self.pass {
            // Also with what a later rule refuses: else who asks again is another newcomer.
            pass.stamp(response.headers_mut());
            pass.ended(is_error);
        }
        if self.connection.shared.ends.load(Ordering::Relaxed) {
            part(&mut response, self.version);
        }
        self.record.follow(response)
    }
}

/// Says that the connection ends with this answer, so that its next request is not lost with it. HTTP/2 says so by
/// itself, and who changes to another protocol is answered nothing more.
fn part(answer: &mut Response<Answer>, version: Version) {
    if version > Version::HTTP_11 || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    // To an answer of HTTP/1.1 the server would add `keep-alive` for a client of HTTP/1.0 that asked for it.
    *answer.version_mut() = version;
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(CONNECTION, close);
}

/// Waits no longer than until then: whoever asked has given up, and the endpoint would work for nobody.
async fn within<T>(due: Option<Due>, turn: impl Future<Output = T>) -> Result<T, Reason> {
    match due {
        Some(due) => {
            let waited = tokio::time::timeout_at(due.at, turn).await;
            waited.map_err(|_| Reason::TurnTimeout)
        }
        None => Ok(turn.await),
    }
}

fn keys<'a>(connection: &Connection, request: &'a Request<Incoming>) -> Keys<'a> {
    Keys {
        headers: request.headers(),
        query: request.uri().query(),
        client: connection.client,
    }
}
