//! Our finalizer on exactly one object.

use std::fmt::Debug;

use crds::{APP_FINALIZER, Uid, label};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

/// Sets our finalizer or takes it away, and leaves those of others. `None` when the object is gone or
/// another one has its name; one that is being deleted takes no new finalizer.
pub(super) async fn set<K>(
    objects: &Api<K>,
    name: &str,
    uid: &Uid,
    held: bool,
    epoch: i64,
) -> Result<Option<K>, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let current = objects.get_opt(name).await?;
    let exactly = |current: &K| current.uid().as_deref() == Some(uid.as_str());
    let Some(current) = current.filter(exactly) else {
        return Ok(None);
    };
    if held && current.meta().deletion_timestamp.is_some() {
        return Ok(None);
    }
    let mut finalizers = current.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != APP_FINALIZER);
    finalizers.extend(held.then(|| APP_FINALIZER.to_owned()));
    let patch = json!({"metadata": {
        "uid": uid,
        "resourceVersion": current.resource_version(),
        "finalizers": finalizers,
        "annotations": {label::LEADER_EPOCH: epoch.to_string()},
    }});
    let params = PatchParams::default();
    let written = objects.patch(name, &params, &Patch::Merge(&patch)).await?;
    Ok(Some(written))
}
