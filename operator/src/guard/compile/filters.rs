//! What routes change on the way.

use std::collections::BTreeSet;

use http::HeaderValue;

use super::super::config::{
    Filter, HeaderChange, Match, PathChange, PathMatch, Redirect, Rewrite, url,
};
use super::super::gateway::{
    HeaderModifier, PathModifier, RequestRedirect, RouteFilter, UrlRewrite,
};
use super::conditions::Refusal;
use super::matches::header_name;
use crate::guard::own_headers::is_framing;

/// The status where a route gives none.
const FOUND: i32 = 302;

/// Where filters stand, which decides what they may be.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// In a rule, with what it matches.
    Rule(&'a [Match]),
    /// At one backend of it.
    Backend(&'a [Match]),
}

/// Reads filters; `field` names their list.
///
/// One that cannot be done refuses all of them: a request must never pass a filter that its route relies
/// on, so the caller answers an error instead.
pub(super) fn read(
    filters: &[RouteFilter],
    place: Place<'_>,
    field: &str,
) -> Result<Vec<Filter>, Refusal> {
    let mut read = Vec::with_capacity(filters.len());
    let mut kinds = BTreeSet::new();
    for (number, filter) in filters.iter().enumerate() {
        let field = format!("{field}[{number}]");
        if !kinds.insert(filter.kind.as_str()) {
            return Err(incompatible(format!(
                "{field}: a second {} cannot be combined with the first; merge them into one",
                filter.kind
            )));
        }
        read.push(one(filter, place, &field)?);
    }
    if kinds.contains("RequestRedirect") && kinds.contains("URLRewrite") {
        return Err(incompatible(format!(
            "{field}: RequestRedirect and URLRewrite exclude each other; remove one of them"
        )));
    }
    Ok(read)
}

fn one(filter: &RouteFilter, place: Place<'_>, field: &str) -> Result<Filter, Refusal> {
    let missing = |name: &str| {
        unsupported(format!(
            "{field}.{name}: missing, but the type is {}; add it",
            filter.kind
        ))
    };
    match (filter.kind.as_str(), place) {
        ("RequestHeaderModifier", _) => {
            let name = "requestHeaderModifier";
            let change = filter.request_header_modifier.as_ref();
            let change = change.ok_or_else(|| missing(name))?;
            Ok(Filter::RequestHeaders(headers(
                change,
                &format!("{field}.{name}"),
            )?))
        }
        ("ResponseHeaderModifier", _) => {
            let name = "responseHeaderModifier";
            let change = filter.response_header_modifier.as_ref();
            let change = change.ok_or_else(|| missing(name))?;
            Ok(Filter::ResponseHeaders(headers(
                change,
                &format!("{field}.{name}"),
            )?))
        }
        ("URLRewrite", Place::Rule(matches) | Place::Backend(matches)) => {
            let name = "urlRewrite";
            let change = filter.url_rewrite.as_ref().ok_or_else(|| missing(name))?;
            Ok(Filter::Rewrite(rewrite(
                change,
                matches,
                &format!("{field}.{name}"),
            )?))
        }
        ("RequestRedirect", Place::Rule(matches)) => {
            let name = "requestRedirect";
            let change = filter
                .request_redirect
                .as_ref()
                .ok_or_else(|| missing(name))?;
            Ok(Filter::Redirect(redirect(
                change,
                matches,
                &format!("{field}.{name}"),
            )?))
        }
        (other, Place::Rule(_)) => Err(unsupported(format!(
            "{field}.type: {other:?} is not supported; use RequestHeaderModifier, \
             ResponseHeaderModifier, RequestRedirect or URLRewrite, or remove the filter"
        ))),
        (other, Place::Backend(_)) => Err(unsupported(format!(
            "{field}.type: {other:?} is not supported at a backend; use RequestHeaderModifier, \
             ResponseHeaderModifier or URLRewrite, or remove the filter"
        ))),
    }
}

fn headers(change: &HeaderModifier, field: &str) -> Result<HeaderChange, Refusal> {
    let pairs = |list: &[super::super::gateway::HeaderValue], part: &str| {
        let mut seen = BTreeSet::new();
        let mut pairs = Vec::with_capacity(list.len());
        for (number, header) in list.iter().enumerate() {
            let name = set_name(&header.name, &format!("{field}.{part}[{number}].name"))?;
            HeaderValue::from_str(&header.value).map_err(|_| {
                unsupported(format!(
                    "{field}.{part}[{number}].value: holds what no header may hold; use visible \
                     ASCII, spaces and tabs"
                ))
            })?;
            // Of equal names the API takes the first and ignores the others.
            if seen.insert(name.clone()) {
                pairs.push((name, header.value.clone()));
            }
        }
        Ok(pairs)
    };
    let mut remove = Vec::with_capacity(change.remove.len());
    for (number, name) in change.remove.iter().enumerate() {
        let name = header_name(name, &format!("{field}.remove[{number}]"))?;
        remove.push(name.as_str().to_owned());
    }
    Ok(HeaderChange {
        set: pairs(&change.set, "set")?,
        add: pairs(&change.add, "add")?,
        remove,
    })
}

/// The name of a header that gets a value.
fn set_name(name: &str, field: &str) -> Result<String, Refusal> {
    let name = header_name(name, field)?;
    if is_framing(&name) {
        return Err(unsupported(format!(
            "{field}: {name} says where a message ends or how its connection goes on, which is the \
             guard's to say; leave it out"
        )));
    }
    Ok(name.as_str().to_owned())
}

fn redirect(change: &RequestRedirect, matches: &[Match], field: &str) -> Result<Redirect, Refusal> {
    if let Some(scheme) = &change.scheme {
        url::scheme(scheme).map_err(at(&format!("{field}.scheme")))?;
    }
    let status = change.status_code.unwrap_or(FOUND);
    let status = url::redirect_status(status).map_err(at(&format!("{field}.statusCode")))?;
    let port = match change.port {
        None => None,
        Some(port) => Some(super::port_number(port).ok_or_else(|| {
            unsupported(format!("{field}.port: {port} is no port; use 1 to 65535"))
        })?),
    };
    Ok(Redirect {
        scheme: change.scheme.clone(),
        hostname: hostname(change.hostname.as_deref(), &format!("{field}.hostname"))?,
        port,
        path: path(change.path.as_ref(), matches, &format!("{field}.path"))?,
        status,
    })
}

fn rewrite(change: &UrlRewrite, matches: &[Match], field: &str) -> Result<Rewrite, Refusal> {
    Ok(Rewrite {
        hostname: hostname(change.hostname.as_deref(), &format!("{field}.hostname"))?,
        path: path(change.path.as_ref(), matches, &format!("{field}.path"))?,
    })
}

fn hostname(host: Option<&str>, field: &str) -> Result<Option<String>, Refusal> {
    let Some(host) = host else { return Ok(None) };
    url::hostname(host).map_err(at(field))?;
    Ok(Some(host.to_ascii_lowercase()))
}

fn path(
    change: Option<&PathModifier>,
    matches: &[Match],
    field: &str,
) -> Result<Option<PathChange>, Refusal> {
    let Some(change) = change else {
        return Ok(None);
    };
    let (path, name) = match change.kind.as_str() {
        "ReplaceFullPath" => (&change.replace_full_path, "replaceFullPath"),
        "ReplacePrefixMatch" => (&change.replace_prefix_match, "replacePrefixMatch"),
        other => {
            return Err(unsupported(format!(
                "{field}.type: {other:?} is not supported; use ReplaceFullPath or ReplacePrefixMatch"
            )));
        }
    };
    let field_of_path = format!("{field}.{name}");
    let path = path.clone().unwrap_or_default();
    if name == "replaceFullPath" {
        url::path(&path).map_err(at(&field_of_path))?;
        return Ok(Some(PathChange::Full(path)));
    }
    // Nothing in the place of a prefix takes it away.
    if !path.is_empty() {
        url::path(&path).map_err(at(&field_of_path))?;
    }
    let prefixes = |one: &Match| matches!(one.path, PathMatch::Prefix(_));
    if !matches.iter().all(prefixes) {
        return Err(unsupported(format!(
            "{field}.type: ReplacePrefixMatch needs a prefix to replace; let every match of the rule be \
             of type PathPrefix, or use ReplaceFullPath"
        )));
    }
    Ok(Some(PathChange::Prefix(path)))
}

/// What is wrong with a field, as a refusal that names it.
fn at(field: &str) -> impl FnOnce(String) -> Refusal {
    move |why| unsupported(format!("{field}: {why}"))
}

fn unsupported(message: String) -> Refusal {
    Refusal::new("UnsupportedValue", message)
}

fn incompatible(message: String) -> Refusal {
    Refusal::new("IncompatibleFilters", message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn filters(filters: Value) -> Result<Vec<Filter>, Refusal> {
        let filters: Vec<RouteFilter> = serde_json::from_value(filters).unwrap();
        read(&filters, Place::Rule(&[]), "filters")
    }

    #[test]
    fn filters_that_exclude_each_other_are_refused_as_incompatible() {
        let both = json!([
            {"type": "RequestRedirect", "requestRedirect": {}},
            {"type": "URLRewrite", "urlRewrite": {}}]);
        assert_eq!(filters(both).unwrap_err().reason, "IncompatibleFilters");
        let twice = json!([
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {}},
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {}}]);
        assert_eq!(filters(twice).unwrap_err().reason, "IncompatibleFilters");
    }

    #[test]
    fn what_would_break_an_answer_is_refused_with_its_field() {
        for (filter, field) in [
            (
                json!({"scheme": "ftp"}),
                "filters[0].requestRedirect.scheme",
            ),
            (
                json!({"statusCode": 200}),
                "filters[0].requestRedirect.statusCode",
            ),
            (json!({"port": 0}), "filters[0].requestRedirect.port"),
            (
                json!({"hostname": "a/b"}),
                "filters[0].requestRedirect.hostname",
            ),
            (
                json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/a\r\nb: c"}}),
                "filters[0].requestRedirect.path",
            ),
        ] {
            let refused = filters(json!([{"type": "RequestRedirect", "requestRedirect": filter}]));
            let message = refused.unwrap_err().message;
            assert!(message.starts_with(field), "{message}");
        }
        let value = json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier":
            {"set": [{"name": "a", "value": "b\nc"}]}}]);
        let message = filters(value).unwrap_err().message;
        assert!(message.contains("set[0].value"), "{message}");
    }

    fn paths(kind: &str, field: &str, path: &str) -> Result<Vec<Filter>, Refusal> {
        let filters: Vec<RouteFilter> = serde_json::from_value(json!([
            {"type": "URLRewrite", "urlRewrite": {"path": {"type": kind, field: path}}}]))
        .unwrap();
        let matches: Vec<Match> =
            serde_json::from_value(json!([{"path": {"prefix": "/old"}}])).unwrap();
        read(&filters, Place::Rule(&matches), "filters")
    }

    #[test]
    fn a_path_that_no_url_can_have_is_refused_with_its_field() {
        let kinds = [
            ("ReplaceFullPath", "replaceFullPath"),
            ("ReplacePrefixMatch", "replacePrefixMatch"),
        ];
        for (kind, field) in kinds {
            for bad in [
                "/a>b",
                "x",
                "/a?b=1",
                "/a#b",
                "http://x/",
                "/ü",
                "/a b",
                "/a\r\nb",
            ] {
                let refused = paths(kind, field, bad).unwrap_err();
                assert_eq!(refused.reason, "UnsupportedValue");
                let at = format!("filters[0].urlRewrite.path.{field}: ");
                assert!(refused.message.starts_with(&at), "{}", refused.message);
                assert!(
                    refused.message.contains("begin with /"),
                    "{}",
                    refused.message
                );
            }
            for good in ["/", "/a", "/a/", "/a%3Fb", "/a;b=1,2", "/%E5%81%A5"] {
                assert!(paths(kind, field, good).is_ok(), "{good}");
            }
        }
    }

    #[test]
    fn a_prefix_may_be_taken_away_and_a_whole_path_may_not() {
        assert!(paths("ReplacePrefixMatch", "replacePrefixMatch", "").is_ok());
        let refused = paths("ReplaceFullPath", "replaceFullPath", "").unwrap_err();
        assert!(
            refused.message.contains("replaceFullPath"),
            "{}",
            refused.message
        );
    }
}
