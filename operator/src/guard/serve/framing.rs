//! Where a message ends, and what it may still say there.

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST,
    HeaderName, TE, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::Body;

use super::answer::Reason;
use super::headers::{REAL_IP, strip_hop_by_hop};
use super::server::HEADERS_MAX;

const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// Whether a request's head may pass.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Reason> {
    if is_coded(headers) {
        return Err(Reason::BadRequest);
    }
    if headers.len() > HEADERS_MAX && lines(headers) > HEADERS_MAX {
        return Err(Reason::HeadersTooMany);
    }
    Ok(())
}

/// Whether a body has a transfer coding but `chunked`. Nobody here takes it off, and the header that tells of it
/// does not pass, so that who gets the body would take it for what it is not.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = codings.next() else {
        return false;
    };
    let is_chunked = first
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked");
    !is_chunked || codings.next().is_some()
}

/// As many as there would be in HTTP/1.1, which has all cookies in one.
fn lines(headers: &HeaderMap) -> usize {
    let cookies = headers.get_all(COOKIE).iter().count();
    headers.len() - cookies.saturating_sub(1)
}

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

/// Removes from trailers what is meant for one connection, and what would say something else about the message or
/// its client than its head did (RFC 9110 section 6.5.1).
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in [
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        EXPECT,
        FORWARDED,
        HOST,
        REAL_IP,
        TE,
    ] {
        trailers.remove(name);
    }
    let is_claim = |name: &&HeaderName| name.as_str().starts_with("x-forwarded-");
    let claims: Vec<HeaderName> = trailers.keys().filter(is_claim).cloned().collect();
    for name in claims {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(lines: &[&'static str]) -> HeaderMap {
        let line = |line| (TRANSFER_ENCODING, HeaderValue::from_static(line));
        lines.iter().copied().map(line).collect()
    }

    #[test]
    fn a_body_is_chunked_once_or_not_at_all() {
        for plain in [&[][..], &["chunked"], &["Chunked"]] {
            assert!(!is_coded(&coded(plain)), "{plain:?}");
        }
        for bad in [
            &["gzip, chunked"][..],
            &["gzip", "chunked"],
            &["chunked", "chunked"],
            &["chunked, chunked"],
            &["identity"],
            &[""],
        ] {
            assert!(is_coded(&coded(bad)), "{bad:?}");
        }
    }
}
