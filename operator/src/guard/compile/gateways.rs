//! Gateways of our classes, and what is said of them.

mod apart;

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::super::gateway::{AddressStatus, Gateway, GatewayStatus, ListenerStatus};
use super::closed;
use super::conditions::{Refusal, Wanted, settle};
use super::index::Index;
use super::listeners::{self, ReadListener};
use super::name::ObjectName;
use super::{Age, Inputs, Sharing};
use crate::guard::exchange::CONFIGURATION_BYTES_MAX;

/// The type of an address that gives none.
const IP_ADDRESS: &str = "IPAddress";

/// A Gateway as it was understood.
pub(super) struct ReadGateway<'a> {
    pub(super) name: ObjectName,
    pub(super) object: &'a Gateway,
    pub(super) listeners: Vec<ReadListener<'a>>,
    /// Why nothing of it is served.
    pub(super) refused: Option<Refusal>,
    /// Where it is reached.
    pub(super) addresses: Vec<AddressStatus>,
    /// Which addresses it asks for in vain.
    unusable: Option<Refusal>,
    /// Whether all that it asks for are others' than the guard's.
    is_elsewhere: bool,
}

impl ReadGateway<'_> {
    /// Whether guards open ports for it.
    pub(super) fn is_served(&self) -> bool {
        self.refused.is_none() && !self.is_elsewhere
    }
}

/// Reads the Gateways of accepted classes, the oldest first.
pub(super) fn read<'a>(
    inputs: &'a Inputs,
    accepted: &BTreeSet<String>,
    index: &Index<'_>,
) -> Vec<ReadGateway<'a>> {
    let ours = inputs.gateways.iter();
    let ours = ours.filter(|gateway| accepted.contains(&gateway.spec.gateway_class_name));
    let mut gateways: Vec<ReadGateway<'a>> =
        ours.map(|gateway| one(gateway, inputs, index)).collect();
    gateways.sort_by_cached_key(|gateway| Age::of(&gateway.object.metadata));
    if inputs.sharing == Sharing::Apart {
        apart::spread(&mut gateways);
    }
    gateways
}

/// What guards are given.
#[derive(Clone, Copy)]
pub(super) enum Offered<'a> {
    /// This.
    Revision(&'a str),
    /// What they had before: it is longer than what they fetch.
    TooLong,
}

/// What is said of a Gateway.
pub(super) fn status(
    gateway: &ReadGateway<'_>,
    inputs: &Inputs,
    offered: Offered<'_>,
) -> GatewayStatus {
    let old = gateway.object.status.as_ref();
    let generation = gateway.object.metadata.generation;
    let before = old.map_or(&[][..], |status| &status.conditions);
    let acknowledged = match offered {
        Offered::Revision(revision) => inputs.acknowledged.covers(revision),
        Offered::TooLong => false,
    };
    let pending = pending(&gateway.name, offered);
    let closed: Vec<Option<Refusal>> = gateway
        .listeners
        .iter()
        .map(|listener| closed::refusal(gateway, listener, inputs))
        .collect();
    let listeners = gateway.listeners.iter().zip(&closed);
    let listeners = listeners.map(|(listener, closed)| {
        let old = old.and_then(|status| status.listeners.iter().find(|l| l.name == listener.name));
        let before: &[Condition] = old.map_or(&[][..], |status| &status.conditions);
        let is_served = acknowledged || was_programmed(before, generation);
        let withheld = closed.as_ref().or((!is_served).then_some(&pending));
        let wanted = listener_conditions(gateway, listener, withheld);
        ListenerStatus {
            name: listener.name.to_owned(),
            supported_kinds: listeners::supported_kinds(listener),
            attached_routes: i32::try_from(listener.attached.len()).unwrap_or(i32::MAX),
            conditions: settle(before, wanted, generation, inputs.now),
        }
    });
    let is_served = acknowledged || was_programmed(before, generation);
    let all: Vec<Refusal> = closed.iter().flatten().cloned().collect();
    let all = Refusal::joined(&all);
    let withheld = all.as_ref().or((!is_served).then_some(&pending));
    let wanted = vec![accepted(gateway), programmed(gateway, withheld)];
    GatewayStatus {
        listeners: listeners.collect(),
        addresses: gateway.addresses.clone(),
        conditions: settle(before, wanted, generation, inputs.now),
    }
}

fn one<'a>(gateway: &'a Gateway, inputs: &Inputs, index: &Index<'_>) -> ReadGateway<'a> {
    let name = ObjectName::of(&gateway.metadata);
    let mut listeners: Vec<ReadListener<'a>> = Vec::new();
    for (number, listener) in gateway.spec.listeners.iter().enumerate() {
        listeners.push(listeners::read(gateway, &name, number, listener, index));
    }
    let (addresses, unusable) = addresses(gateway, &name, &inputs.addresses);
    ReadGateway {
        refused: refused(gateway, &name),
        // A balancer that names no address for a while takes none away.
        is_elsewhere: addresses.is_empty() && unusable.is_some() && !inputs.addresses.is_empty(),
        object: gateway,
        name,
        listeners,
        addresses,
        unusable,
    }
}

fn refused(gateway: &Gateway, name: &ObjectName) -> Option<Refusal> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    if infrastructure.is_some_and(|infrastructure| infrastructure.parameters_ref.is_some()) {
        return Some(Refusal::new(
            "InvalidParameters",
            format!(
                "Gateway {name}: spec.infrastructure.parametersRef: no parameters are known; remove it"
            ),
        ));
    }
    gateway.spec.addresses.iter().enumerate().find_map(|(number, address)| {
        match address.kind.as_deref().unwrap_or(IP_ADDRESS) {
            IP_ADDRESS | "Hostname" => None,
            other => Some(Refusal::new(
                "UnsupportedAddress",
                format!(
                    "Gateway {name}: spec.addresses[{number}].type: {other:?} is not supported; use \
                     IPAddress or Hostname"
                ),
            )),
        }
    })
}

/// Which of our addresses a Gateway has, and which of those it asks for it cannot have.
fn addresses(
    gateway: &Gateway,
    name: &ObjectName,
    ours: &BTreeSet<AddressStatus>,
) -> (Vec<AddressStatus>, Option<Refusal>) {
    let asked = &gateway.spec.addresses;
    if asked.is_empty() {
        return (ours.iter().cloned().collect(), None);
    }
    let mut given = BTreeSet::new();
    let mut missing = Vec::new();
    for (number, address) in asked.iter().enumerate() {
        let kind = address.kind.as_deref().unwrap_or(IP_ADDRESS);
        let value = address.value.as_deref().filter(|value| !value.is_empty());
        let fits = |one: &&AddressStatus| one.kind == kind && value.is_none_or(|v| v == one.value);
        let before = given.len();
        given.extend(ours.iter().filter(fits).cloned());
        if given.len() == before && !given.iter().any(|one| fits(&one)) {
            missing.push(Refusal::new(
                "AddressNotUsable",
                format!(
                    "Gateway {name}: spec.addresses[{number}]: {kind} {} is none of the guard's; remove \
                     it, or use one of those in the status of a Gateway without spec.addresses",
                    value.unwrap_or("of any value")
                ),
            ));
        }
    }
    (given.into_iter().collect(), Refusal::joined(&missing))
}

fn accepted(gateway: &ReadGateway<'_>) -> Wanted {
    if let Some(refusal) = &gateway.refused {
        return Wanted::no("Accepted", refusal);
    }
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for listener in &gateway.listeners {
        let names = if listener.accepted() {
            &mut good
        } else {
            &mut bad
        };
        names.push(listener.name);
    }
    if bad.is_empty() && !good.is_empty() {
        return Wanted::yes("Accepted", "Accepted", "Every listener is accepted");
    }
    let message = format!(
        "Gateway {}: spec.listeners: accepted: {}; not accepted: {}; see the conditions of those",
        gateway.name,
        listed(&good),
        listed(&bad)
    );
    let refusal = Refusal::new("ListenersNotValid", message);
    if good.is_empty() {
        Wanted::no("Accepted", &refusal)
    } else {
        Wanted::alarm("Accepted", &refusal)
    }
}

/// Whether this generation was served once. An endpoint that comes or goes makes another revision, and is
/// no reason to take back what was said of the Gateway.
fn was_programmed(before: &[Condition], generation: Option<i64>) -> bool {
    let said = before.iter().find(|said| said.type_ == "Programmed");
    said.is_some_and(|said| said.status == "True" && said.observed_generation == generation)
}

fn pending(name: &ObjectName, offered: Offered<'_>) -> Refusal {
    let message = match offered {
        Offered::Revision(_) => format!(
            "Gateway {name}: not every guard that is ready serves it yet; see the logs of guard control where \
             this stays"
        ),
        Offered::TooLong => format!(
            "Gateway {name}: what all Gateways, routes and certificates come to is longer than the {} MiB that \
             guards fetch, so they go on by what they have; use fewer listeners, hostnames or certificates",
            CONFIGURATION_BYTES_MAX >> 20
        ),
    };
    Refusal::new("Pending", message)
}

fn unaddressed(reason: &'static str, name: &ObjectName) -> Refusal {
    let message = format!(
        "Gateway {name}: the guard has no address for it; see whether its Service was given one, or whether other \
         Gateways have all of its --addresses"
    );
    Refusal::new(reason, message)
}

/// `withheld` is why guards do not serve all of it, or not yet.
fn programmed(gateway: &ReadGateway<'_>, withheld: Option<&Refusal>) -> Wanted {
    const KIND: &str = "Programmed";
    let name = &gateway.name;
    if gateway.refused.is_some() {
        let message = format!("Gateway {name}: not accepted; see the condition Accepted");
        return Wanted::no(KIND, &Refusal::new("Invalid", message));
    }
    if let Some(refusal) = &gateway.unusable {
        return Wanted::no(KIND, refusal);
    }
    if gateway.addresses.is_empty() {
        return Wanted::no(KIND, &unaddressed("AddressNotAssigned", name));
    }
    if !gateway
        .listeners
        .iter()
        .any(|listener| listener.serves().is_some())
    {
        let message = format!("Gateway {name}: no listener is served; see the conditions of each");
        return Wanted::no(KIND, &Refusal::new("Invalid", message));
    }
    if let Some(refusal) = withheld {
        return Wanted::no(KIND, refusal);
    }
    Wanted::yes(KIND, KIND, "The guard serves this Gateway")
}

fn listener_conditions(
    gateway: &ReadGateway<'_>,
    listener: &ReadListener<'_>,
    withheld: Option<&Refusal>,
) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    wanted.push(match (&listener.conflict, &listener.refused) {
        (Some(refusal), _) => Wanted::no("Accepted", &Refusal::new("Invalid", &*refusal.message)),
        (None, Some(refusal)) => Wanted::no("Accepted", refusal),
        (None, None) => Wanted::yes("Accepted", "Accepted", ""),
    });
    wanted.push(match &listener.conflict {
        Some(refusal) => Wanted::alarm("Conflicted", refusal),
        None => Wanted::no("Conflicted", &Refusal::new("NoConflicts", "")),
    });
    wanted.push(match &listener.unresolved {
        Some(refusal) => Wanted::no("ResolvedRefs", refusal),
        None => Wanted::yes("ResolvedRefs", "ResolvedRefs", ""),
    });
    if let Some(refusal) = &listener.overlap {
        wanted.push(Wanted::alarm("OverlappingTLSConfig", refusal));
    }
    let served = listener.serves().is_some() && gateway.refused.is_none();
    wanted.push(if served && gateway.addresses.is_empty() {
        Wanted::no("Programmed", &unaddressed("Pending", &gateway.name))
    } else if served {
        withheld.map_or_else(
            || Wanted::yes("Programmed", "Programmed", ""),
            |refusal| Wanted::no("Programmed", refusal),
        )
    } else {
        let message = format!(
            "Gateway {}: listener {:?} is not served; see its other conditions and those of the Gateway",
            gateway.name, listener.name
        );
        Wanted::no("Programmed", &Refusal::new("Invalid", message))
    });
    wanted
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
