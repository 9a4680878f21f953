//! How long the plan of a whole province takes: 10,000 Apps on 102 clusters, on one core.
//!
//! The reference is the least that a program which looks at every App must do: serialising the same
//! Apps to JSON once, on the same core, in the same run. All times are CPU time of the one thread;
//! of several runs the median counts.

#[path = "plan/tenants.rs"]
mod tenants;

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use crds::{
    App, AssignmentSlice, ClusterName, ClusterReport, MemberCluster, Region, ReportEntry,
    ReportSlice, ReportSliceSpec, ReportState,
};
use e2e::measure::{median, print, round, say, usage::thread_cpu};
use plan::{
    Plan, Planner, World, check,
    province::ContentWrite,
    world::{Hub, Settings, StoredContent},
};
use serde_json::{Value, json};

/// As the product's own processes allocate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the plan of a whole province takes.
#[derive(Parser)]
struct Args {
    /// Number of Apps
    #[arg(long, default_value_t = 10_000)]
    apps: usize,
    /// Number of clusters
    #[arg(long, default_value_t = 102)]
    clusters: usize,
    /// Given by Cargo
    #[arg(long, hide = true)]
    bench: bool,
}

const TENANTS: usize = 100;
const NOW: i64 = 1_800_000_000_000;
/// Runs of which the median counts.
const RUNS: usize = 5;
/// Turns within which a province comes to rest, several times over.
const TURNS_MAX: usize = 30;

fn main() -> ExitCode {
    let args = Args::parse();
    match speed(&args)
        .and_then(|()| granted(&args))
        .and_then(|()| packing(args.apps, 10))
        .and_then(|()| packing(300, 334))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("plan: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn speed(args: &Args) -> Result<()> {
    let draft = |n| app(n, 12, &json!({"maxRegions": 3}), "Capacity");
    let apps: Vec<App> = (0..args.apps).map(draft).collect::<Result<_>>()?;
    let reference = timed(RUNS, || {
        serde_json::to_vec(&apps).map(drop).context("serialise")
    })?;
    let mut world = province(args.clusters)?;
    apps.iter().for_each(|app| world.apply_app(app));
    let report = |name: &str, seconds: f64, target_ms: Option<f64>| {
        say(&format!(
            "{name:24} {:8.2} ms, reference {:.2} ms",
            seconds * 1e3,
            reference * 1e3
        ));
        print(&json!({
            "bench": "plan", "measure": name, "apps": args.apps, "clusters": args.clusters,
            "milliseconds": round(seconds * 1e3), "target_milliseconds": target_ms,
            "reference": {"what": "serialising the same Apps to JSON once", "milliseconds": round(reference * 1e3)},
            "ratio": round(seconds / reference),
        }))
    };
    let cold = timed(RUNS, || Ok(first_turn(&world)))?;
    report("cold, nothing placed", cold, Some(500.0))?;
    // A cluster gets slices once its identity is pinned in its status, so they come in the second turn.
    let mut first = Planner::default();
    let contents = first.plan(&world).contents;
    store_contents(&mut world, contents);
    write_statuses(&mut world, &first, &apps)?;
    let judged = Planner::default().plan(&world);
    let entries: usize = judged.slices.iter().map(|w| w.spec.entries.len()).sum();
    anyhow::ensure!(entries >= args.apps, "every App is placed, got {entries}");
    let placing = timed(RUNS, || Ok(first_turn(&world)))?;
    report("cold, every slice new", placing, Some(500.0))?;
    anyhow::ensure!(
        check(&world, &judged).is_empty(),
        "the plan breaks an invariant"
    );
    let judging = timed(RUNS, || {
        drop(std::hint::black_box(check(&world, &judged)));
        Ok(())
    })?;
    report("second judge", judging, None)?;
    let mut planner = Planner::default();
    rest(&mut world, &mut planner, &apps, &mut Stored::new())?;
    let settled = timed(RUNS, || Ok(first_turn(&world)))?;
    report("cold, everything placed", settled, Some(500.0))?;
    let changes = changes(args, &mut world, &mut planner)?;
    report("one change", changes, Some(20.0))?;
    let mut beats = Vec::new();
    for _ in 0..RUNS {
        hear(&mut world, args.clusters);
        beats.push(turn(&mut planner, &world)?);
    }
    report(
        "after heartbeats",
        median(beats).context("heartbeats")?,
        None,
    )
}

/// The same with tenants and Quotas.
fn granted(args: &Args) -> Result<()> {
    let apps: Vec<App> = (0..args.apps)
        .map(|n| tenants::tenants_app(n, 12))
        .collect::<Result<_>>()?;
    let reference = timed(RUNS, || {
        serde_json::to_vec(&apps).map(drop).context("serialise")
    })?;
    let mut world = province(args.clusters)?;
    let (tenants, quotas) = tenants::grant(&mut world, args.clusters)?;
    let report = |name: &str, seconds: f64, target_ms: f64| {
        let ms = seconds * 1e3;
        say(&format!(
            "{tenants} tenants, {quotas} Quotas: {name:24} {ms:8.2} ms, reference {:.2} ms",
            reference * 1e3
        ));
        print(&json!({
            "bench": "plan", "measure": name, "apps": args.apps, "clusters": args.clusters,
            "tenants": tenants, "quotas": quotas,
            "milliseconds": round(ms), "target_milliseconds": target_ms,
            "reference": {"what": "serialising the same Apps to JSON once", "milliseconds": round(reference * 1e3)},
            "ratio": round(seconds / reference),
        }))
    };
    let accepting = timed(RUNS, || Ok(first_turn(&world)))?;
    report("cold, nothing in force", accepting, 500.0)?;
    let mut planner = Planner::default();
    rest(&mut world, &mut planner, &[], &mut Stored::new())?;
    apps.iter().for_each(|app| world.apply_app(app));
    let cold = timed(RUNS, || Ok(first_turn(&world)))?;
    report("cold, nothing placed", cold, 500.0)?;
    rest(&mut world, &mut planner, &apps, &mut Stored::new())?;
    let placed = |uid: &crds::Uid| world.ledger(uid).is_some();
    let count = world.apps().filter(|(uid, _)| placed(uid)).count();
    anyhow::ensure!(count > args.apps / 2, "most Apps are placed, got {count}");
    let settled = timed(RUNS, || Ok(first_turn(&world)))?;
    report("cold, everything placed", settled, 500.0)?;
    let (mut changes, mut grants, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..RUNS * 2 {
        world.apply_app(&tenants::tenants_app(n * args.apps / (RUNS * 2), 11)?);
        changes.push(turn(&mut planner, &world)?);
        tenants::change(&mut world, n, args.clusters)?;
        let began = thread_cpu();
        let plan = planner.plan(&world);
        grants.push(thread_cpu().saturating_sub(began).as_secs_f64());
        anyhow::ensure!(!plan.quotas.is_empty(), "the change is written down");
        tenants::write(&mut world, plan.quotas, TURNS_MAX * 2 + n)?;
        heard.push(turn(&mut planner, &world)?);
    }
    report("one App changed", median(changes).context("changes")?, 20.0)?;
    report(
        "one Quota changed",
        median(grants).context("changes")?,
        20.0,
    )?;
    report("the same in force", median(heard).context("ledgers")?, 20.0)
}

/// Median CPU seconds of a turn after one App changed.
fn changes(args: &Args, world: &mut World, planner: &mut Planner) -> Result<f64> {
    let mut changes = Vec::new();
    for n in 0..RUNS * 2 {
        let number = n * args.apps / (RUNS * 2);
        world.apply_app(&app(number, 15, &json!({"maxRegions": 3}), "Capacity")?);
        changes.push(turn(planner, world)?);
    }
    median(changes).context("at least one change")
}

/// Bytes in the hub for each App in each cluster when every App runs in all clusters, and what one
/// more App adds for each of its clusters.
fn packing(count: usize, clusters: usize) -> Result<()> {
    let draft = |n| app(n, 2, &json!({}), "Duplicate");
    let mut apps: Vec<App> = (0..count).map(draft).collect::<Result<_>>()?;
    let mut world = province(clusters)?;
    apps.iter().for_each(|app| world.apply_app(app));
    let (mut planner, mut stored) = (Planner::default(), Stored::new());
    rest(&mut world, &mut planner, &apps, &mut stored)?;
    let (objects, bytes) = (stored.len() * 2, stored.values().sum::<usize>());
    let copies: usize = apps
        .iter()
        .map(|app| serde_json::to_vec(app).map_or(0, |json| json.len()))
        .sum();
    apps.push(draft(count)?);
    apps.last().into_iter().for_each(|app| world.apply_app(app));
    rest(&mut world, &mut planner, &apps, &mut stored)?;
    let added = stored.values().sum::<usize>() - bytes;
    let per = |bytes: usize, targets: usize| {
        #[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
        let ratio = bytes as f64 / targets as f64;
        ratio
    };
    let (each, more) = (per(bytes, count * clusters), per(added, clusters));
    let copy = per(copies, count);
    say(&format!(
        "{count} Apps on {clusters} clusters: {each:.0} bytes per target in {objects} objects; one more App adds {more:.0}"
    ));
    print(&json!({
        "bench": "plan", "measure": "packing", "apps": count, "clusters": clusters,
        "targets": count * clusters, "objects": objects,
        "bytes_per_target": round(each), "bytes_per_target_added": round(more), "target_bytes": 500,
        "reference": {"what": "one copy of the App per target", "bytes_per_target": round(copy)},
        "ratio": round(each / copy),
    }))
}

/// Median CPU seconds of some runs. What they come to is let go outside of the time: a hub keeps it.
fn timed<T>(runs: usize, mut work: impl FnMut() -> Result<T>) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let began = thread_cpu();
        let done = work()?;
        seconds.push(thread_cpu().saturating_sub(began).as_secs_f64());
        drop(done);
    }
    median(seconds).context("at least one run")
}

/// The first turn of a hub.
fn first_turn(world: &World) -> (Planner, Plan) {
    let mut planner = Planner::default();
    let plan = planner.plan(world);
    (planner, plan)
}

/// CPU seconds of one turn of a planner that remembers the ones before.
fn turn(planner: &mut Planner, world: &World) -> Result<f64> {
    timed(1, || Ok(planner.plan(world)))
}

/// Bytes that lie in the hub besides Apps and Contents, an assignment and its report together.
type Stored = BTreeMap<(ClusterName, String), usize>;

/// Carries plans out as a well-behaved fleet would until nothing is written any more.
fn rest(world: &mut World, planner: &mut Planner, apps: &[App], stored: &mut Stored) -> Result<()> {
    for turn in 0..TURNS_MAX {
        let clusters = world.clusters().count();
        hear(world, clusters);
        let plan = planner.plan(world);
        let quiet =
            plan.slices.is_empty() && plan.quotas.is_empty() && planner.report().changed.is_empty();
        tenants::write(world, plan.quotas, turn + 1)?;
        store_contents(world, plan.contents);
        for write in plan.slices {
            let report = ReportSlice::new(
                &write.name,
                ReportSliceSpec {
                    entries: write.spec.entries.iter().map(healthy).collect(),
                },
            );
            let mut slice = AssignmentSlice::new(&write.name, write.spec);
            slice.metadata.resource_version = Some((turn + 1).to_string());
            let bytes = serde_json::to_vec(&slice)?.len() + serde_json::to_vec(&report)?.len();
            stored.insert((write.cluster.clone(), write.name.clone()), bytes);
            world.apply_slice(&write.cluster, slice, Some(world.now));
            world.apply_report(&write.cluster, report);
        }
        write_statuses(world, planner, apps)?;
        world.now += 1_000;
        if quiet && turn > 0 {
            return Ok(());
        }
    }
    anyhow::bail!("the province does not come to rest within {TURNS_MAX} turns")
}

fn store_contents(world: &mut World, contents: Vec<ContentWrite>) {
    for content in contents {
        let known = StoredContent {
            tenant: content.tenant,
            hashes: content.items.into_iter().map(|item| item.hash).collect(),
            created: NOW,
        };
        world.apply_content(&content.name, known);
    }
}

fn healthy(entry: &crds::Entry) -> ReportEntry {
    let replicas = entry
        .stages
        .first()
        .and_then(|stage| stage.replicas)
        .unwrap_or(1);
    ReportEntry {
        uid: entry.uid.clone(),
        generation: entry.generation,
        content: Some(entry.content.clone()),
        state: ReportState::Healthy,
        replicas,
        ready: replicas,
        reason: None,
        message: None,
    }
}

fn write_statuses(world: &mut World, planner: &Planner, apps: &[App]) -> Result<()> {
    let report = planner.report();
    for uid in &report.changed {
        let number: usize = uid
            .as_str()
            .trim_start_matches("uid-")
            .parse()
            .context("our own UIDs")?;
        let mut app = apps[number].clone();
        app.status = report.apps.get(uid).map(|app| app.status.clone());
        world.apply_app(&app);
    }
    tenants::write_statuses(world, planner)?;
    for (name, status) in &report.clusters {
        let number: usize = name
            .as_str()
            .trim_start_matches("cluster-")
            .parse()
            .context("our own names")?;
        let mut cluster = cluster(number)?;
        cluster.status = Some(status.clone());
        world.apply_cluster(&cluster);
    }
    Ok(())
}

fn hear(world: &mut World, clusters: usize) {
    for n in 0..clusters {
        world.apply_heartbeat(&ClusterName::from(format!("cluster-{n:03}")), world.now);
    }
}

/// Cities of nine counties each, one cluster in every county.
fn province(clusters: usize) -> Result<World> {
    let hub = Hub {
        id: "hub".into(),
        epoch: 1,
        leader_epoch: 1,
    };
    let mut world = World::new(hub, Settings::default());
    (world.now, world.started) = (NOW, NOW);
    world.apply_region(&region("zhejiang", "Province", 0, None)?);
    for n in 0..clusters {
        let city = format!("city-{:02}", n / 9 + 1);
        if n % 9 == 0 {
            world.apply_region(&region(&city, "City", (n / 9 + 1) * 100, Some("zhejiang"))?);
        }
        let code = (n / 9 + 1) * 100 + n % 9 + 1;
        world.apply_region(&region(
            &format!("county-{n:03}"),
            "County",
            code,
            Some(&city),
        )?);
        world.apply_cluster(&cluster(n)?);
        let report = report(&format!("uid-of-{n}"), 20_000 + 10 * n)?;
        world.apply_cluster_report(format!("cluster-{n:03}").into(), &report);
    }
    for tenant in 0..TENANTS {
        world.apply_namespace(
            &format!("tenant-{tenant:02}").into(),
            plan::world::NamespaceSlot::plain(format!("ns-{tenant}").into()),
        );
    }
    hear(&mut world, clusters);
    Ok(world)
}

fn region(name: &str, level: &str, code: usize, parent: Option<&str>) -> Result<Region> {
    let code = format!("{}", 330_000 + code);
    let spec = json!({"displayName": name, "level": level, "code": code, "parent": parent});
    object("Region", json!({"name": name, "generation": 1}), spec)
}

fn cluster(n: usize) -> Result<MemberCluster> {
    let spec = json!({
        "regionName": format!("county-{n:03}"), "zone": "ExtranetPublic", "protectionLevel": 3,
        "maxDataGrade": "Important", "management": "Manage", "connection": {"pull": {}},
    });
    object(
        "MemberCluster",
        json!({"name": format!("cluster-{n:03}"), "generation": 1}),
        spec,
    )
}

fn report(uid: &str, cores: usize) -> Result<ClusterReport> {
    let list = |cpu: usize, memory: usize| json!([{"name": "cpu", "quantity": cpu.to_string()}, {"name": "memory", "quantity": format!("{memory}Gi")}]);
    let spec = json!({
        "clusterUID": uid, "agentVersion": "0.1.0", "kubernetesVersion": "v1.33.1",
        "nodes": {"total": 50, "ready": 50},
        "allocatable": list(cores, cores * 4), "others": list(cores / 10, cores / 5),
    });
    object("ClusterReport", json!({"name": "cluster"}), spec)
}

fn app(n: usize, replicas: i32, placement: &Value, division: &str) -> Result<App> {
    let requests = json!({"requests": {"cpu": "500m", "memory": "1Gi"}});
    let container = json!({"name": "web", "image": format!("registry.example/web-{n}:1"), "resources": requests});
    let name = json!({"name": format!("web-{n}")});
    let metadata = json!({
        "name": format!("web-{n}"), "namespace": format!("tenant-{:02}", n % TENANTS),
        "uid": format!("uid-{n:05}"), "generation": replicas, "finalizers": [crds::APP_FINALIZER],
        "creationTimestamp": "2026-01-01T00:00:00Z",
    });
    let spec = json!({
        "zone": "ExtranetPublic", "dataGrade": "General", "placement": placement,
        "replicas": {"total": replicas, "division": division},
        "manifests": [
            {"apiVersion": "v1", "kind": "Service", "metadata": name},
            {
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": name,
                "spec": {"template": {"spec": {"containers": [container]}}},
            },
        ],
    });
    object("App", metadata, spec)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "both are made for this call, and read best inline"
)]
fn object<T: serde::de::DeserializeOwned>(kind: &str, metadata: Value, spec: Value) -> Result<T> {
    let object = json!({"apiVersion": "jiuzhou.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
    serde_json::from_value(object).with_context(|| format!("a {kind} as its schema says"))
}
