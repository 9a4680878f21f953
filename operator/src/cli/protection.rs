//! `jiuzhou protection`: what the rules of a region's guards did and where they stand, summed over the guards.

mod ask;
mod room;
mod sum;
mod text;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

pub use ask::GuardAddress;
pub(super) use ask::{answers, found, given};

use self::sum::Report;
use super::output::{Format, Paint, columns};
use crate::guard::standing::Standing;

/// What a guard answered, or why it did not.
pub(super) type Answer = (String, Result<Standing, String>);

/// Which policies are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Those of this namespace; of all without it.
    pub(super) namespace: Option<String>,
    /// That of this name; all without it.
    pub(super) name: Option<String>,
}

impl Wanted {
    fn takes(&self, policy: &str) -> bool {
        let (namespace, name) = policy.split_once('/').unwrap_or(("", policy));
        let is = |wanted: &Option<String>, has: &str| wanted.as_ref().is_none_or(|w| w == has);
        is(&self.namespace, namespace) && is(&self.name, name)
    }
}

/// Prints what guards answered. Without any answer there is nothing to sum, and the command fails.
pub(super) fn show(
    answers: Vec<Answer>,
    wanted: &Wanted,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let mut report = Report::of(answers);
    let is_answered = !report.guards.is_empty();
    let known: Vec<String> = report.policies.iter().map(|p| p.name.clone()).collect();
    report.policies.retain(|policy| wanted.takes(&policy.name));
    // What is not there is one message, and for people the only one.
    let is_unknown = wanted.name.is_some() && report.policies.is_empty();
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        let mut value = serde_json::to_value(&report)?;
        value["kind"] = json!("ProtectionReport");
        value["apiVersion"] = json!("cli.jiuzhou.io/v1");
        writeln!(out, "{value:#}")?;
    } else if is_answered && !is_unknown {
        let namespace = wanted.namespace.as_deref();
        let text = text::of(&report, namespace, Paint::stdout(), columns());
        write!(out, "{text}")?;
    }
    if !is_answered {
        bail!("no guard answered: {}", report.silence());
    }
    if let (Some(name), true) = (&wanted.name, is_unknown) {
        let of = wanted.namespace.as_deref();
        let of = of.map_or_else(String::new, |of| format!(" in namespace {of}"));
        let silent = match report.silence() {
            none if none.is_empty() => none,
            silent => format!("; no answer: {silent}"),
        };
        bail!(
            "no guard enforces a TrafficPolicy {name}{of}; {}{silent}",
            others(&known)
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn others(known: &[String]) -> String {
    if known.is_empty() {
        "they enforce none: jiuzhou effective trafficpolicy/NAME says why".to_owned()
    } else {
        format!("they enforce {}", known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(namespace: Option<&str>, name: Option<&str>) -> Wanted {
        Wanted {
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        }
    }

    #[test]
    fn policies_are_picked_by_namespace_and_name_where_said() {
        assert!(wanted(None, None).takes("health/code"));
        assert!(wanted(Some("health"), None).takes("health/code"));
        assert!(!wanted(Some("health"), Some("code")).takes("police/code"));
        assert!(wanted(None, Some("code")).takes("police/code"));
        assert!(!wanted(None, Some("code")).takes("police/coder"));
    }

    #[test]
    fn without_an_answer_the_command_fails_and_names_who_is_silent() {
        let silent = vec![("http://127.0.0.1:1/".to_owned(), Err("refused".to_owned()))];
        let error = show(silent, &Wanted::default(), Format::Table).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no guard answered: http://127.0.0.1:1/ (refused)"
        );
    }
}
