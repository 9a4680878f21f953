//! What a policy says to the routes of its Apps in a region.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::{ContentHash, PolicyTarget, Tier, TrafficPolicySpec, Uid};
use serde_json::json;

use super::standing::tier_of;
use crate::content::{AppContent, hash_of};
use crate::object::Kind;
use crate::world::{AppSlot, PolicyKey, PolicySlot, World};

/// A content, and its hash.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) hash: ContentHash,
    pub(super) data: Arc<str>,
}

/// Names of the HTTPRoutes among an App's manifests, in order.
pub(super) fn routes_of(slot: &AppSlot) -> Vec<&str> {
    let claims = slot.footprint.claims.iter();
    let routes = claims.filter(|(kind, _)| *kind == Kind::HTTPRoute);
    let mut names: Vec<&str> = routes.map(|(_, name)| &**name).collect();
    names.sort_unstable();
    names
}

/// What a policy says where these of its Apps stand; `None` when those have no route.
pub(super) fn made(
    world: &World,
    key: &PolicyKey,
    slot: &PolicySlot,
    apps: &BTreeSet<Uid>,
) -> Option<Made> {
    let spec = slot.standing()?;
    let slots: Vec<&AppSlot> = apps.iter().filter_map(|app| world.app(app)).collect();
    let routes: BTreeSet<&str> = slots.iter().flat_map(|app| routes_of(app)).collect();
    if routes.is_empty() {
        return None;
    }
    // Of several Apps the least important one bounds what all may claim.
    let tier = slots.iter().filter_map(|app| tier_of(world, app)).max();
    let spec = regional(spec, tier.unwrap_or_default(), &routes);
    let content = AppContent {
        manifests: vec![json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": key.1}, "spec": spec,
        })],
        images: Vec::new(),
        workload: None,
        tier: Tier::General,
        overrides: Vec::new(),
    };
    let data = content.to_data();
    Some(Made {
        hash: hash_of(data.as_bytes()),
        data: data.into(),
    })
}

/// What is asked for, but no more important than the App.
pub(crate) fn capped(asked: Tier, app: Tier) -> Tier {
    asked.max(app)
}

/// The policy as a region has it: for routes, and for tiers that the App may have. Rates that clusters divide
/// keep their scope, by which guards order rules; each cluster's part is put into them where it is.
fn regional(spec: &TrafficPolicySpec, tier: Tier, routes: &BTreeSet<&str>) -> TrafficPolicySpec {
    let mut spec = spec.clone();
    spec.target_refs = routes
        .iter()
        .map(|name| PolicyTarget {
            group: Kind::HTTPRoute.group().to_owned(),
            kind: Kind::HTTPRoute.name().to_owned(),
            name: (*name).to_owned(),
            section_name: None,
        })
        .collect();
    spec.default_tier = Some(capped(spec.default_tier.unwrap_or(tier), tier));
    for class in &mut spec.classes {
        class.tier = capped(class.tier, tier);
    }
    spec
}
