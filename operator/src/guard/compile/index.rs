//! What objects refer to, by how they refer to it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::Inputs;
use super::grants::Grants;
use super::name::ObjectName;

/// The label by which a slice belongs to a Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What objects refer to.
pub(super) struct Index<'a> {
    pub(super) grants: Grants<'a>,
    pub(super) labels: BTreeMap<&'a str, &'a BTreeMap<String, String>>,
    pub(super) services: BTreeMap<ObjectName, &'a Service>,
    pub(super) slices: BTreeMap<ObjectName, Vec<&'a EndpointSlice>>,
    pub(super) secrets: BTreeMap<ObjectName, &'a Secret>,
}

impl<'a> Index<'a> {
    pub(super) fn of(inputs: &'a Inputs) -> Self {
        let mut labels = BTreeMap::new();
        for namespace in &inputs.namespaces {
            if let (Some(name), Some(found)) =
                (&namespace.metadata.name, &namespace.metadata.labels)
            {
                labels.insert(name.as_str(), found);
            }
        }
        let mut slices: BTreeMap<ObjectName, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in &inputs.endpoint_slices {
            let found = slice.metadata.labels.as_ref();
            if let Some(service) = found.and_then(|labels| labels.get(SERVICE_NAME)) {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                let name = ObjectName::new(namespace, service);
                slices.entry(name).or_default().push(slice.as_ref());
            }
        }
        let services = inputs.services.iter();
        let secrets = inputs.secrets.iter();
        Self {
            grants: Grants::of(&inputs.reference_grants),
            labels,
            services: services
                .map(|service| (ObjectName::of(&service.metadata), service.as_ref()))
                .collect(),
            slices,
            secrets: secrets
                .map(|secret| (ObjectName::of(&secret.metadata), secret.as_ref()))
                .collect(),
        }
    }
}
