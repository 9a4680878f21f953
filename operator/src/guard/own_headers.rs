//! Headers that say where a message ends and how its connection goes on. They are the guard's own.

use http::HeaderName;
use http::header::{
    CONNECTION, CONTENT_LENGTH, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

/// What is meant for one connection only, by RFC 9110 section 7.6.1 and the RFCs before it.
pub(super) const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether a filter must not set a header: who writes such a one makes one answer pass for two, or speaks for a
/// connection that is not its own.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    *name == CONTENT_LENGTH || HOP_BY_HOP.contains(name)
}
