//! Where requests go: what routes refer to, and the endpoints behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service as KubeService, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint as KubeEndpoint, EndpointSlice};

use super::super::config::{Backend, Endpoint, Match, Protocol, Service};
use super::super::gateway::BackendReference;
use super::conditions::Refusal;
use super::filters::{self, Place};
use super::grants::Reference;
use super::index::Index;
use super::name::ObjectName;

/// The most that a weight may be, as the API bounds it.
const WEIGHT_MAX: u32 = 1_000_000;

/// A port of a Service that a route uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServiceUse {
    pub(super) service: ObjectName,
    pub(super) port: i32,
}

impl ServiceUse {
    /// The key in the configuration.
    pub(super) fn key(&self) -> String {
        format!("{}:{}", self.service, self.port)
    }
}

/// What a reference comes to.
pub(super) struct Resolved {
    /// What serves; absent where the weight is zero, since it takes no requests then.
    pub(super) backend: Option<Backend>,
    /// What of it is used.
    pub(super) used: Option<ServiceUse>,
    /// Why the reference leads nowhere.
    pub(super) unresolved: Option<Refusal>,
    /// Why its filters cannot be done.
    pub(super) unsupported: Option<Refusal>,
}

/// Follows one reference of a route in `namespace`; `field` names it.
pub(super) fn resolve(
    reference: &BackendReference,
    namespace: &str,
    matches: &[Match],
    index: &Index<'_>,
    field: &str,
) -> Resolved {
    let target = follow(reference, namespace, index, field);
    let filters = filters::read(
        &reference.filters,
        Place::Backend(matches),
        &format!("{field}.filters"),
    );
    let weight = reference
        .weight
        .map_or(1, |weight| u32::try_from(weight).unwrap_or(0));
    let (used, unresolved) = match target {
        Ok(used) => (Some(used), None),
        Err(refusal) => (None, Some(refusal)),
    };
    let (filters, unsupported) = match filters {
        Ok(filters) => (filters, None),
        Err(refusal) => (Vec::new(), Some(refusal)),
    };
    // Without its filters a backend must not be reached; what has no service answers an error.
    let used = used.filter(|_| unsupported.is_none());
    let backend = (weight > 0).then(|| Backend {
        weight: weight.min(WEIGHT_MAX),
        service: used.as_ref().map(ServiceUse::key),
        filters,
    });
    Resolved {
        used: used.filter(|_| backend.is_some()),
        backend,
        unresolved,
        unsupported,
    }
}

fn follow(
    reference: &BackendReference,
    namespace: &str,
    index: &Index<'_>,
    field: &str,
) -> Result<ServiceUse, Refusal> {
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Service");
    if !group.is_empty() || kind != "Service" {
        return Err(Refusal::new(
            "InvalidKind",
            format!("{field}: {kind} of group {group:?} is not supported; refer to a Service"),
        ));
    }
    let name = ObjectName::new(
        reference.namespace.as_deref().unwrap_or(namespace),
        &reference.name,
    );
    let allowed = index.grants.allow(&Reference {
        from_kind: "HTTPRoute",
        from_namespace: namespace,
        to_kind: "Service",
        to_namespace: &name.namespace,
        to_name: &name.name,
    });
    if !allowed {
        return Err(Refusal::new(
            "RefNotPermitted",
            format!(
                "{field}: Service {name} is of another namespace and no ReferenceGrant there allows \
                 it; let one in {} allow HTTPRoutes from {namespace}",
                name.namespace
            ),
        ));
    }
    let not_found = |message: String| Refusal::new("BackendNotFound", message);
    let service = index.services.get(&name).ok_or_else(|| {
        not_found(format!(
            "{field}: Service {name} does not exist; create it or name another"
        ))
    })?;
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        return Err(Refusal::new(
            "UnsupportedValue",
            format!(
                "{field}: Service {name} is of type ExternalName, by which a route could reach any \
                 host; use a Service with endpoints"
            ),
        ));
    }
    let Some(port) = reference.port else {
        return Err(not_found(format!(
            "{field}.port: missing; name a port of Service {name}"
        )));
    };
    let declared = port_of(service, port).ok_or_else(|| {
        not_found(format!(
            "{field}.port: Service {name} has no port {port}; add it there or name another"
        ))
    })?;
    match speaks(declared) {
        Some(_) => Ok(ServiceUse {
            service: name,
            port,
        }),
        None => Err(Refusal::new(
            "UnsupportedProtocol",
            format!(
                "{field}: port {port} of Service {name} has appProtocol {}, which needs TLS to the \
                 endpoint and is not supported; use kubernetes.io/h2c, kubernetes.io/ws or none",
                declared.app_protocol.as_deref().unwrap_or_default()
            ),
        )),
    }
}

fn port_of(service: &KubeService, port: i32) -> Option<&ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let tcp = |declared: &&ServicePort| {
        declared.port == port && declared.protocol.as_deref().is_none_or(|p| p == "TCP")
    };
    ports.iter().find(tcp)
}

/// What a port speaks; none where that needs what we cannot do. Words that mean nothing to us say nothing
/// about HTTP, so they are taken for HTTP/1.1, as an absent word is.
fn speaks(port: &ServicePort) -> Option<Protocol> {
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c") => Some(Protocol::H2c),
        Some("kubernetes.io/wss" | "https") => None,
        Some(_) | None => Some(Protocol::Http1),
    }
}

/// What serves a port of a Service now.
pub(super) fn service(used: &ServiceUse, index: &Index<'_>) -> Service {
    let Some(object) = index.services.get(&used.service) else {
        return Service::default();
    };
    let Some(port) = port_of(object, used.port) else {
        return Service::default();
    };
    let name = port.name.as_deref().unwrap_or_default();
    let slices = index
        .slices
        .get(&used.service)
        .map_or(&[][..], Vec::as_slice);
    let mut by_family: BTreeMap<&str, Found> = BTreeMap::new();
    for slice in slices {
        let found = by_family.entry(slice.address_type.as_str()).or_default();
        collect(slice, name, found);
    }
    Service {
        protocol: speaks(port).unwrap_or_default(),
        endpoints: choose(object, by_family),
        ..Service::default()
    }
}

/// Endpoints of one family of addresses.
#[derive(Default)]
struct Found {
    ready: BTreeSet<Endpoint>,
    leaving: BTreeSet<Endpoint>,
}

fn collect(slice: &EndpointSlice, name: &str, found: &mut Found) {
    for port in slice.ports.iter().flatten() {
        let same = port.name.as_deref().unwrap_or_default() == name;
        let Some(number) = port.port.and_then(super::port_number).filter(|_| same) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            // Kubernetes gives no meaning to addresses behind the first.
            let address = endpoint.addresses.first();
            let address: Option<IpAddr> = address.and_then(|address| address.parse().ok());
            let Some(address) = address else { continue };
            let place = Endpoint {
                address,
                port: number,
            };
            match state(endpoint) {
                State::Ready => found.ready.insert(place),
                State::Leaving => found.leaving.insert(place),
                State::Away => false,
            };
        }
    }
}

enum State {
    Ready,
    Leaving,
    Away,
}

fn state(endpoint: &KubeEndpoint) -> State {
    let Some(conditions) = &endpoint.conditions else {
        return State::Ready;
    };
    // An unknown readiness counts as ready, as the API says.
    if conditions.ready.unwrap_or(true) {
        State::Ready
    } else if conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false) {
        State::Leaving
    } else {
        State::Away
    }
}

/// Those of one family, so that a pod with two addresses takes one share: of the Service's first family
/// where it has endpoints, else of another. Those that are ready; where none is, those that still serve
/// though they are leaving, since an answer of theirs is better than none (as kube-proxy does).
fn choose(service: &KubeService, mut by_family: BTreeMap<&str, Found>) -> Vec<Endpoint> {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_ref());
    let first = families.and_then(|families| families.first());
    let first = first.and_then(|family| by_family.remove(family.as_str()));
    let found: Vec<Found> = first.into_iter().chain(by_family.into_values()).collect();
    let ready = found.iter().map(|family| &family.ready);
    let leaving = found.iter().map(|family| &family.leaving);
    let some = ready.chain(leaving).find(|endpoints| !endpoints.is_empty());
    some.into_iter().flatten().copied().collect()
}
