//! TrafficPolicies of the simulated province, and what stands for them in members.

use std::collections::BTreeMap;

use crds::{
    APP_FINALIZER, Condition, ConditionType, Entry, TrafficPolicy, TrafficPolicyStatus,
    find_condition,
};
use plan::content::AppContent;
use plan::province::PolicyWrite;
use plan::world::{PolicyKey, policy_uid};
use serde_json::{Value, json};

use super::{Province, START};

/// Where a policy of tenant health lives.
pub(crate) fn key(name: &str) -> PolicyKey {
    ("health".into(), name.into())
}

/// A rate of scope Province for a policy.
pub(crate) fn total(requests: i64) -> Value {
    json!([{"name": "total", "scope": "Province", "rate": {"requests": requests, "per": "1s"}}])
}

/// A rate of scope Region for a policy.
pub(crate) fn of_region(requests: i64) -> Value {
    json!([{"name": "total", "scope": "Region", "rate": {"requests": requests, "per": "1s"}}])
}

impl Province {
    /// A policy of tenant health for some of its Apps, created.
    pub(crate) fn with_policy(mut self, name: &str, apps: &[&str], spec: &Value) -> Self {
        self.set_policy(name, apps, spec);
        self
    }

    /// The same, created or changed. Later ones are younger.
    pub(crate) fn set_policy(&mut self, name: &str, apps: &[&str], spec: &Value) {
        let before = self.policies.get(&key(name)).cloned();
        let target = |app: &&str| json!({"group": "jiuzhou.io", "kind": "App", "name": app});
        let targets: Vec<Value> = apps.iter().map(target).collect();
        let mut all = json!({"targetRefs": targets});
        for (field, value) in spec.as_object().into_iter().flatten() {
            all[field] = value.clone();
        }
        self.next_uid += 1;
        let created = START - 1_000_000_000 + i64::try_from(self.next_uid).unwrap() * 1000;
        let mut policy: TrafficPolicy = serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {
                "name": name, "namespace": "health", "generation": 1,
                "uid": format!("tp-{:03}", self.next_uid),
                "creationTimestamp": super::draft::time(created),
            },
            "spec": all,
        }))
        .unwrap();
        if let Some(before) = before {
            policy.metadata = before.metadata;
            policy.metadata.generation = policy.metadata.generation.map(|g| g + 1);
            policy.status = before.status;
        }
        self.put_policy(policy);
    }

    fn put_policy(&mut self, policy: TrafficPolicy) {
        self.world.apply_policy(&policy);
        let name = policy.metadata.name.clone().unwrap();
        self.policies.insert(key(&name), policy);
    }

    /// A user deletes the policy; it goes once our finalizer is off.
    pub(crate) fn delete_policy(&mut self, name: &str) {
        let mut policy = self.policies[&key(name)].clone();
        if policy.metadata.finalizers.iter().flatten().count() == 0 {
            return self.lose_policy(name);
        }
        policy.metadata.deletion_timestamp = policy.metadata.creation_timestamp.clone();
        self.put_policy(policy);
    }

    /// The policy is gone from the store although nobody deleted it properly.
    pub(crate) fn lose_policy(&mut self, name: &str) {
        self.policies.remove(&key(name)).unwrap();
        self.world.remove_policy(&"health".into(), name);
    }

    pub(super) fn write_policy(&mut self, write: &PolicyWrite) {
        match write {
            PolicyWrite::Hold(at, uid) => {
                let mut policy = self.policies[at].clone();
                assert_eq!(policy.metadata.uid.as_deref(), Some(uid.as_str()));
                assert!(policy.metadata.deletion_timestamp.is_none());
                policy.metadata.finalizers = Some(vec![APP_FINALIZER.to_owned()]);
                self.put_policy(policy);
            }
            PolicyWrite::Release(at, uid) => {
                let mut policy = self.policies[at].clone();
                assert_eq!(policy.metadata.uid.as_deref(), Some(uid.as_str()));
                policy.metadata.finalizers = None;
                if policy.metadata.deletion_timestamp.is_some() {
                    return self.lose_policy(&at.1);
                }
                self.put_policy(policy);
            }
        }
    }

    pub(super) fn write_policy_statuses(
        &mut self,
        statuses: &BTreeMap<PolicyKey, TrafficPolicyStatus>,
    ) {
        for (at, status) in statuses {
            let Some(mut policy) = self.policies.get(at).cloned() else {
                continue;
            };
            policy.status = Some(TrafficPolicyStatus {
                leader_epoch: Some(self.world.hub.leader_epoch),
                ..status.clone()
            });
            self.put_policy(policy);
            self.status_writes += 1;
        }
    }

    /// What the ledger says of a policy, by cluster.
    pub(crate) fn sent(&self, name: &str) -> BTreeMap<String, Entry> {
        let uid = self.policies[&key(name)].metadata.uid.clone().unwrap();
        let ledger = self.world.ledger(&policy_uid(&uid.into())).into_iter();
        let entries = ledger.flat_map(|ledger| &ledger.entries);
        entries
            .map(|(cluster, held)| (cluster.to_string(), (*held.entry).clone()))
            .collect()
    }

    /// Clusters that are to have a policy.
    pub(crate) fn protected_by(&self, name: &str) -> Vec<String> {
        let sent = self.sent(name).into_iter();
        let present = sent.filter(|(_, entry)| entry.state.is_present());
        present.map(|(cluster, _)| cluster).collect()
    }

    /// A cluster's share of a rate, per period.
    pub(crate) fn share(&self, name: &str, cluster: &str) -> Option<(i64, i64)> {
        let entry = self.sent(name).remove(cluster)?;
        let share = entry.shares.first()?;
        Some((share.requests, share.periods))
    }

    /// What the next plan stores of a policy for regions.
    pub(crate) fn regional(&mut self, name: &str) -> Vec<Value> {
        let plan = self.plan();
        let items = plan.contents.iter().flat_map(|pack| &pack.items);
        let all = items.flat_map(|item| {
            let content = AppContent::from_data(&item.hash, &item.data).unwrap();
            content.manifests
        });
        let mine = |m: &Value| m["kind"] == "TrafficPolicy" && m["metadata"]["name"] == name;
        all.filter(mine).collect()
    }

    pub(crate) fn policy_condition(&self, name: &str, kind: ConditionType) -> Option<&Condition> {
        let status = self.policies[&key(name)].status.as_ref()?;
        find_condition(&status.conditions, kind)
    }

    /// What is said of a policy at one App.
    pub(crate) fn at_app(&self, name: &str, app: &str, kind: ConditionType) -> Option<&Condition> {
        let status = self.policies[&key(name)].status.as_ref()?;
        let mut ancestors = status.ancestors.iter();
        let one = ancestors.find(|one| one.ancestor_ref.name == app)?;
        assert_eq!(one.controller_name, "jiuzhou.io/hub");
        find_condition(&one.conditions, kind)
    }
}
