//! What a policy says and guards cannot do as it stands. It is reported, so that nobody relies on it.

use crds::{LimitScope, TrafficPolicySpec};

use super::super::TicketKeys;

/// Fields that do not count, as a user writes them, and why not.
pub(super) fn of(spec: &TrafficPolicySpec, keys: &TicketKeys) -> Vec<(String, String)> {
    room_without_keys(spec, keys).into_iter().collect()
}

/// Rules that count over the province, which a cluster alone cannot.
pub(super) fn province_wide(spec: &TrafficPolicySpec) -> Vec<String> {
    let limits = spec.rate_limits.iter();
    limits
        .filter(|limit| limit.scope == LimitScope::Province)
        .map(|limit| format!("rateLimits {}", limit.name))
        .collect()
}

/// Whether people are to be counted over the province, which nobody does.
pub(super) fn has_room_of_the_province(spec: &TrafficPolicySpec) -> bool {
    let room = spec.waiting_room.as_ref();
    room.is_some_and(|room| room.scope == LimitScope::Province)
}

/// A room whose tickets nobody can sign is left out, and its rules let everybody pass to the rest of what
/// protects them. The other way round everybody would be sent away, for ever and from a target that is well:
/// a lost Secret would be an outage.
fn room_without_keys(spec: &TrafficPolicySpec, keys: &TicketKeys) -> Option<(String, String)> {
    spec.waiting_room.as_ref()?;
    match keys {
        TicketKeys::Missing(why) => Some(("waitingRoom".to_owned(), why.clone())),
        TicketKeys::Known(_) | TicketKeys::Assumed => None,
    }
}
