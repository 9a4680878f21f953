//! Installing Jiuzhou into a cluster: the CRDs and exactly the manifests that are shipped.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    discovery,
};

/// Field manager of everything an administrator would have applied by hand.
const MANAGER: &str = "sandbox";
/// Time for the API server to serve new kinds.
const ESTABLISHED: Duration = Duration::from_secs(20);

/// Folder of the shipped manifests.
fn charts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join("charts")
}

/// Installs the CRDs and waits until the kinds are served.
pub async fn crds(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in crds::all() {
        let name = crd.name_any();
        api.patch(
            &name,
            &PatchParams::apply(MANAGER).force(),
            &Patch::Apply(&crd),
        )
        .await
        .with_context(|| format!("apply CRD {name}"))?;
    }
    let served = async {
        loop {
            let list = api.list(&kube::api::ListParams::default()).await?;
            let established = |crd: &CustomResourceDefinition| {
                let conditions = crd
                    .status
                    .iter()
                    .flat_map(|s| s.conditions.iter().flatten());
                conditions
                    .into_iter()
                    .any(|c| c.type_ == "Established" && c.status == "True")
            };
            let ours = list.items.iter().filter(|c| c.spec.group == crds::GROUP);
            if ours.clone().count() > 0 && ours.clone().all(established) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(ESTABLISHED, served)
        .await
        .context("the CRDs are not served in time")?
}

/// Applies the manifests of one chart, file by file in the order of their names.
pub async fn chart(client: &Client, name: &str) -> Result<()> {
    let folder = charts().join(name).join("templates");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    if files.is_empty() {
        bail!("{} holds no manifests", folder.display());
    }
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        apply(client, &text)
            .await
            .with_context(|| format!("apply {}", file.display()))?;
    }
    Ok(())
}

/// Applies every document of a YAML text by server-side apply.
pub async fn apply(client: &Client, yaml: &str) -> Result<()> {
    for document in yaml.split("\n---") {
        let lines = || document.lines().map(str::trim);
        if lines().all(|line| line.is_empty() || line.starts_with('#') || line == "---") {
            continue;
        }
        let object: DynamicObject = serde_saphyr::from_str(document).context("read a manifest")?;
        apply_object(client, &object).await?;
    }
    Ok(())
}

async fn apply_object(client: &Client, object: &DynamicObject) -> Result<()> {
    let end = tokio::time::Instant::now() + ESTABLISHED;
    loop {
        match try_apply(client, object).await {
            Err(error) if is_too_early(&error) && tokio::time::Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            applied => return applied,
        }
    }
}

/// A kind that was defined a moment ago is found by nobody at first, and then unknown to server-side apply.
fn is_too_early(error: &anyhow::Error) -> bool {
    let found = error.chain().find_map(|e| e.downcast_ref::<kube::Error>());
    match found {
        Some(kube::Error::Api(status)) => [404, 503].contains(&status.code),
        Some(kube::Error::Discovery(_)) => true,
        Some(_) | None => false,
    }
}

async fn try_apply(client: &Client, object: &DynamicObject) -> Result<()> {
    let types = object.types.clone().context("a manifest without kind")?;
    let gvk = (&types).try_into()?;
    let (resource, capabilities) = discovery::pinned_kind(client, &gvk)
        .await
        .with_context(|| format!("find kind {}", types.kind))?;
    let api: Api<DynamicObject> = match (&capabilities.scope, object.namespace()) {
        (discovery::Scope::Namespaced, Some(namespace)) => {
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
        (discovery::Scope::Namespaced, None) => bail!("{} without namespace", object.name_any()),
        (discovery::Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams::apply(MANAGER).force();
    let name = object.name_any();
    api.patch(&name, &params, &Patch::Apply(object))
        .await
        .with_context(|| format!("apply {} {name}", types.kind))?;
    Ok(())
}
