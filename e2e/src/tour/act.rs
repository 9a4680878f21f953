//! What a person does to the province in the steps, and the command line they use.

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Stage,
    look::{uid, until},
};

/// A usual deadline is ten minutes; the tour's spectators see a failure within seconds.
const DEADLINE_SECONDS: u32 = 6;

/// Deletes the Deployment as a person might, and waits for another one in its place.
pub(super) async fn delete_and_await(stage: &Stage, cluster: &str) -> Result<Duration> {
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

/// Gives the App's image another tag, as CI does.
pub(super) async fn set_tag(stage: &Stage, tag: &str) -> Result<()> {
    edit(stage, &json!([set_image(tag)])).await
}

/// Gives the image another tag, and the Deployment little time to get ready with it.
pub(super) async fn set_tag_in_haste(stage: &Stage, tag: &str) -> Result<()> {
    let deadline = json!({
        "op": "add", "path": deadline_path(stage).await?, "value": DEADLINE_SECONDS,
    });
    edit(stage, &json!([set_image(tag), deadline])).await
}

/// Takes back what [`set_tag_in_haste`] did.
pub(super) async fn set_tag_back(stage: &Stage, tag: &str) -> Result<()> {
    let deadline = json!({"op": "remove", "path": deadline_path(stage).await?});
    edit(stage, &json!([set_image(tag), deadline])).await
}

fn set_image(tag: &str) -> Value {
    json!({"op": "replace", "path": "/spec/images/0/newTag", "value": tag})
}

async fn deadline_path(stage: &Stage) -> Result<String> {
    let manifests = stage.app().await?.spec.manifests;
    let deployment = manifests
        .iter()
        .position(|manifest| manifest["kind"] == "Deployment");
    let at = deployment.context("the App has no Deployment")?;
    Ok(format!("/spec/manifests/{at}/spec/progressDeadlineSeconds"))
}

async fn edit(stage: &Stage, operations: &Value) -> Result<()> {
    let patch = Patch::Json::<()>(serde_json::from_value(operations.clone())?);
    stage
        .apps()
        .await?
        .patch("health-code", &PatchParams::default(), &patch)
        .await
        .context("edit the App")?;
    Ok(())
}

/// Runs the command line against a cluster, and says whether it ended well.
pub(super) fn jiuzhou_at(
    stage: &Stage,
    cluster: &str,
    arguments: &[&str],
) -> Result<(String, bool)> {
    let kubeconfig = stage.fleet.cluster(cluster)?.kubeconfig_file();
    let output = run(stage, kubeconfig, arguments)?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((told, output.status.success()))
}

fn run(stage: &Stage, kubeconfig: &Path, arguments: &[&str]) -> Result<Output> {
    Command::new(&stage.province.binary)
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .output()
        .context("run jiuzhou")
}

/// Runs the command line as a person would.
pub(super) fn jiuzhou(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let output = run(stage, stage.fleet.hub().kubeconfig_file(), arguments)?;
    ensure!(
        output.status.success(),
        "jiuzhou {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
