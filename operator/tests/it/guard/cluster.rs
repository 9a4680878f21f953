//! An API server in memory: objects by path, lists, watches, and writes of leases and statuses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body as Asked;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Events that a slow watch may be behind by.
const EVENTS: usize = 1024;

/// A cluster of the test. Clones share it.
#[derive(Clone)]
pub(super) struct Cluster(Arc<Mutex<State>>);

struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    events: broadcast::Sender<(String, Value)>,
    writes: Vec<String>,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let state = State {
            version: 1,
            objects: BTreeMap::new(),
            events: broadcast::channel(EVENTS).0,
            writes: Vec::new(),
        };
        let cluster = Self(Arc::new(Mutex::new(state)));
        cluster.put(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({"metadata": {"name": "gatewayclasses.gateway.networking.k8s.io",
                "annotations": {"gateway.networking.k8s.io/bundle-version": "v1.6.0"}}}),
        );
        cluster
    }

    pub(super) fn client(&self) -> kube::Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Asked>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces an object, under the path of its kind.
    pub(super) fn put(&self, collection: &str, object: Value) {
        let mut state = self.0.lock().unwrap();
        let path = path(collection, &object);
        state.store(&path, object);
    }

    pub(super) fn delete(&self, path: &str) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        let mut object = state.objects.remove(path).unwrap();
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let event = json!({"type": "DELETED", "object": object});
        let _nobody = state.events.send((path.to_owned(), event));
    }

    pub(super) fn get(&self, path: &str) -> Value {
        let state = self.0.lock().unwrap();
        state.objects.get(path).cloned().unwrap_or_default()
    }

    /// Writes so far of what is no lease, as `METHOD path`.
    pub(super) fn writes(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let writes = state.writes.iter();
        writes
            .filter(|write| !write.contains("/leases") && !write.contains("/configmaps"))
            .cloned()
            .collect()
    }

    async fn answer(&self, request: Request<Asked>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if head.method == Method::GET && query.contains("watch=") {
            return self.watch(path);
        }
        let mut state = self.0.lock().unwrap();
        if head.method == Method::GET {
            return state.read(&path);
        }
        state.writes.push(format!("{} {path}", head.method));
        let object = path.strip_suffix("/status").unwrap_or(&path);
        let (target, changed) = if head.method == Method::PATCH {
            let mut changed = state.objects.get(object).cloned().unwrap_or_default();
            changed["status"] = body["status"].clone();
            (object.to_owned(), changed)
        } else if head.method == Method::POST {
            let name = body["metadata"]["name"].as_str().unwrap();
            (format!("{path}/{name}"), body)
        } else {
            (path.clone(), body)
        };
        let stored = state.store(&target, changed);
        reply(StatusCode::OK, &stored)
    }

    fn watch(&self, collection: String) -> Response<Body> {
        let events = self.0.lock().unwrap().events.subscribe();
        let lines = futures::stream::unfold(events, |mut events| async move {
            let event = events.recv().await.ok()?;
            Some((event, events))
        });
        let lines = lines.filter_map(move |(path, event)| {
            let line = is_in(&collection, &path).then(|| format!("{event}\n"));
            std::future::ready(line)
        });
        let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(line))));
        Response::new(Body::new(StreamBody::new(frames)))
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        metadata["uid"] = json!(path);
        metadata["generation"] = json!(1);
        metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        self.objects.insert(path.to_owned(), object.clone());
        let event = json!({"type": "MODIFIED", "object": object});
        let _nobody = self.events.send((path.to_owned(), event));
        object
    }

    fn read(&self, path: &str) -> Response<Body> {
        if let Some(object) = self.objects.get(path) {
            return reply(StatusCode::OK, object);
        }
        if path == "/apis/gateway.networking.k8s.io/v1" {
            let grants = json!({"name": "referencegrants", "singularName": "", "namespaced": true,
                "kind": "ReferenceGrant", "verbs": []});
            let all =
                json!({"groupVersion": "gateway.networking.k8s.io/v1", "resources": [grants]});
            return reply(StatusCode::OK, &all);
        }
        if path.contains("/leases/") || path.contains("/configmaps/") {
            let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                "reason": "NotFound", "message": "not found", "code": 404});
            return reply(StatusCode::NOT_FOUND, &gone);
        }
        let objects = self.objects.iter().filter(|(at, _)| is_in(path, at));
        let items: Vec<&Value> = objects.map(|(_, object)| object).collect();
        let version = self.version.to_string();
        let list = json!({"metadata": {"resourceVersion": version}, "items": items});
        reply(StatusCode::OK, &list)
    }
}

/// Where an object is stored: `/apis/g/v1/kinds` becomes `/apis/g/v1/namespaces/ns/kinds/name`.
fn path(collection: &str, object: &Value) -> String {
    let (root, plural) = collection.rsplit_once('/').unwrap();
    let name = object["metadata"]["name"].as_str().unwrap();
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("{collection}/{name}"),
    }
}

/// Whether an object belongs to a collection of all namespaces.
fn is_in(collection: &str, object: &str) -> bool {
    let (root, plural) = collection.rsplit_once('/').unwrap();
    let Some(rest) = object.strip_prefix(root) else {
        return false;
    };
    let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["namespaces", _, kind, _] | [kind, _] => kind == plural,
        _ => false,
    }
}

fn reply(status: StatusCode, object: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(object.to_string().into_bytes()));
    *response.status_mut() = status;
    response
}
