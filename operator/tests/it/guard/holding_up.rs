//! Clients that hold something up: for whom else, and for how long.

use std::convert::Infallible;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use operator::guard::config::{Configuration, Filter, HeaderChange, Protocol};
use operator::guard::serve::Settings;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

use super::support::{
    Body, echo, endpoint, get, metric, ping, routes, serve, serve_with, settings, simple, status,
    text, to, until, websocket, within,
};

/// More than kernels keep for a client that takes nothing.
const MUCH: usize = 16 << 20;

async fn answers(request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/much" => Response::new(text(vec![0; MUCH])),
        "/never" => pending().await,
        _ => Response::new(text("little")),
    }
}

fn of_http2(at: SocketAddr) -> Configuration {
    let mut configuration = simple(&[at]);
    let service = configuration.services.get_mut("ns/app:80").unwrap();
    service.protocol = Protocol::H2c;
    configuration
}

/// Nobody is cut off for taking nothing while a test lasts.
fn patient() -> Settings {
    Settings {
        body_pause_max: Duration::from_mins(10),
        ..settings()
    }
}

async fn client(at: SocketAddr, window: u32) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(at).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn clients_that_take_nothing_hold_up_no_other_answer_of_their_endpoint() {
    let served = serve_with(&patient(), &of_http2(endpoint(answers).await)).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(served.at).await.unwrap();
        let ask = b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        within("an answer begins", stream.readable()).await.unwrap();
        idle.push(stream);
    }
    for _ in 0..20 {
        assert_eq!(status(&get(served.at, "/little").await), 200);
    }
}

#[tokio::test]
async fn requests_that_hang_hold_up_no_others_of_their_endpoint() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let at = endpoint(move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        answers(request)
    });
    let served = serve_with(&patient(), &of_http2(at.await)).await;
    let mut sender = client(served.at, 65_535).await;
    let mut hanging = Vec::new();
    // More than a connection of an ordinary server takes.
    for _ in 0..250 {
        sender = sender.ready().await.unwrap();
        let request = Request::get("http://a/never").body(()).unwrap();
        hanging.push(sender.send_request(request, true).unwrap());
    }
    let are_all_asked = || asked.load(Ordering::Relaxed) == 250;
    until("all of them are under way", are_all_asked).await;
    assert_eq!(status(&get(served.at, "/little").await), 200);
}

/// An endpoint of HTTP/2 that takes one connection and no other, and may hold its answers back.
async fn of_one_connection(asked: Arc<AtomicUsize>, go: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let service = service_fn(move |_request| {
            let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                go.notified().await;
                go.notify_one();
                Ok::<_, Infallible>(Response::new(text("late")))
            }
        });
        let builder = http2::Builder::new(TokioExecutor::new());
        let _ = builder
            .serve_connection(TokioIo::new(stream), service)
            .await;
    });
    at
}

#[tokio::test]
async fn an_endpoint_that_takes_no_second_connection_goes_on_by_its_first() {
    let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let at = of_one_connection(Arc::clone(&asked), Arc::clone(&go)).await;
    let served = serve_with(&patient(), &of_http2(at)).await;
    let mut sender = client(served.at, 65_535).await;
    let mut answers = Vec::new();
    for _ in 0..120 {
        sender = sender.ready().await.unwrap();
        let request = Request::get("http://a/").body(()).unwrap();
        answers.push(sender.send_request(request, true).unwrap().0);
    }
    let are_all_asked = || asked.load(Ordering::Relaxed) == 120;
    until("all of them are under way", are_all_asked).await;
    go.notify_one();
    for answer in answers {
        assert_eq!(within("an answer", answer).await.unwrap().status(), 200);
    }
    assert!(served.guard.standing().services[0].ejected.is_empty());
}

#[tokio::test]
async fn what_the_guard_says_and_nobody_takes_keeps_no_connection() {
    let configuration = routes(vec![("/a", to("ns/app:80"))], &[("ns/app:80", &[])]);
    let served = serve(&configuration).await;
    let mut sender = client(served.at, 0).await;
    let mut untaken = Vec::new();
    for _ in 0..3 {
        sender = sender.ready().await.unwrap();
        let request = Request::get("http://a/nowhere").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let answer = within("the answer's head", answer).await.unwrap();
        assert_eq!(answer.status(), 404);
        untaken.push(answer);
    }
    let drained = served.guard.drain(Duration::from_mins(10));
    within("the connection ends", drained).await;
    drop(untaken);
}

#[tokio::test]
async fn connections_that_changed_their_protocol_count_until_they_end() {
    let served = serve(&simple(&[echo().await])).await;
    let mut stream = websocket(served.at).await;
    ping(&mut stream).await;
    assert!((metric(&served, "jiuzhou_connections", &[]) - 1.0).abs() < f64::EPSILON);
    drop(stream);
    let open = || metric(&served, "jiuzhou_connections", &[]);
    until("it is gone", || open() < 0.5).await;
}

#[tokio::test]
async fn a_filter_that_says_where_a_message_ends_is_refused() {
    let served = serve(&simple(&[endpoint(answers).await])).await;
    for name in [
        "Content-Length",
        "transfer-encoding",
        "Connection",
        "te",
        "http2-settings",
    ] {
        let mut configuration = simple(&[served.at]);
        configuration.ports[0].port = served.at.port();
        configuration.rules[0].filters = vec![Filter::ResponseHeaders(HeaderChange {
            set: vec![(name.into(), "3".into())],
            ..HeaderChange::default()
        })];
        configuration.rules[0].route = "ns/web".into();
        let refused = served.guard.apply(&configuration).await.unwrap_err();
        let refused = format!("{refused:?}");
        assert!(
            refused.contains(name) && refused.contains("ns/web"),
            "{refused}"
        );
    }
    assert!(get(served.at, "/").await.ends_with("little"));
}
