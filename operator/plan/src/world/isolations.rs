//! Isolations, and the namespaces that stand in the ledger.

use std::sync::Arc;

use crds::{Isolation, IsolationSpec, IsolationStatus, NamespaceName, Scope, Uid};

use super::{AppLedger, World};
use crate::content::hash_of;

/// What the word for a namespace begins with, where Apps have their UID.
const NAMESPACE: &str = "namespace-";

/// An Isolation as the API server has it. Its schema leaves nothing to refuse here.
#[derive(Clone, Debug, PartialEq)]
pub struct IsolationSlot {
    /// UID.
    pub uid: Uid,
    /// `metadata.generation`.
    pub generation: i64,
    /// What it asks for.
    pub spec: Arc<IsolationSpec>,
    /// Status as last written.
    pub status: Arc<IsolationStatus>,
}

/// What stands for a namespace in the ledger, where Apps have their UID. It follows from the name: whoever
/// gets a namespace of that name goes on with what isolates it.
pub fn namespace_uid(namespace: &NamespaceName) -> Uid {
    format!("{NAMESPACE}{}", hash_of(namespace.as_str().as_bytes())).into()
}

/// Whether this stands for a namespace and not for an App.
pub(crate) fn is_of_namespace(uid: &Uid) -> bool {
    uid.as_str().starts_with(NAMESPACE)
}

impl World {
    /// Takes in an Isolation.
    pub fn apply_isolation(&mut self, isolation: Isolation) {
        let slot = IsolationSlot {
            uid: isolation.metadata.uid.unwrap_or_default().into(),
            generation: isolation.metadata.generation.unwrap_or(0),
            spec: Arc::new(isolation.spec),
            status: Arc::new(isolation.status.unwrap_or_default()),
        };
        let name: Box<str> = isolation.metadata.name.unwrap_or_default().into();
        let before = self.isolations.insert(name, slot.clone());
        let asked = before.map(|before| before.spec);
        if asked.as_ref() != Some(&slot.spec) {
            self.isolation_changes += 1;
        }
    }

    /// Forgets an Isolation that was deleted.
    pub fn remove_isolation(&mut self, name: &str) {
        if self.isolations.remove(name).is_some() {
            self.isolation_changes += 1;
        }
    }

    /// All Isolations.
    pub fn isolations(&self) -> impl Iterator<Item = (&str, &IsolationSlot)> {
        self.isolations.iter().map(|(name, slot)| (&**name, slot))
    }

    /// What the ledger says of a namespace.
    pub(crate) fn home(&self, namespace: &NamespaceName) -> Option<&AppLedger> {
        self.ledger.get(self.enclosed.get(namespace)?)
    }

    /// What stands for a namespace in the ledger, without reckoning it anew where it does already.
    pub(crate) fn home_uid(&self, namespace: &NamespaceName) -> Uid {
        let known = self.enclosed.get(namespace).cloned();
        known.unwrap_or_else(|| namespace_uid(namespace))
    }

    /// Keeps track of the namespaces that stand in the ledger.
    pub(super) fn sort_namespace(&mut self, uid: &Uid) {
        let Some(ledger) = self.ledger.get(uid) else {
            return self.enclosed.retain(|_, known| known != uid);
        };
        let entry = ledger.entries.values().next().map(|held| &held.entry);
        if let Some(entry) = entry.filter(|entry| entry.scope == Scope::Namespace) {
            self.enclosed.insert(entry.namespace.clone(), uid.clone());
        } else if !self.enclosed.values().any(|known| known == uid) {
            // Only reports tell of it, and those have no name.
            let mut names = self.namespaces.keys();
            let name = names.find(|name| namespace_uid(name) == *uid).cloned();
            self.enclosed.extend(name.map(|name| (name, uid.clone())));
        }
    }

    /// Notes that a namespace is there, of which perhaps only reports told so far.
    pub(super) fn recognise(&mut self, name: &NamespaceName) {
        let uid = namespace_uid(name);
        if self.ledger.contains_key(&uid) && !self.enclosed.contains_key(name) {
            self.enclosed.insert(name.clone(), uid.clone());
            self.touch(&uid);
        }
    }
}
