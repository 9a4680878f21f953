//! `jiuzhou effective`: the rules in force at a route, a policy or an App, where each comes from, and what does
//! not count.

mod hub;
mod region;
mod words;

use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use kube::{Api, Client};

use super::output::{Format, Paint, columns};
use crate::guard::compile::{Asked, Missing, ObjectName};

/// What is asked about, as in `httproute/code/show-code`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyTarget {
    /// An HTTPRoute in a region, or one rule of it by its name or number.
    HttpRoute(String, Option<String>),
    /// A TrafficPolicy, in a region or at the hub.
    TrafficPolicy(String),
    /// An App at the hub.
    App(String),
}

impl FromStr for PolicyTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let owned = |text: &str| text.to_owned();
        let kind = parts[0].to_ascii_lowercase();
        match (kind.as_str(), &parts[1..]) {
            (_, names) if names.iter().any(|name| name.is_empty()) => Err(owned(EXPECTED)),
            ("httproute", [name]) => Ok(Self::HttpRoute(owned(name), None)),
            ("httproute", [name, rule]) => Ok(Self::HttpRoute(owned(name), Some(owned(rule)))),
            ("trafficpolicy", [name]) => Ok(Self::TrafficPolicy(owned(name))),
            ("app", [name]) => Ok(Self::App(owned(name))),
            _ => Err(owned(EXPECTED)),
        }
    }
}

/// What a target may be.
const EXPECTED: &str =
    "must be httproute/NAME, httproute/NAME/RULE, trafficpolicy/NAME or app/NAME";

impl fmt::Display for PolicyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HttpRoute(name, None) => write!(f, "httproute/{name}"),
            Self::HttpRoute(name, Some(rule)) => write!(f, "httproute/{name}/{rule}"),
            Self::TrafficPolicy(name) => write!(f, "trafficpolicy/{name}"),
            Self::App(name) => write!(f, "app/{name}"),
        }
    }
}

/// How an answer is shown to people.
#[derive(Clone, Copy)]
struct Show {
    paint: Paint,
    /// Where lines are broken, if at all.
    columns: Option<usize>,
}

/// Prints what is in force at a target.
pub(super) async fn effective(
    client: &Client,
    namespace: &str,
    target: &PolicyTarget,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let show = Show {
        paint: Paint::stdout(),
        columns: columns(),
    };
    let out = |text: String| {
        use std::io::Write as _;
        write!(std::io::stdout().lock(), "{text}").map(|()| ExitCode::SUCCESS)
    };
    let text = match asked(client, namespace, target).await? {
        Where::Region(asked) => {
            let found = region::ask(client, namespace, &asked).await?;
            match format {
                Format::Json => format!("{:#}\n", region::as_json(&found, target, namespace)?),
                Format::Table => region::as_text(&found, show),
            }
        }
        Where::Hub(apps) => {
            let found = hub::ask(client, namespace, &apps).await?;
            match format {
                Format::Json => format!("{:#}\n", hub::as_json(&found, target, namespace)),
                Format::Table => hub::as_text(&found, namespace, show),
            }
        }
    };
    Ok(out(text)?)
}

/// Who knows the answer.
enum Where {
    /// What guard control compiles.
    Region(Asked),
    /// What the hub says of these Apps.
    Hub(Vec<String>),
}

/// A policy of Apps is the hub's, any other one a region's.
async fn asked(client: &Client, namespace: &str, target: &PolicyTarget) -> anyhow::Result<Where> {
    match target {
        PolicyTarget::HttpRoute(name, rule) => {
            let name = ObjectName::new(namespace, name);
            Ok(Where::Region(Asked::Route(name, rule.clone())))
        }
        PolicyTarget::App(name) => Ok(Where::Hub(vec![name.clone()])),
        PolicyTarget::TrafficPolicy(name) => {
            let api: Api<crds::TrafficPolicy> = Api::namespaced(client.clone(), namespace);
            let asked = ObjectName::new(namespace, name);
            let found = api.get_opt(name).await;
            let found = found.with_context(|| format!("cannot read TrafficPolicy {asked}"))?;
            let Some(policy) = found else {
                return Err(Missing::Policy(asked).into());
            };
            let targets = policy.spec.target_refs.into_iter();
            let apps: Vec<String> = targets
                .filter(|target| target.group == crds::GROUP && target.kind == "App")
                .map(|target| target.name)
                .collect();
            Ok(if apps.is_empty() {
                Where::Region(Asked::Policy(asked))
            } else {
                Where::Hub(apps)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_kind_and_a_name_and_of_a_route_perhaps_a_rule() {
        for text in [
            "httproute/code",
            "httproute/code/show-code",
            "trafficpolicy/code",
            "app/code",
        ] {
            let target: PolicyTarget = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        assert_eq!(
            "HTTPRoute/code/0".parse(),
            Ok(PolicyTarget::HttpRoute("code".into(), Some("0".into())))
        );
        for wrong in [
            "code",
            "app/",
            "app/a/b",
            "service/code",
            "httproute/a/b/c",
            "",
        ] {
            let error = wrong.parse::<PolicyTarget>().unwrap_err();
            assert_eq!(error, EXPECTED, "{wrong}");
        }
    }
}
