//! Guard control and a guard that follows it, over real TLS, with a cluster in memory.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;
use opentelemetry::metrics::MeterProvider as _;
use operator::guard::compile::Sharing;
use operator::guard::control::{Control, address_status};
use operator::guard::mutual_tls::Files;
use operator::guard::serve::Guard;
use operator::guard::serve::fetch::{Follower, Following};
use operator::runtime::lease::Timing;
use operator::runtime::metrics::Metrics;
use operator::runtime::serve::Health;
use operator::runtime::watch::Freshness;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::cluster::Cluster;
use super::support::{endpoint, free_port, get, mirror, say, settings, status, text, within};

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
        self.files_until(name, 2100)
    }

    fn files_until(&self, name: &str, year: i32) -> Files {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
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
        sharing: Sharing::OlderWins,
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
    follow_as("guard-a", Ipv4Addr::LOCALHOST, port, files, folder)
}

fn follow_as(name: &str, address: Ipv4Addr, port: u16, files: Files, folder: &Path) -> Followed {
    let settings = operator::guard::serve::Settings {
        address: address.into(),
        ..settings()
    };
    let guard = Arc::new(Guard::new(&settings, &prometheus::Registry::new()).unwrap());
    let following = Following {
        control: format!("https://localhost:{port}").parse().unwrap(),
        files,
        name: name.into(),
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
    gateway_named("web", cluster, ports);
}

fn gateway_named(name: &str, cluster: &Cluster, ports: &[u16]) {
    let listener = |port| json!({"name": format!("http-{port}"), "port": port, "protocol": "HTTP"});
    let listeners: Vec<Value> = ports.iter().map(listener).collect();
    cluster.put(
        &format!("{GATEWAY_API}/gateways"),
        json!({"metadata": {"namespace": "ns", "name": name},
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
    programmed_named("web", cluster)["status"] == "True"
}

fn programmed_named(name: &str, cluster: &Cluster) -> Value {
    let gateway = cluster.get(&format!("{GATEWAY_API}/namespaces/ns/gateways/{name}"));
    let conditions = gateway["status"]["conditions"].as_array().cloned();
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == "Programmed");
    found.unwrap_or_default()
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
async fn a_guard_that_cannot_open_a_port_serves_the_others_and_only_its_gateway_is_not_programmed()
{
    let folder = Folder::new("refused");
    let (cluster, port) = (Cluster::new(), free_port());
    apply(&cluster, port, mirror().await);
    let running = control(&cluster, folder.files("control")).await;
    let followed = follow(running.at.port(), folder.files("guard"), &folder.path);
    until("the route is served", async || answers(port).await).await;
    until("the Gateway says so", async || programmed(&cluster)).await;
    let before = followed.guard.revision();
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let closed = taken.local_addr().unwrap().port();
    gateway(&cluster, &[port, closed]);
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
    until("the Gateway says why", async || {
        programmed_named("web", &cluster)["reason"] == "PortUnavailable"
    })
    .await;
    let said = programmed_named("web", &cluster).to_string();
    assert!(said.contains("guard guard-a cannot open port"), "{said}");
    assert!(said.contains(&closed.to_string()), "{said}");
    assert!(answers(port).await);
    // What comes later is acknowledged all the same.
    gateway_named("other", &cluster, &[free_port()]);
    until("another Gateway is programmed", async || {
        programmed_named("other", &cluster)["status"] == "True"
    })
    .await;
    assert!(!programmed(&cluster));
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
async fn a_guard_whose_certificate_has_expired_is_told_nothing_until_it_is_renewed() {
    let folder = Folder::new("expired");
    let (cluster, port) = (Cluster::new(), free_port());
    apply(&cluster, port, mirror().await);
    let running = control(&cluster, folder.files("control")).await;
    let expired = folder.files_until("guard", 2020);
    let own = folder.path.join("late");
    std::fs::create_dir_all(&own).unwrap();
    let (control, address) = (running.at.port(), Ipv4Addr::new(127, 0, 0, 2));
    let late = follow_as("late", address, control, expired, &own);
    let friend = follow(control, folder.files("friend"), &folder.path);
    until("the friend serves", async || {
        !friend.guard.revision().is_empty()
    })
    .await;
    assert_eq!(late.guard.revision(), "");
    folder.files("guard");
    until("it serves as well", async || {
        late.guard.revision() == friend.guard.revision()
    })
    .await;
}

/// A connection of somebody at this address who says nothing.
async fn stranger(address: Ipv4Addr, at: SocketAddr) -> Option<tokio::net::TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(at).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_say_nothing_keep_no_guard_out() {
    let folder = Folder::new("strangers");
    let (cluster, port) = (Cluster::new(), free_port());
    apply(&cluster, port, mirror().await);
    let running = control(&cluster, folder.files("control")).await;
    let first = follow(running.at.port(), folder.files("first"), &folder.path);
    until("the first guard serves", async || answers(port).await).await;
    let (control, apart) = (running.at, Ipv4Addr::new(127, 0, 0, 2));
    // More than there are places of guards, and each comes again before its handshake is given up.
    let mut strangers = std::collections::VecDeque::new();
    for _ in 0..450 {
        strangers.extend(stranger(apart, control).await);
    }
    let siege = tokio::spawn(async move {
        loop {
            strangers.pop_front();
            strangers.extend(stranger(apart, control).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let own = folder.path.join("late");
    std::fs::create_dir_all(&own).unwrap();
    let address = Ipv4Addr::new(127, 0, 0, 3);
    let late = follow_as("late", address, control.port(), folder.files("late"), &own);
    until("it serves as well", async || {
        late.guard.revision() == first.guard.revision()
    })
    .await;
    siege.abort();
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

const POLICIES: &str = "/apis/jiuzhou.io/v1alpha1/trafficpolicies";
const TICKETS: &str = "/api/v1/namespaces/jiuzhou-guard/secrets/jiuzhou-guard-tickets";

/// A TrafficPolicy for the route, that says this.
fn policy(cluster: &Cluster, says: &Value) {
    let route = json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "app"});
    let mut spec = json!({"targetRefs": [route]});
    spec.as_object_mut()
        .unwrap()
        .extend(says.as_object().unwrap().clone());
    cluster.put(
        POLICIES,
        json!({"metadata": {"namespace": "ns", "name": "policy"}, "spec": spec}),
    );
}

async fn until_enforced(cluster: &Cluster) {
    until("the policy is programmed", async || {
        let path = "/apis/jiuzhou.io/v1alpha1/namespaces/ns/trafficpolicies/policy";
        let conditions = cluster.get(path)["status"]["conditions"].clone();
        let mut conditions = conditions.as_array().into_iter().flatten();
        conditions.any(|said| said["type"] == "Programmed" && said["status"] == "True")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_says_so_has_a_failed_request_sent_again() {
    let folder = Folder::new("retried");
    let (cluster, port) = (Cluster::new(), free_port());
    // Every second request fails.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let limping = endpoint(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            let status = if number.is_multiple_of(2) { 503 } else { 200 };
            Response::builder().status(status).body(text("")).unwrap()
        }
    });
    apply(&cluster, port, limping.await);
    policy(
        &cluster,
        &json!({"retries": {"attempts": 1, "on": ["GatewayError"], "budgetPercent": 100}}),
    );
    let running = control(&cluster, folder.files("control")).await;
    let _followed = follow(running.at.port(), folder.files("guard"), &folder.path);
    until_enforced(&cluster).await;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let before = asked.load(Ordering::Relaxed);
    assert!(before.is_multiple_of(2));
    for _ in 0..10 {
        assert_eq!(status(&get(at, "/").await), 200);
    }
    assert_eq!(asked.load(Ordering::Relaxed) - before, 20);
}

/// An answer to somebody who has this ticket: the status, the ticket and the place in the queue.
async fn enter(at: SocketAddr, ticket: &str) -> (u16, String, u64) {
    let header = if ticket.is_empty() {
        String::new()
    } else {
        format!("jiuzhou-ticket: {ticket}\r\n")
    };
    let answer = say(
        at,
        format!("GET / HTTP/1.1\r\nhost: app.example\r\n{header}connection: close\r\n\r\n"),
    )
    .await;
    let mut lines = answer.lines();
    let given = lines.find_map(|line| line.strip_prefix("jiuzhou-ticket: "));
    let given = given.unwrap_or(ticket).to_owned();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let document: Value = serde_json::from_str(body).unwrap_or_default();
    let position = document["position"].as_u64().unwrap_or(0);
    (status(&answer), given, position)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guards_of_a_cluster_are_one_waiting_room_by_keys_that_control_made() {
    let folder = Folder::new("rooms");
    let (cluster, port) = (Cluster::new(), free_port());
    apply(&cluster, port, mirror().await);
    let room = json!({"scope": "Region", "activeUsers": 2, "newPerMinute": 60_000});
    policy(&cluster, &json!({"waitingRoom": room}));
    let running = control(&cluster, folder.files("control")).await;
    let mut guards = Vec::new();
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        let own = folder.path.join(name);
        std::fs::create_dir_all(&own).unwrap();
        let address = Ipv4Addr::new(127, 0, 0, u8::try_from(number).unwrap() + 1);
        let control = running.at.port();
        let followed = follow_as(name, address, control, folder.files(name), &own);
        guards.push((followed, SocketAddr::from((address, port))));
    }
    until_enforced(&cluster).await;
    let made = cluster.get(TICKETS)["data"].clone();
    assert!(made["key-1"].is_string(), "{made}");
    let [at_one, at_two] = [guards[0].1, guards[1].1];
    let (first, in_one, _) = enter(at_one, "").await;
    let (second, in_two, _) = enter(at_two, "").await;
    assert_eq!((first, second), (200, 200));
    let mut tickets = Vec::new();
    for at in [at_one, at_two, at_one, at_two] {
        let (told, ticket, _) = enter(at, "").await;
        assert_eq!(told, 503);
        tickets.push(ticket);
    }
    // The queue is one: two came to each guard, and both know of four.
    let waiting = tickets.pop().unwrap();
    until("the queue of both is counted", async || {
        let counted = |(followed, _): &(Followed, SocketAddr)| {
            followed.guard.standing().rooms[0].waiting == 4
        };
        guards.iter().all(counted)
    })
    .await;
    let (told, _, position) = enter(at_one, &waiting).await;
    // A place that was shown before guards heard of each other may be too good, and is not taken back.
    assert!(told == 503 && (1..=4).contains(&position), "{position}");
    assert_eq!(
        enter(at_two, &in_one).await.0,
        200,
        "who is in is in everywhere"
    );

    // Another leader has the keys from the Secret; one that is deleted comes back as it was.
    cluster.delete(TICKETS);
    until("the keys are there again", async || {
        cluster.get(TICKETS)["data"] == made
    })
    .await;
    assert_eq!(enter(at_one, &in_two).await.0, 200);
    assert_eq!(enter(at_two, &waiting).await.0, 503);

    // A guard that begins now has heard of the queue before anybody can ask it.
    let (own, address) = (folder.path.join("three"), Ipv4Addr::new(127, 0, 0, 3));
    std::fs::create_dir_all(&own).unwrap();
    let files = folder.files("three");
    let _three = follow_as("three", address, running.at.port(), files, &own);
    let at = SocketAddr::from((address, port));
    let serves = async || tokio::net::TcpStream::connect(at).await.is_ok();
    until("the third serves", serves).await;
    assert_eq!(enter(at, "").await.0, 503);
}
