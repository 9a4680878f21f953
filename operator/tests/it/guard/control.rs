//! Guard control and a guard that follows it, over real TLS, with a cluster in memory.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider as _;
use operator::guard::control::{Control, address_status};
use operator::guard::mutual_tls::Files;
use operator::guard::serve::Guard;
use operator::guard::serve::fetch::{Follower, Following};
use operator::runtime::lease::Timing;
use operator::runtime::metrics::Metrics;
use operator::runtime::serve::Health;
use operator::runtime::watch::Freshness;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::cluster::Cluster;
use super::support::{free_port, get, mirror, settings, status, within};

const GATEWAY_API: &str = "/apis/gateway.networking.k8s.io/v1";

/// A folder with an authority and what it certified; gone with the test.
struct Folder {
    path: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("guard-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(path.join("ca.pem"), authority.pem()).unwrap();
        Self { path, authority }
    }

    fn files(&self, name: &str) -> Files {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let file = |kind: &str| self.path.join(format!("{name}-{kind}.pem"));
        std::fs::write(file("certificate"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        Files {
            certificate: file("certificate"),
            key: file("key"),
            authority: self.path.join("ca.pem"),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.path);
    }
}

/// A running control; dropping it ends it as a crash does.
struct Running {
    at: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

async fn control(cluster: &Cluster, files: Files) -> Running {
    let provider = opentelemetry_sdk::metrics::SdkMeterProvider::default();
    let control = Control {
        client: cluster.client(),
        namespace: "jiuzhou-guard".into(),
        service: "jiuzhou-guard".into(),
        addresses: BTreeSet::from([address_status("203.0.113.7")]),
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        files,
        replicas: 2,
        spreads_keys: false,
        lease: Timing::default(),
        metrics: Metrics::new(&provider.meter("test")),
        registry: prometheus::Registry::new(),
        freshness: Freshness::new(),
        health: Health::new(),
    };
    let (told, at) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let bound = |address| told.send(address).unwrap();
        control.run(bound, CancellationToken::new()).await.unwrap();
    });
    Running {
        at: within("control listens", at).await.unwrap(),
        _task: AbortOnDropHandle::new(task),
    }
}

/// A guard that follows; dropping it ends it as a crash does.
struct Followed {
    guard: Arc<Guard>,
    _task: AbortOnDropHandle<()>,
}

fn follow(port: u16, files: Files, folder: &Path) -> Followed {
    let guard = Arc::new(Guard::new(&settings(), &prometheus::Registry::new()).unwrap());
    let following = Following {
        control: format!("https://localhost:{port}").parse().unwrap(),
        files,
        name: "guard-a".into(),
        folder: folder.to_owned(),
        replicas: 2,
    };
    let stopping = CancellationToken::new();
    let mut follower = Follower::new(Arc::clone(&guard), following, stopping).unwrap();
    let task = tokio::spawn(async move {
        let never = follower.run().await;
        match never {}
    });
    Followed {
        guard,
        _task: AbortOnDropHandle::new(task),
    }
}

/// A class, a Gateway with a listener, a route and a Service with one endpoint.
fn apply(cluster: &Cluster, port: u16, endpoint: SocketAddr) {
    let put = |kind: &str, object| cluster.put(&format!("{GATEWAY_API}/{kind}"), object);
    put(
        "gatewayclasses",
        json!({"metadata": {"name": "guard"}, "spec": {"controllerName": "jiuzhou.io/guard"}}),
    );
    gateway(cluster, &[port]);
    put(
        "httproutes",
        json!({"metadata": {"namespace": "ns", "name": "app"}, "spec": {"parentRefs": [{"name": "web"}],
            "rules": [{"backendRefs": [{"name": "app", "port": 80}]}]}}),
    );
    cluster.put(
        "/api/v1/services",
        json!({"metadata": {"namespace": "ns", "name": "app"}, "spec": {"ports": [{"port": 80}]}}),
    );
    cluster.put(
        "/apis/discovery.k8s.io/v1/endpointslices",
        json!({"metadata": {"namespace": "ns", "name": "app-1",
                "labels": {"kubernetes.io/service-name": "app"}},
            "addressType": "IPv4", "ports": [{"port": endpoint.port()}],
            "endpoints": [{"addresses": [endpoint.ip().to_string()], "conditions": {"ready": true}}]}),
    );
}

fn gateway(cluster: &Cluster, ports: &[u16]) {
    let listener = |port| json!({"name": format!("http-{port}"), "port": port, "protocol": "HTTP"});
    let listeners: Vec<Value> = ports.iter().map(listener).collect();
    cluster.put(
        &format!("{GATEWAY_API}/gateways"),
        json!({"metadata": {"namespace": "ns", "name": "web"},
            "spec": {"gatewayClassName": "guard", "listeners": listeners}}),
    );
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, waiting).await;
}

async fn answers(port: u16) -> bool {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    tokio::net::TcpStream::connect(at).await.is_ok() && status(&get(at, "/").await) == 200
}

fn programmed(cluster: &Cluster) -> bool {
    let gateway = cluster.get(&format!("{GATEWAY_API}/namespaces/ns/gateways/web"));
    let conditions = gateway["status"]["conditions"].as_array().cloned();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Programmed" && condition["status"] == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_is_served_said_and_still_served_when_control_is_gone() {
    let folder = Folder::new("control");
    let (cluster, port) = (Cluster::new(), free_port());
    apply(&cluster, port, mirror().await);
    let running = control(&cluster, folder.files("control")).await;
    let files = folder.files("guard");
    let followed = follow(running.at.port(), files.clone(), &folder.path);
    until("the route is served", async || answers(port).await).await;
    until("the Gateway says so", async || programmed(&cluster)).await;
    let path = format!("{GATEWAY_API}/namespaces/ns/gateways/web");
    let address = &cluster.get(&path)["status"]["addresses"][0];
    assert_eq!(address["value"], "203.0.113.7");

    // A second of exchanges is a second of rest.
    let writes = cluster.writes();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.writes(), writes, "nothing is written at rest");

    drop(running);
    assert!(answers(port).await, "a guard goes on without control");
    let Followed { guard, _task: task } = followed;
    drop(task);
    guard.drain(Duration::from_secs(1)).await;
    let followed = follow(1, files, &folder.path);
    let began = std::time::Instant::now();
    until("a guard begins without control", async || {
        !followed.guard.revision().is_empty()
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(answers(port).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_cannot_open_a_port_serves_the_others_and_the_gateway_is_not_programmed() {
    let folder = Folder::new("refused");
    let (cluster, port) = (Cluster::new(), free_port());
    apply(&cluster, port, mirror().await);
    let running = control(&cluster, folder.files("control")).await;
    let followed = follow(running.at.port(), folder.files("guard"), &folder.path);
    until("the route is served", async || answers(port).await).await;
    until("the Gateway says so", async || programmed(&cluster)).await;
    let before = followed.guard.revision();
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    gateway(&cluster, &[port, taken.local_addr().unwrap().port()]);
    until("the Gateway waits", async || {
        let path = format!("{GATEWAY_API}/namespaces/ns/gateways/web");
        cluster.get(&path)["status"]["listeners"]
            .as_array()
            .map(Vec::len)
            == Some(2)
    })
    .await;
    until("the guard follows", async || {
        followed.guard.revision() != before
    })
    .await;
    until("the Gateway says so", async || !programmed(&cluster)).await;
    assert!(answers(port).await);
    drop(taken);
    until("the port is open", async || programmed(&cluster)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_certified_by_others_is_told_nothing() {
    let (folder, others) = (Folder::new("ours"), Folder::new("others"));
    let (cluster, port) = (Cluster::new(), free_port());
    apply(&cluster, port, mirror().await);
    let running = control(&cluster, folder.files("control")).await;
    let foreign = Files {
        authority: folder.path.join("ca.pem"),
        ..others.files("guard")
    };
    let stranger = follow(running.at.port(), foreign, &others.path);
    let friend = follow(running.at.port(), folder.files("guard"), &folder.path);
    until("the friend serves", async || {
        !friend.guard.revision().is_empty()
    })
    .await;
    assert_eq!(stranger.guard.revision(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_stay_when_only_their_list_is_gone() {
    let folder = Folder::new("slices");
    let (cluster, port) = (Cluster::new(), free_port());
    apply(&cluster, port, mirror().await);
    let running = control(&cluster, folder.files("control")).await;
    let followed = follow(running.at.port(), folder.files("guard"), &folder.path);
    until("the route is served", async || answers(port).await).await;
    let good = followed.guard.revision();
    cluster.delete("/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices/app-1");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(followed.guard.revision(), good);
    assert!(answers(port).await);
}

#[tokio::test]
async fn a_guard_enforces_the_part_of_a_limit_that_it_was_told_and_reports_what_was_asked() {
    let mut configuration = super::support::simple(&[mirror().await]);
    let quota = json!({"rate": {"requests": 1, "perSeconds": 3600}, "burst": 8});
    let limit = json!({"name": "all", "scope": "Cluster", "quota": quota});
    let policy = json!({"name": "ns/policy", "rateLimits": [limit]});
    let policy = serde_json::from_value(policy).unwrap();
    configuration.policies.insert("ns/policy".into(), policy);
    configuration.rules[0].policy = Some("ns/policy".into());
    let served = super::support::serve(&configuration).await;
    let passed = async || {
        let mut passed = 0;
        for _ in 0..6 {
            passed += usize::from(status(&get(served.at, "/").await) == 200);
        }
        passed
    };
    // A guard that takes part begins with little: a restart is worth no burst.
    served.guard.hold([].into(), shield::Share::one_of(2));
    assert_eq!(passed().await, 1);
    let demand = served.guard.demand()["ns/policy"]["all"];
    assert_eq!(
        (demand.offered, demand.share),
        (6, shield::Share::one_of(2))
    );
}
