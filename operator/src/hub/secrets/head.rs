//! A Secret without its values: all that the hub ever remembers of one.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

use super::SOURCE;

/// A Secret without its values.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(in crate::hub) struct Head {
    pub(super) metadata: ObjectMeta,
    /// Its type.
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

/// What changes whenever a Secret does, and also when it is made anew.
pub(super) fn version(uid: Option<&str>, resource_version: Option<&str>) -> String {
    format!(
        "{}/{}",
        uid.unwrap_or_default(),
        resource_version.unwrap_or_default()
    )
}

impl Head {
    pub(super) fn name(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }

    pub(super) fn version(&self) -> String {
        version(
            self.metadata.uid.as_deref(),
            self.metadata.resource_version.as_deref(),
        )
    }

    /// Version of what this was copied from.
    pub(super) fn source(&self) -> Option<&str> {
        self.metadata
            .annotations
            .as_ref()?
            .get(SOURCE)
            .map(String::as_str)
    }
}

impl Resource for Head {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Secret::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Secret::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        <Secret as Resource>::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Secret::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
