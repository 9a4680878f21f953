//! What policies come to at the rules of routes, for people who ask, by the very steps of the compilation.
//!
//! Where a rule comes from is found out by putting the layers on one after the other: the layer that changes
//! what a rule says is the one that it comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crds::{ConditionStatus, Reason, Tier, TrafficPolicySpec};
use serde::Serialize;
use serde_json::Value;

use super::super::name::ObjectName;
use super::super::routes::ReadRoute;
use super::super::{Inputs, TicketKeys};
use super::layers::Group;
use super::read::{Layer, ReadPolicy, RuleAt, Target};
use super::translate::{Translated, burst_of, hot_burst_of};
use super::{merged, settled, status, unserved};

/// What somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A route, or one rule of it by its name or number.
    Route(ObjectName, Option<String>),
    /// A policy, and whatever it names.
    Policy(ObjectName),
}

/// There is nothing of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No such HTTPRoute.
    Route(ObjectName),
    /// No rule of that name or number in the route, which has these.
    Rule(ObjectName, String, Vec<String>),
    /// No such TrafficPolicy that names HTTPRoutes.
    Policy(ObjectName),
}

/// What protects routes, and what somebody wrote for them that does not count.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effective {
    /// Rules of the routes, in their order.
    pub rules: Vec<RouteRuleInForce>,
    /// What protects them, each once.
    pub in_force: Vec<InForce>,
    /// Policies that name the routes, the oldest first.
    pub policies: Vec<PolicySaid>,
}

/// A rule of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRuleInForce {
    /// `namespace/route`.
    pub route: ObjectName,
    /// Its name in the route, or its number.
    pub rule: String,
    /// How much its requests matter; absent where nothing says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// What protects it, by the name in [`InForce::name`]; absent where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protected_by: Option<String>,
}

/// What several policies say together.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InForce {
    /// What refusals and metrics name: the first of the policies.
    pub name: String,
    /// The policies, each building on those before it.
    pub layers: Vec<LayerInForce>,
    /// What counts.
    pub rules: Vec<RuleInForce>,
    /// What they ask for and guards cannot do.
    pub not_served: Vec<String>,
}

/// A policy that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerInForce {
    /// `namespace/name`.
    pub policy: ObjectName,
    /// Who wrote it.
    pub origin: Origin,
    /// Whether it counts for the time of an event.
    pub is_for_event: bool,
}

/// Who wrote a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Origin {
    /// It was sent by the hub.
    Hub,
    /// Somebody in the region.
    Region,
}

/// A rule or setting that counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleInForce {
    /// Field of `spec`.
    pub field: String,
    /// Name in the list; empty for a field that is no list.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it says, with what nobody said filled in.
    pub value: Value,
    /// Policies that made it so, in order; none where a single policy is told of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
}

/// What a policy did to a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "effect", content = "policy")]
pub enum Source {
    /// It says it first.
    Says(ObjectName),
    /// Its event is on, and it takes the place of what was said.
    Replaces(ObjectName),
    /// It is tighter than what was said, in some field at least.
    Tightens(ObjectName),
    /// It says as much, or less strict things that do not count.
    AddsNothing(ObjectName),
}

/// What becomes of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySaid {
    /// `namespace/name`.
    pub policy: ObjectName,
    /// Who wrote it.
    pub origin: Origin,
    /// At each target.
    pub targets: Vec<TargetSaid>,
}

/// What becomes of a policy at a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetSaid {
    /// `namespace/route`.
    pub route: ObjectName,
    /// The rule, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Whether it counts there.
    pub counts: bool,
    /// Why, as one word of the status.
    pub reason: Reason,
    /// Why not, or what of it does not count; may be empty.
    pub message: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(name) => write!(
                f,
                "no HTTPRoute {} in namespace {}; list them with kubectl get httproutes -A, by the \
                 kubeconfig of the region that has it",
                name.name, name.namespace
            ),
            Self::Rule(route, rule, known) => write!(
                f,
                "HTTPRoute {route} has no rule {rule}; its rules are: {}",
                known.join(", ")
            ),
            Self::Policy(name) => write!(
                f,
                "no TrafficPolicy {} in namespace {}; list them with kubectl get trafficpolicies -A",
                name.name, name.namespace
            ),
        }
    }
}

impl std::error::Error for Missing {}

/// What is asked, answered.
pub(in super::super) fn of(
    inputs: &Inputs,
    routes: &[ReadRoute<'_>],
    asked: &Asked,
) -> Result<Effective, Missing> {
    let (policies, groups) = settled(inputs, routes);
    let rules = asked_for(asked, routes, &policies)?;
    let mut answer = Effective::default();
    let mut told = BTreeSet::new();
    for at in &rules {
        let found = groups
            .iter()
            .position(|(group, _)| group.rules.contains(at));
        if let Some(place) = found.filter(|place| told.insert(*place)) {
            let keys = &inputs.ticket_keys;
            answer
                .in_force
                .push(in_force(&groups[place], &policies, keys));
        }
        let group = found.map(|place| &groups[place]);
        answer.rules.push(route_rule(*at, routes, group, &policies));
    }
    let is_asked = |policy: &ReadPolicy<'_>| match asked {
        Asked::Policy(name) => policy.name == *name || is_about(policy, &rules),
        Asked::Route(..) => is_about(policy, &rules),
    };
    let asked_about = policies.iter().filter(|policy| is_asked(policy));
    answer.policies = asked_about
        .map(|policy| said(policy, &rules, asked))
        .collect();
    Ok(answer)
}

/// All that a policy says, in the order in which requests meet it.
pub fn rules_of(spec: &TrafficPolicySpec) -> Vec<RuleInForce> {
    let rules = values(spec).into_iter();
    let rules = rules.map(|(key, value)| RuleInForce {
        field: key.field.to_owned(),
        name: key.name,
        value,
        from: Vec::new(),
    });
    rules.collect()
}

/// The rules of routes that are asked about, in their order.
fn asked_for(
    asked: &Asked,
    routes: &[ReadRoute<'_>],
    policies: &[ReadPolicy<'_>],
) -> Result<BTreeSet<RuleAt>, Missing> {
    match asked {
        Asked::Route(name, rule) => {
            let place = routes.iter().position(|route| route.name == *name);
            let place = place.ok_or_else(|| Missing::Route(name.clone()))?;
            let all = || routes[place].read.rules.iter();
            let is_asked = |known: &str| rule.as_deref().is_none_or(|rule| rule == known);
            let rules = all().enumerate();
            let rules = rules.filter(|(_, read)| is_asked(&read.rule.name));
            let rules: BTreeSet<RuleAt> = rules.map(|(number, _)| (place, number)).collect();
            match rule {
                Some(rule) if rules.is_empty() => {
                    let known = all().map(|read| read.rule.name.clone()).collect();
                    Err(Missing::Rule(name.clone(), rule.clone(), known))
                }
                Some(_) | None => Ok(rules),
            }
        }
        Asked::Policy(name) => {
            let policy = policies.iter().find(|policy| policy.name == *name);
            let policy = policy.ok_or_else(|| Missing::Policy(name.clone()))?;
            let rules = policy.targets.iter().flat_map(|target| &target.rules);
            Ok(rules.copied().collect())
        }
    }
}

fn is_about(policy: &ReadPolicy<'_>, rules: &BTreeSet<RuleAt>) -> bool {
    let mut targets = policy.targets.iter();
    targets.any(|target| concerns(target, rules))
}

/// Whether a target covers any of the rules, or names a rule of their route that is not there.
fn concerns(target: &Target<'_>, rules: &BTreeSet<RuleAt>) -> bool {
    let is_of_route = |route: usize| rules.iter().any(|(place, _)| *place == route);
    let dangles = target.rules.is_empty() && target.route.is_some_and(is_of_route);
    dangles || !target.rules.is_disjoint(rules)
}

fn route_rule(
    (place, number): RuleAt,
    routes: &[ReadRoute<'_>],
    group: Option<&(Group, Translated)>,
    policies: &[ReadPolicy<'_>],
) -> RouteRuleInForce {
    let route = &routes[place];
    let read = &route.read.rules[number];
    let tier = group.and_then(|(group, _)| {
        let (spec, _) = merged(&group.stack, policies);
        tier_of(&spec, read.section.as_deref())
    });
    RouteRuleInForce {
        route: route.name.clone(),
        rule: read.rule.name.clone(),
        tier,
        protected_by: group.map(|(_, translated)| translated.settings.name.clone()),
    }
}

/// Without classes there is nothing to tell apart.
fn tier_of(spec: &TrafficPolicySpec, section: Option<&str>) -> Option<Tier> {
    let mut classes = spec.classes.iter();
    let class = classes.find(|class| Some(class.section_name.as_str()) == section);
    let rest = || (!spec.classes.is_empty()).then(Tier::default);
    class
        .map(|class| class.tier)
        .or(spec.default_tier)
        .or_else(rest)
}

fn in_force(
    (group, translated): &(Group, Translated),
    policies: &[ReadPolicy<'_>],
    keys: &TicketKeys,
) -> InForce {
    let stack = &group.stack;
    let (spec, _) = merged(stack, policies);
    let mut from: BTreeMap<Key, Vec<Source>> = BTreeMap::new();
    let mut before = BTreeMap::new();
    for (number, at) in stack.iter().enumerate() {
        let policy = &policies[*at];
        let (spec, _) = merged(&stack[..=number], policies);
        let now = values(&spec);
        for (key, own) in values(&policy.object.spec) {
            let Some(value) = now.get(&key) else {
                // It is not allowed to add this.
                continue;
            };
            let source = effect(before.get(&key), value, &own, policy);
            from.entry(key).or_default().push(source);
        }
        before = now;
    }
    let not_served = unserved::of(&spec, keys).into_iter();
    let mut rules = rules_of(&spec);
    for (rule, key) in rules.iter_mut().zip(before.keys()) {
        rule.from = from.remove(key).unwrap_or_default();
    }
    InForce {
        name: translated.settings.name.clone(),
        layers: stack.iter().map(|at| layer(&policies[*at])).collect(),
        rules,
        not_served: not_served.map(|(field, _)| field).collect(),
    }
}

/// What a policy did to a rule that was `before` and is `now`.
fn effect(before: Option<&Value>, now: &Value, own: &Value, policy: &ReadPolicy<'_>) -> Source {
    let name = policy.name.clone();
    match before {
        None => Source::Says(name),
        Some(before) if before == now => Source::AddsNothing(name),
        Some(_) if is_for_event(policy.layer) && own == now => Source::Replaces(name),
        Some(_) => Source::Tightens(name),
    }
}

fn layer(policy: &ReadPolicy<'_>) -> LayerInForce {
    LayerInForce {
        policy: policy.name.clone(),
        origin: origin(policy.layer),
        is_for_event: is_for_event(policy.layer),
    }
}

fn is_for_event(layer: Layer) -> bool {
    match layer {
        Layer::HubEvent | Layer::RegionEvent => true,
        Layer::Hub | Layer::Region => false,
    }
}

fn origin(layer: Layer) -> Origin {
    if layer.is_hub() {
        Origin::Hub
    } else {
        Origin::Region
    }
}

fn said(policy: &ReadPolicy<'_>, rules: &BTreeSet<RuleAt>, asked: &Asked) -> PolicySaid {
    let is_it = matches!(asked, Asked::Policy(name) if *name == policy.name);
    let targets = policy.targets.iter();
    let targets = targets.filter(|target| is_it || concerns(target, rules));
    let targets = targets.map(|target| {
        let said = status::accepted(policy, target);
        let own = format!("TrafficPolicy {}: ", policy.name);
        TargetSaid {
            route: ObjectName::new(&policy.name.namespace, &target.named.name),
            rule: target.named.section_name.clone(),
            counts: said.status == ConditionStatus::True && policy.is_on,
            reason: said.reason,
            // Who reads this reads the name beside it.
            message: said.message.replacen(&own, "", 1),
        }
    });
    PolicySaid {
        policy: policy.name.clone(),
        origin: origin(policy.layer),
        targets: targets.collect(),
    }
}

/// Where a rule or setting stands in a spec; in the order in which requests meet them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    order: usize,
    field: &'static str,
    name: String,
}

/// Lists of rules, with the field that names each, and settings that are one, in the order that they are shown.
const FIELDS: [(&str, Option<&str>); 10] = [
    ("waitingRoom", None),
    ("jwt", None),
    ("rateLimits", Some("name")),
    ("hotKeys", Some("name")),
    ("breakers", Some("name")),
    ("concurrency", None),
    ("defaultTier", None),
    ("classes", Some("sectionName")),
    ("timeout", None),
    ("retries", None),
];

/// All that a spec says, rule by rule.
fn values(spec: &TrafficPolicySpec) -> BTreeMap<Key, Value> {
    // Unsaid and said alike are the same to whoever compares.
    let spec = filled(spec);
    let all = serde_json::to_value(&spec).unwrap_or_default();
    let mut values = BTreeMap::new();
    for (order, (field, named_by)) in FIELDS.into_iter().enumerate() {
        let key = |name: &str| Key {
            order,
            field,
            name: name.to_owned(),
        };
        match (all.get(field), named_by) {
            (Some(Value::Array(rules)), Some(named_by)) => {
                let name = |rule: &Value| key(rule[named_by].as_str().unwrap_or_default());
                values.extend(rules.iter().map(|rule| (name(rule), rule.clone())));
            }
            (Some(value), None) => {
                values.insert(key(""), value.clone());
            }
            (Some(_) | None, _) => {}
        }
    }
    values
}

/// A spec in which what nobody said stands as it holds.
fn filled(spec: &TrafficPolicySpec) -> TrafficPolicySpec {
    let mut spec = spec.clone();
    for limit in &mut spec.rate_limits {
        limit.burst = Some(burst_of(limit));
        limit.on_missing = Some(limit.on_missing.unwrap_or_default());
        limit.mode = Some(limit.mode.unwrap_or_default());
    }
    for hot in &mut spec.hot_keys {
        hot.limit.burst = Some(hot_burst_of(hot));
        hot.mode = Some(hot.mode.unwrap_or_default());
    }
    for breaker in &mut spec.breakers {
        breaker.window = Some(breaker.window());
        breaker.min_requests = Some(breaker.min_requests());
        breaker.open_for = Some(breaker.open_for());
        breaker.probes = Some(breaker.probes());
        breaker.mode = Some(breaker.mode.unwrap_or_default());
    }
    if let Some(room) = &mut spec.waiting_room {
        room.session = Some(room.session());
    }
    if let Some(retries) = &mut spec.retries {
        retries.attempts = Some(retries.attempts());
        retries.on = retries.on().to_vec();
        retries.budget_percent = Some(retries.budget_percent());
    }
    spec
}

#[cfg(test)]
mod tests;
