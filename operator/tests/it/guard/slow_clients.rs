//! Clients that send slowly or take nothing: whose fault it is, and what they hold.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use operator::guard::config::{Configuration, Protocol};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::protecting::protected;
use super::support::{
    bytes, endpoint, get, metric, mirror, say, serve, serve_with, settings, simple, status, text,
    until, within,
};

/// Reads bodies whole before it answers.
async fn reading() -> SocketAddr {
    endpoint(async |request: Request<Incoming>| {
        let _ = request.into_body().collect().await;
        Response::new(text("read"))
    })
    .await
}

fn breaker(condition: &Value) -> Value {
    json!({"name": "ns/policy", "breakers": [{"name": "breaker", "settings": {
        "condition": condition, "window": {"secs": 30, "nanos": 0}, "minRequests": 5,
        "openFor": {"secs": 30, "nanos": 0}, "probes": 2}}]})
}

/// A body in parts of so many bytes, each a while after the one before.
async fn upload(at: SocketAddr, pause: Duration, parts: &[usize]) -> u16 {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let all: usize = parts.iter().sum();
    let head =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {all}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for part in parts {
        tokio::time::sleep(pause).await;
        if stream.write_all(&vec![b'a'; *part]).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    status(&String::from_utf8_lossy(&answer))
}

async fn uploads(at: SocketAddr, pause: Duration) -> Vec<u16> {
    let all = (0..8).map(|_| tokio::spawn(upload(at, pause, &[1; 4])));
    let all: Vec<_> = all.collect();
    let mut told = Vec::new();
    for one in all {
        told.push(one.await.unwrap());
    }
    told
}

#[tokio::test]
async fn an_upload_that_outlasts_the_requests_time_says_nothing_against_the_target() {
    let policy = breaker(&json!({"errors": {"percent": 50}}));
    let mut configuration = protected(reading().await, &policy);
    configuration.rules[0].request_timeout = Some(Duration::from_secs(1));
    let served = serve(&configuration).await;
    let told = uploads(served.at, Duration::from_millis(700)).await;
    assert_eq!(told, vec![408; 8]);
    assert_eq!(status(&get(served.at, "/").await), 200);
    assert!(served.guard.standing().services[0].ejected.is_empty());
}

#[tokio::test]
async fn who_sends_a_byte_before_each_pause_is_over_keeps_nobody_from_the_target() {
    let policy = json!({"name": "ns/policy", "concurrency": {"max": 1}});
    let served = serve(&protected(reading().await, &policy)).await;
    let mut stream = TcpStream::connect(served.at).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let (mut answer, mut writing) = stream.split();
    let dripping = async {
        // Each pause is shorter than the two seconds that one may have.
        while writing.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    };
    let answered = async {
        let mut code = [0; 12];
        answer.read_exact(&mut code).await.unwrap();
        code
    };
    let code = within("an end", async {
        tokio::select! {
            biased;
            code = answered => code,
            () = dripping => panic!("the connection ends without an answer"),
        }
    });
    assert_eq!(&code.await, b"HTTP/1.1 408");
    assert_eq!(status(&get(served.at, "/").await), 200);
}

#[tokio::test]
async fn an_upload_in_bursts_may_pause_between_them_and_earns_no_more_than_one_pause() {
    let served = serve(&simple(&[reading().await])).await;
    // Of the two seconds that one may have.
    let pause = Duration::from_millis(1_200);
    let enough = [1_000, 1_000, 1_000];
    assert_eq!(upload(served.at, pause, &enough).await, 200);
    // What came at first would be worth minutes.
    let early = [100_000, 1, 1, 1];
    assert_eq!(upload(served.at, pause, &early).await, 408);
}

#[tokio::test]
async fn a_stream_whose_answer_has_begun_is_held_to_no_pace() {
    let at = endpoint(async |request: Request<Incoming>| {
        let body = request.into_body();
        let whole = body.map_err(|error| -> Infallible { panic!("{error}") });
        Response::new(whole.boxed())
    })
    .await;
    let mut settings = settings();
    settings.body_pause_max = Duration::from_secs(5);
    let served = serve_with(&settings, &simple(&[at])).await;
    let mut stream = TcpStream::connect(served.at).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    for byte in b"slow" {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        stream.write_all(&[*byte]).await.unwrap();
    }
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    within("the answer's end", read).await.unwrap();
    assert!(answer.ends_with("slow"), "{answer}");
}

#[tokio::test]
async fn the_time_that_an_upload_takes_is_not_the_targets() {
    let slow = json!({"slowCalls": {"over": {"secs": 2, "nanos": 0}, "percent": 50}});
    let mut settings = settings();
    settings.body_pause_max = Duration::from_secs(10);
    let configuration = protected(reading().await, &breaker(&slow));
    let served = serve_with(&settings, &configuration).await;
    let told = uploads(served.at, Duration::from_millis(650)).await;
    assert_eq!(told, vec![200; 8]);
    assert_eq!(status(&get(served.at, "/").await), 200);
}

#[tokio::test]
async fn answers_of_http2_that_are_not_taken_keep_nobody_from_the_target() {
    let policy = json!({"name": "ns/policy", "concurrency": {"max": 3}});
    let served = serve(&protected(mirror().await, &policy)).await;
    let stream = TcpStream::connect(served.at).await.unwrap();
    let mut builder = h2::client::Builder::new();
    // It asks, and leaves no room for an answer.
    builder.initial_window_size(0);
    let shaken = builder.handshake::<_, hyper::body::Bytes>(stream).await;
    let (mut sender, connection) = shaken.unwrap();
    let ended = tokio::spawn(connection);
    let mut stalled = Vec::new();
    for _ in 0..3 {
        sender = sender.ready().await.unwrap();
        let request = Request::get("http://a/").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let answer = within("the answer's head", answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        stalled.push(answer);
    }
    let free = async {
        while status(&get(served.at, "/").await) != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("there is room again", free).await;
    // Nothing on it goes on, so that in the end it is closed.
    let _ = within("the connection ends", ended).await;
    drop(stalled);
}

#[tokio::test]
async fn who_takes_nothing_of_a_long_answer_loses_the_connection_and_so_does_the_endpoint() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let endpoint = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(&[0; 8_192]).await.is_ok() {}
    });
    let served = serve(&simple(&[at])).await;
    let mut stream = TcpStream::connect(served.at).await.unwrap();
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    within("the endpoint is free", endpoint).await.unwrap();
    let open = || metric(&served, "jiuzhou_connections", &[]);
    until("the connection is closed", || open() < 0.5).await;
    assert!(served.guard.standing().services[0].ejected.is_empty());
}

/// Answers without an end to whoever asks for much, and shortly to all others.
async fn much_or_little() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                if !head[..read].starts_with(b"GET /much ") {
                    let little =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    return stream.write_all(little).await;
                }
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
                stream.write_all(head).await?;
                loop {
                    stream.write_all(&[0; 8_192]).await?;
                }
            });
        }
    });
    at
}

#[tokio::test]
async fn who_takes_a_long_answer_slowly_keeps_nobody_from_the_target_and_gets_it() {
    let policy = json!({"name": "ns/policy", "concurrency": {"max": 1}});
    let served = serve(&protected(much_or_little().await, &policy)).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut slow = socket.connect(served.at).await.unwrap();
    let ask = b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n";
    slow.write_all(ask).await.unwrap();
    // More than the kernels keep for it, so that the guard sees it go on.
    let mut taken = vec![0; 1_048_576];
    assert!(slow.read(&mut taken).await.unwrap() > 0);
    assert_eq!(status(&get(served.at, "/").await), 503);
    let free = async {
        while status(&get(served.at, "/").await) != 200 {
            // Never a pause that would be one of a client that takes nothing.
            tokio::time::sleep(Duration::from_millis(100)).await;
            slow.read_exact(&mut taken).await.unwrap();
        }
    };
    within("there is room again", free).await;
    // Connections are looked at every two seconds here.
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        slow.read_exact(&mut taken).await.unwrap();
    }
}

#[tokio::test]
async fn who_leaves_while_it_waits_for_its_turn_takes_nothing_with_it() {
    let quota = json!({"rate": {"requests": 1, "perSeconds": 2}, "burst": 1});
    let policy = json!({"name": "ns/policy", "rateLimits": [{"name": "smooth", "scope": "Instance",
        "quota": quota, "maxWait": {"secs": 5, "nanos": 0}}]});
    let served = serve(&protected(mirror().await, &policy)).await;
    assert_eq!(status(&get(served.at, "/").await), 200);
    for _ in 0..2 {
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        let ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gone = || {
        metric(
            &served,
            "jiuzhou_requests_total",
            &[("outcome", "ClientGone")],
        )
    };
    until("both have left", || gone() > 1.5).await;
    // Behind two who had not given it back, this one would wait longer than anybody may.
    assert_eq!(status(&get(served.at, "/").await), 200);
}

#[tokio::test]
async fn only_websockets_change_the_protocol() {
    let served = serve(&simple(&[mirror().await])).await;
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\
               HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let answer = say(served.at, ask).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(
        !answer.contains("upgrade:") && !answer.contains("http2-settings"),
        "{answer}"
    );
    let unasked =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let served = serve(&simple(&[bytes(unasked).await])).await;
    let answer = say(served.at, ask).await;
    assert_eq!(status(&answer), 502, "{answer}");
}

/// An address that takes no connection and refuses none.
async fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let at = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    let more = async || {
        let connecting = TcpStream::connect(at);
        let connected = tokio::time::timeout(Duration::from_millis(200), connecting).await;
        connected.ok().map(Result::unwrap)
    };
    while let Some(stream) = more().await {
        queued.push(stream);
    }
    (at, listener, queued)
}

fn of_http2(at: SocketAddr) -> Configuration {
    let mut configuration = simple(&[at]);
    let service = configuration.services.get_mut("ns/app:80").unwrap();
    service.protocol = Protocol::H2c;
    configuration
}

#[tokio::test]
async fn those_who_wait_for_one_connection_share_that_it_was_not_made() {
    let (at, _listener, _queued) = black_hole().await;
    let served = serve(&of_http2(at)).await;
    let started = Instant::now();
    let asked = Arc::new(AtomicUsize::new(0));
    let all = (0..30).map(|_| {
        let (at, asked) = (served.at, Arc::clone(&asked));
        tokio::spawn(async move {
            assert_eq!(status(&get(at, "/").await), 503);
            asked.fetch_add(1, Ordering::Relaxed);
        })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 30);
    // One after the other they would take half a minute.
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}
