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
    // By the rates as both say them.
    if let Some(ours) = own.burst {
        let theirs = burst_of(hub);
        loose.note(ours > theirs, format!("{at}: burst"));
        hub.burst = Some(theirs.min(ours));
    }
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
    if let Some(ours) = own.on_missing {
        let (ours, theirs) = (patience(ours), patience(hub.on_missing.unwrap_or_default()));
        loose.note(ours > theirs, format!("{at}: onMissing"));
        if ours < theirs {
            hub.on_missing = own.on_missing;
        }
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

fn mode(
    hub: Option<RuleMode>,
    own: Option<RuleMode>,
    at: &str,
    loose: &mut Loose,
) -> Option<RuleMode> {
    match (hub.unwrap_or_default(), own) {
        (RuleMode::Enforce, Some(RuleMode::Shadow)) => {
            loose.note(true, format!("{at}: mode"));
            hub
        }
        (RuleMode::Shadow, Some(RuleMode::Enforce)) => own,
        (_, None)
        | (RuleMode::Enforce, Some(RuleMode::Enforce))
        | (RuleMode::Shadow, Some(RuleMode::Shadow)) => hub,
    }
}

/// Which of two windows is stricter depends on the traffic, so a rule of another window is another rule.
fn breaker(hub: &mut Breaker, own: &Breaker, at: &str, loose: &mut Loose) {
    let window = hub.window();
    if own
        .window
        .as_ref()
        .is_some_and(|ours| millis(ours) != millis(&window))
    {
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
    stance(hub, own, at, loose);
    hub.mode = mode(hub.mode, own.mode, at, loose);
}

/// When a breaker judges, and how it goes on once it is open.
fn stance(hub: &mut Breaker, own: &Breaker, at: &str, loose: &mut Loose) {
    if let Some(ours) = own.min_requests {
        let theirs = hub.min_requests();
        loose.note(ours > theirs, format!("{at}: minRequests"));
        hub.min_requests = Some(theirs.min(ours));
    }
    if let Some(ours) = &own.open_for {
        let theirs = hub.open_for();
        loose.note(millis(ours) < millis(&theirs), format!("{at}: openFor"));
        hub.open_for = Some(most(&theirs, ours).clone());
    }
    if let Some(ours) = own.probes {
        let theirs = hub.probes();
        loose.note(ours < theirs, format!("{at}: probes"));
        hub.probes = Some(theirs.max(ours));
    }
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
    let burst = match own.limit.burst {
        None => hub.limit.burst,
        Some(said) => {
            let known = hot_burst_of(hub);
            loose.note(said > known, format!("{at}: limit.burst"));
            Some(known.min(said))
        }
    };
    let lower = if is_lower(&ours, &theirs) {
        ours
    } else {
        theirs
    };
    hub.limit = HotKeyLimit {
        requests: lower.requests,
        per: lower.per,
        burst,
    };
    hub.hot_at_percent = hub.hot_at_percent.min(own.hot_at_percent);
    hub.mode = mode(hub.mode, own.mode, at, loose);
}
