use std::time::Instant;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ListParams, PostParams, WatchParams},
};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use serde_json::json;

use super::*;
use crate::runtime::{
    fake::{Fake, Scripted, failure, reply},
    metrics::Metrics,
    telemetry::{meters, render},
};

const PATH: &str = "/api/v1/namespaces/default/configmaps/a";

struct Bench {
    fake: Fake,
    maps: Api<ConfigMap>,
    registry: prometheus::Registry,
    _provider: SdkMeterProvider,
}

fn bench(limits: Limits) -> Bench {
    let (registry, provider) = meters("test").unwrap();
    let metrics = Metrics::new(&provider.meter("test"));
    let fake = Fake::default();
    let service = tower::service_fn(fake.clone().service());
    let guard = Guard::new("hangzhou-a", service, limits, metrics.requests);
    let maps = Api::default_namespaced(Client::new(guard, "default"));
    fake.put(
        PATH,
        json!({"metadata": {"name": "a", "namespace": "default"}}),
    );
    Bench {
        fake,
        maps,
        registry,
        _provider: provider,
    }
}

impl Bench {
    #[track_caller]
    fn counted(&self, verb: &str, outcome: &str, count: u32) {
        let line = format!(
            r#"jiuzhou_api_requests_total{{cluster="hangzhou-a",outcome="{outcome}",verb="{verb}"}} {count}"#
        );
        let text = render(&self.registry).unwrap();
        assert!(text.lines().any(|l| l == line), "missing {line} in\n{text}");
    }
}

fn short() -> Limits {
    Limits {
        deadline: Duration::from_millis(200),
        ..Limits::default()
    }
}

fn throttled(seconds: u32) -> Scripted {
    let mut answer = failure(429, "TooManyRequests");
    answer.headers_mut().insert("retry-after", seconds.into());
    Scripted::Answer(answer)
}

#[tokio::test]
async fn every_request_is_counted_by_verb_and_outcome() {
    let bench = bench(Limits::default());
    let mut map = bench.maps.get("a").await.unwrap();
    bench.maps.get("b").await.unwrap_err();
    map.metadata.resource_version = Some("0".into());
    bench
        .maps
        .replace("a", &PostParams::default(), &map)
        .await
        .unwrap_err();
    map.metadata = kube::core::ObjectMeta {
        name: Some("c".into()),
        ..Default::default()
    };
    bench
        .maps
        .create(&PostParams::default(), &map)
        .await
        .unwrap();
    bench
        .fake
        .script(Scripted::Answer(failure(403, "Forbidden")));
    bench.maps.list(&ListParams::default()).await.unwrap_err();
    bench
        .fake
        .script(Scripted::Answer(failure(500, "InternalError")));
    bench.maps.get("a").await.unwrap_err();
    bench.counted("get", "ok", 1);
    bench.counted("get", "notfound", 1);
    bench.counted("get", "error", 1);
    bench.counted("update", "conflict", 1);
    bench.counted("create", "ok", 1);
    bench.counted("list", "denied", 1);
}

#[tokio::test]
async fn a_server_that_never_answers_costs_the_deadline_and_no_more() {
    let bench = bench(short());
    bench.fake.script(Scripted::Silence);
    let error = bench.maps.get("a").await.unwrap_err();
    assert!(is_timeout(&error), "{error:?}");
    bench.counted("get", "timeout", 1);
    bench.maps.get("a").await.unwrap();
}

#[tokio::test]
async fn a_body_that_stops_halfway_is_bounded_too() {
    let bench = bench(short());
    let body = futures::stream::once(async { Ok::<_, std::io::Error>("{\"metadata\":") });
    let body = futures::StreamExt::chain(body, futures::stream::pending());
    let body = axum::body::Body::from_stream(body);
    bench
        .fake
        .script(Scripted::Answer(http::Response::new(body)));
    assert!(is_timeout(&bench.maps.get("a").await.unwrap_err()));
    bench.counted("get", "timeout", 1);
}

#[tokio::test]
async fn a_throttled_request_waits_as_told_and_succeeds() {
    let bench = bench(Limits::default());
    bench.fake.script(throttled(1));
    let start = Instant::now();
    bench.maps.get("a").await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    bench.counted("get", "throttled", 1);
    bench.counted("get", "ok", 1);
}

#[tokio::test]
async fn a_wait_longer_than_the_deadline_is_answered_at_once() {
    let bench = bench(Limits::default());
    bench.fake.script(throttled(60));
    let start = Instant::now();
    let error = bench.maps.get("a").await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 429),
        "{error:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_request_is_sent_three_times_at_most() {
    let bench = bench(Limits::default());
    (0..4).for_each(|_| bench.fake.script(throttled(0)));
    bench.maps.get("a").await.unwrap_err();
    assert_eq!(bench.fake.log().len(), 3);
}

#[tokio::test]
async fn watches_take_no_place_from_other_requests() {
    let bench = bench(Limits {
        in_flight: 1,
        ..Limits::default()
    });
    let mut streams = Vec::new();
    for _ in 0..5 {
        let body = axum::body::Body::from_stream(futures::stream::pending::<
            Result<&'static str, std::io::Error>,
        >());
        bench
            .fake
            .script(Scripted::Answer(http::Response::new(body)));
        streams.push(
            bench
                .maps
                .watch(&WatchParams::default(), "1")
                .await
                .unwrap(),
        );
    }
    bench.maps.get("a").await.unwrap();
    bench.counted("watch", "ok", 5);
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_allowed() {
    let bench = bench(Limits {
        in_flight: 2,
        ..short()
    });
    bench.fake.set_down(true);
    let names = ["a", "b", "c", "d", "e"];
    let all = futures::future::join_all(names.iter().map(|name| bench.maps.get(name)));
    assert!(
        all.await
            .iter()
            .all(|answer| is_timeout(answer.as_ref().unwrap_err()))
    );
    // The other three waited for a place until their deadline and were never sent.
    assert_eq!(bench.fake.log().len(), 2);
}

#[tokio::test]
async fn a_lasting_refusal_does_not_multiply_the_load() {
    let bench = bench(Limits::default());
    for _ in 0..100 {
        (0..3).for_each(|_| bench.fake.script(throttled(0)));
        bench.maps.get("a").await.unwrap_err();
    }
    let sent = bench.fake.log().len();
    assert!(sent <= 100 + 10 + 11, "{sent} requests for 100 calls");
}

#[tokio::test]
async fn an_answer_arrives_unchanged() {
    let bench = bench(Limits::default());
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "九州"}});
    bench.fake.script(Scripted::Answer(reply(200, &object)));
    assert_eq!(
        bench.maps.get("a").await.unwrap().data.unwrap()["k"],
        "九州"
    );
}

#[tokio::test]
async fn a_wish_for_a_wait_longer_than_any_clock_goes_is_answered_at_once() {
    let bench = bench(Limits::default());
    let mut answer = failure(429, "TooManyRequests");
    answer.headers_mut().insert("retry-after", u64::MAX.into());
    bench.fake.script(Scripted::Answer(answer));
    assert!(bench.maps.get("a").await.is_err());
    bench.counted("get", "throttled", 1);
}

/// Did the request run into the deadline?
fn is_timeout(error: &kube::Error) -> bool {
    let kube::Error::Service(source) = error else {
        return false;
    };
    matches!(source.downcast_ref(), Some(ClientError::Deadline { .. }))
}
