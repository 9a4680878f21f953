//! What the hub sends for an App: which policy counts, what it says, and each cluster's share of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use crds::{
    AppName, ClusterName, LimitScope, LimitShare, NamespaceName, Period, Reason, ReportState,
    TrafficPolicySpec, Uid,
};
use kube::Client;
use plan::World;
use plan::report::{PolicyAnswer, policies_for};
use plan::world::{PolicySlot, policy_uid};
use serde_json::{Value, json};

use super::super::table::{Table, cut};
use super::{PolicyTarget, Show, words};
use crate::guard::compile::{RuleInForce, rules_of};

/// Names take this much, so that rows fit into a hundred columns; `-o json` has all of them.
const NAME: usize = 28;

/// What protects an App.
pub(super) struct Protected {
    app: String,
    /// The one that counts first.
    policies: Vec<PolicyAnswer>,
    /// What the one that counts says, and where it stands.
    sent: Option<Sent>,
}

/// A policy that is sent to clusters.
struct Sent {
    policy: String,
    rules: Vec<RuleInForce>,
    clusters: Vec<Standing>,
}

/// A policy in a cluster.
struct Standing {
    cluster: ClusterName,
    /// As the cluster reports it; none where it was not sent yet.
    state: Option<ReportState>,
    /// What part of rates of the province is the cluster's.
    shares: Vec<Share>,
}

/// A cluster's part of a rate.
struct Share {
    rule: String,
    requests: i64,
    per: Period,
    burst: Option<i64>,
    /// Of the whole; in thousandths, since there are provinces of a hundred clusters.
    thousandths: i64,
}

/// Reads the hub, and tells of these Apps.
pub(super) async fn ask(
    client: &Client,
    namespace: &str,
    apps: &[String],
) -> anyhow::Result<Vec<Protected>> {
    let world = super::super::world::read(client).await?;
    apps.iter().map(|app| of(&world, namespace, app)).collect()
}

fn of(world: &World, namespace: &str, app: &str) -> anyhow::Result<Protected> {
    let (namespace, name) = (NamespaceName::from(namespace), AppName::from(app));
    // The youngest of that name; earlier ones are on their way out.
    let slots = world.apps_named(&namespace, &name);
    let Some(slot) = slots.into_iter().max_by_key(|slot| slot.created) else {
        bail!(
            "no App {app} in namespace {namespace} at the hub; list them with kubectl get apps.jiuzhou.io -A"
        );
    };
    let policies = policies_for(world, &slot.uid);
    // One that waits for an event is accepted, and sent to nobody.
    let is_sent =
        |policy: &&PolicyAnswer| policy.accepted.0 && policy.accepted.1 != Reason::NoEvent;
    let counts = policies.iter().find(is_sent);
    let sent = counts.and_then(|policy| {
        let slot_of = world.policy(&(namespace.clone(), policy.name.clone()))?;
        let spec = slot_of.state.as_ref().ok()?;
        Some(Sent {
            policy: policy.name.to_string(),
            rules: rules_of(spec),
            clusters: standings(world, &slot.uid, slot_of, spec),
        })
    });
    Ok(Protected {
        app: app.to_owned(),
        policies,
        sent,
    })
}

/// Where the App is, or the policy still is.
fn standings(
    world: &World,
    app: &Uid,
    policy: &PolicySlot,
    spec: &TrafficPolicySpec,
) -> Vec<Standing> {
    let ledger = world.ledger(&policy_uid(&policy.uid));
    let present = |uid: &Uid| {
        let entries = world
            .ledger(uid)
            .into_iter()
            .flat_map(|ledger| &ledger.entries);
        let present = entries.filter(|(_, held)| held.entry.state.is_present());
        present.map(|(cluster, held)| (cluster.clone(), held.entry.clone()))
    };
    let sent: BTreeMap<ClusterName, _> = present(&policy_uid(&policy.uid)).collect();
    let mut clusters: BTreeSet<ClusterName> = sent.keys().cloned().collect();
    clusters.extend(present(app).map(|(cluster, _)| cluster));
    let standing = |cluster: ClusterName| {
        let entry = sent.get(&cluster);
        let report = ledger.and_then(|ledger| ledger.reports.get(&cluster));
        // What is reported of an earlier generation says nothing of this one.
        let state = entry.map(|entry| match report {
            Some(report) if report.generation >= entry.generation => report.state,
            Some(_) | None => ReportState::Pending,
        });
        let shares = entry.map_or(&[][..], |entry| &entry.shares);
        Standing {
            cluster,
            state,
            shares: shares
                .iter()
                .filter_map(|share| part(share, spec))
                .collect(),
        }
    };
    clusters.into_iter().map(standing).collect()
}

fn part(share: &LimitShare, spec: &TrafficPolicySpec) -> Option<Share> {
    let mut limits = spec.rate_limits.iter();
    let rule = limits.find(|rule| rule.name == share.name)?;
    let is_divided = match rule.scope {
        LimitScope::Province => true,
        // A Region of one cluster has it as it is.
        LimitScope::Region => share.requests < rule.rate.requests.checked_mul(share.periods)?,
        LimitScope::Instance | LimitScope::Cluster => false,
    };
    let per = rule.rate.per.millis()?.checked_mul(share.periods)?;
    let whole = rule.rate.requests.checked_mul(share.periods)?.max(1);
    is_divided.then(|| Share {
        rule: share.name.to_string(),
        requests: share.requests,
        per: Period::from_millis(per),
        burst: share.burst,
        thousandths: share.requests.saturating_mul(1000) / whole,
    })
}

pub(super) fn as_json(found: &[Protected], target: &PolicyTarget, namespace: &str) -> Value {
    let verdict = |(holds, reason, message): &(bool, Reason, String)| json!({"status": holds, "reason": reason, "message": message});
    let policy = |policy: &PolicyAnswer| {
        json!({
            "name": policy.name, "accepted": verdict(&policy.accepted),
            "programmed": verdict(&policy.programmed),
        })
    };
    let share = |share: &Share| {
        json!({
            "rule": share.rule, "requests": share.requests, "per": share.per, "burst": share.burst,
            "percent": i32::try_from(share.thousandths).map_or(0.0, f64::from) / 10.0,
        })
    };
    let cluster = |standing: &Standing| {
        json!({
            "cluster": standing.cluster, "state": standing.state,
            "shares": standing.shares.iter().map(share).collect::<Value>(),
        })
    };
    let sent = |sent: &Sent| {
        json!({
            "policy": sent.policy, "rules": sent.rules,
            "clusters": sent.clusters.iter().map(cluster).collect::<Value>(),
        })
    };
    let app = |app: &Protected| {
        json!({
            "name": app.app, "inForce": app.sent.as_ref().map(sent),
            "policies": app.policies.iter().map(policy).collect::<Value>(),
        })
    };
    json!({
        "kind": "EffectivePolicy", "apiVersion": "cli.jiuzhou.io/v1",
        "namespace": namespace, "target": target.to_string(),
        "apps": found.iter().map(app).collect::<Value>(),
    })
}

pub(super) fn as_text(found: &[Protected], namespace: &str, show: Show) -> String {
    let apps = found.iter();
    let apps: Vec<String> = apps.map(|app| one(app, namespace, show)).collect();
    apps.join("\n")
}

fn one(app: &Protected, namespace: &str, show: Show) -> String {
    let head = format!("App {namespace}/{}\n", app.app);
    if app.policies.is_empty() {
        return format!(
            "{head}  No TrafficPolicy names it: create one in namespace {namespace}, whose spec.targetRefs do.\n"
        );
    }
    let mut sections = vec![format!("{head}{}", verdicts(&app.policies, show))];
    if let Some(sent) = &app.sent {
        let mut table = Table::new(&["RULE", "SAYS"]).within(show.columns);
        for rule in &sent.rules {
            table.row([
                words::name(rule, show.columns).into(),
                words::of(rule, words::Seen::AtHub).into(),
            ]);
        }
        sections.push(format!(
            "In force, from TrafficPolicy {}\n{table}",
            sent.policy
        ));
        sections.push(clusters(sent, show));
    }
    sections.join("\n")
}

fn verdicts(policies: &[PolicyAnswer], show: Show) -> String {
    let mut table = Table::new(&["POLICY", "COUNTS", "ENFORCED", "WHY"]).within(show.columns);
    let word = |holds: bool| {
        if holds {
            show.paint.good("yes")
        } else {
            show.paint.unsure("no")
        }
    };
    for policy in policies {
        let ((accepted, reason, why), (programmed, _, so_far)) =
            (&policy.accepted, &policy.programmed);
        let counts = *accepted && *reason != Reason::NoEvent;
        let why = if counts {
            format!("{why} {so_far}")
        } else {
            why.clone()
        };
        table.row([
            cut(&policy.name, NAME, show.columns).into(),
            word(counts),
            word(*programmed),
            why.into(),
        ]);
    }
    table.to_string()
}

fn clusters(sent: &Sent, show: Show) -> String {
    if sent.clusters.is_empty() {
        return "The App runs nowhere yet.\n".to_owned();
    }
    let mut table = Table::new(&["CLUSTER", "STATE", "ITS SHARE"]).within(show.columns);
    for standing in &sent.clusters {
        let state = match standing.state {
            Some(state @ ReportState::Healthy) => show.paint.good(&format!("{state:?}")),
            Some(state @ (ReportState::Failed | ReportState::Unhealthy)) => {
                show.paint.bad(&format!("{state:?}"))
            }
            Some(
                state @ (ReportState::Pending
                | ReportState::Progressing
                | ReportState::Observed
                | ReportState::Removing
                | ReportState::Removed),
            ) => show.paint.unsure(&format!("{state:?}")),
            None => show.paint.unsure("not sent"),
        };
        let shares: Vec<String> = standing.shares.iter().map(share_text).collect();
        let shares = match (standing.state, shares.is_empty()) {
            (Some(_), true) => "every rule as it is".to_owned(),
            (Some(_), false) => format!("{}; other rules as they are", shares.join("; ")),
            (None, _) => "-".to_owned(),
        };
        table.row([
            cut(standing.cluster.as_str(), NAME, show.columns).into(),
            state,
            shares.into(),
        ]);
    }
    table.to_string()
}

fn share_text(share: &Share) -> String {
    let burst = share
        .burst
        .map_or_else(String::new, |burst| format!(", burst {burst}"));
    format!(
        "{}: {} per {}{burst} ({} %)",
        share.rule,
        share.requests,
        share.per.0,
        tenths(share.thousandths)
    )
}

/// A number of thousandths as percent.
fn tenths(thousandths: i64) -> String {
    match (thousandths / 10, thousandths % 10) {
        (whole, 0) => whole.to_string(),
        (whole, rest) => format!("{whole}.{rest}"),
    }
}

#[cfg(test)]
mod tests;
