//! Rules of the same name, field by field.

use crds::{
    Breaker, ErrorCount, ErrorShare, HotKey, HotKeyLimit, OnMissing, Overflow, OverflowQueue,
    RateLimit, RuleMode, RuleRate, SlowCalls, TrafficPolicySpec, Trip,
};

use super::super::translate::{burst_of, hot_burst_of};
use super::{Loose, is_of_another_kind, least, millis, most};

/// A rule that counts something else than the hub's of the same name cannot tighten it.
const OTHER: &str =
    "another rule than the hub's of that name; give it a name of its own, then both count";

pub(super) fn limits(spec: &mut TrafficPolicySpec, own: &TrafficPolicySpec, loose: &mut Loose) {
    for rule in &own.rate_limits {
        let at = format!("rateLimits {}", rule.name);
        if is_of_another_kind(spec, &rule.name, "rateLimits") {
            loose.note(true, format!("{at} ({OTHER})"));
        } else if let Some(hub) = spec
            .rate_limits
            .iter_mut()
            .find(|hub| hub.name == rule.name)
        {
            limit(hub, rule, &at, loose);
        } else {
            spec.rate_limits.push(rule.clone());
        }
    }
}

pub(super) fn breakers(spec: &mut TrafficPolicySpec, own: &TrafficPolicySpec, loose: &mut Loose) {
    for rule in &own.breakers {
        let at = format!("breakers {}", rule.name);
        if is_of_another_kind(spec, &rule.name, "breakers") {
            loose.note(true, format!("{at} ({OTHER})"));
        } else if let Some(hub) = spec.breakers.iter_mut().find(|hub| hub.name == rule.name) {
            breaker(hub, rule, &at, loose);
        } else {
            spec.breakers.push(rule.clone());
        }
    }
}

pub(super) fn hot_keys(spec: &mut TrafficPolicySpec, own: &TrafficPolicySpec, loose: &mut Loose) {
    for rule in &own.hot_keys {
        let at = format!("hotKeys {}", rule.name);
        if is_of_another_kind(spec, &rule.name, "hotKeys") {
            loose.note(true, format!("{at} ({OTHER})"));
        } else if let Some(hub) = spec.hot_keys.iter_mut().find(|hub| hub.name == rule.name) {
            hot_key(hub, rule, &at, loose);
        } else {
            spec.hot_keys.push(rule.clone());
        }
    }
}

fn limit(hub: &mut RateLimit, own: &RateLimit, at: &str, loose: &mut Loose) {
    if hub.scope != own.scope || hub.key != own.key || hub.key_parts != own.key_parts {
        loose.note(true, format!("{at} ({OTHER})"));
        return;
    }
    let bursts = (burst_of(hub), burst_of(own));
    loose.note(
        own.burst.is_some() && bursts.1 > bursts.0,
        format!("{at}: burst"),
    );
    hub.burst = Some(bursts.0.min(bursts.1));
    loose.note(is_lower(&hub.rate, &own.rate), format!("{at}: rate"));
    if is_lower(&own.rate, &hub.rate) {
        hub.rate = own.rate.clone();
    }
    let wait = |rule: &RateLimit| {
        rule.overflow
            .as_ref()
            .map(|over| over.queue.max_wait.clone())
    };
    match (wait(hub), wait(own)) {
        (None, Some(_)) => loose.note(true, format!("{at}: overflow")),
        (Some(theirs), Some(ours)) => {
            let is_longer = millis(&ours) > millis(&theirs);
            loose.note(is_longer, format!("{at}: overflow.queue.maxWait"));
            let max_wait = least(&theirs, &ours).clone();
            hub.overflow = Some(Overflow {
                queue: OverflowQueue { max_wait },
            });
        }
        (_, None) => {}
    }
    if let (Some(theirs), Some(ours)) = (&hub.warm_up, &own.warm_up) {
        loose.note(millis(ours) < millis(theirs), format!("{at}: warmUp"));
    }
    hub.warm_up = match (&hub.warm_up, &own.warm_up) {
        (Some(theirs), Some(ours)) => Some(most(theirs, ours).clone()),
        (theirs, ours) => theirs.clone().or_else(|| ours.clone()),
    };
    // `Share` may be the default and unsaid, so it is no complaint.
    let is_said = own.on_missing == OnMissing::Skip;
    loose.note(
        is_said && patience(own.on_missing) > patience(hub.on_missing),
        format!("{at}: onMissing"),
    );
    if patience(own.on_missing) < patience(hub.on_missing) {
        hub.on_missing = own.on_missing;
    }
    hub.mode = mode(hub.mode, own.mode, at, loose);
}

/// From the strictest on.
fn patience(missing: OnMissing) -> u8 {
    match missing {
        OnMissing::Refuse => 0,
        OnMissing::Share => 1,
        OnMissing::Skip => 2,
    }
}

/// Whether one lets less pass than the other in the long run.
fn is_lower(one: &RuleRate, other: &RuleRate) -> bool {
    // Ten million requests times a day in milliseconds stay far below 128 bits.
    let (one_per, other_per) = (i128::from(millis(&one.per)), i128::from(millis(&other.per)));
    i128::from(one.requests) * other_per < i128::from(other.requests) * one_per
}

fn mode(hub: RuleMode, own: RuleMode, at: &str, loose: &mut Loose) -> RuleMode {
    loose.note(
        hub == RuleMode::Enforce && own == RuleMode::Shadow,
        format!("{at}: mode"),
    );
    match (hub, own) {
        (RuleMode::Shadow, RuleMode::Shadow) => RuleMode::Shadow,
        (RuleMode::Enforce, _) | (_, RuleMode::Enforce) => RuleMode::Enforce,
    }
}

/// Which of two windows is stricter depends on the traffic, so a rule of another window is another rule.
fn breaker(hub: &mut Breaker, own: &Breaker, at: &str, loose: &mut Loose) {
    if millis(&hub.window) != millis(&own.window) {
        loose.note(true, format!("{at} ({OTHER})"));
        return;
    }
    match (Trip::of(hub), Trip::of(own)) {
        (Some(Trip::SlowCalls(theirs)), Some(Trip::SlowCalls(ours))) => {
            loose.note(
                millis(&ours.over) > millis(&theirs.over),
                format!("{at}: over"),
            );
            loose.note(ours.percent > theirs.percent, format!("{at}: percent"));
            hub.slow_calls = Some(SlowCalls {
                over: least(&theirs.over, &ours.over).clone(),
                percent: theirs.percent.min(ours.percent),
            });
        }
        (Some(Trip::Errors(theirs)), Some(Trip::Errors(ours))) => {
            loose.note(ours.percent > theirs.percent, format!("{at}: percent"));
            hub.errors = Some(ErrorShare {
                percent: theirs.percent.min(ours.percent),
            });
        }
        (Some(Trip::ErrorCount(theirs)), Some(Trip::ErrorCount(ours))) => {
            loose.note(ours.count > theirs.count, format!("{at}: count"));
            hub.error_count = Some(ErrorCount {
                count: theirs.count.min(ours.count),
            });
        }
        _ => {
            loose.note(true, format!("{at} ({OTHER})"));
            return;
        }
    }
    loose.note(
        own.min_requests > hub.min_requests,
        format!("{at}: minRequests"),
    );
    hub.min_requests = hub.min_requests.min(own.min_requests);
    loose.note(
        millis(&own.open_for) < millis(&hub.open_for),
        format!("{at}: openFor"),
    );
    hub.open_for = most(&hub.open_for, &own.open_for).clone();
    loose.note(own.probes < hub.probes, format!("{at}: probes"));
    hub.probes = hub.probes.max(own.probes);
    hub.mode = mode(hub.mode, own.mode, at, loose);
}

fn hot_key(hub: &mut HotKey, own: &HotKey, at: &str, loose: &mut Loose) {
    if hub.key != own.key || hub.key_parts != own.key_parts {
        loose.note(true, format!("{at} ({OTHER})"));
        return;
    }
    loose.note(
        own.hot_at_percent > hub.hot_at_percent,
        format!("{at}: hotAtPercent"),
    );
    let rate = |limit: &HotKeyLimit| RuleRate {
        requests: limit.requests,
        per: limit.per.clone(),
    };
    let (theirs, ours) = (rate(&hub.limit), rate(&own.limit));
    loose.note(is_lower(&theirs, &ours), format!("{at}: limit"));
    let bursts = (hot_burst_of(hub), hot_burst_of(own));
    let is_more = own.limit.burst.is_some() && bursts.1 > bursts.0;
    loose.note(is_more, format!("{at}: limit.burst"));
    let lower = if is_lower(&ours, &theirs) {
        ours
    } else {
        theirs
    };
    hub.limit = HotKeyLimit {
        requests: lower.requests,
        per: lower.per,
        burst: Some(bursts.0.min(bursts.1)),
    };
    hub.hot_at_percent = hub.hot_at_percent.min(own.hot_at_percent);
    hub.mode = mode(hub.mode, own.mode, at, loose);
}
