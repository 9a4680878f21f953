//! Statuses of Tenants.

use std::collections::BTreeMap;

use crds::{ConditionStatus, ConditionType, Reason, TenantStatus};

use super::fleet::Setter;
use crate::province::{Place, TenantView, Tenants, missing_roles};
use crate::world::{Parked, TenantKey, TenantSlot, World, owned_namespace};

/// Statuses that differ from the ones last written.
pub(crate) fn tenant_statuses(
    world: &World,
    tenants: &Tenants,
) -> BTreeMap<TenantKey, TenantStatus> {
    let views = tenants.owners.values().map(|view| (&view.key, Ok(&**view)));
    let parked = tenants
        .parked
        .iter()
        .map(|(key, parked)| (key, Err(parked)));
    let one = |(key, state): (&TenantKey, Result<&TenantView, &Parked>)| {
        let slot = world.tenant(key)?;
        let status = status(world, tenants, key, slot, state);
        let mut old = (*slot.status).clone();
        old.leader_epoch = None;
        (status != old).then(|| (key.clone(), status))
    };
    views.chain(parked).filter_map(one).collect()
}

fn status(
    world: &World,
    tenants: &Tenants,
    key: &TenantKey,
    slot: &TenantSlot,
    state: Result<&TenantView, &Parked>,
) -> TenantStatus {
    let set = Setter {
        old: &slot.status.conditions,
        generation: slot.generation,
        now: world.now,
    };
    let mut conditions = Vec::new();
    for (kind, status, reason, message) in said(world, tenants, key, slot, state) {
        conditions.push(set.to(kind, status, reason, message));
    }
    let limits = state.ok().map(|view| &*view.limits);
    TenantStatus {
        observed_generation: Some(slot.generation),
        leader_epoch: None,
        conditions,
        owned_namespace: state.ok().map(|view| view.line[0].clone()),
        regions: limits
            .and_then(|limits| limits.regions.as_ref())
            .map(|regions| regions.iter().take(64).cloned().collect())
            .unwrap_or_default(),
        zones: limits
            .map(|limits| limits.zones.iter().copied().collect())
            .unwrap_or_default(),
        max_data_grade: limits.map(|limits| limits.grade),
        max_tier: limits.map(|limits| limits.tier),
    }
}

type Said = (ConditionType, ConditionStatus, Reason, String);

fn said(
    world: &World,
    tenants: &Tenants,
    key: &TenantKey,
    slot: &TenantSlot,
    state: Result<&TenantView, &Parked>,
) -> Vec<Said> {
    use ConditionStatus::{False, True};
    use ConditionType::{NamespaceReady, Ready, Reconciling, Stalled};
    let waits = |kind, reason, message: String| {
        vec![
            (Ready, False, reason, message.clone()),
            (kind, True, reason, message),
        ]
    };
    if slot.deleting {
        return waits(Reconciling, Reason::Deleting, leaving(world, key));
    }
    let view = match state {
        Ok(view) => view,
        Err(parked) => {
            let message = format!("{}. What is there stays as it is.", parked.message);
            return waits(Stalled, parked.reason, message);
        }
    };
    let own = &view.line[0];
    let place = match &view.place {
        Place::Owned(_) if missing_roles(world, tenants, view).is_empty() => None,
        Place::Taken(why) => Some((Stalled, Reason::NamespaceTaken, why.clone())),
        Place::Going => Some((
            Reconciling,
            Reason::InProgress,
            format!("Namespace {own} is being deleted, and made anew once it is gone."),
        )),
        Place::Owned(_) => Some((
            Reconciling,
            Reason::InProgress,
            format!(
                "Roles in namespace {own} are being given. Should that last, a RoleBinding jiuzhou-tenant-admin or jiuzhou-tenant-view of another role is in the way: delete it."
            ),
        )),
        Place::Absent | Place::Claimable(_) => Some((
            Reconciling,
            Reason::InProgress,
            format!("Namespace {own} is being made."),
        )),
    };
    if let Some((kind, reason, message)) = place {
        let mut all = waits(kind, reason, message.clone());
        all.push((NamespaceReady, False, reason, message));
        return all;
    }
    let ready =
        format!("Namespace {own} is there, and its administrators have their rights in it.");
    let mut all = match &view.objection {
        Some(objection) => {
            let message = format!("{}. The rest is in force.", objection.message);
            waits(Stalled, objection.reason, message)
        }
        None => vec![(Ready, True, Reason::AsExpected, ready.clone())],
    };
    all.push((NamespaceReady, True, Reason::AsExpected, ready));
    all
}

/// How far the removal is.
fn leaving(world: &World, key: &TenantKey) -> String {
    let own = owned_namespace(key);
    let tenants = world.tenants_in(&own);
    let quotas = world.quotas_in(&own);
    let apps = world.apps_in(&own).filter_map(|uid| world.app(uid));
    let inside: Vec<String> = tenants
        .map(|((_, name), _)| format!("Tenant {name}"))
        .chain(quotas.map(|((_, name), _)| format!("Quota {name}")))
        .chain(apps.map(|app| format!("App {}", app.name)))
        .collect();
    let Some(first) = inside.first() else {
        return format!(
            "Being deleted; namespace {own} goes last: its own status says what holds it up, if anything does."
        );
    };
    let count = inside.len();
    format!(
        "Being deleted; what is in namespace {own} goes first, {count} in all: {first} waits for its finalizers."
    )
}
