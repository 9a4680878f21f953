//! What of a namespace's grant holds in a member cluster: ResourceQuotas, one for each tier and one for
//! what has no tier, as large as what the Apps there are charged. Whatever runs beside them, or makes more
//! of them than was decided, finds no room.

use std::collections::BTreeMap;

use crds::{Entry, Tier};
use serde_json::{Value, json};

use crate::amount::{Resources, format_amount, parse_quantity};
use crate::charge::{Charges, DEFAULT_REQUESTS, REQUESTS_PER_SECOND};
use crate::province::Load;

/// What the Apps of a namespace are charged in one cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allotment {
    /// For their pods, by tier.
    pub pods: BTreeMap<Tier, Resources>,
    /// For everything that is counted without regard to tiers.
    pub objects: Resources,
}

/// Whether a resource is counted without regard to tiers: what objects without a tier use, and what the
/// API server counts for no PriorityClass apart.
fn has_no_tier(resource: &str) -> bool {
    matches!(
        resource,
        "services"
            | "services.loadbalancers"
            | "persistentvolumeclaims"
            | "storage"
            | "ephemeral-storage"
    )
}

impl Allotment {
    /// Adds what an App's entry is charged at the stage in force, on so many nodes.
    pub fn add(&mut self, entry: &Entry, nodes: usize, now: i64) {
        let replicas = Load::of_stages(&entry.stages, now).count();
        let charges = Charges::of(&entry.charge);
        let mut due = charges.at(replicas);
        let more = i64::try_from(nodes).unwrap_or(i64::MAX).max(1) - 1;
        due.add(&charges.node, more);
        for (resource, amount) in due.iter() {
            if resource == REQUESTS_PER_SECOND {
                continue;
            }
            let sum = if has_no_tier(resource) {
                &mut self.objects
            } else {
                self.pods.entry(entry.tier).or_default()
            };
            sum.set(resource, sum.get(resource).saturating_add(amount));
        }
    }

    /// What the ResourceQuota of a tier, or of what has none, is to allow of the limited resources.
    pub fn hard(&self, tier: Option<Tier>, limits: &[String]) -> Resources {
        let nothing = Resources::default();
        let due = match tier {
            Some(tier) => self.pods.get(&tier).unwrap_or(&nothing),
            None => &self.objects,
        };
        let mut hard = Resources::default();
        let limited = limits.iter().filter(|name| *name != REQUESTS_PER_SECOND);
        for name in limited.filter(|name| has_no_tier(name) == tier.is_none()) {
            hard.set(name, due.get(name));
        }
        hard
    }

    /// The objects that hold a namespace to it.
    pub fn manifests(&self, limits: &[String]) -> Vec<Value> {
        if limits.is_empty() {
            return Vec::new();
        }
        let mut manifests = vec![defaults()];
        let objects = self.hard(None, limits);
        if objects.iter().next().is_some() {
            manifests.push(quota(quota_name(None), &objects, &json!({})));
        }
        for tier in Tier::ALL {
            let hard = self.hard(Some(tier), limits);
            if hard.iter().next().is_some() {
                let scope = scope("In", &[tier.priority_class()]);
                manifests.push(quota(quota_name(Some(tier)), &hard, &scope));
            }
        }
        let mut none = Resources::default();
        none.set("pods", 0);
        let ours = Tier::ALL.map(Tier::priority_class);
        manifests.push(quota("jiuzhou-other", &none, &scope("NotIn", &ours)));
        manifests
    }
}

/// Name of the ResourceQuota of a tier, or of what has none.
pub fn quota_name(tier: Option<Tier>) -> &'static str {
    tier.map_or("jiuzhou-objects", Tier::priority_class)
}

fn scope(operator: &str, classes: &[&str]) -> Value {
    json!({"scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": operator, "values": classes},
    ]}})
}

fn quota(name: &str, hard: &Resources, spec: &Value) -> Value {
    let amounts = hard.iter();
    let hard: BTreeMap<String, String> = amounts
        .map(|(resource, amount)| (hard_name(resource), format_amount(resource, amount)))
        .collect();
    let mut quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec,
    });
    quota["spec"]["hard"] = json!(hard);
    quota
}

/// What containers request that do not say: without it a ResourceQuota would refuse them.
fn defaults() -> Value {
    let requests: BTreeMap<&str, String> = DEFAULT_REQUESTS
        .iter()
        .map(|(name, amount)| (*name, format_amount(name, *amount)))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "jiuzhou-defaults"},
        "spec": {"limits": [{"type": "Container", "defaultRequest": requests}]},
    })
}

/// A resource as a ResourceQuota names it.
fn hard_name(resource: &str) -> String {
    let requested = matches!(resource, "cpu" | "memory" | "ephemeral-storage" | "storage")
        || resource.contains('/');
    if requested {
        format!("requests.{resource}")
    } else {
        resource.to_owned()
    }
}

/// The amounts that a ResourceQuota names, by the names of resources.
pub fn amounts_of(hard: Option<&Value>) -> Resources {
    let mut amounts = Resources::default();
    for (name, quantity) in hard.and_then(Value::as_object).into_iter().flatten() {
        let resource = name.strip_prefix("requests.").unwrap_or(name);
        let amount = quantity.as_str().and_then(|q| parse_quantity(resource, q));
        if let Some(amount) = amount {
            amounts.set(resource, amount);
        }
    }
    amounts
}
