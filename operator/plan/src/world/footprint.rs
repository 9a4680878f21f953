//! What an App takes up, whether it is valid or parked: the objects it claims and what it requests.
//!
//! It is read from the manifests leniently. A parked App keeps what it has, so its objects stay its
//! own and what it holds stays debited.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::{AppSpec, Charge, Image, Surge};
use serde_json::Value;

use crate::amount::{Resources, parse_quantity};
use crate::charge::{Charges, DEFAULT_REQUESTS, REQUESTS_PER_SECOND, surge_of};
use crate::object::Kind;
use crate::render::replaced_image;

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
    /// Images that its pods are made of.
    pub images: BTreeSet<Box<str>>,
    /// Names of the rules of its HTTPRoutes, which classes of TrafficPolicies name.
    pub route_rules: BTreeSet<Box<str>>,
    /// What Quotas are charged for it.
    pub charges: Charges,
    /// The same as an entry says it.
    pub charge: Arc<Charge>,
}

impl Footprint {
    /// Reads the footprint of an App whose replicas `workload` carries.
    pub(super) fn of(spec: &AppSpec, workload: Option<&str>) -> Self {
        let mut print = Self::default();
        let mut defaults = Resources::default();
        for (name, amount) in DEFAULT_REQUESTS {
            defaults.set(name, amount);
        }
        for manifest in &spec.manifests {
            let (Some(kind), Some(name)) = (Kind::of(manifest), name_of(manifest)) else {
                continue;
            };
            let claim = (kind, Box::from(name));
            if !print.claims.contains(&claim) {
                print.claims.push(claim);
            }
            print.route_rules.extend(rule_names(kind, manifest));
            print.charges.fixed.add(&counted(kind, manifest), 1);
            let Some((pod, count)) = pods(spec, kind, name, manifest) else {
                continue;
            };
            print.images.extend(images(pod, &spec.images));
            let request = pod_requests(pod, &Resources::default());
            let charged = pod_requests(pod, &defaults);
            let (surge, claims) = (surge(kind, manifest), claim_templates(manifest));
            if matches!(kind, Kind::Deployment | Kind::StatefulSet) && Some(name) == workload {
                print.charges.each = charged;
                print.charges.each.add(&claims, 1);
                print.charges.surge = surge;
                print.per_replica = request;
            } else if kind == Kind::DaemonSet {
                print.charges.node.add(&charged, 1);
                print.fixed.add(&request, 1);
            } else {
                let count = count.clamp(0, REPLICAS_MAX);
                print
                    .charges
                    .fixed
                    .add(&charged, count + surge_of(surge, count));
                print.charges.fixed.add(&claims, count);
                print.fixed.add(&request, count);
            }
        }
        if let Some(served) = spec.requests_per_second_per_replica {
            print.charges.each.set(REQUESTS_PER_SECOND, served);
        }
        print.charge = Arc::new(print.charges.to_charge());
        print
    }
}

impl Footprint {
    /// The larger of two footprints in every part: an App whose overrides ask for more somewhere is taken
    /// to ask for it everywhere.
    pub(super) fn at_least(mut self, other: &Self) -> Self {
        self.per_replica = self.per_replica.at_least(&other.per_replica);
        self.fixed = self.fixed.at_least(&other.fixed);
        self.images.extend(other.images.iter().cloned());
        self.route_rules.extend(other.route_rules.iter().cloned());
        self.charges = self.charges.at_least(&other.charges);
        self.charge = Arc::new(self.charges.to_charge());
        self
    }
}

/// Images of a pod, as they are replaced, and those that it mounts.
fn images<'m>(pod: &'m Value, replacements: &'m [Image]) -> impl Iterator<Item = Box<str>> + 'm {
    let lists = ["initContainers", "containers"].into_iter();
    let containers = lists.filter_map(|list| pod.get(list)?.as_array()).flatten();
    let containers = containers.filter_map(|container| {
        let current = container.get("image")?.as_str()?;
        let replaced = replaced_image(current, replacements);
        Some(replaced.map_or_else(|| current.into(), Into::into))
    });
    let volumes = pod.get("volumes").and_then(Value::as_array).into_iter();
    let mounted = volumes
        .flatten()
        .filter_map(|volume| volume.pointer("/image/reference")?.as_str());
    containers.chain(mounted.map(Into::into))
}

/// Names of the rules of an HTTPRoute; other kinds have none.
fn rule_names(kind: Kind, manifest: &Value) -> impl Iterator<Item = Box<str>> {
    let rules = manifest.pointer("/spec/rules").and_then(Value::as_array);
    let rules = rules.filter(|_| kind == Kind::HTTPRoute);
    let names = rules.into_iter().flatten();
    names.filter_map(|rule| rule.get("name")?.as_str().map(Box::from))
}

/// What of an object is counted, apart from its pods.
fn counted(kind: Kind, manifest: &Value) -> Resources {
    let mut sum = Resources::default();
    if kind == Kind::Service {
        sum.set("services", 1);
        let balancer =
            manifest.pointer("/spec/type").and_then(Value::as_str) == Some("LoadBalancer");
        sum.set("services.loadbalancers", i64::from(balancer));
    }
    if kind == Kind::PersistentVolumeClaim {
        sum.add(&claim(manifest), 1);
    }
    sum
}

/// A claim to storage, and that it is one.
fn claim(manifest: &Value) -> Resources {
    let asked = manifest.pointer("/spec/resources/requests/storage");
    let asked = asked.and_then(Value::as_str);
    let mut sum = Resources::default();
    sum.set("persistentvolumeclaims", 1);
    sum.set(
        "storage",
        asked
            .and_then(|text| parse_quantity("storage", text))
            .unwrap_or(0),
    );
    sum
}

/// The claims that each replica of a `StatefulSet` makes.
fn claim_templates(manifest: &Value) -> Resources {
    let templates = manifest.pointer("/spec/volumeClaimTemplates");
    let templates = templates.and_then(Value::as_array).into_iter().flatten();
    let mut sum = Resources::default();
    for template in templates {
        sum.add(&claim(template), 1);
    }
    sum
}

/// Replicas that a rolling update adds, as Kubernetes has it: a quarter, unless the Deployment says
/// otherwise.
fn surge(kind: Kind, manifest: &Value) -> Surge {
    let strategy = |field: &str| manifest.pointer(&format!("/spec/strategy/{field}"));
    let recreates = strategy("type").and_then(Value::as_str) == Some("Recreate");
    if kind != Kind::Deployment || recreates {
        return Surge::default();
    }
    let number = |n: i64| i32::try_from(n.clamp(0, REPLICAS_MAX)).unwrap_or(i32::MAX);
    match strategy("rollingUpdate/maxSurge") {
        Some(Value::Number(count)) => Surge {
            count: number(count.as_i64().unwrap_or(0)),
            percent: 0,
        },
        Some(Value::String(text)) if text.ends_with('%') => {
            let percent = text.trim_end_matches('%').parse().unwrap_or(100);
            Surge {
                percent: number(percent).min(100),
                count: 0,
            }
        }
        Some(_) | None => Surge {
            percent: 25,
            count: 0,
        },
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
        Kind::Namespace
        | Kind::NetworkPolicy
        | Kind::LimitRange
        | Kind::ResourceQuota
        | Kind::DaemonSet
        | Kind::ServiceAccount
        | Kind::ConfigMap
        | Kind::PersistentVolumeClaim
        | Kind::Service
        | Kind::HorizontalPodAutoscaler
        | Kind::PodDisruptionBudget
        | Kind::HTTPRoute
        | Kind::TrafficPolicy => ("/spec/template/spec", None),
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

/// What a pod requests, itself included: the sum of its containers and sidecars, or an init container or
/// the pod as a whole if that asks for more. Containers that do not say get the defaults.
fn pod_requests(pod: &Value, defaults: &Resources) -> Resources {
    let asked = |container: &Value| {
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
    let of = |container: &Value| {
        let mut one = asked(container);
        for (name, amount) in defaults.iter() {
            if !one.names(name) {
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
    // Sidecars run from their turn on: beside the init containers after them, and beside the rest.
    let (mut sidecars, mut most) = (Resources::default(), Resources::default());
    for container in list("initContainers") {
        let mut running = of(container);
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            sidecars.add(&running, 1);
            running = sidecars.clone();
        } else {
            running.add(&sidecars, 1);
        }
        most = most.at_least(&running);
    }
    sum.add(&sidecars, 1);
    sum = sum.at_least(&most);
    // What the pod as a whole requests.
    sum = sum.at_least(&asked(pod));
    sum.set("pods", 1);
    sum
}
