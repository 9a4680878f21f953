//! Who asks, where trusted proxies stand in front.
//!
//! ```text
//! client ── proxy 2 ── proxy 1 ── guard          with two trusted hops
//! X-Forwarded-For: whatever, client, proxy 2     (and proxy 1 is the connection's peer)
//!                            ^ the second from the right
//! ```
//!
//! Each proxy appends whom it saw, so what stands further left than there are trusted proxies was written by
//! the client itself, and counts for nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::headers::{FORWARDED_FOR, FORWARDED_PROTO};
use super::proxy::Connection;

/// Whom trusted proxies saw.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    client: IpAddr,
    /// Proxies between client and peer, the nearest to the client first.
    between: Vec<IpAddr>,
    /// Whether the client spoke TLS; none where no proxy says it.
    is_tls: Option<bool>,
}

/// The connection as it is for one request: with the client that trusted proxies saw.
pub(super) fn of_request(connection: &Arc<Connection>, headers: &HeaderMap) -> Arc<Connection> {
    let hops = usize::from(connection.shared.trusted_hops);
    if hops == 0 {
        return Arc::clone(connection);
    }
    let seen = look(headers, connection.client, hops);
    let is_tls = seen.is_tls.unwrap_or(connection.is_tls);
    let usual = if is_tls { 443 } else { 80 };
    Arc::new(Connection {
        shared: Arc::clone(&connection.shared),
        client: seen.client,
        forwarded_for: said(&seen, connection.client),
        server_name: connection.server_name.clone(),
        opening: connection.opening,
        // A proxy that ends TLS has a port of its own, which nobody tells.
        shown_port: seen.is_tls.map_or(connection.shown_port, |_| usual),
        is_tls,
        answers: Arc::clone(&connection.answers),
        seat: Arc::clone(&connection.seat),
    })
}

fn look(headers: &HeaderMap, peer: IpAddr, hops: usize) -> Seen {
    let addresses = last(headers, &FORWARDED_FOR, hops);
    if addresses.len() < hops {
        // Not the way through all proxies. Who left one out may have written all of it.
        return Seen {
            client: peer,
            between: Vec::new(),
            is_tls: None,
        };
    }
    // From the right as far as it can be read.
    let read = addresses.iter().map_while(|text| address(text));
    let mut between: Vec<IpAddr> = read.collect();
    let client = between.pop().unwrap_or(peer);
    between.reverse();
    Seen {
        client,
        between,
        // Proxies append to it as well, or the first of them overwrites it for all.
        is_tls: last(headers, &FORWARDED_PROTO, hops)
            .last()
            .and_then(|scheme| is_tls(scheme)),
    }
}

/// The last values of a list that may be spread over several headers, the last one first.
fn last<'a>(headers: &'a HeaderMap, name: &HeaderName, count: usize) -> Vec<&'a str> {
    let all: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    let texts = all
        .into_iter()
        .rev()
        .map(|value| value.to_str().unwrap_or("?"));
    texts
        .flat_map(|text| text.rsplit(','))
        .map(str::trim)
        .take(count)
        .collect()
}

/// An address as proxies write it: some with the port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    let address = bare.parse().or_else(|_| with_port()).ok()?;
    Some(IpAddr::to_canonical(&address))
}

fn is_tls(scheme: &str) -> Option<bool> {
    if scheme.eq_ignore_ascii_case("https") {
        Some(true)
    } else if scheme.eq_ignore_ascii_case("http") {
        Some(false)
    } else {
        None
    }
}

/// What is passed on in `X-Forwarded-For`: the trusted part of it, and the peer.
fn said(seen: &Seen, peer: IpAddr) -> Option<HeaderValue> {
    // The client is the peer itself where no proxy could be believed.
    let is_direct = seen.client == peer && seen.between.is_empty();
    let peer = (!is_direct).then_some(&peer);
    let all = [&seen.client].into_iter().chain(&seen.between).chain(peer);
    let all: Vec<String> = all.map(IpAddr::to_string).collect();
    HeaderValue::from_str(&all.join(", ")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.1";

    fn headers(forwarded_for: &[&str], proto: &[&str]) -> HeaderMap {
        let pair = |name: HeaderName, text: &&str| (name, HeaderValue::from_str(text).unwrap());
        let addresses = forwarded_for.iter().map(|text| pair(FORWARDED_FOR, text));
        let schemes = proto.iter().map(|text| pair(FORWARDED_PROTO, text));
        addresses.chain(schemes).collect()
    }

    /// Client, and what is passed on.
    fn seen(forwarded_for: &[&str], hops: usize) -> (String, String) {
        let peer = PEER.parse().unwrap();
        let seen = look(&headers(forwarded_for, &[]), peer, hops);
        let said = said(&seen, peer).unwrap();
        (seen.client.to_string(), said.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_client_is_whom_the_farthest_trusted_proxy_saw() {
        let pair = |client: &str, said: &str| (client.to_owned(), said.to_owned());
        assert_eq!(
            seen(&["192.0.2.7"], 1),
            pair("192.0.2.7", "192.0.2.7, 10.0.0.1")
        );
        assert_eq!(
            seen(&["192.0.2.7, 10.0.0.2"], 2),
            pair("192.0.2.7", "192.0.2.7, 10.0.0.2, 10.0.0.1")
        );
        assert_eq!(
            seen(&["192.0.2.7", "10.0.0.2"], 2),
            pair("192.0.2.7", "192.0.2.7, 10.0.0.2, 10.0.0.1")
        );
        assert_eq!(
            seen(&["[2001:db8::7]:443"], 1),
            pair("2001:db8::7", "2001:db8::7, 10.0.0.1")
        );
        assert_eq!(
            seen(&["::ffff:192.0.2.7"], 1),
            pair("192.0.2.7", "192.0.2.7, 10.0.0.1")
        );
    }

    #[test]
    fn what_a_client_writes_itself_counts_for_nothing() {
        let pair = |client: &str, said: &str| (client.to_owned(), said.to_owned());
        assert_eq!(
            seen(&["6.6.6.6, 192.0.2.7"], 1),
            pair("192.0.2.7", "192.0.2.7, 10.0.0.1")
        );
        assert_eq!(
            seen(&["6.6.6.6", "5.5.5.5, 192.0.2.7"], 1),
            pair("192.0.2.7", "192.0.2.7, 10.0.0.1")
        );
        // It left a proxy out: then all of it may be invented.
        assert_eq!(seen(&["6.6.6.6"], 2), pair(PEER, PEER));
        assert_eq!(seen(&[], 1), pair(PEER, PEER));
    }

    #[test]
    fn an_entry_that_is_no_address_ends_what_is_believed() {
        let pair = |client: &str, said: &str| (client.to_owned(), said.to_owned());
        assert_eq!(
            seen(&["unknown, 10.0.0.2"], 2),
            pair("10.0.0.2", "10.0.0.2, 10.0.0.1")
        );
        assert_eq!(seen(&["192.0.2.7, x"], 2), pair(PEER, PEER));
        assert_eq!(seen(&["192.0.2.7,"], 1), pair(PEER, PEER));
    }

    #[test]
    fn the_scheme_is_that_of_the_farthest_trusted_proxy() {
        let peer: IpAddr = PEER.parse().unwrap();
        let scheme = |addresses: &[&str], proto: &[&str], hops| {
            look(&headers(addresses, proto), peer, hops).is_tls
        };
        assert_eq!(scheme(&["192.0.2.7"], &["https"], 1), Some(true));
        assert_eq!(scheme(&["192.0.2.7"], &["https, http"], 1), Some(false));
        assert_eq!(
            scheme(&["192.0.2.7, 10.0.0.2"], &["http, HTTPS, http"], 2),
            Some(true)
        );
        // The first proxy overwrote it, the second left it.
        assert_eq!(scheme(&["192.0.2.7, 10.0.0.2"], &["https"], 2), Some(true));
        assert_eq!(scheme(&["192.0.2.7"], &["gopher"], 1), None);
        assert_eq!(scheme(&[], &["https"], 1), None);
    }
}
