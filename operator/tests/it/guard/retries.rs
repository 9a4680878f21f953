//! What is sent again, where to, and what is not.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use operator::guard::config::{Configuration, Protocol, Retries, RetryOn, Rule};
use tokio::net::TcpListener;

use super::support::{bytes, endpoint, get, metric, mirror, routes, say, serve, status, text, to};

const ALL: [RetryOn; 4] = [
    RetryOn::ConnectFailure,
    RetryOn::Refused,
    RetryOn::Reset,
    RetryOn::GatewayError,
];

fn retrying(attempts: u8, endpoints: &[SocketAddr]) -> Configuration {
    let rule = Rule {
        retries: Some(Retries {
            attempts,
            on: ALL.to_vec(),
            budget_percent: 100,
        }),
        ..to("ns/app:80")
    };
    let mut configuration = routes(vec![("/", rule)], &[("ns/app:80", endpoints)]);
    // These tests are about retries alone.
    let service = configuration.services.get_mut("ns/app:80").unwrap();
    service.outliers.consecutive_failures = 1_000;
    configuration
}

/// An endpoint that answers with this status, and how often it was asked.
async fn answering(status: StatusCode, after: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let at = endpoint(move |request: Request<Incoming>| {
        seen.fetch_add(1, Ordering::Relaxed);
        async move {
            let _ = request.into_body().collect().await;
            tokio::time::sleep(after).await;
            Response::builder().status(status).body(text("no")).unwrap()
        }
    })
    .await;
    (at, asked)
}

async fn send(at: SocketAddr, method: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    say(at, request).await
}

#[tokio::test]
async fn what_an_endpoint_broke_off_another_one_answers() {
    let served = serve(&retrying(1, &[bytes(b"").await, mirror().await])).await;
    for _ in 0..20 {
        assert_eq!(status(&get(served.at, "/").await), 200);
    }
    let outcome = |outcome| metric(&served, "jiuzhou_retries_total", &[("outcome", outcome)]);
    assert!(outcome("Recovered") > 0.0);
    assert!(outcome("Failed") < 0.5 && outcome("OverBudget") < 0.5);
}

#[tokio::test]
async fn a_body_is_sent_again_whole() {
    let served = serve(&retrying(1, &[bytes(b"").await, mirror().await])).await;
    let body = "0123456789abcdef".repeat(4000);
    for _ in 0..12 {
        let answer = send(served.at, "PUT", &body).await;
        assert_eq!(status(&answer), 200, "{}", &answer[..300]);
        assert!(answer.ends_with(&format!("\n{body}")));
    }
    let recovered = metric(
        &served,
        "jiuzhou_retries_total",
        &[("outcome", "Recovered")],
    );
    assert!(recovered > 0.0);
}

#[tokio::test]
async fn what_is_too_long_to_be_kept_is_sent_once() {
    let (at, asked) = answering(StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO).await;
    let served = serve(&retrying(3, &[at])).await;
    let answer = send(served.at, "PUT", &"x".repeat(64 * 1024 + 1)).await;
    assert_eq!(status(&answer), 503);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let too_long = metric(&served, "jiuzhou_retries_total", &[("outcome", "TooLong")]);
    assert!((too_long - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn what_must_not_happen_twice_is_sent_once() {
    let (at, asked) = answering(StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO).await;
    let served = serve(&retrying(2, &[at])).await;
    let answer = send(served.at, "POST", "once").await;
    assert_eq!(status(&answer), 503);
    assert_eq!(asked.swap(0, Ordering::Relaxed), 1);
    // The same endpoint where there is no other, and its answer in the end.
    let answer = send(served.at, "PUT", "again").await;
    assert!(status(&answer) == 503 && answer.ends_with("no"), "{answer}");
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    let failed = metric(&served, "jiuzhou_retries_total", &[("outcome", "Failed")]);
    assert!((failed - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn retries_stay_within_their_budget_and_over_a_change_of_the_configuration() {
    let (at, asked) = answering(StatusCode::BAD_GATEWAY, Duration::ZERO).await;
    let mut configuration = retrying(1, &[at]);
    let retries = configuration.rules[0].retries.as_mut().unwrap();
    retries.budget_percent = 0;
    let served = serve(&configuration).await;
    let started = Instant::now();
    for number in 0..100 {
        if number % 10 == 0 {
            configuration.revision = number.to_string();
            served.guard.apply(&configuration).await.unwrap();
        }
        assert_eq!(status(&get(served.at, "/").await), 502);
    }
    // Three for each second of the last ten.
    let allowed = 30 + 3 * usize::try_from(started.elapsed().as_secs() + 1).unwrap();
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked > 100 && asked <= 100 + allowed, "{asked}, {allowed}");
    let over = metric(
        &served,
        "jiuzhou_retries_total",
        &[("outcome", "OverBudget")],
    );
    assert!(over > 0.0);
}

#[tokio::test]
async fn the_time_for_the_whole_request_stands() {
    let delay = Duration::from_millis(300);
    let (at, asked) = answering(StatusCode::SERVICE_UNAVAILABLE, delay).await;
    let mut configuration = retrying(3, &[at]);
    configuration.rules[0].request_timeout = Some(delay * 3 / 2);
    let served = serve(&configuration).await;
    let answered = status(&get(served.at, "/").await);
    assert!(matches!(answered, 503 | 504), "{answered}");
    assert!(asked.load(Ordering::Relaxed) <= 2);
}

/// A server of HTTP/2 that refuses the first stream of each connection, and answers the others.
async fn refusing() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&answered);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut is_first = true;
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    if std::mem::take(&mut is_first) {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    seen.fetch_add(1, Ordering::Relaxed);
                    respond.send_response(Response::new(()), true).unwrap();
                }
            });
        }
    });
    (at, answered)
}

#[tokio::test]
async fn what_an_endpoint_refused_unseen_is_sent_again_whatever_its_method() {
    let (at, answered) = refusing().await;
    let mut configuration = retrying(1, &[at]);
    let service = configuration.services.get_mut("ns/app:80").unwrap();
    service.protocol = Protocol::H2c;
    let served = serve(&configuration).await;
    let answer = send(served.at, "POST", "whole").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(answered.load(Ordering::Relaxed), 1);
}
