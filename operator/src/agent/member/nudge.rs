//! Has workloads try again to make pods that were refused.

use crds::label;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use plan::object::Kind;
use plan::realize::Nudge;
use serde_json::json;

use super::Member;

/// Annotation whose change has a controller look at its object again at once.
const NUDGED: &str = "jiuzhou.io/nudged";

impl Member {
    /// Whatever makes the pods is looked at again by its controller. A Deployment itself is left alone:
    /// each of its ReplicaSets waits for itself.
    pub(super) async fn nudge(&self, nudge: &Nudge) -> Result<(), kube::Error> {
        let namespace = nudge.key.namespace.as_str();
        let now = jiff::Timestamp::now().to_string();
        let note = self.stamp(json!({"metadata": {"annotations": {NUDGED: now}}}));
        let (params, note) = (PatchParams::default(), Patch::Merge(&note));
        if nudge.key.kind == Kind::StatefulSet {
            let sets: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
            sets.patch_metadata(&nudge.key.name, &params, &note).await?;
            return Ok(());
        }
        let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
        let of_app = format!("{}={}", label::APP_UID, nudge.app);
        let refused = |set: &ReplicaSet| {
            let conditions = set
                .status
                .iter()
                .flat_map(|s| s.conditions.iter().flatten());
            let mut failed = conditions.filter(|c| c.type_ == "ReplicaFailure");
            failed.any(|c| c.status == "True")
        };
        let all = sets.list(&ListParams::default().labels(&of_app)).await?;
        for set in all.iter().filter(|set| refused(set)) {
            sets.patch_metadata(&set.name_any(), &params, &note).await?;
        }
        Ok(())
    }
}
