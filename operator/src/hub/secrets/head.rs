//! A Secret without its values: all that the hub ever remembers of one.

use std::collections::BTreeSet;

use crds::Uid;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Deserialize;

use super::{SOURCE, USERS, USERS_MAX};

/// Stands for more Apps than are listed.
const MANY: &str = "many";

/// A Secret without its values.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Resource)]
#[resource(inherit = Secret)]
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

/// Apps as an annotation lists them.
pub(super) fn listed(users: &BTreeSet<Uid>) -> String {
    if users.len() > USERS_MAX {
        return MANY.to_owned();
    }
    let users: Vec<&str> = users.iter().map(Uid::as_str).collect();
    users.join(",")
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

    /// Apps a copy was made for, if that is known of all.
    pub(super) fn users(&self) -> Option<BTreeSet<Uid>> {
        let users = self.metadata.annotations.as_ref()?.get(USERS)?;
        let known = !users.is_empty() && users != MANY;
        known.then(|| users.split(',').map(Uid::from).collect())
    }

    /// Whether a copy says that it was made for these Apps. One that was made for too many to list
    /// stays as it is.
    pub(super) fn lists(&self, users: &BTreeSet<Uid>) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        let there = annotations.and_then(|all| all.get(USERS));
        there.is_some_and(|there| there == MANY || *there == listed(users))
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
