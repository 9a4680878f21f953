//! What headers must not pass the guard, and what it says about the client.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_TYPE, FORWARDED, HeaderName, TE, UPGRADE};
use http::{HeaderMap, HeaderValue, Version};

use crate::guard::own_headers::HOP_BY_HOP;

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const WEBSOCKET: &[u8] = b"websocket";
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Whose request it is.
pub(super) struct Client<'a> {
    pub(super) address: IpAddr,
    /// The way here, if trusted proxies told it.
    pub(super) forwarded_for: Option<&'a HeaderValue>,
    pub(super) host: &'a str,
    pub(super) is_tls: bool,
    pub(super) port: u16,
}

/// Removes what is meant for one connection only, and what the message itself names so. Returns whether it asks
/// for another protocol, which the caller has to carry over itself.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let wants_trailers = headers
        .get_all(TE)
        .iter()
        .any(|value| has_token(value, "trailers"));
    let upgrade = websocket(headers).cloned();
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(names).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    // gRPC servers refuse calls of clients that do not say so.
    if wants_trailers {
        headers.insert(TE, TRAILERS);
    }
    upgrade
}

/// Whether a message is one of gRPC, which may be a stream in either direction.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The protocol that a message changes to, by both headers that it takes. Nothing but a WebSocket: what speaks HTTP
/// itself, as h2c does, would carry requests past every rule.
pub(super) fn websocket(headers: &HeaderMap) -> Option<&HeaderValue> {
    let asked = headers.get(UPGRADE)?;
    let mut named = headers.get_all(CONNECTION).iter().flat_map(names);
    let is_asked = named.any(|name| name == UPGRADE);
    (is_asked && asked.as_bytes().eq_ignore_ascii_case(WEBSOCKET)).then_some(asked)
}

/// Names with underscores are dropped: many servers read them as dashes, so that a client could say
/// what only the guard may say.
pub(super) fn drop_underscores(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .cloned()
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// What endpoints are told about the client is what the guard saw, whatever the client claimed.
pub(super) fn forwarded(headers: &mut HeaderMap, client: &Client<'_>) {
    headers.remove(REAL_IP);
    let seen = client.forwarded_for.cloned();
    let way = seen.unwrap_or_else(|| text(&client.address.to_string()));
    headers.insert(FORWARDED_FOR, way);
    headers.insert(FORWARDED_HOST, text(client.host));
    let scheme = if client.is_tls { "https" } else { "http" };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    headers.insert(FORWARDED_PORT, HeaderValue::from(client.port));
    let node = match client.address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let said = format!("for={node};host=\"{}\";proto={scheme}", client.host);
    headers.insert(FORWARDED, text(&said));
}

/// The one host of a request, in lower case and without its port.
pub(super) fn host(uri: &http::Uri, headers: &HeaderMap, version: Version) -> Option<String> {
    let mut named = headers.get_all(http::header::HOST).iter();
    let first = named.next();
    // Two hosts are how rules of one are used to reach another.
    if named.next().is_some() {
        return None;
    }
    if let (None, Some(host)) = (uri.authority(), first)
        && let Some(plain) = plain(host)
    {
        return Some(plain.to_owned());
    }
    let host = match (uri.authority(), first) {
        // In HTTP/2 they must agree if both are given.
        (Some(authority), Some(host)) if version == Version::HTTP_2 => {
            (host.as_bytes() == authority.as_str().as_bytes()).then(|| authority.clone())?
        }
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => host.to_str().ok()?.parse().ok()?,
        (None, None) => return None,
    };
    if host.as_str().contains('@') || host.host().is_empty() {
        return None;
    }
    Some(host.host().trim_end_matches('.').to_ascii_lowercase())
}

/// The name in a `Host` that is written as nearly all are: in small letters, with or without a port. All else
/// takes a parser.
fn plain(host: &HeaderValue) -> Option<&str> {
    let text = host.to_str().ok()?;
    let (name, port) = text.rsplit_once(':').unwrap_or((text, "0"));
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let mut labels = name.split('.');
    let is_name = labels.all(|label| !label.is_empty() && label.bytes().all(is_plain));
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_name && is_port).then_some(name)
}

fn text(text: &str) -> HeaderValue {
    // Hosts were parsed as such, addresses are digits: both are visible ASCII.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

fn names(value: &HeaderValue) -> Vec<HeaderName> {
    let tokens = value.to_str().unwrap_or_default().split(',');
    tokens
        .filter_map(|token| token.trim().parse().ok())
        .collect()
}

fn has_token(value: &HeaderValue, wanted: &str) -> bool {
    let tokens = value.to_str().unwrap_or_default().split(',');
    tokens
        .map(|token| token.split(';').next().unwrap_or_default().trim())
        .any(|token| token.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (
                name.parse::<HeaderName>().unwrap(),
                value.parse::<HeaderValue>().unwrap(),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_is_meant_for_one_connection_does_not_pass() {
        let mut all = headers(&[
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("x-stays", "1"),
        ]);
        assert_eq!(strip_hop_by_hop(&mut all), None);
        assert_eq!(all, headers(&[("x-stays", "1"), ("te", "trailers")]));
    }

    #[test]
    fn another_protocol_is_only_asked_for_by_both_headers() {
        let mut both = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(strip_hop_by_hop(&mut both).unwrap(), "websocket");
        let mut one = headers(&[("upgrade", "h2c")]);
        assert_eq!(strip_hop_by_hop(&mut one), None);
        assert!(one.is_empty());
    }

    #[test]
    fn a_client_cannot_say_who_it_is() {
        let mut all = headers(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x_real_ip", "10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
        ]);
        drop_underscores(&mut all);
        let address = "192.0.2.7".parse().unwrap();
        forwarded(
            &mut all,
            &Client {
                address,
                forwarded_for: None,
                host: "a.example",
                is_tls: false,
                port: 80,
            },
        );
        let said: Vec<_> = all
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert!(
            said.iter().all(|(_, value)| !value.contains("10.0.0.1")),
            "{said:?}"
        );
        assert_eq!(
            all["forwarded"],
            "for=192.0.2.7;host=\"a.example\";proto=http"
        );
        assert_eq!(all["x-forwarded-proto"], "http");
    }

    proptest::proptest! {
        #[test]
        fn a_host_that_needs_no_parser_is_what_a_parser_makes_of_it(text in "[a-b0-1A.:_@+-]{0,10}") {
            let value = HeaderValue::from_str(&text).unwrap();
            if let Some(plain) = plain(&value) {
                let parsed: http::uri::Authority = text.parse().unwrap();
                proptest::prop_assert_eq!(plain, parsed.host());
            }
        }
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        let uri = "/x".parse().unwrap();
        let of = |pairs: &[(&str, &str)]| host(&uri, &headers(pairs), Version::HTTP_11);
        assert_eq!(of(&[("host", "A.Example:8080")]).unwrap(), "a.example");
        assert_eq!(of(&[("host", "[::1]:80")]).unwrap(), "[::1]");
        assert_eq!(of(&[("host", "a.example.")]).unwrap(), "a.example");
        for bad in [
            &[][..],
            &[("host", "a"), ("host", "b")],
            &[("host", "u@a")],
            &[("host", "a b")],
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        let full: http::Uri = "http://b.example/x".parse().unwrap();
        assert_eq!(
            host(&full, &headers(&[("host", "a")]), Version::HTTP_11).unwrap(),
            "b.example"
        );
        assert_eq!(
            host(&full, &headers(&[("host", "a")]), Version::HTTP_2),
            None
        );
    }
}
