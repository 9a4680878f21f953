//! Settings that change while the policy is in use.

use super::*;
use crate::concurrency::{Concurrency, Entered, Outcome as Ended, Permit, Turn};
use crate::tier::Tier;

const BAD: Outcome = Outcome {
    elapsed: Duration::ZERO,
    is_error: true,
};

fn trip(policy: &Policy<()>, now: Time) {
    for _ in 0..4 {
        let admission = policy.admit(&|_| None, now).unwrap();
        policy.finish(admission, BAD, now);
    }
    assert!(is_open(policy, now));
}

fn is_open(policy: &Policy<()>, now: Time) -> bool {
    ask(policy, "a", now).is_err_and(|denied| denied.reason == Reason::BreakerOpen)
}

fn bound(policy: &Policy<()>) -> &Concurrency<()> {
    policy.concurrency().unwrap()
}

/// Lets one run of the class at this place.
fn run(policy: &Policy<()>, class: usize) -> Permit {
    let class = policy.classes().id(class).unwrap();
    match bound(policy).enter(class, at(0), || ()) {
        Entered::Now(permit) => permit,
        other @ (Entered::Queued { .. } | Entered::Refused(_)) => panic!("{other:?}"),
    }
}

fn wait(policy: &Policy<()>, class: usize) {
    let class = policy.classes().id(class).unwrap();
    let entered = bound(policy).enter(class, at(0), || ());
    assert!(matches!(entered, Entered::Queued { .. }), "{entered:?}");
}

/// By how many tiers' requests permits were got, the most important first.
fn waited(policy: &Policy<()>) -> [u64; 4] {
    bound(policy).snapshot().tiers.map(|tier| tier.waited)
}

fn hot(limit: u32) -> Value {
    json!({"name": "venue", "key": [{"header": "x-user"}], "hot": {"hotAtPercent": 20},
        "limit": {"rate": {"requests": limit, "perSeconds": 3600}, "burst": limit}})
}

#[test]
fn a_policy_that_is_made_and_never_adopted_changes_nothing() {
    let rules = |requests: u32| {
        json!({"rateLimits": [limit("total", requests, json!({})), limit("user", requests, by_user(json!({})))],
            "concurrency": {"max": requests}, "hotKeys": [hot(requests)]})
    };
    let policy = policy(rules(10));
    assert_eq!(passed(&policy, "a", 100, at(0)), 10);
    let _permits: Vec<_> = (0..10).map(|_| run(&policy, 0)).collect();
    let wider = policy.renew(&settings(rules(1000)), 2, at(0)).unwrap();
    assert_eq!(passed(&policy, "a", 100, at(1000)), 10);
    assert_eq!(bound(&policy).snapshot().limit, 10);
    // It takes effect when it is in force, also by the policy of before.
    assert!(wider.adopt(at(2000)).is_empty());
    assert_eq!(bound(&policy).snapshot().limit, 1000);
    let passed = passed(&policy, "a", 2000, at(3000));
    assert!(passed > 100, "{passed}");
}

#[test]
fn a_breaker_goes_by_other_settings_only_when_they_are_adopted() {
    let by = |percent: u32| {
        let mut rule = breaker("sick");
        rule["settings"]["condition"]["errors"]["percent"] = json!(percent);
        json!({"breakers": [rule]})
    };
    let policy = policy(by(50));
    assert_eq!(passed(&policy, "a", 20, at(0)), 20);
    let tighter = policy.renew(&settings(by(1)), 2, at(0)).unwrap();
    let admission = policy.admit(&|_| None, at(0)).unwrap();
    policy.finish(admission, BAD, at(0));
    assert_eq!(passed(&policy, "a", 20, at(1)), 20);
    assert!(tighter.adopt(at(2)).is_empty());
    assert_eq!(passed(&policy, "a", 20, at(2)), 1, "one bad of 42");
}

#[test]
fn open_breakers_stay_open_by_other_settings_and_a_rule_of_another_name_begins_closed() {
    let by = |name: &str, percent: u32, open_for: u64| {
        let mut rule = breaker(name);
        rule["settings"]["condition"]["errors"]["percent"] = json!(percent);
        rule["settings"]["openFor"]["secs"] = json!(open_for);
        json!({"breakers": [rule]})
    };
    let policy = policy(by("sick", 50, 5));
    trip(&policy, at(0));
    let tighter = renewed(&policy, by("sick", 10, 60), at(1));
    assert!(is_open(&tighter, at(2)) && is_open(&policy, at(2)));
    assert_eq!(tighter.standings()[0].refused, 3, "counted on");
    let other = renewed(&tighter, by("other", 10, 60), at(3));
    assert!(!is_open(&other, at(4)));
    let out_of_bounds = settings(by("sick", 101, 5));
    let fault = policy.renew(&out_of_bounds, 1, at(4)).unwrap_err();
    assert!(
        fault.to_string().contains("errors.percent is 101"),
        "{fault}"
    );
}

#[test]
fn what_is_under_way_counts_for_a_limit_that_is_lowered() {
    let rules = |max: u32| json!({"concurrency": {"max": max}});
    let policy = policy(rules(100));
    let mut running: Vec<_> = (0..100).map(|_| run(&policy, 0)).collect();
    wait(&policy, 0);
    let lower = renewed(&policy, rules(80), at(0));
    wait(&lower, 0);
    for _ in 0..20 {
        let permit = running.pop().unwrap();
        assert!(
            bound(&policy)
                .leave(permit, Ended::Success, at(0))
                .is_empty()
        );
    }
    let permit = running.pop().unwrap();
    let turns = bound(&policy).leave(permit, Ended::Success, at(0));
    assert!(
        matches!(turns[..], [Turn::Run(..)]),
        "fewer than 80 run: {turns:?}"
    );
    // A larger one lets in who waits, for the caller to wake.
    let higher = lower.renew(&settings(rules(90)), 1, at(0)).unwrap();
    let turns = higher.adopt(at(0));
    assert!(matches!(turns[..], [Turn::Run(..)]), "{turns:?}");
}

#[test]
fn what_runs_and_what_was_learnt_stay_when_the_kind_of_the_bound_changes() {
    let fixed = || json!({"concurrency": {"max": 300}});
    let adaptive = || json!({"concurrency": "adaptive"});
    let policy = policy(fixed());
    let _permits: Vec<_> = (0..200).map(|_| run(&policy, 0)).collect();
    let learning = renewed(&policy, adaptive(), at(0));
    let seen = bound(&learning).snapshot();
    assert_eq!((seen.limit, seen.running), (200, 200));
    let again = renewed(&learning, adaptive(), at(0));
    assert_eq!(bound(&again).snapshot(), seen);
    let back = renewed(&again, fixed(), at(0));
    let seen = bound(&back).snapshot();
    assert_eq!((seen.limit, seen.running), (300, 200));
}

#[test]
fn a_class_stays_the_same_by_its_name_and_without_one_by_its_number() {
    let class = |name: &str, tier: &str, percent: u8| {
        let mut class = json!({"tier": tier});
        if !name.is_empty() {
            class["name"] = json!(name);
        }
        if percent > 0 {
            class["guaranteedPercent"] = json!(percent);
        }
        class
    };
    let rules = |classes: Vec<Value>| json!({"concurrency": {"max": 10}, "classes": classes});
    let rest = || class("", "General", 0);
    let policy = policy(rules(vec![
        rest(),
        class("export", "Ancillary", 50),
        class("show", "Core", 0),
    ]));
    let mut running: Vec<_> = (0..10).map(|_| run(&policy, 1)).collect();
    wait(&policy, 1);
    // One more, before the other two.
    let changed = renewed(
        &policy,
        rules(vec![
            rest(),
            class("pay", "Core", 0),
            class("show", "Important", 0),
            class("export", "Ancillary", 90),
        ]),
        at(0),
    );
    for (before, after) in [(0, 0), (1, 3), (2, 2)] {
        let number = |policy: &Policy<()>, at| policy.classes().id(at).unwrap().number;
        assert_eq!(number(&policy, before), number(&changed, after));
    }
    wait(&changed, 1);
    wait(&changed, 1);
    // Of export ten run, which is more than the nine that it may always use.
    let permit = running.pop().unwrap();
    let turns = bound(&changed).leave(permit, Ended::Success, at(0));
    assert_eq!((turns.len(), waited(&changed)), (1, [1, 0, 0, 0]));
    // Eight of them, and nine are guaranteed: it goes before what matters more.
    let permit = running.pop().unwrap();
    let turns = bound(&changed).leave(permit, Ended::Success, at(0));
    assert_eq!((turns.len(), waited(&changed)), (1, [1, 0, 0, 1]));
    let twice = rules(vec![class("a", "Core", 0), class("a", "Core", 0)]);
    let fault = policy.renew(&settings(twice), 1, at(0)).unwrap_err();
    assert!(fault.to_string().contains("two are named \"a\""), "{fault}");
}

#[test]
fn a_request_of_a_class_that_is_gone_is_served_by_the_tier_that_it_had() {
    let rules = |classes: Value| json!({"concurrency": {"max": 1}, "classes": classes});
    let policy = policy(rules(
        json!([{"tier": "General"}, {"name": "x", "tier": "Core"}]),
    ));
    let changed = renewed(&policy, rules(json!([{"tier": "General"}])), at(0));
    let permit = run(&changed, 0);
    wait(&changed, 0);
    wait(&policy, 1);
    let turns = bound(&changed).leave(permit, Ended::Success, at(0));
    assert_eq!(turns.len(), 1);
    assert_eq!(waited(&changed)[Tier::Core.index()], 1);
}

#[test]
fn keys_that_are_hot_stay_so_by_another_limit_and_another_share() {
    let rules = |percent: u32, requests: u32| {
        let mut rule = hot(requests);
        rule["hot"]["hotAtPercent"] = json!(percent);
        json!({"hotKeys": [rule]})
    };
    let policy = policy(rules(20, 5));
    for request in 0..1000_u64 {
        let _ = ask(&policy, "hot", at(request));
    }
    assert!(ask(&policy, "hot", at(1000)).is_err());
    let changed = renewed(&policy, rules(60, 5), at(1001));
    assert_eq!(changed.hot_keys(at(1002))[0].1.len(), 1);
    assert!(ask(&changed, "hot", at(1002)).is_err(), "no fresh tokens");
    let bad = settings(rules(101, 5));
    let fault = policy.renew(&bad, 1, at(1002)).unwrap_err();
    assert!(fault.to_string().contains("hotAtPercent is 101"), "{fault}");
}

#[test]
fn a_bound_that_could_not_be_kept_is_refused_and_not_cut() {
    let rules = |max: u32| settings(json!({"concurrency": {"max": max}}));
    let make = |max| Policy::<()>::new(&rules(max), KeySeed::new([1; 16]), 1, Time::ZERO);
    let fault = make(10_001).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "policy ns/policy, concurrency: max is 10001, allowed is 1 to 10000"
    );
    assert_eq!(bound(&make(10_000).unwrap()).snapshot().limit, 10_000);
}

#[test]
fn keys_that_were_forgotten_for_others_are_counted_by_rule() {
    let few = by_user(json!({"keys": 1}));
    let policy = policy(
        json!({"rateLimits": [limit("total", 1000, json!({})), limit("user", 5, few)],
        "hotKeys": [hot(5)]}),
    );
    let counts = |policy: &Policy<()>| {
        let counts = policy.keys_replaced();
        counts
            .map(|(rule, count)| (rule.to_string(), count))
            .collect::<Vec<_>>()
    };
    let none = [("user".to_owned(), 0), ("venue".to_owned(), 0)];
    assert_eq!(counts(&policy), none);
    for user in 0..500 {
        let _ = ask(&policy, &format!("u{user}"), at(0));
    }
    // In each of 76 places five pass, of which the first takes it from nobody.
    assert_eq!(counts(&policy)[0], ("user".to_owned(), 76 * 4));
}
