//! `jiuzhou explain app`: for every cluster, accepted or refused and why; the state of the rollout.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use crds::{AppName, Condition, ConditionStatus, NamespaceName};
use kube::Client;
use plan::PlanReport;
use plan::report::AppReport;
use serde_json::json;

use super::output::{Format, Paint};
use super::table::Table;

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
        writeln!(out, "{:#}", as_json(app, &report))?;
    } else {
        write!(out, "{}", as_text(app, &report, Paint::stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(app: &AppReport, report: &PlanReport) -> serde_json::Value {
    let answer = |a: plan::report::Answer| json!({"cluster": a.cluster, "region": a.region, "chosen": a.chosen, "replicas": a.count, "score": a.score, "why": a.why});
    json!({
        "kind": "AppExplanation", "apiVersion": "cli.jiuzhou.io/v1",
        "namespace": app.namespace, "name": app.name,
        "conditions": app.status.conditions,
        "rollout": app.status.rollout,
        "clusters": app.answers(&report.fleet).into_iter().map(answer).collect::<Vec<_>>(),
    })
}

fn as_text(app: &AppReport, report: &PlanReport, paint: Paint) -> String {
    let mut lines = vec![format!("App {}/{}", app.namespace, app.name)];
    lines.extend(
        app.status
            .conditions
            .iter()
            .map(|c| format!("  {}", line(c, paint))),
    );
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
    let mut table = Table::new(&["CLUSTER", "REGION", "PLACED", "REPLICAS", "CPU", "WHY"]);
    for answer in app.answers(&report.fleet) {
        let dash = || "-".to_owned();
        table.row([
            answer.cluster.to_string(),
            answer.region.map_or_else(dash, |region| region.to_string()),
            if answer.chosen {
                paint.good("yes")
            } else {
                paint.unsure("no")
            },
            answer.count.map_or_else(dash, |n| n.to_string()),
            cpu(report, &answer.cluster).unwrap_or_else(dash),
            answer.why,
        ]);
    }
    format!("{}\n\n{table}", lines.join("\n"))
}

/// Cores requested and allocatable, as the MemberCluster shows them.
fn cpu(report: &PlanReport, cluster: &crds::ClusterName) -> Option<String> {
    report.clusters.get(cluster)?.cpu.clone()
}

fn line(condition: &Condition, paint: Paint) -> String {
    let status = match condition.status {
        ConditionStatus::True => paint.good("True"),
        ConditionStatus::False => paint.bad("False"),
        ConditionStatus::Unknown => paint.unsure("Unknown"),
    };
    format!(
        "{:?}={status} {}: {}",
        condition.kind, condition.reason, condition.message
    )
}
