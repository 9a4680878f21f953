//! What a region adds to what the hub says: tighter, never looser.
//!
//! A rule of the same name takes of each field the tighter value, and a rule of another name is one more that
//! a request must pass. Absent means unsaid: the hub's stands, and where the hub
//! says nothing either, the default of what both say together. What would loosen is left out and named.

mod rules;
#[cfg(test)]
mod tests;

use crds::{
    Concurrency, OpenWhen, Period, RequestClass, Retries, RuleName, Tier, TrafficPolicySpec,
    WaitingRoom,
};

/// What both say together, and fields of the region's that would have loosened.
pub(super) fn tighten(
    hub: &TrafficPolicySpec,
    own: &TrafficPolicySpec,
) -> (TrafficPolicySpec, Vec<String>) {
    let mut loose = Loose(Vec::new());
    let mut spec = hub.clone();
    rules::limits(&mut spec, own, &mut loose);
    rules::breakers(&mut spec, own, &mut loose);
    rules::hot_keys(&mut spec, own, &mut loose);
    classes(&mut spec, own, &mut loose);
    concurrency(&mut spec, own, &mut loose);
    spec.waiting_room = match (&hub.waiting_room, &own.waiting_room) {
        (Some(hub), Some(own)) => Some(waiting_room(hub, own, &mut loose)),
        (hub, own) => hub.clone().or_else(|| own.clone()),
    };
    if let (Some(hub), Some(own)) = (&hub.timeout, &own.timeout) {
        loose.note(millis(own) > millis(hub), "timeout");
    }
    spec.timeout = shorter(hub.timeout.as_ref(), own.timeout.as_ref());
    spec.retries = match (&hub.retries, &own.retries) {
        (Some(hub), Some(own)) => {
            // What is unsaid adds nothing.
            let adds = own.on.iter().any(|on| !hub.on().contains(on));
            loose.note(adds, "retries.on");
            let more = own.attempts.is_some_and(|own| own > hub.attempts());
            loose.note(more, "retries.attempts");
            let percent = own.budget_percent;
            let more = percent.is_some_and(|own| own > hub.budget_percent());
            loose.note(more, "retries.budgetPercent");
            Some(fewer(hub, own))
        }
        // Without a word a connection that was not made is made elsewhere; none at all is tighter.
        (None, Some(own)) if own.attempts == Some(0) => Some(own.clone()),
        (None, Some(_)) => {
            loose.note(true, "retries");
            None
        }
        (hub, None) => hub.clone(),
    };
    let other = hub.jwt.is_some() && own.jwt.is_some() && hub.jwt != own.jwt;
    loose.note(other, "jwt");
    spec.jwt = hub.jwt.clone().or_else(|| own.jwt.clone());
    (spec, loose.0)
}

/// The shorter of two spans, where both are said.
pub(super) fn shorter(one: Option<&Period>, other: Option<&Period>) -> Option<Period> {
    match (one, other) {
        (Some(one), Some(other)) => Some(least(one, other).clone()),
        (one, other) => one.or(other).cloned(),
    }
}

/// Of two, no more retries than either allows; what the second does not say is as the first has it.
pub(super) fn fewer(first: &Retries, second: &Retries) -> Retries {
    let least = |known: i32, said: Option<i32>| said.map(|said| known.min(said));
    let mut fewer = Retries {
        attempts: least(first.attempts(), second.attempts).or(first.attempts),
        on: first.on.clone(),
        budget_percent: least(first.budget_percent(), second.budget_percent)
            .or(first.budget_percent),
    };
    if !second.on.is_empty() {
        let both = first.on().iter().filter(|on| second.on.contains(on));
        let both: Vec<_> = both.copied().collect();
        if both.is_empty() {
            fewer.attempts = Some(0);
        } else {
            fewer.on = both;
        }
    }
    fewer
}

/// Fields that would have loosened, as users write them.
struct Loose(Vec<String>);

impl Loose {
    fn note(&mut self, is_looser: bool, field: impl Into<String>) {
        if is_looser {
            self.0.push(field.into());
        }
    }
}

/// A span in milliseconds; what is no span is refused before anything is tightened.
fn millis(span: &Period) -> i64 {
    span.millis().unwrap_or(0)
}

fn least<'a>(one: &'a Period, other: &'a Period) -> &'a Period {
    if millis(other) < millis(one) {
        other
    } else {
        one
    }
}

fn most<'a>(one: &'a Period, other: &'a Period) -> &'a Period {
    if millis(other) > millis(one) {
        other
    } else {
        one
    }
}

/// Classes may matter less than at the hub, not more. The order of tiers is from the most important on.
fn classes(spec: &mut TrafficPolicySpec, own: &TrafficPolicySpec, loose: &mut Loose) {
    let rest = spec.default_tier.unwrap_or_default();
    if let Some(tier) = own.default_tier {
        loose.note(rank(tier) < rank(rest), "defaultTier");
        spec.default_tier = Some(less_important(rest, tier));
    }
    for class in &own.classes {
        let at = format!("classes {}", class.section_name);
        let known = spec
            .classes
            .iter_mut()
            .find(|known| known.section_name == class.section_name);
        if let Some(known) = known {
            lower_class(known, class, &at, loose);
        } else {
            loose.note(rank(class.tier) < rank(rest), format!("{at}: tier"));
            loose.note(
                class.guaranteed_percent.is_some(),
                format!("{at}: guaranteedPercent"),
            );
            spec.classes.push(RequestClass {
                section_name: class.section_name.clone(),
                tier: less_important(rest, class.tier),
                guaranteed_percent: None,
            });
        }
    }
}

fn lower_class(known: &mut RequestClass, own: &RequestClass, at: &str, loose: &mut Loose) {
    loose.note(rank(own.tier) < rank(known.tier), format!("{at}: tier"));
    known.tier = less_important(known.tier, own.tier);
    if let Some(percent) = own.guaranteed_percent {
        let hub = known.guaranteed_percent;
        let is_more = hub.is_none_or(|hub| percent > hub);
        loose.note(is_more, format!("{at}: guaranteedPercent"));
        known.guaranteed_percent = hub.map(|hub| hub.min(percent));
    }
}

fn less_important(one: Tier, other: Tier) -> Tier {
    if rank(other) > rank(one) { other } else { one }
}

fn rank(tier: Tier) -> u8 {
    match tier {
        Tier::Core => 0,
        Tier::Important => 1,
        Tier::General => 2,
        Tier::Ancillary => 3,
    }
}

/// A number and what is found by itself cannot be compared: there the hub's stands.
fn concurrency(spec: &mut TrafficPolicySpec, own: &TrafficPolicySpec, loose: &mut Loose) {
    let Some(own) = &own.concurrency else {
        return;
    };
    let Some(hub) = &spec.concurrency else {
        spec.concurrency = Some(own.clone());
        return;
    };
    match (Concurrency::of(hub), Concurrency::of(own)) {
        (Some(Concurrency::Max(hub)), Some(Concurrency::Max(max))) if max <= hub => {
            spec.concurrency = Some(own.clone());
        }
        (Some(Concurrency::Adaptive), Some(Concurrency::Adaptive)) => {}
        _ => loose.note(true, "concurrency"),
    }
}

fn waiting_room(hub: &WaitingRoom, own: &WaitingRoom, loose: &mut Loose) -> WaitingRoom {
    if hub.scope != own.scope {
        loose.note(true, "waitingRoom: scope");
        return hub.clone();
    }
    loose.note(
        own.active_users > hub.active_users,
        "waitingRoom: activeUsers",
    );
    loose.note(
        own.new_per_minute > hub.new_per_minute,
        "waitingRoom: newPerMinute",
    );
    // Who is in for longer keeps others out for longer.
    let session = own.session.as_ref().map(|ours| {
        let theirs = hub.session();
        loose.note(millis(ours) < millis(&theirs), "waitingRoom: session");
        most(&theirs, ours).clone()
    });
    WaitingRoom {
        scope: hub.scope,
        active_users: hub.active_users.min(own.active_users),
        new_per_minute: hub.new_per_minute.min(own.new_per_minute),
        session: session.or_else(|| hub.session.clone()),
        open_when: match (&hub.open_when, &own.open_when) {
            (Some(hub), Some(own)) => Some(open_when(hub, own, loose)),
            (hub, own) => hub.clone().or_else(|| own.clone()),
        },
    }
}

fn open_when(hub: &OpenWhen, own: &OpenWhen, loose: &mut Loose) -> OpenWhen {
    if let (Some(hub), Some(own)) = (&hub.p99_over, &own.p99_over) {
        loose.note(millis(own) > millis(hub), "waitingRoom: openWhen.p99Over");
    }
    if let (Some(hub), Some(own)) = (hub.error_percent, own.error_percent) {
        loose.note(own > hub, "waitingRoom: openWhen.errorPercent");
    }
    let percents = hub.error_percent.into_iter().chain(own.error_percent);
    OpenWhen {
        p99_over: shorter(hub.p99_over.as_ref(), own.p99_over.as_ref()),
        error_percent: percents.min(),
    }
}

/// Whether a rule of another kind has the name.
fn is_of_another_kind(spec: &TrafficPolicySpec, name: &RuleName, kind: &str) -> bool {
    (kind != "rateLimits" && spec.rate_limits.iter().any(|rule| rule.name == *name))
        || (kind != "breakers" && spec.breakers.iter().any(|rule| rule.name == *name))
        || (kind != "hotKeys" && spec.hot_keys.iter().any(|rule| rule.name == *name))
}
