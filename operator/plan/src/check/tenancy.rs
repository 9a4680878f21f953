//! The second judge on tenants.

use crds::{NamespaceName, RegionName, SYSTEM_NAMESPACE};

use super::Finding;
use crate::province::TenantWrite;
use crate::world::{NamespaceSlot, TenantKey, TenantSlot, ValidApp, World};

/// The Tenant whose namespace that is by its name, if it really owns it.
fn owner<'w>(
    world: &'w World,
    namespace: &NamespaceName,
) -> Option<(TenantKey, &'w TenantSlot, &'w NamespaceSlot)> {
    let name = namespace.as_str();
    let (home, name) = name.rsplit_once('-').unwrap_or((SYSTEM_NAMESPACE, name));
    let key: TenantKey = (home.into(), name.into());
    let (tenant, place) = (world.tenant(&key)?, world.namespace(namespace)?);
    (place.owner.as_ref() == Some(&tenant.uid)).then_some((key, tenant, place))
}

/// Whether a tenant of an App, or one above it, may not use what the App asks for in a region.
pub(super) fn bars(
    world: &World,
    namespace: &NamespaceName,
    app: &ValidApp,
    line: &[&RegionName],
) -> bool {
    let mut home = namespace.clone();
    while let Some((key, tenant, _)) = owner(world, &home) {
        let Ok(tenant) = &tenant.state else {
            return false;
        };
        let regions = tenant.regions.is_empty() || line.iter().any(|r| tenant.regions.contains(*r));
        let zones = tenant.zones.is_empty() || tenant.zones.contains(&app.zone);
        let grade = tenant.max_data_grade.is_none_or(|most| app.grade <= most);
        let tier = tenant.max_tier.is_none_or(|most| app.tier >= most);
        if !(regions && zones && grade && tier) {
            return true;
        }
        home = key.0;
    }
    false
}

/// What is wrong with a write for a tenant.
pub(super) fn judge(world: &World, write: &TenantWrite) -> Option<Finding> {
    let cleared = |namespace: &NamespaceName| {
        owner(world, namespace).is_some_and(|(_, tenant, place)| tenant.deleting && place.clearing)
    };
    let fine = match write {
        TenantWrite::Hold(..) | TenantWrite::Release(..) => true,
        TenantWrite::Own {
            namespace, claims, ..
        } => match (world.namespace(namespace), claims) {
            (None, None) => true,
            (Some(there), Some(uid)) => {
                there.uid == *uid
                    && there.owner.is_none()
                    && there.claim.as_ref() == Some(namespace)
            }
            (Some(_), None) | (None, Some(_)) => false,
        },
        TenantWrite::Bind { namespace, .. } => owner(world, namespace).is_some(),
        TenantWrite::Clear { namespace, .. } => {
            owner(world, namespace).is_some_and(|(_, tenant, _)| tenant.deleting)
        }
        TenantWrite::DeleteTenant((home, _), _) | TenantWrite::DeleteQuota((home, _), _) => {
            cleared(home)
        }
        TenantWrite::DeleteApp(uid) => world.app(uid).is_some_and(|app| cleared(&app.namespace)),
        TenantWrite::DeleteNamespace { namespace, .. } => {
            let empty = world.apps_in(namespace).next().is_none()
                && world.tenants_in(namespace).next().is_none()
                && world.quotas_in(namespace).next().is_none();
            empty && cleared(namespace)
        }
    };
    (!fine).then(|| Finding::Tenant(format!("{write:?}")))
}
