//! What rules did and where they stand, read when somebody asks: nothing is counted for it on the way of
//! a request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};
use shield::policy::{KeyPart, Mode};
use shield::{BreakerState, Label, Share};

use super::prepare::Serving;
use super::protection::{Policies, Policy};
use super::proxy::Shared;
use crate::guard::standing::{
    Breaker, ConcurrencyStanding, HotKeyStanding, PolicyStanding, RuleKind, RuleStanding,
    ServiceStanding, Standing,
};

/// Fills its metrics when they are scraped, so that what is gone leaves no series behind.
#[derive(Debug)]
pub(super) struct Scrape {
    shared: Arc<Shared>,
    families: Mutex<Families>,
    descriptions: Vec<Desc>,
}

#[derive(Debug)]
struct Families {
    breakers: IntGaugeVec,
    hot_keys: IntGaugeVec,
    rates: GaugeVec,
    shadowed: IntCounterVec,
    keys_replaced: IntCounterVec,
    ejected: IntGaugeVec,
    expiries: IntGaugeVec,
}

impl Scrape {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, prometheus::Error> {
        let families = Families::new()?;
        let descriptions = families.all().into_iter().flat_map(Collector::desc);
        let descriptions = descriptions.cloned().collect();
        Ok(Self {
            shared,
            families: Mutex::new(families),
            descriptions,
        })
    }
}

impl Collector for Scrape {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        families.fill(&self.shared);
        families
            .all()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

impl Families {
    fn new() -> Result<Self, prometheus::Error> {
        let integers =
            |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
            breakers: integers(
                "jiuzhou_breaker_state",
                "0 closed, 1 half open or letting in a growing share, 2 open.",
                &["route", "rule"],
            )?,
            hot_keys: integers(
                "jiuzhou_hot_keys",
                "Keys that are limited alone now, by policy/rule.",
                &["rule"],
            )?,
            rates: GaugeVec::new(
                Opts::new(
                    "jiuzhou_limit_lease_rate",
                    "Requests per second that this guard lets pass, by policy/rule.",
                ),
                &["rule"],
            )?,
            shadowed: IntCounterVec::new(
                Opts::new(
                    "jiuzhou_requests_shadowed_total",
                    "Requests that a rule in shadow mode would have refused.",
                ),
                &["route", "rule", "reason"],
            )?,
            keys_replaced: IntCounterVec::new(
                Opts::new(
                    "jiuzhou_keys_replaced_total",
                    "Keys that were forgotten for others since more came than are told apart, by policy/rule.",
                ),
                &["rule"],
            )?,
            ejected: integers(
                "jiuzhou_endpoints_ejected",
                "Endpoints of a route's services that get no requests now since they fail.",
                &["route"],
            )?,
            expiries: integers(
                "jiuzhou_certificate_expiry_timestamp_seconds",
                "When a certificate that is shown to clients ends, or one that it stands by.",
                &["certificate"],
            )?,
        })
    }

    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.breakers,
            &self.hot_keys,
            &self.rates,
            &self.shadowed,
            &self.keys_replaced,
            &self.ejected,
            &self.expiries,
        ]
    }

    fn fill(&self, shared: &Shared) {
        self.breakers.reset();
        self.hot_keys.reset();
        self.rates.reset();
        self.shadowed.reset();
        self.keys_replaced.reset();
        self.ejected.reset();
        self.expiries.reset();
        let serving = shared.current.load();
        let all = standing(shared);
        for policy in &all.policies {
            for rule in &policy.rules {
                self.fill_rule(policy, rule);
            }
        }
        for (name, policy) in serving.policies.iter() {
            for (rule, replaced) in policy.keys_replaced() {
                let counter = self.keys_replaced.with_label_values(&[label(name, rule)]);
                counter.inc_by(replaced);
            }
        }
        for (route, ejected) in ejected(&serving) {
            self.ejected.with_label_values(&[route]).set(ejected);
        }
        for (name, end) in &serving.expiries {
            self.expiries.with_label_values(&[name]).set(*end);
        }
    }

    fn fill_rule(&self, policy: &PolicyStanding, rule: &RuleStanding) {
        let label = label(&policy.name, &rule.name);
        let reason = match &rule.kind {
            RuleKind::RateLimit { per_second, .. } => {
                self.rates.with_label_values(&[&label]).set(*per_second);
                "RateLimited"
            }
            RuleKind::HotKeys { hot } => {
                let count = i64::try_from(hot.len()).unwrap_or(i64::MAX);
                self.hot_keys.with_label_values(&[&label]).set(count);
                "HotKey"
            }
            RuleKind::Breaker { state } => {
                for route in &policy.routes {
                    let gauge = self.breakers.with_label_values(&[route, &rule.name]);
                    // Two rules of a route may have policies with breakers of one name: the worse is shown.
                    gauge.set(gauge.get().max(*state as i64));
                }
                "BreakerOpen"
            }
        };
        if rule.is_shadow {
            // What routes share is counted together; it belongs to none of them alone.
            let route = match policy.routes.as_slice() {
                [only] => only.as_str(),
                _ => "",
            };
            let counter = self
                .shadowed
                .with_label_values(&[route, &rule.name, reason]);
            counter.inc_by(rule.would_refuse);
        }
    }
}

/// Rules are unique in a policy, and one policy may protect many routes.
fn label(policy: &str, rule: &str) -> String {
    format!("{policy}/{rule}")
}

/// How many endpoints of each route's services are ejected.
fn ejected(serving: &Serving) -> BTreeMap<&str, i64> {
    let mut services: BTreeMap<&str, BTreeMap<*const (), i64>> = BTreeMap::new();
    for rule in &serving.rules {
        let of_route = services.entry(rule.route.as_str()).or_default();
        for service in rule.services() {
            let ejected = i64::try_from(service.ejected().len()).unwrap_or(i64::MAX);
            of_route.insert(Arc::as_ptr(service).cast(), ejected);
        }
    }
    let sums = services.into_iter();
    sums.map(|(route, of_route)| (route, of_route.values().sum()))
        .collect()
}

/// Everything, for people and their tools.
pub(super) fn standing(shared: &Shared) -> Standing {
    let serving = shared.current.load();
    let policies = serving.policies.iter();
    let services = serving.services.iter();
    Standing {
        revision: serving.revision.clone(),
        policies: policies
            .map(|(name, policy)| of_policy(name, policy, &serving))
            .collect(),
        services: services
            .map(|(name, service)| ServiceStanding {
                name: name.clone(),
                endpoints: service.count(),
                ejected: service.ejected(),
            })
            .collect(),
        rooms: serving.rooms.standings(),
    }
}

fn of_policy(name: &str, policy: &Policy, serving: &Serving) -> PolicyStanding {
    let protected = serving.rules.iter();
    let protected = protected.filter(|rule| rule.policy.as_deref() == Some(name));
    let (mut routes, mut admitted, mut refused) = (BTreeSet::new(), 0, 0);
    for rule in protected {
        // Counted by route: several rules of one have the same numbers.
        if routes.insert(rule.route.clone()) {
            let counts = rule.metrics.counts();
            admitted += counts.admitted;
            refused += counts.refused;
        }
    }
    let concurrency = policy.concurrency().map(|concurrency| {
        let snapshot = concurrency.snapshot();
        let tiers = snapshot.tiers.iter();
        let of_tier = |tier: &shield::concurrency::Counts| {
            let refused = tier.queue_full + tier.displaced + tier.expired;
            (tier.waiting, refused)
        };
        let (waiting, refused) = tiers
            .map(of_tier)
            .fold((0, 0), |(w, r), (waiting, refused)| {
                (w + waiting, r + refused)
            });
        ConcurrencyStanding {
            limit: snapshot.limit,
            running: snapshot.running,
            waiting,
            refused,
        }
    });
    PolicyStanding {
        name: name.to_owned(),
        routes: routes.into_iter().collect(),
        admitted,
        refused,
        rules: rules(policy, serving),
        concurrency,
    }
}

fn rules(policy: &Policy, serving: &Serving) -> Vec<RuleStanding> {
    let now = serving.policies.clock.now();
    let hot = policy.hot_keys(now);
    let breakers = policy.breakers(now);
    let settings = policy.settings();
    // What is divided among guards is told as far as it is this one's, so that their sum is the whole.
    let parts: BTreeMap<_, _> = policy.shared().map(|l| (l.rule, l.share)).collect();
    let kind_of = |name: &str| -> Option<(Mode, RuleKind)> {
        if let Some(limit) = settings.rate_limits.iter().find(|l| l.name == name) {
            let part = parts.get(name).copied().unwrap_or(Share::WHOLE);
            let of_whole =
                f64::from(part.as_millionths()) / f64::from(Share::WHOLE.as_millionths());
            let kind = RuleKind::RateLimit {
                per_second: limit.quota.rate().per_second() * of_whole,
                burst: limit.quota.pace().part(part).burst(),
                is_per_key: !limit.key.is_empty(),
            };
            return Some((limit.mode, kind));
        }
        if let Some((_, hot)) = hot.iter().find(|(rule, _)| **rule == *name) {
            let rule = settings.hot_keys.iter().find(|rule| rule.name == name)?;
            let hot = hot.iter().map(|hot| HotKeyStanding {
                key: shown(&rule.key, name, &hot.name, &serving.policies),
                percent: hot.share * 100.0,
                seconds: now.since(hot.since).as_secs(),
            });
            let hot = hot.collect();
            return Some((rule.mode, RuleKind::HotKeys { hot }));
        }
        let standing = breakers.iter().find(|breaker| *breaker.rule == *name)?;
        let rule = settings.breakers.iter().find(|rule| rule.name == name)?;
        let state = match standing.state {
            BreakerState::Closed => Breaker::Closed,
            BreakerState::HalfOpen { .. } | BreakerState::Recovering { .. } => Breaker::HalfOpen,
            BreakerState::Open { .. } => Breaker::Open,
        };
        Some((rule.mode, RuleKind::Breaker { state }))
    };
    let standings = policy.standings().into_iter();
    let rules = standings.filter_map(|standing| {
        let (mode, kind) = kind_of(&standing.rule)?;
        Some(RuleStanding {
            name: standing.rule.to_string(),
            is_shadow: mode == Mode::Shadow,
            refused: standing.refused,
            would_refuse: standing.would_refuse,
            kind,
        })
    });
    rules.collect()
}

/// A hot key as people may see it. Headers and cookies say who somebody is, or prove it; everybody may see what
/// is asked for, and claims of tokens are pseudonyms already.
fn shown(parts: &[KeyPart], rule: &str, key: &Label, policies: &Policies) -> String {
    let is_hidden = |part: &KeyPart| match part {
        KeyPart::Header(_) | KeyPart::Cookie(_) => true,
        KeyPart::Query(_) | KeyPart::ClientAddress | KeyPart::JwtClaim(_) => false,
    };
    if parts.iter().any(is_hidden) {
        policies.hide(rule, key.as_str())
    } else {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::guard::serve::metrics::TokenMetrics;

    #[test]
    fn a_hot_key_of_a_cookie_or_a_header_is_shown_as_a_pseudonym() {
        let policies = |seed| {
            let metrics = TokenMetrics::register(&prometheus::Registry::new()).unwrap();
            Policies::new([seed; 16], metrics)
        };
        let (here, elsewhere) = (policies(1), policies(2));
        let key = Label::escaped(b"venue,session");
        let venue = KeyPart::Query("venue".into());
        assert_eq!(
            shown(std::slice::from_ref(&venue), "rule", &key, &here),
            "venue,session"
        );
        for secret in [
            KeyPart::Cookie("id".into()),
            KeyPart::Header(HeaderName::from_static("x-id")),
        ] {
            let parts = [venue.clone(), secret];
            let one = shown(&parts, "rule", &key, &here);
            assert_eq!(one.len(), 16, "{one}");
            assert!(!one.contains("session"));
            assert_eq!(one, shown(&parts, "rule", &key, &here));
            assert_ne!(one, shown(&parts, "rule", &key, &elsewhere));
        }
    }
}
