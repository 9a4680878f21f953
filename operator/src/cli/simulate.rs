//! `jiuzhou simulate`: the plan of a changed world against today's. Nothing is written.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use crds::{App, ClusterName, MemberCluster, Region, RegionName, Uid, label};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
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
        let one = |d: &Difference| json!({"app": d.app, "change": d.kind(), "before": d.before, "after": d.after, "note": d.note});
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
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
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
mod tests {
    use super::*;
    use plan::world::{Hub, Settings};

    const NOW: i64 = 1_800_000_000_000;

    fn world() -> World {
        let hub = Hub {
            id: "hub-1".into(),
            epoch: 1,
            leader_epoch: 1,
        };
        let mut world = World::new(hub, Settings::default());
        (world.now, world.started) = (NOW, NOW);
        world
    }

    fn app(namespace: &str) -> String {
        format!(
            "{{kind: App, apiVersion: jiuzhou.io/v1alpha1, metadata: {{name: web, namespace: {namespace}}}, \
             spec: {{zone: Internet, dataGrade: General, manifests: []}}}}"
        )
    }

    #[test]
    fn what_happens_to_an_app_has_its_own_word() {
        let placed = |all: &[(&str, i32)]| -> Placement {
            let one = |(name, count): &(&str, i32)| ((*name).into(), Some(*count));
            all.iter().map(one).collect()
        };
        let kind = |before, after| {
            let difference = Difference {
                app: String::new(),
                before: placed(before),
                after: placed(after),
                note: String::new(),
            };
            difference.kind()
        };
        let two: &[_] = &[("a", 2), ("b", 2)];
        assert_eq!(kind(&[], two), "starts");
        assert_eq!(kind(two, two), "stays");
        assert_eq!(kind(two, &[]), "stops");
        assert_eq!(kind(two, &[("a", 2)]), "shrinks");
        assert_eq!(kind(two, &[("a", 4)]), "moves");
        assert_eq!(kind(two, &[("a", 2), ("c", 2)]), "moves");
        assert_eq!(kind(two, &[("a", 2), ("b", 2), ("c", 2)]), "grows");
    }

    #[test]
    fn a_new_app_is_the_youngest_and_one_of_each_namespace_is_its_own() {
        let mut world = world();
        for namespace in ["health", "police"] {
            add(&mut world, &app(namespace)).unwrap();
        }
        assert_eq!(world.apps().count(), 2);
        assert!(world.apps().all(|(_, slot)| slot.created == NOW));
    }

    #[test]
    fn what_is_there_keeps_its_age_its_status_and_its_identity() {
        let mut world = world();
        let there: App = serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
            "metadata": {
                "name": "web", "namespace": "health", "uid": "u", "generation": 7,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {label::CHANGED_BY: "alice"},
            },
            "spec": {"zone": "ExtranetPublic", "dataGrade": "General", "manifests": []},
            "status": {"readiness": "1/1"},
        }))
        .unwrap();
        world.apply_app(&there);
        add(&mut world, &app("health")).unwrap();
        let slot = world.app(&"u".into()).unwrap();
        assert_eq!(slot.created, 1_767_225_600_000);
        assert_eq!(slot.generation, 8);
        assert_eq!(slot.changed_by.as_deref(), Some("alice"));
        assert_eq!(slot.status.readiness.as_deref(), Some("1/1"));
        assert_eq!(slot.state.as_ref().unwrap().zone, crds::Zone::Internet);
    }

    #[test]
    fn a_member_cluster_from_a_file_stays_joined() {
        let mut world = world();
        let cluster = |zone: &str| {
            json!({
                "apiVersion": "jiuzhou.io/v1alpha1", "kind": "MemberCluster",
                "metadata": {"name": "ningbo-a"},
                "spec": {
                    "regionName": "ningbo", "zone": zone, "protectionLevel": 3,
                    "maxDataGrade": "Important", "management": "Manage", "connection": {"pull": {}},
                },
            })
        };
        let mut there = cluster("Internet");
        there["metadata"]["generation"] = json!(2);
        there["status"] = json!({"clusterUID": "pinned"});
        world.apply_cluster(&serde_json::from_value(there).unwrap());
        add(&mut world, &cluster("ExtranetPublic").to_string()).unwrap();
        let slot = world.cluster(&"ningbo-a".into()).unwrap();
        assert_eq!(slot.pinned(), Some(&"pinned".into()));
        assert_eq!(slot.generation, 3);
        add(
            &mut world,
            &cluster("Internet").to_string().replace("ningbo", "cixi"),
        )
        .unwrap();
        assert!(world.cluster(&"cixi-a".into()).unwrap().exists());
    }
}
