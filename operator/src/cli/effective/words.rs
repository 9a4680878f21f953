//! What a rule of a policy says, as people say it.

use crds::{
    Breaker, Concurrency, ConcurrencySpec, HotKey, KeyPart, KeyPartSpec, LimitScope, OnMissing,
    RateLimit, RequestClass, Retries, RuleMode, Trip, WaitingRoom,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::table::cut;
use crate::guard::compile::RuleInForce;

/// The name of a rule takes this much, so that its row fits into a hundred columns; `-o json` has all of it.
const NAME: usize = 24;

/// Where a policy is looked at.
#[derive(Clone, Copy)]
pub(super) enum Seen {
    /// At the hub, where a rate is the whole one.
    AtHub,
    /// In a cluster, where it is what this cluster has of it.
    InCluster,
}

/// The rule as messages of statuses name it.
pub(super) fn name(rule: &RuleInForce, columns: Option<usize>) -> String {
    if rule.name.is_empty() {
        rule.field.clone()
    } else {
        format!("{} {}", rule.field, cut(&rule.name, NAME, columns))
    }
}

/// What it says. What this version does not know is shown as it is written.
pub(super) fn of(rule: &RuleInForce, seen: Seen) -> String {
    let value = &rule.value;
    let said = match rule.field.as_str() {
        "rateLimits" => read(value).map(|rule| limit(&rule, seen)),
        "hotKeys" => read(value).map(|rule| hot_key(&rule)),
        "breakers" => read(value).and_then(|rule| breaker(&rule)),
        "concurrency" => read(value).and_then(|spec| concurrency(&spec)),
        "classes" => read(value).map(|class| class_of(&class)),
        "retries" => read(value).map(|rule| retries(&rule)),
        "waitingRoom" => read(value).map(|room| waiting_room(&room)),
        "jwt" => value["issuer"]
            .as_str()
            .map(|issuer| format!("tokens of {issuer}")),
        _ => value.as_str().map(str::to_owned),
    };
    said.unwrap_or_else(|| value.to_string())
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

fn limit(rule: &RateLimit, seen: Seen) -> String {
    let key = key(rule.key.as_ref(), &rule.key_parts);
    let missing = match rule.on_missing.unwrap_or_default() {
        OnMissing::Refuse => ", refused without a key",
        OnMissing::Share => "",
        OnMissing::Skip => ", not counted without a key",
    };
    let scope = match (rule.scope, seen) {
        (LimitScope::Instance, _) => " at each guard",
        (LimitScope::Cluster, _) => " in the cluster",
        (LimitScope::Region, Seen::AtHub) => " in the Region",
        (LimitScope::Region, Seen::InCluster) => " in the cluster, of the Region's rate",
        (LimitScope::Province, Seen::AtHub) => " in the province",
        (LimitScope::Province, Seen::InCluster) => " in the cluster, of the province's rate",
    };
    let (burst, queue, warm_up) = (rule.burst, rule.overflow.as_ref(), rule.warm_up.as_ref());
    let said = [
        Some(format!("{} per {}", rule.rate.requests, rule.rate.per.0)),
        key.as_ref().map(|key| format!(" of each {key}")),
        Some(scope.to_owned()),
        burst.map(|burst| format!(", burst {burst}")),
        queue.map(|over| format!(", more wait up to {}", over.queue.max_wait.0)),
        warm_up.map(|span| format!(", warming up for {}", span.0)),
        key.map(|_| missing.to_owned()),
        Some(shadow(rule.mode.unwrap_or_default()).to_owned()),
    ];
    said.into_iter().flatten().collect()
}

fn hot_key(rule: &HotKey) -> String {
    let key = key(rule.key.as_ref(), &rule.key_parts).unwrap_or_default();
    let (percent, limit) = (rule.hot_at_percent, &rule.limit);
    let burst = limit
        .burst
        .map_or_else(String::new, |burst| format!(", burst {burst}"));
    format!(
        "each {key} with {percent} % of the requests: {} per {}{burst}{}",
        limit.requests,
        limit.per.0,
        shadow(rule.mode.unwrap_or_default())
    )
}

fn breaker(rule: &Breaker) -> Option<String> {
    let when = match Trip::of(rule)? {
        Trip::SlowCalls(slow) => format!("{} % take over {}", slow.percent, slow.over.0),
        Trip::Errors(share) => format!("{} % fail", share.percent),
        Trip::ErrorCount(errors) => format!("{} fail", errors.count),
    };
    Some(format!(
        "opens for {} when {when} within {}, of at least {}; {} probes{}",
        rule.open_for().0,
        rule.window().0,
        rule.min_requests(),
        rule.probes(),
        shadow(rule.mode.unwrap_or_default())
    ))
}

fn concurrency(spec: &ConcurrencySpec) -> Option<String> {
    Some(match Concurrency::of(spec)? {
        Concurrency::Adaptive => "as many as the target is found to stand".to_owned(),
        Concurrency::Max(max) => format!("{max} at each guard"),
    })
}

fn class_of(class: &RequestClass) -> String {
    let percent = class.guaranteed_percent;
    let share = percent.map(|percent| format!(", {percent} % of the concurrency guaranteed"));
    format!("tier {:?}{}", class.tier, share.unwrap_or_default())
}

fn retries(rule: &Retries) -> String {
    let on: Vec<String> = rule.on().iter().map(|on| format!("{on:?}")).collect();
    format!(
        "{} after {}, for at most {} % of the requests",
        rule.attempts(),
        on.join(", "),
        rule.budget_percent()
    )
}

fn waiting_room(room: &WaitingRoom) -> String {
    let when = room.open_when.as_ref();
    let over = when.and_then(|when| when.p99_over.as_ref());
    let percent = when.and_then(|when| when.error_percent);
    let said = [
        Some(format!(
            "{} in at one time, {} new a minute, in for {}",
            room.active_users,
            room.new_per_minute,
            room.session().0
        )),
        over.map(|over| format!(", opens when 1 % take over {}", over.0)),
        percent.map(|percent| format!(", opens when {percent} % fail")),
    ];
    said.into_iter().flatten().collect()
}

fn shadow(mode: RuleMode) -> &'static str {
    match mode {
        RuleMode::Enforce => "",
        RuleMode::Shadow => "; Shadow: only counted",
    }
}

fn key(key: Option<&KeyPartSpec>, parts: &[KeyPartSpec]) -> Option<String> {
    let part = |spec: &KeyPartSpec| match KeyPart::of(spec) {
        Some(KeyPart::Header(name)) => format!("header {name}"),
        Some(KeyPart::Query(name)) => format!("query {name}"),
        Some(KeyPart::Cookie(name)) => format!("cookie {name}"),
        Some(KeyPart::JwtClaim(name)) => format!("claim {name}"),
        Some(KeyPart::ClientAddress) => "client address".to_owned(),
        None => "unclear key".to_owned(),
    };
    let parts: Vec<String> = key.into_iter().chain(parts).map(part).collect();
    (!parts.is_empty()).then(|| parts.join(" with "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::guard::compile::rules_of;

    #[test]
    fn every_rule_is_said_in_one_line() {
        let spec = serde_json::from_value(json!({
            "targetRefs": [], "defaultTier": "Important", "timeout": "3s",
            "classes": [{"sectionName": "show", "tier": "Core", "guaranteedPercent": 60}],
            "rateLimits": [
                {"name": "total", "scope": "Region", "rate": {"requests": 5000, "per": "1s"}, "warmUp": "1m",
                 "overflow": {"queue": {"maxWait": "200ms"}}},
                {"name": "each", "scope": "Cluster", "keyParts": [{"query": "venue"}, {"header": "x-day"}],
                 "rate": {"requests": 90, "per": "1m30s"}, "mode": "Shadow", "onMissing": "Skip"}],
            "hotKeys": [{"name": "venue", "key": {"query": "venue"}, "hotAtPercent": 10,
                         "limit": {"requests": 500, "per": "1s"}}],
            "breakers": [{"name": "slow", "slowCalls": {"over": "800ms", "percent": 50}},
                         {"name": "bad", "errors": {"percent": 40}}],
            "concurrency": {"adaptive": {}}, "retries": {},
            "waitingRoom": {"scope": "Region", "activeUsers": 100, "newPerMinute": 20, "session": "5m",
                            "openWhen": {"errorPercent": 5}},
        }))
        .unwrap();
        let rules = rules_of(&spec);
        let said: Vec<String> = rules
            .iter()
            .map(|rule| format!("{}: {}", name(rule, None), of(rule, Seen::AtHub)))
            .collect();
        assert_eq!(
            said,
            [
                "waitingRoom: 100 in at one time, 20 new a minute, in for 5m, opens when 5 % fail",
                "rateLimits each: 90 per 1m30s of each query venue with header x-day in the cluster, burst \
                 1, not counted without a key; Shadow: only counted",
                "rateLimits total: 5000 per 1s in the Region, burst 1, more wait up to 200ms, warming up \
                 for 1m",
                "hotKeys venue: each query venue with 10 % of the requests: 500 per 1s, burst 500",
                "breakers bad: opens for 5s when 40 % fail within 10s, of at least 20; 5 probes",
                "breakers slow: opens for 5s when 50 % take over 800ms within 10s, of at least 20; 5 probes",
                "concurrency: as many as the target is found to stand",
                "defaultTier: Important",
                "classes show: tier Core, 60 % of the concurrency guaranteed",
                "timeout: 3s",
                "retries: 1 after ConnectFailure, for at most 20 % of the requests",
            ]
        );
        let here = rules.iter().find(|rule| rule.name == "total").unwrap();
        assert_eq!(
            of(here, Seen::InCluster),
            "5000 per 1s in the cluster, of the Region's rate, burst 1, more wait up to 200ms, warming up for 1m"
        );
    }
}
