//! What the guard answers itself: short, in the client's format, always with the reason.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::body::Answer;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const PAGE: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Why the guard answers instead of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// No single host, or a path or method that has no single meaning.
    BadRequest,
    /// Nothing says anything about such requests.
    NoRoute,
    /// The connection was made to another name.
    Misdirected,
    /// The body is longer than allowed.
    BodyTooLong,
    /// The body came too slowly.
    BodyTooSlow,
    /// The route refers to something that does not exist, or that it may not use.
    BrokenRoute,
    /// The service has no ready endpoint.
    NoEndpoint,
    /// No endpoint took the connection.
    ConnectFailure,
    /// The endpoint broke off before it answered.
    EndpointBroke,
    /// The endpoint took longer than the route allows.
    EndpointTimeout,
}

impl Reason {
    /// As in metrics and problem documents.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::NoRoute => "NoRoute",
            Self::Misdirected => "Misdirected",
            Self::BodyTooLong => "BodyTooLong",
            Self::BodyTooSlow => "BodyTooSlow",
            Self::BrokenRoute => "BrokenRoute",
            Self::NoEndpoint => "NoEndpoint",
            Self::ConnectFailure => "ConnectFailure",
            Self::EndpointBroke => "EndpointBroke",
            Self::EndpointTimeout => "EndpointTimeout",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenRoute => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoEndpoint | Self::ConnectFailure => StatusCode::SERVICE_UNAVAILABLE,
            Self::EndpointBroke => StatusCode::BAD_GATEWAY,
            Self::EndpointTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// For people, in the two languages of those who see it.
    fn words(self) -> [&'static str; 2] {
        match self {
            Self::BadRequest => ["请求无效", "the request has no single meaning"],
            Self::NoRoute => ["没有此服务", "no route is for this host and path"],
            Self::Misdirected => [
                "连接对应另一个域名",
                "this connection was made to another name",
            ],
            Self::BodyTooLong => ["请求内容过大", "the body is longer than allowed"],
            Self::BodyTooSlow => ["请求内容传输过慢", "the body came too slowly"],
            Self::BrokenRoute => ["服务配置有误", "the route refers to what it cannot use"],
            Self::NoEndpoint => ["服务暂无可用实例", "the service has no ready endpoint"],
            Self::ConnectFailure => ["服务暂时无法连接", "no endpoint took the connection"],
            Self::EndpointBroke => [
                "服务中断了连接",
                "the endpoint broke off before it answered",
            ],
            Self::EndpointTimeout => ["服务响应超时", "the endpoint took too long"],
        }
    }

    /// Whether the same request may well succeed a little later.
    fn passes(self) -> bool {
        matches!(self, Self::NoEndpoint | Self::ConnectFailure)
    }
}

/// Seconds after which a client may try again where an endpoint was missing: about what a pod takes to
/// come back.
const RETRY_SECONDS: [HeaderValue; 3] = [
    HeaderValue::from_static("1"),
    HeaderValue::from_static("2"),
    HeaderValue::from_static("3"),
];

/// The answer for `reason`, as a page to those who ask for one.
pub(super) fn refuse(reason: Reason, asked: &HeaderMap, random: usize) -> Response<Answer> {
    let [zh, en] = reason.words();
    let status = reason.status();
    let name = reason.name();
    let (kind, text) = if wants_page(asked) {
        let text = format!(
            "<!doctype html><meta charset=utf-8><title>{status}</title><h1>{zh}</h1><p lang=en>{en}</p><p><small>{name}</small></p>"
        );
        (PAGE, text)
    } else {
        let code = status.as_u16();
        let text =
            format!(r#"{{"type":"about:blank","title":"{name}","status":{code},"detail":"{en}"}}"#);
        (PROBLEM, text)
    };
    let mut answer = Response::new(Answer::Own(Full::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    if reason.passes() {
        let after = RETRY_SECONDS[random % RETRY_SECONDS.len()].clone();
        answer.headers_mut().insert(RETRY_AFTER, after);
    }
    answer
}

/// Another place to go to.
pub(super) fn redirect(status: u16, location: &str) -> Response<Answer> {
    let mut answer = Response::new(Answer::empty());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
    if let Ok(location) = HeaderValue::from_str(location) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

/// Browsers name HTML; programs say `*/*` or nothing.
fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(http::header::ACCEPT);
    accept.is_some_and(|accept| {
        accept
            .as_bytes()
            .windows(9)
            .any(|part| part == b"text/html")
    })
}
