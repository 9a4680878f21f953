//! The parts of shared limits that this guard enforces, as guard control last said.

use std::sync::{Mutex, PoisonError};

use shield::Share;

use super::protection::Policies;
use crate::guard::exchange::{ByRule, Demand};

/// What this guard holds. Before anybody divides limits it holds all of them.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Option<Shares>>);

#[derive(Debug)]
struct Shares {
    given: ByRule<Share>,
    /// Of limits that are not named.
    otherwise: Share,
    /// Whether limits were once begun; those that come later begin full, as on every other guard.
    begun: bool,
}

impl Held {
    /// From now on these parts, and of other shared limits that one.
    pub(super) fn set(&self, given: ByRule<Share>, otherwise: Share) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = held.as_ref().is_some_and(|held| held.begun);
        *held = Some(Shares {
            given,
            otherwise,
            begun,
        });
    }

    /// Lets policies enforce what is held.
    pub(super) fn apply(&self, policies: &Policies) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = held.as_mut() else {
            return;
        };
        let now = policies.clock.now();
        for (name, policy) in policies.iter() {
            // Without any other guard a limit that is not named is held whole.
            policy.share_target(held.otherwise != Share::WHOLE);
            let given = held.given.get(name);
            for limit in policy.shared() {
                let named = given.and_then(|rules| rules.get(&*limit.rule)).copied();
                // Of what is counted by key nobody holds a part unless somebody says so: requests of one
                // key mostly come to one guard.
                let otherwise = if limit.is_keyed {
                    Share::WHOLE
                } else {
                    held.otherwise
                };
                policy.set_share(&limit.rule, named.unwrap_or(otherwise), now);
            }
            if !held.begun {
                policy.begin_with_little(now);
            }
        }
        held.begun = true;
    }
}

/// What is asked of the shared limits of these policies, and the part of each that is enforced.
pub(super) fn demand(policies: &Policies) -> ByRule<Demand> {
    let mut all = ByRule::new();
    for (name, policy) in policies.iter() {
        for limit in policy.shared() {
            let demand = Demand {
                offered: limit.offered,
                share: limit.share,
            };
            let rules: &mut std::collections::BTreeMap<String, Demand> =
                all.entry(name.clone()).or_default();
            rules.insert(limit.rule.to_string(), demand);
        }
    }
    all
}
