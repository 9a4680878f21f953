//! Messages that change their protocol on the way: where they end, and what they say there.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use operator::guard::config::{Configuration, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::support::{
    Body, bytes, endpoint, get, mirror, say, serve, simple, status, text, within,
};

/// What came for a request of HTTP/2.
struct Heard {
    status: u16,
    text: String,
    trailers: HeaderMap,
}

/// Asks in HTTP/2, on a connection of its own.
async fn ask(at: SocketAddr, request: Request<Body>) -> Heard {
    let stream = TokioIo::new(TcpStream::connect(at).await.unwrap());
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (mut sender, connection) = shaken.unwrap();
    let ended = tokio::spawn(connection);
    let answer = within("an answer", sender.send_request(request)).await;
    let (head, body) = answer.unwrap().into_parts();
    let collected = within("the whole answer", body.collect()).await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let text = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    ended.abort();
    Heard {
        status: head.status.as_u16(),
        text,
        trailers,
    }
}

/// A body whose length nobody knows before its end.
fn stream(text: &'static [u8]) -> Body {
    let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from_static(text)))];
    StreamBody::new(futures::stream::iter(frames)).boxed()
}

fn of_http2(at: SocketAddr) -> Configuration {
    let mut configuration = simple(&[at]);
    let service = configuration.services.get_mut("ns/app:80").unwrap();
    service.protocol = Protocol::H2c;
    configuration
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

/// Says how long the body was, and which trailers came after it.
async fn of_trailers() -> SocketAddr {
    endpoint(async |request: Request<Incoming>| {
        let collected = request.into_body().collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let length = collected.to_bytes().len();
        Response::new(text(format!("{length} {:?}", names(&trailers))))
    })
    .await
}

#[tokio::test]
async fn cookies_that_came_apart_reach_an_endpoint_of_http1_in_one_line() {
    let served = serve(&simple(&[mirror().await])).await;
    let request = Request::get("http://a/")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("cookie", "c=3; d=4")
        .body(text(""));
    let heard = ask(served.at, request.unwrap()).await;
    let seen = &heard.text;
    assert!(seen.contains("cookie: a=1; b=2; c=3; d=4\n"), "{seen}");
    assert_eq!(seen.matches("cookie: ").count(), 1, "{seen}");
}

#[tokio::test]
async fn the_body_of_a_get_reaches_the_endpoint_whether_its_length_is_known_or_not() {
    let served = serve(&simple(&[mirror().await])).await;
    let chunked = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n";
    let known = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                 Content-Length: 5\r\n\r\nquery";
    for request in [chunked, known] {
        let answer = say(served.at, request).await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(answer.ends_with("\nquery"), "{answer}");
    }
    let request = Request::get("http://a/").body(stream(b"query")).unwrap();
    let heard = ask(served.at, request).await;
    assert!(heard.text.ends_with("\nquery"), "{}", heard.text);
    let none = get(served.at, "/").await;
    assert!(!none.contains("transfer-encoding: chunked\n"), "{none}");
}

#[tokio::test]
async fn a_body_with_a_coding_that_would_be_lost_is_not_passed_on() {
    let served = serve(&simple(&[mirror().await])).await;
    for (coding, expected) in [
        ("Transfer-Encoding: gzip, chunked", 400),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 400),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            400,
        ),
        ("Transfer-Encoding: Chunked", 200),
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{coding}\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        );
        let answer = say(served.at, request).await;
        assert_eq!(status(&answer), expected, "{coding}: {answer}");
    }
    let coded = b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let served = serve(&simple(&[bytes(coded).await])).await;
    let answer = get(served.at, "/").await;
    assert_eq!(status(&answer), 502, "{answer}");
    assert!(answer.contains("EndpointBroke"), "{answer}");
}

#[tokio::test]
async fn a_length_that_an_answer_was_not_read_by_is_not_passed_on() {
    for false_length in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let served = serve(&simple(&[bytes(false_length).await])).await;
        let answer = get(served.at, "/").await;
        assert!(!answer.contains("content-length"), "{answer}");
        assert!(answer.ends_with("2\r\nok\r\n0\r\n\r\n"), "{answer}");
        let request = Request::get("http://a/").body(text("")).unwrap();
        assert_eq!(ask(served.at, request).await.text, "ok");
    }
}

#[tokio::test]
async fn trailers_of_a_request_say_nothing_that_only_its_head_or_the_guard_may_say() {
    let served = serve(&of_http2(of_trailers().await)).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTE: trailers\r\n\
                Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
    let bad = "Connection: x-hop\r\nx-hop: 1\r\nTransfer-Encoding: chunked\r\nTE: gzip\r\n\
               Keep-Alive: 5\r\nUpgrade: h2c\r\nHost: evil\r\nContent-Length: 9\r\n\
               Content-Type: text/html\r\nForwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n\
               X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nx_real_ip: 10.0.0.1\r\n";
    let good = "x-sum: 1\r\ngrpc-status: 0\r\ngrpc-message: ok\r\ngrpc-status-details-bin: AA\r\n";
    let passed = r#"2 ["grpc-message", "grpc-status", "grpc-status-details-bin", "x-sum"]"#;
    for (trailers, expected) in [
        ([bad, good].concat(), passed),
        (bad.to_owned(), "2 []"),
        (good.to_owned(), passed),
    ] {
        let answer = say(served.at, [head, &trailers, "\r\n"].concat()).await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
}

#[tokio::test]
async fn trailers_of_an_answer_pass_but_for_what_is_meant_for_its_connection() {
    let mixed = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
        grpc-status: 0\r\nconnection: close\r\ncontent-length: 7\r\nx_own: 1\r\n\r\n";
    let only = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
        connection: close\r\n\r\n";
    for (answer, expected) in [
        (&mixed[..], &["grpc-status", "x_own"][..]),
        (&only[..], &[][..]),
    ] {
        let served = serve(&simple(&[bytes(answer).await])).await;
        let request = Request::get("http://a/").body(text("")).unwrap();
        let heard = ask(served.at, request).await;
        assert_eq!((heard.status, heard.text.as_str()), (200, "ok"));
        assert_eq!(names(&heard.trailers), expected);
    }
}

#[tokio::test]
async fn an_answer_that_ended_with_trailers_leaves_its_connection_to_the_next_request() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
        2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n";
    let again = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let count = Arc::clone(&again);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut seen = [0; 4096];
                let mut before = 0;
                while stream.read(&mut seen).await.is_ok_and(|read| read > 0) {
                    count.fetch_add(before, Ordering::Relaxed);
                    before = 1;
                    let _ = stream.write_all(ANSWER).await;
                }
            });
        }
    });
    let served = serve(&simple(&[at])).await;
    let asking = async {
        while again.load(Ordering::Relaxed) == 0 {
            let request = Request::get("http://a/").body(text("")).unwrap();
            assert_eq!(names(&ask(served.at, request).await.trailers), ["x-sum"]);
        }
    };
    within("a connection is used again", asking).await;
}

#[tokio::test]
async fn nobody_changes_to_a_protocol_that_the_endpoint_does_not_name() {
    let websocket = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\n\
                     Upgrade: websocket\r\n\r\n";
    for bare in [
        &b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..],
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ] {
        let served = serve(&simple(&[bytes(bare).await])).await;
        let answer = say(served.at, websocket).await;
        assert_eq!(status(&answer), 502, "{answer}");
        assert!(answer.contains("EndpointBroke"), "{answer}");
    }
}

#[tokio::test]
async fn http10_changes_to_no_other_protocol() {
    let served = serve(&simple(&[mirror().await])).await;
    let websocket =
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = say(served.at, websocket).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(!answer.contains("upgrade"), "{answer}");
}

#[tokio::test]
async fn http2_may_have_as_many_headers_as_http1_and_all_cookies_are_one() {
    let served = serve(&of_http2(mirror().await)).await;
    for (headers, cookies, expected) in [(128, 0, 200), (129, 0, 431), (127, 60, 200)] {
        let mut request = Request::get("http://a/");
        for _ in 0..headers {
            request = request.header("x-many", "1");
        }
        for _ in 0..cookies {
            request = request.header("cookie", "a=1");
        }
        let heard = ask(served.at, request.body(text("")).unwrap()).await;
        assert_eq!(
            heard.status, expected,
            "{headers}, {cookies}: {}",
            heard.text
        );
        let is_told = heard.text.contains("HeadersTooMany");
        assert_eq!(is_told, expected == 431, "{}", heard.text);
    }
}
