//! What a guard must survive, or not pass on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{endpoint, get, mirror, say, serve, simple, status, text, within};

/// Requests whose end two servers may see in two places, and whether a guard may pass one at all.
const SMUGGLED: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nabcde",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nabcd",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n folded: 1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a/%2e%2e/%2e%2e/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n",
];

#[tokio::test]
async fn a_request_with_two_ends_reaches_an_endpoint_once_or_never() {
    let seen = Arc::new(AtomicUsize::new(0));
    let hidden = Arc::new(AtomicUsize::new(0));
    let counts = (Arc::clone(&seen), Arc::clone(&hidden));
    let at = endpoint(move |request: Request<Incoming>| {
        counts.0.fetch_add(1, Ordering::Relaxed);
        // The first of the corpus carries a whole second request, which is one of its client's own.
        let is_hidden =
            request.uri().path() == "/hidden" && !request.headers().contains_key("x-forwarded-for");
        counts
            .1
            .fetch_add(usize::from(is_hidden), Ordering::Relaxed);
        async { Response::new(text("ok")) }
    })
    .await;
    let served = serve(&simple(&[at])).await;
    for (number, request) in SMUGGLED.iter().enumerate() {
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = within("the guard closes", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        if number > 0 {
            assert!(
                answer.is_empty() || status(&answer) >= 400,
                "{request:?}: {answer}"
            );
            assert_eq!(
                answer.matches("HTTP/1.1").count().max(1),
                1,
                "{request:?}: {answer}"
            );
        }
    }
    assert_eq!(hidden.load(Ordering::Relaxed), 0);
    assert!(
        seen.load(Ordering::Relaxed) <= 2,
        "only the first of them may pass"
    );
    assert_eq!(status(&get(served.at, "/").await), 200);
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let served = serve(&simple(&[mirror().await])).await;
    let many = "x-many: 1\r\n".repeat(500);
    let large = format!("x-large: {}\r\n", "a".repeat(100_000));
    for headers in [many, large] {
        let answer = say(
            served.at,
            format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"),
        )
        .await;
        assert_eq!(status(&answer), 431, "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_or_too_slow_ends_the_request() {
    let served = serve(&simple(&[mirror().await])).await;
    let declared = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n";
    assert_eq!(status(&say(served.at, declared).await), 413);
    let mut chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20 {
        chunked.extend(b"10000\r\n");
        chunked.extend(vec![b'a'; 0x1_0000]);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    // The guard answers before it has read all, so that writing may fail.
    let mut stream = TcpStream::connect(served.at).await.unwrap();
    let _ = stream.write_all(&chunked).await;
    let mut answer = [0; 12];
    if within("an answer", stream.read_exact(&mut answer))
        .await
        .is_ok()
    {
        assert_eq!(&answer, b"HTTP/1.1 413");
    }
    let slow = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    let mut stream = TcpStream::connect(served.at).await.unwrap();
    stream.write_all(slow.as_bytes()).await.unwrap();
    within("an answer", stream.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_and_the_others_go_on() {
    let served = serve(&simple(&[mirror().await])).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(TcpStream::connect(served.at).await.unwrap());
    }
    let mut one_more = TcpStream::connect(served.at).await.unwrap();
    let mut nothing = Vec::new();
    // Sooner than connections are closed that ask for nothing.
    let closed = one_more.read_to_end(&mut nothing);
    let closed = tokio::time::timeout(Duration::from_secs(15), closed).await;
    assert!(closed.is_ok() && nothing.is_empty(), "it is closed at once");
    let first = &mut held[0];
    first
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    within("an answer", first.read_to_string(&mut answer))
        .await
        .unwrap();
    assert_eq!(status(&answer), 200);
    drop(held);
    let free = async {
        while !get(served.at, "/").await.contains(" 200 ") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("their room is free", free).await;
}
