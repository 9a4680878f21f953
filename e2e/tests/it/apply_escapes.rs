//! Ways out of a tenant, through every kind that those who run one may write. None lands.

use futures::future::join_all;
use http::Method;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    admit_support::{account, account_object, call, path},
    apply_tenants::{ready, tenant},
    fault_support::{Running, Site, app, condition, deployment, province, settings},
    support::eventually,
};

const ROOT: &str = "jiuzhou-system";
const HOME: &str = "prison";

/// A manifest of a kind that no App may carry, or that is more than it seems.
fn kind(version: &str, kind: &str) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "way-out"}})
}

fn with(mut manifest: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    let parent = manifest.pointer_mut(parent).expect("the parent is there");
    parent[field] = value;
    manifest
}

fn service(spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "way-out"}, "spec": spec})
}

/// Objects that reach beyond the tenant by what they are.
fn manifests() -> Vec<Value> {
    let pod = || deployment("way-out", 1);
    let meta = |field: &str, value: Value| {
        with(
            settings("way-out", "x"),
            &format!("/metadata/{field}"),
            value,
        )
    };
    let spec =
        |field: &str, value: Value| with(pod(), &format!("/spec/template/spec/{field}"), value);
    let rbac = "rbac.authorization.k8s.io/v1";
    vec![
        kind(rbac, "Role"),
        kind(rbac, "ClusterRole"),
        kind(rbac, "RoleBinding"),
        kind(rbac, "ClusterRoleBinding"),
        kind("networking.k8s.io/v1", "NetworkPolicy"),
        kind("networking.k8s.io/v1", "Ingress"),
        kind("discovery.k8s.io/v1", "EndpointSlice"),
        kind("v1", "Endpoints"),
        kind("v1", "Namespace"),
        kind("v1", "Secret"),
        kind("v1", "Pod"),
        kind("v1", "Node"),
        kind("v1", "PersistentVolume"),
        kind("v1", "ResourceQuota"),
        kind("v1", "LimitRange"),
        kind("v1", "Event"),
        kind("apps/v1", "ReplicaSet"),
        kind("apps/v1", "deployments"),
        kind("apps/v1", "Deployment.apps"),
        kind("extensions/v1beta1", "Deployment"),
        kind("scheduling.k8s.io/v1", "PriorityClass"),
        kind("storage.k8s.io/v1", "StorageClass"),
        kind("coordination.k8s.io/v1", "Lease"),
        kind("certificates.k8s.io/v1", "CertificateSigningRequest"),
        kind(
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicy",
        ),
        kind(
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
        ),
        kind("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        kind("apiregistration.k8s.io/v1", "APIService"),
        kind("jiuzhou.io/v1alpha1", "App"),
        kind("jiuzhou.io/v1alpha1", "AssignmentSlice"),
        service(&json!({"type": "ExternalName", "externalName": "kubernetes.default.svc"})),
        service(&json!({"ports": [{"port": 80}], "externalIPs": ["10.0.0.1"]})),
        meta("namespace", json!("kube-system")),
        meta("namespace", json!("prison-yard")),
        meta(
            "ownerReferences",
            json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]),
        ),
        meta("finalizers", json!(["example.com/for-ever"])),
        meta("managedFields", json!([{}])),
        meta("name", json!("../../kube-system/configmaps/way-out")),
        meta("name", json!("jiuzhou-way-out")),
        spec("priorityClassName", json!("system-node-critical")),
        spec("priorityClassName", json!("jiuzhou-core")),
        spec("priority", json!(2_000_000_000)),
        spec("nodeName", json!("hangzhou-a-0")),
        spec("serviceAccountName", json!("jiuzhou-tenant")),
        spec("serviceAccount", json!("jiuzhou-agent")),
    ]
}

/// Changes by an override that a manifest may not bring either.
fn overrides() -> Vec<Value> {
    let add = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
    vec![
        add("/metadata/namespace", json!("kube-system")),
        add("/metadata/name", json!("other")),
        add("/kind", json!("DaemonSet")),
        add("/metadata/ownerReferences", json!([{"kind": "Node"}])),
        add("/metadata/finalizers", json!(["example.com/for-ever"])),
        add("/spec/template/spec/nodeName", json!("hangzhou-a-0")),
        add(
            "/spec/template/spec/serviceAccountName",
            json!("jiuzhou-tenant"),
        ),
    ]
}

/// Pods that Kubernetes would run if nobody held the namespace to a standard.
fn pods() -> Vec<Value> {
    let spec = |field: &str, value: Value| {
        with(
            deployment("way-out", 1),
            &format!("/spec/template/spec/{field}"),
            value,
        )
    };
    let container = |value: Value| {
        let at = "/spec/template/spec/containers/0/securityContext";
        with(deployment("way-out", 1), at, value)
    };
    vec![
        spec("hostNetwork", json!(true)),
        spec("hostPID", json!(true)),
        spec("hostIPC", json!(true)),
        spec(
            "volumes",
            json!([{"name": "node", "hostPath": {"path": "/"}}]),
        ),
        container(json!({"privileged": true})),
        container(json!({"capabilities": {"add": ["SYS_ADMIN"]}})),
    ]
}

fn ours(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// Links that reach beyond what the other side agreed to.
fn links() -> Vec<Value> {
    let link = |pointer: &str, value: Value| {
        let spec = json!({
            "from": {"appNames": ["cell"]},
            "to": {"namespace": "kube-system", "appName": "dns", "ports": [{"port": 53}]},
            "reason": "out", "owner": {"unit": "prison"}, "expires": "2099-01-01T00:00:00Z",
        });
        with(
            ours("Link", HOME, "way-out", &spec),
            &format!("/spec/{pointer}"),
            value,
        )
    };
    vec![
        link("reason", json!("no consent of the other side")),
        link("to/namespace", json!("prison")),
        link("to/addresses", json!(["0.0.0.0/0"])),
        link("to/addresses", json!(["::/0"])),
        link("to/addresses", json!(["169.254.169.254"])),
        link("from/appNames", json!(["*"])),
        link("expires", json!("2001-01-01T00:00:00Z")),
    ]
}

/// Quotas, Tenants and more that reach beyond what was given.
fn others() -> Vec<Value> {
    let quota = |namespace: &str, name: &str, resource: Value| {
        let (tenant, region) = name.split_once('.').expect("tenant and region");
        let spec = json!({"tenantName": tenant, "regionName": region, "resources": [resource]});
        ours("Quota", namespace, name, &spec)
    };
    let pods = |nominal: &str| json!({"name": "pods", "nominal": nominal});
    let tenant = |namespace: &str, name: &str, more: Value| {
        let mut spec = json!({"displayName": "way out"});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        ours("Tenant", namespace, name, &spec)
    };
    let masters = json!({"administrators": [{"kind": "Group", "name": "system:masters"}]});
    let lends = json!({"name": "pods", "nominal": "1", "lendingLimit": "2"});
    let lax = json!({"zones": ["ExtranetPublic"], "podSecurity": "Privileged"});
    let into = json!({"from": [{"namespace": HOME}], "to": [{"appName": "x"}]});
    vec![
        quota(ROOT, "prison.quzhou", pods("999")),
        quota(HOME, "yard.quzhou", pods("999")),
        quota(HOME, "yard.quzhou", pods("-1")),
        quota(HOME, "yard.quzhou", lends),
        quota(HOME, "yard.ningbo", pods("1")),
        tenant(ROOT, "escaped", json!({})),
        tenant(HOME, "kube", json!({})),
        tenant(HOME, "a-b", json!({})),
        tenant(HOME, "far", json!({"regions": ["ningbo"]})),
        tenant(HOME, "net", json!({"zones": ["Internet"]})),
        tenant(HOME, "vip", json!({"maxTier": "Core"})),
        with(
            app(HOME, "first", &["quzhou"], &[settings("first", "x")]),
            "/spec/tier",
            json!("Core"),
        ),
        tenant(HOME, "top", masters),
        ours("Isolation", "", "lax", &lax),
        ours("LinkGrant", "default", "way-in", &into),
    ]
}

/// What an API server or a condition says against an object; `None` when it is let through.
async fn refusal(warden: &Client, hub: &Site, object: &Value) -> Option<String> {
    if let Err(refusal) = call(warden, Method::POST, &path(object, false), Some(object)).await {
        return Some(refusal.message);
    }
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (kind, namespace) = (text("/kind"), text("/metadata/namespace"));
    let name = text("/metadata/name");
    let judged = hub
        .until("is judged", (kind, namespace, name), |now| {
            let current = now["status"]["observedGeneration"] == now["metadata"]["generation"];
            let settled = condition(now, "Reconciling").is_none_or(|(status, ..)| status != "True");
            current && settled
        })
        .await;
    let (status, _, message) = condition(&judged, "Ready").expect("it is judged");
    let refused = (status != "True").then(|| message.to_owned());
    hub.delete(kind, namespace, name).await;
    hub.gone(kind, namespace, name).await;
    refused
}

/// A tenant with a grant, an inner tenant and an App, and the account that runs it.
async fn imprison(running: &Running, hub: &Site) -> Client {
    let by = json!({
        "regions": ["quzhou"], "zones": ["ExtranetPublic"], "maxTier": "General",
        "administrators": [{"kind": "ServiceAccount", "name": "warden"}],
    });
    hub.create(&tenant(ROOT, HOME, &by)).await;
    ready(hub, ROOT, HOME).await;
    let pods = json!([{"name": "pods", "nominal": "90"}]);
    let spec = json!({"tenantName": HOME, "regionName": "quzhou", "resources": pods});
    hub.create(&ours("Quota", ROOT, "prison.quzhou", &spec))
        .await;
    hub.create(&account_object(HOME, "warden")).await;
    let warden = account(running.fleet.hub(), HOME, "warden").await;
    let yard = tenant(HOME, "yard", &json!({}));
    eventually("the warden may", async || {
        call(&warden, Method::POST, &path(&yard, false), Some(&yard))
            .await
            .ok()
    })
    .await;
    ready(hub, HOME, "yard").await;
    hub.create(&app(HOME, "cell", &["quzhou"], &[deployment("cell", 1)]))
        .await;
    hub.ready(HOME, "cell").await;
    warden
}

/// Everything that is tried through the API server.
fn attempts() -> Vec<Value> {
    let mut attempts = Vec::new();
    for (number, manifest) in manifests().into_iter().enumerate() {
        let name = format!("manifest-{number}");
        attempts.push(app(HOME, &name, &["quzhou"], &[manifest]));
    }
    for (number, patch) in overrides().into_iter().enumerate() {
        let name = format!("override-{number}");
        let mut object = app(HOME, &name, &["quzhou"], &[deployment(&name, 1)]);
        let target = json!({"group": "apps", "kind": "Deployment", "name": name});
        let change = json!({"regions": {"within": ["quzhou"]}, "target": target, "patch": patch});
        object["spec"]["overrides"] = json!([change]);
        attempts.push(object);
    }
    attempts
}

#[tokio::test]
async fn no_way_out_of_a_tenant_lands() {
    let running = province().await;
    let hub = running.hub().await;
    let warden = imprison(running, &hub).await;
    let control = app(HOME, "control", &["quzhou"], &[settings("control", "x")]);
    let told = refusal(&warden, &hub, &control).await;
    assert_eq!(told, None, "what is allowed is let through");

    let (side_by_side, in_turn) = (attempts(), [links(), others()].concat());
    let count = side_by_side.len() + in_turn.len() + pods().len();
    assert!(count >= 40, "{count}");
    let mut landed = Vec::new();
    for batch in side_by_side.chunks(8) {
        let answers = join_all(batch.iter().map(|one| refusal(&warden, &hub, one))).await;
        let pairs = batch.iter().zip(answers);
        landed.extend(
            pairs
                .filter(|(_, answer)| answer.is_none())
                .map(|(one, _)| one),
        );
    }
    // Those of one name would be in each other's way.
    for one in &in_turn {
        if refusal(&warden, &hub, one).await.is_none() {
            landed.push(one);
        }
    }
    assert!(landed.is_empty(), "{landed:#?}");

    let site = running.site("quzhou-a").await;
    no_pod_comes(&hub, &site).await;
    // And nobody else noticed.
    hub.ready(HOME, "cell").await;
    for kind in ["ConfigMap", "Secret", "Service"] {
        for namespace in ["kube-system", "prison-yard", HOME] {
            let nothing = site.lacks(kind, namespace, "way-out").await;
            assert!(nothing, "{kind} in {namespace}");
        }
    }
}

/// What is refused only as a pod is applied, and no pod comes of it.
async fn no_pod_comes(hub: &Site, site: &Site) {
    for (number, manifest) in pods().into_iter().enumerate() {
        let name = format!("pod-{number}");
        hub.create(&app(HOME, &name, &["quzhou"], &[manifest]))
            .await;
        let deployment = ("Deployment", HOME, "way-out");
        site.until("has its pods refused", deployment, |found| {
            let conditions = found["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|c| c["type"] == "ReplicaFailure" && c["status"] == "True")
        })
        .await;
        let ours = |pod: &&Value| pod["metadata"]["labels"]["jiuzhou.io/app"] == name.as_str();
        let pods = site.list("Pod", HOME).await;
        assert_eq!(pods.iter().find(ours), None, "{name}");
        hub.delete("App", HOME, &name).await;
        hub.gone("App", HOME, &name).await;
    }
}
