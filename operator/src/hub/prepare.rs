//! A cluster's place at the hub: its namespace, the identity of its agent, and the rights of both
//! sides in it, by roles that the installation ships. The hub may bind these and no others.

use std::collections::BTreeMap;

use crds::{CONTENT_NAMESPACE, ClusterName, SYSTEM_NAMESPACE, cluster_namespace, label};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Annotation on a cluster's namespace: everything in it is in place.
pub(super) const PREPARED: &str = "jiuzhou.io/prepared";
/// Field manager of the hub.
pub(super) const MANAGER: &str = "jiuzhou-hub";

/// Sets up the place of one cluster. Safe to repeat.
pub(super) async fn prepare(
    client: &Client,
    cluster: &ClusterName,
    leader_epoch: i64,
) -> Result<(), kube::Error> {
    let place = cluster_namespace(cluster);
    let apply = PatchParams::apply(MANAGER).force();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .patch(
            &place,
            &apply,
            &Patch::Apply(&namespace(&place, cluster, leader_epoch, false)),
        )
        .await?;
    let hub = subject("jiuzhou-hub", SYSTEM_NAMESPACE);
    let agent = subject("agent", &place);
    bind(
        client,
        &place,
        "jiuzhou-hub-cluster-namespace",
        "jiuzhou-hub",
        &hub,
        leader_epoch,
    )
    .await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &place);
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": metadata("agent", Some(&place), cluster, leader_epoch),
        "automountServiceAccountToken": false,
    });
    accounts
        .patch("agent", &apply, &Patch::Apply(&account))
        .await?;
    bind(
        client,
        &place,
        "jiuzhou-agent-hub",
        "jiuzhou-agent",
        &agent,
        leader_epoch,
    )
    .await?;
    bind(
        client,
        CONTENT_NAMESPACE,
        "jiuzhou-content-reader",
        &format!("agent-{cluster}"),
        &agent,
        leader_epoch,
    )
    .await?;
    namespaces
        .patch(
            &place,
            &apply,
            &Patch::Apply(&namespace(&place, cluster, leader_epoch, true)),
        )
        .await?;
    Ok(())
}

fn namespace(name: &str, cluster: &ClusterName, leader_epoch: i64, prepared: bool) -> Value {
    let mut metadata = metadata(name, None, cluster, leader_epoch);
    if prepared {
        metadata["annotations"][PREPARED] = json!("1");
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

fn metadata(
    name: &str,
    namespace: Option<&str>,
    cluster: &ClusterName,
    leader_epoch: i64,
) -> Value {
    let labels = BTreeMap::from([
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        ("jiuzhou.io/cluster", cluster.as_str()),
    ]);
    let mut metadata = json!({
        "name": name, "labels": labels, "annotations": {label::LEADER_EPOCH: leader_epoch.to_string()},
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

pub(super) fn subject(name: &str, namespace: &str) -> Value {
    json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
}

/// Gives the hub a role in one namespace.
pub(super) async fn bind_hub(
    client: &Client,
    namespace: &str,
    role: &str,
    hub: &Value,
    leader_epoch: i64,
) -> Result<(), kube::Error> {
    bind(client, namespace, role, role, hub, leader_epoch).await
}

async fn bind(
    client: &Client,
    namespace: &str,
    role: &str,
    name: &str,
    subject: &Value,
    leader_epoch: i64,
) -> Result<(), kube::Error> {
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {label::MANAGED_BY: label::MANAGED_BY_VALUE},
            "annotations": {label::LEADER_EPOCH: leader_epoch.to_string()},
        },
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    });
    bindings
        .patch(
            name,
            &PatchParams::apply(MANAGER).force(),
            &Patch::Apply(&binding),
        )
        .await?;
    Ok(())
}
