//! What the guard answers itself: short, in the client's format, always with the reason.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::body::Answer;
use super::language::{Language, STYLE};
use super::outgoing::Fault;
use super::protection::{Shed, ShedReason};
use super::ready::Ready;
use super::room::Waiting;

pub(super) const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
pub(super) const PAGE: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Why the guard answers instead of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// No single host, or a path, method or coding that has no single meaning.
    BadRequest,
    /// It has more headers than allowed.
    HeadersTooMany,
    /// Nothing says anything about such requests.
    NoRoute,
    /// The connection was made to another name.
    Misdirected,
    /// The body is longer than allowed.
    BodyTooLong,
    /// The body came too slowly.
    BodyTooSlow,
    /// The client broke off inside the body.
    BodyCut,
    /// The route refers to something that does not exist, or that it may not use.
    BrokenRoute,
    /// The service has no ready endpoint.
    NoEndpoint,
    /// No endpoint took the connection.
    ConnectFailure,
    /// The guard itself has no file or port for another connection.
    Exhausted,
    /// The endpoint broke off before it answered.
    EndpointBroke,
    /// The endpoint took longer than the route allows.
    EndpointTimeout,
    /// A limit or the queue let it wait for longer than the route allows.
    TurnTimeout,
}

impl From<Fault> for Reason {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLong => Self::BodyTooLong,
            Fault::TooSlow => Self::BodyTooSlow,
            Fault::Cut => Self::BodyCut,
        }
    }
}

impl Reason {
    /// As in metrics and problem documents.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::HeadersTooMany => "HeadersTooMany",
            Self::NoRoute => "NoRoute",
            Self::Misdirected => "Misdirected",
            Self::BodyTooLong => "BodyTooLong",
            Self::BodyTooSlow => "BodyTooSlow",
            Self::BodyCut => "BodyCut",
            Self::BrokenRoute => "BrokenRoute",
            Self::NoEndpoint => "NoEndpoint",
            Self::ConnectFailure => "ConnectFailure",
            Self::Exhausted => "Exhausted",
            Self::EndpointBroke => "EndpointBroke",
            Self::EndpointTimeout => "EndpointTimeout",
            Self::TurnTimeout => "TurnTimeout",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest | Self::BodyCut => StatusCode::BAD_REQUEST,
            Self::HeadersTooMany => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenRoute => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoEndpoint | Self::ConnectFailure | Self::Exhausted => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::EndpointBroke => StatusCode::BAD_GATEWAY,
            Self::EndpointTimeout | Self::TurnTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// For people, in the two languages of those who see it.
    fn words(self) -> [&'static str; 2] {
        match self {
            Self::BadRequest => ["请求无效", "the request has no single meaning"],
            Self::HeadersTooMany => ["请求头过多", "the request has more headers than allowed"],
            Self::NoRoute => ["没有此服务", "no route is for this host and path"],
            Self::Misdirected => [
                "连接对应另一个域名",
                "this connection was made to another name",
            ],
            Self::BodyTooLong => ["请求内容过大", "the body is longer than allowed"],
            Self::BodyTooSlow => ["请求内容传输过慢", "the body came too slowly"],
            Self::BodyCut => ["请求内容不完整", "the body was cut off"],
            Self::BrokenRoute => ["服务配置有误", "the route refers to what it cannot use"],
            Self::NoEndpoint => ["服务暂无可用实例", "the service has no ready endpoint"],
            Self::ConnectFailure => ["服务暂时无法连接", "no endpoint took the connection"],
            Self::Exhausted => [
                "网关暂时无法建立新连接",
                "the guard cannot open another connection now",
            ],
            Self::EndpointBroke => [
                "服务中断了连接",
                "the endpoint broke off before it answered",
            ],
            Self::EndpointTimeout => ["服务响应超时", "the endpoint took too long"],
            Self::TurnTimeout => [
                "排队超时，请稍后再试",
                "the request's time was over before it was its turn",
            ],
        }
    }

    fn told(self) -> Told {
        Told {
            name: self.name(),
            status: self.status(),
            words: self.words(),
        }
    }

    /// Whether it is the service's fault rather than that of a limit, the client's or the route's.
    fn is_failure(self) -> bool {
        match self {
            Self::NoEndpoint
            | Self::ConnectFailure
            | Self::EndpointBroke
            | Self::EndpointTimeout => true,
            Self::BadRequest
            | Self::HeadersTooMany
            | Self::NoRoute
            | Self::Misdirected
            | Self::BodyTooLong
            | Self::TurnTimeout
            | Self::BodyTooSlow
            | Self::BodyCut
            | Self::BrokenRoute
            | Self::Exhausted => false,
        }
    }

    /// Whether the same request may well succeed a little later.
    fn passes(self) -> bool {
        matches!(
            self,
            Self::NoEndpoint | Self::ConnectFailure | Self::Exhausted
        )
    }
}

/// Why a request is not passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Something about the request, the route or the endpoint.
    Own(Reason),
    /// A rule of the policy.
    Shed(Shed),
    /// The waiting room.
    Waiting(Box<Waiting>),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Own(reason)
    }
}

impl Refusal {
    /// As in metrics and problem documents.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Own(reason) => reason.name(),
            Self::Shed(shed) => shed.reason.name(),
            Self::Waiting(_) => Waiting::REASON,
        }
    }

    /// The rule that refuses; empty where none does.
    pub(super) fn rule(&self) -> &str {
        match self {
            Self::Own(_) => "",
            Self::Shed(shed) => &shed.rule,
            Self::Waiting(_) => Waiting::RULE,
        }
    }

    /// The same, to be kept.
    pub(super) fn rule_name(&self) -> Option<Arc<str>> {
        match self {
            Self::Own(_) => None,
            Self::Shed(shed) => Some(Arc::clone(&shed.rule)),
            Self::Waiting(_) => Some(Arc::from(Waiting::RULE)),
        }
    }

    /// Whether the service failed the request; none where that says nothing about the service.
    pub(super) fn is_failure(&self) -> Option<bool> {
        match self {
            Self::Own(reason) => reason.is_failure().then_some(true),
            Self::Shed(shed) => shed.reason.is_failure().then_some(true),
            Self::Waiting(_) => None,
        }
    }
}

impl ShedReason {
    /// How many there are.
    pub(super) const COUNT: usize = 8;

    /// Its place among them.
    pub(super) fn place(self) -> usize {
        match self {
            Self::RateLimited => 0,
            Self::HotKey => 1,
            Self::KeyMissing => 2,
            Self::BreakerOpen => 3,
            Self::Overloaded => 4,
            Self::Displaced => 5,
            Self::WaitedTooLong => 6,
            Self::KeyAmbiguous => 7,
        }
    }

    pub(super) fn told(self) -> Told {
        Told {
            name: self.name(),
            status: self.status(),
            words: self.words(),
        }
    }

    /// As in metrics and problem documents.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "RateLimited",
            Self::HotKey => "HotKey",
            Self::KeyMissing => "KeyMissing",
            Self::KeyAmbiguous => "KeyAmbiguous",
            Self::BreakerOpen => "BreakerOpen",
            Self::Overloaded => "Overloaded",
            Self::Displaced => "Displaced",
            Self::WaitedTooLong => "WaitedTooLong",
        }
    }

    /// Whether it is the service that cannot, rather than the client that wants too much.
    fn is_failure(self) -> bool {
        match self {
            Self::BreakerOpen | Self::Overloaded | Self::Displaced | Self::WaitedTooLong => true,
            Self::RateLimited | Self::HotKey | Self::KeyMissing | Self::KeyAmbiguous => false,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::RateLimited | Self::HotKey | Self::KeyMissing => StatusCode::TOO_MANY_REQUESTS,
            Self::KeyAmbiguous => StatusCode::BAD_REQUEST,
            Self::BreakerOpen | Self::Overloaded | Self::Displaced | Self::WaitedTooLong => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    fn words(self) -> [&'static str; 2] {
        match self {
            Self::RateLimited => [
                "请求过于频繁，请稍后再试",
                "more requests than the limit lets pass",
            ],
            Self::HotKey => [
                "该项访问过于集中，请稍后再试",
                "one key makes up too much of the requests",
            ],
            Self::KeyMissing => [
                "请求缺少必要标识",
                "the limit wants a key that the request does not have",
            ],
            Self::KeyAmbiguous => [
                "请求标识重复且不一致",
                "the limit wants a key that the request says twice, in two ways",
            ],
            Self::BreakerOpen => [
                "服务正在恢复，请稍后再试",
                "the service fails or is slow and is left alone",
            ],
            Self::Overloaded | Self::Displaced | Self::WaitedTooLong => {
                ["服务繁忙，请稍后再试", "the service is busy"]
            }
        }
    }
}

/// Headers of a refusal, with those that the server adds.
const HEADERS: usize = 5;
/// Where an endpoint was missing: about what a pod takes to come back.
const RETRY_SECONDS: u64 = 1;

/// What is told about a refusal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    name: &'static str,
    status: StatusCode,
    words: [&'static str; 2],
}

/// What is told about a refusal by a rule: as a page in this language, or as a problem document.
pub(super) fn said(told: Told, rule: &str, page: Option<Language>) -> String {
    let Told {
        name,
        status,
        words: [zh, en],
    } = told;
    let code = status.as_u16();
    let Some(language) = page else {
        // Names of rules come from users: they are written as JSON wants them.
        let rule = serde_json::Value::from(rule);
        return format!(
            r#"{{"type":"about:blank","title":"{name}","status":{code},"detail":"{en}","rule":{rule}}}"#
        );
    };
    let words = match language {
        Language::Chinese => zh.to_owned(),
        Language::English => sentence(en),
    };
    let rule = if rule.is_empty() {
        String::new()
    } else {
        format!(" · {}", escaped(rule))
    };
    let tag = language.tag();
    format!(
        "<!doctype html><html lang={tag}><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <link rel=icon href=\"data:,\"><title>{status}</title><style>{STYLE}</style></head>\
         <body><main><h1>{words}</h1><p><small>{name}{rule}</small></p></main></body></html>"
    )
}

/// Words as a sentence begins.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// A text of users as HTML wants it.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

/// The answer for a refusal, as a page to those who want one, in their language. What is known of it before is
/// used.
pub(super) fn refuse(
    refusal: &Refusal,
    ready: Option<&Ready>,
    page: Option<Language>,
    random: u64,
) -> Response<Answer> {
    let (told, least) = match refusal {
        Refusal::Own(reason) => (reason.told(), reason.passes().then_some(RETRY_SECONDS)),
        Refusal::Shed(shed) => {
            let least = shed.retry_after.map(|wait| wait.as_secs() + 1);
            (shed.reason.told(), least)
        }
        Refusal::Waiting(waiting) => return waiting.answer(page.is_some()),
    };
    let text = if let Some(ready) = ready {
        ready.text(page)
    } else {
        said(told, refusal.rule(), page).into()
    };
    let mut answer = Response::new(Answer::Own(Full::new(text)));
    *answer.status_mut() = told.status;
    let headers = answer.headers_mut();
    headers.reserve(HEADERS);
    let kind = if page.is_some() { PAGE } else { PROBLEM };
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, NO_STORE);
    if let Some(least) = least {
        // Spread, so that not all come together.
        let seconds = least + random % (least / 2 + 2);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
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
pub(super) fn wants_page(accept: &HeaderValue) -> bool {
    let mut parts = accept.as_bytes().windows(9);
    parts.any(|part| part == b"text/html")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_of_a_rule_has_a_place_of_its_own() {
        let mut places = [
            ShedReason::RateLimited,
            ShedReason::HotKey,
            ShedReason::KeyMissing,
            ShedReason::KeyAmbiguous,
            ShedReason::BreakerOpen,
            ShedReason::Overloaded,
            ShedReason::Displaced,
            ShedReason::WaitedTooLong,
        ]
        .map(ShedReason::place);
        places.sort_unstable();
        assert!(places.into_iter().eq(0..ShedReason::COUNT));
    }

    #[test]
    fn a_refusal_is_a_page_in_the_language_of_who_reads_it_and_names_the_rule() {
        let told = ShedReason::RateLimited.told();
        let english = said(told, "a<b", Some(Language::English));
        assert!(english.contains("<html lang=en>"), "{english}");
        assert!(
            english.contains("<h1>More requests than the limit"),
            "{english}"
        );
        assert!(english.contains("RateLimited · a&lt;b"), "{english}");
        let chinese = said(told, "", Some(Language::Chinese));
        assert!(chinese.contains("<html lang=zh-CN>"), "{chinese}");
        assert!(
            chinese.contains("<h1>请求过于频繁，请稍后再试</h1>"),
            "{chinese}"
        );
        assert!(
            chinese.contains("name=viewport") && !chinese.contains("limit"),
            "{chinese}"
        );
        let problem = said(told, "a\"b", None);
        let problem: serde_json::Value = serde_json::from_str(&problem).unwrap();
        assert_eq!(problem["rule"], "a\"b");
    }
}
