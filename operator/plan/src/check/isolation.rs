//! The second judge on isolation: no App before what isolates its namespace, and none after it.

use std::collections::BTreeSet;

use crds::{ClusterName, Entry, EntryState, Management, NamespaceName};

use super::{Finding, Judge};
use crate::province::{Plan, SliceWrite};
use crate::world::{namespace_uid, owned_namespace};

impl Judge<'_> {
    /// An entry about a namespace.
    pub(super) fn enclosure(&mut self, write: &SliceWrite, entry: &Entry) {
        let before = self.held(&write.cluster, &entry.uid);
        let at = write.cluster.to_string();
        match entry.state {
            EntryState::Present => self.content(write, entry, before),
            EntryState::Removed | EntryState::Released => {
                let cleared = self.cleared(&entry.namespace);
                let ends = match entry.state {
                    EntryState::Released => self.leaves(&write.cluster),
                    EntryState::Removed | EntryState::Present => cleared,
                };
                if !ends || self.houses(&write.cluster, entry) {
                    self.findings
                        .push(Finding::Opened(at, entry.namespace.clone()));
                }
            }
        }
    }

    /// Whether somebody deleted a namespace, or the Tenant that had it. That it is missing says nothing.
    fn cleared(&self, namespace: &NamespaceName) -> bool {
        if let Some(slot) = self.world.namespaces.get(namespace) {
            return slot.clearing || (slot.owner.is_none() && slot.deleting);
        }
        let mut tenants = self.world.tenants();
        tenants.any(|(key, tenant)| tenant.deleting && owned_namespace(key) == *namespace)
    }

    /// Whether a cluster is on its way out.
    fn leaves(&self, cluster: &ClusterName) -> bool {
        let slot = self.world.clusters.get(cluster);
        slot.is_none_or(|slot| {
            let state = slot.state.as_ref();
            slot.deleting || state.is_ok_and(|cluster| cluster.management == Management::Release)
        })
    }

    /// Whether any App is to run in a namespace of a cluster.
    fn houses(&self, cluster: &ClusterName, entry: &Entry) -> bool {
        let slices = self.world.clusters.get(cluster).into_iter();
        let entries = slices.flat_map(|slot| slot.slices.values());
        let stored = entries.flat_map(|slice| slice.entries.iter().map(|entry| &**entry));
        let writes = self
            .plan
            .slices
            .iter()
            .filter(|write| write.cluster == *cluster);
        let planned = writes.flat_map(|write| &write.spec.entries);
        let superseded = |entry: &Entry| {
            let writes = self.plan.slices.iter();
            let mut writes = writes.filter(|write| write.cluster == *cluster);
            writes.any(|write| {
                let mut entries = write.spec.entries.iter();
                entries.any(|new| new.uid == entry.uid && new.generation > entry.generation)
            })
        };
        stored.chain(planned).any(|other| {
            other.scope.is_app()
                && other.namespace == entry.namespace
                && other.state.is_present()
                && !superseded(other)
        })
    }

    /// Whether a namespace is isolated in a cluster before an App starts there: by what stands, or by what
    /// is about to be written.
    pub(super) fn is_enclosed(&self, write: &SliceWrite, entry: &Entry) -> bool {
        let uid = namespace_uid(&entry.namespace);
        let stands = self.held(&write.cluster, &uid);
        stands.is_some_and(|held| held.state.is_present())
            || self.enclosing.contains(&(&write.cluster, &entry.namespace))
    }
}

/// Namespaces that a plan isolates, by cluster.
pub(super) fn enclosing(plan: &Plan) -> BTreeSet<(&ClusterName, &NamespaceName)> {
    let mut enclosing = BTreeSet::new();
    for write in &plan.slices {
        let entries = write.spec.entries.iter();
        let entries =
            entries.filter(|entry| entry.scope.is_namespace() && entry.state.is_present());
        enclosing.extend(entries.map(|entry| (&write.cluster, &entry.namespace)));
    }
    enclosing
}
