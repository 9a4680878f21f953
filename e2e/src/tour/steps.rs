//! The steps of the tour. Each does what a person would do and returns what it saw.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::{Context, Result, ensure};
use crds::{ConditionStatus, ConditionType, Reason, find_condition};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Stage,
    act::{delete_and_await, jiuzhou, set_tag, set_tag_back, set_tag_in_haste},
    look::{describe, kinds, list, region, until},
    nodes,
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
            "{} in {} ({:?}): {} cores requested",
            member.name,
            member.region,
            member.mode,
            cpu.replace('/', " of ")
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
    evidence.push_str(&divided(stage).await?);
    evidence.push_str("\n\n");
    evidence.push_str(&jiuzhou(
        stage,
        &["explain", "app", "health-code", "-n", "health"],
    )?);
    Ok(evidence)
}

/// Who has more nodes has more of the App, and together they have all of it.
async fn divided(stage: &Stage) -> Result<String> {
    let mut cities = Vec::new();
    for cluster in stage.placed().await? {
        let replicas = stage.replicas(&cluster).await?;
        let replicas = replicas.with_context(|| format!("{cluster} has no replicas"))?;
        cities.push((nodes(&cluster), replicas, cluster));
    }
    cities.sort();
    let lines: Vec<String> = cities
        .iter()
        .rev()
        .map(|(nodes, replicas, cluster)| {
            format!("{cluster}: {replicas} of 12 replicas, having {nodes} nodes")
        })
        .collect();
    let lines = lines.join("\n");
    ensure!(
        cities.len() == 3 && cities.iter().map(|(_, replicas, _)| replicas).sum::<i32>() == 12,
        "not 12 replicas in three cities:\n{lines}"
    );
    let uneven = |pair: &[(u32, i32, String)]| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1;
    ensure!(
        cities.windows(2).all(uneven),
        "a roomier city has no more than a smaller one:\n{lines}"
    );
    Ok(lines)
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
            let images = stage.images().await?;
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
    let after = stage.images().await?;
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
    set_tag_in_haste(stage, "broken").await?;
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
    let images = stage.images().await?;
    let bad = images.values().filter(|i| i.ends_with(":broken")).count();
    ensure!(bad == 1, "the bad version is in {bad} clusters: {images:?}");
    Ok(format!("{}\n{}", list(&images), describe(&app)))
}

/// The proven content goes back to the canary at once.
pub(super) async fn roll_back(stage: &mut Stage) -> Result<String> {
    set_tag_back(stage, "1.5.0").await?;
    let app = stage.ready().await?;
    Ok(format!(
        "{}\n{}",
        list(&stage.images().await?),
        describe(&app)
    ))
}

/// Somebody deletes the Deployment and scales it in another cluster.
pub(super) async fn repair(stage: &mut Stage) -> Result<String> {
    let took = delete_and_await(stage, "ningbo-a").await?;
    let placed = stage.replicas("hangzhou-a").await?;
    let placed = placed.context("hangzhou-a has no replicas")?;
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
        let replicas = stage.replicas("hangzhou-a").await?;
        Ok(if replicas == Some(placed) {
            Ok(())
        } else {
            Err(format!("{replicas:?}"))
        })
    })
    .await?;
    let back = began.elapsed().as_secs_f32();
    Ok(format!(
        "deleted in ningbo-a: back after {:.1} s\nscaled to 1 in hangzhou-a: {placed} again after {back:.1} s",
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
    let before = stage.uids().await?;
    stage.province.process("hub")?.start()?;
    let app = stage.ready().await?;
    sleep(Duration::from_secs(5)).await;
    let after = stage.uids().await?;
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
    let kinds = kinds(&stage.app().await?);
    let before = stage.managed(&kinds).await?;
    ensure!(!before.is_empty(), "nothing was managed before the delete");
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
    let left = stage.managed(&kinds).await?;
    ensure!(left.is_empty(), "still there: {}", left.join(", "));
    let kinds: Vec<&str> = kinds.iter().map(|(_, kind)| kind.as_str()).collect();
    Ok(format!(
        "gone from the hub after {:.1} s\nmanaged objects ({}) in {} clusters: {} before, none now",
        took.as_secs_f32(),
        kinds.join(", "),
        stage.fleet.clusters().len(),
        before.len()
    ))
}
