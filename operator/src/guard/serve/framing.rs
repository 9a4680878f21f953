//! Where a message ends, and what it may still say there.

use http::header::{COOKIE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::Body;

const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// Says in a request for HTTP/1.1 what goes without saying in HTTP/2.
pub(super) fn for_http1<B: Body>(request: &mut Request<B>) {
    let body = request.body();
    let is_unknown = !body.is_end_stream() && body.size_hint().exact().is_none();
    let headers = request.headers_mut();
    if is_unknown {
        // Else none would be sent with GET and HEAD, which rarely have one.
        headers.insert(TRANSFER_ENCODING, CHUNKED);
    }
    join_cookies(headers);
}

/// HTTP/2 may spread cookies over many headers, HTTP/1.1 has one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let cookies: Vec<&[u8]> = cookies.collect();
    if cookies.len() < 2 {
        return;
    }
    let joined = cookies.join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}
