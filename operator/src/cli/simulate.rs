//! `jiuzhou simulate`: the plan of a changed world against today's. Nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use crds::{App, ClusterName, MemberCluster, Region, RegionName, Uid, label};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use plan::province::ClusterView;
use plan::report::{AppReport, Shortage};
use plan::{PlanReport, World};
use serde_json::{Value, json};

use super::manifests;
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
    /// Where it is today and would be left if a new place were found.
    lost: Vec<ClusterName>,
    note: String,
}

impl Difference {
    /// What happens to what an App has, in a word that programs may rely on.
    fn kind(&self) -> &'static str {
        let sum = |placement: &Placement| -> i64 {
            let counts = placement.values();
            counts.map(|count| i64::from(count.unwrap_or(1))).sum()
        };
        let stays = |(cluster, count): (&ClusterName, &Option<i32>)| {
            self.after.get(cluster).is_some_and(|after| after >= count)
        };
        if self.before == self.after {
            "stays"
        } else if self.before.is_empty() {
            "starts"
        } else if self.after.is_empty() {
            "stops"
        } else if self.before.iter().all(stays) {
            "grows"
        } else if self
            .after
            .keys()
            .all(|cluster| self.before.contains_key(cluster))
            && sum(&self.after) < sum(&self.before)
        {
            "shrinks"
        } else {
            "moves"
        }
    }
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
        let one = |d: &Difference| json!({"app": d.app, "change": d.kind(), "before": d.before, "after": d.after, "lost": d.lost, "note": d.note});
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
            "Nothing changes: {} apps stay as they are.",
            after.apps.len()
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let paint = Paint::stdout();
    let mut table = Table::new(&["APP", "BEFORE", "AFTER", "NOTE"]);
    for d in &differences {
        let note = if d.note.is_empty() && d.before == d.after {
            paint.good("is held back no longer")
        } else if d.note.is_empty() {
            paint.good(d.kind())
        } else {
            paint.bad(&d.note)
        };
        table.row([
            d.app.clone().into(),
            show(&d.before).into(),
            show(&d.after).into(),
            note,
        ]);
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
        let text = manifests::text(file)?;
        for document in manifests::documents(&text) {
            add(world, document).with_context(|| format!("in {}", file.display()))?;
        }
    }
    Ok(())
}

/// Adds or replaces an object as if it had been applied now: what is there keeps its age, its status
/// and its identity.
fn add(world: &mut World, document: &str) -> anyhow::Result<()> {
    let value: Value = serde_saphyr::from_str(document)?;
    match value.get("kind").and_then(Value::as_str) {
        Some("Region") => {
            let mut region: Region = serde_json::from_value(value)?;
            let name = RegionName::from(region.metadata.name.clone().unwrap_or_default());
            let known = world.regions().find(|(known, _)| **known == name);
            let known = known.map(|(_, slot)| {
                let created = slot.state.as_ref().map_or(0, |region| region.created);
                (created, slot.generation, slot.status.clone())
            });
            region.status = apply_over(world.now, &mut region.metadata, known);
            world.apply_region(&region);
        }
        Some("MemberCluster") => {
            let mut cluster: MemberCluster = serde_json::from_value(value)?;
            let name = ClusterName::from(cluster.metadata.name.clone().unwrap_or_default());
            let known = world
                .cluster(&name)
                .filter(|slot| slot.exists())
                .map(|slot| {
                    let created = slot.state.as_ref().map_or(0, |cluster| cluster.created);
                    (created, slot.generation, slot.status.clone())
                });
            cluster.status = apply_over(world.now, &mut cluster.metadata, known);
            world.apply_cluster(&cluster);
        }
        Some("App") => add_app(world, serde_json::from_value(value)?),
        other => bail!("kind {other:?} cannot be simulated: use Region, MemberCluster or App"),
    }
    Ok(())
}

fn add_app(world: &mut World, mut app: App) {
    let namespace = app.metadata.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let name = app.metadata.name.clone().unwrap_or_default();
    let named = world.apps_named(&namespace.as_str().into(), &name.as_str().into());
    let known = named.first().map(|slot| (*slot).clone());
    let uid = known.as_ref().map_or_else(
        || Uid::from(format!("simulated/{namespace}/{name}")),
        |slot| slot.uid.clone(),
    );
    // Who changes it is not known; as today's author the user gets today's Approvals.
    let author = known.as_ref().and_then(|slot| slot.changed_by.as_deref());
    if let Some(author) = author {
        let annotations = app.metadata.annotations.get_or_insert_default();
        annotations.insert(label::CHANGED_BY.to_owned(), author.to_owned());
    }
    let known = known.map(|slot| (slot.created, slot.generation, (*slot.status).clone()));
    app.status = apply_over(world.now, &mut app.metadata, known);
    app.metadata.uid = Some(uid.to_string());
    app.metadata.namespace = Some(namespace);
    app.metadata.finalizers = Some(vec![crds::APP_FINALIZER.to_owned()]);
    world.apply_app(&app);
}

/// Metadata as the API server would set it, over what is known of age, generation and status.
fn apply_over<S>(now: i64, meta: &mut ObjectMeta, known: Option<(i64, i64, S)>) -> Option<S> {
    let (created, generation, status) = match known {
        Some((created, generation, status)) => (created, generation + 1, Some(status)),
        None => (now, 1, None),
    };
    meta.generation = Some(generation);
    meta.creation_timestamp = jiff::Timestamp::from_millisecond(created).ok().map(Time);
    status
}

fn compare(before: &PlanReport, after: &PlanReport) -> Vec<Difference> {
    let mut differences = Vec::new();
    let gone = gone(after);
    for (uid, new) in &after.apps {
        let old = before.apps.get(uid);
        let was = old.map(|r| placement(r)).unwrap_or_default();
        // What has no new place keeps its old one in the plan, so that it comes back with its Region; until
        // then it does not run.
        let (lost, is): (Placement, Placement) = placement(new)
            .into_iter()
            .partition(|(cluster, _)| gone.contains(cluster));
        let note = note(new);
        let old_note = old.map(|r| self::note(r)).unwrap_or_default();
        if was != is || note != old_note {
            let lost: Vec<ClusterName> = lost.into_keys().collect();
            differences.push(Difference {
                app: format!("{}/{}", new.namespace, new.name),
                before: was,
                after: is,
                note: with_lost(note, &lost),
                lost,
            });
        }
    }
    differences
}

/// Clusters of Regions that are lost.
fn gone(report: &PlanReport) -> BTreeSet<ClusterName> {
    let is_gone = |view: &&ClusterView| {
        let region = view.cluster.as_ref().ok();
        let region = region.and_then(|cluster| report.fleet.regions.get(&cluster.region));
        region.is_some_and(|region| region.lost)
    };
    let gone = report.fleet.clusters.iter().filter(is_gone);
    gone.map(|view| view.name.clone()).collect()
}

/// A note that also says which places are lost.
fn with_lost(note: String, lost: &[ClusterName]) -> String {
    if lost.is_empty() {
        return note;
    }
    let names: Vec<&str> = lost.iter().map(ClusterName::as_str).collect();
    let lost = format!("lost in {}", names.join(", "));
    if note.is_empty() {
        lost
    } else {
        format!("{lost}: {note}")
    }
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
        (None, Some(Shortage::Quota { placed, wanted })) => {
            format!("{placed} of {wanted} replicas by the tenant's Quotas")
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

#[cfg(test)]
mod tests;
