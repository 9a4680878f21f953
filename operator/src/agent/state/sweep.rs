//! What an agent need not know any more.

use std::collections::BTreeSet;

use crds::{ContentHash, NamespaceName};

use super::State;

impl State {
    /// Forgets what belongs to no entry that is held, so that an agent that runs for years knows as
    /// much as one that started today.
    pub(super) fn sweep(&mut self) {
        if !std::mem::take(&mut self.unswept) {
            return;
        }
        self.sort_homes();
        let held = &self.held.entries;
        let present = || held.values().filter(|held| held.entry.state.is_present());
        let contents: BTreeSet<&ContentHash> = present().map(|held| &held.entry.content).collect();
        let namespaces: BTreeSet<&NamespaceName> =
            held.values().map(|held| &held.entry.namespace).collect();
        self.contents.retain(|hash, _| contents.contains(hash));
        self.missing.retain(|(hash, _), _| contents.contains(hash));
        self.access_until
            .retain(|(namespace, _), _| namespaces.contains(namespace));
        self.rebound
            .retain(|namespace, _| namespaces.contains(namespace));
        self.failures.retain(|app, _| held.contains_key(app));
        self.tries.retain(|_, (app, _)| held.contains_key(app));
        let (tries, observed) = (&self.tries, &mut self.observed);
        observed.refused.retain(|key, _| tries.contains_key(key));
        observed.forget_settled(|app| held.contains_key(app));
        observed
            .access
            .retain(|(namespace, _), _| namespaces.contains(namespace));
        observed
            .enclosures
            .retain(|namespace, _| namespaces.contains(namespace));
        let objects = &observed.objects;
        observed.nudged.retain(|key, _| objects.contains_key(key));
        observed
            .evicted
            .retain(|key, _| namespaces.contains(&key.namespace));
        observed
            .undelivered
            .retain(|(namespace, _), _| namespaces.contains(namespace));
    }
}
