//! Rules of a policy between real clients and real endpoints.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use operator::guard::config::{Configuration, Rule};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::support::{
    Served, endpoint, get, metric, mirror, routes, say, serve, status, text, to, within,
};

pub(super) fn protected(endpoint: SocketAddr, policy: &Value) -> Configuration {
    let rule = Rule {
        policy: Some("ns/policy".into()),
        ..to("ns/app:80")
    };
    let mut configuration = routes(vec![("/", rule)], &[("ns/app:80", &[endpoint])]);
    protect(&mut configuration, policy);
    configuration
}

pub(super) fn protect(configuration: &mut Configuration, policy: &Value) {
    let policy = serde_json::from_value(policy.clone()).unwrap();
    configuration.policies.insert("ns/policy".into(), policy);
}

fn limited(requests: u32) -> Value {
    let quota = json!({"rate": {"requests": requests, "perSeconds": 3600}, "burst": requests});
    json!({"name": "ns/policy", "rateLimits": [
        {"name": "per-user", "scope": "Instance", "key": [{"header": "x-user"}], "quota": quota}]})
}

async fn as_user(at: SocketAddr, user: &str) -> String {
    say(
        at,
        format!("GET / HTTP/1.1\r\nHost: a\r\nx-user: {user}\r\nConnection: close\r\n\r\n"),
    )
    .await
}

fn refused(served: &Served, rule: &str, reason: &str) -> f64 {
    let families = served.registry.gather();
    let family = families
        .iter()
        .find(|f| f.name() == "jiuzhou_requests_refused_total");
    let metrics = family
        .map(|family| family.get_metric().to_vec())
        .unwrap_or_default();
    let wanted = |metric: &&prometheus::proto::Metric| {
        let has = |name: &str, value: &str| {
            metric
                .get_label()
                .iter()
                .any(|l| l.name() == name && l.value() == value)
        };
        has("rule", rule) && has("reason", reason) && has("route", "ns/route")
    };
    metrics
        .iter()
        .filter(wanted)
        .map(|metric| metric.get_counter().get_value())
        .sum()
}

#[tokio::test]
async fn a_refusal_names_the_rule_and_hurts_no_other_key() {
    let served = serve(&protected(mirror().await, &limited(2))).await;
    for expected in [200, 200, 429, 429] {
        assert_eq!(status(&as_user(served.at, "a").await), expected);
    }
    let answer = as_user(served.at, "a").await;
    assert!(
        answer.contains(r#""title":"RateLimited""#) && answer.contains(r#""rule":"per-user""#),
        "{answer}"
    );
    assert!(answer.contains("retry-after: "), "{answer}");
    assert_eq!(status(&as_user(served.at, "b").await), 200);
    assert!((refused(&served, "per-user", "RateLimited") - 3.0).abs() < 0.5);
}

#[tokio::test]
async fn what_a_key_has_used_is_known_after_a_change_of_the_configuration() {
    let mut configuration = protected(mirror().await, &limited(2));
    let served = serve(&configuration).await;
    for _ in 0..2 {
        assert_eq!(status(&as_user(served.at, "a").await), 200);
    }
    protect(&mut configuration, &limited(3));
    configuration.revision = "2".into();
    served.guard.apply(&configuration).await.unwrap();
    assert_eq!(status(&as_user(served.at, "a").await), 429);
}

#[tokio::test]
async fn an_open_breaker_stays_open_by_other_settings_of_its_rule() {
    let at = endpoint(async |_| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Response::builder().status(status).body(text("")).unwrap()
    })
    .await;
    let policy = |percent: u32| {
        json!({"name": "ns/policy", "breakers": [{"name": "errors", "settings": {
            "condition": {"errors": {"percent": percent}}, "window": {"secs": 30, "nanos": 0},
            "minRequests": 5, "openFor": {"secs": 600, "nanos": 0}, "probes": 2}}]})
    };
    let mut configuration = protected(at, &policy(50));
    let served = serve(&configuration).await;
    for _ in 0..5 {
        assert_eq!(status(&get(served.at, "/").await), 500);
    }
    protect(&mut configuration, &policy(20));
    configuration.revision = "tighter".into();
    served.guard.apply(&configuration).await.unwrap();
    let answer = get(served.at, "/").await;
    assert!(
        status(&answer) == 503 && answer.contains("BreakerOpen"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_table_that_is_too_small_for_its_keys_shows() {
    let mut policy = limited(5);
    // The least table that there is has 76 places.
    policy["rateLimits"][0]["keys"] = json!(1);
    let served = serve(&protected(mirror().await, &policy)).await;
    let replaced = || {
        let rule = [("rule", "ns/policy/per-user")];
        metric(&served, "jiuzhou_keys_replaced_total", &rule)
    };
    assert_eq!(status(&as_user(served.at, "a").await), 200);
    assert!(replaced() < 0.5);
    for user in 0..200 {
        let _ = as_user(served.at, &user.to_string()).await;
    }
    assert!(replaced() > 0.5, "{}", replaced());
}

#[tokio::test]
async fn a_policy_that_makes_no_sense_is_refused_and_the_last_good_one_stays() {
    let mut configuration = protected(mirror().await, &limited(1));
    let served = serve(&configuration).await;
    let mut bad = limited(1);
    bad["rateLimits"][0]["warmUp"] = json!({"secs": 5, "nanos": 0});
    protect(&mut configuration, &bad);
    let error = served.guard.apply(&configuration).await.unwrap_err();
    let error = format!("{:#}", anyhow::Error::new(error));
    assert!(
        error.contains("ns/policy") && error.contains("per-user"),
        "{error}"
    );
    assert_eq!(status(&as_user(served.at, "a").await), 200);
    assert_eq!(status(&as_user(served.at, "a").await), 429);
}

#[tokio::test]
async fn a_target_that_fails_is_left_alone_and_asked_again_by_and_by() {
    let (is_sick, asked) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicUsize::new(0)),
    );
    let seen = (Arc::clone(&is_sick), Arc::clone(&asked));
    let at = endpoint(move |_| {
        seen.1.fetch_add(1, Ordering::Relaxed);
        let is_sick = seen.0.load(Ordering::Relaxed);
        async move {
            let status = if is_sick {
                StatusCode::INTERNAL_SERVER_ERROR
            } else {
                StatusCode::OK
            };
            Response::builder().status(status).body(text("")).unwrap()
        }
    })
    .await;
    let policy = json!({"name": "ns/policy", "breakers": [{"name": "errors", "settings": {
        "condition": {"errors": {"percent": 50}}, "window": {"secs": 30, "nanos": 0}, "minRequests": 5,
        "openFor": {"secs": 3, "nanos": 0}, "probes": 2}}]});
    let served = serve(&protected(at, &policy)).await;
    for _ in 0..5 {
        assert_eq!(status(&get(served.at, "/").await), 500);
    }
    for _ in 0..10 {
        let answer = get(served.at, "/").await;
        assert!(
            status(&answer) == 503 && answer.contains("BreakerOpen"),
            "{answer}"
        );
    }
    assert_eq!(asked.load(Ordering::Relaxed), 5);
    is_sick.store(false, Ordering::Relaxed);
    let well = async {
        let mut in_a_row = 0;
        while in_a_row < 30 {
            let is_well = status(&get(served.at, "/").await) == 200;
            in_a_row = if is_well { in_a_row + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("it is asked again", well).await;
}

#[tokio::test]
async fn a_target_that_hangs_is_found_out_although_its_clients_give_up() {
    let at = endpoint(async |_| {
        tokio::time::sleep(Duration::from_mins(1)).await;
        Response::new(text("late"))
    })
    .await;
    let policy = json!({"name": "ns/policy", "breakers": [{"name": "errors", "settings": {
        "condition": {"errors": {"percent": 50}}, "window": {"secs": 10, "nanos": 0}, "minRequests": 5,
        "openFor": {"secs": 30, "nanos": 0}, "probes": 2}}]});
    let served = serve(&protected(at, &policy)).await;
    let mut asked = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        asked.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(asked);
    let open = async {
        loop {
            let asking = tokio::time::timeout(Duration::from_millis(100), get(served.at, "/"));
            if asking.await.is_ok_and(|answer| status(&answer) == 503) {
                return;
            }
        }
    };
    within("the breaker is open", open).await;
}

/// A request that runs at the endpoint, also one that ends with its connection.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn count(now: Arc<AtomicUsize>, most: &AtomicUsize) -> Self {
        most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        Self(now)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn what_is_under_way_is_bounded_and_a_client_that_leaves_frees_its_place() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = (Arc::clone(&now), Arc::clone(&most));
    let at = endpoint(move |_| {
        let (now, most) = (Arc::clone(&seen.0), Arc::clone(&seen.1));
        async move {
            let _running = Running::count(now, &most);
            tokio::time::sleep(Duration::from_millis(100)).await;
            Response::new(text("done"))
        }
    })
    .await;
    let policy = json!({"name": "ns/policy", "concurrency": {"max": 3}});
    let served = serve(&protected(at, &policy)).await;
    // Some come, ask, and leave while they wait or run.
    for _ in 0..10 {
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let asked = (0..60).map(|_| {
        let at = served.at;
        tokio::spawn(async move { status(&get(at, "/").await) })
    });
    let mut counts = [0, 0];
    for answer in asked.collect::<Vec<_>>() {
        match answer.await.unwrap() {
            200 => counts[0] += 1,
            503 => counts[1] += 1,
            other => assert_eq!(other, 200),
        }
    }
    assert!(counts[0] >= 3, "{counts:?}");
    // The endpoint hears a moment later that a client left.
    assert!(most.load(Ordering::Relaxed) <= 3 + 10, "{most:?}");
    let ended = async {
        while now.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("all of them ended", ended).await;
    most.store(0, Ordering::Relaxed);
    let again = (0..9).map(|_| tokio::spawn(async move { status(&get(served.at, "/").await) }));
    for answer in again.collect::<Vec<_>>() {
        assert!(matches!(answer.await.unwrap(), 200 | 503));
    }
    assert_eq!(
        most.load(Ordering::Relaxed),
        3,
        "all three places are free again"
    );
}

#[tokio::test]
async fn a_request_beyond_the_pace_waits_for_its_turn() {
    let quota = json!({"rate": {"requests": 20, "perSeconds": 1}, "burst": 1});
    let policy = json!({"name": "ns/policy", "rateLimits": [{"name": "smooth", "scope": "Instance",
        "quota": quota, "maxWait": {"secs": 2, "nanos": 0}}]});
    let served = serve(&protected(mirror().await, &policy)).await;
    let started = std::time::Instant::now();
    let asked = (0..10).map(|_| tokio::spawn(async move { status(&get(served.at, "/").await) }));
    for answer in asked.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), 200);
    }
    // Nine of them 50 ms after the one before.
    assert!(
        started.elapsed() >= Duration::from_millis(440),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn the_time_of_a_request_is_over_also_while_a_limit_lets_it_wait() {
    let quota = json!({"rate": {"requests": 6, "perSeconds": 60}, "burst": 1});
    let policy = json!({"name": "ns/policy", "rateLimits": [{"name": "smooth", "scope": "Instance",
        "quota": quota, "maxWait": {"secs": 30, "nanos": 0}}]});
    let mut configuration = protected(mirror().await, &policy);
    configuration.rules[0].request_timeout = Some(Duration::from_secs(2));
    let served = serve(&configuration).await;
    assert_eq!(status(&get(served.at, "/").await), 200);
    let late = get(served.at, "/").await;
    assert_eq!(status(&late), 504, "{late}");
    assert!(late.contains("TurnTimeout"), "{late}");
}

/// Takes a second and a half over an answer, before it or inside it.
async fn slow(is_begun: bool) -> SocketAddr {
    let pause = || tokio::time::sleep(Duration::from_millis(1_500));
    endpoint(move |_| async move {
        if !is_begun {
            pause().await;
            return Response::new(text("done"));
        }
        let late = stream::once(async move {
            pause().await;
            Ok::<_, Infallible>(Frame::data(Bytes::from("done")))
        });
        Response::new(StreamBody::new(late).boxed())
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_the_wait_left_no_time_is_not_to_blame() {
    let late = one_after_the_other(slow(false).await).await;
    assert!(
        late.iter().all(|told| told.contains("TurnTimeout")),
        "{late:?}"
    );
}

#[tokio::test]
async fn an_endpoint_that_the_wait_left_no_time_for_its_body_is_not_to_blame() {
    let late = one_after_the_other(slow(true).await).await;
    assert!(late.iter().all(|told| status(told) == 200), "{late:?}");
}

/// Asks four times at once where one may pass each second, each with four seconds for all of it. Returns what did
/// not come whole, and fails where that opened the breaker.
async fn one_after_the_other(at: SocketAddr) -> Vec<String> {
    let quota = json!({"rate": {"requests": 60, "perSeconds": 60}, "burst": 1});
    let policy = json!({"name": "ns/policy",
        "rateLimits": [{"name": "smooth", "scope": "Instance", "quota": quota, "maxWait": {"secs": 30, "nanos": 0}}],
        "breakers": [{"name": "errors", "settings": {"condition": {"errorCount": {"count": 1}},
            "window": {"secs": 30, "nanos": 0}, "minRequests": 1, "openFor": {"secs": 30, "nanos": 0}, "probes": 1}}]});
    let mut configuration = protected(at, &policy);
    configuration.rules[0].request_timeout = Some(Duration::from_secs(4));
    let served = serve(&configuration).await;
    // The last has to wait for three of its four seconds.
    let asked = (0..4).map(|_| tokio::spawn(async move { get(served.at, "/").await }));
    let mut told = Vec::new();
    for answer in asked.collect::<Vec<_>>() {
        told.push(answer.await.unwrap());
    }
    told.retain(|told| !told.contains("done"));
    assert!(!told.is_empty());
    assert_eq!(
        status(&get(served.at, "/").await),
        200,
        "no breaker is open"
    );
    told
}

#[tokio::test]
async fn an_endpoint_that_had_all_of_its_own_time_is_to_blame_after_any_wait() {
    let hangs = endpoint(async |_| {
        tokio::time::sleep(Duration::from_mins(1)).await;
        Response::new(text("late"))
    });
    let quota = json!({"rate": {"requests": 60, "perSeconds": 60}, "burst": 1});
    let policy = json!({"name": "ns/policy", "rateLimits": [{"name": "smooth", "scope": "Instance",
        "quota": quota, "maxWait": {"secs": 30, "nanos": 0}}]});
    let mut configuration = protected(hangs.await, &policy);
    configuration.rules[0].request_timeout = Some(Duration::from_secs(5));
    configuration.rules[0].backend_timeout = Some(Duration::from_millis(300));
    let served = serve(&configuration).await;
    // The last waits for three of its five seconds.
    let asked = (0..4).map(|_| tokio::spawn(async move { get(served.at, "/").await }));
    for answer in asked.collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        assert!(answer.contains("EndpointTimeout"), "{answer}");
    }
}
