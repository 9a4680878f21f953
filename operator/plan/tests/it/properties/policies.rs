//! What people say in TrafficPolicies.

use proptest::prelude::*;
use serde_json::json;

use super::History;
use crate::province::policies::{key, of_region, total};

/// Names of policies; each may be for some of the Apps of tenant health.
const POLICIES: [&str; 2] = ["first", "second"];
/// Apps that they may name.
const APPS: [&str; 2] = ["web-0", "web-1"];

/// Something about a policy.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    Write {
        policy: usize,
        both: bool,
        requests: i64,
        always: bool,
        regional: bool,
    },
    Delete {
        policy: usize,
    },
    Vanish {
        policy: usize,
    },
}

pub(super) fn rule() -> impl Strategy<Value = Rule> {
    let policy = || 0..2usize;
    let write = (
        policy(),
        any::<bool>(),
        1..1_000i64,
        prop::bool::weighted(0.8),
        any::<bool>(),
    );
    prop_oneof![
        4 => write.prop_map(|(policy, both, requests, always, regional)| {
            Rule::Write { policy, both, requests, always, regional }
        }),
        1 => policy().prop_map(|policy| Rule::Delete { policy }),
        1 => policy().prop_map(|policy| Rule::Vanish { policy }),
    ]
}

impl History {
    pub(super) fn rule(&mut self, rule: &Rule) {
        self.ruled = true;
        match rule {
            Rule::Write {
                policy,
                both,
                requests,
                always,
                regional,
            } => {
                let known = self.province.policies.get(&key(POLICIES[*policy]));
                if known.is_some_and(|known| known.metadata.deletion_timestamp.is_some()) {
                    return;
                }
                let apps = if *both {
                    &APPS[..]
                } else {
                    &APPS[*policy..=*policy]
                };
                let activation = if *always { "Always" } else { "ByEvent" };
                let limits = if *regional {
                    of_region(*requests)
                } else {
                    total(*requests)
                };
                let spec = json!({"activation": activation, "rateLimits": limits});
                self.province.set_policy(POLICIES[*policy], apps, &spec);
            }
            Rule::Delete { policy } if self.knows(*policy) => {
                self.province.delete_policy(POLICIES[*policy]);
            }
            Rule::Vanish { policy } if self.knows(*policy) => {
                self.province.lose_policy(POLICIES[*policy]);
            }
            Rule::Delete { .. } | Rule::Vanish { .. } => {}
        }
    }

    fn knows(&self, policy: usize) -> bool {
        self.province.policies.contains_key(&key(POLICIES[policy]))
    }
}
