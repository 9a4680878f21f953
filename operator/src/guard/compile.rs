//! From the objects of Gateway API to what the guard serves, and to what is said of each object.
//!
//! ```text
//! Inputs ─┬─ classes ─ gateways (listeners, certificates, conflicts) ─┐
//!         └─ routes (rules: matches, filters, backends) ─ policies ───┴─ attach ─┬─ Configuration
//!                                                                                └─ Statuses
//! ```
//!
//! A pure function: no clock, no I/O, and the order of the objects does not matter. What cannot be done is
//! said in a condition of the object that asks for it, and changes nothing for others.

mod assemble;
mod backends;
mod certificates;
mod classes;
mod closed;
mod conditions;
mod conflicts;
mod durations;
mod expressions;
mod filters;
mod gateways;
mod grants;
mod hostnames;
mod index;
mod listeners;
mod matches;
mod name;
mod patterns;
mod policies;
mod routes;
mod rules;
mod selector;
mod sizes;
#[cfg(test)]
mod tests;
mod tickets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clap::ValueEnum;
use crds::{TrafficPolicy, TrafficPolicyStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

pub use self::closed::ClosedPorts;
pub use self::name::ObjectName;
#[cfg(test)]
pub(super) use self::patterns::SMALL as SMALL_PATTERN;
pub(super) use self::patterns::size as pattern_size;
pub use self::patterns::whole as whole_pattern;
pub use self::policies::{
    Asked, Effective, InForce, LayerInForce, Missing, Origin, PolicySaid, RouteRuleInForce,
    RuleInForce, Source, TargetSaid, rules_of,
};
pub use self::tickets::TicketKeys;
use super::config::Configuration;
use super::exchange::CONFIGURATION_BYTES_MAX;
use super::gateway::{
    AddressStatus, Gateway, GatewayClass, GatewayClassStatus, GatewayStatus, HttpRoute,
    ReferenceGrant, RouteStatus,
};

/// Who we are to Gateway API: classes that name it are ours.
pub const CONTROLLER: &str = "jiuzhou.io/guard";

/// All that is known of the cluster, in any order.
///
/// Shared pointers, as watches hold them: a turn copies no object.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The time that conditions change at.
    pub now: Timestamp,
    /// Where the guard is reached.
    pub addresses: BTreeSet<AddressStatus>,
    /// What Gateways do that ask for the same.
    pub sharing: Sharing,
    /// The annotation `gateway.networking.k8s.io/bundle-version` of the definition of GatewayClass.
    pub bundle_version: Option<String>,
    /// All of them; those of others are left alone.
    pub gateway_classes: Vec<Arc<GatewayClass>>,
    /// All of them; those of others' classes are left alone.
    pub gateways: Vec<Arc<Gateway>>,
    /// All of them.
    pub http_routes: Vec<Arc<HttpRoute>>,
    /// All of them; those that name Apps are left to the hub.
    pub traffic_policies: Vec<Arc<TrafficPolicy>>,
    /// TrafficPolicies of activation `ByEvent` of which the event is on.
    pub events: BTreeSet<ObjectName>,
    /// What tickets of waiting rooms are signed with.
    pub ticket_keys: TicketKeys,
    /// All of them.
    pub reference_grants: Vec<Arc<ReferenceGrant>>,
    /// All of them, for their labels.
    pub namespaces: Vec<Arc<Namespace>>,
    /// All of them.
    pub services: Vec<Arc<Service>>,
    /// All of them.
    pub endpoint_slices: Vec<Arc<EndpointSlice>>,
    /// Those of type `kubernetes.io/tls`.
    pub secrets: Vec<Arc<Secret>>,
    /// What guards serve by.
    pub acknowledged: Acknowledged,
    /// Ports on which they do not.
    pub closed: ClosedPorts,
}

/// What every guard that is ready serves by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Acknowledged {
    /// No guard is asked: what is compiled counts as served.
    #[default]
    Unasked,
    /// All of them by this revision.
    Revision(String),
    /// None is ready, or they serve by different revisions.
    Nothing,
}

impl Acknowledged {
    /// Whether what has this revision is served everywhere.
    pub fn covers(&self, revision: &str) -> bool {
        match self {
            Self::Unasked => true,
            Self::Revision(served) => served == revision,
            Self::Nothing => false,
        }
    }
}

/// What Gateways do that ask for the same port, protocol and hostname.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sharing {
    /// The older one has it, and the younger one says so: nobody takes over what another serves
    #[default]
    OlderWins,
    /// Their routes are served together, in the order of the API, as if all were attached to one listener
    Merged,
    /// Each has an address of its own out of `--addresses`, which every guard has to have, so that no two ask
    /// for the same
    Apart,
}

/// What is said of every object that is ours to speak of.
///
/// Gateways and classes carry our conditions alone, to be applied server-side, which leaves those of others
/// in place. The lists of a route's parents and of a policy's ancestors can only be written as a whole, so they
/// hold what others wrote there as well, and have to be written with the `resourceVersion` that was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statuses {
    /// Of classes that name us.
    pub gateway_classes: BTreeMap<String, GatewayClassStatus>,
    /// Of Gateways of accepted classes.
    pub gateways: BTreeMap<ObjectName, GatewayStatus>,
    /// Of routes with a parent of ours, or that had one.
    pub http_routes: BTreeMap<ObjectName, RouteStatus>,
    /// Of policies that name routes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub traffic_policies: BTreeMap<ObjectName, TrafficPolicyStatus>,
}

/// Decides what is served and what is said.
pub fn compile(inputs: &Inputs) -> (Configuration, Statuses) {
    within(inputs, sizes::ROUTES_BYTES_MAX, CONFIGURATION_BYTES_MAX)
}

/// The same where all that comes of routes may take `room` bytes, and all that guards fetch `most`.
fn within(inputs: &Inputs, room: usize, most: usize) -> (Configuration, Statuses) {
    let index = index::Index::of(inputs);
    let classes = classes::judge(inputs);
    let mut gateways = gateways::read(inputs, &classes.accepted, &index);
    conflicts::mark(&mut gateways, inputs.sharing);
    let mut routes = routes::read(inputs, &index);
    let protection = policies::protect(inputs, &mut routes);
    let mut attachments = routes::attach(&routes, &mut gateways, &index);
    let reading = sizes::Reading {
        protection: &protection,
        index: &index,
        sharing: inputs.sharing,
        room,
    };
    sizes::fit(&routes, &mut gateways, &mut attachments, &reading);
    let (configuration, bytes) = assemble::configuration(
        &gateways,
        &routes,
        &attachments,
        &protection,
        &index,
        inputs.sharing,
    );
    let offered = if bytes > most {
        gateways::Offered::TooLong
    } else {
        gateways::Offered::Revision(&configuration.revision)
    };
    let said = gateways.iter();
    let statuses = Statuses {
        gateway_classes: classes.statuses,
        gateways: said
            .map(|gateway| {
                let status = gateways::status(gateway, inputs, offered);
                (gateway.name.clone(), status)
            })
            .collect(),
        http_routes: routes::statuses(&routes, &attachments, inputs.now),
        traffic_policies: protection.statuses(inputs, &configuration),
    };
    (configuration, statuses)
}

/// What protects a route or comes of a policy, by the same steps as [`compile`]. HTTPRoutes and
/// TrafficPolicies are all that it takes of the inputs.
pub fn effective(inputs: &Inputs, asked: &Asked) -> Result<Effective, Missing> {
    let routes = routes::read(inputs, &index::Index::of(inputs));
    policies::effective(inputs, &routes, asked)
}

/// How objects stand by age, as the API orders them: the oldest first, then by `namespace/name`. One that
/// was never stored is the youngest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Age(Timestamp, String);

impl Age {
    fn of(metadata: &ObjectMeta) -> Self {
        let created = metadata.creation_timestamp.as_ref();
        Self(
            created.map_or(Timestamp::MAX, |time| time.0),
            ObjectName::of(metadata).to_string(),
        )
    }
}

/// A number as a port, which zero is not.
fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}
