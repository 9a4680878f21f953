//! What the member cluster is and which kinds it serves.

use std::time::Duration;

use crds::Uid;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt as _};
use plan::object::Kind;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::events::Heard;

/// Time between two looks at kinds that may have been installed since.
const INTERVAL: Duration = Duration::from_secs(30);

/// The UID of `kube-system`: the identity of a cluster.
pub(crate) async fn cluster_uid(client: &Client) -> Result<Uid, kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    Ok(namespaces
        .get("kube-system")
        .await?
        .uid()
        .unwrap_or_default()
        .into())
}

/// The version of the API server.
pub(crate) async fn version(client: &Client) -> Result<String, kube::Error> {
    Ok(client.apiserver_version().await?.git_version)
}

/// The allowed kinds that the cluster serves. A group that cannot be asked counts as not served for
/// now: it is asked again.
pub(crate) async fn served(client: &Client) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let mut asked: Vec<(String, Vec<String>)> = Vec::new();
    for kind in Kind::ALL {
        let version = kind.api_version();
        if !asked.iter().any(|(known, _)| *known == version) {
            asked.push((version.clone(), plurals(client, *kind).await));
        }
        if asked
            .iter()
            .any(|(known, plurals)| *known == version && plurals.iter().any(|p| p == kind.plural()))
        {
            kinds.push(*kind);
        }
    }
    kinds
}

async fn plurals(client: &Client, kind: Kind) -> Vec<String> {
    let list = match kind.group() {
        "" => client.list_core_api_resources(kind.version()).await,
        _ => client.list_api_group_resources(&kind.api_version()).await,
    };
    list.map(|list| list.resources.into_iter().map(|r| r.name).collect())
        .unwrap_or_default()
}

/// Looks from time to time for kinds that were not served before.
pub(crate) async fn look(client: Client, sender: mpsc::Sender<Heard>, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(INTERVAL))
        .await
        .is_some()
    {
        let kinds = served(&client).await;
        if kinds.len() == Kind::ALL.len() && sender.send(Heard::Kinds(kinds.clone())).await.is_ok()
        {
            return;
        }
        if sender.send(Heard::Kinds(kinds)).await.is_err() {
            return;
        }
    }
}
