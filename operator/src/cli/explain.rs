//! `jiuzhou explain app`: for every cluster, accepted or refused and why; the state of the rollout.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use crds::{AppName, Condition, ConditionStatus, NamespaceName};
use kube::Client;
use plan::report::{Answer, AppReport, Why};
use plan::{PlanReport, World};
use serde_json::json;

use super::output::{Format, Paint, Painted, columns};
use super::table::{Table, broken};

/// Lines below a condition stand in by this much.
const INDENT: usize = 4;

/// How an answer is shown to people.
#[derive(Clone, Copy)]
struct Show {
    paint: Paint,
    /// Where lines are broken, if at all.
    columns: Option<usize>,
}

/// Prints why an App runs where it does.
pub(super) async fn app(
    client: &Client,
    namespace: &str,
    name: &str,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let world = super::world::read(client).await?;
    let (namespace, name) = (NamespaceName::from(namespace), AppName::from(name));
    // The youngest of that name; earlier ones are on their way out.
    let slots = world.apps_named(&namespace, &name);
    let Some(slot) = slots.into_iter().max_by_key(|slot| slot.created) else {
        bail!(
            "no App {name} in namespace {namespace}; list them with kubectl get apps.jiuzhou.io -A"
        );
    };
    let uid = slot.uid.clone();
    let (_plan, report) = plan::plan(&world);
    let Some(app) = report.apps.get(&uid) else {
        bail!("the plan does not know App {name}")
    };
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        writeln!(out, "{:#}", as_json(app, &report, &world))?;
    } else {
        let show = Show {
            paint: Paint::stdout(),
            columns: columns(),
        };
        write!(out, "{}", as_text(app, &report, &world, show))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(app: &AppReport, report: &PlanReport, world: &World) -> serde_json::Value {
    let answer = |a: Answer| {
        let cpu = a.left.cpu.filter(|_| a.left.known);
        json!({
            "cluster": a.cluster, "region": a.region, "chosen": a.chosen, "replicas": a.count,
            "score": a.score, "reason": a.why.reason(), "why": a.why.to_string(),
            "freeCores": cpu.map(|cpu| plan::amount::format_amount("cpu", cpu.max(0))),
            "roomFor": a.left.more.filter(|_| a.left.known),
        })
    };
    let answers = app.answers(world, &report.fleet);
    json!({
        "kind": "AppExplanation", "apiVersion": "cli.jiuzhou.io/v1",
        "namespace": app.namespace, "name": app.name,
        "conditions": app.status.conditions,
        "rollout": app.status.rollout,
        "clusters": answers.into_iter().map(answer).collect::<Vec<_>>(),
    })
}

fn as_text(app: &AppReport, report: &PlanReport, world: &World, show: Show) -> String {
    let mut lines = vec![format!("App {}/{}", app.namespace, app.name)];
    for condition in &app.status.conditions {
        lines.extend(condition_lines(condition, show));
    }
    if let Some(rollout) = &app.status.rollout {
        let wave = rollout
            .wave
            .as_ref()
            .map_or_else(String::new, |wave| format!(", wave {wave}"));
        lines.push(format!(
            "  Rollout of {}: {:?}{wave}, since {}",
            rollout.content_hash, rollout.state, rollout.since
        ));
    }
    let mut table =
        Table::new(&["CLUSTER", "REGION", "PLACED", "REPLICAS", "CPU", "WHY"]).within(show.columns);
    for answer in app.answers(world, &report.fleet) {
        let dash = || "-".to_owned();
        let region = answer.region.as_ref();
        table.row([
            answer.cluster.to_string().into(),
            region.map_or_else(dash, ToString::to_string).into(),
            placed(&answer, show.paint),
            answer.count.map_or_else(dash, |n| n.to_string()).into(),
            cpu(report, &answer.cluster).unwrap_or_else(dash).into(),
            answer.why.to_string().into(),
        ]);
    }
    format!("{}\n\n{table}", lines.join("\n"))
}

/// Whether the App is there now, and stays.
fn placed(answer: &Answer, paint: Paint) -> Painted {
    match answer.why {
        Why::Runs(_) => paint.good("yes"),
        Why::Leaves(_) | Why::Removing | Why::Releasing => paint.unsure("leaving"),
        _ => paint.unsure("no"),
    }
}

/// Cores requested and allocatable, as the MemberCluster shows them.
fn cpu(report: &PlanReport, cluster: &crds::ClusterName) -> Option<String> {
    report.clusters.get(cluster)?.cpu.clone()
}

/// A condition, its message broken under its head where people read it.
fn condition_lines(condition: &Condition, show: Show) -> Vec<String> {
    let status = match condition.status {
        ConditionStatus::True => show.paint.good("True"),
        ConditionStatus::False => show.paint.bad("False"),
        ConditionStatus::Unknown => show.paint.unsure("Unknown"),
    };
    let (kind, reason) = (condition.kind, condition.reason);
    let head = format!("  {kind:?}={status} {reason}:");
    let seen = format!("  {kind:?}={} {reason}:", status.text);
    let message = &condition.message;
    let fits = |columns: usize| seen.len() + 1 + message.chars().count() <= columns;
    match show.columns {
        Some(columns) if !fits(columns) => {
            let rest = broken(message, columns.saturating_sub(INDENT));
            let rest = rest.into_iter().map(|line| format!("{:INDENT$}{line}", ""));
            std::iter::once(head).chain(rest).collect()
        }
        Some(_) | None => vec![format!("{head} {message}")],
    }
}
