//! Which policy counts for which rule: the older of two, the one on a rule before the one on its route, and
//! several together where one builds on another.

use std::collections::{BTreeMap, BTreeSet};

use crds::Reason;

use super::super::routes::ReadRoute;
use super::read::{Layer, ReadPolicy, Refused, RuleAt};

/// Rules that are protected together, and by which policies.
pub(super) struct Group {
    pub(super) rules: BTreeSet<RuleAt>,
    /// Places of policies, by their layers.
    pub(super) stack: Vec<usize>,
}

/// What two policies of one layer cannot both have: a route, or a rule of one.
type Place<'a> = (Layer, usize, Option<&'a str>);

/// Decides who counts where; those who do not are refused.
pub(super) fn settle(policies: &mut [ReadPolicy<'_>], routes: &[ReadRoute<'_>]) -> Vec<Group> {
    let claims = claims(policies, routes);
    let mut groups: Vec<Group> = Vec::new();
    let mut group_of: BTreeMap<RuleAt, usize> = BTreeMap::new();
    for layer in Layer::ALL {
        for (at, rules) in covered(&claims, layer) {
            let below: BTreeSet<Option<usize>> = rules
                .iter()
                .map(|rule| group_of.get(rule).copied())
                .collect();
            let below: Vec<Option<usize>> = below.into_iter().collect();
            match below[..] {
                [None] => {
                    group_of.extend(rules.iter().map(|rule| (*rule, groups.len())));
                    let stack = vec![at];
                    groups.push(Group { rules, stack });
                }
                [Some(group)] if groups[group].rules == rules => groups[group].stack.push(at),
                _ => {
                    let first = below
                        .iter()
                        .flatten()
                        .next()
                        .map(|group| groups[*group].stack[0]);
                    let other = first.map(|other| policies[other].name.to_string());
                    policies[at].refuse(&apart(&other.unwrap_or_default()));
                }
            }
        }
    }
    groups
}

fn apart(other: &str) -> Refused {
    Refused::new(
        Reason::TargetsDiffer,
        format!(
            "it does not cover the same rules as TrafficPolicy {other}, whose limits count over all of \
             its rules; name exactly the targets of that policy, and write another policy for others"
        ),
    )
}

/// Who has which rule, in each layer.
type Claims = BTreeMap<(Layer, RuleAt), usize>;

/// Policies stand from the oldest on, so that the first has a place.
fn claims(policies: &mut [ReadPolicy<'_>], routes: &[ReadRoute<'_>]) -> Claims {
    let mut taken: BTreeMap<Place<'_>, usize> = BTreeMap::new();
    let mut by_route = Claims::new();
    let mut by_rule = Claims::new();
    for at in 0..policies.len() {
        if !policies[at].is_on {
            continue;
        }
        let layer = policies[at].layer;
        for number in 0..policies[at].targets.len() {
            let target = &policies[at].targets[number];
            let (Some(route), None) = (target.route, &target.refused) else {
                continue;
            };
            let section = target.named.section_name.as_deref();
            let first = *taken.entry((layer, route, section)).or_insert(at);
            if first != at {
                let refused = conflicted(&policies[first], &routes[route], section);
                policies[at].targets[number].refused = Some(refused);
                continue;
            }
            let claims = if section.is_some() {
                &mut by_rule
            } else {
                &mut by_route
            };
            claims.extend(target.rules.iter().map(|rule| ((layer, *rule), at)));
        }
    }
    by_route.extend(by_rule);
    by_route
}

fn conflicted(first: &ReadPolicy<'_>, route: &ReadRoute<'_>, section: Option<&str>) -> Refused {
    let rule = section.map_or(String::new(), |section| format!("rule {section:?} of "));
    Refused::new(
        Reason::Conflicted,
        format!(
            "TrafficPolicy {}, which is older, already counts for {rule}HTTPRoute {}; write what you need \
             there, or remove the target from one of the two",
            first.name, route.name
        ),
    )
}

/// The rules that each policy of a layer has, by the place of the policy.
fn covered(claims: &Claims, layer: Layer) -> BTreeMap<usize, BTreeSet<RuleAt>> {
    let mut covered: BTreeMap<usize, BTreeSet<RuleAt>> = BTreeMap::new();
    for ((of, rule), at) in claims {
        if *of == layer {
            covered.entry(*at).or_default().insert(*rule);
        }
    }
    covered
}
