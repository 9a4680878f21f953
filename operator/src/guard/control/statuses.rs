//! Writes what is said of Gateways, classes and routes: only what differs, and only as the leader.
//!
//! A task of its own: an API server that is slow must not hold up what guards are given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crds::TrafficPolicy;
use futures::{StreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::guard::compile::{Inputs, ObjectName, Statuses};
use crate::guard::gateway::{Gateway, GatewayClass, GatewayClassStatus, GatewayStatus, HttpRoute};
use crate::runtime::errors::chain;

/// Who owns what is applied.
const MANAGER: &str = "jiuzhou-guard";
/// Statuses written at one time: a change of a class touches every Gateway, and the API server has other
/// clients.
const CONCURRENCY: usize = 8;
/// Time within which a written status comes back by the watch; what still differs then was changed by
/// somebody else, and is written again.
const ECHO: Duration = Duration::from_secs(5);
/// Pause after a status was not taken. A conflict means that the route changed, which is news by itself.
const RETRY: Duration = Duration::from_secs(1);
/// Longest pause where the API server itself refuses a status again and again, which more of the same does
/// not help: each refusal doubles the pause until the object's spec is another.
const RETRY_MAX: Duration = Duration::from_mins(1);

/// What was last decided, with the objects it was decided for.
#[derive(Debug, Default)]
pub(super) struct Decided {
    pub(super) inputs: Inputs,
    pub(super) statuses: Statuses,
}

/// A status that differs from what is stored.
#[derive(Debug)]
struct Write {
    target: Target,
    /// Of the spec that it is said of.
    generation: Option<i64>,
    /// The body of the request.
    body: Value,
}

impl Write {
    fn of(metadata: &ObjectMeta, target: Target, body: Value) -> Self {
        Self {
            target,
            generation: metadata.generation,
            body,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Class(String),
    Gateway(ObjectName),
    Route(ObjectName),
    Policy(ObjectName),
}

/// Statuses that were not taken, and when each is tried again.
#[derive(Debug, Default)]
struct Failing(BTreeMap<Target, Failure>);

#[derive(Debug)]
struct Failure {
    generation: Option<i64>,
    refusals: u32,
    again: Instant,
}

impl Failing {
    /// Whether a status has to wait, whatever its words: the time in them is another in every turn.
    fn holds(&self, write: &Write, now: Instant) -> bool {
        let known = self.0.get(&write.target);
        known.is_some_and(|known| known.generation == write.generation && now < known.again)
    }

    /// It was not taken.
    fn failed(&mut self, write: &Write, is_refused: bool, now: Instant) {
        let known = self.0.get(&write.target);
        let known = known.filter(|known| known.generation == write.generation);
        let before = known.map_or(0, |known| known.refusals);
        let refusals = before.saturating_add(u32::from(is_refused));
        let times = 2_u32.saturating_pow(refusals.saturating_sub(1));
        let failure = Failure {
            generation: write.generation,
            refusals,
            again: now + RETRY.saturating_mul(times).min(RETRY_MAX),
        };
        self.0.insert(write.target.clone(), failure);
    }

    /// Forgets what is not to be written any more.
    fn keep(&mut self, writes: &[Write]) {
        if !self.0.is_empty() {
            let targets: BTreeSet<&Target> = writes.iter().map(|write| &write.target).collect();
            self.0.retain(|target, _| targets.contains(target));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.0.values().map(|failure| failure.again).min()
    }
}

/// Whether the API server says that it will never take this, unlike one that is away or has much to do.
fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 413 | 422))
}

/// Writes until the sender of decisions is gone.
pub(super) async fn write(client: Client, mut decided: watch::Receiver<Arc<Decided>>) {
    let mut written: BTreeMap<Target, (Value, Instant)> = BTreeMap::new();
    let mut failing = Failing::default();
    let mut again = None;
    loop {
        let changed = decided.changed();
        match again {
            None => {
                if changed.await.is_err() {
                    return;
                }
            }
            Some(at) => tokio::select! {
                changed = changed => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep_until(at) => {}
            },
        }
        let now = Arc::clone(&decided.borrow_and_update());
        written.retain(|_, (_, at)| at.elapsed() < ECHO);
        let mut writes = differences(&now);
        failing.keep(&writes);
        let all = writes.len();
        let began = Instant::now();
        writes.retain(|write| {
            let said = written.get(&write.target);
            said.is_none_or(|(body, _)| *body != write.body) && !failing.holds(write, began)
        });
        let waits = all > writes.len();
        let results: Vec<_> = stream::iter(writes)
            .map(|write| send(&client, write))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (write, result) in results {
            match result {
                Ok(()) => {
                    failing.0.remove(&write.target);
                    written.insert(write.target, (write.body, Instant::now()));
                }
                Err(error) => {
                    failing.failed(&write, is_refused(&error), Instant::now());
                    tracing::warn!(
                        object = ?write.target,
                        error = chain(&error),
                        "a status was not written; it is tried again"
                    );
                }
            }
        }
        let echo = (waits || !written.is_empty()).then(|| Instant::now() + ECHO);
        again = [failing.next(), echo].into_iter().flatten().min();
    }
}

async fn send(client: &Client, write: Write) -> (Write, kube::Result<()>) {
    let sent = match &write.target {
        Target::Class(name) => {
            let api: Api<GatewayClass> = Api::all(client.clone());
            apply(&api, name, &write.body).await
        }
        Target::Gateway(name) => {
            let api: Api<Gateway> = Api::namespaced(client.clone(), &name.namespace);
            apply(&api, &name.name, &write.body).await
        }
        Target::Route(name) => {
            let api: Api<HttpRoute> = Api::namespaced(client.clone(), &name.namespace);
            replace(&api, &name.name, &write.body).await
        }
        Target::Policy(name) => {
            let api: Api<TrafficPolicy> = Api::namespaced(client.clone(), &name.namespace);
            replace(&api, &name.name, &write.body).await
        }
    };
    // Who was deleted needs no status, and who was changed is decided anew.
    let settled = match sent {
        Ok(()) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    };
    (write, settled)
}

async fn apply<K>(api: &Api<K>, name: &str, body: &Value) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + Debug,
{
    let manager = PatchParams::apply(MANAGER).force();
    api.patch_status(name, &manager, &Patch::Apply(body))
        .await
        .map(drop)
}

async fn replace<K>(api: &Api<K>, name: &str, body: &Value) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + Debug,
{
    let manager = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(name, &manager, &Patch::Merge(body))
        .await
        .map(drop)
}

fn differences(decided: &Decided) -> Vec<Write> {
    let Decided { inputs, statuses } = decided;
    let mut writes = Vec::new();
    for class in &inputs.gateway_classes {
        let name = class.name_any();
        if let Some(status) = statuses.gateway_classes.get(&name)
            && !class
                .status
                .as_ref()
                .is_some_and(|old| has_class(old, status))
        {
            let target = Target::Class(name);
            let body = applied(&**class, status);
            writes.push(Write::of(&class.metadata, target, body));
        }
    }
    for gateway in &inputs.gateways {
        let name = ObjectName::of(&gateway.metadata);
        if let Some(status) = statuses.gateways.get(&name)
            && !gateway
                .status
                .as_ref()
                .is_some_and(|old| has_gateway(old, status))
        {
            let target = Target::Gateway(name);
            let body = applied(&**gateway, status);
            writes.push(Write::of(&gateway.metadata, target, body));
        }
    }
    for route in &inputs.http_routes {
        let name = ObjectName::of(&route.metadata);
        if let Some(status) = statuses.http_routes.get(&name)
            && route.status.as_ref() != Some(status)
        {
            let target = Target::Route(name);
            let body = replaced(&route.metadata, status);
            writes.push(Write::of(&route.metadata, target, body));
        }
    }
    for policy in &inputs.traffic_policies {
        let name = ObjectName::of(&policy.metadata);
        if let Some(status) = statuses.traffic_policies.get(&name)
            && policy.status.as_ref() != Some(status)
        {
            let target = Target::Policy(name);
            let body = replaced(&policy.metadata, status);
            writes.push(Write::of(&policy.metadata, target, body));
        }
    }
    writes
}

fn has_class(old: &GatewayClassStatus, wanted: &GatewayClassStatus) -> bool {
    let GatewayClassStatus {
        conditions,
        supported_features,
    } = wanted;
    has(&old.conditions, conditions) && old.supported_features == *supported_features
}

fn has_gateway(old: &GatewayStatus, wanted: &GatewayStatus) -> bool {
    let GatewayStatus {
        addresses,
        conditions,
        listeners,
    } = wanted;
    has(&old.conditions, conditions) && old.addresses == *addresses && old.listeners == *listeners
}

/// Whether all of ours are there; others may have their own beside them.
fn has(old: &[Condition], wanted: &[Condition]) -> bool {
    wanted.iter().all(|condition| old.contains(condition))
}

/// To be applied to this very object: another of the same name has another UID.
fn applied<K>(object: &K, status: &impl Serialize) -> Value
where
    K: Resource<DynamicType = ()>,
{
    let metadata = object.meta();
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "status": status,
    })
}

/// The list of parents or ancestors is written as a whole, so only over what was read.
fn replaced(metadata: &ObjectMeta, status: &impl Serialize) -> Value {
    json!({
        "metadata": {"resourceVersion": metadata.resource_version},
        "status": status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::compile::{CONTROLLER, compile};

    fn inputs() -> Inputs {
        let class = json!({
            "metadata": {"name": "guard", "uid": "1", "generation": 1},
            "spec": {"controllerName": CONTROLLER},
        });
        let gateway = json!({
            "metadata": {"namespace": "ns", "name": "web", "uid": "2", "generation": 1},
            "spec": {"gatewayClassName": "guard",
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        });
        let route = json!({
            "metadata": {"namespace": "ns", "name": "app", "uid": "3", "resourceVersion": "7"},
            "spec": {"parentRefs": [{"name": "web"}], "rules": [{}]},
        });
        Inputs {
            gateway_classes: vec![serde_json::from_value(class).unwrap()],
            gateways: vec![serde_json::from_value(gateway).unwrap()],
            http_routes: vec![serde_json::from_value(route).unwrap()],
            ..Inputs::default()
        }
    }

    #[test]
    fn what_is_stored_is_not_written_again_whatever_others_say_beside_it() {
        let mut inputs = inputs();
        let (_, statuses) = compile(&inputs);
        let first = Decided {
            inputs: inputs.clone(),
            statuses: statuses.clone(),
        };
        let writes = differences(&first);
        assert_eq!(writes.len(), 3);
        assert_eq!(writes[1].body["metadata"]["uid"], "2");
        assert_eq!(writes[2].body["metadata"]["resourceVersion"], "7");
        let class = Arc::make_mut(&mut inputs.gateway_classes[0]);
        class.status = statuses.gateway_classes.get("guard").cloned();
        let gateway = Arc::make_mut(&mut inputs.gateways[0]);
        gateway.status = statuses.gateways.values().next().cloned();
        if let Some(status) = &mut gateway.status {
            let mut other = status.conditions[0].clone();
            other.type_ = "example.com/Other".into();
            status.conditions.insert(0, other);
        }
        let route = Arc::make_mut(&mut inputs.http_routes[0]);
        route.status = statuses.http_routes.values().next().cloned();
        let (_, statuses) = compile(&inputs);
        let rest = Decided { inputs, statuses };
        assert!(differences(&rest).is_empty(), "{:?}", differences(&rest));
    }

    #[test]
    fn a_status_that_is_never_taken_is_tried_less_often_until_its_spec_is_another() {
        let write = |generation| Write {
            target: Target::Class("guard".into()),
            generation: Some(generation),
            body: json!({}),
        };
        let now = Instant::now();
        let mut failing = Failing::default();
        for _ in 0..3 {
            failing.failed(&write(1), true, now);
        }
        assert_eq!(failing.next(), Some(now + 4 * RETRY));
        assert!(failing.holds(&write(1), now + 3 * RETRY));
        assert!(!failing.holds(&write(1), now + 4 * RETRY));
        assert!(!failing.holds(&write(2), now), "somebody changed it");
        for _ in 0..40 {
            failing.failed(&write(1), true, now);
        }
        assert_eq!(failing.next(), Some(now + RETRY_MAX));
        failing.failed(&write(2), false, now);
        failing.failed(&write(2), false, now);
        assert_eq!(failing.next(), Some(now + RETRY), "the API server was away");
        failing.keep(&[]);
        assert_eq!(failing.next(), None);
    }
}
