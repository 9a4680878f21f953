//! What the tests of whole provinces share: two running provinces, and plain access to objects.

#![expect(clippy::panic, reason = "a test that cannot go on says why")]

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Result, bail};
use e2e::{
    fleet::{Fleet, FleetConfig, InUse, client_from},
    process::{Process, Program},
    province::{self, Pace, Province},
    sandbox::{Member, default_members},
};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::{
    support::{SANDBOX, eventually, scratch},
    traces,
};

/// A running province.
pub(crate) struct Running {
    pub(crate) fleet: Fleet,
    pub(crate) province: Province,
}

/// Four clusters, for tests that break nothing but their own objects: the province's own, two that
/// call the hub, and one that the hub calls. Of the members only Ningbo knows HTTPRoutes.
pub(crate) async fn province() -> &'static Running {
    static RUNNING: OnceCell<Running> = OnceCell::const_new();
    RUNNING
        .get_or_try_init(|| start("province", default_members()[..4].to_vec(), Pace::QUICK))
        .await
        .expect("the province starts")
}

/// The same four clusters, for one test at a time: anything may be broken, and is whole again when
/// the test is over.
pub(crate) async fn fragile() -> (MutexGuard<'static, ()>, &'static Running) {
    static TAKEN: Mutex<()> = Mutex::const_new(());
    static RUNNING: OnceCell<Running> = OnceCell::const_new();
    let taken = TAKEN.lock().await;
    let running = RUNNING
        .get_or_try_init(|| {
            let pace = Pace {
                traces: Some(traces::collector()),
                ..Pace::HASTY
            };
            start("fragile", default_members()[..4].to_vec(), pace)
        })
        .await
        .expect("the province starts");
    (taken, running)
}

async fn start(name: &str, members: Vec<Member>, pace: Pace) -> Result<Running> {
    let names = members.iter().map(|member| member.name.clone());
    let fleet = claim(name, names.collect(), |_| {}).await?;
    let ningbo = fleet.cluster("ningbo-a")?.client().await?;
    province::install::apply(&ningbo, HTTP_ROUTES).await?;
    let province = province::start_at(&fleet, &members, pace, |_| {}).await?;
    let running = Running { fleet, province };
    running.whole().await;
    Ok(running)
}

/// Starts clusters in the first folder of that name that nobody uses.
pub(crate) async fn claim(
    name: &str,
    clusters: Vec<String>,
    shape: fn(&mut FleetConfig),
) -> Result<Fleet> {
    // Another run of this test program may be under way in the same checkout.
    for number in 1..=8 {
        let folder = scratch(&format!("{name}-{number}"));
        let mut config = FleetConfig::new(folder, clusters.clone());
        config.sandbox = Some(SANDBOX.into());
        shape(&mut config);
        match Fleet::start(config).await {
            Err(error) if error.is::<InUse>() => {}
            started => return started,
        }
    }
    bail!("every folder for a province is in use")
}

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

const HTTP_ROUTES: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: httproutes.gateway.networking.k8s.io
  annotations: {api-approved.kubernetes.io: unapproved}
spec:
  group: gateway.networking.k8s.io
  scope: Namespaced
  names: {kind: HTTPRoute, plural: httproutes, singular: httproute}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

impl Running {
    /// The hub's cluster.
    pub(crate) async fn hub(&self) -> Site {
        Site::new(self.fleet.hub().client().await.expect("a client"))
    }

    /// A cluster.
    pub(crate) async fn site(&self, name: &str) -> Site {
        let cluster = self.fleet.cluster(name).expect("the fleet has it");
        Site::new(cluster.client().await.expect("a client"))
    }

    /// A process of the province.
    pub(crate) fn process(&self, name: &str) -> &Process {
        self.province.process(name).expect("it was started")
    }

    /// A second replica of the hub.
    pub(crate) async fn hub_replica(&self, name: &str) -> (Process, province::Endpoint) {
        province::hub_replica(&self.fleet, name, Pace::HASTY)
            .await
            .expect("it starts")
    }

    /// The hub's cluster with the rights of one of our processes there.
    pub(crate) async fn identity(&self, name: &str) -> Site {
        let file = self
            .fleet
            .dir()
            .join(format!("identities/{name}.kubeconfig"));
        let text = std::fs::read_to_string(file).expect("it was written");
        Site::new(client_from(&text).await.expect("a client"))
    }

    /// An agent with the place of one cluster at the hub and with another cluster before it.
    pub(crate) async fn misplaced_agent(&self, place: &str, cluster: &str) -> Process {
        let identities = self.fleet.dir().join("identities");
        let binary = tokio::task::spawn_blocking(province::binary::jiuzhou).await;
        let program = Program::new(
            "agent-misplaced",
            binary.expect("it ends").expect("it builds"),
        )
        .arg("agent")
        .flag("cluster", place)
        .flag(
            "hub-kubeconfig",
            identities.join(format!("agent-{place}-hub.kubeconfig")),
        )
        .flag(
            "kubeconfig",
            identities.join(format!("agent-{cluster}.kubeconfig")),
        )
        .flag("heartbeat", "1s")
        .flag("metrics-address", "127.0.0.1:0");
        self.fleet.supervisor().spawn(program).expect("it starts")
    }

    /// Logs of all processes of Jiuzhou.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        let processes = self.province.processes.iter();
        processes.map(|process| process.log().to_owned()).collect()
    }

    /// A namespace of a tenant at the hub that no other test uses.
    pub(crate) async fn tenant(&self, prefix: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{prefix}{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.hub().await.create(&object).await;
        name
    }

    /// Waits until all clusters count as in contact.
    pub(crate) async fn whole(&self) {
        let hub = self.hub().await;
        eventually("all clusters are in contact", async || {
            let clusters = hub.list("MemberCluster", "").await;
            let is_ready = |c: &&Value| condition(c, "Ready").is_some_and(|(s, _, _)| s == "True");
            let ready = clusters.iter().filter(is_ready).count();
            (ready == self.fleet.clusters().len()).then_some(())
        })
        .await;
    }
}

/// The objects of one cluster, with all rights.
pub(crate) struct Site {
    pub(crate) client: Client,
}

/// Kinds that the tests touch: API version, plural, and whether they are namespaced.
const KINDS: &[(&str, &str, &str, bool)] = &[
    ("Namespace", "v1", "namespaces", false),
    ("ConfigMap", "v1", "configmaps", true),
    ("Secret", "v1", "secrets", true),
    ("Event", "events.k8s.io/v1", "events", true),
    ("Service", "v1", "services", true),
    ("ServiceAccount", "v1", "serviceaccounts", true),
    ("Deployment", "apps/v1", "deployments", true),
    ("CronJob", "batch/v1", "cronjobs", true),
    (
        "HorizontalPodAutoscaler",
        "autoscaling/v2",
        "horizontalpodautoscalers",
        true,
    ),
    (
        "GatewayClass",
        "gateway.networking.k8s.io/v1",
        "gatewayclasses",
        false,
    ),
    ("Gateway", "gateway.networking.k8s.io/v1", "gateways", true),
    (
        "HTTPRoute",
        "gateway.networking.k8s.io/v1",
        "httproutes",
        true,
    ),
    (
        "RoleBinding",
        "rbac.authorization.k8s.io/v1",
        "rolebindings",
        true,
    ),
    (
        "ClusterRole",
        "rbac.authorization.k8s.io/v1",
        "clusterroles",
        false,
    ),
    ("Tenant", "jiuzhou.io/v1alpha1", "tenants", true),
    ("Quota", "jiuzhou.io/v1alpha1", "quotas", true),
    ("Isolation", "jiuzhou.io/v1alpha1", "isolations", false),
    ("Link", "jiuzhou.io/v1alpha1", "links", true),
    ("LinkGrant", "jiuzhou.io/v1alpha1", "linkgrants", true),
    (
        "TrafficPolicy",
        "jiuzhou.io/v1alpha1",
        "trafficpolicies",
        true,
    ),
    ("Approval", "jiuzhou.io/v1alpha1", "approvals", true),
    (
        "NetworkPolicy",
        "networking.k8s.io/v1",
        "networkpolicies",
        true,
    ),
    ("LimitRange", "v1", "limitranges", true),
    ("Pod", "v1", "pods", true),
    ("ReplicaSet", "apps/v1", "replicasets", true),
    ("ResourceQuota", "v1", "resourcequotas", true),
    ("QuotaLedger", "jiuzhou.io/v1alpha1", "quotaledgers", true),
    ("App", "jiuzhou.io/v1alpha1", "apps", true),
    ("Region", "jiuzhou.io/v1alpha1", "regions", false),
    (
        "MemberCluster",
        "jiuzhou.io/v1alpha1",
        "memberclusters",
        false,
    ),
    (
        "AssignmentSlice",
        "jiuzhou.io/v1alpha1",
        "assignmentslices",
        true,
    ),
    ("ReportSlice", "jiuzhou.io/v1alpha1", "reportslices", true),
    (
        "ClusterReport",
        "jiuzhou.io/v1alpha1",
        "clusterreports",
        true,
    ),
    ("Content", "jiuzhou.io/v1alpha1", "contents", true),
];

impl Site {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Objects of one kind, in a namespace or, with an empty one, everywhere.
    pub(crate) fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let (kind, version, plural, namespaced) = *KINDS
            .iter()
            .find(|row| row.0 == kind)
            .unwrap_or_else(|| panic!("list {kind} in KINDS"));
        let (group, short) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource {
            group: group.to_owned(),
            version: short.to_owned(),
            api_version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        if namespaced && !namespace.is_empty() {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        }
    }

    /// An object, if it is there and the server answers.
    pub(crate) async fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let api = self.api(kind, namespace);
        let found = answered(async || api.get_opt(name).await).await.ok()??;
        Some(value(&found))
    }

    /// Whether an object is gone; a server that does not answer says neither.
    pub(crate) async fn lacks(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let api = self.api(kind, namespace);
        matches!(answered(async || api.get_opt(name).await).await, Ok(None))
    }

    /// All objects of a kind.
    pub(crate) async fn list(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let (api, params) = (self.api(kind, namespace), ListParams::default());
        let list = answered(async || api.list(&params).await).await;
        list.map(|list| list.items.iter().map(value).collect())
            .unwrap_or_default()
    }

    /// Creates an object; it must be taken. A kind that is new is not taken for some seconds.
    pub(crate) async fn create(&self, object: &Value) -> Value {
        let (kind, namespace, _) = place(object);
        let new: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
        let api = self.api(kind, namespace);
        eventually(&format!("created: {object}"), async || {
            match api.create(&PostParams::default(), &new).await {
                Ok(created) => Some(value(&created)),
                Err(kube::Error::Api(status)) if status.code == 503 => None,
                Err(error) => panic!("{object}: {error}"),
            }
        })
        .await
    }

    /// Merges a change into an object; it must be taken.
    pub(crate) async fn merge(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        change: &Value,
    ) -> Value {
        let params = PatchParams {
            field_manager: Some("somebody".into()),
            ..PatchParams::default()
        };
        let patched = self
            .api(kind, namespace)
            .patch(name, &params, &Patch::Merge(change))
            .await;
        value(&patched.unwrap_or_else(|error| panic!("{kind} {namespace}/{name}: {error}")))
    }

    /// Deletes an object; one that is gone already counts.
    pub(crate) async fn delete(&self, kind: &str, namespace: &str, name: &str) {
        match self
            .api(kind, namespace)
            .delete(name, &DeleteParams::background())
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => panic!("{kind} {namespace}/{name}: {error}"),
        }
    }

    /// Waits for an object that fulfils a condition.
    pub(crate) async fn until(
        &self,
        what: &str,
        (kind, namespace, name): (&str, &str, &str),
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let what = format!("{kind} {namespace}/{name}: {what}");
        eventually(&what, async || {
            self.get(kind, namespace, name).await.filter(&holds)
        })
        .await
    }

    /// Waits until an object is gone.
    pub(crate) async fn gone(&self, kind: &str, namespace: &str, name: &str) {
        let what = format!("{kind} {namespace}/{name} is gone");
        eventually(&what, async || {
            self.lacks(kind, namespace, name).await.then_some(())
        })
        .await;
    }

    /// Waits until an App is Ready as it is written now.
    pub(crate) async fn ready(&self, namespace: &str, name: &str) -> Value {
        self.until("is Ready", ("App", namespace, name), |app| {
            app["status"]["observedGeneration"] == app["metadata"]["generation"]
                && condition(app, "Ready").is_some_and(|(status, _, _)| status == "True")
        })
        .await
    }

    /// Waits until an App is not Ready for a reason, and returns its message.
    pub(crate) async fn refused(&self, namespace: &str, name: &str, reason: &str) -> String {
        let found = self
            .until(
                &format!("is not Ready: {reason}"),
                ("App", namespace, name),
                |app| {
                    condition(app, "Ready")
                        .is_some_and(|(status, why, _)| status != "True" && why == reason)
                },
            )
            .await;
        condition(&found, "Ready")
            .map(|(_, _, message)| message.to_owned())
            .unwrap_or_default()
    }
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("plain data")
}

fn place(object: &Value) -> (&str, &str, &str) {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    (
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name"),
    )
}

/// Status, reason and message of a condition.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let all = object["status"]["conditions"].as_array()?;
    let found = all.iter().find(|c| c["type"] == kind)?;
    Some((
        found["status"].as_str()?,
        found["reason"].as_str()?,
        found["message"].as_str()?,
    ))
}

/// UID of an object.
pub(crate) fn uid(object: &Value) -> &str {
    object["metadata"]["uid"]
        .as_str()
        .expect("stored objects have one")
}

/// UID and version of an object.
pub(crate) type Version = (String, String);

/// Equal exactly when nobody wrote the object.
pub(crate) fn version(object: &Value) -> Version {
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    (uid(object).to_owned(), version.to_owned())
}

/// The answer to a question that is asked again for two seconds: one request that a busy server
/// dropped is no word on what it holds.
async fn answered<T, E>(ask: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    loop {
        match ask().await {
            Err(_) if tokio::time::Instant::now() < end => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// An App over some regions.
pub(crate) fn app(namespace: &str, name: &str, regions: &[&str], manifests: &[Value]) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "zone": "ExtranetPublic", "dataGrade": "General",
            "placement": {"regions": {"within": regions}},
            "manifests": manifests,
        },
    })
}

/// A ConfigMap as a manifest.
pub(crate) fn settings(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": value}})
}

/// A Deployment as a manifest.
pub(crate) fn deployment(name: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "main", "image": "registry.example/app:1",
                    "env": [{"name": "CITY", "value": "province"}],
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                }]},
            },
        },
    })
}

/// Holds that something stays true for a while.
pub(crate) async fn throughout(what: &str, span: Duration, holds: impl AsyncFn() -> bool) {
    let end = tokio::time::Instant::now() + span;
    while tokio::time::Instant::now() < end {
        assert!(holds().await, "{what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Names of the objects of a kind.
pub(crate) async fn names(site: &Site, kind: &str, namespace: &str) -> Vec<String> {
    let list = site
        .api(kind, namespace)
        .list(&ListParams::default())
        .await
        .expect("a list");
    list.items.iter().map(kube::ResourceExt::name_any).collect()
}

/// A label or annotation.
pub(crate) fn mark<'a>(object: &'a Value, field: &str, name: &str) -> &'a str {
    object["metadata"][field][name].as_str().unwrap_or_default()
}

/// Names of field managers of an object that own a field, by the key path in managedFields.
pub(crate) fn owners<'a>(object: &'a Value, path: &str) -> Vec<&'a str> {
    let fields = object["metadata"]["managedFields"].as_array();
    let owns = |entry: &&Value| entry["fieldsV1"].pointer(path).is_some();
    let owners = fields.into_iter().flatten().filter(owns);
    owners
        .filter_map(|entry| entry["manager"].as_str())
        .collect()
}
