//! Listeners of a Gateway: what each is, and whether it can be served.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::super::config::{Certificate, Hostname};
use super::super::gateway::{self, GROUP, Gateway, ObjectReference, RouteKind};
use super::super::ports::opened_for;
use super::certificates;
use super::conditions::Refusal;
use super::grants::Reference;
use super::index::Index;
use super::name::ObjectName;
use super::selector;

/// The one kind of routes that is served.
const HTTP_ROUTE: &str = "HTTPRoute";

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP.
    Http,
    /// HTTP behind TLS that ends here.
    Https,
}

/// From where routes may attach.
pub(super) enum From<'a> {
    /// Everywhere.
    All,
    /// The Gateway's namespace.
    Same,
    /// Namespaces with these labels.
    Selector(&'a LabelSelector),
    /// Nowhere.
    Nowhere,
}

/// A listener as it was understood.
pub(super) struct ReadListener<'a> {
    pub(super) name: &'a str,
    /// As it was written, to which references compare.
    pub(super) port: i32,
    /// What it speaks, unless that is unknown.
    pub(super) speaks: Option<Speaks>,
    pub(super) hostname: Hostname,
    pub(super) from: From<'a>,
    /// Whether it takes HTTPRoutes.
    pub(super) takes_routes: bool,
    /// Certificates in their order.
    pub(super) certificates: Vec<(String, Certificate)>,
    /// Why it cannot be accepted.
    pub(super) refused: Option<Refusal>,
    /// Which of its references lead nowhere.
    pub(super) unresolved: Option<Refusal>,
    /// With which it conflicts.
    pub(super) conflict: Option<Refusal>,
    /// With which it shares hostnames under TLS.
    pub(super) overlap: Option<Refusal>,
    /// Accepted routes that are attached.
    pub(super) attached: BTreeSet<ObjectName>,
}

impl ReadListener<'_> {
    /// Whether it is accepted.
    pub(super) fn accepted(&self) -> bool {
        self.refused.is_none() && self.conflict.is_none()
    }

    /// Whether it is served, and as what.
    pub(super) fn serves(&self) -> Option<(u16, Speaks)> {
        let speaks = self
            .speaks
            .filter(|_| self.accepted() && self.takes_routes)?;
        let ready = speaks == Speaks::Http || !self.certificates.is_empty();
        Some((super::port_number(self.port).filter(|_| ready)?, speaks))
    }

    /// Whether a route of a namespace may attach.
    pub(super) fn allows(&self, namespace: &str, own: &str, index: &Index<'_>) -> bool {
        if !self.takes_routes {
            return false;
        }
        match self.from {
            From::All => true,
            From::Same => namespace == own,
            From::Selector(asked) => {
                let none = BTreeMap::new();
                selector::matches(asked, index.labels.get(namespace).copied().unwrap_or(&none))
            }
            From::Nowhere => false,
        }
    }
}

/// Reads one listener of a Gateway.
pub(super) fn read<'a>(
    gateway: &'a Gateway,
    name: &ObjectName,
    number: usize,
    listener: &'a gateway::Listener,
    index: &Index<'_>,
) -> ReadListener<'a> {
    let field = format!("Gateway {name}: spec.listeners[{number}]");
    let mut unresolved = Vec::new();
    let speaks = match listener.protocol.as_str() {
        "HTTP" => Some(Speaks::Http),
        "HTTPS" => Some(Speaks::Https),
        _ => None,
    };
    let takes_routes = speaks.is_some() && kinds(listener, &field, &mut unresolved);
    let found = match speaks {
        Some(Speaks::Https) => proofs(listener, name, index, &field, &mut unresolved),
        Some(Speaks::Http) | None => Vec::new(),
    };
    let (from, mut refused) = match from(listener, &field) {
        Ok(from) => (from, None),
        Err(refusal) => (From::Nowhere, Some(refusal)),
    };
    if let Some(refusal) = unusable(gateway, listener, speaks, &field) {
        refused = Some(refusal);
    }
    ReadListener {
        name: &listener.name,
        port: listener.port,
        speaks,
        hostname: Hostname::from(listener.hostname.clone().unwrap_or_default()),
        from,
        takes_routes,
        certificates: found,
        refused,
        unresolved: Refusal::joined(&unresolved),
        conflict: None,
        overlap: None,
        attached: BTreeSet::new(),
    }
}

/// The kinds that a listener's status names.
pub(super) fn supported_kinds(listener: &ReadListener<'_>) -> Vec<RouteKind> {
    let kind = RouteKind {
        group: Some(GROUP.to_owned()),
        kind: HTTP_ROUTE.to_owned(),
    };
    listener.takes_routes.then_some(kind).into_iter().collect()
}

/// What of a listener we cannot do.
fn unusable(
    gateway: &Gateway,
    listener: &gateway::Listener,
    speaks: Option<Speaks>,
    field: &str,
) -> Option<Refusal> {
    let unsupported = |message| Some(Refusal::new("UnsupportedValue", message));
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref());
    let asks_clients = gateway
        .spec
        .tls
        .as_ref()
        .is_some_and(|tls| tls.frontend.is_some());
    if speaks.is_none() {
        return Some(Refusal::new(
            "UnsupportedProtocol",
            format!(
                "{field}.protocol: {:?} is not supported; use HTTP or HTTPS",
                listener.protocol
            ),
        ));
    }
    if let Some(refusal) = unavailable(listener.port, field) {
        return Some(refusal);
    }
    match mode {
        Some("Terminate" | "") | None => {}
        Some(other) => {
            return unsupported(format!(
                "{field}.tls.mode: {other:?} is not supported; use Terminate"
            ));
        }
    }
    if speaks == Some(Speaks::Https) && asks_clients {
        return unsupported(format!(
            "{field}: certificates of clients, which spec.tls.frontend asks for, cannot be checked yet; \
             remove spec.tls.frontend"
        ));
    }
    None
}

/// Why a port cannot be opened.
fn unavailable(port: i32, field: &str) -> Option<Refusal> {
    let why = match super::port_number(port) {
        None => format!("{port} is no port; use 1 to 65535"),
        Some(number) => {
            let low = opened_for(number)?;
            format!(
                "guards open {port} for port {low} of Gateways, and 10001 to 11023 for all below 1024; use {low}, or \
                 one that is not among them"
            )
        }
    };
    Some(Refusal::new(
        "PortUnavailable",
        format!("{field}.port: {why}"),
    ))
}

/// Whether HTTPRoutes are among the kinds that are allowed.
fn kinds(listener: &gateway::Listener, field: &str, unresolved: &mut Vec<Refusal>) -> bool {
    let kinds = listener
        .allowed_routes
        .as_ref()
        .map_or(&[][..], |allowed| &allowed.kinds);
    let mut takes = kinds.is_empty();
    for (number, kind) in kinds.iter().enumerate() {
        let group = kind.group.as_deref().unwrap_or(GROUP);
        if group == GROUP && kind.kind == HTTP_ROUTE {
            takes = true;
        } else {
            unresolved.push(Refusal::new(
                "InvalidRouteKinds",
                format!(
                    "{field}.allowedRoutes.kinds[{number}]: {} of group {group:?} is not supported; use \
                     {HTTP_ROUTE} of group {GROUP:?}",
                    kind.kind
                ),
            ));
        }
    }
    takes
}

fn from<'a>(listener: &'a gateway::Listener, field: &str) -> Result<From<'a>, Refusal> {
    let namespaces = listener.allowed_routes.as_ref();
    let namespaces = namespaces.and_then(|allowed| allowed.namespaces.as_ref());
    let field = format!("{field}.allowedRoutes.namespaces");
    let unsupported = |message| Err(Refusal::new("UnsupportedValue", message));
    match namespaces.and_then(|n| n.from.as_deref()).unwrap_or("Same") {
        "Same" => Ok(From::Same),
        "All" => Ok(From::All),
        "None" => Ok(From::Nowhere),
        "Selector" => match namespaces.and_then(|namespaces| namespaces.selector.as_ref()) {
            None => unsupported(format!(
                "{field}.selector: missing, but from is Selector; add it, or use All"
            )),
            Some(asked) => match selector::unknown_operator(asked) {
                None => Ok(From::Selector(asked)),
                Some(operator) => unsupported(format!(
                    "{field}.selector: operator {operator:?} is not supported; use In, NotIn, Exists \
                     or DoesNotExist"
                )),
            },
        },
        other => unsupported(format!(
            "{field}.from: {other:?} is not supported; use Same, All, Selector or None"
        )),
    }
}

fn proofs(
    listener: &gateway::Listener,
    name: &ObjectName,
    index: &Index<'_>,
    field: &str,
    unresolved: &mut Vec<Refusal>,
) -> Vec<(String, Certificate)> {
    let references = listener
        .tls
        .as_ref()
        .map_or(&[][..], |tls| &tls.certificate_refs);
    if references.is_empty() {
        unresolved.push(Refusal::new(
            "InvalidCertificateRef",
            format!("{field}.tls.certificateRefs: empty; name a Secret of type kubernetes.io/tls"),
        ));
    }
    let mut found: Vec<(String, Certificate)> = Vec::new();
    for (number, reference) in references.iter().enumerate() {
        let field = format!("{field}.tls.certificateRefs[{number}]");
        match proof(reference, &name.namespace, index, &field) {
            Ok((key, certificate)) => {
                if !found.iter().any(|(known, _)| *known == key) {
                    found.push((key, certificate));
                }
            }
            Err(refusal) => unresolved.push(refusal),
        }
    }
    found
}

fn proof(
    reference: &ObjectReference,
    namespace: &str,
    index: &Index<'_>,
    field: &str,
) -> Result<(String, Certificate), Refusal> {
    let invalid = |message| Refusal::new("InvalidCertificateRef", message);
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    if !group.is_empty() || kind != "Secret" {
        return Err(invalid(format!(
            "{field}: {kind} of group {group:?} is not supported; refer to a Secret"
        )));
    }
    let name = ObjectName::new(
        reference.namespace.as_deref().unwrap_or(namespace),
        &reference.name,
    );
    let allowed = index.grants.allow(&Reference {
        from_kind: "Gateway",
        from_namespace: namespace,
        to_kind: "Secret",
        to_namespace: &name.namespace,
        to_name: &name.name,
    });
    if !allowed {
        return Err(Refusal::new(
            "RefNotPermitted",
            format!(
                "{field}: Secret {name} is of another namespace and no ReferenceGrant there allows it; \
                 let one in {} allow Gateways from {namespace}",
                name.namespace
            ),
        ));
    }
    let secret = index.secrets.get(&name).ok_or_else(|| {
        invalid(format!(
            "{field}: Secret {name} does not exist; create it or name another"
        ))
    })?;
    let certificate = certificates::take(secret)
        .map_err(|wrong| invalid(format!("{field}: Secret {name} {wrong}")))?;
    Ok((name.to_string(), certificate))
}
