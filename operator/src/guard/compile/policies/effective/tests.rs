use std::fs;
use std::path::Path;

use serde_json::json;

use super::super::super::super::compile;
use super::super::super::tests::{inputs, objects, pairs};
use super::*;

/// The cluster of a pair.
fn cluster(pair: &Path) -> Inputs {
    inputs(&objects(&fs::read_to_string(pair).unwrap()))
}

fn named(pair: &str) -> Inputs {
    let pairs = pairs();
    let found = pairs
        .iter()
        .find(|path| path.to_string_lossy().contains(pair));
    cluster(found.unwrap())
}

fn route(inputs: &Inputs, rule: Option<&str>) -> Result<Effective, Missing> {
    let asked = Asked::Route(ObjectName::new("infra", "one"), rule.map(str::to_owned));
    compile::effective(inputs, &asked)
}

fn from(rule: &RuleInForce) -> serde_json::Value {
    serde_json::to_value(&rule.from).unwrap()
}

#[test]
fn what_is_said_to_protect_a_rule_is_what_guards_are_given() {
    let mut compared = 0;
    for pair in pairs() {
        let inputs = cluster(&pair);
        let (configuration, _) = compile::compile(&inputs);
        for rule in &configuration.rules {
            let (namespace, name) = rule.route.split_once('/').unwrap();
            let asked = Asked::Route(ObjectName::new(namespace, name), Some(rule.name.clone()));
            let effective = compile::effective(&inputs, &asked).unwrap();
            let said = &effective.rules[0].protected_by;
            assert_eq!(*said, rule.policy, "{}: {}", pair.display(), rule.route);
            compared += usize::from(said.is_some());
        }
    }
    assert!(compared > 10, "only {compared} rules are protected");
}

#[test]
fn each_rule_tells_who_said_it_and_who_tightened_it() {
    let inputs = named("a-region-tightens-what-the-hub-says");
    let effective = route(&inputs, None).unwrap();
    assert_eq!(effective.rules.len(), 3);
    let [in_force] = &effective.in_force[..] else {
        panic!("{effective:#?}")
    };
    assert_eq!(in_force.name, "infra/code");
    let rule = |field: &str, name: &str| {
        let mut rules = in_force.rules.iter();
        rules.find(|rule| rule.field == field && rule.name == name)
    };
    let total = rule("rateLimits", "total").unwrap();
    assert_eq!(total.value["rate"], json!({"requests": 50, "per": "1s"}));
    assert_eq!(total.value["burst"], 100);
    assert_eq!(
        from(total),
        json!([{"effect": "Says", "policy": "infra/code"}, {"effect": "Tightens", "policy": "infra/small"}])
    );
    let mine = rule("rateLimits", "mine").unwrap();
    assert_eq!(mine.value["burst"], 20, "what nobody said is filled in");
    assert_eq!(
        from(mine),
        json!([{"effect": "Says", "policy": "infra/small"}])
    );
    let looser = json!([
        {"effect": "Says", "policy": "infra/code"}, {"effect": "AddsNothing", "policy": "infra/small"}]);
    assert_eq!(from(rule("concurrency", "").unwrap()), looser);
    assert_eq!(from(rule("timeout", "").unwrap()), looser);
    // Its name is that of a breaker of the hub.
    assert_eq!(rule("rateLimits", "slow"), None);
}

#[test]
fn what_of_a_policy_does_not_count_is_named_with_the_reason() {
    let inputs = named("a-region-tightens-what-the-hub-says");
    let effective = route(&inputs, None).unwrap();
    let small = &effective.policies[0];
    assert_eq!(small.policy.name, "small");
    assert_eq!(
        (small.origin, small.targets[0].counts),
        (Origin::Region, true)
    );
    assert_eq!(small.targets[0].reason, Reason::LooserIgnored);
    assert!(small.targets[0].message.starts_with("looser than"));
    assert_eq!(effective.policies[1].origin, Origin::Hub);
}

#[test]
fn an_event_replaces_the_rules_of_its_names_only_while_it_is_on() {
    let inputs = named("a-policy-for-events-replaces-rules");
    let replaces = |inputs: &Inputs| {
        let effective = route(inputs, None).unwrap();
        let layers = effective.in_force.iter();
        let rules = layers.flat_map(|in_force| in_force.rules.clone());
        let sources: Vec<Source> = rules.flat_map(|rule| rule.from).collect();
        let replaced = sources
            .iter()
            .any(|source| matches!(source, Source::Replaces(_)));
        let mut policies = effective.policies.into_iter();
        let waits =
            policies.any(|policy| policy.targets.iter().any(|t| t.reason == Reason::NoEvent));
        (replaced, waits)
    };
    assert_eq!(replaces(&inputs), (true, false));
    let over = Inputs {
        events: BTreeSet::new(),
        ..inputs
    };
    assert_eq!(replaces(&over), (false, true));
}

#[test]
fn a_rule_that_no_policy_names_has_none() {
    let mut inputs = named("a-region-tightens-what-the-hub-says");
    inputs.traffic_policies.clear();
    let effective = route(&inputs, Some("2")).unwrap();
    assert_eq!(
        serde_json::to_value(&effective).unwrap(),
        json!({"rules": [{"route": "infra/one", "rule": "2"}], "inForce": [], "policies": []})
    );
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let inputs = named("a-region-tightens-what-the-hub-says");
    let error = route(&inputs, Some("nine")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "HTTPRoute infra/one has no rule nine; its rules are: show-code, statistics, 2"
    );
    let none = Asked::Policy(ObjectName::new("infra", "none"));
    assert!(compile::effective(&inputs, &none).is_err());
}

#[test]
fn a_policy_is_told_with_all_that_it_names_also_where_it_does_not_count() {
    let inputs = named("a-policy-whose-route-or-rule-is-missing");
    let policy = ObjectName::of(&inputs.traffic_policies[0].metadata);
    let effective = compile::effective(&inputs, &Asked::Policy(policy)).unwrap();
    let targets = &effective.policies[0].targets;
    let counts: Vec<bool> = targets.iter().map(|target| target.counts).collect();
    assert_eq!(counts, [false, false, true]);
    assert!(
        targets[0].message.contains("does not exist"),
        "{targets:#?}"
    );
}

#[test]
fn a_policy_for_a_rule_that_is_missing_is_told_with_the_route() {
    let inputs = named("a-policy-whose-route-or-rule-is-missing");
    let effective = route(&inputs, Some("statistics")).unwrap();
    assert_eq!(effective.rules[0].protected_by, None);
    let [target] = &effective.policies[0].targets[..] else {
        panic!("{effective:#?}")
    };
    assert_eq!(target.rule.as_deref(), Some("show-cod"));
    assert_eq!(
        (target.counts, target.reason),
        (false, Reason::TargetNotFound)
    );
}
