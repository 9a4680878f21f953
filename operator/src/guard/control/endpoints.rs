//! EndpointSlices that are gone although their Service is there.
//!
//! Kubernetes keeps a slice for a Service without pods, an empty one. So a Service that had slices and has
//! none lost its list and not its pods: what was last known of them is used until there is a slice again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::guard::compile::ObjectName;

/// The label by which a slice belongs to a Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The slices that each Service last had.
#[derive(Debug, Default)]
pub(super) struct LastSlices {
    known: BTreeMap<ObjectName, Vec<Arc<EndpointSlice>>>,
    /// Services whose slices are gone.
    gone: BTreeSet<ObjectName>,
}

impl LastSlices {
    /// Adds to the slices there are those of Services that have lost theirs.
    pub(super) fn complete(
        &mut self,
        services: &[Arc<Service>],
        slices: &mut Vec<Arc<EndpointSlice>>,
    ) {
        let mut found: BTreeMap<ObjectName, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in slices.iter() {
            if let Some(service) = service_of(slice) {
                found.entry(service).or_default().push(Arc::clone(slice));
            }
        }
        let mut before = std::mem::take(&mut self.known);
        let mut gone = BTreeSet::new();
        for service in services {
            let name = ObjectName::of(&service.metadata);
            if let Some(slices) = found.remove(&name) {
                self.known.insert(name, slices);
            } else if let Some(last) = before.remove(&name) {
                slices.extend(last.iter().map(Arc::clone));
                if !self.gone.contains(&name) {
                    tracing::warn!(
                        service = %name,
                        "all EndpointSlices of a Service are gone; its last endpoints are used until one \
                         is back"
                    );
                }
                gone.insert(name.clone());
                self.known.insert(name, last);
            }
        }
        self.gone = gone;
    }

    /// How many Services are served by what was last known.
    pub(super) fn gone(&self) -> usize {
        self.gone.len()
    }
}

/// The pods behind a Service that take requests.
pub(super) fn standing(service: &ObjectName, slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let slices = slices
        .iter()
        .filter(|slice| service_of(slice).as_ref() == Some(service));
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|all| all.ready).unwrap_or(true)
    });
    let pods = ready.filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.clone());
    pods.collect()
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectName> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    Some(ObjectName::new(namespace, service))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service() -> Arc<Service> {
        let service = json!({"metadata": {"namespace": "ns", "name": "app"}});
        Arc::new(serde_json::from_value(service).unwrap())
    }

    fn slice(ready: bool) -> Arc<EndpointSlice> {
        let slice = json!({
            "metadata": {"namespace": "ns", "name": "app-1", "labels": {SERVICE_NAME: "app"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready},
                "targetRef": {"kind": "Pod", "name": "app-a"}}],
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    #[test]
    fn the_last_endpoints_of_a_service_stay_while_its_slices_are_gone() {
        let mut last = LastSlices::default();
        let mut slices = vec![slice(true)];
        last.complete(&[service()], &mut slices);
        assert_eq!((slices.len(), last.gone()), (1, 0));
        for _ in 0..2 {
            let mut none = Vec::new();
            last.complete(&[service()], &mut none);
            assert_eq!((none, last.gone()), (vec![slice(true)], 1));
        }
        let mut empty = vec![slice(false)];
        last.complete(&[service()], &mut empty);
        assert_eq!((empty, last.gone()), (vec![slice(false)], 0));
    }

    #[test]
    fn nothing_stays_of_a_service_that_is_gone_itself() {
        let mut last = LastSlices::default();
        last.complete(&[service()], &mut vec![slice(true)]);
        last.complete(&[], &mut vec![]);
        let mut none = Vec::new();
        last.complete(&[service()], &mut none);
        assert_eq!((none.len(), last.gone()), (0, 0));
    }

    #[test]
    fn pods_that_take_requests_are_those_that_are_ready() {
        let name = ObjectName::new("ns", "app");
        assert_eq!(standing(&name, &[slice(true)]).len(), 1);
        assert!(standing(&name, &[slice(false)]).is_empty());
        assert!(standing(&ObjectName::new("ns", "other"), &[slice(true)]).is_empty());
    }
}
