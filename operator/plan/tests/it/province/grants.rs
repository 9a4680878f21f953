//! Quotas of the simulated province.

use std::collections::BTreeMap;

use crds::{
    APP_FINALIZER, Condition, ConditionType, Quota, QuotaLedger, QuotaLedgerSpec, QuotaStatus,
    find_condition,
};
use plan::province::{QuotaWrite, emergency_hash};
use plan::world::QuotaKey;
use serde_json::{Value, json};

use super::{Draft, Province, app};

fn at(home: &str, name: &str) -> QuotaKey {
    (home.into(), name.into())
}

/// Replicas that an App has a place for.
pub(crate) fn replicas(province: &Province, app: &str) -> i32 {
    province.placed(app).iter().map(|(_, count)| count).sum()
}

/// An App in Hangzhou of which nothing is charged but its replicas, by `ci`.
pub(crate) fn of(namespace: &str, name: &str, replicas: i32, tier: &str) -> Draft {
    app(name)
        .in_namespace(namespace)
        .within(&["hangzhou"])
        .replicas(replicas, "Capacity")
        .tier(tier)
        .changed_by("ci")
        .set("/manifests/0/spec/strategy/type", json!("Recreate"))
}

/// One resource of a Quota.
pub(crate) fn grant(name: &str, nominal: &str) -> Value {
    json!({"name": name, "nominal": nominal})
}

/// One resource of a Quota that borrows and lends up to limits.
pub(crate) fn limits(name: &str, nominal: &str, borrowing: &str, lending: &str) -> Value {
    json!({
        "name": name, "nominal": nominal, "borrowingLimit": borrowing, "lendingLimit": lending,
    })
}

impl Province {
    /// The Region has a budget.
    pub(crate) fn with_budget(mut self, region: &str, budget: &[(&str, &str)]) -> Self {
        let item = |(name, quantity): &(&str, &str)| json!({"name": name, "quantity": quantity});
        let budget: Vec<Value> = budget.iter().map(item).collect();
        self.edit_region(region, |region| {
            region.spec.budget = serde_json::from_value(json!(budget)).unwrap();
        });
        self
    }

    /// The Quota of a tenant that lives in `home`, created or changed.
    pub(crate) fn with_quota(
        mut self,
        home: &str,
        tenant: &str,
        region: &str,
        resources: &[Value],
    ) -> Self {
        self.set_quota(home, tenant, region, resources);
        self
    }

    pub(crate) fn set_quota(
        &mut self,
        home: &str,
        tenant: &str,
        region: &str,
        resources: &[Value],
    ) {
        let name = format!("{tenant}.{region}");
        let spec = json!({"tenantName": tenant, "regionName": region, "resources": resources});
        if let Some(mut quota) = self.quotas.get(&at(home, &name)).cloned() {
            quota.spec = serde_json::from_value(spec).unwrap();
            quota.metadata.generation = quota.metadata.generation.map(|g| g + 1);
            return self.put_quota(quota);
        }
        self.next_uid += 1;
        let quota = serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Quota",
            "metadata": {
                "name": name, "namespace": home, "generation": 1,
                "uid": format!("quota-{:03}", self.next_uid),
            },
            "spec": spec,
        }));
        self.put_quota(quota.unwrap());
    }

    fn put_quota(&mut self, quota: Quota) {
        let meta = &quota.metadata;
        let key = at(
            meta.namespace.as_deref().unwrap(),
            meta.name.as_deref().unwrap(),
        );
        self.world.apply_quota(&quota);
        self.quotas.insert(key, quota);
    }

    /// An Approval for the emergency lane, changed as a test wants it.
    pub(crate) fn urge(&mut self, app: &str, edit: impl FnOnce(&mut Value)) {
        let slot = self.world.app(&self.uid(app)).unwrap();
        let hash = slot.state.as_ref().map(|app| emergency_hash(slot, app));
        let hash = hash.unwrap_or_else(|_| "3f786850e387550fdab8".into());
        let mut approval = json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Approval",
            "metadata": {"name": format!("{app}-emergency"), "namespace": "jiuzhou-system"},
            "spec": {
                "target": {"kind": "App", "namespace": slot.namespace, "name": app},
                "step": "emergency", "contentHash": hash, "approver": "duty-officer",
                "decision": "Approve", "reason": "flood",
                "expires": crds::Timestamp::from_millis(self.world.now + 3_600_000),
            },
        });
        edit(&mut approval);
        let approval: crds::Approval = serde_json::from_value(approval).unwrap();
        let name = |approval: &crds::Approval| approval.metadata.name.clone();
        self.approvals
            .retain(|other| name(other) != name(&approval));
        self.approvals.push(approval.clone());
        self.world.apply_approval(approval);
    }

    /// A user deletes the Quota; it goes once our finalizer is off.
    pub(crate) fn delete_quota(&mut self, home: &str, name: &str) {
        let mut quota = self.quotas[&at(home, name)].clone();
        let held = quota.metadata.finalizers.iter().flatten().count() > 0;
        quota.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2027-01-15T08:00:00Z")).unwrap());
        self.put_quota(quota);
        if !held {
            self.lose_quota(home, name);
        }
    }

    /// The Quota is gone from the store, properly or not.
    pub(crate) fn lose_quota(&mut self, home: &str, name: &str) {
        self.quotas.remove(&at(home, name)).unwrap();
        self.world.remove_quota(&home.into(), name);
    }

    pub(crate) fn quota_status(&self, home: &str, name: &str) -> &QuotaStatus {
        self.quotas[&at(home, name)].status.as_ref().unwrap()
    }

    pub(crate) fn quota_condition(
        &self,
        home: &str,
        name: &str,
        kind: ConditionType,
    ) -> Option<&Condition> {
        find_condition(&self.quota_status(home, name).conditions, kind)
    }

    pub(super) fn write_quota_statuses(&mut self, statuses: &BTreeMap<QuotaKey, QuotaStatus>) {
        for (key, status) in statuses {
            let Some(mut quota) = self.quotas.get(key).cloned() else {
                continue;
            };
            quota.status = Some(QuotaStatus {
                leader_epoch: Some(self.world.hub.leader_epoch),
                ..status.clone()
            });
            self.put_quota(quota);
            self.status_writes += 1;
        }
    }

    /// Does what the hub and the API server do.
    pub(super) fn write_quota(&mut self, write: &QuotaWrite) {
        match write {
            QuotaWrite::Hold((home, name), uid) => {
                let mut quota = self.quotas[&at(home.as_str(), name)].clone();
                assert_eq!(quota.metadata.uid.as_deref(), Some(uid.as_str()));
                quota.metadata.finalizers = Some(vec![APP_FINALIZER.to_owned()]);
                self.put_quota(quota);
            }
            QuotaWrite::Ledger {
                region,
                resource_version,
                grants,
            } => {
                let stored = self.world.quota_ledger(region);
                let version = stored.map(|ledger| ledger.resource_version.clone());
                assert_eq!(version, *resource_version, "the write's precondition holds");
                let mut ledger = QuotaLedger::new(
                    region.as_str(),
                    QuotaLedgerSpec {
                        leader_epoch: self.world.hub.leader_epoch,
                        grants: grants.clone(),
                    },
                );
                ledger.metadata.resource_version = Some(self.next_version());
                self.world.apply_quota_ledger(&ledger);
                self.quota_ledgers.insert(region.clone(), ledger);
            }
            QuotaWrite::Release((home, name), uid) => {
                let quota = &self.quotas[&at(home.as_str(), name)];
                assert_eq!(quota.metadata.uid.as_deref(), Some(uid.as_str()));
                self.lose_quota(home.as_str(), name);
            }
        }
    }
}
