//! Routes, the listeners they attach to, and what is said of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::config::Hostname;
use super::super::gateway::{GROUP, HttpRoute, ParentReference, RouteParentStatus, RouteStatus};
use super::conditions::{Refusal, Wanted, settle};
use super::expressions::Expressions;
use super::gateways::ReadGateway;
use super::hostnames;
use super::index::Index;
use super::listeners::ReadListener;
use super::name::ObjectName;
use super::rules::{self, RouteRules};
use super::{Age, CONTROLLER, Inputs};

/// What we say of a route at a parent.
const OURS: [&str; 3] = ["Accepted", "PartiallyInvalid", "ResolvedRefs"];

/// A route as it was understood.
pub(super) struct ReadRoute<'a> {
    pub(super) name: ObjectName,
    pub(super) object: &'a HttpRoute,
    pub(super) read: RouteRules,
}

/// A listener, by the places of its Gateway and of itself in it.
pub(super) type ListenerAt = (usize, usize);

/// Which routes are attached where.
#[derive(Default)]
pub(super) struct Attachments {
    /// The hostnames of each route at each listener; routes by their place.
    pub(super) at: BTreeMap<ListenerAt, BTreeMap<usize, BTreeSet<Hostname>>>,
    /// What came of every parent that is ours, in the order of the route.
    parents: BTreeMap<usize, Vec<Attached>>,
}

impl Attachments {
    /// Takes a route out wherever it is attached, and says why.
    pub(super) fn refuse(
        &mut self,
        route_at: usize,
        name: &ObjectName,
        refusal: &Refusal,
        gateways: &mut [ReadGateway<'_>],
    ) {
        for ((gateway_at, listener_at), attached) in &mut self.at {
            if attached.remove(&route_at).is_some() {
                let listener = &mut gateways[*gateway_at].listeners[*listener_at];
                listener.attached.remove(name);
            }
        }
        for attached in self.parents.get_mut(&route_at).into_iter().flatten() {
            attached.refused.get_or_insert_with(|| refusal.clone());
        }
    }
}

/// What came of a parent.
struct Attached {
    parent: ParentReference,
    refused: Option<Refusal>,
}

/// Reads all routes, the oldest first.
pub(super) fn read<'a>(inputs: &'a Inputs, index: &Index<'_>) -> Vec<ReadRoute<'a>> {
    let routes = inputs.http_routes.iter();
    let mut routes: Vec<&'a HttpRoute> = routes.map(|route| &**route).collect();
    routes.sort_by_cached_key(|route| Age::of(&route.metadata));
    let mut expressions = Expressions::default();
    let routes = routes.into_iter().map(|object| {
        let name = ObjectName::of(&object.metadata);
        let allowance = expressions.of(&name.namespace);
        let read = rules::read(&name, object, index, allowance);
        ReadRoute { name, object, read }
    });
    routes.collect()
}

/// Attaches routes to listeners, and counts those that are accepted there.
pub(super) fn attach(
    routes: &[ReadRoute<'_>],
    gateways: &mut [ReadGateway<'_>],
    index: &Index<'_>,
) -> Attachments {
    let places = gateways.iter().enumerate();
    let places: BTreeMap<ObjectName, usize> = places
        .map(|(place, gateway)| (gateway.name.clone(), place))
        .collect();
    let mut attachments = Attachments::default();
    for (route_at, route) in routes.iter().enumerate() {
        for (number, parent) in route.object.spec.parent_refs.iter().enumerate() {
            let named = gateway_of(parent, &route.name.namespace);
            let Some(&gateway_at) = named.and_then(|name| places.get(&name)) else {
                continue;
            };
            let known = attachments.parents.entry(route_at).or_default();
            if known.iter().any(|attached| attached.parent == *parent) {
                continue;
            }
            let outcome = one(route, number, parent, &gateways[gateway_at], index);
            known.push(Attached {
                parent: parent.clone(),
                refused: outcome
                    .as_ref()
                    .err()
                    .or(route.read.invalid.as_ref())
                    .cloned(),
            });
            for (listener_at, hosts) in outcome.into_iter().flatten() {
                if route.read.invalid.is_none() {
                    let listener = &mut gateways[gateway_at].listeners[listener_at];
                    listener.attached.insert(route.name.clone());
                }
                let at = attachments.at.entry((gateway_at, listener_at)).or_default();
                at.entry(route_at).or_default().extend(hosts);
            }
        }
    }
    attachments
}

/// What is said of routes with a parent of ours, and of those that had one.
pub(super) fn statuses(
    routes: &[ReadRoute<'_>],
    attachments: &Attachments,
    now: Timestamp,
) -> BTreeMap<ObjectName, RouteStatus> {
    let mut statuses = BTreeMap::new();
    for (at, route) in routes.iter().enumerate() {
        let before = route.object.status.as_ref();
        let before = before.map_or(&[][..], |status| &status.parents);
        let (ours, mut parents): (Vec<_>, Vec<_>) = before
            .iter()
            .cloned()
            .partition(|parent| parent.controller_name == CONTROLLER);
        let attached = attachments.parents.get(&at).map_or(&[][..], Vec::as_slice);
        if attached.is_empty() && ours.is_empty() {
            continue;
        }
        parents.extend(
            attached
                .iter()
                .map(|attached| parent(route, attached, &ours, now)),
        );
        statuses.insert(route.name.clone(), RouteStatus { parents });
    }
    statuses
}

fn parent(
    route: &ReadRoute<'_>,
    attached: &Attached,
    ours: &[RouteParentStatus],
    now: Timestamp,
) -> RouteParentStatus {
    let old = ours.iter().find(|old| old.parent_ref == attached.parent);
    let before = old.map_or(&[][..], |old| &old.conditions);
    let mut wanted = vec![
        match &attached.refused {
            Some(refusal) => Wanted::no("Accepted", refusal),
            None => Wanted::yes("Accepted", "Accepted", ""),
        },
        match &route.read.unresolved {
            Some(refusal) => Wanted::no("ResolvedRefs", refusal),
            None => Wanted::yes("ResolvedRefs", "ResolvedRefs", ""),
        },
    ];
    // The API forbids it on a route that is not accepted.
    if let (None, Some(refusal)) = (&attached.refused, &route.read.partially_invalid) {
        wanted.push(Wanted::alarm("PartiallyInvalid", refusal));
    }
    let mut conditions = settle(before, wanted, route.object.metadata.generation, now);
    let others = before
        .iter()
        .filter(|old| !OURS.contains(&old.type_.as_str()));
    conditions.extend(others.cloned());
    RouteParentStatus {
        parent_ref: attached.parent.clone(),
        controller_name: CONTROLLER.to_owned(),
        conditions,
    }
}

fn gateway_of(parent: &ParentReference, namespace: &str) -> Option<ObjectName> {
    let group = parent.group.as_deref().unwrap_or(GROUP);
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    (group == GROUP && kind == "Gateway").then(|| {
        ObjectName::new(
            parent.namespace.as_deref().unwrap_or(namespace),
            &parent.name,
        )
    })
}

/// Listeners that take a route, with the hostnames they have in common.
type Taken = Vec<(usize, BTreeSet<Hostname>)>;

fn one(
    route: &ReadRoute<'_>,
    number: usize,
    parent: &ParentReference,
    gateway: &ReadGateway<'_>,
    index: &Index<'_>,
) -> Result<Taken, Refusal> {
    let field = format!("HTTPRoute {}: spec.parentRefs[{number}]", route.name);
    let meant = |listener: &ReadListener<'_>| {
        let section = parent
            .section_name
            .as_deref()
            .filter(|section| !section.is_empty());
        section.is_none_or(|section| section == listener.name)
            && parent.port.is_none_or(|port| port == listener.port)
    };
    let mut listeners: Vec<(usize, &ReadListener<'_>)> =
        gateway.listeners.iter().enumerate().collect();
    listeners.retain(|(_, listener)| meant(listener));
    if listeners.is_empty() {
        return Err(Refusal::new(
            "NoMatchingParent",
            format!(
                "{field}: Gateway {} has no listener of that sectionName and port; it has {}",
                gateway.name,
                described(gateway)
            ),
        ));
    }
    let namespace = &route.name.namespace;
    listeners.retain(|(_, listener)| listener.allows(namespace, &gateway.name.namespace, index));
    if listeners.is_empty() {
        return Err(Refusal::new(
            "NotAllowedByListeners",
            format!(
                "{field}: no listener of Gateway {} that is meant takes HTTPRoutes from namespace \
                 {namespace}; ask its owner to add them to spec.listeners[].allowedRoutes",
                gateway.name
            ),
        ));
    }
    let taken: Taken = listeners
        .iter()
        .map(|(at, listener)| {
            (
                *at,
                common(&listener.hostname, &route.object.spec.hostnames),
            )
        })
        .filter(|(_, hosts)| !hosts.is_empty())
        .collect();
    if taken.is_empty() {
        return Err(Refusal::new(
            "NoMatchingListenerHostname",
            format!(
                "HTTPRoute {}: spec.hostnames: none lies in the hostname of a listener of Gateway {} \
                 that is meant; it has {}",
                route.name,
                gateway.name,
                described(gateway)
            ),
        ));
    }
    Ok(taken)
}

fn common(listener: &Hostname, hostnames: &[String]) -> BTreeSet<Hostname> {
    if hostnames.is_empty() {
        return BTreeSet::from([listener.clone()]);
    }
    // An empty text would be every hostname, which is not what somebody means who lists some.
    let written = hostnames.iter().filter(|hostname| !hostname.is_empty());
    written
        .filter_map(|hostname| hostnames::intersection(listener, &Hostname::from(hostname.clone())))
        .collect()
}

fn described(gateway: &ReadGateway<'_>) -> String {
    let listeners = gateway.listeners.iter().map(|listener| {
        let hostname = match &listener.hostname {
            Hostname::Any => "any hostname".to_owned(),
            some @ (Hostname::Exact(_) | Hostname::Below(_)) => some.to_string(),
        };
        format!("{} (port {}, {hostname})", listener.name, listener.port)
    });
    listeners.collect::<Vec<_>>().join(", ")
}
