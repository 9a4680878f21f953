//! Traces: each request is a step of one, by W3C Trace Context.
//!
//! What a client sends as `traceparent` is continued; its `sampled` flag is heeded up to a bound, since
//! citizens' clients are not ours. Where nothing is exported, headers pass untouched.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use shield::{Bucket, Quota, QuotaError, Rate};

use super::protection::Clock;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `00-` and 32, 16 and 2 digits with dashes between.
const LENGTH: usize = 55;
/// Traces a second that clients may ask for. The exporter's queue holds 2,048 spans and is emptied at
/// least every five seconds: these fill an eighth of it, so that nobody outside can crowd out what the
/// guard itself samples.
const ASKED_PER_SECOND: u32 = 50;

/// Who decides which requests are traced, and sends what was seen of them.
#[derive(Debug)]
pub(super) struct Tracing {
    tracer: SdkTracer,
    /// Of 2^32 requests that begin a trace here so many are sampled.
    share: u64,
    asked: Bucket,
    clock: Clock,
}

/// A request's place in a trace.
#[derive(Debug)]
pub(super) struct Trace {
    id: TraceId,
    /// What the next one is told, unless what came is right for it.
    header: Option<HeaderValue>,
    /// Whether what came was no trace context, so that what belongs to it is worth nothing.
    is_new: bool,
    span: Option<Span>,
}

/// What a span says, at its end.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) host: &'a str,
    pub(super) route: &'a str,
    pub(super) rule: &'a str,
    pub(super) status: u16,
    pub(super) reason: Option<&'a str>,
    pub(super) attempts: u32,
    pub(super) upstream: Option<SocketAddr>,
}

/// A trace context as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace: TraceId,
    span: SpanId,
    is_sampled: bool,
}

impl Tracing {
    /// Samples `percent` of the traces that begin here.
    pub(super) fn new(tracer: SdkTracer, percent: f64, clock: Clock) -> Result<Self, QuotaError> {
        let asked = Quota::new(
            Rate::new(ASKED_PER_SECOND, Duration::from_secs(1))?,
            ASKED_PER_SECOND,
        )?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a percentage of 2^32 fits 33 bits"
        )]
        let share = (percent.clamp(0.0, 100.0) / 100.0 * 2f64.powi(32)) as u64;
        Ok(Self {
            tracer,
            share,
            asked: Bucket::full(asked),
            clock,
        })
    }

    /// The place of a request with these headers.
    pub(super) fn begin(&self, method: &Method, headers: &HeaderMap) -> Trace {
        let parent = parent(headers);
        let is_sampled = match parent {
            Some(parent) => parent.is_sampled && self.asked.take(1, self.clock.now()).is_ok(),
            None => u64::from(fastrand::u32(..)) < self.share,
        };
        if is_sampled {
            return self.sampled(method, parent);
        }
        let Some(parent) = parent else {
            let id = TraceId::from(fastrand::u128(1..));
            return Trace {
                id,
                header: Some(text(id, SpanId::from(fastrand::u64(1..)), false)),
                is_new: true,
                span: None,
            };
        };
        // Nothing is said about this step, so the next one continues the last that something is said
        // about.
        let header = parent
            .is_sampled
            .then(|| text(parent.trace, parent.span, false));
        Trace {
            id: parent.trace,
            header,
            is_new: false,
            span: None,
        }
    }

    fn sampled(&self, method: &Method, parent: Option<Parent>) -> Trace {
        let context = parent.map_or_else(Context::new, |parent| {
            let flags = TraceFlags::SAMPLED;
            let state = TraceState::default();
            let remote = SpanContext::new(parent.trace, parent.span, flags, true, state);
            Context::new().with_remote_span_context(remote)
        });
        let builder = self
            .tracer
            .span_builder(name(method))
            .with_kind(SpanKind::Server);
        let span = builder.start_with_context(&self.tracer, &context);
        let said = span.span_context();
        let (id, is_sampled) = (said.trace_id(), said.is_sampled());
        Trace {
            id,
            header: Some(text(id, said.span_id(), is_sampled)),
            is_new: parent.is_none(),
            span: Some(span),
        }
    }
}

impl Trace {
    /// Tells the next one where it stands.
    pub(super) fn pass_on(&self, headers: &mut HeaderMap) {
        if self.is_new {
            headers.remove(TRACESTATE);
        }
        if let Some(header) = &self.header {
            headers.insert(TRACEPARENT, header.clone());
        }
    }

    /// The trace that it is a step of.
    pub(super) fn id(&self) -> TraceId {
        self.id
    }

    /// Whether something is to be said about it.
    pub(super) fn is_sampled(&self) -> bool {
        self.span.is_some()
    }

    /// Sends what was seen.
    pub(super) fn end(mut self, seen: &Seen<'_>) {
        let Some(span) = &mut self.span else { return };
        let mut attributes = vec![
            KeyValue::new("http.request.method", name(seen.method)),
            KeyValue::new("url.path", seen.path.to_owned()),
            KeyValue::new("server.address", seen.host.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(seen.status)),
            KeyValue::new("jiuzhou.route", seen.route.to_owned()),
            KeyValue::new("jiuzhou.attempts", i64::from(seen.attempts)),
        ];
        if let Some(reason) = seen.reason {
            attributes.push(KeyValue::new("error.type", reason.to_owned()));
        }
        if !seen.rule.is_empty() {
            attributes.push(KeyValue::new("jiuzhou.rule", seen.rule.to_owned()));
        }
        if let Some(upstream) = seen.upstream {
            attributes.push(KeyValue::new(
                "network.peer.address",
                upstream.ip().to_string(),
            ));
            attributes.push(KeyValue::new(
                "network.peer.port",
                i64::from(upstream.port()),
            ));
        }
        span.set_attributes(attributes);
        if seen.status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(SystemTime::now());
    }
}

/// The trace that a client says its request belongs to.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<TraceId> {
    parent(headers).map(|parent| parent.trace)
}

/// A client may make up methods; a name of a span is one of few.
fn name(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
    ];
    let known = KNOWN.into_iter().find(|known| *known == method.as_str());
    known.unwrap_or("_OTHER")
}

fn text(trace: TraceId, span: SpanId, is_sampled: bool) -> HeaderValue {
    let text = format!("00-{trace}-{span}-{:02x}", u8::from(is_sampled));
    // Digits and dashes are what a header may hold.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Two contexts, or one that breaks a rule, are none.
fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let text = all.next()?.to_str().ok()?;
    if all.next().is_some() || !text.is_char_boundary(LENGTH.min(text.len())) {
        return None;
    }
    let (known, more) = text.split_at_checked(LENGTH)?;
    let mut parts = known.split('-');
    let [version, trace, span, flags] =
        [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let has_more = parts.next().is_some();
    // A later version may say more behind a dash, this one may not.
    let is_whole = more.is_empty() || (version != "00" && more.starts_with('-'));
    let fits = [(version, 2), (trace, 32), (span, 16), (flags, 2)];
    let is_hex = fits.iter().all(|(part, length)| is_hex(part, *length));
    if has_more || !is_whole || !is_hex || version == "ff" {
        return None;
    }
    let trace = TraceId::from_hex(trace).ok()?;
    let span = SpanId::from_hex(span).ok()?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    if trace == TraceId::INVALID || span == SpanId::INVALID {
        return None;
    }
    Some(Parent {
        trace,
        span,
        is_sampled: flags & 1 == 1,
    })
}

fn is_hex(text: &str, length: usize) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == length && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Sent(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Sent {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(values: &[&str]) -> HeaderMap {
        let pairs = values
            .iter()
            .map(|value| (TRACEPARENT, HeaderValue::from_str(value).unwrap()));
        pairs.collect()
    }

    fn tracing(percent: f64) -> (Tracing, Sent, SdkTracerProvider) {
        let exporter = Sent::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let tracing = Tracing::new(provider.tracer("test"), percent, Clock::start()).unwrap();
        (tracing, exporter, provider)
    }

    #[test]
    fn what_breaks_a_rule_of_trace_context_is_none() {
        assert!(parent(&headers(&[PARENT])).unwrap().is_sampled);
        let unsampled = PARENT.replace("-01", "-00");
        assert!(!parent(&headers(&[&unsampled])).unwrap().is_sampled);
        assert!(parent(&headers(&[&format!("01{}-more", &PARENT[2..])])).is_some());
        for bad in [
            "",
            "00",
            &PARENT.to_uppercase(),
            &format!("{PARENT}-more"),
            &format!("ff{}", &PARENT[2..]),
            &format!("01{}more", &PARENT[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920-331-01",
        ] {
            assert_eq!(parent(&headers(&[bad])), None, "{bad}");
        }
        assert_eq!(parent(&headers(&[PARENT, PARENT])), None);
    }

    #[test]
    fn a_sampled_parent_gets_a_child_and_an_unsampled_one_stays_as_it_is() {
        let (tracing, _exporter, _provider) = tracing(0.0);
        let mut passed = headers(&[PARENT]);
        let trace = tracing.begin(&Method::GET, &passed);
        assert!(trace.is_sampled());
        trace.pass_on(&mut passed);
        let child = parent(&passed).unwrap();
        let came = parent(&headers(&[PARENT])).unwrap();
        assert_eq!(child.trace, came.trace);
        assert_ne!(child.span, came.span);
        let unsampled = PARENT.replace("-01", "-00");
        let mut passed = headers(&[&unsampled]);
        let trace = tracing.begin(&Method::GET, &passed);
        trace.pass_on(&mut passed);
        assert!(!trace.is_sampled());
        assert_eq!(passed[TRACEPARENT], unsampled);
    }

    #[test]
    fn clients_cannot_have_more_traced_than_the_bound() {
        let (tracing, _exporter, _provider) = tracing(0.0);
        let began = std::time::Instant::now();
        let sampled = (0..10 * ASKED_PER_SECOND).filter(|_| {
            tracing
                .begin(&Method::GET, &headers(&[PARENT]))
                .is_sampled()
        });
        let count = sampled.count();
        // The bound, and what comes free while they are asked for.
        let meanwhile = usize::try_from(began.elapsed().as_millis() / 20).unwrap();
        assert!((50..=51 + meanwhile).contains(&count), "{count}");
    }

    #[test]
    fn without_a_parent_the_share_decides_and_the_next_is_told() {
        let (all, exporter, _provider) = tracing(100.0);
        let trace = all.begin(&Method::from_bytes(b"MADEUP").unwrap(), &HeaderMap::new());
        assert!(trace.is_sampled());
        trace.end(&Seen {
            method: &Method::GET,
            path: "/a",
            host: "a",
            route: "ns/route",
            rule: "",
            status: 503,
            reason: Some("NoEndpoint"),
            attempts: 1,
            upstream: None,
        });
        let spans = exporter.0.lock().unwrap();
        assert_eq!(spans[0].name, "_OTHER");
        assert_eq!(spans[0].span_kind, SpanKind::Server);
        let (none, _exporter, _provider) = tracing(0.0);
        let mut told = HeaderMap::new();
        told.insert(TRACESTATE, HeaderValue::from_static("left=over"));
        let trace = none.begin(&Method::GET, &told);
        trace.pass_on(&mut told);
        assert!(!trace.is_sampled() && told.get(TRACESTATE).is_none());
        assert!(!parent(&told).unwrap().is_sampled);
    }
}
