//! Isolations of the simulated province, and what it says about namespaces in members.

use std::collections::BTreeMap;

use crds::{Condition, ConditionType, Entry, Isolation, IsolationStatus, find_condition};
use plan::world::namespace_uid;
use serde_json::{Value, json};

use super::Province;

impl Province {
    /// The Isolation, created or changed.
    pub(crate) fn with_isolation(mut self, name: &str, spec: &Value) -> Self {
        self.set_isolation(name, spec);
        self
    }

    pub(crate) fn set_isolation(&mut self, name: &str, spec: &Value) {
        let before = self.isolations.get(name);
        let generation = before.map_or(1, |b| b.metadata.generation.unwrap() + 1);
        let status = before.and_then(|before| before.status.clone());
        let mut all = json!({"zones": ["ExtranetPublic"]});
        for (field, value) in spec.as_object().into_iter().flatten() {
            all[field] = value.clone();
        }
        let mut isolation: Isolation = serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Isolation",
            "metadata": {"name": name, "generation": generation, "uid": format!("iso-{name}")},
            "spec": all,
        }))
        .unwrap();
        isolation.status = status;
        self.world.apply_isolation(isolation.clone());
        self.isolations.insert(name.to_owned(), isolation);
    }

    pub(crate) fn delete_isolation(&mut self, name: &str) {
        self.isolations.remove(name).unwrap();
        self.world.remove_isolation(name);
    }

    pub(crate) fn isolation_condition(
        &self,
        name: &str,
        kind: ConditionType,
    ) -> Option<&Condition> {
        let status = self.isolations[name].status.as_ref()?;
        find_condition(&status.conditions, kind)
    }

    pub(super) fn write_isolation_statuses(
        &mut self,
        statuses: &BTreeMap<Box<str>, IsolationStatus>,
    ) {
        for (name, status) in statuses {
            let isolation = self.isolations.get_mut(&**name).unwrap();
            isolation.status = Some(IsolationStatus {
                leader_epoch: Some(self.world.hub.leader_epoch),
                ..status.clone()
            });
            self.world.apply_isolation(isolation.clone());
            self.status_writes += 1;
        }
    }

    /// What the ledger says of a namespace in a cluster.
    pub(crate) fn enclosure(&self, namespace: &str, cluster: &str) -> Option<&Entry> {
        let ledger = self.world.ledger(&namespace_uid(&namespace.into()))?;
        ledger.entries.get(cluster).map(|held| &*held.entry)
    }
}
