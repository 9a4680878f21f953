//! Endpoints that begin an answer well and do not end it so.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use operator::guard::config::Rule;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::outlier::ejecting;
use super::protecting::protected;
use super::support::{bytes, get, metric, mirror, routes, serve, status, to, until, within};

/// Says that a hundred bytes come, and breaks off after four.
const CUT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
const HOUR: Duration = Duration::from_hours(1);
/// Between two bytes of a trickle.
const DROP: Duration = Duration::from_millis(20);

/// Answers with `start` at once and then a byte at a time, without end.
async fn trickling(start: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let mut next = start;
                while stream.write_all(next).await.is_ok() {
                    tokio::time::sleep(DROP).await;
                    next = b"x";
                }
            });
        }
    });
    address
}

fn bounded(service: &str, most: Duration) -> Rule {
    Rule {
        request_timeout: Some(most),
        ..to(service)
    }
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_inside_its_answers_is_left_alone() {
    let cut = bytes(CUT).await;
    let served = serve(&ejecting(&[cut, mirror().await], 3, HOUR)).await;
    let asking = async {
        while served.guard.standing().services[0].ejected.is_empty() {
            let answer = get(served.at, "/").await;
            assert_eq!(status(&answer), 200, "{answer}");
        }
    };
    within("it is ejected", asking).await;
    assert_eq!(served.guard.standing().services[0].ejected, vec![cut]);
    for _ in 0..10 {
        let answer = get(served.at, "/").await;
        assert!(answer.contains("x-endpoint: mirror"), "{answer}");
    }
}

#[tokio::test]
async fn a_breaker_hears_of_answers_that_broke_off() {
    let policy = json!({"name": "ns/policy", "breakers": [{"name": "errors", "settings": {
        "condition": {"errors": {"percent": 50}}, "window": {"secs": 30, "nanos": 0}, "minRequests": 5,
        "openFor": {"secs": 30, "nanos": 0}, "probes": 2}}]});
    let served = serve(&protected(bytes(CUT).await, &policy)).await;
    for _ in 0..5 {
        assert_eq!(status(&get(served.at, "/").await), 200);
    }
    let answer = get(served.at, "/").await;
    assert!(
        status(&answer) == 503 && answer.contains("BreakerOpen"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_client_that_leaves_an_answer_says_nothing_against_the_endpoint() {
    let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
    let endpoints = [trickling(whole).await, trickling(whole).await];
    let served = serve(&ejecting(&endpoints, 3, HOUR)).await;
    for _ in 0..12 {
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        let ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        within("it begins", stream.read_u8()).await.unwrap();
    }
    let left = || metric(&served, "jiuzhou_requests_total", &[]) > 11.5;
    until("all were answered", left).await;
    assert!(served.guard.standing().services[0].ejected.is_empty());
}

#[tokio::test]
async fn a_trickle_is_passed_on_as_it_comes_until_the_requests_time_is_over() {
    let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
    let rules = vec![
        ("/body", bounded("body", Duration::from_secs(3))),
        ("/head", bounded("head", Duration::from_millis(300))),
        ("/other", to("other")),
    ];
    let services: &[(&str, &[SocketAddr])] = &[
        ("body", &[trickling(whole).await]),
        ("head", &[trickling(b"HTTP/1.1 200 OK\r\nx-slow: ").await]),
        ("other", &[mirror().await]),
    ];
    let served = serve(&routes(rules, services)).await;

    let mut stream = TcpStream::connect(served.at).await.unwrap();
    let ask = b"GET /body HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nxx") {
        let byte = within("bytes come one by one", stream.read_u8()).await;
        seen.push(byte.expect("the time is not over"));
    }
    assert_eq!(status(&get(served.at, "/other").await), 200);
    // What was begun cannot be taken back: the client sees that it did not come whole.
    let rest = within("it is cut", stream.read_to_end(&mut seen)).await;
    let text = String::from_utf8_lossy(&seen);
    assert!(rest.is_err() || seen.len() < 1_000, "{text}");
    assert!(text.contains("content-length: 1000000"), "{text}");

    assert_eq!(status(&get(served.at, "/head").await), 504);
    assert_eq!(status(&get(served.at, "/other").await), 200);
}
