//! Tenants of the simulated province.

use std::collections::{BTreeMap, BTreeSet};

use crds::{APP_FINALIZER, Condition, ConditionType, Tenant, TenantStatus, Uid, find_condition};
use plan::province::TenantWrite;
use plan::world::{NamespaceSlot, Subject, TenantKey, TenantRole};
use serde_json::{Value, json};

use super::Province;

/// A key from where a Tenant lives and its name.
pub(crate) fn key(home: &str, name: &str) -> TenantKey {
    (home.into(), name.into())
}

impl Province {
    /// The Tenant, created.
    pub(crate) fn with_tenant(mut self, home: &str, name: &str, spec: &Value) -> Self {
        self.create_tenant(home, name, spec);
        self
    }

    pub(crate) fn create_tenant(&mut self, home: &str, name: &str, spec: &Value) {
        self.next_uid += 1;
        let mut all = json!({"displayName": name});
        for (field, value) in spec.as_object().into_iter().flatten() {
            all[field] = value.clone();
        }
        let tenant: Tenant = serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Tenant",
            "metadata": {
                "name": name, "namespace": home, "generation": 1,
                "uid": format!("tenant-{:03}", self.next_uid),
            },
            "spec": all,
        }))
        .unwrap();
        self.put_tenant(tenant);
    }

    fn put_tenant(&mut self, tenant: Tenant) {
        let meta = &tenant.metadata;
        let name = meta.name.clone().unwrap();
        let at = key(meta.namespace.as_deref().unwrap(), &name);
        self.world.apply_tenant(&tenant);
        self.tenants.insert(at, tenant);
    }

    pub(crate) fn edit_tenant(&mut self, home: &str, name: &str, edit: impl FnOnce(&mut Tenant)) {
        let mut tenant = self.tenants[&key(home, name)].clone();
        edit(&mut tenant);
        tenant.metadata.generation = tenant.metadata.generation.map(|g| g + 1);
        self.put_tenant(tenant);
    }

    /// A user deletes the Tenant; it goes once our finalizer is off.
    pub(crate) fn delete_tenant(&mut self, home: &str, name: &str) {
        let mut tenant = self.tenants[&key(home, name)].clone();
        let held = tenant.metadata.finalizers.iter().flatten().count() > 0;
        let now = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        tenant.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!(now.to_string())).unwrap());
        self.put_tenant(tenant);
        if !held {
            self.lose_tenant(&key(home, name));
        }
    }

    fn lose_tenant(&mut self, at: &TenantKey) {
        self.tenants.remove(at).unwrap();
        self.world.remove_tenant(&at.0, &at.1);
    }

    /// A namespace as somebody made it.
    pub(crate) fn with_namespace(mut self, name: &str, claim: Option<&str>) -> Self {
        let slot = NamespaceSlot {
            claim: claim.map(Into::into),
            ..NamespaceSlot::plain(format!("ns-{name}").into())
        };
        self.world.apply_namespace(&name.into(), slot);
        self
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&NamespaceSlot> {
        self.world.namespace(&name.into())
    }

    pub(crate) fn tenant_condition(
        &self,
        home: &str,
        name: &str,
        kind: ConditionType,
    ) -> Option<&Condition> {
        let status = self.tenants[&key(home, name)].status.as_ref()?;
        find_condition(&status.conditions, kind)
    }

    pub(crate) fn tenant_status(&self, home: &str, name: &str) -> &TenantStatus {
        self.tenants[&key(home, name)].status.as_ref().unwrap()
    }

    /// Names of those who have a role in a namespace.
    pub(crate) fn given(&self, namespace: &str, role: TenantRole) -> Vec<&str> {
        let subjects = self.world.binding(&namespace.into(), role);
        subjects.into_iter().flatten().map(|s| &*s.name).collect()
    }

    pub(super) fn write_tenant_statuses(&mut self, statuses: &BTreeMap<TenantKey, TenantStatus>) {
        for (at, status) in statuses {
            let Some(mut tenant) = self.tenants.get(at).cloned() else {
                continue;
            };
            tenant.status = Some(TenantStatus {
                leader_epoch: Some(self.world.hub.leader_epoch),
                ..status.clone()
            });
            self.put_tenant(tenant);
            self.status_writes += 1;
        }
    }

    /// Does what the hub and the API server do.
    pub(super) fn write_tenant(&mut self, write: &TenantWrite) {
        match write {
            TenantWrite::Hold(at, uid) => {
                let mut tenant = self.live(at, uid);
                tenant.metadata.finalizers = Some(vec![APP_FINALIZER.to_owned()]);
                self.put_tenant(tenant);
            }
            TenantWrite::Release(at, uid) => {
                self.live(at, uid);
                self.lose_tenant(at);
            }
            TenantWrite::Own {
                namespace,
                tenant,
                claims,
            } => {
                let there = self.world.namespace(namespace);
                assert_eq!(there.map(|there| &there.uid), claims.as_ref());
                let slot = NamespaceSlot {
                    owner: Some(tenant.clone()),
                    ..NamespaceSlot::plain(format!("ns-{namespace}").into())
                };
                self.world.apply_namespace(namespace, slot);
            }
            TenantWrite::Bind {
                namespace,
                role,
                subjects,
            } => self.bind(namespace.as_str(), *role, subjects.clone()),
            TenantWrite::Clear { namespace, .. } => {
                let slot = self.world.namespace(namespace).unwrap().clone();
                let clearing = true;
                let slot = NamespaceSlot { clearing, ..slot };
                self.world.apply_namespace(namespace, slot);
            }
            TenantWrite::DeleteTenant((home, name), _) => {
                self.delete_tenant(home.as_str(), name.as_str());
            }
            TenantWrite::DeleteQuota((home, name), _) => self.delete_quota(home.as_str(), name),
            TenantWrite::DeleteApp(uid) => {
                let mut all = self.apps.iter();
                let app = all.find(|(_, app)| app.metadata.uid.as_deref() == Some(uid.as_str()));
                let name = app.unwrap().0.clone();
                self.delete(&name);
            }
            TenantWrite::DeleteNamespace { namespace, .. } => {
                assert!(!self.tenants.keys().any(|(home, _)| home == namespace));
                assert!(!self.quotas.keys().any(|(home, _)| home == namespace));
                let here =
                    |app: &crds::App| app.metadata.namespace.as_deref() == Some(namespace.as_str());
                assert!(!self.apps.values().any(here), "Apps go first");
                self.world.remove_namespace(namespace);
                for role in TenantRole::ALL {
                    self.world.remove_binding(namespace, role);
                }
            }
        }
    }

    /// Gives a role, as the hub does or somebody by hand.
    pub(crate) fn bind(&mut self, namespace: &str, role: TenantRole, subjects: BTreeSet<Subject>) {
        self.world.apply_binding(namespace.into(), role, subjects);
    }

    fn live(&self, at: &TenantKey, uid: &Uid) -> Tenant {
        let tenant = self.tenants[at].clone();
        assert_eq!(tenant.metadata.uid.as_deref(), Some(uid.as_str()));
        tenant
    }
}
