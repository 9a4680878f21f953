//! What the tests share: one fleet, started by the first test that asks for it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use e2e::{
    fleet::{Cluster, Fleet, FleetConfig, Identity, InUse},
    namespace::Namespace,
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, MutexGuard, OnceCell},
    time::Instant,
};

/// The built sandbox program.
pub(crate) const SANDBOX: &str = env!("CARGO_BIN_EXE_sandbox");
/// A user without any rights of its own.
pub(crate) const STRANGER: &str = "stranger";
/// Far beyond what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// A hub and two members, for all tests of this binary; the reaper ends them with it. Tests keep
/// to namespaces of their own. A test that breaks a control plane takes [`fragile`].
pub(crate) async fn fleet() -> &'static Fleet {
    static FLEET: OnceCell<Fleet> = OnceCell::const_new();
    FLEET
        .get_or_try_init(start)
        .await
        .expect("the fleet starts")
}

async fn start() -> Result<Fleet> {
    // Another run of this test program may be under way in the same checkout.
    for number in 1..=8 {
        let mut config = FleetConfig::new(
            scratch(&format!("fleet-{number}")),
            ["hub", "member-a", "member-b"],
        );
        config.identities = vec![Identity::new(STRANGER, ["strangers"])];
        config.sandbox = Some(SANDBOX.into());
        config.clusters[2].own_etcd = true;
        match Fleet::start(config).await {
            Err(error) if error.is::<InUse>() => {}
            started => return started,
        }
    }
    bail!("every folder for a fleet is in use")
}

/// The cluster `member-b`, with an etcd of its own, for one test at a time: it may be broken, and
/// runs again before the next test has it, even where a test failed half-way.
pub(crate) async fn fragile() -> (MutexGuard<'static, ()>, &'static Cluster) {
    static TAKEN: Mutex<()> = Mutex::const_new(());
    let taken = TAKEN.lock().await;
    let cluster = fleet().await.cluster("member-b").expect("the fleet has it");
    for process in cluster.etcd().into_iter().chain([cluster.apiserver()]) {
        process.resume().expect("it can be signalled");
    }
    (taken, cluster)
}

/// A folder for one test, kept between runs so that its logs can be read.
pub(crate) fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A new namespace in the hub's cluster.
pub(crate) async fn namespace(prefix: &str) -> Namespace {
    let client = fleet().await.hub().client().await.expect("a client");
    Namespace::create(client, prefix)
        .await
        .expect("a namespace")
}

/// Asks until there is an answer; panics with `what` when it takes too long.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: not within {} s",
            DEADLINE.as_secs()
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Creates a Deployment of `replicas` pods that listen on port 8080.
pub(crate) async fn deploy(
    namespace: &Namespace,
    name: &str,
    replicas: i32,
    annotations: Value,
) -> Api<Deployment> {
    let deployments: Api<Deployment> = namespace.api();
    let object = json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {
                    "containers": [{
                        "name": "main",
                        "image": "registry.example/app:1",
                        "ports": [{"containerPort": 8080}],
                    }],
                    // Leaves a dead node as soon as its death is known.
                    "tolerations": [{
                        "key": "node.kubernetes.io/unreachable",
                        "operator": "Exists",
                        "effect": "NoExecute",
                        "tolerationSeconds": 0,
                    }],
                },
            },
        },
    });
    let object = serde_json::from_value(object).expect("a deployment");
    deployments
        .create(&PostParams::default(), &object)
        .await
        .expect("the deployment is accepted");
    deployments
}

/// Waits until a Deployment has `count` available replicas.
pub(crate) async fn available(deployments: &Api<Deployment>, name: &str, count: i32) {
    eventually(
        &format!("{name} has {count} available replicas"),
        async || {
            let status = deployments.get(name).await.ok()?.status?;
            (status.available_replicas == Some(count)).then_some(())
        },
    )
    .await;
}

/// The pods of an app, as they are now.
pub(crate) async fn pods(namespace: &Namespace, app: &str) -> Vec<Pod> {
    let params = ListParams::default().labels(&format!("app={app}"));
    namespace
        .api::<Pod>()
        .list(&params)
        .await
        .expect("a list")
        .items
}

/// Status and body of a plain HTTP GET, on a connection of its own.
pub(crate) async fn http_get(address: &str, path: &str) -> Result<(u16, String)> {
    http_get_of(address, "test", path).await
}

/// The same, of one host.
pub(crate) async fn http_get_of(address: &str, host: &str, path: &str) -> Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), exchange).await??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, body.to_owned()))
}
