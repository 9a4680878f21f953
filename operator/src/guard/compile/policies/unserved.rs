//! What a policy may say and guards do not do yet. It is left out of the configuration and reported, so that
//! nobody relies on it.

use crds::{LimitScope, TrafficPolicySpec};

/// Fields that are not served, as a user writes them.
pub(super) fn of(spec: &TrafficPolicySpec) -> Vec<String> {
    let fields = waiting_room(spec).into_iter();
    fields.chain(retries(spec)).collect()
}

/// Rules that count over the province, which a cluster alone cannot.
pub(super) fn province_wide(spec: &TrafficPolicySpec) -> Vec<String> {
    let limits = spec.rate_limits.iter();
    limits
        .filter(|limit| limit.scope == LimitScope::Province)
        .map(|limit| format!("rateLimits {}", limit.name))
        .collect()
}

fn waiting_room(spec: &TrafficPolicySpec) -> Option<String> {
    let room = spec.waiting_room.as_ref();
    room.map(|_| "waitingRoom".to_owned())
}

fn retries(spec: &TrafficPolicySpec) -> Option<String> {
    let retries = spec.retries.as_ref();
    let wanted = retries.filter(|retries| retries.attempts > 0);
    wanted.map(|_| "retries".to_owned())
}
