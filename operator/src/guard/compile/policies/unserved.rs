//! What a policy may say and guards do not do yet. It is left out of the configuration and reported, so that
//! nobody relies on it.

use crds::{HotKey, KeyPart, KeyPartSpec, LimitScope, RateLimit, TrafficPolicySpec};

/// Fields that are not served, as a user writes them.
pub(super) fn of(spec: &TrafficPolicySpec) -> Vec<String> {
    let mut fields = keys_of_claims(spec);
    fields.extend(waiting_room(spec));
    fields.extend(retries(spec));
    fields
}

/// Rules that count over the province, which a cluster alone cannot.
pub(super) fn province_wide(spec: &TrafficPolicySpec) -> Vec<String> {
    let limits = spec.rate_limits.iter();
    limits
        .filter(|limit| limit.scope == LimitScope::Province)
        .map(|limit| format!("rateLimits {}", limit.name))
        .collect()
}

/// Whether the parts of a key are in the request itself, and not in a token that has to be verified.
pub(super) fn is_key_served(key: Option<&KeyPartSpec>, parts: &[KeyPartSpec]) -> bool {
    let mut parts = key.into_iter().chain(parts);
    !parts.any(|part| matches!(KeyPart::of(part), Some(KeyPart::JwtClaim(_))))
}

/// Tokens are not verified yet, and a claim of one that is not would be whatever the client likes.
fn keys_of_claims(spec: &TrafficPolicySpec) -> Vec<String> {
    let limit = |rule: &RateLimit| {
        (!is_key_served(rule.key.as_ref(), &rule.key_parts))
            .then(|| format!("rateLimits {} (its key is a jwtClaim)", rule.name))
    };
    let hot_key = |rule: &HotKey| {
        (!is_key_served(rule.key.as_ref(), &rule.key_parts))
            .then(|| format!("hotKeys {} (its key is a jwtClaim)", rule.name))
    };
    let limits = spec.rate_limits.iter().filter_map(limit);
    limits
        .chain(spec.hot_keys.iter().filter_map(hot_key))
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
