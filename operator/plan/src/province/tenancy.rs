//! What is written for tenants: their namespaces, who has which role there, and, when a Tenant is
//! deleted, everything inside before the namespace, and the namespace before the Tenant.

use std::collections::BTreeSet;

use crds::{NamespaceName, Uid};

use super::assignments::stands_somewhere;
use super::regions::Fleet;
use super::tenants::{Place, TenantView, Tenants, place};
use crate::world::{QuotaKey, Subject, TenantKey, TenantRole, World, owned_namespace};

/// One write for a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantWrite {
    /// Hold the Tenant by our finalizer before anything is made for it.
    Hold(TenantKey, Uid),
    /// Make its namespace, or claim the one of that UID which says that it may be.
    Own {
        /// The namespace.
        namespace: NamespaceName,
        /// UID of the Tenant.
        tenant: Uid,
        /// UID of the namespace that is claimed.
        claims: Option<Uid>,
    },
    /// Give a role in its namespace to exactly these.
    Bind {
        /// The namespace.
        namespace: NamespaceName,
        /// The role.
        role: TenantRole,
        /// To whom.
        subjects: BTreeSet<Subject>,
    },
    /// Say on the namespace that what is inside may be deleted.
    Clear {
        /// The Tenant that is being deleted.
        tenant: TenantKey,
        /// Its UID.
        tenant_uid: Uid,
        /// The namespace.
        namespace: NamespaceName,
        /// Its UID.
        uid: Uid,
    },
    /// Delete a Tenant that lives in a namespace that is cleared.
    DeleteTenant(TenantKey, Uid),
    /// Delete a Quota that lives in a namespace that is cleared.
    DeleteQuota(QuotaKey, Uid),
    /// Delete an App that lives in a namespace that is cleared.
    DeleteApp(Uid),
    /// Delete the namespace, now that it is empty.
    DeleteNamespace {
        /// The namespace.
        namespace: NamespaceName,
        /// Its UID.
        uid: Uid,
    },
    /// Let the Tenant go: its namespace is gone.
    Release(TenantKey, Uid),
}

/// Everything to write for tenants, parents before their children.
pub(crate) fn writes(world: &World, fleet: &Fleet, tenants: &Tenants) -> Vec<TenantWrite> {
    let mut writes = Vec::new();
    for view in tenants.owners.values() {
        let Some(slot) = world.tenant(&view.key) else {
            continue;
        };
        if !view.deleting {
            keep(world, tenants, view, slot.held, &mut writes);
        }
    }
    // What a parked Tenant owns stays as well, unless the Tenant is deleted.
    let leaving = world
        .tenants()
        .filter(|(_, slot)| slot.deleting && slot.held);
    writes.extend(leaving.flat_map(|(key, slot)| remove(world, fleet, key, &slot.uid)));
    writes
}

fn keep(
    world: &World,
    tenants: &Tenants,
    view: &TenantView,
    held: bool,
    writes: &mut Vec<TenantWrite>,
) {
    if !held {
        return writes.push(TenantWrite::Hold(view.key.clone(), view.uid.clone()));
    }
    let namespace = view.line[0].clone();
    let claims = match &view.place {
        Place::Going | Place::Taken(_) => return,
        Place::Owned(_) => {
            for (role, subjects) in missing(world, tenants, view) {
                let namespace = namespace.clone();
                writes.push(TenantWrite::Bind {
                    namespace,
                    role,
                    subjects,
                });
            }
            return;
        }
        Place::Absent => None,
        Place::Claimable(uid) => Some(uid.clone()),
    };
    writes.push(TenantWrite::Own {
        namespace,
        tenant: view.uid.clone(),
        claims,
    });
}

/// Roles in a tenant's namespace that are not given to exactly those who are to have them.
pub(crate) fn missing(
    world: &World,
    tenants: &Tenants,
    view: &TenantView,
) -> Vec<(TenantRole, BTreeSet<Subject>)> {
    let of = |view: &TenantView| {
        let all = view.tenant.administrators.iter();
        all.map(|one| Subject::of(one, &view.line[0]))
            .collect::<BTreeSet<_>>()
    };
    let above = view.line[1..].iter().filter_map(|own| tenants.owner(own));
    let wanted = [
        (TenantRole::Admin, of(view)),
        (TenantRole::View, above.flat_map(|view| of(view)).collect()),
    ];
    // Also to nobody: what is not there yet, somebody else could make.
    let differs = |(role, subjects): &(TenantRole, BTreeSet<Subject>)| {
        world.bindings.get(&(view.line[0].clone(), *role)) != Some(subjects)
    };
    wanted.into_iter().filter(differs).collect()
}

/// What is next for a Tenant that is being deleted: everything inside goes, then the namespace, then
/// the Tenant.
fn remove(world: &World, fleet: &Fleet, key: &TenantKey, tenant: &Uid) -> Vec<TenantWrite> {
    let namespace = owned_namespace(key);
    let slot = world.namespaces.get(&namespace);
    let uid = match place(&namespace, tenant, slot) {
        Place::Owned(uid) => uid,
        Place::Going => return Vec::new(),
        // It was deleted by hand before what stands for it in the members.
        Place::Absent if stands_somewhere(world, fleet, &namespace) => return Vec::new(),
        // Nothing was made, or it is not this tenant's to delete.
        Place::Absent | Place::Claimable(_) | Place::Taken(_) => {
            return vec![TenantWrite::Release(key.clone(), tenant.clone())];
        }
    };
    if !slot.is_some_and(|slot| slot.clearing) {
        let (tenant, tenant_uid) = (key.clone(), tenant.clone());
        return vec![TenantWrite::Clear {
            tenant,
            tenant_uid,
            namespace,
            uid,
        }];
    }
    // Whoever ran it makes nothing new there.
    let (mut inside, mut writes) = (false, Vec::new());
    let admin = world.binding(&namespace, TenantRole::Admin);
    if admin.is_some_and(|subjects| !subjects.is_empty()) {
        writes.push(TenantWrite::Bind {
            namespace: namespace.clone(),
            role: TenantRole::Admin,
            subjects: BTreeSet::new(),
        });
    }
    for (key, slot) in world.tenants_in(&namespace) {
        inside = true;
        if !slot.deleting {
            writes.push(TenantWrite::DeleteTenant(key.clone(), slot.uid.clone()));
        }
    }
    for (key, slot) in world.quotas_in(&namespace) {
        inside = true;
        if !slot.deleting {
            writes.push(TenantWrite::DeleteQuota(key.clone(), slot.uid.clone()));
        }
    }
    for app in world.apps_in(&namespace) {
        inside = true;
        if world.app(app).is_some_and(|slot| slot.life.is_alive()) {
            writes.push(TenantWrite::DeleteApp(app.clone()));
        }
    }
    // In the members it goes before, where somebody can answer.
    inside |= stands_somewhere(world, fleet, &namespace);
    if !inside && writes.is_empty() {
        writes.push(TenantWrite::DeleteNamespace { namespace, uid });
    }
    writes
}
