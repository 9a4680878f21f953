//! Isolations and Links of the simulated province, and what it says about namespaces in members.

use std::collections::BTreeMap;

use crds::{
    Approval, Condition, ConditionType, Entry, Isolation, IsolationStatus, Link, LinkGrant,
    LinkStatus, find_condition,
};
use plan::world::{LinkKey, namespace_uid};
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

    /// A Link from an App of health to App sso of police, made by ann, created or changed.
    pub(crate) fn set_link(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let key: LinkKey = ("health".into(), name.into());
        let before = self.links.get(&key);
        let generation = before.map_or(1, |b| b.metadata.generation.unwrap() + 1);
        let mut link = json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Link",
            "metadata": {
                "name": name, "namespace": "health", "generation": generation,
                "uid": format!("link-{name}"), "annotations": {"jiuzhou.io/changed-by": "ann"},
            },
            "spec": {
                "from": {"appNames": ["web"]},
                "to": {"namespace": "police", "appName": "sso", "ports": [{"port": 8443}]},
                "reason": "who somebody is", "owner": {"unit": "health"},
                "expires": super::draft::time(self.world.now + 3_600_000),
            },
        });
        edit(&mut link);
        let mut link: Link = serde_json::from_value(link).unwrap();
        link.status = before.and_then(|before| before.status.clone());
        self.world.apply_link(link.clone());
        self.links.insert(key, link);
    }

    pub(crate) fn delete_link(&mut self, name: &str) {
        self.links.remove(&("health".into(), name.into())).unwrap();
        self.world.remove_link(&"health".into(), name);
    }

    /// Police lets Links of a namespace reach App sso.
    pub(crate) fn consent(&mut self, from: &str) {
        self.consent_to(from, "sso");
    }

    /// Police lets Links of a namespace reach one of its Apps.
    pub(crate) fn consent_to(&mut self, from: &str, app: &str) {
        let grant: LinkGrant = serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "LinkGrant",
            "metadata": {"name": "grant", "namespace": "police"},
            "spec": {"from": [{"namespace": from}], "to": [{"appName": app}]},
        }))
        .unwrap();
        self.world.apply_link_grant(grant);
    }

    /// Somebody says yes or no to a Link as it is now.
    pub(crate) fn decide_link(&mut self, name: &str, by: &str, decision: &str) {
        let key: LinkKey = ("health".into(), name.into());
        let hash = self.links[&key]
            .status
            .as_ref()
            .unwrap()
            .content_hash
            .clone();
        let approval: Approval = serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Approval",
            "metadata": {"name": format!("{name}-{by}"), "namespace": "jiuzhou-system"},
            "spec": {
                "target": {"kind": "Link", "namespace": "health", "name": name},
                "step": "cross-zone", "contentHash": hash, "approver": by, "decision": decision,
                "expires": super::draft::time(self.world.now + 600_000),
            },
        }))
        .unwrap();
        self.approvals.push(approval.clone());
        self.world.apply_approval(approval);
    }

    pub(crate) fn link_condition(&self, name: &str, kind: ConditionType) -> Option<&Condition> {
        let status = self.links[&("health".into(), name.into())]
            .status
            .as_ref()?;
        find_condition(&status.conditions, kind)
    }

    pub(super) fn write_link_statuses(&mut self, statuses: &BTreeMap<LinkKey, LinkStatus>) {
        for (key, status) in statuses {
            let link = self.links.get_mut(key).unwrap();
            link.status = Some(LinkStatus {
                leader_epoch: Some(self.world.hub.leader_epoch),
                ..status.clone()
            });
            self.world.apply_link(link.clone());
            self.status_writes += 1;
        }
    }
}
