//! How long a turn takes in a whole province: 10,000 Apps on 102 clusters, three regions each.
//!
//! `cargo run --release --package plan --example province_scale`

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "measuring takes a clock, and the figures are what it is for"
)]

use std::time::Duration;

use crds::{
    App, AssignmentSlice, ClusterName, ClusterReport, MemberCluster, Region, ReportEntry,
    ReportSlice, ReportSliceSpec, ReportState,
};
use plan::world::{Hub, Settings, StoredContent, World};
use plan::{PlanReport, Planner, check};
use serde_json::json;

const APPS: usize = 10_000;
const CLUSTERS: usize = 102;
const TENANTS: usize = 100;
const NOW: i64 = 1_800_000_000_000;

fn main() {
    let mut world = province();
    let mut planner = Planner::default();
    let begin = cpu_time();
    for n in 0..APPS {
        world.apply_app(&app(n, 12));
    }
    println!(
        "taking in {APPS} Apps: {:.1?}",
        cpu_time().saturating_sub(begin)
    );
    let plan = timed("cold, nothing placed", || planner.plan(&world));
    println!(
        "  {} slices, {} contents",
        plan.slices.len(),
        plan.contents.len()
    );
    let findings = timed("the second judge on it", || check(&world, &plan));
    assert!(findings.is_empty(), "{:?}", findings.first());
    for turn in 0..6 {
        carry_out(&mut world, &mut planner, turn);
    }
    let plan = timed("at rest", || planner.plan(&world));
    assert!(plan.slices.is_empty() && planner.report().changed.is_empty());
    let placed = world
        .apps()
        .filter(|(uid, _)| world.ledger(uid).is_some())
        .count();
    println!("  {placed} Apps placed");
    let _ = timed("cold, everything placed", || {
        Planner::default().plan(&world)
    });
    // A day later every content is old enough to be looked at.
    world.now += 25 * 3_600_000;
    hear(&mut world);
    let _ = planner.plan(&world);
    for (name, total) in [("after one App was scaled", 15), ("after another one", 18)] {
        world.apply_app(&app(total, i32::try_from(total).expect("a small number")));
        let plan = timed(name, || planner.plan(&world));
        println!("  {} slices", plan.slices.len());
    }
    hear(&mut world);
    let _ = timed("after a round of heartbeats", || planner.plan(&world));
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begin = cpu_time();
    let done = work();
    println!("{what}: {:.1?}", cpu_time().saturating_sub(begin));
    done
}

/// Time this thread has spent on a core, so that what else the machine does counts less.
fn cpu_time() -> Duration {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = spent.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Writes what was planned, and reports it as healthy, as a well-behaved fleet would.
fn carry_out(world: &mut World, planner: &mut Planner, turn: usize) {
    hear(world);
    let plan = planner.plan(world);
    for content in plan.contents {
        let hashes = content.items.into_iter().map(|item| item.hash).collect();
        let stored = StoredContent {
            tenant: content.tenant,
            hashes,
            created: NOW,
        };
        world.apply_content(&content.name, stored);
    }
    for write in plan.slices {
        let entries = write.spec.entries.iter();
        let reports = entries.map(|entry| ReportEntry {
            uid: entry.uid.clone(),
            generation: entry.generation,
            content: Some(entry.content.clone()),
            state: ReportState::Healthy,
            replicas: entry.stages.first().and_then(|s| s.replicas).unwrap_or(1),
            ready: entry.stages.first().and_then(|s| s.replicas).unwrap_or(1),
            reason: None,
            message: None,
        });
        let report = ReportSlice::new(
            &write.name,
            ReportSliceSpec {
                entries: reports.collect(),
            },
        );
        let mut slice = AssignmentSlice::new(&write.name, write.spec);
        slice.metadata.resource_version = Some((turn + 1).to_string());
        world.apply_slice(&write.cluster, slice, Some(world.now));
        world.apply_report(&write.cluster, report);
    }
    write_statuses(world, planner.report());
    world.now += 1_000;
}

fn write_statuses(world: &mut World, report: &PlanReport) {
    for uid in &report.changed {
        let number = uid
            .as_str()
            .trim_start_matches("uid-")
            .parse()
            .expect("our own UIDs");
        let mut app = app(number, 12);
        app.status = Some(report.apps[uid].status.clone());
        world.apply_app(&app);
    }
    for (name, status) in &report.clusters {
        let number = name
            .as_str()
            .trim_start_matches("cluster-")
            .parse()
            .expect("our own names");
        let mut cluster = cluster(number);
        cluster.status = Some(status.clone());
        world.apply_cluster(&cluster);
    }
}

fn hear(world: &mut World) {
    for n in 0..CLUSTERS {
        world.apply_heartbeat(&ClusterName::from(format!("cluster-{n:03}")), world.now);
    }
}

fn province() -> World {
    let hub = Hub {
        id: "hub".into(),
        epoch: 1,
        leader_epoch: 1,
    };
    let mut world = World::new(hub, Settings::default());
    (world.now, world.started) = (NOW, NOW);
    world.apply_region(&region("zhejiang", "Province", "330000", None));
    for n in 0..CLUSTERS {
        let (city, county) = (n / 9 + 1, n % 9 + 1);
        if n % 9 == 0 {
            let name = format!("city-{city:02}");
            world.apply_region(&region(
                &name,
                "City",
                &format!("33{city:02}00"),
                Some("zhejiang"),
            ));
        }
        let (name, parent) = (format!("county-{n:03}"), format!("city-{city:02}"));
        let code = format!("33{city:02}{county:02}");
        world.apply_region(&region(&name, "County", &code, Some(&parent)));
        let cluster = cluster(n);
        world.apply_cluster(&cluster);
        let report = report(&format!("uid-of-{n}"), 2_000 + 10 * n);
        world.apply_cluster_report(format!("cluster-{n:03}").into(), &report);
    }
    for tenant in 0..TENANTS {
        world.apply_namespace(
            format!("tenant-{tenant:02}").into(),
            format!("ns-{tenant}").into(),
        );
    }
    hear(&mut world);
    world
}

fn region(name: &str, level: &str, code: &str, parent: Option<&str>) -> Region {
    let spec = json!({"displayName": name, "level": level, "code": code, "parent": parent});
    let metadata = json!({"name": name, "generation": 1});
    from_json(
        json!({"apiVersion": "jiuzhou.io/v1alpha1", "kind": "Region", "metadata": metadata, "spec": spec}),
    )
}

fn cluster(n: usize) -> MemberCluster {
    from_json(json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "MemberCluster",
        "metadata": {"name": format!("cluster-{n:03}"), "generation": 1},
        "spec": {
            "regionName": format!("county-{n:03}"), "zone": "ExtranetPublic", "protectionLevel": 3,
            "maxDataGrade": "Important", "management": "Manage", "connection": {"pull": {}},
        },
    }))
}

fn report(uid: &str, cores: usize) -> ClusterReport {
    let list = |cpu: usize, memory: usize| json!([{"name": "cpu", "quantity": cpu.to_string()}, {"name": "memory", "quantity": format!("{memory}Gi")}]);
    from_json(json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "ClusterReport", "metadata": {"name": "cluster"},
        "spec": {
            "clusterUID": uid, "agentVersion": "0.1.0", "kubernetesVersion": "v1.33.1",
            "nodes": {"total": 50, "ready": 50},
            "allocatable": list(cores, cores * 4), "others": list(cores / 10, cores / 5),
        },
    }))
}

fn app(n: usize, replicas: i32) -> App {
    let requests = json!({"requests": {"cpu": "500m", "memory": "1Gi"}});
    let container = json!({"name": "web", "image": format!("registry.example/web-{n}:1"), "resources": requests});
    let metadata = json!({"name": format!("web-{n}")});
    from_json(json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {
            "name": format!("web-{n}"), "namespace": format!("tenant-{:02}", n % TENANTS),
            "uid": format!("uid-{n:05}"), "generation": replicas, "finalizers": [crds::APP_FINALIZER],
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "zone": "ExtranetPublic", "dataGrade": "General", "placement": {"maxRegions": 3},
            "replicas": {"total": replicas, "division": "Capacity"},
            "manifests": [
                {"apiVersion": "v1", "kind": "Service", "metadata": metadata},
                {
                    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
                    "spec": {"template": {"spec": {"containers": [container]}}},
                },
            ],
        },
    }))
}

fn from_json<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("the object is as its schema says")
}
