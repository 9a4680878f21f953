//! What a policy says while an event is on.

use std::collections::BTreeSet;

use crds::{RuleName, TrafficPolicySpec};

use super::tighten;

/// The rules of an event in the place of those of the same name; of what both say beside rules, the tighter.
pub(super) fn over(below: &TrafficPolicySpec, event: &TrafficPolicySpec) -> TrafficPolicySpec {
    let named = names(event);
    let mut spec = below.clone();
    spec.rate_limits.retain(|rule| !named.contains(&rule.name));
    spec.breakers.retain(|rule| !named.contains(&rule.name));
    spec.hot_keys.retain(|rule| !named.contains(&rule.name));
    spec.rate_limits.extend(event.rate_limits.iter().cloned());
    spec.breakers.extend(event.breakers.iter().cloned());
    spec.hot_keys.extend(event.hot_keys.iter().cloned());
    let sections: BTreeSet<&str> = event
        .classes
        .iter()
        .map(|class| class.section_name.as_str())
        .collect();
    spec.classes
        .retain(|class| !sections.contains(class.section_name.as_str()));
    spec.classes.extend(event.classes.iter().cloned());
    // These are rules as well, and their names are those of the fields.
    spec.concurrency = event.concurrency.clone().or(spec.concurrency);
    spec.waiting_room = event.waiting_room.clone().or(spec.waiting_room);
    spec.jwt = event.jwt.clone().or(spec.jwt);
    spec.default_tier = event.default_tier.or(spec.default_tier);
    spec.timeout = tighten::shorter(below.timeout.as_ref(), event.timeout.as_ref());
    spec.retries = match (&below.retries, &event.retries) {
        (Some(below), Some(event)) => Some(tighten::fewer(below, event)),
        (below, event) => below.clone().or_else(|| event.clone()),
    };
    spec
}

fn names(spec: &TrafficPolicySpec) -> BTreeSet<&RuleName> {
    let limits = spec.rate_limits.iter().map(|rule| &rule.name);
    let breakers = spec.breakers.iter().map(|rule| &rule.name);
    let hot_keys = spec.hot_keys.iter().map(|rule| &rule.name);
    limits.chain(breakers).chain(hot_keys).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: &serde_json::Value) -> TrafficPolicySpec {
        let mut all = json!({"targetRefs": []});
        let fields = value.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(fields);
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn rules_of_an_event_replace_those_of_the_same_name_and_others_stay() {
        let below = spec(&json!({
            "rateLimits": [
                {"name": "total", "scope": "Cluster", "rate": {"requests": 100, "per": "1s"}},
                {"name": "other", "scope": "Cluster", "rate": {"requests": 7, "per": "1s"}}],
            "concurrency": {"max": 10}, "timeout": "3s",
        }));
        let event = spec(&json!({
            "rateLimits": [{"name": "total", "scope": "Cluster", "rate": {"requests": 900, "per": "1s"}}],
            "concurrency": {"max": 50}, "timeout": "5s",
        }));
        let both = over(&below, &event);
        let rates: Vec<(&str, i64)> = both
            .rate_limits
            .iter()
            .map(|rule| (rule.name.as_str(), rule.rate.requests))
            .collect();
        assert_eq!(rates, [("other", 7), ("total", 900)]);
        assert_eq!(both.concurrency, event.concurrency);
        assert_eq!(both.timeout, below.timeout, "the tighter of both");
    }
}
