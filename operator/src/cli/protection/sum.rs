//! The standings of several guards as one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Serialize;

use super::Answer;
use super::room::RoomSum;
use crate::guard::standing::{
    Breaker, ConcurrencyStanding, HotKeyStanding, PolicyStanding, RuleKind, RuleStanding, Standing,
};

/// What all guards told together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Guards that answered, by name.
    pub(super) guards: Vec<Answered>,
    /// Guards that did not.
    pub(super) silent: Vec<Silent>,
    /// By name.
    pub(super) policies: Vec<PolicySum>,
    /// By name.
    pub(super) services: Vec<ServiceSum>,
}

/// A guard that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answered {
    pub(super) guard: String,
    /// The configuration that it serves by.
    pub(super) revision: String,
}

/// A guard that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Silent {
    pub(super) guard: String,
    pub(super) why: String,
}

/// A policy over all guards.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicySum {
    pub(super) name: String,
    pub(super) routes: BTreeSet<String>,
    pub(super) admitted: u64,
    pub(super) refused: u64,
    /// By reason; what no rule counts is `Other`.
    pub(super) refused_by: BTreeMap<&'static str, u64>,
    /// Where people queue before all other rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waiting_room: Option<RoomSum>,
    /// In their order of evaluation.
    pub(super) rules: Vec<RuleSum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) concurrency: Option<ConcurrencyStanding>,
}

/// A rule over all guards.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleSum {
    pub(super) name: String,
    pub(super) is_shadow: bool,
    pub(super) refused: u64,
    pub(super) would_refuse: u64,
    #[serde(flatten)]
    pub(super) stands: Stands,
}

/// What a rule is, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub(super) enum Stands {
    /// So many requests in a time.
    RateLimit {
        /// What passes at all guards; of a key, what passes at one guard at most.
        per_second: f64,
        /// At once after a pause, likewise.
        burst: u64,
        is_per_key: bool,
    },
    /// Keys that make up too much of the requests.
    HotKeys {
        /// The hottest first.
        hot: Vec<HotKeySum>,
    },
    /// Leaves the target alone.
    Breaker {
        /// At how many guards it stands so.
        closed: usize,
        half_open: usize,
        open: usize,
    },
}

/// A key that is hot at some guards.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HotKeySum {
    pub(super) key: String,
    /// Of the requests of the guard where it is hottest.
    pub(super) percent: f64,
    /// Since it became hot at the first of them.
    pub(super) seconds: u64,
    /// At how many guards.
    pub(super) guards: usize,
}

/// A service over all guards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceSum {
    pub(super) name: String,
    /// As the guard sees it that sees most.
    pub(super) endpoints: usize,
    /// With how many guards leave it alone.
    pub(super) ejected: BTreeMap<SocketAddr, usize>,
}

impl Report {
    pub(super) fn of(answers: Vec<Answer>) -> Self {
        let mut report = Self::default();
        let mut policies: BTreeMap<String, PolicySum> = BTreeMap::new();
        let mut services: BTreeMap<String, ServiceSum> = BTreeMap::new();
        for (guard, answer) in answers {
            match answer {
                Ok(standing) => {
                    add(&standing, &mut policies, &mut services);
                    let revision = standing.revision;
                    report.guards.push(Answered { guard, revision });
                }
                Err(why) => report.silent.push(Silent { guard, why }),
            }
        }
        report.policies = policies.into_values().map(PolicySum::reasoned).collect();
        report.services = services.into_values().collect();
        report
    }

    /// Who did not answer, and why.
    pub(super) fn silence(&self) -> String {
        let silent = self.silent.iter();
        let silent = silent.map(|Silent { guard, why }| format!("{guard} ({why})"));
        silent.collect::<Vec<_>>().join(", ")
    }

    /// Whether guards serve by different configurations.
    pub(super) fn is_split(&self) -> bool {
        let revisions: BTreeSet<&str> = self.guards.iter().map(|g| g.revision.as_str()).collect();
        revisions.len() > 1
    }
}

fn add(
    standing: &Standing,
    policies: &mut BTreeMap<String, PolicySum>,
    services: &mut BTreeMap<String, ServiceSum>,
) {
    for policy in &standing.policies {
        let sum = policies.entry(policy.name.clone()).or_default();
        sum.name.clone_from(&policy.name);
        sum.add(policy);
    }
    for room in &standing.rooms {
        let sum = policies.entry(room.name.clone()).or_default();
        sum.name.clone_from(&room.name);
        sum.waiting_room.get_or_insert(RoomSum::NONE).add(room);
    }
    for service in &standing.services {
        let sum = services.entry(service.name.clone());
        let sum = sum.or_insert_with(|| ServiceSum {
            name: service.name.clone(),
            endpoints: 0,
            ejected: BTreeMap::new(),
        });
        sum.endpoints = sum.endpoints.max(service.endpoints);
        for ejected in &service.ejected {
            *sum.ejected.entry(*ejected).or_default() += 1;
        }
    }
}

impl PolicySum {
    fn add(&mut self, policy: &PolicyStanding) {
        self.routes.extend(policy.routes.iter().cloned());
        self.admitted += policy.admitted;
        self.refused += policy.refused;
        for rule in &policy.rules {
            let same = |sum: &&mut RuleSum| sum.name == rule.name && sum.stands.is_like(&rule.kind);
            match self.rules.iter_mut().find(same) {
                Some(sum) => sum.add(rule),
                None => self.rules.push(RuleSum::of(rule)),
            }
        }
        if let Some(here) = &policy.concurrency {
            let sum = self.concurrency.get_or_insert(ConcurrencyStanding {
                limit: 0,
                running: 0,
                waiting: 0,
                refused: 0,
            });
            sum.limit = sum.limit.saturating_add(here.limit);
            sum.running = sum.running.saturating_add(here.running);
            sum.waiting += here.waiting;
            sum.refused += here.refused;
        }
    }

    /// With what was refused told by reason.
    fn reasoned(mut self) -> Self {
        for rule in self.rules.iter().filter(|rule| rule.refused > 0) {
            *self.refused_by.entry(rule.stands.reason()).or_default() += rule.refused;
        }
        let full = self
            .concurrency
            .map_or(0, |concurrency| concurrency.refused);
        if full > 0 {
            self.refused_by.insert("Overloaded", full);
        }
        let waiting = self.waiting_room.map_or(0, |room| room.refused);
        if waiting > 0 {
            self.refused_by.insert("Waiting", waiting);
        }
        let told: u64 = self.refused_by.values().sum();
        // The guard reads the numbers one after the other, so that what is told may be ahead of the sum.
        let other = self.refused.saturating_sub(told);
        if other > 0 {
            self.refused_by.insert("Other", other);
        }
        self
    }
}

impl RuleSum {
    fn of(rule: &RuleStanding) -> Self {
        let stands = match &rule.kind {
            RuleKind::RateLimit { is_per_key, .. } => Stands::RateLimit {
                per_second: 0.0,
                burst: 0,
                is_per_key: *is_per_key,
            },
            RuleKind::HotKeys { .. } => Stands::HotKeys { hot: Vec::new() },
            RuleKind::Breaker { .. } => Stands::Breaker {
                closed: 0,
                half_open: 0,
                open: 0,
            },
        };
        let mut sum = Self {
            name: rule.name.clone(),
            is_shadow: rule.is_shadow,
            refused: 0,
            would_refuse: 0,
            stands,
        };
        sum.add(rule);
        sum
    }

    fn add(&mut self, rule: &RuleStanding) {
        self.refused += rule.refused;
        self.would_refuse += rule.would_refuse;
        // While a change comes to one guard after the other, it refuses somewhere.
        self.is_shadow &= rule.is_shadow;
        self.stands.add(&rule.kind);
    }
}

impl Stands {
    /// The word for what it refuses.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::RateLimit { .. } => "RateLimited",
            Self::HotKeys { .. } => "HotKey",
            Self::Breaker { .. } => "BreakerOpen",
        }
    }

    fn is_like(&self, kind: &RuleKind) -> bool {
        match (self, kind) {
            (
                Self::RateLimit { is_per_key, .. },
                RuleKind::RateLimit {
                    is_per_key: other, ..
                },
            ) => is_per_key == other,
            (Self::HotKeys { .. }, RuleKind::HotKeys { .. })
            | (Self::Breaker { .. }, RuleKind::Breaker { .. }) => true,
            (Self::RateLimit { .. } | Self::HotKeys { .. } | Self::Breaker { .. }, _) => false,
        }
    }

    fn add(&mut self, kind: &RuleKind) {
        match (self, kind) {
            (
                Self::RateLimit {
                    per_second,
                    burst,
                    is_per_key,
                },
                RuleKind::RateLimit {
                    per_second: more,
                    burst: bursts,
                    ..
                },
            ) => {
                // One key comes to one guard; all requests together come to all.
                if *is_per_key {
                    *per_second = per_second.max(*more);
                    *burst = (*burst).max(u64::from(*bursts));
                } else {
                    *per_second += more;
                    *burst += u64::from(*bursts);
                }
            }
            (Self::HotKeys { hot }, RuleKind::HotKeys { hot: more }) => {
                more.iter().for_each(|key| heat(hot, key));
                hot.sort_by(|one, other| {
                    let hottest = other.percent.total_cmp(&one.percent);
                    hottest.then_with(|| one.key.cmp(&other.key))
                });
            }
            (
                Self::Breaker {
                    closed,
                    half_open,
                    open,
                },
                RuleKind::Breaker { state },
            ) => match state {
                Breaker::Closed => *closed += 1,
                Breaker::HalfOpen => *half_open += 1,
                Breaker::Open => *open += 1,
            },
            (Self::RateLimit { .. } | Self::HotKeys { .. } | Self::Breaker { .. }, _) => {}
        }
    }
}

fn heat(hot: &mut Vec<HotKeySum>, more: &HotKeyStanding) {
    if let Some(known) = hot.iter_mut().find(|known| known.key == more.key) {
        known.percent = known.percent.max(more.percent);
        known.seconds = known.seconds.max(more.seconds);
        known.guards += 1;
        return;
    }
    hot.push(HotKeySum {
        key: more.key.clone(),
        percent: more.percent,
        seconds: more.seconds,
        guards: 1,
    });
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A guard with some of everything.
    pub(in super::super) fn guard(admitted: u64, state: &str, hot: &Value) -> Standing {
        serde_json::from_value(json!({
            "revision": "r1",
            "policies": [{
                "name": "venue/venue-code", "routes": ["venue/code"],
                "admitted": admitted, "refused": 125,
                "rules": [
                    {"name": "total", "kind": "RateLimit", "perSecond": 2500.0, "burst": 2500,
                     "isShadow": false, "refused": 70, "wouldRefuse": 0},
                    {"name": "per-citizen", "kind": "RateLimit", "perSecond": 5.0, "burst": 10,
                     "isPerKey": true, "isShadow": true, "refused": 0, "wouldRefuse": 1500},
                    {"name": "venue", "kind": "HotKeys", "hot": hot,
                     "isShadow": false, "refused": 30, "wouldRefuse": 0},
                    {"name": "slow", "kind": "Breaker", "state": state,
                     "isShadow": false, "refused": 0, "wouldRefuse": 0},
                ],
                "concurrency": {"limit": 100, "running": 40, "waiting": 2, "refused": 15},
            }],
            "services": [{"name": "venue/code:8080", "endpoints": 3, "ejected": ["10.0.0.7:8080"]}],
            "rooms": [{"name": "venue/venue-code", "isShared": true, "state": "ActiveUsers", "waiting": 12,
                       "active": 50, "activeUsers": 50, "admittedPerMinute": 7, "refused": 5}],
        }))
        .unwrap()
    }

    pub(in super::super) fn two() -> Report {
        let hot = |percent: f64, seconds: u64| json!([{"key": "stadium", "percent": percent, "seconds": seconds}]);
        Report::of(vec![
            (
                "guard-0".into(),
                Ok(guard(1_000_000, "Closed", &hot(38.0, 12))),
            ),
            ("guard-1".into(), Ok(guard(234_567, "Open", &hot(41.5, 9)))),
            ("guard-2".into(), Err("connection refused".into())),
        ])
    }

    #[test]
    fn what_guards_did_is_summed_and_where_they_stand_is_told_of_each() {
        let report = two();
        let value = serde_json::to_value(&report).unwrap();
        let policy = &value["policies"][0];
        assert_eq!(
            (&policy["admitted"], &policy["refused"]),
            (&json!(1_234_567), &json!(250))
        );
        assert_eq!(policy["rules"][0]["perSecond"], json!(5000.0));
        assert_eq!(
            policy["rules"][1]["perSecond"],
            json!(5.0),
            "a key comes to one guard"
        );
        assert_eq!(
            policy["rules"][2]["hot"],
            json!([{"key": "stadium", "percent": 41.5, "seconds": 12, "guards": 2}])
        );
        let breaker = &policy["rules"][3];
        assert_eq!(
            (&breaker["closed"], &breaker["open"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(policy["concurrency"]["limit"], 200);
        assert_eq!(policy["waitingRoom"]["waiting"], 12);
        assert_eq!(policy["waitingRoom"]["admittedPerMinute"], 14);
        assert_eq!(
            value["services"],
            json!([{"name": "venue/code:8080", "endpoints": 3, "ejected": {"10.0.0.7:8080": 2}}])
        );
        assert_eq!(report.silence(), "guard-2 (connection refused)");
    }

    #[test]
    fn each_refused_request_has_one_reason() {
        let report = two();
        let by = &report.policies[0].refused_by;
        let expected = [
            ("HotKey", 60),
            ("Other", 10),
            ("Overloaded", 30),
            ("RateLimited", 140),
            ("Waiting", 10),
        ];
        assert_eq!(*by, BTreeMap::from(expected));
        assert_eq!(by.values().sum::<u64>(), report.policies[0].refused);
    }

    #[test]
    fn a_rule_that_changed_its_kind_at_one_guard_is_told_twice() {
        let mut other = guard(0, "Closed", &json!([]));
        other.revision = "r2".into();
        other.policies[0].rules[0].kind = RuleKind::Breaker {
            state: Breaker::Closed,
        };
        let answers = vec![
            ("a".into(), Ok(guard(0, "Closed", &json!([])))),
            ("b".into(), Ok(other)),
        ];
        let report = Report::of(answers);
        let rules = &report.policies[0].rules;
        assert_eq!(rules.iter().filter(|rule| rule.name == "total").count(), 2);
        assert!(report.is_split());
    }
}
