//! What may stand in the URLs that rules write. Each `Err` says what is wrong and what is allowed.

use http::uri::PathAndQuery;

/// Statuses that send clients elsewhere, as Gateway API lists them.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Whether a text can be all of the path that is asked for. Endpoints would be sent what is none as it is, or
/// read another path or a query in it than was meant.
pub(crate) fn path(path: &str) -> Result<(), String> {
    let is_path = path.starts_with('/') && path.is_ascii() && !path.contains(['?', '#']);
    if !is_path || PathAndQuery::try_from(path).is_err() {
        return Err(format!(
            "{path:?} is no path; begin with /, leave out ? and #, and encode what no path may hold with %"
        ));
    }
    Ok(())
}

/// Whether a text is a host that headers can be written with: one that could not be in a URL would break the
/// answer.
pub(crate) fn hostname(host: &str) -> Result<(), String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if host.is_empty() || !host.chars().all(letters) {
        return Err(format!(
            "{host:?} is no hostname; use letters, digits, dashes and dots"
        ));
    }
    Ok(())
}

/// Whether a text is the scheme of a place to go to.
pub(crate) fn scheme(scheme: &str) -> Result<(), String> {
    if !matches!(scheme, "http" | "https") {
        return Err(format!("{scheme:?} is not supported; use http or https"));
    }
    Ok(())
}

/// Whether clients go elsewhere by a status: some of the 3xx say other things.
pub(crate) fn redirect_status(status: i32) -> Result<u16, String> {
    let known = u16::try_from(status).ok();
    known
        .filter(|known| REDIRECTS.contains(known))
        .ok_or_else(|| {
            format!("{status} sends nobody elsewhere; use one of 301, 302, 303, 307 and 308")
        })
}
