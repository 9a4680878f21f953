//! Messages that change their protocol on the way: where they end, and what they say there.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::support::{Body, bytes, get, mirror, say, serve, simple, status, text, within};

/// What came for a request of HTTP/2.
struct Heard {
    text: String,
}

/// Asks in HTTP/2, on a connection of its own.
async fn ask(at: SocketAddr, request: Request<Body>) -> Heard {
    let stream = TokioIo::new(TcpStream::connect(at).await.unwrap());
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (mut sender, connection) = shaken.unwrap();
    let ended = tokio::spawn(connection);
    let answer = within("an answer", sender.send_request(request)).await;
    let body = answer.unwrap().into_body();
    let collected = within("the whole answer", body.collect()).await.unwrap();
    let text = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    ended.abort();
    Heard { text }
}

/// A body whose length nobody knows before its end.
fn stream(text: &'static [u8]) -> Body {
    let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from_static(text)))];
    StreamBody::new(futures::stream::iter(frames)).boxed()
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
