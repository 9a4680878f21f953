//! What is told of requests: the access log, traces, metrics, and the standing of rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use operator::guard::config::{Configuration, Rule};
use operator::guard::serve::{AccessLogTarget, Settings};
use operator::guard::standing::{Breaker, RuleKind, Standing};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{
    Served, echo, endpoint, free_port, get, metric, mirror, ping, routes, say, serve, serve_with,
    settings, simple, status, to, until, websocket, within,
};

struct Log {
    path: PathBuf,
    settings: Settings,
}

impl Log {
    fn new(name: &str) -> Self {
        let file = format!("guard-observed-{}-{name}.log", std::process::id());
        let path = std::env::temp_dir().join(file);
        let mut settings = settings();
        settings.observing.access_log = AccessLogTarget::File(path.clone());
        settings.observing.access_log_percent = 100;
        Self { path, settings }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap_or_default()
    }

    fn lines(&self) -> Vec<Value> {
        let text = self.text();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    async fn wait(&self, count: usize) -> Vec<Value> {
        until("the lines are written", || self.lines().len() >= count).await;
        self.lines()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_request_and_never_its_query() {
    let log = Log::new("lines");
    let at = mirror().await;
    let rules = vec![("/app", to("ns/app:80")), ("/none", to("ns/none:80"))];
    let configuration = routes(rules, &[("ns/app:80", &[at]), ("ns/none:80", &[])]);
    let served = serve_with(&log.settings, &configuration).await;
    let request = "POST /app/x?citizen=33010519900101 HTTP/1.1\r\nHost: App.example\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n\
         Content-Length: 5\r\nConnection: close\r\n\r\nhello";
    let answer = say(served.at, request).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(status(&get(served.at, "/none/%22?secret").await), 503);
    let lines = log.wait(2).await;
    let (passed, refused) = (&lines[0], &lines[1]);
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    for (field, expected) in [
        ("method", json!("POST")),
        ("host", json!("app.example")),
        ("path", json!("/app/x")),
        ("protocol", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("route", json!("ns/route")),
        ("client", json!("127.0.0.1")),
        ("bytesIn", json!(5)),
        ("bytesOut", json!(body.len())),
        ("trace", json!("0af7651916cd43dd8448eb211c80319c")),
    ] {
        assert_eq!(passed[field], expected, "{field}: {passed}");
    }
    assert_eq!(passed["upstream"]["address"], json!(at));
    assert_eq!(passed["upstream"]["attempts"], 1);
    assert!(passed["micros"].as_u64() >= passed["upstream"]["micros"].as_u64());
    assert_eq!(refused["reason"], "NoEndpoint", "{refused}");
    assert_eq!(refused["status"], 503);
    assert!(refused.get("upstream").is_none());
    for secret in ["33010519900101", "secret", "?"] {
        assert!(!log.text().contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_and_a_websocket_that_ends_are_logged() {
    let log = Log::new("ends");
    let (begun, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let slow = endpoint(move |_| {
        begun.send(()).unwrap();
        std::future::pending()
    })
    .await;
    let rules = vec![("/slow", to("slow")), ("/", to("echo"))];
    let configuration = routes(rules, &[("slow", &[slow]), ("echo", &[echo().await])]);
    let served = serve_with(&log.settings, &configuration).await;
    let mut leaving = TcpStream::connect(served.at).await.unwrap();
    leaving
        .write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    within("the endpoint is asked", asked.recv()).await.unwrap();
    drop(leaving);
    let lines = log.wait(1).await;
    assert_eq!(lines[0]["status"], 499, "{}", lines[0]);
    assert_eq!(lines[0]["reason"], "ClientGone");
    let gone = metric(
        &served,
        "jiuzhou_requests_total",
        &[("outcome", "ClientGone")],
    );
    assert!((gone - 1.0).abs() < 0.5);
    let mut stream = websocket(served.at).await;
    ping(&mut stream).await;
    drop(stream);
    let lines = log.wait(2).await;
    assert_eq!(lines[1]["status"], 101, "{}", lines[1]);
    assert_eq!(lines[1]["bytesIn"], 4);
    assert_eq!(lines[1]["bytesOut"], 4);
}

#[tokio::test]
async fn what_a_drain_cuts_is_logged_as_cut_by_the_guard() {
    let log = Log::new("drained");
    let (begun, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let slow = endpoint(move |_| {
        begun.send(()).unwrap();
        std::future::pending()
    })
    .await;
    let rules = vec![("/slow", to("slow")), ("/", to("echo"))];
    let configuration = routes(rules, &[("slow", &[slow]), ("echo", &[echo().await])]);
    let served = serve_with(&log.settings, &configuration).await;
    let mut open = websocket(served.at).await;
    ping(&mut open).await;
    let mut waiting = TcpStream::connect(served.at).await.unwrap();
    waiting
        .write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    within("the endpoint is asked", asked.recv()).await.unwrap();
    served.guard.drain(Duration::from_millis(50)).await;
    let lines = log.wait(2).await;
    let told = |line: &Value| (line["status"].as_u64(), line["reason"].clone());
    let told: BTreeMap<_, _> = lines.iter().map(told).collect();
    let drained = [101, 499].map(|status| (Some(status), json!("Drained")));
    assert_eq!(told, BTreeMap::from(drained));
    for (outcome, count) in [("Drained", 1.0), ("ClientGone", 0.0)] {
        let counted = metric(&served, "jiuzhou_requests_total", &[("outcome", outcome)]);
        assert!((counted - count).abs() < 0.5, "{outcome}: {counted}");
    }
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

#[tokio::test]
async fn a_trace_goes_on_through_the_guard() {
    let spans = Spans::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(spans.clone())
        .build();
    let mut settings = settings();
    settings.observing.tracer = Some(provider.tracer("test"));
    let served = serve_with(&settings, &simple(&[mirror().await])).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = format!(
        "GET /x?secret HTTP/1.1\r\nHost: a\r\nbaggage: secret=1\r\n\
         traceparent: 00-{trace}-b7ad6b7169203331-01\r\nConnection: close\r\n\r\n"
    );
    let answer = say(served.at, request).await;
    until("the span is sent", || !spans.0.lock().unwrap().is_empty()).await;
    let spans = spans.0.lock().unwrap();
    let [span] = spans.as_slice() else {
        panic!("one span: {spans:?}");
    };
    assert_eq!(span.span_context.trace_id().to_string(), trace);
    assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    let passed_on = format!("traceparent: 00-{trace}-{}-01", span.span_context.span_id());
    assert!(answer.contains(&passed_on), "{answer}");
    let said = format!("{:?}", span.attributes);
    assert!(said.contains("ns/route") && said.contains("200"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

fn protected(endpoint: SocketAddr, policy: &Value) -> Configuration {
    let rule = Rule {
        policy: Some("ns/policy".into()),
        ..to("ns/app:80")
    };
    let mut configuration = routes(vec![("/", rule)], &[("ns/app:80", &[endpoint])]);
    let policy = serde_json::from_value(policy.clone()).unwrap();
    configuration.policies.insert("ns/policy".into(), policy);
    configuration
}

async fn all_rules() -> Served {
    let quota =
        |requests| json!({"rate": {"requests": requests, "perSeconds": 10}, "burst": requests});
    let policy = json!({"name": "ns/policy",
        "rateLimits": [
            {"name": "total", "scope": "Instance", "quota": quota(100)},
            {"name": "tight", "scope": "Instance", "quota": quota(1), "mode": "Shadow"},
            {"name": "shared", "scope": "Cluster", "quota": quota(1000)}],
        "hotKeys": [{"name": "venue", "key": [{"query": "venue"}], "hot": {"hotAtPercent": 10},
            "limit": quota(1000)}],
        "breakers": [{"name": "errors", "settings": {"condition": {"errors": {"percent": 50}},
            "window": {"secs": 10, "nanos": 0}, "minRequests": 20,
            "openFor": {"secs": 60, "nanos": 0}, "probes": 5}}],
        "concurrency": {"max": 7}});
    let sick = endpoint(async |_| {
        let answer = http::Response::builder().status(500);
        answer.body(super::support::text("")).unwrap()
    })
    .await;
    serve(&protected(sick, &policy)).await
}

#[tokio::test]
async fn what_rules_did_and_where_they_stand_is_told() {
    let served = all_rules().await;
    for _ in 0..30 {
        get(served.at, "/").await;
    }
    let series = [
        ("jiuzhou_breaker_state", ("rule", "errors"), 2.0),
        (
            "jiuzhou_limit_lease_rate",
            ("rule", "ns/policy/total"),
            10.0,
        ),
        ("jiuzhou_limit_lease_rate", ("rule", "ns/policy/tight"), 0.1),
        ("jiuzhou_hot_keys", ("rule", "ns/policy/venue"), 0.0),
    ];
    for (name, label, expected) in series {
        let value = metric(&served, name, &[label]);
        assert!((value - expected).abs() < 0.01, "{name}: {value}");
    }
    let labels = [
        ("route", "ns/route"),
        ("rule", "tight"),
        ("reason", "RateLimited"),
    ];
    let shadowed = metric(&served, "jiuzhou_requests_shadowed_total", &labels);
    assert!(shadowed >= 18.0, "{shadowed}");
    let standing = served.guard.standing();
    // What the page says is what its readers take in.
    let told: Standing = serde_json::from_str(&serde_json::to_string(&standing).unwrap()).unwrap();
    assert_eq!(told, standing);
    let policy = &standing.policies[0];
    assert_eq!((policy.admitted, policy.refused), (20, 10));
    assert_eq!(policy.routes, ["ns/route"]);
    assert_eq!(policy.concurrency.unwrap().limit, 7);
    let errors = policy.rules.iter().find(|rule| rule.name == "errors");
    let errors = errors.unwrap();
    assert_eq!(errors.refused, 10);
    assert_eq!(
        errors.kind,
        RuleKind::Breaker {
            state: Breaker::Open
        }
    );
    let tight = policy.rules.iter().find(|rule| rule.name == "tight");
    assert!(tight.is_some_and(|rule| rule.is_shadow && rule.would_refuse >= 18));
}

#[tokio::test]
async fn of_what_guards_hold_together_each_tells_its_own_part() {
    let served = all_rules().await;
    let rate = |rule| metric(&served, "jiuzhou_limit_lease_rate", &[("rule", rule)]);
    assert!((rate("ns/policy/shared") - 100.0).abs() < 0.01);
    served.guard.hold(BTreeMap::new(), shield::Share::one_of(4));
    assert!((rate("ns/policy/shared") - 25.0).abs() < 0.01);
    assert!((rate("ns/policy/total") - 10.0).abs() < 0.01, "its alone");
    let standing = served.guard.standing();
    let mut rules = standing.policies[0].rules.iter();
    let shared = rules.find(|rule| rule.name == "shared").unwrap();
    assert!(matches!(
        shared.kind,
        RuleKind::RateLimit { burst: 250, .. }
    ));
}

#[tokio::test]
async fn a_rule_that_is_gone_leaves_no_series() {
    let served = all_rules().await;
    assert!(metric(&served, "jiuzhou_limit_lease_rate", &[]) > 0.0);
    let mut without = simple(&[mirror().await]);
    without.ports[0].port = served.at.port();
    served.guard.apply(&without).await.unwrap();
    let names: Vec<_> = served
        .registry
        .gather()
        .iter()
        .map(|f| f.name().to_owned())
        .collect();
    for name in ["jiuzhou_limit_lease_rate", "jiuzhou_breaker_state"] {
        assert!(!names.iter().any(|there| there == name), "{names:?}");
    }
}

#[tokio::test]
async fn a_route_that_is_gone_leaves_no_series() {
    let limit = json!({"rate": {"requests": 1, "perSeconds": 3600}, "burst": 1});
    let policy = json!({"name": "ns/policy", "rateLimits": [
        {"name": "all", "scope": "Instance", "quota": limit}]});
    let mut configuration = protected(mirror().await, &policy);
    let served = serve(&configuration).await;
    for _ in 0..3 {
        get(served.at, "/").await;
    }
    let series = || {
        let families = served.registry.gather();
        let all = families
            .iter()
            .flat_map(prometheus::proto::MetricFamily::get_metric);
        let of_route = all.filter(|metric| {
            let mut labels = metric.get_label().iter();
            labels.any(|label| label.value() == "ns/route")
        });
        of_route.count()
    };
    assert!(series() > 5, "{}", series());
    configuration.rules[0].route = "ns/other".into();
    configuration.revision = "renamed".into();
    served.guard.apply(&configuration).await.unwrap();
    assert_eq!(series(), 0);
}

#[tokio::test]
async fn a_port_that_is_taken_is_opened_as_soon_as_it_is_free() {
    let port = free_port();
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut configuration = simple(&[mirror().await]);
    configuration.ports[0].port = port;
    let mut other = configuration.ports[0].clone();
    other.port = free_port();
    let free = SocketAddr::from(([127, 0, 0, 1], other.port));
    configuration.ports.push(other);
    let served = serve(&configuration).await;
    // The others are served meanwhile.
    assert_eq!(status(&get(free, "/").await), 200);
    let closed = || metric(&served, "jiuzhou_ports_closed", &[]);
    until("the port is told", || closed() > 0.5).await;
    drop(taken);
    until("the port is open", || closed() < 0.5).await;
    let answered = tokio::time::timeout(Duration::from_secs(30), get(served.at, "/")).await;
    assert_eq!(status(&answered.unwrap()), 200);
}
