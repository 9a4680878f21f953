//! Nodes and pods as the sandbox plays them.

use std::net::Ipv4Addr;

use e2e::{
    kubelet::{self, twin},
    namespace::Namespace,
};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::support::{available, deploy, eventually, fleet, fragile, http_get, namespace, pods};

/// Where the port 8080 of a pod is served.
fn served(pod: &Pod) -> String {
    let address = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_ref());
    let address: Ipv4Addr = address
        .and_then(|text| text.parse().ok())
        .expect("it has an address");
    format!(
        "{}:8080",
        twin(address).expect("the sandbox gave the address")
    )
}

#[tokio::test]
async fn a_deployment_gets_available_and_its_pods_answer_http() {
    let here = namespace("web").await;
    let deployments = deploy(&here, "web", 3, json!({})).await;
    available(&deployments, "web", 3).await;
    for pod in pods(&here, "web").await {
        let (status, body) = http_get(&served(&pod), "/a?b=c").await.unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 200);
        assert_eq!(body["pod"], pod.name_any());
        assert_eq!(body["namespace"], here.name());
        assert_eq!(body["cluster"], "hub");
        assert_eq!(body["path"], "/a");
    }
}

#[tokio::test]
async fn a_pod_fails_as_its_annotations_say_and_recovers() {
    let here = namespace("faults").await;
    let deployments = deploy(&here, "app", 1, json!({})).await;
    available(&deployments, "app", 1).await;
    let pod = pods(&here, "app").await.remove(0);
    let api: Api<Pod> = here.api();
    let annotate = async |ready: &str, status: &str| {
        let annotations = json!({kubelet::READY: ready, kubelet::STATUS: status});
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        api.patch(&pod.name_any(), &PatchParams::default(), &patch)
            .await
            .unwrap();
    };
    annotate("false", "503").await;
    available_is_none(&deployments).await;
    assert_eq!(http_get(&served(&pod), "/").await.unwrap().0, 503);
    annotate("true", "200").await;
    available(&deployments, "app", 1).await;
    assert_eq!(http_get(&served(&pod), "/").await.unwrap().0, 200);
}

async fn available_is_none(deployments: &Api<k8s_openapi::api::apps::v1::Deployment>) {
    eventually("app is not available", async || {
        let status = deployments.get("app").await.ok()?.status?;
        status.available_replicas.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_pod_goes_and_so_does_its_port() {
    let here = namespace("gone").await;
    let deployments = deploy(&here, "app", 1, json!({})).await;
    available(&deployments, "app", 1).await;
    let pod = pods(&here, "app").await.remove(0);
    deployments
        .delete("app", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the pod is gone", async || {
        pods(&here, "app").await.is_empty().then_some(())
    })
    .await;
    assert!(http_get(&served(&pod), "/").await.is_err());
}

#[tokio::test]
async fn a_service_has_the_pods_as_endpoints() {
    let here = namespace("service").await;
    let deployments = deploy(&here, "app", 2, json!({})).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "app"},
        "spec": {"selector": {"app": "app"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    here.api::<k8s_openapi::api::core::v1::Service>()
        .patch("app", &PatchParams::apply("test"), &Patch::Apply(service))
        .await
        .unwrap();
    available(&deployments, "app", 2).await;
    eventually("two ready endpoints", async || {
        let slices = here
            .api::<EndpointSlice>()
            .list(&ListParams::default())
            .await
            .ok()?;
        let ready = slices.iter().flat_map(|slice| &slice.endpoints);
        let ready = ready.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        (ready.count() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pods_keep_their_addresses_when_the_kubelet_starts_again() {
    let (_taken, cluster) = fragile().await;
    let here = Namespace::create(cluster.client().await.unwrap(), "again")
        .await
        .unwrap();
    let deployments = deploy(&here, "app", 2, json!({})).await;
    available(&deployments, "app", 2).await;
    let before = pods(&here, "app").await;
    let kubelet = cluster.kubelet().expect("it has nodes");
    kubelet.kill().unwrap();
    assert!(http_get(&served(&before[0]), "/").await.is_err());
    kubelet.start().unwrap();
    for pod in &before {
        eventually("the pod answers again", async || {
            let (_, body) = http_get(&served(pod), "/").await.ok()?;
            assert!(body.contains(&pod.name_any()), "{body}");
            Some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_dead_node_loses_its_pods_and_takes_new_ones_when_it_is_back() {
    let cluster = fleet().await.cluster("member-a").unwrap();
    let client = cluster.client().await.unwrap();
    let here = Namespace::create(client, "death").await.unwrap();
    let deployments = deploy(&here, "app", 3, json!({})).await;
    available(&deployments, "app", 3).await;
    let pod = pods(&here, "app").await.remove(0);
    let node = pod.spec.as_ref().unwrap().node_name.clone().unwrap();
    let nodes: Api<Node> = Api::all(here.client());
    let annotate = async |dead: &str| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {kubelet::DEAD: dead}}}));
        nodes
            .patch(&node, &PatchParams::default(), &patch)
            .await
            .unwrap();
    };
    annotate("true").await;
    eventually("nothing answers on a dead node", async || {
        http_get(&served(&pod), "/").await.is_err().then_some(())
    })
    .await;
    eventually("its pods run elsewhere", async || {
        let pods = pods(&here, "app").await;
        let elsewhere = pods.iter().filter(|pod| {
            let spec = pod.spec.as_ref();
            spec.and_then(|spec| spec.node_name.as_ref())
                .is_some_and(|name| *name != node)
        });
        (elsewhere.count() == 3).then_some(())
    })
    .await;
    available(&deployments, "app", 3).await;
    annotate("false").await;
    eventually("the node takes pods again", async || {
        let node = nodes.get(&node).await.ok()?;
        node.spec
            .is_none_or(|spec| spec.taints.is_none_or(|taints| taints.is_empty()))
            .then_some(())
    })
    .await;
}
