//! The two writes of a kubelet: a pod's status, and the removal of one that is gone.

use anyhow::Result;
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;

use super::{Entry, Pods, Uid, write_deadline};

/// How a write ended.
pub(super) struct Written {
    pub(super) uid: Uid,
    /// The version that was written over.
    pub(super) base: Option<String>,
    pub(super) outcome: Result<Option<Pod>>,
}

impl Pods {
    pub(super) fn report(&mut self, uid: &Uid, status: &PodStatus) {
        let Some((api, name, entry)) = self.target(uid) else {
            return;
        };
        let patch = json!({
            // A conflict means that an event with what is true now is on its way.
            "metadata": {"uid": uid, "resourceVersion": entry.pod.resource_version()},
            "status": status,
        });
        entry.writing = true;
        let base = entry.pod.resource_version();
        let uid = uid.clone();
        let write = async move {
            let params = PatchParams::default();
            let patch = Patch::Merge(&patch);
            let answer = write_deadline(api.patch_status(&name, &params, &patch)).await;
            Written {
                uid,
                base,
                outcome: expected_races(answer.map(Some)),
            }
        };
        self.writes.push(write.boxed());
    }

    pub(super) fn delete(&mut self, uid: &Uid) {
        let Some((api, name, entry)) = self.target(uid) else {
            return;
        };
        entry.writing = true;
        let uid = uid.clone();
        let write = async move {
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions {
                    uid: Some(uid.clone()),
                    ..Default::default()
                }),
                ..DeleteParams::default()
            };
            let answer = write_deadline(api.delete(&name, &params)).await;
            Written {
                uid,
                base: None,
                outcome: expected_races(answer.map(|_| None)),
            }
        };
        self.writes.push(write.boxed());
    }

    fn target(&mut self, uid: &Uid) -> Option<(Api<Pod>, String, &mut Entry)> {
        let entry = self.entries.get_mut(uid)?;
        let api = Api::namespaced(self.client.clone(), &entry.pod.namespace()?);
        Some((api, entry.pod.name_any(), entry))
    }
}

/// That a pod is gone, or was changed by another, is no failure.
fn expected_races<T>(answer: Result<Option<T>>) -> Result<Option<T>> {
    let error = match answer {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(None),
        _ => Err(error),
    }
}
