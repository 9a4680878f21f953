//! Makes a policy of its settings, out of what an earlier one remembers where the rules are the same.
//!
//! Nothing of the earlier one is changed before [`Policy::adopt`]: what is made may never be in force.

use std::sync::Arc;

use super::limit::Limit;
use super::{
    ClassRule, ConcurrencyRule, Hot, HotKeyRule, Policy, PolicyFault, PolicySettings, Rule,
};
use crate::breaker::Breaker;
use crate::concurrency::{Concurrency, Turn};
use crate::keyed::KeySeed;
use crate::tier::{Class, Classes, Tier};
use crate::time::Time;

/// What a policy is made of.
pub(super) struct Build<'a, W> {
    pub(super) settings: &'a PolicySettings,
    pub(super) before: Option<&'a Policy<W>>,
    pub(super) chance: u64,
    pub(super) now: Time,
}

impl<W> Build<'_, W> {
    pub(super) fn policy(&self, seed: KeySeed) -> Result<Policy<W>, PolicyFault> {
        let classes = self.classes()?;
        Ok(Policy {
            seed,
            limits: self.limits()?,
            hot_keys: self.hot_keys()?,
            breakers: self.breakers()?,
            concurrency: self.concurrency(&classes)?,
            classes,
            settings: self.settings.clone(),
        })
    }

    fn fault(&self, rule: &str, why: &impl ToString) -> PolicyFault {
        PolicyFault {
            policy: self.settings.name.clone(),
            rule: rule.to_owned(),
            why: why.to_string(),
        }
    }

    /// In the order in which they are asked; of equals, in that of the settings.
    fn limits(&self) -> Result<Vec<Rule<Limit>>, PolicyFault> {
        let mut limits = Vec::new();
        for rule in &self.settings.rate_limits {
            let before = self.before.map(|before| &before.limits);
            let known = before.and_then(|all| all.iter().find(|old| old.of.can_become(rule)));
            let of = match known {
                Some(old) => old.of.renew(rule.clone()),
                None => Limit::new(rule.clone()).map_err(|why| self.fault(&rule.name, &why))?,
            };
            let tally = known.map(|old| &old.tally);
            limits.push(Rule::new(&rule.name, rule.mode, tally, of));
        }
        limits.sort_by_key(|limit| limit.of.rank());
        Ok(limits)
    }

    fn hot_keys(&self) -> Result<Vec<Rule<Arc<Hot>>>, PolicyFault> {
        let make = |rule: &HotKeyRule| {
            let known = self.before.and_then(|before| {
                let all = before.settings.hot_keys.iter().zip(&before.hot_keys);
                let mut same = all.filter(|(old, _)| rule.sees_as(old));
                same.next().map(|(_, old)| old)
            });
            let of = match known {
                Some(old) => {
                    let valid = rule.hot.validate().map_err(|fault| fault.to_string());
                    valid.map(|()| Arc::clone(&old.of))
                }
                None => Hot::new(rule).map(Arc::new),
            };
            let of = of.map_err(|why| self.fault(&rule.name, &why))?;
            let tally = known.map(|old| &old.tally);
            Ok(Rule::new(&rule.name, rule.mode, tally, of))
        };
        self.settings.hot_keys.iter().map(make).collect()
    }

    fn breakers(&self) -> Result<Vec<Rule<Arc<Breaker>>>, PolicyFault> {
        let mut breakers = Vec::new();
        for (rule, number) in self.settings.breakers.iter().zip(0..) {
            let known = self.before.and_then(|before| {
                let all = before.settings.breakers.iter().zip(&before.breakers);
                let mut same = all.filter(|(old, _)| rule.is_of(old));
                same.next().map(|(_, old)| old)
            });
            let of = if let Some(old) = known {
                rule.settings.validate().map(|()| Arc::clone(&old.of))
            } else {
                let seed = self.chance.wrapping_add(number);
                Breaker::new(rule.settings.clone(), seed).map(Arc::new)
            };
            let of = of.map_err(|error| self.fault(&rule.name, &error))?;
            let tally = known.map(|old| &old.tally);
            breakers.push(Rule::new(&rule.name, rule.mode, tally, of));
        }
        Ok(breakers)
    }

    fn classes(&self) -> Result<Classes, PolicyFault> {
        let rules = &self.settings.classes;
        for (at, rule) in rules.iter().enumerate() {
            let is_same = |other: &ClassRule| !rule.name.is_empty() && other.name == rule.name;
            if rules[..at].iter().any(is_same) {
                let why = format!("two are named {:?}; name each otherwise", rule.name);
                return Err(self.fault("classes", &why));
            }
        }
        let class = |rule: &ClassRule| Class {
            tier: rule.tier,
            guaranteed_percent: rule.guaranteed_percent,
        };
        let classes = if rules.is_empty() {
            Classes::single(Tier::General)
        } else {
            let classes = rules.iter().map(class).collect();
            Classes::new(classes).map_err(|error| self.fault("classes", &error))?
        };
        Ok(match self.before {
            Some(before) => before.classes.become_these(classes, &self.known(before)),
            None => classes,
        })
    }

    /// Where each class stood before, if it was there.
    fn known(&self, before: &Policy<W>) -> Vec<Option<usize>> {
        let old = &before.settings.classes;
        let known = |(at, rule): (usize, &ClassRule)| {
            if rule.name.is_empty() {
                // Without any rule there is one class all the same, the first.
                let is_unnamed = old.get(at).map_or(at == 0, |old| old.name.is_empty());
                return is_unnamed.then_some(at);
            }
            old.iter().position(|old| old.name == rule.name)
        };
        let unsaid = ClassRule::default();
        let rules = &self.settings.classes;
        let first = rules.is_empty().then_some(&unsaid);
        first
            .into_iter()
            .chain(rules)
            .enumerate()
            .map(known)
            .collect()
    }

    /// What is under way is counted on.
    fn concurrency(&self, classes: &Classes) -> Result<Option<Arc<Concurrency<W>>>, PolicyFault> {
        let Some(rule) = self.settings.concurrency else {
            return Ok(None);
        };
        let limit = rule.limit();
        let limit = limit.map_err(|why| self.fault("concurrency", &why))?;
        let known = self.before.and_then(|before| before.concurrency.clone());
        let new = || Arc::new(Concurrency::new(limit, classes, self.now));
        Ok(Some(known.unwrap_or_else(new)))
    }
}

impl<W> Policy<W> {
    /// Puts the settings in force, also for requests that still go by the policy that this one was
    /// [renewed](Policy::renew) from. Who may run now that waited is in the answer, for the caller to wake.
    ///
    /// Of a policy that is in force already nothing changes.
    pub fn adopt(&self, now: Time) -> Vec<Turn<W>> {
        for limit in &self.limits {
            limit.of.adopt(now);
        }
        for (rule, hot) in self.settings.hot_keys.iter().zip(&self.hot_keys) {
            hot.of.found.set(rule.hot);
            hot.of.limits.set(rule.limit.pace(), now);
        }
        for (rule, breaker) in self.settings.breakers.iter().zip(&self.breakers) {
            breaker.of.set(&rule.settings, now);
        }
        let bound = self.settings.concurrency.map(ConcurrencyRule::limit);
        let (Some(concurrency), Some(Ok(limit))) = (&self.concurrency, bound) else {
            return Vec::new();
        };
        concurrency.set_classes(&self.classes);
        concurrency.set_limit(limit, now)
    }
}
