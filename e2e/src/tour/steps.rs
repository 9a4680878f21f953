//! The steps of the tour. Each does what a person would do and returns what it saw.

use std::{collections::BTreeMap, fmt::Write as _, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use crds::{App, ConditionStatus, ConditionType, Reason, find_condition};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Stage,
    look::{describe, image, region, uid, until},
};
use crate::province::install;

const APP: &str = include_str!("../../../docs/examples/health-code.yaml");

/// Every cluster joined, is in contact and reports its capacity.
pub(super) async fn join(stage: &mut Stage) -> Result<String> {
    let mut evidence = String::new();
    for member in &stage.members {
        let cpu = until("a cluster joined", || async {
            let cluster = stage.member_cluster(&member.name).await?;
            let status = cluster.status.unwrap_or_default();
            let ready = find_condition(&status.conditions, ConditionType::Ready);
            Ok(match (ready, status.cpu) {
                (Some(c), Some(cpu)) if c.status == ConditionStatus::True => Ok(cpu),
                (Some(c), _) => Err(format!("{}: {}", c.reason, c.message)),
                (None, _) => Err("no conditions".to_owned()),
            })
        })
        .await?;
        writeln!(
            evidence,
            "{} in {} ({:?}): {cpu} cores requested",
            member.name, member.region, member.mode
        )?;
    }
    Ok(evidence)
}

/// `kubectl apply` of an App, Ready, and the reason for every cluster.
pub(super) async fn place(stage: &mut Stage) -> Result<String> {
    let client = stage.fleet.hub().client().await?;
    install::apply(
        &client,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: health}",
    )
    .await?;
    let began = Instant::now();
    install::apply(&client, APP).await?;
    stage.ready().await?;
    let mut evidence = format!("Ready {:.1} s after apply\n", began.elapsed().as_secs_f32());
    evidence.push_str(&jiuzhou(
        stage,
        &["explain", "app", "health-code", "-n", "health"],
    )?);
    ensure!(
        stage.placed().await?.len() == 3,
        "the App is not placed on three cities: {evidence}"
    );
    Ok(evidence)
}

/// One city runs with another value than the rest.
pub(super) async fn differ(stage: &mut Stage) -> Result<String> {
    let mut values = BTreeMap::new();
    for cluster in stage.placed().await? {
        let deployment = stage
            .deployment(&cluster)
            .await?
            .context("the Deployment is missing")?;
        values.insert(cluster, region(&deployment));
    }
    for (cluster, value) in &values {
        let wanted = if cluster == "ningbo-a" {
            "ningbo"
        } else {
            "zhejiang"
        };
        ensure!(value == wanted, "REGION is {value} in {cluster}");
    }
    ensure!(
        values.contains_key("ningbo-a"),
        "the App does not run in ningbo"
    );
    let lines = values
        .iter()
        .map(|(cluster, value)| format!("{cluster}: REGION={value}"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The canary takes the new version alone, soaks, and the rest follows.
pub(super) async fn roll_out(stage: &mut Stage) -> Result<String> {
    set_tag(stage, "1.5.0").await?;
    let alone = until(
        "the canary has the new version and the others the old one",
        || async {
            let images = images(stage).await?;
            let canary = images
                .get("quzhou-a")
                .is_some_and(|i| i.ends_with(":1.5.0"));
            let old = images.values().filter(|i| i.ends_with(":1.4.2")).count();
            Ok(if canary && old == 2 {
                Ok(images)
            } else {
                Err(format!("{images:?}"))
            })
        },
    )
    .await?;
    let app = stage.ready().await?;
    let after = images(stage).await?;
    ensure!(
        after.values().all(|i| i.ends_with(":1.5.0")),
        "not everywhere: {after:?}"
    );
    Ok(format!(
        "first:  {}\nthen:   {}\n{}",
        list(&alone),
        list(&after),
        describe(&app)
    ))
}

/// A version whose pods never become ready stays in the canary.
pub(super) async fn stop_bad(stage: &mut Stage) -> Result<String> {
    set_tag(stage, "broken").await?;
    let app = until("the rollout stopped", || async {
        let app = stage.app().await?;
        let status = app.status.clone().unwrap_or_default();
        let ready = find_condition(&status.conditions, ConditionType::Ready);
        let stopped = ready.is_some_and(|c| c.reason == Reason::RolloutStopped);
        Ok(if stopped {
            Ok(app)
        } else {
            Err(describe(&app))
        })
    })
    .await?;
    let images = images(stage).await?;
    let bad = images.values().filter(|i| i.ends_with(":broken")).count();
    ensure!(bad == 1, "the bad version is in {bad} clusters: {images:?}");
    Ok(format!("{}\n{}", list(&images), describe(&app)))
}

/// The proven content goes back to the canary at once.
pub(super) async fn roll_back(stage: &mut Stage) -> Result<String> {
    set_tag(stage, "1.5.0").await?;
    let app = stage.ready().await?;
    Ok(format!(
        "{}\n{}",
        list(&images(stage).await?),
        describe(&app)
    ))
}

/// Somebody deletes the Deployment and scales it in another cluster.
pub(super) async fn repair(stage: &mut Stage) -> Result<String> {
    let took = delete_and_await(stage, "ningbo-a").await?;
    let client = stage.fleet.cluster("hangzhou-a")?.client().await?;
    let api: Api<Deployment> = Api::namespaced(client, "health");
    let scaled = json!({"spec": {"replicas": 1}});
    api.patch(
        "health-code",
        &PatchParams::default(),
        &Patch::Merge(&scaled),
    )
    .await?;
    let began = Instant::now();
    until("the scale is put back", || async {
        let replicas = replicas(stage, "hangzhou-a").await?;
        Ok(if replicas == Some(4) {
            Ok(())
        } else {
            Err(format!("{replicas:?}"))
        })
    })
    .await?;
    let back = began.elapsed().as_secs_f32();
    Ok(format!(
        "deleted in ningbo-a: back after {:.1} s\nscaled to 1 in hangzhou-a: 4 again after {back:.1} s",
        took.as_secs_f32()
    ))
}

/// With the hub gone a city repairs, its agent is killed and started, and it repairs again.
pub(super) async fn lose_hub(stage: &mut Stage) -> Result<String> {
    // The agent writes its memory at most every ten seconds.
    sleep(Duration::from_secs(11)).await;
    stage.province.process("hub")?.kill()?;
    let first = delete_and_await(stage, "ningbo-a").await?;
    let agent = stage.province.process("agent-ningbo-a")?;
    agent.kill()?;
    agent.start()?;
    let second = delete_and_await(stage, "ningbo-a").await?;
    Ok(format!(
        "hub killed; deleted in ningbo-a: back after {:.1} s\nits agent killed and started; deleted again: back after {:.1} s",
        first.as_secs_f32(),
        second.as_secs_f32()
    ))
}

/// The same objects are there before and after.
pub(super) async fn hub_returns(stage: &mut Stage) -> Result<String> {
    let before = uids(stage).await?;
    stage.province.process("hub")?.start()?;
    let app = stage.ready().await?;
    sleep(Duration::from_secs(5)).await;
    let after = uids(stage).await?;
    ensure!(
        before == after,
        "objects changed: {before:?} became {after:?}"
    );
    Ok(format!(
        "{} Deployments have the UIDs they had\n{}",
        after.len(),
        describe(&app)
    ))
}

/// A paused API server answers nobody: the cluster turns stale, the App stays where it is.
pub(super) async fn cut_off(stage: &mut Stage) -> Result<String> {
    let before = stage.placed().await?;
    let cut = stage.fleet.cluster("hangzhou-a")?.apiserver();
    cut.pause()?;
    let shown = until("the cluster is shown as out of contact", || async {
        let status = stage
            .member_cluster("hangzhou-a")
            .await?
            .status
            .unwrap_or_default();
        let reach = find_condition(&status.conditions, ConditionType::Reachable).cloned();
        Ok(match reach {
            Some(c) if c.reason == Reason::OutOfContact => Ok(c.message),
            other => Err(format!("{other:?}")),
        })
    })
    .await;
    let told = until(
        "the App says that it is not known how it is there",
        || async {
            let status = stage.app().await?.status.unwrap_or_default();
            let ready = find_condition(&status.conditions, ConditionType::Ready).cloned();
            Ok(match ready {
                Some(c) if c.status == ConditionStatus::Unknown => {
                    Ok(format!("Ready={:?} {}: {}", c.status, c.reason, c.message))
                }
                other => Err(format!("{other:?}")),
            })
        },
    )
    .await;
    let during = stage.placed().await;
    stage.fleet.cluster("hangzhou-a")?.apiserver().resume()?;
    let (shown, told, during) = (shown?, told?, during?);
    ensure!(
        before == during,
        "the App moved: {before:?} became {during:?}"
    );
    stage.ready().await?;
    Ok(format!(
        "MemberCluster hangzhou-a: {shown}\nApp: {told}\nplaced before, during and after: {}",
        stage.placed().await?.join(" ")
    ))
}

/// Nothing managed is left in any cluster.
pub(super) async fn delete(stage: &mut Stage) -> Result<String> {
    let began = Instant::now();
    stage
        .apps()
        .await?
        .delete("health-code", &DeleteParams::default())
        .await?;
    until("the App is gone", || async {
        let gone = stage.apps().await?.get_opt("health-code").await?;
        Ok(gone.map_or(Ok(()), |app| Err(describe(&app))))
    })
    .await?;
    let took = began.elapsed();
    let managed = ListParams::default().labels("jiuzhou.io/app=health-code");
    for cluster in stage.fleet.clusters() {
        let api: Api<Deployment> = Api::all(cluster.client().await?);
        let left = api.list(&managed).await?.items;
        ensure!(
            left.is_empty(),
            "{} still holds {:?}",
            cluster.name(),
            left[0].name_any()
        );
    }
    Ok(format!(
        "gone from the hub after {:.1} s, no managed object left in {} clusters",
        took.as_secs_f32(),
        stage.fleet.clusters().len()
    ))
}

/// Deletes the Deployment as a person might, and waits for another one in its place.
async fn delete_and_await(stage: &Stage, cluster: &str) -> Result<Duration> {
    let old = uid(&stage
        .deployment(cluster)
        .await?
        .context("the Deployment is missing")?);
    let client = stage.fleet.cluster(cluster)?.client().await?;
    let api: Api<Deployment> = Api::namespaced(client, "health");
    api.delete("health-code", &DeleteParams::background())
        .await?;
    let began = Instant::now();
    until("the Deployment is back", || async {
        let now = stage.deployment(cluster).await?.map(|d| uid(&d));
        Ok(match now {
            Some(uid) if uid != old => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })
    .await?;
    Ok(began.elapsed())
}

async fn set_tag(stage: &Stage, tag: &str) -> Result<()> {
    let patch =
        json!({"spec": {"images": [{"name": "registry.example/health-code", "newTag": tag}]}});
    let api: Api<App> = stage.apps().await?;
    api.patch(
        "health-code",
        &PatchParams::default(),
        &Patch::Merge(&patch),
    )
    .await?;
    Ok(())
}

async fn images(stage: &Stage) -> Result<BTreeMap<String, String>> {
    let mut images = BTreeMap::new();
    for cluster in stage.placed().await? {
        if let Some(deployment) = stage.deployment(&cluster).await? {
            images.insert(cluster, image(&deployment));
        }
    }
    Ok(images)
}

async fn uids(stage: &Stage) -> Result<BTreeMap<String, String>> {
    let mut uids = BTreeMap::new();
    for cluster in stage.placed().await? {
        if let Some(deployment) = stage.deployment(&cluster).await? {
            uids.insert(cluster, uid(&deployment));
        }
    }
    Ok(uids)
}

async fn replicas(stage: &Stage, cluster: &str) -> Result<Option<i32>> {
    Ok(stage
        .deployment(cluster)
        .await?
        .and_then(|d| d.spec)
        .and_then(|s| s.replicas))
}

fn list(images: &BTreeMap<String, String>) -> String {
    let tag = |(cluster, image): (&String, &String)| {
        format!("{cluster}={}", image.rsplit(':').next().unwrap_or_default())
    };
    images.iter().map(tag).collect::<Vec<_>>().join(" ")
}

/// Runs the command line as a person would.
fn jiuzhou(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let output = Command::new(&stage.province.binary)
        .args(arguments)
        .env("KUBECONFIG", stage.fleet.hub().kubeconfig_file())
        .output()
        .context("run jiuzhou")?;
    ensure!(
        output.status.success(),
        "jiuzhou {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
