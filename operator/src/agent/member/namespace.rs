//! A tenant's namespace in the member cluster, and the rights in it.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::{FIELD_MANAGER, NamespaceName, label};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use plan::object::Kind;
use plan::realize::Access;
use serde_json::json;

use super::{BOUND, Member, TENANT_ACCOUNT};

impl Member {
    /// The tenant's namespace, its ServiceAccount, and the rights of both sides in it.
    pub(super) async fn prepare(
        &self,
        name: &NamespaceName,
        exists: bool,
    ) -> Result<(), kube::Error> {
        let apply = PatchParams::apply(FIELD_MANAGER).force();
        let labels = BTreeMap::from([
            (label::MANAGED_BY, label::MANAGED_BY_VALUE),
            (label::TENANT, name.as_str()),
        ]);
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let bare = self.stamp(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
        if exists {
            // Merged, not applied: that rights are in place is said until it turns out otherwise.
            namespaces
                .patch(name.as_str(), &PatchParams::default(), &Patch::Merge(&bare))
                .await?;
        } else {
            let mut bare = bare;
            bare["metadata"]["annotations"][label::CREATED] = json!("true");
            // Not applied: when somebody created one meanwhile, it is not ours, and the watch tells.
            let create = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            let new = serde_json::from_value(bare).map_err(kube::Error::SerdeError)?;
            namespaces.create(&create, &new).await?;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name.as_str());
        let account = self.stamp(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": TENANT_ACCOUNT, "namespace": name, "labels": labels},
            "automountServiceAccountToken": false,
        }));
        accounts
            .patch(TENANT_ACCOUNT, &apply, &Patch::Apply(&account))
            .await?;
        let tenant = Subject {
            kind: "ServiceAccount".to_owned(),
            name: TENANT_ACCOUNT.to_owned(),
            namespace: Some(name.to_string()),
            ..Subject::default()
        };
        self.bind(name, "jiuzhou-agent-namespace", self.subject.clone())
            .await?;
        self.bind(name, "jiuzhou-tenant", tenant).await?;
        self.await_rights(name).await;
        let bound = self.stamp(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels, "annotations": {BOUND: self.identity()}},
        }));
        namespaces
            .patch(
                name.as_str(),
                &PatchParams::default(),
                &Patch::Merge(&bound),
            )
            .await?;
        Ok(())
    }

    async fn bind(
        &self,
        namespace: &NamespaceName,
        role: &str,
        subject: Subject,
    ) -> Result<(), kube::Error> {
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), namespace.as_str());
        let role_ref = RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "ClusterRole".to_owned(),
            name: role.to_owned(),
        };
        let binding = self.stamp(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": namespace, "labels": {label::MANAGED_BY: label::MANAGED_BY_VALUE}},
            "roleRef": role_ref, "subjects": [subject],
        }));
        bindings
            .patch(
                role,
                &PatchParams::apply(FIELD_MANAGER).force(),
                &Patch::Apply(&binding),
            )
            .await?;
        Ok(())
    }

    /// Rights take a moment to reach the authorizer; asking a little earlier would only look like a
    /// refusal. What is still refused after two seconds is shown as such.
    async fn await_rights(&self, namespace: &NamespaceName) {
        for _ in 0..20 {
            if matches!(
                self.ask(namespace, Kind::ConfigMap).await,
                Ok(Access::Allowed)
            ) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
