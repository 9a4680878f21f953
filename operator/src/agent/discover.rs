//! What the member cluster is and which kinds it serves.

use std::collections::BTreeMap;
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

/// The allowed kinds that the cluster serves. One group that does not answer makes the whole answer
/// an error: a kind that merely was not asked about must not count as absent, since an App whose
/// objects are of an absent kind counts as removed.
pub(crate) async fn served(client: &Client) -> Result<Vec<Kind>, kube::Error> {
    let mut kinds = Vec::new();
    let mut asked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in Kind::ALL {
        let version = kind.api_version();
        if !asked.contains_key(&version) {
            asked.insert(version.clone(), plurals(client, *kind).await?);
        }
        if asked[&version].iter().any(|p| p == kind.plural()) {
            kinds.push(*kind);
        }
    }
    Ok(kinds)
}

async fn plurals(client: &Client, kind: Kind) -> Result<Vec<String>, kube::Error> {
    let list = match kind.group() {
        "" => client.list_core_api_resources(kind.version()).await,
        _ => client.list_api_group_resources(&kind.api_version()).await,
    };
    match list {
        Ok(list) => Ok(list.resources.into_iter().map(|r| r.name).collect()),
        // The one answer that says that there is no such group: plain text, so only the code counts.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Looks from time to time for kinds that were not served before.
pub(crate) async fn look(client: Client, sender: mpsc::Sender<Heard>, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(INTERVAL))
        .await
        .is_some()
    {
        let kinds = match served(&client).await {
            Ok(kinds) => kinds,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot ask which kinds the cluster serves");
                continue;
            }
        };
        let all = kinds.len() == Kind::ALL.len();
        if sender.send(Heard::Kinds(kinds)).await.is_err() || all {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// A cluster in which every group has all kinds, but for one that answers with that code.
    fn cluster(odd: &'static str, code: u16) -> Client {
        let answer = move |request: Request<Body>| async move {
            let path = request.uri().path().to_owned();
            let code = if path.contains(odd) { code } else { 200 };
            let body = match code {
                200 => {
                    let resources: Vec<_> = Kind::ALL
                        .iter()
                        .map(|kind| json!({"name": kind.plural(), "singularName": "", "namespaced": true, "kind": kind.name(), "verbs": []}))
                        .collect();
                    json!({"kind": "APIResourceList", "groupVersion": "any", "resources": resources})
                }
                // As a real API server says it.
                404 => json!("404 page not found"),
                _ => {
                    json!({"kind": "Status", "status": "Failure", "code": code, "reason": "InternalError", "message": "busy"})
                }
            };
            let response = Response::builder().status(code);
            let body = body
                .as_str()
                .map_or_else(|| body.to_string(), str::to_owned);
            response.body(Body::from(body.into_bytes()))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn a_group_that_does_not_answer_makes_no_kind_absent() {
        assert!(served(&cluster("/apis/apps/", 503)).await.is_err());
    }

    #[tokio::test]
    async fn a_group_that_does_not_exist_stops_only_its_own_kinds() {
        let kinds = served(&cluster("gateway.networking", 404)).await.unwrap();
        let all_but_one = Kind::ALL.iter().filter(|k| **k != Kind::HTTPRoute);
        assert_eq!(kinds, all_but_one.copied().collect::<Vec<_>>());
    }
}
