//! What no configuration may say: each would only be found out by the requests that meet it.

use std::collections::BTreeSet;

use super::{Configuration, Entry, Filter, PathChange, PathMatch, Redirect, Rewrite, Rule, url};
use crate::guard::path::normalise;

/// What a configuration says that cannot be served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Fault {
    /// Where it is said, and for a rule which one it is.
    pub field: String,
    /// What is wrong with it, and what is allowed.
    pub why: String,
}

/// A field below a filter, and what is wrong with it.
type Bad = (&'static str, String);

impl Configuration {
    /// Refuses what could never be served as it is meant, with its field.
    pub fn check(&self) -> Result<(), Fault> {
        if self.revision.is_empty() {
            let why = "must not be empty; name what is in the configuration by a text that changes with it";
            return Err(Fault {
                field: "revision".to_owned(),
                why: why.to_owned(),
            });
        }
        self.check_ports()?;
        self.rules.iter().try_for_each(Rule::check)
    }

    /// Refuses paths of matches that no request can have, with their field. Not for what guard control hands out:
    /// Gateway API lets some be written, and such a match takes nothing from others.
    pub fn check_paths(&self) -> Result<(), Fault> {
        for (port_at, port) in self.ports.iter().enumerate() {
            for (listener_at, listener) in port.listeners.iter().enumerate() {
                for (host_at, host) in listener.hosts.iter().enumerate() {
                    check_entries(&host.entries).map_err(|(entry_at, kind, why)| Fault {
                        field: format!(
                            "ports[{port_at}].listeners[{listener_at}].hosts[{host_at}].entries[{entry_at}].path.{kind}"
                        ),
                        why,
                    })?;
                }
            }
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), Fault> {
        let mut openings = BTreeSet::new();
        for (number, port) in self.ports.iter().enumerate() {
            let why = if port.port == 0 {
                "0 is no port; use 1 to 65535".to_owned()
            } else if !openings.insert(port.opening()) {
                let given = port.port;
                format!(
                    "{given} is there before; name each port of an address once, with all its listeners"
                )
            } else {
                continue;
            };
            let field = format!("ports[{number}].port");
            return Err(Fault { field, why });
        }
        Ok(())
    }
}

/// The first entry whose path no request can have, what kind of path it is, and why.
fn check_entries(entries: &[Entry]) -> Result<(), (usize, &'static str, String)> {
    for (number, entry) in entries.iter().enumerate() {
        let (kind, path) = match &entry.matches.path {
            PathMatch::Exact(path) => ("exact", path),
            // Nothing is what all paths begin with.
            PathMatch::Prefix(path) if !path.is_empty() => ("prefix", path),
            PathMatch::Prefix(_) | PathMatch::Regex(_) => continue,
        };
        if let Err(bad) = normalise(path) {
            let why = format!("no request has the path {path:?}: {bad}");
            return Err((number, kind, why));
        }
    }
    Ok(())
}

impl Rule {
    fn check(&self) -> Result<(), Fault> {
        let (route, name) = (&self.route, &self.name);
        let fault = |at: String, (field, why): Bad| Fault {
            field: format!("rule {name:?} of route {route:?}, {at}.{field}"),
            why,
        };
        for (number, filter) in self.filters.iter().enumerate() {
            check_filter(filter).map_err(|bad| fault(format!("filters[{number}]"), bad))?;
        }
        for (place, backend) in self.backends.iter().enumerate() {
            for (number, filter) in backend.filters.iter().enumerate() {
                check_filter(filter)
                    .map_err(|bad| fault(format!("backends[{place}].filters[{number}]"), bad))?;
            }
        }
        Ok(())
    }
}

fn check_filter(filter: &Filter) -> Result<(), Bad> {
    match filter {
        Filter::Redirect(redirect) => check_redirect(redirect),
        Filter::Rewrite(rewrite) => check_rewrite(rewrite),
        // Their names and values are read when they are made ready.
        Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) => Ok(()),
    }
}

fn check_redirect(wanted: &Redirect) -> Result<(), Bad> {
    let scheme = wanted.scheme.as_deref().map_or(Ok(()), url::scheme);
    scheme.map_err(|why| ("redirect.scheme", why))?;
    let hostname = wanted.hostname.as_deref().map_or(Ok(()), url::hostname);
    hostname.map_err(|why| ("redirect.hostname", why))?;
    if wanted.port == Some(0) {
        return Err(("redirect.port", "0 is no port; use 1 to 65535".to_owned()));
    }
    check_path(wanted.path.as_ref()).map_err(|why| ("redirect.path", why))?;
    let status = url::redirect_status(wanted.status.into());
    status.map(|_| ()).map_err(|why| ("redirect.status", why))
}

fn check_rewrite(wanted: &Rewrite) -> Result<(), Bad> {
    let hostname = wanted.hostname.as_deref().map_or(Ok(()), url::hostname);
    hostname.map_err(|why| ("rewrite.hostname", why))?;
    check_path(wanted.path.as_ref()).map_err(|why| ("rewrite.path", why))
}

fn check_path(wanted: Option<&PathChange>) -> Result<(), String> {
    match wanted {
        Some(PathChange::Full(path)) => url::path(path),
        // Nothing in the place of a prefix takes it away.
        Some(PathChange::Prefix(path)) if !path.is_empty() => url::path(path),
        Some(PathChange::Prefix(_)) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fault(configuration: Value) -> String {
        let configuration: Configuration = serde_json::from_value(configuration).unwrap();
        configuration.check().unwrap_err().to_string()
    }

    fn with_filter(filter: &Value) -> Value {
        json!({"revision": "1", "rules": [{"route": "ns/route", "name": "0", "filters": [filter]}]})
    }

    fn redirect(field: &str, value: Value) -> Value {
        let mut redirect = json!({"status": 302});
        redirect[field] = value;
        with_filter(&json!({"redirect": redirect}))
    }

    #[test]
    fn a_configuration_without_a_revision_is_refused() {
        assert!(fault(json!({"revision": ""})).starts_with("revision: must not be empty"));
    }

    #[test]
    fn a_port_that_is_none_or_there_twice_is_refused_with_its_field() {
        let ports = |ports: [(Value, u16); 2]| {
            let ports = ports.map(|(address, port)| {
                json!({"address": address, "port": port, "tls": false, "listeners": []})
            });
            json!({"revision": "1", "ports": ports})
        };
        let none = fault(ports([(Value::Null, 80), (Value::Null, 0)]));
        assert!(none.starts_with("ports[1].port: 0 is no port"), "{none}");
        let twice = fault(ports([(Value::Null, 80), (Value::Null, 80)]));
        assert!(
            twice.starts_with("ports[1].port: 80 is there before"),
            "{twice}"
        );
        // One number on two addresses is two ports.
        let apart = ports([(Value::Null, 80), (json!("127.0.0.2"), 80)]);
        let apart: Configuration = serde_json::from_value(apart).unwrap();
        assert_eq!(apart.check(), Ok(()));
    }

    #[test]
    fn a_path_that_no_request_has_is_refused_with_its_field() {
        let with = |path: Value| {
            let entries = json!([{"path": {"prefix": "/"}, "rule": 0}, {"path": path, "rule": 0}]);
            let configuration = json!({"revision": "1", "ports": [{"port": 80, "tls": false,
                "listeners": [{"name": "a", "hosts": [{"entries": entries}]}]}]});
            let configuration: Configuration = serde_json::from_value(configuration).unwrap();
            // What guard control hands out is never refused for it.
            assert_eq!(configuration.check(), Ok(()));
            configuration.check_paths()
        };
        for (bad, field, allowed) in [
            (json!({"prefix": "x"}), "prefix", "begin with a slash"),
            (json!({"exact": ""}), "exact", "begin with a slash"),
            (json!({"prefix": "/a%2fb"}), "prefix", "encoded slashes"),
            (json!({"exact": "/a%2"}), "exact", "two hexadecimal digits"),
            (json!({"exact": "/../a"}), "exact", "above the root"),
        ] {
            let fault = with(bad).unwrap_err().to_string();
            let at = format!("ports[0].listeners[0].hosts[0].entries[1].path.{field}: ");
            assert!(fault.starts_with(&at) && fault.contains(allowed), "{fault}");
        }
        for good in [
            json!({"prefix": ""}),
            json!({"prefix": "/a//b/./c%2B"}),
            json!({"exact": "/caf\u{e9}"}),
            json!({"regex": "x.*"}),
        ] {
            assert_eq!(with(good), Ok(()));
        }
    }

    #[test]
    fn what_would_break_an_answer_is_refused_with_its_rule_and_field() {
        for (bad, field, allowed) in [
            (redirect("scheme", json!("ftp")), "redirect.scheme", "https"),
            (
                redirect("hostname", json!("a\r\nb")),
                "redirect.hostname",
                "letters",
            ),
            (redirect("port", json!(0)), "redirect.port", "65535"),
            (
                redirect("path", json!({"full": "/a\r\nb"})),
                "redirect.path",
                "begin with /",
            ),
            (redirect("status", json!(304)), "redirect.status", "308"),
            (
                with_filter(&json!({"rewrite": {"hostname": "a/b"}})),
                "rewrite.hostname",
                "letters",
            ),
            (
                with_filter(&json!({"rewrite": {"path": {"full": "http://e/x"}}})),
                "rewrite.path",
                "begin with /",
            ),
            (
                with_filter(&json!({"rewrite": {"path": {"prefix": "x"}}})),
                "rewrite.path",
                "begin with /",
            ),
        ] {
            let fault = fault(bad);
            let at = format!(r#"rule "0" of route "ns/route", filters[0].{field}: "#);
            assert!(fault.starts_with(&at) && fault.contains(allowed), "{fault}");
        }
    }

    #[test]
    fn a_backend_is_checked_too_and_a_prefix_may_be_taken_away() {
        let with_path = |path: &str| {
            let filter = json!({"rewrite": {"path": {"prefix": path}}});
            json!({"revision": "1", "rules": [{"route": "ns/route", "name": "0",
                "backends": [{"weight": 1, "filters": [filter]}]}]})
        };
        let bad = fault(with_path("x"));
        assert!(
            bad.contains("backends[0].filters[0].rewrite.path: "),
            "{bad}"
        );
        let good: Configuration = serde_json::from_value(with_path("")).unwrap();
        assert_eq!(good.check(), Ok(()));
    }
}
