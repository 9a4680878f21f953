//! Who may refer to objects of another namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::gateway::{GROUP, ReferenceGrant};

/// What ReferenceGrants allow, by the namespace that allows it.
pub(super) struct Grants<'a>(BTreeMap<&'a str, Vec<&'a ReferenceGrant>>);

/// A reference from an object of Gateway API to one of the core group.
pub(super) struct Reference<'a> {
    pub(super) from_kind: &'a str,
    pub(super) from_namespace: &'a str,
    pub(super) to_kind: &'a str,
    pub(super) to_namespace: &'a str,
    pub(super) to_name: &'a str,
}

impl<'a> Grants<'a> {
    pub(super) fn of(grants: &'a [Arc<ReferenceGrant>]) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<&ReferenceGrant>> = BTreeMap::new();
        for grant in grants {
            let namespace = grant.metadata.namespace.as_deref().unwrap_or_default();
            by_namespace.entry(namespace).or_default().push(grant);
        }
        Self(by_namespace)
    }

    /// Whether a reference stays in its namespace or is granted by the one it goes to.
    pub(super) fn allow(&self, reference: &Reference<'_>) -> bool {
        if reference.from_namespace == reference.to_namespace {
            return true;
        }
        let grants = self.0.get(reference.to_namespace);
        grants.into_iter().flatten().any(|grant| {
            let from = grant.spec.from.iter().any(|from| {
                from.group == GROUP
                    && from.kind == reference.from_kind
                    && from.namespace == reference.from_namespace
            });
            let to = grant.spec.to.iter().any(|to| {
                to.group.is_empty()
                    && to.kind == reference.to_kind
                    // An empty name is how some clients write an absent one.
                    && to.name.as_deref().is_none_or(|name| name.is_empty() || name == reference.to_name)
            });
            from && to
        })
    }
}
