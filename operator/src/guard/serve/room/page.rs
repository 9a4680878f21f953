//! What who waits is shown: a page that asks again by itself, or a document for programs.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, REFERRER_POLICY, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::pass::Waiting;
use crate::guard::serve::answer::{NO_STORE, PAGE, PROBLEM};
use crate::guard::serve::body::Answer;
use crate::guard::serve::language::{Language, STYLE};

const POLICY: HeaderName = HeaderName::from_static("content-security-policy");
/// The page loads nothing, and nobody shows it inside another.
const NOTHING: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'",
);
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");

/// By RFC 9457, with what a program needs to wait for its turn.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    rule: &'a str,
    reason: &'a str,
    position: u64,
    estimated_seconds: Option<u64>,
    retry_after_seconds: u64,
    ticket: &'a str,
}

impl Waiting {
    /// The rule that requests which wait are counted under.
    pub(in crate::guard::serve) const RULE: &str = "waitingRoom";
    /// The reason of it.
    pub(in crate::guard::serve) const REASON: &str = "Waiting";

    /// The answer, as a page to those who ask for one.
    pub(in crate::guard::serve) fn answer(&self, wants_page: bool) -> Response<Answer> {
        let (kind, text) = if wants_page {
            (PAGE, self.page())
        } else {
            (PROBLEM, self.problem())
        };
        let mut answer = Response::new(Answer::Own(Full::from(text)));
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CACHE_CONTROL, NO_STORE);
        headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_seconds));
        headers.insert(POLICY, NOTHING);
        headers.insert(REFERRER_POLICY, NO_REFERRER);
        self.stamp.put(headers);
        answer
    }

    fn problem(&self) -> String {
        let problem = Problem {
            r#type: "about:blank",
            title: Self::REASON,
            status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            detail: "many are here; come again with the ticket, which holds your place",
            rule: Self::RULE,
            reason: Self::REASON,
            position: self.position,
            estimated_seconds: self.estimated,
            retry_after_seconds: self.retry_seconds,
            ticket: &self.stamp.ticket,
        };
        // Numbers and texts: there is nothing that JSON cannot say.
        serde_json::to_string(&problem).unwrap_or_default()
    }

    fn page(&self) -> String {
        let words = match self.language {
            Language::Chinese => self.chinese(),
            Language::English => self.english(),
        };
        let Words {
            title,
            place,
            wait,
            advice,
        } = words;
        let language = self.language.tag();
        let reload = if self.reloads {
            let seconds = self.retry_seconds;
            format!("<meta http-equiv=refresh content={seconds}>")
        } else {
            String::new()
        };
        format!(
            "<!doctype html><html lang={language}><head><meta charset=utf-8>\
             <meta name=viewport content=\"width=device-width,initial-scale=1\">{reload}\
             <link rel=icon href=\"data:,\"><title>{title}</title><style>{STYLE}</style></head>\
             <body><main><h1>{title}</h1><div role=status><p>{place}</p><p>{wait}</p></div>\
             <p>{advice}</p></main></body></html>"
        )
    }

    fn chinese(&self) -> Words {
        let (position, seconds) = (self.position, self.retry_seconds);
        Words {
            title: "正在排队",
            place: format!("当前访问人数较多。您大约排在第 <strong>{position}</strong> 位。"),
            wait: match self.estimated {
                Some(wait) if wait < MINUTE => format!("预计等待约 {wait} 秒。"),
                Some(wait) => format!("预计等待约 {} 分钟。", wait.div_ceil(MINUTE)),
                None => "暂时无法估计等待时间。".to_owned(),
            },
            advice: if self.reloads {
                format!("本页面将在 {seconds} 秒后自动刷新，请勿关闭。刷新不会影响您的排队位置。")
            } else {
                format!(
                    "您提交的内容尚未处理。请返回上一页，{seconds} 秒后重新提交，您的排队位置会保留。"
                )
            },
        }
    }

    fn english(&self) -> Words {
        let (position, seconds) = (self.position, self.retry_seconds);
        Words {
            title: "You are in the queue",
            place: format!(
                "Many people are here. Your place is about <strong>{position}</strong>."
            ),
            wait: match self.estimated {
                Some(wait) if wait < MINUTE => format!("Estimated wait: about {wait} s."),
                Some(wait) => format!("Estimated wait: about {} min.", wait.div_ceil(MINUTE)),
                None => "How long it takes cannot be told at the moment.".to_owned(),
            },
            advice: if self.reloads {
                format!(
                    "This page reloads by itself in {seconds} s; please keep it open. Reloading does not cost you your place."
                )
            } else {
                format!(
                    "What you sent was not processed. Go back and send it again in {seconds} s; your place is kept."
                )
            },
        }
    }
}

/// Longer waits are told in minutes.
const MINUTE: u64 = 60;

struct Words {
    title: &'static str,
    place: String,
    wait: String,
    advice: String,
}
