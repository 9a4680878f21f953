//! What the admission tests share: the shipped manifests, plain requests, and waiting for policies.

#![expect(clippy::panic, reason = "a test that cannot go on says why")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use e2e::fleet::{Cluster, client_from};
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::{eventually, fleet};

/// Service accounts live this long, far longer than a test.
const TOKEN_SECONDS: i64 = 3600;

/// What the server said: the object, or the code and message of its refusal.
pub(crate) type Answer = Result<Value, Refusal>;

/// A refusal by the server.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) message: String,
}

/// One request, by path; a PATCH is a merge patch unless the path names a field manager.
pub(crate) async fn call(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    let kind = match (&method, path.contains("fieldManager=")) {
        (&Method::PATCH, true) => "application/apply-patch+yaml",
        (&Method::PATCH, false) => "application/merge-patch+json",
        _ => "application/json",
    };
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(body.into_bytes())
        .expect("a request");
    match client.request::<Value>(request).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err(Refusal {
            code: status.code,
            message: status.message.clone(),
        }),
        Err(error) => panic!("{path}: {error}"),
    }
}

/// Where an object is, or its list when it has no name.
pub(crate) fn path(object: &Value, named: bool) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let version = text("/apiVersion").expect("an apiVersion");
    let root = if version.contains('/') { "apis" } else { "api" };
    let kind = text("/kind").expect("a kind").to_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    };
    let namespace = text("/metadata/namespace").map(|ns| format!("/namespaces/{ns}"));
    let name = text("/metadata/name").filter(|_| named);
    let name = name.map(|name| format!("/{name}"));
    format!(
        "/{root}/{version}{}/{plural}{}",
        namespace.unwrap_or_default(),
        name.unwrap_or_default()
    )
}

pub(crate) async fn create(client: &Client, object: &Value) -> Answer {
    call(client, Method::POST, &path(object, false), Some(object)).await
}

/// Asks whether a creation would be taken; nothing is kept.
pub(crate) async fn try_create(client: &Client, object: &Value) -> Answer {
    let path = format!("{}?dryRun=All&fieldValidation=Strict", path(object, false));
    call(client, Method::POST, &path, Some(object)).await
}

/// A merge patch of an existing object.
pub(crate) async fn patch(client: &Client, object: &Value, change: &Value) -> Answer {
    call(client, Method::PATCH, &path(object, true), Some(change)).await
}

/// Asks whether a merge patch would be taken; nothing is kept.
pub(crate) async fn try_patch(client: &Client, object: &Value, change: &Value) -> Answer {
    let path = format!("{}?dryRun=All", path(object, true));
    call(client, Method::PATCH, &path, Some(change)).await
}

/// A merge patch of an existing object's status.
pub(crate) async fn patch_status(client: &Client, object: &Value, change: &Value) -> Answer {
    let path = format!("{}/status", path(object, true));
    call(client, Method::PATCH, &path, Some(change)).await
}

/// Server-side apply, as `kubectl apply --server-side`.
pub(crate) async fn apply(client: &Client, object: &Value) -> Answer {
    let path = format!("{}?fieldManager=kubectl&force=true", path(object, true));
    call(client, Method::PATCH, &path, Some(object)).await
}

/// Waits until a creation is refused with this message, without ever making it: a new policy takes
/// seconds to come into force.
pub(crate) async fn refused(client: &Client, object: &Value, message: &str) {
    eventually(
        &format!("refused with {message:?}: {object}"),
        async || match try_create(client, object).await {
            Err(refusal) if refusal.message.contains(message) => Some(()),
            _ => None,
        },
    )
    .await;
}

/// Waits until a creation is taken: a new binding takes moments to give its rights.
pub(crate) async fn created(client: &Client, object: &Value) -> Value {
    eventually(&format!("created: {object}"), async || {
        match create(client, object).await {
            Ok(created) => Some(created),
            Err(refusal) if refusal.code == 409 => Some(json!({})),
            Err(_) => None,
        }
    })
    .await
}

/// The manifests of one chart, in the order in which `kubectl apply -f` takes the files.
pub(crate) fn chart(name: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../charts/{name}/templates"));
    let mut objects = Vec::new();
    for file in yaml_files(&folder) {
        let text = fs::read_to_string(&file).expect("readable");
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        objects.extend(documents);
    }
    objects
}

pub(crate) fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

/// Applies all CRDs and waits until they are served.
pub(crate) async fn install_crds(client: &Client) {
    for crd in crds::all() {
        let crd = serde_json::to_value(&crd).expect("plain data");
        let applied = apply(client, &crd).await;
        applied.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", crd["metadata"]["name"]));
        eventually("the kind is established", async || {
            let crd = call(client, Method::GET, &path(&crd, true), None)
                .await
                .ok()?;
            let conditions = crd["status"]["conditions"].as_array()?;
            let established = |c: &Value| c["type"] == "Established" && c["status"] == "True";
            conditions.iter().any(established).then_some(())
        })
        .await;
        let (version, plural) = ("v1alpha1", &crd["spec"]["names"]["plural"]);
        let list = format!(
            "/apis/{}/{version}/{}",
            crds::GROUP,
            plural.as_str().expect("a plural")
        );
        eventually("the kind is served", async || {
            call(client, Method::GET, &list, None).await.ok()
        })
        .await;
    }
}

async fn install(client: &Client, name: &str) {
    install_crds(client).await;
    for object in chart(name) {
        let applied = apply(client, &object).await;
        applied.unwrap_or_else(|refusal| panic!("{object}: {refusal:?}"));
    }
}

/// The hub's cluster with the hub's manifests.
pub(crate) async fn hub() -> &'static Cluster {
    static DONE: OnceCell<()> = OnceCell::const_new();
    let cluster = fleet().await.hub();
    let client = cluster.client().await.expect("a client");
    DONE.get_or_init(|| async { install(&client, "hub").await })
        .await;
    cluster
}

/// A member cluster with a region's manifests.
pub(crate) async fn region() -> &'static Cluster {
    static DONE: OnceCell<()> = OnceCell::const_new();
    let cluster = fleet().await.cluster("member-a").expect("the fleet has it");
    let client = cluster.client().await.expect("a client");
    DONE.get_or_init(|| async { install(&client, "region").await })
        .await;
    cluster
}

/// A client with a token of a service account.
pub(crate) async fn account(cluster: &Cluster, namespace: &str, name: &str) -> Client {
    let kubeconfig = cluster
        .service_account_kubeconfig(namespace, name, TOKEN_SECONDS)
        .await
        .expect("a token");
    client_from(&kubeconfig).await.expect("a client")
}

/// The hub as itself, once it has raised the fence for the first time.
pub(crate) async fn hub_account() -> Client {
    let cluster = hub().await;
    let admin = cluster.client().await.expect("a client");
    raise_fence(&admin, 1).await;
    account(cluster, "jiuzhou-system", "jiuzhou-hub").await
}

/// Raises the fence unless it is there or beyond already.
pub(crate) async fn raise_fence(client: &Client, epoch: i64) {
    let here = path(&fence(0), true);
    let mut fence_now = call(client, Method::GET, &here, None)
        .await
        .expect("the fence is installed");
    fence_now["data"] = fence(epoch)["data"].clone();
    // Refused when another test has raised it further, or at this moment.
    fence_now["metadata"]["resourceVersion"] = Value::Null;
    let raised = call(client, Method::PUT, &here, Some(&fence_now)).await;
    assert!(
        raised
            .as_ref()
            .err()
            .is_none_or(|refusal| refusal.message.contains("must not fall below")),
        "{raised:?}"
    );
}

pub(crate) fn fence(epoch: i64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "jiuzhou-fence", "namespace": "jiuzhou-system"},
        "data": {"leaderEpoch": epoch.to_string()},
    })
}

pub(crate) fn with_epoch(mut object: Value, epoch: i64) -> Value {
    object["metadata"]["annotations"][crds::label::LEADER_EPOCH] = json!(epoch.to_string());
    object
}

pub(crate) fn namespace_object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub(crate) fn account_object(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"namespace": namespace, "name": name},
    })
}

/// A RoleBinding of a ClusterRole to one service account.
pub(crate) fn binding(namespace: &str, role: &str, subject: (&str, &str)) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"namespace": namespace, "name": format!("{role}.{}.{}", subject.0, subject.1)},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": subject.0, "name": subject.1}],
    })
}

/// Joins a cluster as the hub does it: namespace, its own rights there, the agent's account and
/// the agent's rights. Returns the namespace.
pub(crate) async fn join(hub: &Client, cluster: &str) -> String {
    let home = format!("jz-{cluster}");
    let objects = [
        namespace_object(&home),
        binding(
            &home,
            "jiuzhou-hub-cluster-namespace",
            ("jiuzhou-system", "jiuzhou-hub"),
        ),
        account_object(&home, "agent"),
        binding(&home, "jiuzhou-agent-hub", (&home, "agent")),
        binding(
            "jiuzhou-content",
            "jiuzhou-content-reader",
            (&home, "agent"),
        ),
    ];
    for object in objects {
        created(hub, &with_epoch(object, FAR)).await;
    }
    home
}

/// An epoch beyond every fence of every test, so that only the test of the fence meets it.
pub(crate) const FAR: i64 = i64::MAX / 2;

pub(crate) fn slice(namespace: &str, name: &str, epoch: i64) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "AssignmentSlice",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "hubId": "hub-1", "hubEpoch": 1, "leaderEpoch": epoch, "sequence": 1,
            "management": "Manage", "clusterUID": "cluster-1", "entries": [],
        },
    })
}

pub(crate) fn content(name: &str, epoch: i64) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Content",
        "metadata": {"namespace": "jiuzhou-content", "name": name},
        "spec": {
            "tenant": "health", "leaderEpoch": epoch,
            "items": [{"hash": "3f786850e387550fdab8", "data": "{}"}],
        },
    })
}

pub(crate) fn app(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "zone": "ExtranetPublic", "dataGrade": "General",
            "manifests": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}],
        },
    })
}

/// Asks the server whether a user may; `what` is `verb group/resource[/subresource]`.
pub(crate) async fn may_user(
    client: &Client,
    user: &str,
    namespace: &str,
    what: &str,
    name: &str,
) -> bool {
    let (verb, rest) = what.split_once(' ').expect("a verb");
    let mut parts = rest.split('/');
    let mut groups = vec!["system:authenticated"];
    if user.starts_with("system:serviceaccount:") {
        groups.push("system:serviceaccounts");
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": {
            "user": user, "groups": groups,
            "resourceAttributes": {
                "namespace": namespace, "verb": verb, "name": name,
                "group": parts.next(), "resource": parts.next(), "subresource": parts.next().unwrap_or_default(),
            },
        },
    });
    let answer = create(client, &review).await.expect("a review");
    answer["status"]["allowed"] == true
}
