//! Paths in one spelling, so that what is matched here is what the endpoint sees.
//!
//! A path that two programs may read in two ways is how rules are walked around. What needs no percent sign
//! is written without one and what a path must not hold with one, dot segments are resolved, repeated slashes
//! joined. What has no single meaning is refused: encoded slashes and backslashes, NUL, segments such as `..;x`,
//! and `..` above the root. Parameters (`/login;x`) stay, and whoever looks up a rule asks for the path
//! [without them](without_parameters) as well.

use std::borrow::Cow;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPath {
    /// Only `OPTIONS *` has such a target.
    #[error("the path must begin with a slash")]
    NotAbsolute,
    /// A percent sign without two hexadecimal digits.
    #[error("a percent sign in the path must be followed by two hexadecimal digits")]
    BadEscape,
    /// What servers disagree about.
    #[error("the path must not contain backslashes, NUL, or encoded slashes")]
    Ambiguous,
    /// More steps up than down.
    #[error("the path must not lead above the root")]
    AboveRoot,
}

/// The path in its one spelling.
pub(super) fn normalise(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if !path.starts_with('/') {
        return Err(BadPath::NotAbsolute);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path)?;
    resolve(&decoded).map(Cow::Owned)
}

/// The path as endpoints see it that cut parameters off its segments; none where it has none.
pub(super) fn without_parameters(path: &str) -> Option<String> {
    if !path.contains(';') {
        return None;
    }
    let segments = path
        .split('/')
        .map(|segment| match segment.split_once(';') {
            Some((name, _)) => name,
            None => segment,
        });
    let cut: Vec<&str> = segments.collect();
    resolve(&cut.join("/")).ok()
}

/// The path of a rule as requests have it; one that none can have stays.
pub(super) fn spelled(path: &str) -> String {
    normalise(path).map_or_else(|_| path.to_owned(), Cow::into_owned)
}

/// Whether there is certainly nothing to do; most paths are so.
fn is_normal(path: &[u8]) -> bool {
    let mut before = 0;
    for byte in path {
        match (before, byte) {
            (b'/', b'/' | b'.') => return false,
            _ if !is_plain(*byte) => return false,
            _ => before = *byte,
        }
    }
    true
}

fn decode(path: &str) -> Result<String, BadPath> {
    let mut decoded = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let (byte, was_escaped) = if byte == b'%' {
            let digits = [bytes.next(), bytes.next()].map(|digit| digit.and_then(value));
            let [Some(high), Some(low)] = digits else {
                return Err(BadPath::BadEscape);
            };
            (high << 4 | low, true)
        } else {
            (byte, false)
        };
        match byte {
            b'/' if was_escaped => return Err(BadPath::Ambiguous),
            b'\\' | 0 => return Err(BadPath::Ambiguous),
            // Some servers read these otherwise if they are not escaped: as a space, or between parameters.
            b'+' | b';' | b',' | b'=' | b'&' if was_escaped => escape(byte, &mut decoded),
            _ if is_plain(byte) => decoded.push(char::from(byte)),
            _ => escape(byte, &mut decoded),
        }
    }
    Ok(decoded)
}

/// Whether a path may hold a byte as it is (RFC 3986, section 3.3).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

/// What a hexadecimal digit stands for.
fn value(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

fn escape(byte: u8, to: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    to.push('%');
    for half in [byte >> 4, byte & 15] {
        to.push(char::from(DIGITS[usize::from(half)]));
    }
}

fn resolve(path: &str) -> Result<String, BadPath> {
    let mut segments: Vec<&str> = Vec::new();
    let mut is_folder = false;
    for segment in path.split('/').skip(1) {
        is_folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(BadPath::AboveRoot)?;
            }
            // Some servers cut parameters off before they resolve dots.
            _ if segment.starts_with(".;") || segment.starts_with("..;") => {
                return Err(BadPath::Ambiguous);
            }
            _ => segments.push(segment),
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &segments {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if is_folder || segments.is_empty() {
        resolved.push('/');
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_cut_off_each_segment() {
        for (path, cut) in [
            ("/login;a", "/login"),
            ("/;a/login", "/login"),
            ("/a;b=1;c/login/;d", "/a/login/"),
        ] {
            assert_eq!(without_parameters(path).as_deref(), Some(cut), "{path}");
        }
        assert_eq!(without_parameters("/a%3Bb"), None);
    }

    fn check(path: &str, expected: Result<&str, BadPath>) {
        let found = normalise(path);
        assert_eq!(found.as_deref(), expected.as_ref().map(|e| *e), "{path}");
    }

    #[test]
    fn ways_to_spell_one_path_end_in_one_spelling() {
        for spelled in [
            "/admin/x",
            "//admin/x",
            "/./admin//x",
            "/%61dmin/x",
            "/a/../admin/x",
            "/a/%2e%2E/admin/x",
        ] {
            check(spelled, Ok("/admin/x"));
        }
        check("/a/b/..", Ok("/a/"));
        check("/a/.", Ok("/a/"));
        check("/", Ok("/"));
        check("/..%20/x", Ok("/..%20/x"));
        for spelled in [
            "/caf\u{e9}|{x}",
            "/caf%c3%A9%7c%7bx%7D",
            "/c%61f\u{e9}%7C{x}",
        ] {
            check(spelled, Ok("/caf%C3%A9%7C%7Bx%7D"));
        }
        check("/v1%3Acheck%40x%21", Ok("/v1:check@x!"));
        check("/a%3bb;c%2b+", Ok("/a%3Bb;c%2B+"));
        check("/%e4%bd%a0", Ok("/%E4%BD%A0"));
        check("/.well-known/x", Ok("/.well-known/x"));
    }

    #[test]
    fn what_two_servers_may_read_in_two_ways_is_refused() {
        check("/a%2fb", Err(BadPath::Ambiguous));
        check("/a%5Cb", Err(BadPath::Ambiguous));
        check("/a\\b", Err(BadPath::Ambiguous));
        check("/a%00", Err(BadPath::Ambiguous));
        check("/x/..;/admin", Err(BadPath::Ambiguous));
        check("/..", Err(BadPath::AboveRoot));
        check("/a/../../b", Err(BadPath::AboveRoot));
        check("/a%2", Err(BadPath::BadEscape));
        check("/a%+1", Err(BadPath::BadEscape));
        check("*", Err(BadPath::NotAbsolute));
        // Decoded once only: what is left is an escaped percent sign.
        check("/%252e%252e/x", Ok("/%252e%252e/x"));
    }

    proptest! {
        #[test]
        fn a_normal_path_is_its_own_normal_form_and_has_no_steps(path in "/[a-c./%25eE]{0,12}") {
            if let Ok(once) = normalise(&path) {
                prop_assert!(once.starts_with('/') && !once.contains("//"));
                prop_assert!(once.split('/').all(|s| s != "." && s != ".."), "{}", once);
                let twice = normalise(&once);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
            }
        }
    }
}
