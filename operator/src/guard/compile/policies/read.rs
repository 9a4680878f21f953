//! Policies as they were understood, and the rules of routes that they name.

use std::collections::{BTreeMap, BTreeSet};

use crds::label::{MANAGED_BY, MANAGED_BY_VALUE};
use crds::{Activation, PolicyTarget, Reason, TrafficPolicy};

use super::super::name::ObjectName;
use super::super::routes::ReadRoute;
use super::super::{Age, Inputs, TicketKeys};
use super::{translate, unserved};
use crate::guard::gateway::GROUP;

/// A rule of a route, by the places of both.
pub(super) type RuleAt = (usize, usize);

/// Where a policy comes from, and when it counts; each builds on those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// Sent by the hub.
    Hub,
    /// Sent by the hub, for events.
    HubEvent,
    /// Written in the region.
    Region,
    /// Written in the region, for events.
    RegionEvent,
}

impl Layer {
    pub(super) const ALL: [Self; 4] = [Self::Hub, Self::HubEvent, Self::Region, Self::RegionEvent];

    pub(super) fn is_hub(self) -> bool {
        self <= Self::HubEvent
    }
}

/// Why a policy does not count for a target, or what of it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// A policy as it was understood.
pub(super) struct ReadPolicy<'a> {
    pub(super) name: ObjectName,
    pub(super) object: &'a TrafficPolicy,
    pub(super) layer: Layer,
    /// Whether it is in force at this time.
    pub(super) is_on: bool,
    pub(super) targets: Vec<Target<'a>>,
    /// What of it does not count although it is accepted.
    pub(super) notes: Vec<Refused>,
}

/// A route, or a rule of one, that a policy names.
pub(super) struct Target<'a> {
    pub(super) named: &'a PolicyTarget,
    /// The place of the route, if there is one.
    pub(super) route: Option<usize>,
    /// Rules that can be matched.
    pub(super) rules: BTreeSet<RuleAt>,
    pub(super) refused: Option<Refused>,
}

impl ReadPolicy<'_> {
    /// Lets it count nowhere.
    pub(super) fn refuse(&mut self, refused: &Refused) {
        for target in &mut self.targets {
            target.refused.get_or_insert_with(|| refused.clone());
        }
    }

    /// Says what of it does not count.
    pub(super) fn note(&mut self, reason: Reason, message: impl Into<String>) {
        self.notes.push(Refused::new(reason, message));
    }
}

/// Reads the policies that name routes, the oldest first. Those that name Apps are the hub's.
pub(super) fn read<'a>(inputs: &'a Inputs, routes: &[ReadRoute<'_>]) -> Vec<ReadPolicy<'a>> {
    let places = routes.iter().enumerate();
    let places: BTreeMap<&ObjectName, usize> =
        places.map(|(place, route)| (&route.name, place)).collect();
    let named = |target: &&PolicyTarget| target.group == GROUP && target.kind == "HTTPRoute";
    let mut policies = Vec::new();
    for object in &inputs.traffic_policies {
        let name = ObjectName::of(&object.metadata);
        let targets = object.spec.target_refs.iter().filter(named);
        let targets: Vec<Target<'a>> = targets
            .map(|target| resolve(target, &name.namespace, routes, &places))
            .collect();
        if targets.is_empty() {
            continue;
        }
        let is_event = object.spec.activation == Activation::ByEvent;
        let mut policy = ReadPolicy {
            layer: layer(object, is_event),
            is_on: !is_event || inputs.events.contains(&name),
            name,
            object,
            targets,
            notes: Vec::new(),
        };
        judge(&mut policy, routes, &inputs.ticket_keys);
        policies.push(policy);
    }
    policies.sort_by_cached_key(|policy| Age::of(&policy.object.metadata));
    policies
}

/// What can be said of a policy by itself.
fn judge(policy: &mut ReadPolicy<'_>, routes: &[ReadRoute<'_>], keys: &TicketKeys) {
    let spec = &policy.object.spec;
    if let Err(fault) = translate::settings(&policy.name.to_string(), spec) {
        policy.refuse(&Refused::new(Reason::Invalid, fault));
        return;
    }
    for (field, why) in unserved::of(spec, keys) {
        let message = format!("{field} does not count, so do not rely on it: {why}");
        policy.note(Reason::NotServed, message);
    }
    let wide = unserved::province_wide(spec);
    // The hub divides over the clusters, and what it sends is this one's part.
    if !wide.is_empty() && !policy.layer.is_hub() {
        let message = format!(
            "counted for this cluster alone, and not over the province: {}; write a limit of scope \
             Cluster or Region, or let the hub divide it",
            wide.join(", ")
        );
        policy.note(Reason::ProvinceCapNotServed, message);
    }
    if unserved::has_room_of_the_province(spec) {
        let message = "waitingRoom: people are counted for this cluster alone, and not over the province; write \
                       scope Cluster or Region, and what this cluster stands";
        policy.note(Reason::ProvinceCapNotServed, message);
    }
    let missing: Vec<&str> = spec
        .classes
        .iter()
        .map(|class| class.section_name.as_str())
        .filter(|section| !has_section(policy, routes, section))
        .collect();
    if !missing.is_empty() {
        let message = format!(
            "classes: no rule of its targets has the name {}; name the rules of the HTTPRoute so, or \
             remove them",
            missing.join(", ")
        );
        policy.note(Reason::TargetNotFound, message);
    }
}

fn has_section(policy: &ReadPolicy<'_>, routes: &[ReadRoute<'_>], section: &str) -> bool {
    let targets = policy.targets.iter().filter_map(|target| target.route);
    let mut rules = targets.flat_map(|route| &routes[route].object.spec.rules);
    rules.any(|rule| rule.name.as_deref() == Some(section))
}

fn layer(object: &TrafficPolicy, is_event: bool) -> Layer {
    let labels = object.metadata.labels.as_ref();
    let manager = labels.and_then(|labels| labels.get(MANAGED_BY));
    match (manager.is_some_and(|by| by == MANAGED_BY_VALUE), is_event) {
        (true, false) => Layer::Hub,
        (true, true) => Layer::HubEvent,
        (false, false) => Layer::Region,
        (false, true) => Layer::RegionEvent,
    }
}

fn resolve<'a>(
    named: &'a PolicyTarget,
    namespace: &str,
    routes: &[ReadRoute<'_>],
    places: &BTreeMap<&ObjectName, usize>,
) -> Target<'a> {
    let name = ObjectName::new(namespace, &named.name);
    let mut target = Target {
        named,
        route: places.get(&name).copied(),
        rules: BTreeSet::new(),
        refused: None,
    };
    let Some(place) = target.route else {
        target.refused = Some(Refused::new(
            Reason::TargetNotFound,
            format!("HTTPRoute {name} does not exist; create it, or name another one"),
        ));
        return target;
    };
    let route = &routes[place];
    let section = named.section_name.as_deref();
    let sections = || {
        let rules = &route.object.spec.rules;
        rules.iter().filter_map(|rule| rule.name.as_deref())
    };
    if let Some(section) = section
        && !sections().any(|known| known == section)
    {
        let known: Vec<&str> = sections().collect();
        target.refused = Some(Refused::new(
            Reason::TargetNotFound,
            format!(
                "HTTPRoute {name} has no rule {section:?}; its rules have the names: {}",
                if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                }
            ),
        ));
        return target;
    }
    let rules = route.read.rules.iter().enumerate();
    target.rules = rules
        .filter(|(_, rule)| section.is_none() || rule.section.as_deref() == section)
        .map(|(number, _)| (place, number))
        .collect();
    target
}
