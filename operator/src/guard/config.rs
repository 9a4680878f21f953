//! What the serving guard runs on, whole: one document, compiled by guard control.
//!
//! ```text
//! Configuration ─ ports ─ Port ─ listeners ─ Listener ─ hosts ─ Host ─ entries ─ Entry ─┬─ Match
//!       │                                                                               └─ rule ─┐
//!       ├─ rules ─ Rule (filters, timeouts) ─ backends ─ Backend ─ service ─┐ <──────────────────┘
//!       ├─ services ─ Service ─ endpoints <─────────────────────────────────┘
//!       ├─ policies (of rules)
//!       ├─ rooms (of rules)
//!       ├─ tokens (of policies)
//!       └─ certificates
//! ```
//!
//! Everything is decided in it: entries stand in their order of precedence, filters in theirs, and what
//! a route refers to in vain is written as such. Serving chooses nothing but an endpoint.

mod check;
mod opening;
mod room;
mod tokens;
pub(crate) mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shield::{OutlierSettings, PolicySettings};

pub use check::Fault;
pub use opening::Opening;
pub use room::{TicketKey, WaitingRoom};

pub use self::tokens::Tokens;

/// What a serving guard runs on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    /// Names what is in it; equal documents have equal revisions.
    pub revision: String,
    /// What to listen on.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// What to do with requests that match.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What protects targets, by `namespace/name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, PolicySettings>,
    /// Where citizens queue before a target, by `namespace/name` of the policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rooms: BTreeMap<String, WaitingRoom>,
    /// Whose tokens have the claims that are keys of the policy of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, Tokens>,
    /// Where requests go, by `namespace/name:port`.
    #[serde(default)]
    pub services: BTreeMap<String, Service>,
    /// What listeners prove who they are with, by `namespace/name` of the Secret.
    #[serde(default)]
    pub certificates: BTreeMap<String, Certificate>,
}

/// A port, and who shares it. Each opening is named once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// The address that it is opened on; absent is that of the guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The number that Gateways give.
    pub port: u16,
    /// Whether TLS ends here; the listeners of one port agree on it.
    pub tls: bool,
    /// Most specific hostname first.
    pub listeners: Vec<Listener>,
}

/// A listener of a Gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// `namespace/gateway/listener`.
    pub name: String,
    /// What it answers for.
    #[serde(default)]
    pub hostname: Hostname,
    /// Names of certificates, the first that fits a client is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// Most specific hostname first.
    #[serde(default)]
    pub hosts: Vec<Host>,
}

/// What routes of a listener say about one hostname.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// The intersection of the listener's and a route's.
    #[serde(default)]
    pub hostname: Hostname,
    /// In their order of precedence: the first that matches counts.
    pub entries: Vec<Entry>,
}

/// A hostname: any, exact (`a.example`), or all below one (`*.example`, at any depth). Lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Hostname {
    /// Every hostname, and none.
    #[default]
    Any,
    /// This one.
    Exact(String),
    /// Those that end in this, which begins with a dot, and have a label before it.
    Below(String),
}

impl Hostname {
    /// Whether a host, in lower case and without a port, is meant.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

impl From<String> for Hostname {
    fn from(text: String) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            _ if text.is_empty() => Self::Any,
            Some("") => Self::Any,
            Some(suffix) => Self::Below(suffix.to_owned()),
            None => Self::Exact(text),
        }
    }
}

impl From<Hostname> for String {
    fn from(hostname: Hostname) -> Self {
        hostname.to_string()
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Exact(exact) => f.write_str(exact),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// Which requests a rule is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// All of it must hold.
    #[serde(flatten)]
    pub matches: Match,
    /// Index in [`Configuration::rules`].
    pub rule: usize,
}

/// What must hold of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// The path, without the query.
    pub path: PathMatch,
    /// The method; absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Headers, all of them; names in lower case, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
    /// Parameters of the query, all of them; each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<ValueMatch>,
}

/// What a path must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// Exactly this.
    Exact(String),
    /// This, or below it, by whole elements; `/` is every path.
    Prefix(String),
    /// What this regular expression matches as a whole.
    Regex(String),
}

/// What a header or a parameter must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueMatch {
    /// Its name.
    pub name: String,
    /// What it must be.
    #[serde(flatten)]
    pub value: TextMatch,
}

/// What a text must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TextMatch {
    /// Exactly this.
    Exact(String),
    /// What this regular expression matches as a whole.
    Regex(String),
}

/// What is done with requests that match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// `namespace/route`, as in metrics and refusals.
    pub route: String,
    /// Its name in the route, or its number.
    pub name: String,
    /// What is changed on the way, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Where requests go, by weight. None at all answers 500, unless a filter redirects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<Backend>,
    /// Key in [`Configuration::policies`]; absent means that nothing bounds the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Which of the policy's classes the requests are of.
    #[serde(default, skip_serializing_if = "is_first")]
    pub class: usize,
    /// Key in [`Configuration::rooms`]; absent means that nobody queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// How long clients wait for a whole answer; absent means no end.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "millis")]
    pub request_timeout: Option<Duration>,
    /// How long an endpoint may take to answer; absent means no end.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "millis")]
    pub backend_timeout: Option<Duration>,
    /// When a request is sent once more; absent means only where an endpoint takes no connection, once,
    /// to another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
}

/// When a request is sent once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retries {
    /// How often, 0 to 3.
    pub attempts: u8,
    /// After what.
    pub on: Vec<RetryOn>,
    /// Retries per hundred requests of the rule, 0 to 100; three per second are allowed besides.
    #[serde(default = "budget_default")]
    pub budget_percent: u32,
}

const fn budget_default() -> u32 {
    20
}

/// What a request is sent again after. Methods that are not idempotent are only after the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetryOn {
    /// No connection was made.
    ConnectFailure,
    /// The endpoint says that it did not look at the request.
    Refused,
    /// The connection broke before an answer.
    Reset,
    /// The answer is 502, 503 or 504.
    GatewayError,
}

/// Where a share of the requests goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    /// Its share among the rule's backends.
    pub weight: u32,
    /// Key in [`Configuration::services`]; absent where the route refers to what does not exist or is
    /// not allowed, which answers 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What is changed only on the way to this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
}

/// What is changed on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Filter {
    /// Headers of the request.
    RequestHeaders(HeaderChange),
    /// Headers of the answer.
    ResponseHeaders(HeaderChange),
    /// Answers with another place to go to.
    Redirect(Redirect),
    /// Another host or path for the endpoint.
    Rewrite(Rewrite),
}

/// Changes of headers: first what is set, then what is added, then what is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderChange {
    /// Replaces all of that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// Adds one more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(String, String)>,
    /// Removes all of that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// Another place to go to; what is absent stays as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redirect {
    /// `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The port; absent means that of the scheme if one is given, else that of the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
    /// The status.
    pub status: u16,
}

/// Another host or path for the endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rewrite {
    /// The host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathChange>,
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathChange {
    /// This one.
    Full(String),
    /// This one instead of the prefix that matched.
    Prefix(String),
}

/// Where requests go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// What its endpoints speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// Those that are ready. None at all answers 503.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// When one that fails gets no requests for a while.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub outliers: OutlierSettings,
}

/// What endpoints speak, by the port's `appProtocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// HTTP/1.1, with WebSocket.
    #[default]
    Http1,
    /// HTTP/2 without TLS: `kubernetes.io/h2c`.
    H2c,
}

/// One address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// The pod's address.
    pub address: IpAddr,
    /// The pod's port.
    pub port: u16,
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// PEM, the leaf first.
    pub chain: String,
    /// PEM.
    pub key: String,
}

impl fmt::Debug for Certificate {
    /// Leaves the key out: what is logged is read by many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_first(class: &usize) -> bool {
    *class == 0
}

fn is_usual(outliers: &OutlierSettings) -> bool {
    *outliers == OutlierSettings::default()
}

/// Durations as milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it with a reference")]
    pub(super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => {
                serializer.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
            }
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_with_a_star_covers_what_lies_below_it_at_any_depth() {
        let below = Hostname::from("*.Example.com".to_owned());
        assert!(below.covers("a.example.com") && below.covers("a.b.example.com"));
        assert!(!below.covers("example.com") && !below.covers("badexample.com"));
        assert_eq!(below.to_string(), "*.example.com");
        assert!(Hostname::from(String::new()).covers(""));
    }

    #[test]
    fn a_key_is_not_shown_where_a_configuration_is_printed() {
        let certificate = Certificate {
            chain: "chain".into(),
            key: "hidden".into(),
        };
        assert!(!format!("{certificate:?}").contains("hidden"));
    }
}
