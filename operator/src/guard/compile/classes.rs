//! GatewayClasses that name us.

use std::collections::{BTreeMap, BTreeSet};

use super::super::gateway::{GatewayClass, GatewayClassStatus, SupportedFeature};
use super::conditions::{Refusal, Wanted, settle};
use super::{CONTROLLER, Inputs};

/// The newest minor version of Gateway API v1 that was read before this was written.
const MINOR_MAX: u32 = 6;

/// What is done beyond the core, by the names of the conformance suite, in ascending order.
const FEATURES: [&str; 26] = [
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
];

/// Classes of ours: the names of those that are accepted, and what is said of each.
pub(super) struct Classes {
    pub(super) accepted: BTreeSet<String>,
    pub(super) statuses: BTreeMap<String, GatewayClassStatus>,
}

/// Judges the classes that name us.
pub(super) fn judge(inputs: &Inputs) -> Classes {
    let mut classes = Classes {
        accepted: BTreeSet::new(),
        statuses: BTreeMap::new(),
    };
    for class in &inputs.gateway_classes {
        if class.spec.controller_name != CONTROLLER {
            continue;
        }
        let name = class.metadata.name.clone().unwrap_or_default();
        let refused = parameters(&name, class);
        if refused.is_none() {
            classes.accepted.insert(name.clone());
        }
        let accepted = match &refused {
            None => Wanted::yes("Accepted", "Accepted", "Gateways of this class are served"),
            Some(refusal) => Wanted::no("Accepted", refusal),
        };
        let before = class
            .status
            .as_ref()
            .map_or(&[][..], |status| &status.conditions);
        let wanted = vec![accepted, version(inputs.bundle_version.as_deref())];
        let features = FEATURES.map(|name| SupportedFeature {
            name: name.to_owned(),
        });
        let status = GatewayClassStatus {
            conditions: settle(before, wanted, class.metadata.generation, inputs.now),
            supported_features: features.into(),
        };
        classes.statuses.insert(name, status);
    }
    classes
}

fn parameters(name: &str, class: &GatewayClass) -> Option<Refusal> {
    class.spec.parameters_ref.as_ref().map(|_| {
        Refusal::new(
            "InvalidParameters",
            format!("GatewayClass {name}: spec.parametersRef: no parameters are known; remove it"),
        )
    })
}

fn version(bundle: Option<&str>) -> Wanted {
    let minor = bundle.and_then(|bundle| {
        let (major, rest) = bundle.strip_prefix('v')?.split_once('.')?;
        let minor: u32 = rest.split('.').next()?.parse().ok()?;
        (major == "1" && minor <= MINOR_MAX).then_some(minor)
    });
    let found = bundle.unwrap_or("no version");
    match minor {
        Some(_) => Wanted::yes("SupportedVersion", "SupportedVersion", ""),
        None => Wanted::no(
            "SupportedVersion",
            &Refusal::new(
                "UnsupportedVersion",
                format!(
                    "CustomResourceDefinition gatewayclasses.gateway.networking.k8s.io: annotation \
                     gateway.networking.k8s.io/bundle-version names {found}, but v1.0 to \
                     v1.{MINOR_MAX} are known; install one of them"
                ),
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_stand_in_the_order_that_the_api_asks_for() {
        assert!(FEATURES.is_sorted());
    }
}
