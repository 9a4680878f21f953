//! `jiuzhou simulate`: the plan of a changed world against today's. Nothing is written.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use crds::{App, ClusterName, MemberCluster, Region, RegionName, Uid};
use kube::Client;
use plan::report::{AppReport, Shortage};
use plan::{PlanReport, World};
use serde_json::{Value, json};

use super::output::{Format, Paint};
use super::table::Table;

/// What is changed in the world.
pub(super) struct Change {
    /// Manifests to add or replace.
    pub(super) files: Vec<PathBuf>,
    /// Regions that are lost.
    pub(super) lose: Vec<String>,
    /// The time to plan for.
    pub(super) at: Option<jiff::Timestamp>,
}

/// Replicas of an App by cluster.
type Placement = BTreeMap<ClusterName, Option<i32>>;

/// What differs for one App.
struct Difference {
    app: String,
    before: Placement,
    after: Placement,
    note: String,
}

/// Plans both worlds and prints what differs.
pub(super) async fn simulate(
    client: &Client,
    change: Change,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let today = super::world::read(client).await?;
    let mut changed = today.clone();
    alter(&mut changed, &change)?;
    let (_, before) = plan::plan(&today);
    let (_, after) = plan::plan(&changed);
    let differences = compare(&before, &after);
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        let one = |d: &Difference| json!({"app": d.app, "before": d.before, "after": d.after, "note": d.note});
        let value = json!({
            "kind": "Simulation", "apiVersion": "cli.jiuzhou.io/v1",
            "apps": after.apps.len(), "changes": differences.iter().map(one).collect::<Vec<_>>(),
        });
        writeln!(out, "{value:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    if differences.is_empty() {
        writeln!(
            out,
            "Nothing moves and nothing is refused: {} apps stay as they are.",
            after.apps.len()
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let paint = Paint::stdout();
    let mut table = Table::new(&["APP", "BEFORE", "AFTER", "NOTE"]);
    for d in &differences {
        let note = if d.note.is_empty() {
            paint.good("moves")
        } else {
            paint.bad(&d.note)
        };
        table.row([d.app.clone(), show(&d.before), show(&d.after), note]);
    }
    write!(out, "{table}")?;
    writeln!(
        out,
        "{} of {} apps change; nothing was written.",
        differences.len(),
        after.apps.len()
    )?;
    Ok(ExitCode::SUCCESS)
}

fn alter(world: &mut World, change: &Change) -> anyhow::Result<()> {
    for name in &change.lose {
        let region = RegionName::from(name.as_str());
        if !world.regions().any(|(known, _)| *known == region) {
            bail!(
                "--lose {name}: no Region of this name; list them with kubectl get regions.jiuzhou.io"
            );
        }
        world.lost.insert(region);
    }
    if let Some(at) = change.at {
        world.now = at.as_millisecond();
        world.started = world.now;
    }
    for file in &change.files {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        for document in super::documents(&text) {
            add(world, document).with_context(|| format!("in {}", file.display()))?;
        }
    }
    Ok(())
}

/// Adds or replaces an object as if it had been applied.
fn add(world: &mut World, document: &str) -> anyhow::Result<()> {
    let value: Value = serde_saphyr::from_str(document)?;
    match value.get("kind").and_then(Value::as_str) {
        Some("Region") => world.apply_region(&serde_json::from_value::<Region>(value)?),
        Some("MemberCluster") => {
            world.apply_cluster(&serde_json::from_value::<MemberCluster>(value)?);
        }
        Some("App") => {
            let mut app: App = serde_json::from_value(value)?;
            let namespace = app
                .metadata
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned());
            let name = app.metadata.name.clone().unwrap_or_default();
            let known = world
                .apps_named(&namespace.as_str().into(), &name.as_str().into())
                .first()
                .map(|s| (s.uid.clone(), s.generation, s.status.clone()));
            let (uid, generation) = known.as_ref().map_or_else(
                || (Uid::from(format!("simulated-{name}")), 1),
                |(uid, generation, _)| (uid.clone(), generation + 1),
            );
            app.metadata.uid = Some(uid.to_string());
            app.metadata.generation = Some(generation);
            app.metadata.namespace = Some(namespace);
            app.metadata.finalizers = Some(vec![crds::APP_FINALIZER.to_owned()]);
            app.status = known.map(|(.., status)| (*status).clone());
            world.apply_app(&app);
        }
        other => bail!("kind {other:?} cannot be simulated: use Region, MemberCluster or App"),
    }
    Ok(())
}

fn compare(before: &PlanReport, after: &PlanReport) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (uid, new) in &after.apps {
        let old = before.apps.get(uid);
        let (was, is) = (
            old.map(|r| placement(r)).unwrap_or_default(),
            placement(new),
        );
        let note = note(new);
        let old_note = old.map(|r| self::note(r)).unwrap_or_default();
        if was != is || note != old_note {
            differences.push(Difference {
                app: format!("{}/{}", new.namespace, new.name),
                before: was,
                after: is,
                note,
            });
        }
    }
    differences
}

fn placement(report: &AppReport) -> Placement {
    report
        .targets
        .iter()
        .map(|t| (t.cluster.clone(), t.count))
        .collect()
}

/// What is refused or missing.
fn note(report: &AppReport) -> String {
    match (&report.parked, report.shortage) {
        (Some(parked), _) => parked.message.clone(),
        (None, Some(Shortage::NoClusterQualifies)) => "no cluster qualifies".to_owned(),
        (None, Some(Shortage::TooFewRegions { found, needed })) => {
            format!("{found} of {needed} regions")
        }
        (None, Some(Shortage::Capacity { placed, wanted })) => {
            format!("{placed} of {wanted} replicas fit")
        }
        (None, Some(Shortage::PredecessorRemains { clusters })) => {
            format!("an earlier App of this name remains on {clusters} clusters")
        }
        (None, None) => String::new(),
    }
}

fn show(placement: &Placement) -> String {
    if placement.is_empty() {
        return "-".to_owned();
    }
    let one = |(cluster, count): (&ClusterName, &Option<i32>)| match count {
        Some(count) => format!("{cluster}:{count}"),
        None => cluster.to_string(),
    };
    placement.iter().map(one).collect::<Vec<_>>().join(" ")
}
