//! Which requests a rule is for, and which rule comes first.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use http::HeaderName;

use super::super::config::{Match, PathMatch, TextMatch, ValueMatch};
use super::super::gateway;
use super::conditions::{Refusal, quoted};
use super::expressions::Allowance;
use crate::guard::path::spelled;

/// Orders matches as the API does: exact paths, then the longest prefix, then a method, then most headers,
/// then most parameters of the query. The API leaves to us where regular expressions stand: between exact
/// paths and prefixes, the longer pattern first, because a prefix is mostly the fallback of what others
/// pick out of it.
pub(super) type Precedence = (u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>);

/// Where a match stands among others.
pub(super) fn precedence(matches: &Match) -> Precedence {
    let (class, length) = match &matches.path {
        // Two exact paths that match one request are equal.
        PathMatch::Exact(_) => (0, 0),
        PathMatch::Regex(pattern) => (1, pattern.chars().count()),
        PathMatch::Prefix(prefix) => (2, prefix.chars().count()),
    };
    (
        class,
        Reverse(length),
        matches.method.is_none(),
        Reverse(matches.headers.len()),
        Reverse(matches.query.len()),
    )
}

/// Reads the matches of a rule; `field` names where they stand.
pub(super) fn read(
    matches: &[gateway::RouteMatch],
    field: &str,
    allowance: &mut Allowance<'_>,
) -> Result<Vec<Match>, Refusal> {
    if matches.is_empty() {
        return Ok(vec![Match {
            path: PathMatch::Prefix("/".to_owned()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }]);
    }
    let mut read = Vec::with_capacity(matches.len());
    for (number, one) in matches.iter().enumerate() {
        let field = format!("{field}.matches[{number}]");
        read.push(Match {
            path: path(one.path.as_ref(), &field, allowance)?,
            method: one.method.clone(),
            headers: values(
                &one.headers,
                Names::AnyCase,
                &format!("{field}.headers"),
                allowance,
            )?,
            query: values(
                &one.query_params,
                Names::AsWritten,
                &format!("{field}.queryParams"),
                allowance,
            )?,
        });
    }
    Ok(read)
}

fn path(
    path: Option<&gateway::PathMatch>,
    field: &str,
    allowance: &mut Allowance<'_>,
) -> Result<PathMatch, Refusal> {
    let kind = path.and_then(|path| path.kind.as_deref());
    let value = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    let rooted = || {
        if value.starts_with('/') {
            Ok(value)
        } else {
            Err(unsupported(format!(
                "{field}.path.value: {} does not begin with a slash; put one before it",
                quoted(value)
            )))
        }
    };
    match kind.unwrap_or("PathPrefix") {
        "Exact" => Ok(PathMatch::Exact(spelled(rooted()?))),
        "PathPrefix" => Ok(PathMatch::Prefix(plain(&spelled(rooted()?)).to_owned())),
        "RegularExpression" => {
            allowance.take(value, &format!("{field}.path.value"))?;
            Ok(PathMatch::Regex(value.to_owned()))
        }
        other => Err(unsupported(format!(
            "{field}.path.type: {other:?} is not supported; use Exact, PathPrefix or RegularExpression"
        ))),
    }
}

/// A prefix without the slash at its end, which means nothing.
fn plain(prefix: &str) -> &str {
    match prefix.trim_end_matches('/') {
        "" => "/",
        plain => plain,
    }
}

/// How names are compared.
#[derive(Clone, Copy)]
enum Names {
    /// As names of headers.
    AnyCase,
    /// As names of parameters.
    AsWritten,
}

fn values(
    values: &[gateway::ValueMatch],
    names: Names,
    field: &str,
    allowance: &mut Allowance<'_>,
) -> Result<Vec<ValueMatch>, Refusal> {
    let mut seen = BTreeSet::new();
    let mut read = Vec::with_capacity(values.len());
    for (number, one) in values.iter().enumerate() {
        let name = match names {
            Names::AnyCase => {
                let name = header_name(&one.name, &format!("{field}[{number}].name"))?;
                name.as_str().to_owned()
            }
            Names::AsWritten => one.name.clone(),
        };
        // Of equal names the API takes the first and ignores the others.
        if !seen.insert(name.clone()) {
            continue;
        }
        let value = match one.kind.as_deref().unwrap_or("Exact") {
            "Exact" => TextMatch::Exact(one.value.clone()),
            "RegularExpression" => {
                allowance.take(&one.value, &format!("{field}[{number}].value"))?;
                TextMatch::Regex(one.value.clone())
            }
            other => {
                return Err(unsupported(format!(
                    "{field}[{number}].type: {other:?} is not supported; use Exact or RegularExpression"
                )));
            }
        };
        read.push(ValueMatch { name, value });
    }
    Ok(read)
}

/// Which writes itself in lower case. Checked as what serves does: a name that no header can have would make it
/// refuse the whole document.
pub(super) fn header_name(name: &str, field: &str) -> Result<HeaderName, Refusal> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        unsupported(format!(
            "{field}: {} is not the name of a header; use letters, digits and !#$%&'*+-.^_`|~",
            quoted(name)
        ))
    })
}

fn unsupported(message: String) -> Refusal {
    Refusal::new("UnsupportedValue", message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::expressions::Expressions;
    use super::*;

    fn one(value: &Value) -> Match {
        let matches: Vec<gateway::RouteMatch> = serde_json::from_value(json!([value])).unwrap();
        read(&matches, "rules[0]", &mut Expressions::default().of("ns"))
            .unwrap()
            .remove(0)
    }

    fn refused(value: &Value) -> String {
        let matches: Vec<gateway::RouteMatch> = serde_json::from_value(json!([value])).unwrap();
        read(&matches, "rules[0]", &mut Expressions::default().of("ns"))
            .unwrap_err()
            .message
    }

    #[test]
    fn matches_stand_in_the_order_of_the_api() {
        let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
        let order = [
            one(&path("Exact", "/a")),
            one(&path("RegularExpression", "/a/[0-9]+")),
            one(&path("RegularExpression", "/.*")),
            one(&path("PathPrefix", "/longer")),
            one(&json!({"path": {"value": "/a"}, "method": "GET"})),
            one(&json!({"path": {"value": "/a"}, "headers": [
                {"name": "x", "value": "1"}, {"name": "y", "value": "1"}]})),
            one(
                &json!({"path": {"value": "/a"}, "headers": [{"name": "x", "value": "1"}],
                "queryParams": [{"name": "q", "value": "1"}]}),
            ),
            one(&json!({"path": {"value": "/a"}, "headers": [{"name": "x", "value": "1"}]})),
            one(&json!({"path": {"value": "/a"}, "queryParams": [{"name": "q", "value": "1"}]})),
            one(&path("PathPrefix", "/a/")),
            one(&json!({})),
        ];
        assert!(order.is_sorted_by_key(precedence), "{order:?}");
    }

    #[test]
    fn a_prefix_is_as_long_as_requests_have_it_however_it_is_written() {
        let prefix = |value: &str| one(&json!({"path": {"value": value}}));
        let order = [prefix("/@scope/x"), prefix("/%40scop%65/"), prefix("/@s")];
        assert!(order.is_sorted_by_key(precedence), "{order:?}");
        assert_eq!(order[1].path, prefix("/@scope").path);
    }

    #[test]
    fn of_equal_names_the_first_counts() {
        let both = one(&json!({
            "headers": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}],
            "queryParams": [{"name": "q", "value": "1"}, {"name": "Q", "value": "2"}],
        }));
        assert_eq!(both.headers.len(), 1);
        assert_eq!(both.headers[0].name, "x-a");
        assert_eq!(both.headers[0].value, TextMatch::Exact("1".into()));
        assert_eq!(both.query.len(), 2, "parameters differ by case");
    }

    #[test]
    fn what_cannot_be_matched_is_refused_with_its_field() {
        let regex = refused(&json!({"path": {"type": "RegularExpression", "value": "("}}));
        assert!(
            regex.starts_with("rules[0].matches[0].path.value"),
            "{regex}"
        );
        let kind = refused(&json!({"headers": [{"name": "a", "value": "b", "type": "Fuzzy"}]}));
        assert!(
            kind.starts_with("rules[0].matches[0].headers[0].type"),
            "{kind}"
        );
        let slash = refused(&json!({"path": {"value": "a"}}));
        assert!(slash.contains("slash"), "{slash}");
        let name = refused(&json!({"headers": [{"name": "no header", "value": "b"}]}));
        assert!(
            name.starts_with("rules[0].matches[0].headers[0].name: \"no header\""),
            "{name}"
        );
    }
}
