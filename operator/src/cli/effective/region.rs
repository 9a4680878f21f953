//! What guard control makes of the policies of a region, from the objects that it reads.

use std::fmt::Debug;
use std::sync::Arc;

use anyhow::Context as _;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::table::{Table, cut, hung};
use super::{PolicyTarget, Show, words};
use crate::guard::compile::{
    Asked, Effective, InForce, Inputs, LayerInForce, ObjectName, Origin, PolicySaid, Source,
    TargetSaid, TicketKeys, effective,
};

/// Names take this much, so that rows fit into a hundred columns; `-o json` has all of them.
const NAME: usize = 28;
/// Likewise the name of a rule of a route, beside that of the route.
const RULE: usize = 22;
/// Lines below a head stand in by this much.
const INDENT: usize = 2;

/// An answer, and what could not be read for it.
pub(super) struct Found {
    effective: Effective,
    /// Objects with the reason.
    unreadable: Vec<String>,
}

/// Reads what guard control reads of a namespace, and compiles it as guard control does. No event is on for
/// guard control either.
pub(super) async fn ask(client: &Client, namespace: &str, asked: &Asked) -> anyhow::Result<Found> {
    let mut unreadable = Vec::new();
    let inputs = Inputs {
        http_routes: list(client, namespace, &mut unreadable).await?,
        traffic_policies: list(client, namespace, &mut unreadable).await?,
        // Who asks need not be allowed to read the keys, nor need they for what is said.
        ticket_keys: TicketKeys::Assumed,
        ..Inputs::default()
    };
    let effective = effective(&inputs, asked)?;
    Ok(Found {
        effective,
        unreadable,
    })
}

async fn list<K>(
    client: &Client,
    namespace: &str,
    unreadable: &mut Vec<String>,
) -> anyhow::Result<Vec<Arc<K>>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let api: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
    let all = api.list(&ListParams::default()).await.with_context(|| {
        format!(
            "cannot list {} of namespace {namespace}; this takes the right to, in the region's own cluster \
             by --kubeconfig",
            K::plural(&())
        )
    })?;
    let mut objects = Vec::new();
    for DeserializeGuard(object) in all.items {
        match object {
            Ok(object) => objects.push(Arc::new(object)),
            Err(invalid) => {
                let name = ObjectName::of(&invalid.metadata);
                unreadable.push(format!("{} {name}: {}", K::kind(&()), invalid.error));
            }
        }
    }
    Ok(objects)
}

pub(super) fn as_json(
    found: &Found,
    target: &PolicyTarget,
    namespace: &str,
) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(&found.effective)?;
    value["kind"] = json!("EffectivePolicy");
    value["apiVersion"] = json!("cli.jiuzhou.io/v1");
    value["namespace"] = json!(namespace);
    value["target"] = json!(target.to_string());
    value["unreadable"] = json!(found.unreadable);
    Ok(value)
}

pub(super) fn as_text(found: &Found, show: Show) -> String {
    let Effective {
        in_force, policies, ..
    } = &found.effective;
    let mut sections = vec![routes(&found.effective, show)];
    sections.extend(in_force.iter().map(|in_force| protection(in_force, show)));
    if !policies.is_empty() {
        sections.push(verdicts(policies, show));
    }
    if !found.unreadable.is_empty() {
        let lines = found.unreadable.iter().map(|line| {
            let line = format!("{line}; guard control goes by what it read last");
            hung(&line, INDENT, show.columns, |line| show.paint.bad(&line))
        });
        sections.push(
            std::iter::once("Cannot be read:\n".to_owned())
                .chain(lines)
                .collect(),
        );
    }
    sections.retain(|section| !section.is_empty());
    sections.join("\n")
}

/// The rules of routes, and what protects each.
fn routes(effective: &Effective, show: Show) -> String {
    if effective.rules.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["ROUTE", "RULE", "TIER", "PROTECTED BY"]).within(show.columns);
    for rule in &effective.rules {
        let mut in_force = effective.in_force.iter();
        let by = rule.protected_by.as_ref();
        let by = by.and_then(|by| in_force.find(|in_force| in_force.name == *by));
        let tier = rule.tier.map(|tier| format!("{tier:?}"));
        table.row([
            cut(&rule.route.name, NAME, show.columns).into(),
            cut(&rule.rule, RULE, show.columns).into(),
            tier.unwrap_or_else(|| "-".to_owned()).into(),
            by.map_or_else(|| show.paint.unsure("nothing"), |by| layers(by).into()),
        ]);
    }
    table.to_string()
}

fn layers(in_force: &InForce) -> String {
    let layer = |layer: &LayerInForce| {
        let event = if layer.is_for_event { ", event" } else { "" };
        format!("{} ({}{event})", layer.policy.name, origin(layer.origin))
    };
    let layers: Vec<String> = in_force.layers.iter().map(layer).collect();
    layers.join(" with ")
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Hub => "hub",
        Origin::Region => "region",
    }
}

/// What counts, rule by rule.
fn protection(in_force: &InForce, show: Show) -> String {
    let head = format!(
        "In force, named {} in refusals and metrics\n",
        in_force.name
    );
    let mut table = Table::new(&["RULE", "SAYS"]).within(show.columns);
    for rule in &in_force.rules {
        let from = rule.from.iter().filter_map(source);
        let from: Vec<String> = from.collect();
        table.row([
            words::name(rule, show.columns).into(),
            format!(
                "{}; {}",
                words::of(rule, words::Seen::InCluster),
                from.join(", ")
            )
            .into(),
        ]);
    }
    let missing = &in_force.not_served;
    let missing = if missing.is_empty() {
        String::new()
    } else {
        let line = format!("guards cannot do: {}", missing.join(", "));
        hung(&line, INDENT, show.columns, |line| show.paint.unsure(&line))
    };
    format!("{head}{missing}{table}")
}

/// Who did what to a rule. Who added nothing is told of with the policies.
fn source(source: &Source) -> Option<String> {
    match source {
        Source::Says(policy) => Some(format!("from {}", policy.name)),
        Source::Replaces(policy) => Some(format!("replaced by {}", policy.name)),
        Source::Tightens(policy) => Some(format!("tightened by {}", policy.name)),
        Source::AddsNothing(_) => None,
    }
}

/// What becomes of each policy.
fn verdicts(policies: &[PolicySaid], show: Show) -> String {
    let mut table = Table::new(&["POLICY", "OF", "COUNTS", "WHY"]).within(show.columns);
    for policy in policies {
        for (targets, said) in alike(&policy.targets) {
            let counts = match (said.counts, said.message.is_empty()) {
                (true, true) => show.paint.good("yes"),
                (true, false) => show.paint.unsure("in part"),
                (false, _) => show.paint.bad("no"),
            };
            let why = if said.message.is_empty() {
                format!("at {targets}")
            } else {
                format!("at {targets}: {}: {}", said.reason, said.message)
            };
            table.row([
                cut(&policy.policy.name, NAME, show.columns).into(),
                origin(policy.origin).to_owned().into(),
                counts,
                why.into(),
            ]);
        }
    }
    table.to_string()
}

/// Targets of which the same is said, together.
fn alike(targets: &[TargetSaid]) -> Vec<(String, &TargetSaid)> {
    let mut told: Vec<(String, &TargetSaid)> = Vec::new();
    for target in targets {
        let name = match &target.rule {
            Some(rule) => format!("{}/{rule}", target.route.name),
            None => target.route.name.clone(),
        };
        let same = |(_, said): &&mut (String, &TargetSaid)| {
            (said.counts, said.reason, &said.message)
                == (target.counts, target.reason, &target.message)
        };
        match told.iter_mut().find(same) {
            Some((names, _)) => {
                names.push_str(", ");
                names.push_str(&name);
            }
            None => told.push((name, target)),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use kube::client::Body;

    use super::super::super::output::Paint;
    use super::*;

    /// A region with a policy of the hub and one of its own, which tightens one rule and loosens another.
    fn cluster(path: &str) -> Value {
        let list = |kind: &str, items: Value| json!({"apiVersion": "x/v1", "kind": kind, "metadata": {}, "items": items});
        if path.contains("httproutes") {
            let rule =
                |name: &str| json!({"name": name, "backendRefs": [{"name": "code", "port": 8080}]});
            let broken =
                json!({"metadata": {"name": "odd", "namespace": "venue"}, "spec": {"rules": 7}});
            return list(
                "HTTPRouteList",
                json!([{"metadata": {"name": "code", "namespace": "venue"},
                        "spec": {"rules": [rule("show"), {"backendRefs": []}]}}, broken]),
            );
        }
        let policy = |name: &str, by: &str, spec: Value| {
            let mut all = json!({"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "code"}]});
            all.as_object_mut()
                .unwrap()
                .extend(spec.as_object().unwrap().clone());
            json!({"metadata": {"name": name, "namespace": "venue", "generation": 1,
                                "labels": {"app.kubernetes.io/managed-by": by}}, "spec": all})
        };
        let limit = |name: &str, requests: i64| json!({"name": name, "scope": "Cluster", "rate": {"requests": requests, "per": "1s"}});
        let hub = json!({"rateLimits": [limit("total", 500), limit("most", 100)],
            "classes": [{"sectionName": "show", "tier": "Core"}]});
        let own = json!({"rateLimits": [limit("total", 300), limit("most", 900)]});
        list(
            "TrafficPolicyList",
            json!([policy("code", "jiuzhou", hub), policy("own", "people", own)]),
        )
    }

    fn client() -> Client {
        let service = tower::service_fn(|request: http::Request<Body>| {
            let text = cluster(&request.uri().to_string()).to_string();
            async move { Ok::<_, Infallible>(http::Response::new(Body::from(text.into_bytes()))) }
        });
        Client::new(service, "default")
    }

    async fn found() -> Found {
        let asked = Asked::Route(ObjectName::new("venue", "code"), None);
        ask(&client(), "venue", &asked).await.unwrap()
    }

    fn show(columns: Option<usize>) -> Show {
        Show {
            paint: Paint::never(),
            columns,
        }
    }

    #[tokio::test]
    async fn a_screen_tells_what_counts_who_made_it_so_and_what_does_not_count() {
        let text = as_text(&found().await, show(None));
        let sections: Vec<&str> = text.split("\n\n").collect();
        assert_eq!(
            sections[0],
            "ROUTE  RULE  TIER     PROTECTED BY\n\
             code   show  Core     code (hub) with own (region)\n\
             code   1     General  code (hub) with own (region)"
        );
        assert_eq!(
            sections[1],
            "In force, named venue/code in refusals and metrics\n\
             RULE              SAYS\n\
             rateLimits most   100 per 1s in the cluster, burst 100; from code\n\
             rateLimits total  300 per 1s in the cluster, burst 300; from code, tightened by own\n\
             classes show      tier Core; from code"
        );
        assert!(
            sections[2].starts_with("POLICY  OF      COUNTS   WHY\n"),
            "{text}"
        );
        assert!(
            sections[2].contains("own     region  in part  at code: LooserIgnored: looser"),
            "{text}"
        );
        assert!(
            sections[2].contains("code    hub     yes      at code"),
            "{text}"
        );
        assert!(sections[3].contains("HTTPRoute venue/odd: "), "{text}");
    }

    #[tokio::test]
    async fn people_read_at_most_a_hundred_columns_and_nothing_is_left_out() {
        let found = found().await;
        let text = as_text(&found, show(Some(100)));
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&text), words(&as_text(&found, show(None))));
    }

    #[tokio::test]
    async fn json_has_rules_sources_and_verdicts_with_a_kind() {
        let target = PolicyTarget::HttpRoute("code".into(), None);
        let value = as_json(&found().await, &target, "venue").unwrap();
        assert_eq!(
            (&value["kind"], &value["apiVersion"], &value["target"]),
            (
                &json!("EffectivePolicy"),
                &json!("cli.jiuzhou.io/v1"),
                &json!("httproute/code")
            )
        );
        let total = &value["inForce"][0]["rules"][1];
        assert_eq!(
            (&total["name"], &total["value"]["rate"]["requests"]),
            (&json!("total"), &json!(300))
        );
        assert_eq!(
            total["from"][1],
            json!({"effect": "Tightens", "policy": "venue/own"})
        );
        let policies = value["policies"].as_array().unwrap();
        assert!(
            policies
                .iter()
                .any(|p| p["targets"][0]["reason"] == "LooserIgnored")
        );
        assert_eq!(value["unreadable"].as_array().unwrap().len(), 1);
    }
}
