//! Content: packs of manifests, stored once whatever the number of clusters.

use std::sync::Arc;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{ContentHash, NamespaceName};

/// The hub namespace of all Content objects; agents may only get them by name.
pub const CONTENT_NAMESPACE: &str = "jiuzhou-content";
/// Most bytes of data in one pack, counted as they are stored (JSON within JSON, so that each quote
/// is two), below the store's limit of 1.5 MiB per object.
pub const PACK_BYTES_MAX: usize = 1_200_000;

/// A Content holds manifests of several Apps, stored once whatever the number of clusters.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io",
    version = "v1alpha1",
    kind = "Content",
    plural = "contents",
    namespaced,
    derive = "PartialEq",
    validation = Rule::new("self.spec == oldSelf.spec").message("a Content is immutable: its name is the hash of what it holds"),
    doc = "Internal. A Content holds the manifests of several Apps of one tenant, stored once whatever the number of clusters. Nobody may change one; agents may only get them by name.",
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenant"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ContentSpec {
    /// Namespace of the Apps.
    pub tenant: NamespaceName,
    /// Epoch of the hub leader that wrote the pack.
    #[schemars(range(min = 0))]
    pub leader_epoch: i64,
    /// The contents, at most 100.
    #[schemars(length(min = 1, max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub items: Vec<ContentItem>,
}

/// The content of one App.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ContentItem {
    /// Hash of `data`.
    pub hash: ContentHash,
    /// Manifests, images and override patches, as JSON.
    #[schemars(length(min = 2, max = 1_200_000))]
    pub data: Arc<str>,
}
