//! How tickets travel: in a cookie with browsers, in a header with apps.

use std::time::Duration;

use http::header::{CACHE_CONTROL, COOKIE, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue};
use shield::ticket::RoomId;

use crate::guard::serve::keys::cookie;

/// The header that apps carry tickets in, both ways.
const TICKET: HeaderName = HeaderName::from_static("jiuzhou-ticket");

/// What is given to one is not to be given to others.
const PRIVATE: HeaderValue = HeaderValue::from_static("private");

/// The cookie of a room. Each has its own: one host may have several rooms, and a cookie that they
/// shared would hold a place in one of them only.
#[derive(Debug)]
pub(super) struct Carrier {
    /// Browsers take a cookie with this prefix from the host itself alone, and over TLS alone.
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
        // 32 bits tell the rooms of one host apart; what a ticket is good for is in the ticket.
        let plain = format!("jiuzhou-ticket-{:08x}", room.0 >> 32);
        Self {
            secure: format!("__Host-{plain}"),
            plain,
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
        headers.append(CACHE_CONTROL, PRIVATE);
    }
}

/// Tickets are base64url and names are ours: both are visible ASCII.
fn value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    // Whoever has the ticket has the place: no log shows it.
    value.set_sensitive(true);
    Some(value)
}
