//! All policies of a configuration, and the step from one to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use shield::{KeySeed, PolicySettings};

use super::{Clock, Policy, Protection};
use crate::guard::config::Tokens;
use crate::guard::serve::jwt::{self, Desk, Verifier};
use crate::guard::serve::keys::said_once;
use crate::guard::serve::metrics::TokenMetrics;
use crate::guard::serve::prepare::PrepareError;

/// All policies of a configuration.
#[derive(Debug)]
pub(in crate::guard::serve) struct Policies {
    by_name: BTreeMap<String, Arc<Policy>>,
    tokens: BTreeMap<String, Arc<Verifier>>,
    desk: Arc<Desk>,
    seed: KeySeed,
    pub(in crate::guard::serve) clock: Clock,
}

impl Policies {
    pub(in crate::guard::serve) fn new(seed: [u8; 16], tokens: TokenMetrics) -> Self {
        Self {
            by_name: BTreeMap::new(),
            tokens: BTreeMap::new(),
            desk: Desk::new(seed, tokens),
            seed: KeySeed::new(seed),
            clock: Clock::start(),
        }
    }

    /// Those of the next configuration, which may yet be refused: nothing that is in force changes before
    /// they are [adopted](Self::adopt). What is limited now stays limited.
    pub(in crate::guard::serve) fn next(
        &self,
        wanted: &BTreeMap<String, PolicySettings>,
        tokens: &BTreeMap<String, Tokens>,
    ) -> Result<Self, PrepareError> {
        let now = self.clock.now();
        let mut by_name = BTreeMap::new();
        let mut verifiers = BTreeMap::new();
        for (name, settings) in wanted {
            let before = self.by_name.get(name);
            let policy = match before {
                Some(same) if same.settings() == settings => Arc::clone(same),
                Some(before) => Arc::new(before.renew(settings, fastrand::u64(..), now)?),
                None => {
                    let chance = fastrand::u64(..);
                    Arc::new(Policy::new(settings, self.seed, chance, now)?)
                }
            };
            by_name.insert(name.clone(), policy);
            if let Some(verifier) = self.verifier(name, settings, tokens.get(name))? {
                verifiers.insert(name.clone(), verifier);
            }
        }
        Ok(Self {
            by_name,
            tokens: verifiers,
            desk: Arc::clone(&self.desk),
            seed: self.seed,
            clock: self.clock,
        })
    }

    /// Puts them in force. What they have from those before them goes by their settings from here on, also
    /// for requests that began before; who waits in a queue that got longer has its turn.
    pub(in crate::guard::serve) fn adopt(&self) {
        for (name, policy) in &self.by_name {
            let turns = policy.adopt(self.clock.now());
            if !turns.is_empty() {
                let first = self.get(name, 0);
                first.expect("a policy has a class at least").wake(turns);
            }
        }
    }

    /// All of them, by name.
    pub(in crate::guard::serve) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Policy>)> {
        self.by_name.iter()
    }

    /// A pseudonym for a key of a rule, by a secret of this process.
    pub(in crate::guard::serve) fn hide(&self, rule: &str, key: &str) -> String {
        self.desk.hide(rule, key)
    }

    /// Who verifies tokens for a policy of which claims are keys.
    fn verifier(
        &self,
        name: &str,
        settings: &PolicySettings,
        wanted: Option<&Tokens>,
    ) -> Result<Option<Arc<Verifier>>, PrepareError> {
        let claims = jwt::claims_of(settings);
        if claims.is_empty() {
            return Ok(None);
        }
        let bad = |why: String| PrepareError::Tokens {
            policy: name.to_owned(),
            why,
        };
        let wanted = wanted.ok_or_else(|| {
            bad(
                "claims are keys of its rules, and nobody says whose; add an entry of this name"
                    .to_owned(),
            )
        })?;
        let same = self.tokens.get(name);
        if let Some(same) = same.filter(|same| same.is_for(wanted, &claims)) {
            return Ok(Some(Arc::clone(same)));
        }
        let verifier = Verifier::new(wanted, &claims, &self.desk);
        let verifier = verifier.map_err(|error| bad(error.to_string()))?;
        Ok(Some(Arc::new(verifier)))
    }

    pub(in crate::guard::serve) fn get(&self, name: &str, class: usize) -> Option<Arc<Protection>> {
        let policy = self.by_name.get(name)?;
        let class = policy.classes().id(class)?;
        Some(Arc::new(Protection {
            policy: Arc::clone(policy),
            said_once: said_once(policy.settings()),
            tokens: self.tokens.get(name).cloned(),
            class,
            clock: self.clock,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::HeaderMap;
    use serde_json::json;

    use super::*;
    use crate::guard::serve::protection::{Keys, Stage};

    fn bounded(before: &Policies, max: u32) -> Policies {
        let settings = json!({"name": "ns/policy", "concurrency": {"max": max}});
        let settings = serde_json::from_value(settings).unwrap();
        let wanted = BTreeMap::from([("ns/policy".to_owned(), settings)]);
        before.next(&wanted, &BTreeMap::new()).unwrap()
    }

    #[tokio::test]
    async fn who_waits_has_its_turn_when_a_larger_bound_comes_into_force() {
        let metrics = TokenMetrics::register(&prometheus::Registry::new()).unwrap();
        let one = bounded(&Policies::new([1; 16], metrics), 1);
        one.adopt();
        let headers = HeaderMap::new();
        let keys = Keys {
            headers: &headers,
            query: None,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let protection = one.get("ns/policy", 0).unwrap();
        let first = protection.ask(&keys).unwrap();
        assert!(matches!(first, Stage::Free(_)), "{first:?}");
        let second = protection.ask(&keys).unwrap();
        assert!(matches!(second, Stage::Queued(..)), "{second:?}");
        let two = bounded(&one, 2);
        assert_eq!(protection.concurrency().snapshot().running, 1);
        two.adopt();
        assert_eq!(protection.concurrency().snapshot().running, 2);
        assert!(protection.wait(second, &keys).await.is_ok());
        assert_eq!(protection.concurrency().snapshot().running, 1);
    }
}
