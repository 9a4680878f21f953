//! What an App takes up, whether it is valid or parked: the objects it claims and what it requests.
//!
//! It is read from the manifests leniently. A parked App keeps what it has, so its objects stay its
//! own and what it holds stays debited.

use crds::AppSpec;
use serde_json::Value;

use crate::amount::{Resources, parse_quantity};
use crate::object::Kind;

/// No manifest counts for more replicas.
const REPLICAS_MAX: i64 = 100_000;

/// An object of an App in its namespace.
pub type Object = (Kind, Box<str>);

/// What an App takes up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Footprint {
    /// Objects it claims in its namespace.
    pub claims: Vec<Object>,
    /// What one replica requests.
    pub per_replica: Resources,
    /// What the rest of the App requests in each cluster.
    pub fixed: Resources,
}

impl Footprint {
    /// Reads the footprint of an App whose replicas `workload` carries.
    pub(super) fn of(spec: &AppSpec, workload: Option<&str>) -> Self {
        let mut print = Self::default();
        for manifest in &spec.manifests {
            let (Some(kind), Some(name)) = (Kind::of(manifest), name_of(manifest)) else {
                continue;
            };
            let claim = (kind, Box::from(name));
            if !print.claims.contains(&claim) {
                print.claims.push(claim);
            }
            let Some((pod, count)) = pods(spec, kind, name, manifest) else {
                continue;
            };
            let mut request = pod_requests(pod);
            request.set("pods", 1);
            if matches!(kind, Kind::Deployment | Kind::StatefulSet) && Some(name) == workload {
                print.per_replica = request;
            } else {
                print.fixed.add(&request, count.clamp(0, REPLICAS_MAX));
            }
        }
        print
    }
}

fn name_of(manifest: &Value) -> Option<&str> {
    manifest.pointer("/metadata/name")?.as_str()
}

/// The pod template of a manifest, and how many pods it makes.
fn pods<'m>(
    spec: &AppSpec,
    kind: Kind,
    name: &str,
    manifest: &'m Value,
) -> Option<(&'m Value, i64)> {
    let number = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_i64);
    let (pod, count) = match kind {
        Kind::CronJob => (
            "/spec/jobTemplate/spec/template/spec",
            number("/spec/jobTemplate/spec/parallelism"),
        ),
        Kind::Job => ("/spec/template/spec", number("/spec/parallelism")),
        Kind::Deployment | Kind::StatefulSet => (
            "/spec/template/spec",
            most_replicas(spec, kind, name).or(number("/spec/replicas")),
        ),
        Kind::DaemonSet
        | Kind::ServiceAccount
        | Kind::ConfigMap
        | Kind::PersistentVolumeClaim
        | Kind::Service
        | Kind::HorizontalPodAutoscaler
        | Kind::PodDisruptionBudget
        | Kind::HTTPRoute => ("/spec/template/spec", None),
    };
    Some((manifest.pointer(pod)?, count.unwrap_or(1)))
}

/// What an autoscaler of the App may scale a workload up to.
fn most_replicas(spec: &AppSpec, kind: Kind, name: &str) -> Option<i64> {
    let mut targets = scale_targets(spec);
    let (_, hpa) = targets.find(|(target, _)| *target == (kind.name(), name))?;
    hpa.pointer("/spec/maxReplicas")?.as_i64()
}

/// What each of the App's autoscalers scales, by kind and name, with its manifest.
pub(super) fn scale_targets(spec: &AppSpec) -> impl Iterator<Item = ((&str, &str), &Value)> {
    let hpas = spec
        .manifests
        .iter()
        .filter(|m| Kind::of(m) == Some(Kind::HorizontalPodAutoscaler));
    hpas.filter_map(|hpa| {
        let text = |field: &str| {
            hpa.pointer(&format!("/spec/scaleTargetRef/{field}"))?
                .as_str()
        };
        Some(((text("kind")?, text("name")?), hpa))
    })
}

/// What a pod requests: the sum of its containers, or an init container if that asks for more.
fn pod_requests(pod: &Value) -> Resources {
    let of = |container: &Value| {
        let mut one = Resources::default();
        let requests = container
            .pointer("/resources/requests")
            .and_then(Value::as_object);
        let limits = container
            .pointer("/resources/limits")
            .and_then(Value::as_object);
        // A limit without a request counts as the request, as the API server has it.
        for (name, quantity) in limits
            .into_iter()
            .flatten()
            .chain(requests.into_iter().flatten())
        {
            let text = quantity
                .as_str()
                .map_or_else(|| quantity.to_string(), str::to_owned);
            if let Some(amount) = parse_quantity(name, &text) {
                one.set(name, amount);
            }
        }
        one
    };
    let list = |field: &str| {
        pod.get(field)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let mut sum = Resources::default();
    for container in list("containers") {
        sum.add(&of(container), 1);
    }
    for container in list("initContainers") {
        sum = sum.at_least(&of(container));
    }
    sum
}
