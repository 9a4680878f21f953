//! Endpoints that answer as told, a guard before them, and clients that speak bytes.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use operator::guard::config::{
    Backend, Configuration, Endpoint, Entry, Host, Hostname, Listener, Match, PathMatch, Port,
    Protocol, Rule, Service,
};
use operator::guard::serve::{Dial, Guard, Observing, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What takes longer is not going to happen.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) type Body = BoxBody<Bytes, Infallible>;

pub(super) fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

/// An HTTP server that answers each request by a function.
pub(super) async fn endpoint<F, R>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

/// A server that says what it saw: method, target, headers and body.
pub(super) async fn mirror() -> SocketAddr {
    endpoint(async |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        let mut seen = format!("{} {}\n", head.method, head.uri);
        for (name, value) in &head.headers {
            seen += &[name.as_str(), ": ", value.to_str().unwrap_or("?"), "\n"].concat();
        }
        if let Ok(body) = body.collect().await {
            seen.push_str(&String::from_utf8_lossy(&body.to_bytes()));
        }
        let answer = Response::builder().header("x-endpoint", "mirror");
        answer.body(text(seen)).unwrap()
    })
    .await
}

/// A server of bytes: reads until a head ended, writes `answer`, and closes.
pub(super) async fn bytes(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = vec![0; 4096];
            let _ = stream.read(&mut seen).await;
            let _ = stream.write_all(answer).await;
        }
    });
    address
}

/// A configuration of one listener for every host, with one rule for each path prefix.
pub(super) fn routes(
    rules: Vec<(&str, Rule)>,
    services: &[(&str, &[SocketAddr])],
) -> Configuration {
    let mut configuration = Configuration {
        revision: "test".into(),
        ..Configuration::default()
    };
    let mut entries = Vec::new();
    for (prefix, rule) in rules {
        let path = PathMatch::Prefix(prefix.to_owned());
        let matches = Match {
            path,
            method: None,
            headers: vec![],
            query: vec![],
        };
        entries.push(Entry {
            matches,
            rule: configuration.rules.len(),
        });
        configuration.rules.push(rule);
    }
    let listener = Listener {
        name: "ns/gateway/http".into(),
        hostname: Hostname::Any,
        certificates: vec![],
        hosts: vec![Host {
            hostname: Hostname::Any,
            entries,
        }],
    };
    configuration.ports.push(Port {
        address: None,
        port: free_port(),
        tls: false,
        listeners: vec![listener],
    });
    for (name, addresses) in services {
        let endpoints = addresses.iter().map(|at| Endpoint {
            address: at.ip(),
            port: at.port(),
        });
        let service = Service {
            protocol: Protocol::Http1,
            endpoints: endpoints.collect(),
            ..Service::default()
        };
        configuration.services.insert((*name).to_owned(), service);
    }
    configuration
}

pub(super) fn to(service: &str) -> Rule {
    Rule {
        route: "ns/route".into(),
        name: "0".into(),
        backends: vec![Backend {
            weight: 1,
            service: Some(service.into()),
            filters: vec![],
        }],
        ..Rule::default()
    }
}

/// One rule for everything, one service of these endpoints.
pub(super) fn simple(endpoints: &[SocketAddr]) -> Configuration {
    routes(vec![("/", to("ns/app:80"))], &[("ns/app:80", endpoints)])
}

/// A guard that serves on loopback.
pub(super) struct Served {
    pub(super) guard: Guard,
    pub(super) registry: prometheus::Registry,
    pub(super) at: SocketAddr,
}

pub(super) fn settings() -> Settings {
    Settings {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        seed: [7; 16],
        dial: Dial::default(),
        connections_max: 200,
        body_bytes_max: 1 << 20,
        body_pause_max: Duration::from_secs(2),
        upgrade_idle_max: Duration::from_mins(10),
        observing: Observing::default(),
        trusted_hops: 0,
    }
}

pub(super) async fn serve(configuration: &Configuration) -> Served {
    serve_with(&settings(), configuration).await
}

pub(super) async fn serve_with(settings: &Settings, configuration: &Configuration) -> Served {
    let registry = prometheus::Registry::new();
    let guard = Guard::new(settings, &registry).unwrap();
    guard.apply(configuration).await.unwrap();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, configuration.ports[0].port));
    Served {
        guard,
        registry,
        at,
    }
}

/// A port that nobody has now: above those that are given to clients, so that none takes it.
pub(super) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at one time begin at different places.
    let start = u16::try_from(std::process::id() % 1000).unwrap();
    loop {
        let port = 20_000 + (start * 12 + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Sends bytes on a connection of its own and returns all that comes back until it is closed.
pub(super) async fn say(at: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let speaking = async {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::time::timeout(PATIENCE, speaking)
        .await
        .expect("the guard answers and closes")
}

/// GET, and the whole answer.
pub(super) async fn get(at: SocketAddr, target: &str) -> String {
    let request =
        format!("GET {target} HTTP/1.1\r\nhost: app.example\r\nconnection: close\r\n\r\n");
    say(at, request).await
}

pub(super) fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.expect(answer)
}

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, future).await;
    ended.expect(what)
}

/// The sum of a metric's series that have all of these labels.
pub(super) fn metric(served: &Served, name: &str, labels: &[(&str, &str)]) -> f64 {
    let families = served.registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let series = family.map(|family| family.get_metric().to_vec());
    let fits = |series: &&prometheus::proto::Metric| {
        labels.iter().all(|(name, value)| {
            let mut all = series.get_label().iter();
            all.any(|label| label.name() == *name && label.value() == *value)
        })
    };
    let series = series.unwrap_or_default();
    let fitting = series.iter().filter(fits);
    fitting
        .map(|one| one.get_counter().get_value() + one.get_gauge().get_value())
        .sum()
}

/// Waits until something holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, waiting).await;
}

/// A server that changes to whatever protocol is asked for, and says back what it hears.
pub(super) async fn echo() -> SocketAddr {
    endpoint(async |mut request: Request<Incoming>| {
        let protocol = request.headers()["upgrade"].clone();
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let answer = Response::builder().status(http::StatusCode::SWITCHING_PROTOCOLS);
        answer
            .header("connection", "upgrade")
            .header("upgrade", protocol)
            .body(text(""))
            .unwrap()
    })
    .await
}

/// A WebSocket that was answered.
pub(super) async fn websocket(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let request =
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the head", stream.read_u8()).await.unwrap());
    }
    assert_eq!(status(&String::from_utf8_lossy(&head)), 101);
    stream
}

/// Says something on a WebSocket and hears it.
pub(super) async fn ping(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    within("the echo", stream.read_exact(&mut echo))
        .await
        .unwrap();
    assert_eq!(&echo, b"ping");
}
