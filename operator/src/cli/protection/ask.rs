//! Asking guards: at their addresses, or through the API server of their cluster.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::future::join_all;
use http::{Request, Uri};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};

use super::super::failure::cause;
use super::Answer;
use crate::guard::compile::ObjectName;
use crate::guard::standing::Standing;

/// Where a guard tells of its protection.
const PATH: &str = "/protection";
/// Where its metrics are, at the same address.
const METRICS: &str = "/metrics";
/// What the port of the guards' metrics is called in their Service.
const PORT: &str = "metrics";
/// The Service that an EndpointSlice belongs to.
const OF_SERVICE: &str = "kubernetes.io/service-name";
/// A guard answers from memory, within milliseconds; the rest is for a bad line to a far region.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a guard's metrics are, as in `http://10.0.0.7:9090`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardAddress(Uri);

impl FromStr for GuardAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // As it stands in a list of what to scrape, too.
        let text = text.strip_suffix(METRICS).unwrap_or(text);
        let uri: Option<Uri> = text.parse().ok();
        let is_address = |uri: &Uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && matches!(uri.path(), "" | "/")
        };
        let uri = uri.filter(is_address);
        uri.map(Self).ok_or_else(|| {
            "must be the address of a guard's metrics, as in http://10.0.0.7:9090".to_owned()
        })
    }
}

/// A guard that can be asked.
#[derive(Clone)]
pub(in super::super) struct Guard {
    /// What people know it by.
    name: String,
    client: Client,
    path: String,
}

/// Guards at addresses.
pub(in super::super) fn given(addresses: &[GuardAddress]) -> anyhow::Result<Vec<Guard>> {
    let one = |GuardAddress(uri): &GuardAddress| {
        let client = Client::try_from(kube::Config::new(uri.clone()))?;
        Ok(Guard {
            name: uri.to_string().trim_end_matches('/').to_owned(),
            client,
            path: PATH.to_owned(),
        })
    };
    addresses.iter().map(one).collect()
}

/// Guards behind a Service, asked through the API server: whoever asks needs no way to the pods.
pub(in super::super) async fn found(
    client: &Client,
    service: &ObjectName,
) -> anyhow::Result<Vec<Guard>> {
    let ObjectName { namespace, name } = service;
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let of_service = ListParams::default().labels(&format!("{OF_SERVICE}={name}"));
    let slices = api.list(&of_service).await.with_context(|| {
        format!(
            "cannot list the EndpointSlices of namespace {namespace}; this takes the right to, in the \
             guards' own cluster, or name the guards by --guard"
        )
    })?;
    let pods = pods(&slices.items);
    if pods.is_empty() {
        bail!(
            "Service {service} has no pods with a port {PORT}; name the Service of the guards' \
             metrics by --service, or the guards by --guard"
        );
    }
    let one = |(pod, port): (String, i32)| Guard {
        path: format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{PATH}"),
        name: pod,
        client: client.clone(),
    };
    Ok(pods.into_iter().map(one).collect())
}

/// Pods and the ports of their metrics. One with addresses of both families is in two slices.
fn pods(slices: &[EndpointSlice]) -> BTreeSet<(String, i32)> {
    let mut pods = BTreeSet::new();
    for slice in slices {
        let mut ports = slice.ports.iter().flatten();
        let of_metrics = ports.find(|port| port.name.as_deref() == Some(PORT));
        let Some(port) = of_metrics.and_then(|port| port.port) else {
            continue;
        };
        let targets = slice.endpoints.iter().filter_map(|e| e.target_ref.as_ref());
        let of_pods = targets.filter(|target| target.kind.as_deref() == Some("Pod"));
        let names = of_pods.filter_map(|target| target.name.clone());
        pods.extend(names.map(|name| (name, port)));
    }
    pods
}

/// Asks all of them at once.
pub(in super::super) async fn answers(guards: Vec<Guard>) -> Vec<Answer> {
    let ask = |guard: Guard| async move {
        let answer = tokio::time::timeout(PATIENCE, standing(&guard)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
        (guard.name, answer)
    };
    join_all(guards.into_iter().map(ask)).await
}

async fn standing(guard: &Guard) -> Result<Standing, String> {
    let request = Request::get(&guard.path).body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    let text = guard.client.request_text(request).await;
    let text = text.map_err(|error| cause(&error))?;
    serde_json::from_str(&text).map_err(|error| format!("it answers what no guard does: {error}"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use kube::client::Body;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_has_a_scheme_and_no_path_but_that_of_metrics() {
        let bare: GuardAddress = "http://127.0.0.1:9191".parse().unwrap();
        for same in ["http://127.0.0.1:9191/", "http://127.0.0.1:9191/metrics"] {
            assert_eq!(same.parse::<GuardAddress>().unwrap(), bare, "{same}");
        }
        for wrong in [
            "127.0.0.1:9191",
            "http://a/metric",
            "ftp://a",
            "/metrics",
            "",
        ] {
            let error = wrong.parse::<GuardAddress>().unwrap_err();
            assert!(
                error.contains("as in http://10.0.0.7:9090"),
                "{wrong}: {error}"
            );
        }
    }

    /// An API server that answers by path, and what it was asked.
    fn api(answer: fn(&str) -> serde_json::Value) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let path = request.uri().to_string();
            let text = answer(&path).to_string();
            log.lock().unwrap().push(path);
            async move { Ok::<_, Infallible>(http::Response::new(Body::from(text.into_bytes()))) }
        });
        (Client::new(service, "default"), asked)
    }

    fn service(name: &str) -> ObjectName {
        ObjectName::new("jiuzhou-guard", name)
    }

    fn cluster(path: &str) -> serde_json::Value {
        if path.contains("endpointslices") {
            let endpoint = |pod: &str| {
                json!({"addresses": ["10.0.0.7"],
                "targetRef": {"kind": "Pod", "name": pod}})
            };
            let slice = |family: &str, pods: &[&str]| {
                json!({"metadata": {"name": family},
                "addressType": family, "ports": [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9191}],
                "endpoints": pods.iter().map(|pod| endpoint(pod)).collect::<Vec<_>>()})
            };
            return json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "metadata": {},
                "items": [slice("IPv4", &["guard-1", "guard-0"]), slice("IPv6", &["guard-0"])]});
        }
        json!({"revision": "r1", "policies": [], "services": []})
    }

    #[tokio::test]
    async fn guards_of_a_cluster_are_asked_through_its_api_server_each_once() {
        let (client, asked) = api(cluster);
        let guards = found(&client, &service("jiuzhou-guard")).await.unwrap();
        let answers = answers(guards).await;
        let names: Vec<&str> = answers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["guard-0", "guard-1"]);
        assert!(
            answers
                .iter()
                .all(|(_, answer)| answer.as_ref().unwrap().revision == "r1")
        );
        let asked = asked.lock().unwrap();
        assert!(asked[0].contains("labelSelector=kubernetes.io%2Fservice-name%3Djiuzhou-guard"));
        let proxied = "/api/v1/namespaces/jiuzhou-guard/pods/guard-0:9191/proxy/protection";
        assert!(asked.iter().any(|path| path == proxied), "{asked:?}");
    }

    #[tokio::test]
    async fn a_service_without_the_port_is_told_with_the_next_step() {
        let none = |_: &str| {
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
            "metadata": {}, "items": []})
        };
        let (client, _) = api(none);
        let error = found(&client, &service("other")).await.err().unwrap();
        assert!(error.to_string().contains("--guard"), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_guard_is_named_with_what_it_answered() {
        let (client, _) = api(|_| json!({"hello": "world"}));
        let guard = Guard {
            name: "web".into(),
            client,
            path: PATH.into(),
        };
        let answer = answers(vec![guard]).await.remove(0);
        assert!(
            answer
                .1
                .unwrap_err()
                .starts_with("it answers what no guard does")
        );
    }
}
