//! Guards of a real cluster, with what leads them as its own account: what is applied is served and enforced
//! within a second, and goes on when everything behind a guard is gone.

use std::time::Duration;

use e2e::{
    fleet::{Cluster, Fleet},
    province::{
        Guard, Pace,
        guards::{self, Guards},
        install,
    },
};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, MutexGuard, OnceCell},
    time::Instant,
};

use crate::{
    admit_support::may_user,
    fault_support::{Site, claim},
    support::{eventually, http_get_of},
};

/// What is applied holds after this.
const SOON: Duration = Duration::from_secs(1);
/// A guard that starts while all else is away serves after this.
const RESTART: Duration = Duration::from_secs(5);
/// So often at most, until each change held that soon: a busy machine makes some of them late.
const ROUNDS: usize = 20;

/// A cluster with two guards, for one test at a time: its processes may be ended and are started again.
struct Region {
    fleet: Fleet,
    guards: Guards,
}

async fn region() -> (MutexGuard<'static, ()>, &'static Region) {
    static TAKEN: Mutex<()> = Mutex::const_new(());
    static REGION: OnceCell<Region> = OnceCell::const_new();
    let taken = TAKEN.lock().await;
    let start = || async {
        let fleet = claim("guards", vec!["region".to_owned()], |_| {}).await?;
        let client = fleet.hub().client().await?;
        install::chart(&client, "region").await?;
        guards::install(&client).await?;
        let pace = Pace {
            guards: Some(2),
            ..Pace::HASTY
        };
        let guards = guards::start(&fleet, fleet.hub(), pace).await?;
        anyhow::Ok(Region { fleet, guards })
    };
    let region = REGION.get_or_try_init(start).await.expect("guards start");
    (taken, region)
}

impl Region {
    fn cluster(&self) -> &Cluster {
        self.fleet.hub()
    }

    async fn site(&self) -> Site {
        Site::new(self.cluster().client().await.expect("a client"))
    }

    /// An app with two pods in a namespace of its own, reached as `<namespace>.example`.
    async fn deploy(&self, site: &Site, namespace: &str) {
        for object in app(namespace) {
            site.create(&object).await;
        }
        let ready = |found: &Value| found["status"]["readyReplicas"] == 2;
        site.until("is ready", ("Deployment", namespace, "web"), ready)
            .await;
    }
}

fn app(namespace: &str) -> [Value; 3] {
    [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": namespace, "name": "web"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{
                        "name": "main", "image": "registry.example/app:1", "ports": [{"containerPort": 8080}],
                    }]},
                },
            },
        }),
    ]
}

fn route(namespace: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": namespace, "name": "web"},
        "spec": {
            "parentRefs": [{"namespace": guards::NAMESPACE, "name": guards::GATEWAY}],
            "hostnames": [host(namespace)],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        },
    })
}

fn policy(namespace: &str) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"namespace": namespace, "name": "web"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}],
            "rateLimits": [{"name": "total", "scope": "Cluster", "rate": {"requests": 5, "per": "1s"}}],
        },
    })
}

fn host(namespace: &str) -> String {
    format!("{namespace}.example")
}

/// Status and body of what a guard answers a citizen.
async fn ask(guard: &Guard, namespace: &str) -> Option<(u16, String)> {
    let address = guard.http.trim_start_matches("http://");
    http_get_of(address, &host(namespace), "/").await.ok()
}

/// Asks twenty times in a row.
async fn ask_often(guard: &Guard, namespace: &str) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.extend(ask(guard, namespace).await);
    }
    answers
}

/// Whether the limit of [`policy`] holds: the twentieth in a row is refused, and told by which rule.
async fn limits(guard: &Guard, namespace: &str) -> Option<()> {
    let answers = ask_often(guard, namespace).await;
    let (status, body) = answers.last()?;
    let passed = answers.iter().filter(|(status, _)| *status == 200).count();
    (*status == 429 && body.contains("\"total\"") && passed > 0).then_some(())
}

async fn passes_all(guard: &Guard, namespace: &str) -> Option<()> {
    let answers = ask_often(guard, namespace).await;
    (answers.len() == 20 && answers.iter().all(|(status, _)| *status == 200)).then_some(())
}

/// What one condition of a list says.
fn holds(conditions: &Value, kind: &str, generation: &Value) -> bool {
    let all = conditions.as_array().into_iter().flatten();
    let mut found = all.filter(|condition| condition["type"] == kind);
    found.any(|condition| {
        condition["status"] == "True" && condition["observedGeneration"] == *generation
    })
}

/// The policy counts, and every guard enforces it as it is now.
fn is_programmed(policy: &Value) -> bool {
    let ancestor = &policy["status"]["ancestors"][0];
    let generation = &policy["metadata"]["generation"];
    ancestor["controllerName"] == "jiuzhou.io/guard"
        && holds(&ancestor["conditions"], "Accepted", generation)
        && holds(&ancestor["conditions"], "Programmed", generation)
}

#[tokio::test]
async fn a_gateway_and_a_route_are_served_by_every_guard_and_say_so() {
    let (_taken, region) = region().await;
    let (site, namespace) = (region.site().await, "guard-served");
    region.deploy(&site, namespace).await;
    site.create(&route(namespace)).await;
    for guard in &region.guards.guards {
        eventually("a citizen is answered by a pod", async || {
            let (status, body) = ask(guard, namespace).await?;
            (status == 200 && body.contains("\"pod\":\"web-")).then_some(())
        })
        .await;
    }
    let accepted = |found: &Value| {
        let generation = &found["metadata"]["generation"];
        holds(&found["status"]["conditions"], "Accepted", generation)
    };
    site.until("is accepted", ("GatewayClass", "", "jiuzhou"), accepted)
        .await;
    let at = ("Gateway", guards::NAMESPACE, guards::GATEWAY);
    let gateway = site
        .until("is programmed", at, |found| {
            let generation = &found["metadata"]["generation"];
            holds(&found["status"]["conditions"], "Programmed", generation)
        })
        .await;
    let addresses = gateway["status"]["addresses"].as_array().expect("a list");
    let mut told: Vec<String> = addresses
        .iter()
        .map(|address| {
            let value = address["value"].as_str().expect("a text");
            format!("http://{value}:10080")
        })
        .collect();
    told.sort();
    let mut real: Vec<_> = region
        .guards
        .guards
        .iter()
        .map(|g| g.http.clone())
        .collect();
    real.sort();
    assert_eq!(told, real);
    site.until("is accepted", ("HTTPRoute", namespace, "web"), |found| {
        let parent = &found["status"]["parents"][0];
        let generation = &found["metadata"]["generation"];
        parent["controllerName"] == "jiuzhou.io/guard"
            && holds(&parent["conditions"], "Accepted", generation)
            && holds(&parent["conditions"], "ResolvedRefs", generation)
    })
    .await;
    site.delete("Namespace", "", namespace).await;
}

#[tokio::test]
async fn what_is_applied_holds_within_a_second() {
    let (_taken, region) = region().await;
    let (site, namespace) = (region.site().await, "guard-soon");
    let guard = &region.guards.guards[0];
    region.deploy(&site, namespace).await;
    let mut took: [Vec<Duration>; 3] = Default::default();
    let soon = |times: &Vec<Duration>| times.iter().any(|time| *time < SOON);
    for _ in 0..ROUNDS {
        if took.iter().all(soon) {
            break;
        }
        site.create(&route(namespace)).await;
        let applied = Instant::now();
        until(async || passes_all(guard, namespace).await).await;
        took[0].push(applied.elapsed());

        site.create(&policy(namespace)).await;
        let applied = Instant::now();
        until(async || limits(guard, namespace).await).await;
        took[1].push(applied.elapsed());
        let at = ("TrafficPolicy", namespace, "web");
        site.until("is programmed", at, is_programmed).await;

        site.delete("TrafficPolicy", namespace, "web").await;
        let applied = Instant::now();
        until(async || passes_all(guard, namespace).await).await;
        took[2].push(applied.elapsed());

        site.delete("HTTPRoute", namespace, "web").await;
        until(async || (ask(guard, namespace).await?.0 == 404).then_some(())).await;
    }
    assert!(
        took.iter().all(soon),
        "a route, a policy, a policy's end: {took:?}"
    );
    site.delete("Namespace", "", namespace).await;
}

/// Asks without a pause until it is so.
async fn until(mut is_so: impl AsyncFnMut() -> Option<()>) {
    let end = Instant::now() + Duration::from_mins(1);
    while is_so().await.is_none() {
        assert!(Instant::now() < end, "not within a minute");
    }
}

#[tokio::test]
async fn a_guard_serves_and_limits_without_api_server_and_control_and_starts_without_them() {
    let (_taken, region) = region().await;
    let (site, namespace) = (region.site().await, "guard-alone");
    region.deploy(&site, namespace).await;
    site.create(&route(namespace)).await;
    site.create(&policy(namespace)).await;
    let at = ("TrafficPolicy", namespace, "web");
    site.until("is programmed", at, is_programmed).await;

    region.cluster().apiserver().kill().expect("it is killed");
    let control = region.guards.process("guard-control-region").unwrap();
    for (number, guard) in region.guards.guards.iter().enumerate() {
        eventually("it serves and limits", async || {
            limits(guard, namespace).await
        })
        .await;
        // The second starts with guard control gone as well.
        if number == 1 {
            control.kill().expect("it is killed");
        }
        let process = region
            .guards
            .process(&format!("guard-region-{}", number + 1));
        let process = process.expect("it was started");
        process.kill().expect("it is killed");
        process.start().expect("it starts");
        let started = Instant::now();
        until(async || ask(guard, namespace).await.map(drop)).await;
        let took = started.elapsed();
        assert!(took < RESTART, "guard {number} served after {took:?}");
        eventually("it serves and limits", async || {
            limits(guard, namespace).await
        })
        .await;
    }

    region
        .cluster()
        .restart_apiserver()
        .await
        .expect("it is back");
    control.start().expect("it starts");
    site.delete("TrafficPolicy", namespace, "web").await;
    for guard in &region.guards.guards {
        eventually("it hears of changes again", async || {
            passes_all(guard, namespace).await
        })
        .await;
    }
    site.delete("Namespace", "", namespace).await;
}

#[tokio::test]
async fn guard_control_may_read_what_it_compiles_and_write_statuses_and_nothing_else() {
    let (_taken, region) = region().await;
    let admin = region.site().await.client;
    let home = guards::NAMESPACE;
    let mut wrong = Vec::new();
    for (namespace, what, allowed) in [
        ("", "list gateway.networking.k8s.io/gatewayclasses", true),
        ("", "watch gateway.networking.k8s.io/gateways", true),
        ("", "watch gateway.networking.k8s.io/httproutes", true),
        ("", "watch gateway.networking.k8s.io/referencegrants", true),
        ("", "patch gateway.networking.k8s.io/gateways/status", true),
        (
            "",
            "patch gateway.networking.k8s.io/httproutes/status",
            true,
        ),
        ("", "patch jiuzhou.io/trafficpolicies/status", true),
        ("", "watch discovery.k8s.io/endpointslices", true),
        ("", "watch /secrets", true),
        (home, "create coordination.k8s.io/leases", true),
        (home, "update /configmaps=jiuzhou-fence", true),
        ("", "patch gateway.networking.k8s.io/gateways", false),
        ("", "patch gateway.networking.k8s.io/httproutes", false),
        ("", "delete gateway.networking.k8s.io/httproutes", false),
        ("", "create jiuzhou.io/trafficpolicies", false),
        ("", "patch jiuzhou.io/trafficpolicies", false),
        ("", "patch /services", false),
        ("", "patch /services/status", false),
        ("", "patch discovery.k8s.io/endpointslices", false),
        ("", "create /secrets", false),
        ("", "patch /secrets", false),
        // The keys of tickets, which it never changes.
        (home, "create /secrets", true),
        (home, "update /secrets=jiuzhou-guard-tickets", false),
        (home, "patch /secrets=jiuzhou-guard-tickets", false),
        (home, "delete /secrets=jiuzhou-guard-tickets", false),
        ("default", "create /secrets", false),
        (home, "update /configmaps=other", false),
        (home, "update coordination.k8s.io/leases=other", false),
        ("default", "create coordination.k8s.io/leases", false),
        ("", "list /pods", false),
        ("", "list /nodes", false),
        (home, "create /pods", false),
        (home, "create /serviceaccounts/token", false),
        (
            "",
            "list apiextensions.k8s.io/customresourcedefinitions",
            false,
        ),
        (
            "",
            "patch apiextensions.k8s.io/customresourcedefinitions",
            false,
        ),
        (
            "",
            "create rbac.authorization.k8s.io/clusterrolebindings",
            false,
        ),
    ] {
        let (what, name) = what.split_once('=').unwrap_or((what, ""));
        let user = "system:serviceaccount:jiuzhou-guard:jiuzhou-guard-control";
        if may_user(&admin, user, namespace, what, name).await != allowed {
            wrong.push(format!("in {namespace:?}: {what} {name}: not {allowed}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
