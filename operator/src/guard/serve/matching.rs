//! Whether a request is one that a rule is for.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::HeaderName;

use super::patterns::{Compiling, Pattern};
use super::prepare::PrepareError;
use crate::guard::config::{Match, PathMatch, TextMatch};
use crate::guard::path::spelled;

/// What of a request rules look at.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    /// In its one spelling.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
}

/// A [`Match`], ready to be asked.
#[derive(Debug)]
pub(super) struct Matcher {
    path: Path,
    method: Option<String>,
    headers: Vec<(HeaderName, Text)>,
    query: Vec<(String, Text)>,
}

#[derive(Debug)]
enum Path {
    Exact(String),
    /// Without the slash at its end; empty means all.
    Prefix(String),
    Regex(Pattern),
}

#[derive(Debug)]
enum Text {
    Exact(String),
    Regex(Pattern),
}

impl Matcher {
    pub(super) fn prepare(
        wanted: &Match,
        patterns: &mut Compiling<'_>,
    ) -> Result<Self, PrepareError> {
        let path = match &wanted.path {
            PathMatch::Exact(path) => Path::Exact(spelled(path)),
            PathMatch::Prefix(path) => Path::Prefix(spelled(path).trim_end_matches('/').to_owned()),
            PathMatch::Regex(expression) => Path::Regex(patterns.get(expression)?),
        };
        let mut headers = Vec::new();
        for header in &wanted.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes());
            let name = name.map_err(|_| PrepareError::HeaderName(header.name.clone()))?;
            headers.push((name, Text::prepare(&header.value, patterns)?));
        }
        let mut query = Vec::new();
        for parameter in &wanted.query {
            let value = Text::prepare(&parameter.value, patterns)?;
            query.push((parameter.name.clone(), value));
        }
        Ok(Self {
            path,
            method: wanted.method.clone(),
            headers,
            query,
        })
    }

    pub(super) fn fits(&self, asked: &Asked<'_>) -> bool {
        let path = match &self.path {
            Path::Exact(exact) => exact == asked.path,
            Path::Prefix(prefix) => is_below(asked.path, prefix),
            Path::Regex(regex) => regex.is_match(asked.path),
        };
        path && self.method.as_ref().is_none_or(|m| m == asked.method)
            && self
                .headers
                .iter()
                .all(|(name, wanted)| has_header(asked.headers, name, wanted))
            && self.query.iter().all(|(name, wanted)| {
                let value = asked.query.and_then(|query| parameter(query, name));
                value.is_some_and(|value| wanted.fits(&value))
            })
    }

    /// How much of the path the prefix is that matched, without a slash at its end; none of it where no
    /// prefix did.
    pub(super) fn prefix(&self) -> usize {
        match &self.path {
            Path::Prefix(prefix) => prefix.len(),
            Path::Exact(_) | Path::Regex(_) => 0,
        }
    }
}

impl Text {
    fn prepare(wanted: &TextMatch, patterns: &mut Compiling<'_>) -> Result<Self, PrepareError> {
        Ok(match wanted {
            TextMatch::Exact(exact) => Self::Exact(exact.clone()),
            TextMatch::Regex(expression) => Self::Regex(patterns.get(expression)?),
        })
    }

    fn fits(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Several headers of one name mean the same as one with their values joined by commas.
fn has_header(headers: &HeaderMap, name: &HeaderName, wanted: &Text) -> bool {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next().and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let mut joined = Cow::Borrowed(first);
    for value in values {
        let Ok(value) = value.to_str() else {
            return false;
        };
        let joined = joined.to_mut();
        joined.push(',');
        joined.push_str(value);
    }
    wanted.fits(&joined)
}

/// The first parameter of that name, decoded.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    parameters(query, name).next()
}

/// All parameters of that name, decoded.
pub(super) fn parameters<'a>(query: &'a str, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unescape(key) == name).then(|| unescape(value))
    })
}

/// As forms are encoded; what is not UTF-8 becomes the replacement character.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy();
    Cow::Owned(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::guard::config::ValueMatch;
    use crate::guard::serve::patterns::Patterns;

    fn prepared(wanted: &Match) -> Result<Matcher, PrepareError> {
        Matcher::prepare(wanted, &mut Patterns::default().next())
    }

    fn matcher(wanted: &Match) -> Matcher {
        prepared(wanted).unwrap()
    }

    fn on(path: PathMatch) -> Match {
        Match {
            path,
            method: None,
            headers: vec![],
            query: vec![],
        }
    }

    fn asked<'a>(path: &'a str, query: Option<&'a str>, headers: &'a HeaderMap) -> Asked<'a> {
        Asked {
            method: "GET",
            path,
            query,
            headers,
        }
    }

    #[test]
    fn however_a_rule_spells_its_path_it_fits_the_one_spelling() {
        let headers = HeaderMap::new();
        for path in [
            "/%41lpha/caf%c3%a9",
            "/Alpha//caf\u{e9}",
            "/Alpha/./caf%C3%A9",
        ] {
            let path = path.to_owned();
            for wanted in [PathMatch::Exact(path.clone()), PathMatch::Prefix(path)] {
                let rule = matcher(&on(wanted));
                assert!(rule.fits(&asked("/Alpha/caf%C3%A9", None, &headers)));
            }
        }
    }

    #[test]
    fn a_prefix_is_matched_by_whole_elements() {
        let headers = HeaderMap::new();
        for prefix in ["/a/b", "/a/b/"] {
            let below = matcher(&on(PathMatch::Prefix(prefix.into())));
            assert!(below.fits(&asked("/a/b", None, &headers)));
            assert!(below.fits(&asked("/a/b/c", None, &headers)));
            assert!(!below.fits(&asked("/a/bc", None, &headers)));
        }
        let all = matcher(&on(PathMatch::Prefix("/".into())));
        assert!(all.fits(&asked("/x", None, &headers)));
    }

    #[test]
    fn an_expression_must_match_the_whole_and_a_huge_one_is_refused() {
        let headers = HeaderMap::new();
        let one = matcher(&on(PathMatch::Regex("/a|/b".into())));
        assert!(one.fits(&asked("/b", None, &headers)) && !one.fits(&asked("/bc", None, &headers)));
        let huge = on(PathMatch::Regex("(a{1000}){1000}".into()));
        assert!(prepared(&huge).is_err());
    }

    #[test]
    fn headers_of_one_name_are_one_and_parameters_are_decoded() {
        let mut wanted = on(PathMatch::Prefix("/".into()));
        wanted.headers.push(ValueMatch {
            name: "x-a".into(),
            value: TextMatch::Exact("1,2".into()),
        });
        wanted.query.push(ValueMatch {
            name: "q".into(),
            value: TextMatch::Exact("a b".into()),
        });
        let wanted = matcher(&wanted);
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        assert!(wanted.fits(&asked("/", Some("z=1&q=a%20b&q=c"), &headers)));
        assert!(!wanted.fits(&asked("/", Some("q=c&q=a+b"), &headers)));
        assert!(!wanted.fits(&asked("/", None, &headers)));
    }
}
