//! A small API server in memory, for tests of this module only: objects by path, optimistic
//! concurrency, and a script of answers that come first.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex},
};

use axum::body::Body as AnyBody;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tower::BoxError;

/// What the next request gets instead of an honest answer.
pub(crate) enum Scripted {
    /// This response.
    Answer(Response<AnyBody>),
    /// Silence until the caller gives up.
    Silence,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<AnyBody>, BoxError>> + Send>>;

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    script: VecDeque<Scripted>,
    log: Vec<String>,
    bodies: Vec<Value>,
    down: bool,
}

impl Fake {
    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::new(tower::service_fn(self.clone().service()), "default")
    }

    pub(crate) fn service(self) -> impl Fn(Request<Body>) -> Answer + Clone + Send + 'static {
        move |request| {
            let fake = self.clone();
            Box::pin(async move { fake.serve(request).await })
        }
    }

    pub(crate) fn script(&self, scripted: Scripted) {
        self.0.lock().unwrap().script.push_back(scripted);
    }

    /// From now on no request is answered, or again honestly.
    pub(crate) fn set_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    /// Every request so far as `METHOD path?query`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.0.lock().unwrap().log.clone()
    }

    /// The body of every request so far.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.0.lock().unwrap().bodies.clone()
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// Stores an object as another writer would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().store(path, object);
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<AnyBody>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let scripted = {
            let mut state = self.0.lock().unwrap();
            state.log.push(format!("{} {}", parts.method, parts.uri));
            state.bodies.push(body.clone());
            if state.down {
                Some(Scripted::Silence)
            } else {
                state.script.pop_front()
            }
        };
        match scripted {
            Some(Scripted::Answer(answer)) => Ok(answer),
            Some(Scripted::Silence) => std::future::pending().await,
            None => Ok(self
                .0
                .lock()
                .unwrap()
                .answer(&parts.method, parts.uri.path(), body)),
        }
    }
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> Response<AnyBody> {
        let current = self.objects.get(path).cloned();
        match (method.as_str(), current) {
            ("GET", Some(object)) => reply(200, &object),
            ("GET", None) if path.ends_with('s') => reply(200, &self.list(path)),
            ("DELETE", Some(object)) => {
                self.objects.remove(path);
                reply(200, &object)
            }
            ("POST", _) => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let path = format!("{path}/{name}");
                match self.objects.get(&path) {
                    Some(_) => failure(409, "AlreadyExists"),
                    None => reply(201, &self.store(&path, body)),
                }
            }
            ("PUT", Some(object)) => {
                let known = &body["metadata"]["resourceVersion"];
                if *known == object["metadata"]["resourceVersion"] {
                    reply(200, &self.store(path, body))
                } else {
                    failure(409, "Conflict")
                }
            }
            ("PATCH", Some(object))
                if body["metadata"]["resourceVersion"]
                    .as_str()
                    .is_some_and(|known| object["metadata"]["resourceVersion"] != known) =>
            {
                failure(409, "Conflict")
            }
            ("PATCH", Some(mut object)) => {
                merge(&mut object, body);
                reply(200, &self.store(path, object))
            }
            _ => failure(404, "NotFound"),
        }
    }

    /// Objects right below a path.
    fn list(&self, path: &str) -> Value {
        let below = self.objects.iter().filter(|(key, _)| {
            let name = key
                .strip_prefix(path)
                .and_then(|rest| rest.strip_prefix('/'));
            name.is_some_and(|name| !name.contains('/'))
        });
        let items: Vec<&Value> = below.map(|(_, object)| object).collect();
        json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}

pub(crate) fn reply(status: u16, body: &Value) -> Response<AnyBody> {
    let mut answer = Response::new(AnyBody::from(body.to_string()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

pub(crate) fn failure(code: u16, reason: &str) -> Response<AnyBody> {
    reply(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": reason, "reason": reason, "code": code}),
    )
}
