//! Where the assignment comes from: the cluster's own namespace at the hub, and nothing else.

use std::sync::Arc;

use crds::{
    AssignmentSlice, AssignmentSliceSpec, CONTENT_NAMESPACE, ClusterName, Content, ContentHash,
    cluster_namespace,
};
use kube::api::ListParams;
use kube::{Api, Client};
use plan::content::AppContent;
use plan::held::Slices;

use super::secrets::Copied;

/// The hub, as one agent may use it.
#[derive(Clone)]
pub(crate) struct HubSide {
    client: Client,
    namespace: String,
}

/// A slice under its name and UID: one that somebody deleted and that was made anew begins anew,
/// while one that went back is still the same.
pub(crate) fn named(slice: AssignmentSlice) -> (Box<str>, Arc<AssignmentSliceSpec>) {
    let meta = slice.metadata;
    let name = format!(
        "{} {}",
        meta.name.unwrap_or_default(),
        meta.uid.unwrap_or_default()
    );
    (name.into(), Arc::new(slice.spec))
}

/// Content of one pack: each item, or why it cannot be used.
pub(crate) type Fetched = Vec<(ContentHash, Result<Arc<AppContent>, String>)>;

impl HubSide {
    pub(crate) fn new(client: Client, cluster: &ClusterName) -> Self {
        Self {
            client,
            namespace: cluster_namespace(cluster),
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn slices(&self) -> Api<AssignmentSlice> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Secrets that the hub copied for this cluster.
    pub(crate) fn copies(&self) -> Api<Copied> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The slices as the store's leader has them now: what deletes rely on.
    pub(crate) async fn read_slices(&self) -> Result<Slices, kube::Error> {
        let list = self.slices().list(&ListParams::default()).await?;
        Ok(list.items.into_iter().map(named).collect())
    }

    /// Reads a pack and checks every item against its hash.
    pub(crate) async fn fetch(&self, pack: &str) -> Result<Option<Fetched>, kube::Error> {
        let contents: Api<Content> = Api::namespaced(self.client.clone(), CONTENT_NAMESPACE);
        let Some(content) = contents.get_opt(pack).await? else {
            return Ok(None);
        };
        let item = |item: crds::ContentItem| {
            let read = AppContent::from_data(&item.hash, &item.data);
            (
                item.hash,
                read.map(Arc::new).map_err(|error| error.to_string()),
            )
        };
        Ok(Some(content.spec.items.into_iter().map(item).collect()))
    }
}
