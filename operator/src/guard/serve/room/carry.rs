//! How tickets travel: in a cookie with browsers, in a header with apps.

use std::time::Duration;

use http::header::{CACHE_CONTROL, COOKIE, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use shield::ticket::RoomId;

use crate::guard::serve::keys::cookie;

/// The header that apps carry tickets in, both ways.
const TICKET: HeaderName = HeaderName::from_static("jiuzhou-ticket");

/// What names of cookies that carry tickets begin with. Browsers take one with the first prefix from the host
/// itself alone, and over TLS alone.
const SECURE: &str = "__Host-jiuzhou-ticket-";
const PLAIN: &str = "jiuzhou-ticket-";

/// What is given to one is not to be given to others.
const PRIVATE: &str = "private";
/// What an endpoint says to caches of many (RFC 9111 section 5.2.2), none of which may keep a ticket.
const SHARED: [&str; 3] = ["public", "s-maxage", "proxy-revalidate"];
/// Where it says so to them alone, before all else (RFC 9213).
const TARGETED: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The cookie of a room. Each has its own: one host may have several rooms, and a cookie that they
/// shared would hold a place in one of them only.
#[derive(Debug)]
pub(super) struct Carrier {
    secure: String,
    plain: String,
}

/// How a ticket came, which is how the next one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carriage {
    /// In the cookie for TLS, or in the other one.
    Cookie {
        is_tls: bool,
    },
    Header,
    /// With none yet: both are offered.
    Any {
        is_tls: bool,
    },
}

/// A ticket ready to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::guard::serve) struct Stamp {
    pub(super) ticket: String,
    cookie: Option<String>,
    is_header: bool,
}

impl Carrier {
    pub(super) fn new(room: RoomId) -> Self {
        // All of its bits: with fewer, somebody could find a name for a room whose tickets replace those of
        // another one on the same host.
        let room = room.0;
        Self {
            secure: format!("{SECURE}{room:016x}"),
            plain: format!("{PLAIN}{room:016x}"),
        }
    }

    /// The ticket of a request. What is no text is a ticket too, if a bad one.
    pub(super) fn read<'a>(
        &self,
        headers: &'a HeaderMap,
        is_tls: bool,
    ) -> (Option<&'a str>, Carriage) {
        if let Some(value) = headers.get(TICKET) {
            return (Some(value.to_str().unwrap_or_default()), Carriage::Header);
        }
        let name = self.name(is_tls);
        let all = headers.get_all(COOKIE).iter();
        let mut pairs = all.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        match pairs.find_map(|pair| cookie(pair, name)) {
            Some(value) => {
                let text = std::str::from_utf8(value).unwrap_or_default();
                (Some(text), Carriage::Cookie { is_tls })
            }
            None => (None, Carriage::Any { is_tls }),
        }
    }

    /// Makes a ticket ready to be given.
    pub(super) fn stamp(&self, ticket: String, how: Carriage, keep: Duration) -> Stamp {
        let (cookie, is_header) = match how {
            Carriage::Cookie { is_tls } => (Some(is_tls), false),
            Carriage::Header => (None, true),
            Carriage::Any { is_tls } => (Some(is_tls), true),
        };
        let cookie = cookie.map(|is_tls| {
            let (name, seconds) = (self.name(is_tls), keep.as_secs());
            let secure = if is_tls { "; Secure" } else { "" };
            format!("{name}={ticket}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
        });
        Stamp {
            ticket,
            cookie,
            is_header,
        }
    }

    fn name(&self, is_tls: bool) -> &str {
        if is_tls { &self.secure } else { &self.plain }
    }
}

impl Stamp {
    /// Puts the ticket on an answer, which then belongs to one citizen.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        if let Some(cookie) = self.cookie.as_deref().and_then(value) {
            headers.append(SET_COOKIE, cookie);
        }
        if let Some(ticket) = value(&self.ticket).filter(|_| self.is_header) {
            headers.insert(TICKET, ticket);
        }
        keep_private(headers);
    }
}

/// Takes tickets off a request that goes on. Endpoints need none, and whoever has a ticket has the place: several
/// tenants may serve one host, to all of which browsers send its cookies.
pub(in crate::guard::serve) fn strip(headers: &mut HeaderMap) {
    headers.remove(TICKET);
    let has_ticket = |value: &HeaderValue| pairs(value).any(is_ticket);
    if !headers.get_all(COOKIE).iter().any(has_ticket) {
        return;
    }
    let kept = headers.get_all(COOKIE).iter().filter_map(without_tickets);
    let kept: Vec<HeaderValue> = kept.collect();
    headers.remove(COOKIE);
    for value in kept {
        headers.append(COOKIE, value);
    }
}

fn pairs(cookies: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    cookies.as_bytes().split(|byte| *byte == b';')
}

/// Whichever room it is for: one that is no more has given tickets, too.
fn is_ticket(pair: &[u8]) -> bool {
    let pair = pair.trim_ascii_start();
    [SECURE, PLAIN]
        .iter()
        .any(|name| pair.starts_with(name.as_bytes()))
}

/// The other cookies as they came; none where there are none.
fn without_tickets(cookies: &HeaderValue) -> Option<HeaderValue> {
    let kept: Vec<&[u8]> = pairs(cookies).filter(|pair| !is_ticket(pair)).collect();
    let joined = kept.join(&b";"[..]);
    let joined = joined.trim_ascii();
    if joined.is_empty() {
        return None;
    }
    let mut value = HeaderValue::from_bytes(joined).ok()?;
    value.set_sensitive(cookies.is_sensitive());
    Some(value)
}

/// Lets no cache keep an answer that others share. What an endpoint says against keeping it stays.
fn keep_private(headers: &mut HeaderMap) {
    headers.remove(TARGETED);
    let said = headers.get_all(CACHE_CONTROL).iter();
    let said = said.filter_map(|value| value.to_str().ok());
    let mut kept: Vec<&str> = said
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|directive| !directive.is_empty() && !is_for_caches_of_many(directive))
        .collect();
    // First: what is left of a list in quotes, cut at its commas, could take in what follows.
    kept.insert(0, PRIVATE);
    if let Ok(value) = HeaderValue::from_str(&kept.join(", ")) {
        headers.insert(CACHE_CONTROL, value);
    }
}

/// Also `private` itself, which the guard says without the names of headers that would leave the others shared.
fn is_for_caches_of_many(directive: &str) -> bool {
    let name = directive.split('=').next().unwrap_or_default().trim_end();
    let mut names = SHARED.into_iter().chain([PRIVATE]);
    names.any(|shared| name.eq_ignore_ascii_case(shared))
}

/// Tickets are base64url and names are ours: both are visible ASCII.
fn value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    // Whoever has the ticket has the place: no log shows it.
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        let values = headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn tickets_do_not_go_on_and_other_cookies_do_as_they_came() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&["a=b;c=d; e"], &["a=b;c=d; e"]),
            (&["a=b; jiuzhou-ticket-0=T; c=\"d\""], &["a=b; c=\"d\""]),
            (&["__Host-jiuzhou-ticket-0=T; a=b"], &["a=b"]),
            (
                &["jiuzhou-ticket-0=T", "a=b", " jiuzhou-ticket-1=T;"],
                &["a=b"],
            ),
            (
                &["a=jiuzhou-ticket-0; x-jiuzhou-ticket-0=b"],
                &["a=jiuzhou-ticket-0; x-jiuzhou-ticket-0=b"],
            ),
        ];
        for (came, expected) in cases {
            let mut given = headers("cookie", came);
            given.insert(TICKET, HeaderValue::from_static("T"));
            strip(&mut given);
            assert_eq!(all(&given, "cookie"), expected, "{came:?}");
            assert!(!given.contains_key(TICKET));
        }
    }

    #[test]
    fn the_cookie_of_a_room_is_told_apart_by_all_bits_of_its_name() {
        let [one, other] = [RoomId(1 << 63), RoomId(1 << 63 | 1)].map(Carrier::new);
        assert_ne!(one.name(true), other.name(true));
        assert_ne!(one.name(false), other.name(false));
        for name in [one.name(true), one.name(false)] {
            assert!(is_ticket(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn an_answer_with_a_ticket_is_private_whatever_the_endpoint_says() {
        let cases: [(&[&str], &str); 6] = [
            (&[], "private"),
            (&["public, max-age=60"], "private, max-age=60"),
            (&["max-age=0", "S-MaxAge=60,Public"], "private, max-age=0"),
            (&["no-store"], "private, no-store"),
            (&["private=\"set-cookie\", no-cache"], "private, no-cache"),
            (&["private"], "private"),
        ];
        let carrier = Carrier::new(RoomId(1));
        for (said, expected) in cases {
            let mut given = headers("cache-control", said);
            given.insert(TARGETED, HeaderValue::from_static("public"));
            let how = Carriage::Any { is_tls: true };
            let stamp = carrier.stamp("T".into(), how, Duration::from_secs(1));
            stamp.put(&mut given);
            assert_eq!(all(&given, "cache-control"), [expected], "{said:?}");
            assert!(!given.contains_key(TARGETED));
        }
    }
}
