//! That nothing is ever loosened, over many pairs of specs.

use crds::{Breaker, Concurrency, HotKey, OnMissing, RateLimit, RuleMode, TrafficPolicySpec, Trip};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::translate::{burst_of, hot_burst_of};
use super::{millis, rank, tighten};

fn span() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["1s", "2s", "5s", "1m"])
}

fn mode() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(prop::sample::select(vec!["Enforce", "Shadow"]))
}

/// Sets a field only sometimes.
fn maybe(object: &mut Value, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object[field] = value.into();
    }
}

fn limit() -> impl Strategy<Value = Value> {
    (
        prop::sample::select(vec!["a", "b", "c"]),
        prop::sample::select(vec!["Instance", "Cluster"]),
        (1..50, span()),
        prop::option::of(1..80),
        mode(),
        prop::option::of(span()),
        prop::option::of(span()),
        (
            prop::bool::ANY,
            prop::option::of(prop::sample::select(vec!["Refuse", "Share", "Skip"])),
        ),
    )
        .prop_map(
            |(name, scope, (requests, per), burst, mode, wait, warm, (is_keyed, missing))| {
                let mut rule = json!({"name": name, "scope": scope,
                "rate": {"requests": requests, "per": per}});
                maybe(&mut rule, "mode", mode);
                maybe(&mut rule, "burst", burst);
                maybe(
                    &mut rule,
                    "overflow",
                    wait.map(|wait| json!({"queue": {"maxWait": wait}})),
                );
                if is_keyed {
                    rule["key"] = json!({"query": "venue"});
                    maybe(&mut rule, "onMissing", missing);
                } else {
                    maybe(&mut rule, "warmUp", warm);
                }
                rule
            },
        )
}

fn breaker() -> impl Strategy<Value = Value> {
    let trip = prop_oneof![
        (span(), 1..100)
            .prop_map(|(over, percent)| json!({"slowCalls": {"over": over, "percent": percent}})),
        (1..100).prop_map(|percent| json!({"errors": {"percent": percent}})),
        (1..100).prop_map(|count| json!({"errorCount": {"count": count}})),
    ];
    (
        prop::sample::select(vec!["c", "d"]),
        trip,
        prop::option::of(prop::sample::select(vec!["1s", "10s"])),
        prop::option::of(1..50),
        prop::option::of(span()),
        prop::option::of(1..9),
        mode(),
    )
        .prop_map(|(name, trip, window, least, open, probes, mode)| {
            let mut rule = json!({"name": name});
            maybe(&mut rule, "window", window);
            maybe(&mut rule, "minRequests", least);
            maybe(&mut rule, "openFor", open);
            maybe(&mut rule, "probes", probes);
            maybe(&mut rule, "mode", mode);
            for (field, value) in trip.as_object().unwrap() {
                rule[field] = value.clone();
            }
            rule
        })
}

fn hot_key() -> impl Strategy<Value = Value> {
    (
        prop::sample::select(vec!["d", "e"]),
        prop::sample::select(vec!["venue", "day"]),
        1..100,
        (1..50, span()),
        prop::option::of(1..80),
        mode(),
    )
        .prop_map(|(name, key, percent, (requests, per), burst, mode)| {
            let mut limit = json!({"requests": requests, "per": per});
            maybe(&mut limit, "burst", burst);
            let mut rule = json!({"name": name, "key": {"query": key}, "hotAtPercent": percent,
                "limit": limit});
            maybe(&mut rule, "mode", mode);
            rule
        })
}

/// Of rules with one name the first.
fn unique(rules: Vec<Value>, taken: &mut Vec<Value>) -> Vec<Value> {
    let mut kept = Vec::new();
    for rule in rules {
        if !taken.contains(&rule["name"]) {
            taken.push(rule["name"].clone());
            kept.push(rule);
        }
    }
    kept
}

fn retries() -> impl Strategy<Value = Value> {
    let on = prop::sample::select(vec![
        json!(["ConnectFailure", "Reset"]),
        json!(["Refused", "Reset"]),
    ]);
    (
        prop::option::of(0..3),
        prop::option::of(0..100),
        prop::option::of(on),
    )
        .prop_map(|(attempts, percent, on)| {
            let mut rule = json!({});
            maybe(&mut rule, "attempts", attempts);
            maybe(&mut rule, "budgetPercent", percent);
            maybe(&mut rule, "on", on);
            rule
        })
}

fn room() -> impl Strategy<Value = Value> {
    let maybe_span = || prop::option::of(span());
    (1..9, 1..9, maybe_span(), maybe_span()).prop_map(|(users, new, session, over)| {
        let mut room = json!({"scope": "Region", "activeUsers": users, "newPerMinute": new});
        maybe(&mut room, "session", session);
        let when = over.map(|over| json!({"p99Over": over}));
        maybe(&mut room, "openWhen", when);
        room
    })
}

fn spec() -> impl Strategy<Value = TrafficPolicySpec> {
    let tier = || prop::sample::select(vec!["Core", "Important", "General", "Ancillary"]);
    let concurrency = prop_oneof![
        Just(json!({"adaptive": {}})),
        (1..100).prop_map(|max| json!({"max": max})),
    ];
    (
        prop::collection::vec(limit(), 0..3),
        prop::collection::vec(breaker(), 0..3),
        prop::collection::vec(hot_key(), 0..2),
        prop::option::of(concurrency),
        prop::option::of(span()),
        prop::option::of(retries()),
        (
            prop::option::of(tier()),
            prop::option::of((tier(), prop::option::of(1..50))),
        ),
        prop::option::of(room()),
    )
        .prop_map(
            |(limits, breakers, hot_keys, concurrency, timeout, retries, tiers, room)| {
                let mut taken = Vec::new();
                let mut all = json!({"targetRefs": [],
                "rateLimits": unique(limits, &mut taken),
                "breakers": unique(breakers, &mut taken),
                "hotKeys": unique(hot_keys, &mut taken)});
                maybe(&mut all, "concurrency", concurrency);
                maybe(&mut all, "timeout", timeout);
                maybe(&mut all, "retries", retries);
                maybe(&mut all, "defaultTier", tiers.0);
                maybe(
                    &mut all,
                    "classes",
                    tiers.1.map(|(tier, percent)| {
                        let mut class = json!({"sectionName": "show", "tier": tier});
                        maybe(&mut class, "guaranteedPercent", percent);
                        json!([class])
                    }),
                );
                maybe(&mut all, "waitingRoom", room);
                serde_json::from_value(all).unwrap()
            },
        )
}

fn is_stricter(mode: Option<RuleMode>, than: Option<RuleMode>) -> bool {
    mode.unwrap_or_default() == RuleMode::Enforce || than.unwrap_or_default() == RuleMode::Shadow
}

/// Requests in a thousand days, for comparing rates without fractions.
fn per_long(requests: i64, per: &crds::Period) -> i64 {
    requests * 86_400_000_000 / millis(per)
}

fn limit_holds(limit: &RateLimit, hub: &RateLimit) -> bool {
    let wait = |rule: &RateLimit| {
        rule.overflow
            .as_ref()
            .map_or(0, |over| millis(&over.queue.max_wait))
    };
    let patience = |missing: Option<OnMissing>| match missing.unwrap_or_default() {
        OnMissing::Refuse => 0,
        OnMissing::Share => 1,
        OnMissing::Skip => 2,
    };
    let warm = |rule: &RateLimit| rule.warm_up.as_ref().map_or(0, millis);
    limit.scope == hub.scope
        && limit.key == hub.key
        && per_long(limit.rate.requests, &limit.rate.per)
            <= per_long(hub.rate.requests, &hub.rate.per)
        && burst_of(limit) <= burst_of(hub)
        && wait(limit) <= wait(hub)
        && warm(limit) >= warm(hub)
        && patience(limit.on_missing) <= patience(hub.on_missing)
        && is_stricter(limit.mode, hub.mode)
}

fn breaker_holds(breaker: &Breaker, hub: &Breaker) -> bool {
    let trips = match (Trip::of(breaker), Trip::of(hub)) {
        (Some(Trip::SlowCalls(one)), Some(Trip::SlowCalls(hub))) => {
            millis(&one.over) <= millis(&hub.over) && one.percent <= hub.percent
        }
        (Some(Trip::Errors(one)), Some(Trip::Errors(hub))) => one.percent <= hub.percent,
        (Some(Trip::ErrorCount(one)), Some(Trip::ErrorCount(hub))) => one.count <= hub.count,
        _ => false,
    };
    trips
        && breaker.window() == hub.window()
        && breaker.min_requests() <= hub.min_requests()
        && millis(&breaker.open_for()) >= millis(&hub.open_for())
        && breaker.probes() >= hub.probes()
        && is_stricter(breaker.mode, hub.mode)
}

fn hot_key_holds(rule: &HotKey, hub: &HotKey) -> bool {
    rule.key == hub.key
        && rule.hot_at_percent <= hub.hot_at_percent
        && per_long(rule.limit.requests, &rule.limit.per)
            <= per_long(hub.limit.requests, &hub.limit.per)
        && hot_burst_of(rule) <= hot_burst_of(hub)
        && is_stricter(rule.mode, hub.mode)
}

/// Whether all that the hub says holds in a spec at least as strictly.
fn holds(spec: &TrafficPolicySpec, hub: &TrafficPolicySpec) -> Result<(), TestCaseError> {
    for rule in &hub.rate_limits {
        let found = spec.rate_limits.iter().find(|one| one.name == rule.name);
        prop_assert!(
            found.is_some_and(|one| limit_holds(one, rule)),
            "{found:?} {rule:?}"
        );
    }
    for rule in &hub.breakers {
        let found = spec.breakers.iter().find(|one| one.name == rule.name);
        prop_assert!(
            found.is_some_and(|one| breaker_holds(one, rule)),
            "{found:?} {rule:?}"
        );
    }
    for rule in &hub.hot_keys {
        let found = spec.hot_keys.iter().find(|one| one.name == rule.name);
        prop_assert!(
            found.is_some_and(|one| hot_key_holds(one, rule)),
            "{found:?} {rule:?}"
        );
    }
    let max = |spec: &TrafficPolicySpec| spec.concurrency.as_ref().and_then(Concurrency::of);
    match (max(spec), max(hub)) {
        (Some(Concurrency::Max(one)), Some(Concurrency::Max(hub))) => prop_assert!(one <= hub),
        (one, Some(hub)) => prop_assert_eq!(one, Some(hub)),
        (_, None) => {}
    }
    if let Some(hub) = &hub.timeout {
        prop_assert!(
            spec.timeout
                .as_ref()
                .is_some_and(|one| millis(one) <= millis(hub))
        );
    }
    let attempts =
        |spec: &TrafficPolicySpec| spec.retries.as_ref().map_or(0, crds::Retries::attempts);
    prop_assert!(attempts(spec) <= attempts(hub));
    let tier = |spec: &TrafficPolicySpec| {
        let class = spec
            .classes
            .iter()
            .find(|class| class.section_name == "show");
        let rest = spec.default_tier.unwrap_or_default();
        (
            rank(class.map_or(rest, |class| class.tier)),
            class
                .and_then(|class| class.guaranteed_percent)
                .unwrap_or(0),
        )
    };
    prop_assert!(tier(spec).0 >= tier(hub).0, "no more important");
    prop_assert!(tier(spec).1 <= tier(hub).1, "no more guaranteed");
    if let Some(hub) = &hub.waiting_room {
        let one = spec.waiting_room.as_ref().unwrap();
        prop_assert!(one.active_users <= hub.active_users);
        prop_assert!(one.new_per_minute <= hub.new_per_minute);
        prop_assert!(millis(&one.session()) >= millis(&hub.session()));
        if let Some(over) = hub
            .open_when
            .as_ref()
            .and_then(|when| when.p99_over.as_ref())
        {
            let ours = one
                .open_when
                .as_ref()
                .and_then(|when| when.p99_over.as_ref());
            prop_assert!(ours.is_some_and(|ours| millis(ours) <= millis(over)));
        }
    }
    Ok(())
}

fn parsed(value: &Value) -> TrafficPolicySpec {
    let mut all = json!({"targetRefs": []});
    let fields = value.as_object().unwrap().clone();
    all.as_object_mut().unwrap().extend(fields);
    serde_json::from_value(all).unwrap()
}

#[test]
fn what_a_region_does_not_say_is_as_the_hub_says_it() {
    let hub = parsed(&json!({
        "rateLimits": [{"name": "per-citizen", "scope": "Region", "key": {"query": "citizen"}, "burst": 50,
            "mode": "Shadow", "onMissing": "Skip", "rate": {"requests": 10, "per": "1s"}}],
        "breakers": [{"name": "slow", "slowCalls": {"over": "1s", "percent": 50}, "window": "1m",
            "minRequests": 500, "openFor": "1s", "probes": 1, "mode": "Shadow"}],
        "hotKeys": [{"name": "venue", "key": {"query": "venue"}, "hotAtPercent": 20, "mode": "Shadow",
            "limit": {"requests": 10, "per": "1s", "burst": 100}}],
        "waitingRoom": {"scope": "Region", "activeUsers": 100, "newPerMinute": 10, "session": "1m"},
        "retries": {"attempts": 3, "on": ["Reset", "GatewayError"], "budgetPercent": 50},
    }));
    let own = parsed(&json!({
        "rateLimits": [{"name": "per-citizen", "scope": "Region", "key": {"query": "citizen"},
            "rate": {"requests": 5, "per": "1s"}}],
        "breakers": [{"name": "slow", "slowCalls": {"over": "500ms", "percent": 50}}],
        "hotKeys": [{"name": "venue", "key": {"query": "venue"}, "hotAtPercent": 10,
            "limit": {"requests": 10, "per": "1s"}}],
        "waitingRoom": {"scope": "Region", "activeUsers": 50, "newPerMinute": 10},
        "retries": {"attempts": 2},
    }));
    let (both, loose) = tighten(&hub, &own);
    assert_eq!(loose, [""; 0]);
    let mut wanted = hub;
    wanted.rate_limits[0].rate.requests = 5;
    wanted.breakers[0].slow_calls.as_mut().unwrap().over = crds::Period("500ms".into());
    wanted.hot_keys[0].hot_at_percent = 10;
    wanted.waiting_room.as_mut().unwrap().active_users = 50;
    wanted.retries.as_mut().unwrap().attempts = Some(2);
    assert_eq!(both, wanted);
}

#[test]
fn what_a_region_says_counts_even_where_it_is_a_default() {
    let hub = parsed(&json!({
        "rateLimits": [{"name": "each", "scope": "Cluster", "key": {"query": "citizen"}, "onMissing": "Refuse",
            "rate": {"requests": 10, "per": "1s"}}],
        "breakers": [{"name": "slow", "errors": {"percent": 50}, "minRequests": 500, "mode": "Shadow"}],
    }));
    let own = parsed(&json!({
        "rateLimits": [{"name": "each", "scope": "Cluster", "key": {"query": "citizen"}, "onMissing": "Share",
            "rate": {"requests": 10, "per": "1s"}, "mode": "Shadow"}],
        "breakers": [{"name": "slow", "errors": {"percent": 50}, "minRequests": 20, "mode": "Enforce"}],
    }));
    let (both, loose) = tighten(&hub, &own);
    assert_eq!(
        loose,
        ["rateLimits each: onMissing", "rateLimits each: mode"]
    );
    assert_eq!(both.rate_limits, hub.rate_limits);
    assert_eq!(both.breakers, own.breakers);
}

proptest! {
    #[test]
    fn whatever_a_region_writes_all_that_the_hub_says_holds(hub in spec(), own in spec()) {
        let (both, _) = tighten(&hub, &own);
        holds(&both, &hub)?;
    }

    #[test]
    fn what_tightens_and_is_not_complained_about_holds_as_well(hub in spec(), own in spec()) {
        let (both, loose) = tighten(&hub, &own);
        for rule in &own.rate_limits {
            let at = format!("rateLimits {}", rule.name);
            if !loose.iter().any(|field| field.starts_with(&at)) {
                let found = both.rate_limits.iter().find(|one| one.name == rule.name).unwrap();
                let rate = |rule: &RateLimit| per_long(rule.rate.requests, &rule.rate.per);
                prop_assert!(rate(found) <= rate(rule), "{found:?} {rule:?}");
                prop_assert!(rule.mode.is_none() || is_stricter(found.mode, rule.mode));
            }
        }
        if let (Some(own), Some(both)) = (&own.timeout, &both.timeout) {
            prop_assert!(millis(both) <= millis(own));
        }
    }

    #[test]
    fn who_repeats_what_the_hub_says_changes_nothing_and_hears_no_complaint(hub in spec()) {
        // Bursts are written out, which says the same.
        let (once, loose) = tighten(&hub, &hub);
        let guaranteed = loose.iter().all(|field| field.contains("guaranteedPercent"));
        prop_assert!(loose.is_empty() || guaranteed, "{loose:?}");
        let (twice, _) = tighten(&once, &hub);
        prop_assert_eq!(once, twice);
    }
}
