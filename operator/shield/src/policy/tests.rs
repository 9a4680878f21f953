//! The order, and that nobody pays for another rule.

mod changed;

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Denied, KeyPart, Policy, PolicySettings, Reason, SharedLimit};
use crate::breaker::Outcome;
use crate::{KeySeed, Share, Time};

fn settings(rules: Value) -> PolicySettings {
    let mut all = json!({"name": "ns/policy"});
    let (Value::Object(all_map), Value::Object(rules)) = (&mut all, rules) else {
        unreachable!("both are written as objects");
    };
    all_map.extend(rules);
    serde_json::from_value(all).unwrap()
}

fn policy(rules: Value) -> Policy<()> {
    Policy::new(&settings(rules), KeySeed::new([1; 16]), 1, Time::ZERO).unwrap()
}

/// The policy by other settings, in force.
fn renewed(policy: &Policy<()>, rules: Value, now: Time) -> Policy<()> {
    let renewed = policy.renew(&settings(rules), 2, now).unwrap();
    assert!(renewed.adopt(now).is_empty(), "nobody waits");
    renewed
}

fn limit(name: &str, requests: u32, more: Value) -> Value {
    let quota = json!({"rate": {"requests": requests, "perSeconds": 1}, "burst": requests});
    let mut rule = json!({"name": name, "scope": "Instance", "quota": quota});
    let (Value::Object(map), Value::Object(more)) = (&mut rule, more) else {
        unreachable!("both are written as objects");
    };
    map.extend(more);
    rule
}

fn breaker(name: &str) -> Value {
    let span = |secs: u64| json!({"secs": secs, "nanos": 0});
    json!({"name": name, "settings": {"condition": {"errors": {"percent": 50}}, "window": span(10),
        "minRequests": 4, "openFor": span(5), "probes": 2}})
}

fn at(millis: u64) -> Time {
    Time::ZERO.after(Duration::from_millis(millis))
}

/// Asks for a user; an empty name is a request without one.
fn ask(policy: &Policy<()>, user: &str, now: Time) -> Result<(), Denied> {
    let read = |_: &KeyPart| (!user.is_empty()).then(|| Cow::Owned(user.as_bytes().to_vec()));
    let admission = policy.admit(&read, now)?;
    let outcome = Outcome {
        elapsed: Duration::ZERO,
        is_error: false,
    };
    policy.finish(admission, outcome, now);
    Ok(())
}

fn passed(policy: &Policy<()>, user: &str, count: usize, now: Time) -> usize {
    (0..count)
        .filter(|_| ask(policy, user, now).is_ok())
        .count()
}

/// So many requests fail.
fn fail(policy: &Policy<()>, count: usize, now: Time) {
    let outcome = Outcome {
        elapsed: Duration::ZERO,
        is_error: true,
    };
    for _ in 0..count {
        policy.finish(policy.admit(&|_| None, now).unwrap(), outcome, now);
    }
}

fn by_user(more: Value) -> Value {
    let mut all = json!({"key": [{"header": "x-user"}]});
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}

#[test]
fn a_request_refused_for_its_key_takes_nothing_from_the_total() {
    let rules = json!({"rateLimits": [limit("total", 10, json!({})), limit("user", 2, by_user(json!({})))]});
    let policy = policy(rules);
    assert_eq!(passed(&policy, "a", 100, at(0)), 2);
    assert_eq!(passed(&policy, "b", 100, at(0)), 2);
    // Six are left for the others, however much the first two ask for.
    assert_eq!(
        (0..10)
            .filter(|n| ask(&policy, &format!("u{n}"), at(0)).is_ok())
            .count(),
        6
    );
}

#[test]
fn a_request_refused_for_the_total_takes_nothing_from_its_key() {
    let rules =
        json!({"rateLimits": [limit("total", 1, json!({})), limit("user", 2, by_user(json!({})))]});
    let policy = policy(rules);
    assert_eq!(passed(&policy, "a", 50, at(0)), 1);
    let denied = ask(&policy, "b", at(0)).unwrap_err();
    assert_eq!(
        (&*denied.rule, denied.reason),
        ("total", Reason::RateLimited)
    );
    // One of its two tokens is left, so that the next of the total is its own.
    assert_eq!(passed(&policy, "a", 50, at(1000)), 1);
}

#[test]
fn limits_are_asked_from_keys_to_the_province_whatever_their_order() {
    let scope = |scope: &str| json!({"scope": scope});
    let rules = json!({"rateLimits": [limit("p", 1, scope("Province")), limit("i", 1, scope("Instance")),
        limit("c", 1, scope("Cluster")), limit("k", 1, by_user(json!({})))]});
    let policy = policy(rules);
    let names: Vec<_> = policy
        .standings()
        .into_iter()
        .map(|s| s.rule.to_string())
        .collect();
    assert_eq!(names, ["k", "i", "c", "p"]);
    ask(&policy, "a", at(0)).unwrap();
    assert_eq!(&*ask(&policy, "a", at(0)).unwrap_err().rule, "k");
    assert_eq!(&*ask(&policy, "b", at(0)).unwrap_err().rule, "i");
}

#[test]
fn a_request_without_a_key_is_refused_shared_or_skipped_as_the_rule_says() {
    let one = |on_missing: &str| {
        policy(json!({"rateLimits": [limit("user", 1, by_user(json!({"onMissing": on_missing})))]}))
    };
    assert_eq!(
        ask(&one("Refuse"), "", at(0)).unwrap_err().reason,
        Reason::KeyMissing
    );
    assert_eq!(passed(&one("Share"), "", 9, at(0)), 1);
    assert_eq!(passed(&one("Skip"), "", 9, at(0)), 9);
}

#[test]
fn a_shadow_rule_refuses_nobody_and_counts_what_it_would_refuse() {
    let policy = policy(json!({"rateLimits": [limit("dry", 2, json!({"mode": "Shadow"}))]}));
    assert_eq!(passed(&policy, "a", 10, at(0)), 10);
    let standing = policy.standings().remove(0);
    assert_eq!((standing.refused, standing.would_refuse), (0, 8));
}

#[test]
fn what_is_counted_and_what_is_open_outlive_a_change_of_the_settings() {
    let rules = |burst: u32| json!({"rateLimits": [limit("total", burst, json!({}))], "breakers": [breaker("sick")]});
    let policy = policy(rules(100));
    fail(&policy, 4, at(0));
    assert_eq!(
        ask(&policy, "a", at(1)).unwrap_err().reason,
        Reason::BreakerOpen
    );
    let renewed = renewed(&policy, rules(50), at(2));
    assert_eq!(
        ask(&renewed, "a", at(3)).unwrap_err().reason,
        Reason::BreakerOpen
    );
    let refused = renewed
        .standings()
        .into_iter()
        .find(|s| &*s.rule == "sick")
        .unwrap()
        .refused;
    assert_eq!(refused, 2, "also what was counted before");
}

#[test]
fn a_renewed_limit_gives_no_fresh_tokens() {
    let rules = |requests| json!({"rateLimits": [limit("total", requests, json!({}))]});
    let policy = policy(rules(5));
    assert_eq!(passed(&policy, "a", 10, at(0)), 5);
    let renewed = renewed(&policy, rules(1000), at(0));
    assert_eq!(passed(&renewed, "a", 10, at(0)), 0);
}

#[test]
fn a_request_refused_by_a_later_rule_leaves_the_probe_to_another() {
    let rules =
        json!({"breakers": [breaker("sick")], "rateLimits": [limit("total", 5, json!({}))]});
    let policy = policy(rules);
    fail(&policy, 4, at(0));
    // After the longest pause the probes may come; the limit has five tokens for them.
    assert_eq!(
        passed(&policy, "a", 20, at(60_000)),
        2 + 1,
        "two probes, then a tenth of the rest"
    );
    assert_eq!(passed(&policy, "a", 200, at(120_000)), 5);
}

#[test]
fn a_request_that_a_later_limit_refuses_takes_no_place_of_a_recovering_breaker() {
    let total = limit("total", 4, json!({"scope": "Cluster"}));
    for mode in ["Enforce", "Shadow"] {
        let mut rule = breaker("sick");
        rule["mode"] = json!(mode);
        let policy = policy(json!({"breakers": [rule], "rateLimits": [total]}));
        fail(&policy, 4, at(0));
        // Two probes, and two by the share: then the limit is used up.
        assert_eq!(passed(&policy, "a", 2 + 20, at(60_000)), 4);
        assert_eq!(passed(&policy, "a", 10, at(60_000)), 0);
        let refused = |policy: &Policy<()>| policy.standings().pop().unwrap();
        let before = refused(&policy);
        // One may pass again, and the share of it is due.
        assert_eq!(passed(&policy, "a", 1, at(60_250)), 1);
        assert_eq!(refused(&policy), before, "{mode}");
    }
}

#[test]
fn two_breakers_that_recover_together_let_in_the_share_of_one() {
    let policy = policy(json!({"breakers": [breaker("one"), breaker("other")]}));
    fail(&policy, 4, at(0));
    assert_eq!(passed(&policy, "a", 2, at(60_000)), 2);
    assert_eq!(passed(&policy, "a", 1_000, at(60_000)), 99);
}

#[test]
fn a_client_that_leaves_when_its_request_was_sent_has_used_its_place() {
    let policy = policy(json!({"breakers": [breaker("sick")]}));
    fail(&policy, 4, at(0));
    assert_eq!(passed(&policy, "a", 2 + 9, at(60_000)), 2);
    let admission = policy.admit(&|_| None, at(60_000)).unwrap();
    policy.forget(admission, at(60_000));
    assert_eq!(passed(&policy, "a", 9, at(60_000)), 0);
}

#[test]
fn a_key_that_is_most_of_the_traffic_is_limited_and_the_others_are_not() {
    let hot = json!({"name": "venue", "key": [{"query": "venue"}], "hot": {"hotAtPercent": 20},
        "limit": {"rate": {"requests": 10, "perSeconds": 1}, "burst": 10}});
    let policy = policy(json!({"hotKeys": [hot]}));
    let mut passed = [0_u32; 2];
    for request in 0..10_000_u64 {
        // Ten seconds of 1,000 requests a second, 40 % of them for one venue.
        let is_hot = request % 5 < 2;
        let venue = if is_hot {
            "hot".to_owned()
        } else {
            format!("venue-{}", request % 997)
        };
        passed[usize::from(is_hot)] += u32::from(ask(&policy, &venue, at(request)).is_ok());
    }
    assert_eq!(passed[0], 6_000);
    // Three seconds until it is found, then ten a second.
    assert!(passed[1] <= 1_200 + 10 + 80, "{}", passed[1]);
    let (_, keys) = policy.hot_keys(at(10_000)).remove(0);
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_rule_that_makes_no_sense_is_named() {
    let bad = json!({"rateLimits": [limit("slow-start", 1, by_user(json!({"warmUp": {"secs": 5, "nanos": 0}})))]});
    let fault =
        Policy::<()>::new(&settings(bad), KeySeed::new([1; 16]), 1, Time::ZERO).unwrap_err();
    let said = fault.to_string();
    assert!(
        said.contains("ns/policy") && said.contains("slow-start"),
        "{said}"
    );
}

fn shared(policy: &Policy<()>) -> Vec<SharedLimit> {
    policy.shared().collect()
}

#[test]
fn a_guard_that_holds_a_part_of_a_limit_lets_that_part_pass() {
    let rules = json!({"rateLimits": [limit("all", 100, json!({"scope": "Cluster"}))]});
    let policy = policy(rules);
    assert_eq!(shared(&policy)[0].share, Share::WHOLE);
    policy.set_share("all", Share::one_of(4), at(0));
    assert_eq!(passed(&policy, "u", 200, at(0)), 25);
    assert_eq!(passed(&policy, "u", 200, at(1000)), 25);
    assert_eq!(shared(&policy)[0].offered, 400);
}

#[test]
fn parts_that_move_make_no_token() {
    let rules = json!({"rateLimits": [limit("all", 100, json!({"scope": "Region"}))]});
    let policy = policy(rules);
    assert_eq!(passed(&policy, "u", 200, at(0)), 100);
    for _ in 0..50 {
        policy.set_share("all", Share::one_of(10), at(0));
        policy.set_share("all", Share::WHOLE, at(0));
    }
    assert_eq!(passed(&policy, "u", 200, at(0)), 0);
    assert_eq!(passed(&policy, "u", 200, at(500)), 50);
}

#[test]
fn a_part_stays_when_the_limit_is_changed_and_no_part_is_taken_of_what_is_not_shared() {
    let rules = |requests| {
        let all = limit("all", requests, json!({"scope": "Cluster"}));
        json!({"rateLimits": [all, limit("own", 1000, json!({}))]})
    };
    let first = policy(rules(100));
    first.set_share("all", Share::one_of(2), at(0));
    first.set_share("own", Share::NONE, at(0));
    let changed = renewed(&first, rules(200), at(0));
    assert_eq!(shared(&changed)[0].share, Share::one_of(2));
    assert_eq!(passed(&changed, "u", 300, at(0)), 50);
    assert_eq!(passed(&changed, "u", 300, at(1000)), 100);
}

#[test]
fn a_restart_is_worth_one_token_and_no_burst() {
    let rules = json!({"rateLimits": [limit("all", 100, json!({"scope": "Cluster"}))]});
    let policy = policy(rules);
    policy.begin_with_little(at(0));
    assert_eq!(passed(&policy, "u", 200, at(0)), 1);
    assert_eq!(passed(&policy, "u", 200, at(500)), 50);
}
