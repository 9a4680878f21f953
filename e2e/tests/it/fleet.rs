//! The control planes themselves.

use std::{fs, time::Duration};

use e2e::{fleet::client_from, namespace::Namespace};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as Object, Node, ServiceAccount};
use kube::{
    Api,
    api::{ListParams, PostParams},
};

use tokio::time::timeout;

use crate::support::{STRANGER, eventually, fleet, fragile, namespace};

/// What takes longer than this on loopback is not going to be answered.
const HUNG: Duration = Duration::from_millis(500);

#[tokio::test]
async fn clusters_answer_and_have_their_nodes() {
    let fleet = fleet().await;
    // Another test takes member-b down.
    for cluster in [fleet.hub(), fleet.cluster("member-a").unwrap()] {
        let client = cluster.client().await.unwrap();
        let version = client.apiserver_version().await.unwrap();
        assert_eq!(version.git_version, e2e::assets::kubernetes_version());
        let nodes = Api::<Node>::all(client)
            .list(&ListParams::default())
            .await
            .unwrap();
        assert_eq!(nodes.items.len(), 3, "nodes of {}", cluster.name());
    }
}

#[tokio::test]
async fn clusters_share_an_etcd_and_see_nothing_of_each_other() {
    let here = namespace("private").await;
    let other = fleet()
        .await
        .cluster("member-a")
        .unwrap()
        .client()
        .await
        .unwrap();
    assert!(
        Api::<Object>::all(other)
            .get_opt(here.name())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn an_identity_is_who_it_says_and_has_no_rights_of_its_own() {
    let here = namespace("identity").await;
    let kubeconfig = fleet().await.hub().kubeconfig(STRANGER).unwrap();
    let client = client_from(&kubeconfig).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, here.name());
    match maps.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) => {
            assert!(
                status.is_forbidden() && status.message.contains(STRANGER),
                "{status}"
            );
        }
        other => panic!("expected to be refused, got {other:?}"),
    }
}

#[tokio::test]
async fn a_service_account_gets_a_kubeconfig_of_its_own() {
    let here = namespace("account").await;
    let mut account = ServiceAccount::default();
    account.metadata.name = Some("agent".into());
    here.api()
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    let hub = fleet().await.hub();
    let month = 30 * 24 * 3600;
    let kubeconfig = hub
        .service_account_kubeconfig(here.name(), "agent", month)
        .await
        .unwrap();
    let client = client_from(&kubeconfig).await.unwrap();
    // Refused by authorisation, so known by authentication.
    let refused = Api::<Node>::all(client)
        .list(&ListParams::default())
        .await
        .unwrap_err();
    let user = format!("system:serviceaccount:{}:agent", here.name());
    assert!(refused.to_string().contains(&user), "{refused}");
}

#[tokio::test]
async fn an_api_server_comes_back_with_its_data_on_the_same_port() {
    let (_taken, cluster) = fragile().await;
    let here = Namespace::create(cluster.client().await.unwrap(), "outage")
        .await
        .unwrap();
    cluster.apiserver().kill().unwrap();
    assert!(
        here.api::<ConfigMap>()
            .list(&ListParams::default())
            .await
            .is_err()
    );
    cluster.restart_apiserver().await.unwrap();
    let found = Api::<Object>::all(here.client())
        .get_opt(here.name())
        .await
        .unwrap();
    assert!(found.is_some());

    cluster.apiserver().pause().unwrap();
    let asked = timeout(HUNG, here.client().apiserver_version()).await;
    // A connection from before the restart may fail at once; what counts is that nothing answers.
    assert!(
        !matches!(asked, Ok(Ok(_))),
        "a paused server does not answer"
    );
    cluster.apiserver().resume().unwrap();
    eventually("the server answers again", async || {
        here.client().apiserver_version().await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_paused_process_stands_still_at_once_with_all_its_threads() {
    let (_taken, cluster) = fragile().await;
    let server = cluster.apiserver();
    let threads = format!("/proc/{}/task", server.pid().expect("it runs"));
    for _ in 0..100 {
        server.pause().unwrap();
        for thread in fs::read_dir(&threads).unwrap() {
            let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            assert!(stat.contains(") T "), "{stat}");
        }
        server.resume().unwrap();
    }
}

#[tokio::test]
async fn a_cluster_that_loses_its_etcd_takes_no_writes_until_it_is_back() {
    let (_taken, cluster) = fragile().await;
    let here = Namespace::create(cluster.client().await.unwrap(), "etcd")
        .await
        .unwrap();
    let maps: Api<ConfigMap> = here.api();
    let mut map = ConfigMap::default();
    map.metadata.name = Some("map".into());
    let etcd = cluster.etcd().expect("it has its own");
    etcd.pause().unwrap();
    let written = timeout(HUNG, maps.create(&PostParams::default(), &map)).await;
    assert!(!matches!(written, Ok(Ok(_))), "{written:?}");
    etcd.resume().unwrap();
    // The write that nobody waited for may still have happened.
    eventually("writes again", async || {
        match maps.create(&PostParams::default(), &map).await {
            Ok(_) => Some(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Some(()),
            Err(_) => None,
        }
    })
    .await;
}
