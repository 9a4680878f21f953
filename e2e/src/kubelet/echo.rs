//! What `echo-basic` of Gateway API's conformance suite answers, for pods that run its image.
//!
//! The image declares no ports: it serves HTTP/1.1 and WebSockets on one, HTTP/2 without TLS on another.
//! It tells what it was asked and who it is. Its modes for gRPC, TCP, UDP and TLS are not played, nor are
//! its failures for retries: no kind and no feature that the guard claims asks for them.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_TYPE, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use kube::ResourceExt;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::faults;

/// The image, without registry and tag.
const IMAGE: &str = "gateway-api/echo-basic";
/// Modes in which the image is no HTTP server, by the variable that chooses each.
const OTHER_MODES: [&str; 3] = ["GRPC_ECHO_SERVER", "TCP_ECHO_SERVER", "UDP_ECHO_SERVER"];
/// Where it serves HTTP/1.1 unless told otherwise.
const HTTP_PORT: u16 = 3000;
/// Where it serves HTTP/2 without TLS unless told otherwise.
const H2C_PORT: u16 = 3001;
/// Names of headers that answers are to have, with values: `name:value, name:value`.
const SET_HEADER: HeaderName = HeaderName::from_static("x-echo-set-header");
/// A request that asks for a longer delay is a mistake; the suite asks for a second at most.
const DELAY_MAX: Duration = Duration::from_secs(30);

/// One pod of that image.
#[derive(Debug)]
pub(super) struct Echo {
    http_port: u16,
    h2c_port: u16,
    who: Who,
}

/// Who answers, as its environment says.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Who {
    namespace: String,
    ingress: String,
    service: String,
    pod: String,
}

/// What was asked, and who answers.
#[derive(Serialize)]
struct Told<'a> {
    path: &'a str,
    host: &'a str,
    method: &'a str,
    proto: &'static str,
    headers: BTreeMap<String, Vec<String>>,
    #[serde(rename = "httpPort")]
    http_port: String,
    #[serde(flatten)]
    who: &'a Who,
}

impl Echo {
    /// What `pod` answers, if it runs the image as an HTTP server.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let container = containers.find(|container| {
            let image = container.image.as_deref().unwrap_or_default();
            let tagless = image.split('@').next().unwrap_or_default();
            let name = match tagless.rsplit_once(':') {
                // What follows a colon before a slash is the registry's port.
                Some((name, tag)) if !tag.contains('/') => name,
                Some(_) | None => tagless,
            };
            name == IMAGE || name.ends_with(&format!("/{IMAGE}"))
        })?;
        let all = container.env.iter().flatten();
        let environment: BTreeMap<&str, String> = all
            .map(|variable| (variable.name.as_str(), value(variable, pod)))
            .collect();
        if OTHER_MODES
            .iter()
            .any(|mode| environment.contains_key(mode))
        {
            return None;
        }
        let text = |name| environment.get(name).cloned().unwrap_or_default();
        let port = |name, default| text(name).parse().unwrap_or(default);
        Some(Self {
            http_port: port("HTTP_PORT", HTTP_PORT),
            h2c_port: port("H2C_PORT", H2C_PORT),
            who: Who {
                namespace: text("NAMESPACE"),
                ingress: text("INGRESS_NAME"),
                service: text("SERVICE_NAME"),
                pod: text("POD_NAME"),
            },
        })
    }

    /// The ports that it listens on.
    pub(super) fn ports(&self) -> [u16; 2] {
        [self.http_port, self.h2c_port]
    }

    /// Answers on a connection until its end.
    pub(super) async fn serve(self: Arc<Self>, stream: TcpStream) {
        let is_h2c = stream
            .local_addr()
            .is_ok_and(|at| at.port() == self.h2c_port);
        let service = service_fn(|request| {
            let echo = Arc::clone(&self);
            async move { Ok::<_, Infallible>(echo.respond(request).await) }
        });
        let io = TokioIo::new(stream);
        // A client that goes away in mid-request is its own business.
        if is_h2c {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            let _ = builder
                .timer(TokioTimer::new())
                .serve_connection(io, service)
                .await;
        } else {
            let mut builder = http1::Builder::new();
            let _ = builder
                .timer(TokioTimer::new())
                .serve_connection(io, service)
                .with_upgrades()
                .await;
        }
    }

    async fn respond(&self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/ws"
            && let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY)
        {
            let accept = derive_accept_key(key.as_bytes());
            tokio::spawn(send_back(hyper::upgrade::on(&mut request)));
            return switching(&accept);
        }
        if let Some(delay) = delay(request.uri().query().unwrap_or_default()) {
            tokio::time::sleep(delay.min(DELAY_MAX)).await;
        }
        let (head, body) = request.into_parts();
        // A connection on which a body was left unread could not be asked again.
        let _ = body.collect().await;
        let path = head.uri.path();
        if path == "/health" {
            return Response::new(Full::from("OK"));
        }
        if let Some(code) = path.strip_prefix("/status/") {
            let mut response = Response::new(Full::default());
            let status = StatusCode::from_bytes(code.as_bytes());
            *response.status_mut() = status.unwrap_or(StatusCode::BAD_REQUEST);
            return response;
        }
        self.tell(&head)
    }

    fn tell(&self, head: &http::request::Parts) -> Response<Full<Bytes>> {
        let named = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority = head.uri.authority().map(http::uri::Authority::as_str);
        let path = head.uri.path_and_query();
        let told = Told {
            path: path.map_or("/", http::uri::PathAndQuery::as_str),
            host: authority.or(named).unwrap_or_default(),
            method: head.method.as_str(),
            proto: if head.version == Version::HTTP_2 {
                "HTTP/2.0"
            } else {
                "HTTP/1.1"
            },
            headers: headers(&head.headers),
            http_port: self.http_port.to_string(),
            who: &self.who,
        };
        let body = serde_json::to_vec(&told).expect("strings serialise");
        let mut response = Response::new(Full::from(body));
        let answered = response.headers_mut();
        set_headers(&head.headers, answered);
        answered.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answered.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if head.method == Method::HEAD {
            *response.body_mut() = Full::default();
        }
        response
    }
}

/// What a variable holds, of the two sources that the suite uses.
fn value(variable: &EnvVar, pod: &Pod) -> String {
    if let Some(value) = &variable.value {
        return value.clone();
    }
    let from = variable.value_from.as_ref();
    let field = from.and_then(|from| from.field_ref.as_ref());
    match field.map(|field| field.field_path.as_str()) {
        Some("metadata.name") => pod.name_any(),
        Some("metadata.namespace") => pod.namespace().unwrap_or_default(),
        Some(_) | None => String::new(),
    }
}

/// Headers as Go's server names them, the host apart.
fn headers(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != HOST) {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        told.entry(canonical(name.as_str()))
            .or_default()
            .push(value);
    }
    told
}

/// `x-request-id` as `X-Request-Id`.
fn canonical(name: &str) -> String {
    let words = name.split('-').map(|word| match word.split_at_checked(1) {
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => String::new(),
    });
    words.collect::<Vec<_>>().join("-")
}

/// Gives an answer the headers that the request asks for; those of one name become one.
fn set_headers(asked: &HeaderMap, answered: &mut HeaderMap) {
    let all = asked.get_all(SET_HEADER).iter();
    let texts = all.filter_map(|value| value.to_str().ok());
    for pair in texts.flat_map(|text| text.split(',')) {
        let (name, value) = pair.trim().split_once(':').unwrap_or((pair.trim(), ""));
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        let before = answered.get(&name).and_then(|before| before.to_str().ok());
        let joined = before.map_or_else(
            || value.to_owned(),
            |before| format!("{before},{}", value.trim()),
        );
        if let Ok(joined) = HeaderValue::from_str(&joined) {
            answered.insert(name, joined);
        }
    }
}

/// How long the query asks to wait: `delay=800ms`.
fn delay(query: &str) -> Option<Duration> {
    let mut pairs = query.split('&');
    let asked = pairs.find_map(|pair| pair.strip_prefix("delay="))?;
    faults::parse_duration(asked)
}

fn switching(accept: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Sends every message of a WebSocket back until the client closes it.
async fn send_back(upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        let is_content = message.is_text() || message.is_binary();
        if is_content && socket.send(message).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
