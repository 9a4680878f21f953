//! Makes a policy of its settings, out of what an earlier one remembers where the rules are the same.

use std::sync::Arc;

use super::limit::Limit;
use super::{
    ClassRule, ConcurrencyRule, Hot, HotKeyRule, Policy, PolicyFault, PolicySettings, Rule,
};
use crate::breaker::Breaker;
use crate::concurrency::{self, Concurrency};
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
            concurrency: self.concurrency(&classes),
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
                Some(old) => old.of.renew(rule.clone(), self.now),
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
                    old.of.limits.set(rule.limit.pace(), self.now);
                    Arc::clone(&old.of)
                }
                None => Arc::new(Hot::new(rule).map_err(|why| self.fault(&rule.name, &why))?),
            };
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
                let mut same = all.filter(|(old, _)| *old == rule);
                same.next().map(|(_, old)| old)
            });
            let of = if let Some(old) = known {
                Arc::clone(&old.of)
            } else {
                let seed = self.chance.wrapping_add(number);
                let made = Breaker::new(rule.settings.clone(), seed);
                Arc::new(made.map_err(|error| self.fault(&rule.name, &error))?)
            };
            let tally = known.map(|old| &old.tally);
            breakers.push(Rule::new(&rule.name, rule.mode, tally, of));
        }
        Ok(breakers)
    }

    fn classes(&self) -> Result<Classes, PolicyFault> {
        if self.settings.classes.is_empty() {
            return Ok(Classes::single(Tier::General));
        }
        let class = |rule: &ClassRule| Class {
            tier: rule.tier,
            guaranteed_percent: rule.guaranteed_percent,
        };
        let classes = self.settings.classes.iter().map(class).collect();
        Classes::new(classes).map_err(|error| self.fault("classes", &error))
    }

    /// What is under way is counted on as long as the classes are the same.
    fn concurrency(&self, classes: &Classes) -> Option<Arc<Concurrency<W>>> {
        let wanted = self.settings.concurrency?;
        let same = self.before.filter(|before| {
            before.classes == *classes && before.settings.concurrency == Some(wanted)
        });
        let known = same.and_then(|before| before.concurrency.clone());
        let limit = match wanted {
            ConcurrencyRule::Adaptive => concurrency::Limit::Adaptive,
            ConcurrencyRule::Max(max) => concurrency::Limit::Fixed(max),
        };
        Some(known.unwrap_or_else(|| Arc::new(Concurrency::new(limit, classes, self.now))))
    }
}
