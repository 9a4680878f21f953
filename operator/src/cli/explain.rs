//! `jiuzhou explain app`: for every cluster, accepted or refused and why; the state of the rollout; the
//! Quotas that the App draws on; what isolates it, which Links lead through, and what protects it.

mod isolation;
mod protection;
mod quotas;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use crds::{AppName, Condition, ConditionStatus, ConditionType, NamespaceName, Uid};
use kube::Client;
use plan::province::Draw;
use plan::report::{Answer, AppReport, Why, policies_for};
use plan::{PlanReport, Planner, World};
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
    let Some(found) = Found::of(&world, &uid) else {
        bail!("the plan does not know App {name}")
    };
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        writeln!(out, "{:#}", as_json(&found, &world))?;
    } else {
        let show = Show {
            paint: Paint::stdout(),
            columns: columns(),
        };
        write!(out, "{}", as_text(&found, &world, show))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a plan of this very moment says of an App.
struct Found {
    planner: Planner,
    app: Arc<AppReport>,
    /// `None` when no Quota limits its tenant.
    draws: Option<Vec<Draw>>,
}

impl Found {
    fn of(world: &World, uid: &Uid) -> Option<Self> {
        let mut planner = Planner::default();
        let _plan = planner.plan(world);
        Some(Self {
            app: planner.report().apps.get(uid)?.clone(),
            draws: planner.draws(world, uid),
            planner,
        })
    }

    fn report(&self) -> &PlanReport {
        self.planner.report()
    }
}

fn as_json(found: &Found, world: &World) -> serde_json::Value {
    let (app, report) = (&found.app, found.report());
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
        "quotas": found.draws.as_deref().map(quotas::as_json),
        "isolation": isolation::walls_as_json(&found.planner.walls(world, app)),
        "links": isolation::paths_as_json(&found.planner.paths(world, app)),
        "policies": protection::as_json(&policies_for(world, &app.uid)),
    })
}

fn as_text(found: &Found, world: &World, show: Show) -> String {
    let (app, report) = (&found.app, found.report());
    let mut lines = vec![format!("App {}/{}", app.namespace, app.name)];
    let mut said = BTreeMap::new();
    for condition in &app.status.conditions {
        let first = said.get(&condition.message).copied();
        lines.extend(condition_lines(condition, first, show));
        said.entry(&condition.message).or_insert(condition.kind);
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
    let quotas = quotas::as_text(found.draws.as_deref(), app, show);
    let walls = isolation::walls_as_text(&found.planner.walls(world, app), show);
    let paths = isolation::paths_as_text(&found.planner.paths(world, app), show);
    let sections = [
        lines.join("\n") + "\n",
        table.to_string(),
        quotas,
        walls,
        paths,
        protection::as_text(&policies_for(world, &app.uid), show),
    ];
    let sections: Vec<String> = sections.into_iter().filter(|s| !s.is_empty()).collect();
    sections.join("\n")
}

/// Whether the App is there now, and stays.
fn placed(answer: &Answer, paint: Paint) -> Painted {
    let leaves = matches!(answer.why, Why::Leaves(_) | Why::Removing | Why::Releasing);
    match (answer.chosen, leaves) {
        (true, _) => paint.good("yes"),
        (false, true) => paint.unsure("leaving"),
        (false, false) => paint.unsure("no"),
    }
}

/// Cores requested and allocatable, as the MemberCluster shows them.
fn cpu(report: &PlanReport, cluster: &crds::ClusterName) -> Option<String> {
    report.clusters.get(cluster)?.cpu.clone()
}

/// A condition, its message broken under its head where people read it. What another one said already is
/// not said again.
fn condition_lines(condition: &Condition, first: Option<ConditionType>, show: Show) -> Vec<String> {
    let status = match condition.status {
        ConditionStatus::True => show.paint.good("True"),
        ConditionStatus::False => show.paint.bad("False"),
        ConditionStatus::Unknown => show.paint.unsure("Unknown"),
    };
    let (kind, reason) = (condition.kind, condition.reason);
    let head = format!("  {kind:?}={status} {reason}:");
    let seen = format!("  {kind:?}={} {reason}:", status.text);
    let same = first.map(|first| format!("as {first:?} says"));
    let message = same.as_ref().unwrap_or(&condition.message);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crds::{App, ClusterReport, MemberCluster, Region};
    use plan::world::{Hub, Settings};

    const NOW: i64 = 1_800_000_000_000;

    /// Two cities, one of them in another zone, and an App that nothing has been decided for.
    fn world() -> World {
        let hub = Hub {
            id: "hub-1".into(),
            epoch: 1,
            leader_epoch: 1,
        };
        let mut world = World::new(hub, Settings::default());
        (world.now, world.started) = (NOW, NOW);
        world.apply_namespace(
            &"health".into(),
            plan::world::NamespaceSlot::plain("ns-health".into()),
        );
        let region = |name: &str, level: &str, code: &str, parent: Option<&str>| -> Region {
            serde_json::from_value(json!({
                "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Region", "metadata": {"name": name, "generation": 1},
                "spec": {"displayName": name, "level": level, "code": code, "parent": parent},
            }))
            .unwrap()
        };
        world.apply_region(&region("zhejiang", "Province", "330000", None));
        for (city, code, zone) in [
            ("hangzhou", "330100", "ExtranetPublic"),
            ("ningbo", "330200", "Internet"),
        ] {
            world.apply_region(&region(city, "City", code, Some("zhejiang")));
            let name = format!("{city}-a");
            let cluster: MemberCluster = serde_json::from_value(json!({
                "apiVersion": "jiuzhou.io/v1alpha1", "kind": "MemberCluster",
                "metadata": {"name": name, "generation": 1},
                "spec": {
                    "regionName": city, "zone": zone, "protectionLevel": 3,
                    "maxDataGrade": "Important", "management": "Manage", "connection": {"pull": {}},
                },
            }))
            .unwrap();
            world.apply_cluster(&cluster);
            let report: ClusterReport = serde_json::from_value(json!({
                "apiVersion": "jiuzhou.io/v1alpha1", "kind": "ClusterReport",
                "metadata": {"name": "cluster"},
                "spec": {
                    "clusterUID": name, "agentVersion": "0.1.0", "kubernetesVersion": "v1.33.1",
                    "nodes": {"total": 3, "ready": 3},
                    "allocatable": [{"name": "cpu", "quantity": "40"}],
                },
            }))
            .unwrap();
            world.apply_cluster_report(name.as_str().into(), &report);
            world.apply_heartbeat(&name.as_str().into(), NOW);
        }
        world.heard = NOW;
        world.apply_app(&app());
        world
    }

    fn app() -> App {
        let container = json!({
            "name": "web", "image": "registry.example/web:1",
            "resources": {"requests": {"cpu": "2"}},
        });
        serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
            "metadata": {
                "name": "web", "namespace": "health", "uid": "u", "generation": 1,
                "finalizers": [crds::APP_FINALIZER],
            },
            "spec": {
                "zone": "ExtranetPublic", "dataGrade": "General",
                "replicas": {"total": 4, "division": "Capacity"},
                "manifests": [{
                    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                    "spec": {"template": {"spec": {"containers": [container]}}},
                }],
            },
        }))
        .unwrap()
    }

    fn text(columns: Option<usize>) -> String {
        let world = world();
        let show = Show {
            paint: Paint::never(),
            columns,
        };
        as_text(&Found::of(&world, &"u".into()).unwrap(), &world, show)
    }

    #[test]
    fn programs_read_one_row_a_line() {
        let text = text(None);
        let section = |number: usize| {
            let section = text.split("\n\n").nth(number).unwrap();
            section.lines().collect::<Vec<_>>()
        };
        assert_eq!(section(2), ["No Quota limits namespace health."]);
        assert_eq!(
            section(3),
            [
                "CLUSTER     ISOLATION  FROM      MEANS",
                "hangzhou-a  Coming     defaults  pods held to Baseline; reaches DNS, its own \
                 namespace and its Links; images from anywhere; what somebody weakens is put back",
            ]
        );
        assert_eq!(
            section(1),
            [
                "CLUSTER     REGION    PLACED  REPLICAS  CPU   WHY",
                "hangzhou-a  hangzhou  yes     4         0/40  4 of 4 replicas by Capacity; chosen \
                 now; room for 20 more, 40 cores free; Pending",
                "ningbo-a    ningbo    no      -         0/40  its spec.zone is Internet and the \
                 App's is ExtranetPublic: the two have to be the same",
            ]
        );
    }

    #[test]
    fn people_read_lines_that_fit_into_a_hundred_columns() {
        let text = text(Some(100));
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let words = |text: &str| {
            let words = text.split_whitespace().map(str::to_owned);
            words.collect::<Vec<_>>()
        };
        assert_eq!(
            words(&text),
            words(&self::text(None)),
            "nothing is left out"
        );
    }

    #[test]
    fn json_carries_word_sentence_and_room_of_every_cluster() {
        let world = world();
        let value = as_json(&Found::of(&world, &"u".into()).unwrap(), &world);
        assert_eq!(
            value["clusters"],
            json!([
                {
                    "cluster": "hangzhou-a", "region": "hangzhou", "chosen": true, "replicas": 4,
                    "score": 1000, "reason": "Chosen", "freeCores": "40", "roomFor": 20,
                    "why": "4 of 4 replicas by Capacity; chosen now; room for 20 more, 40 cores \
                            free; Pending",
                },
                {
                    "cluster": "ningbo-a", "region": "ningbo", "chosen": false, "replicas": null,
                    "score": 1000, "reason": "Zone", "freeCores": "40", "roomFor": 20,
                    "why": "its spec.zone is Internet and the App's is ExtranetPublic: the two \
                            have to be the same",
                },
            ])
        );
    }
}
