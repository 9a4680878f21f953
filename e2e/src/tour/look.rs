//! Looking at the province: what the steps' evidence is made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    future::Future,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use crds::{App, ConditionStatus, ConditionType, Manifest, MemberCluster, find_condition};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams, TypeMeta},
    discovery,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Stage;

/// Far beyond what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);

/// Waits until a look at the province shows what is expected; says what it last saw otherwise.
pub(super) async fn until<T, F, L>(what: &str, mut look: L) -> Result<T>
where
    T: Debug,
    L: FnMut() -> F,
    F: Future<Output = Result<Result<T, String>>>,
{
    let end = Instant::now() + DEADLINE;
    loop {
        match look().await? {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() > end => {
                bail!("{what}: not within {DEADLINE:?}; last seen: {seen}")
            }
            Err(_) => sleep(POLL).await,
        }
    }
}

impl Stage {
    /// The Apps of the tour's tenant.
    pub(super) async fn apps(&self) -> Result<Api<App>> {
        Ok(Api::namespaced(self.fleet.hub().client().await?, "health"))
    }

    /// The App as it is.
    pub(super) async fn app(&self) -> Result<App> {
        self.apps()
            .await?
            .get("health-code")
            .await
            .context("read the App")
    }

    /// A MemberCluster as it is.
    pub(super) async fn member_cluster(&self, name: &str) -> Result<MemberCluster> {
        let api: Api<MemberCluster> = Api::all(self.fleet.hub().client().await?);
        api.get(name).await.context("read the MemberCluster")
    }

    /// The App's Deployment in a cluster, if it is there.
    pub(super) async fn deployment(&self, cluster: &str) -> Result<Option<Deployment>> {
        let client = self.fleet.cluster(cluster)?.client().await?;
        let api: Api<Deployment> = Api::namespaced(client, "health");
        api.get_opt("health-code")
            .await
            .context("read the Deployment")
    }

    /// Waits until the App is Ready and observed at its newest generation.
    pub(super) async fn ready(&self) -> Result<App> {
        until("the App is Ready", || async {
            let app = self.app().await?;
            let status = app.status.clone().unwrap_or_default();
            let ready = find_condition(&status.conditions, ConditionType::Ready);
            let holds = ready.is_some_and(|c| c.status == ConditionStatus::True)
                && status.observed_generation == app.metadata.generation;
            Ok(if holds { Ok(app) } else { Err(describe(&app)) })
        })
        .await
    }

    /// The clusters the App is placed on.
    pub(super) async fn placed(&self) -> Result<Vec<String>> {
        let status = self.app().await?.status.unwrap_or_default();
        let mut names: Vec<String> = status
            .placements
            .iter()
            .map(|p| p.cluster_name.to_string())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Images of the Deployments, by cluster.
    pub(super) async fn images(&self) -> Result<BTreeMap<String, String>> {
        let mut images = BTreeMap::new();
        for cluster in self.placed().await? {
            if let Some(deployment) = self.deployment(&cluster).await? {
                images.insert(cluster, image(&deployment));
            }
        }
        Ok(images)
    }

    /// UIDs of the Deployments, by cluster.
    pub(super) async fn uids(&self) -> Result<BTreeMap<String, String>> {
        let mut uids = BTreeMap::new();
        for cluster in self.placed().await? {
            if let Some(deployment) = self.deployment(&cluster).await? {
                uids.insert(cluster, uid(&deployment));
            }
        }
        Ok(uids)
    }

    /// Replicas that the Deployment in a cluster asks for.
    pub(super) async fn replicas(&self, cluster: &str) -> Result<Option<i32>> {
        Ok(self
            .deployment(cluster)
            .await?
            .and_then(|d| d.spec)
            .and_then(|s| s.replicas))
    }

    /// Every object in any cluster that is managed for the App, of the kinds of its manifests.
    pub(super) async fn managed(&self, kinds: &BTreeSet<(String, String)>) -> Result<Vec<String>> {
        let ours = ListParams::default().labels("jiuzhou.io/app=health-code");
        let mut found = Vec::new();
        for cluster in self.fleet.clusters() {
            let client = cluster.client().await?;
            for (api_version, kind) in kinds {
                let types = TypeMeta {
                    api_version: api_version.clone(),
                    kind: kind.clone(),
                };
                let (resource, _) = discovery::pinned_kind(&client, &(&types).try_into()?)
                    .await
                    .with_context(|| format!("find kind {kind}"))?;
                let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
                let objects = api.list(&ours).await?;
                let name =
                    |o: &DynamicObject| format!("{kind} {} in {}", o.name_any(), cluster.name());
                found.extend(objects.iter().map(name));
            }
        }
        Ok(found)
    }
}

/// The kinds of an App's manifests, with their API versions.
pub(super) fn kinds(app: &App) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = |manifest: &Manifest| (text(&manifest["apiVersion"]), text(&manifest["kind"]));
    app.spec.manifests.iter().map(kind).collect()
}

/// The App's conditions in one line.
pub(super) fn describe(app: &App) -> String {
    let status = app.status.clone().unwrap_or_default();
    let ready = find_condition(&status.conditions, ConditionType::Ready);
    ready.map_or_else(
        || "no conditions".to_owned(),
        |c| format!("Ready={:?} {}: {}", c.status, c.reason, c.message),
    )
}

/// The image of a Deployment's first container.
pub(super) fn image(deployment: &Deployment) -> String {
    container(deployment)
        .and_then(|c| c.image.clone())
        .unwrap_or_default()
}

/// The value of the variable REGION in a Deployment's first container.
pub(super) fn region(deployment: &Deployment) -> String {
    let env = container(deployment)
        .and_then(|c| c.env.clone())
        .unwrap_or_default();
    env.into_iter()
        .find(|e| e.name == "REGION")
        .and_then(|e| e.value)
        .unwrap_or_default()
}

fn container(deployment: &Deployment) -> Option<&k8s_openapi::api::core::v1::Container> {
    deployment
        .spec
        .as_ref()?
        .template
        .spec
        .as_ref()?
        .containers
        .first()
}

/// UID of an object.
pub(super) fn uid(deployment: &Deployment) -> String {
    deployment.uid().unwrap_or_default()
}

/// Clusters with the tags of their images, in one line.
pub(super) fn list(images: &BTreeMap<String, String>) -> String {
    let tag = |(cluster, image): (&String, &String)| {
        format!("{cluster}={}", image.rsplit(':').next().unwrap_or_default())
    };
    images.iter().map(tag).collect::<Vec<_>>().join(" ")
}
