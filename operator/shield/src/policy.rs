//! All rules of one target, asked in one order.
//!
//! ```text
//! admit:  limits by key ─ hot keys ─ breakers ─ Instance ─ Cluster ─ Region ─ Province ─┐
//!                                                                       Admission <─────┘
//! then    Policy::concurrency (the caller waits in its queue), the request, finish
//! ```
//!
//! Whoever refuses, what was taken before it is given back: a request that is refused for one rule
//! costs nothing in another. A rule in shadow mode counts by a state of its own and refuses nobody.

mod build;
mod limit;
mod settings;
mod share;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

pub use settings::{
    BreakerRule, ClassRule, ConcurrencyRule, HotKeyRule, KeyPart, Mode, OnMissing, PolicyFault,
    PolicySettings, RateLimit, Scope,
};
pub use share::SharedLimit;

use crate::breaker::{self, Breaker, BreakerState, Pass};
use crate::concurrency::Concurrency;
use crate::hot_keys::{HotKey, HotKeys, Label};
use crate::keyed::{KeyHash, KeySeed, Keyed};
use crate::tier::Classes;
use crate::time::Time;
use build::Build;
use limit::Limit;

/// Keys of hot keys that are limited at one time; more cannot be hot.
const HOT_LIMITS: u32 = 1024;
/// A refusal for a key that is not there passes only when the client sends one.
const MISSING_RETRY: Duration = Duration::from_secs(1);

/// All rules of one target, with what they remember. `W` is what wakes a request that waits.
#[derive(Debug)]
pub struct Policy<W> {
    settings: PolicySettings,
    seed: KeySeed,
    /// Limits by key first, then by scope.
    limits: Vec<Rule<Limit>>,
    hot_keys: Vec<Rule<Arc<Hot>>>,
    breakers: Vec<Rule<Arc<Breaker>>>,
    classes: Classes,
    concurrency: Option<Arc<Concurrency<W>>>,
}

/// A rule with what it did.
#[derive(Debug)]
struct Rule<T> {
    name: Arc<str>,
    is_enforced: bool,
    tally: Arc<Tally>,
    of: T,
}

#[derive(Debug)]
struct Hot {
    key: Vec<KeyPart>,
    found: HotKeys,
    limits: Keyed,
}

/// What a rule did since the start.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that came to a shared limit; of others nobody asks.
    offered: AtomicU64,
    refused: AtomicU64,
    would_refuse: AtomicU64,
}

/// Leave to go on. It must end by [`Policy::finish`] or [`Policy::undo`] of the policy that gave it.
#[must_use = "an admission that does not end keeps the place of a probe"]
#[derive(Debug, Default)]
pub struct Admission {
    /// How long to wait before the request is sent.
    pub wait: Duration,
    limits: SmallVec<[(usize, KeyHash); 6]>,
    hot: SmallVec<[(usize, KeyHash); 2]>,
    passes: SmallVec<[(usize, Pass); 2]>,
}

/// Which rule refuses a request, and when to come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The rule's name.
    pub rule: Arc<str>,
    /// Why.
    pub reason: Reason,
    /// When it may pass; absent where no time helps.
    pub retry_after: Option<Duration>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// More than the limit lets pass.
    RateLimited,
    /// Its key makes up too much of the requests.
    HotKey,
    /// The rule wants a key, and the request has none.
    KeyMissing,
    /// The target fails or is slow, and is left alone.
    BreakerOpen,
}

/// Where a breaker stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerStanding {
    /// The rule.
    pub rule: Arc<str>,
    /// Its state.
    pub state: BreakerState,
}

/// How a rule did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStanding {
    /// The rule.
    pub rule: Arc<str>,
    /// Requests that it refused.
    pub refused: u64,
    /// Requests that it would have refused, had it been enforced.
    pub would_refuse: u64,
}

/// Reads a part of a key from a request.
pub type Read<'a> = &'a dyn Fn(&KeyPart) -> Option<Cow<'a, [u8]>>;

impl<W> Policy<W> {
    /// A policy that remembers nothing yet.
    ///
    /// `seed` hides which keys meet in memory, `chance` spreads the returns of breakers.
    pub fn new(
        settings: &PolicySettings,
        seed: KeySeed,
        chance: u64,
        now: Time,
    ) -> Result<Self, PolicyFault> {
        let build = Build {
            settings,
            before: None,
            chance,
            now,
        };
        build.policy(seed)
    }

    /// The policy by other settings, to be [adopted](Policy::adopt) when it comes into force; until then
    /// nothing changes. Rules that stay keep what they remember.
    pub fn renew(
        &self,
        settings: &PolicySettings,
        chance: u64,
        now: Time,
    ) -> Result<Self, PolicyFault> {
        let build = Build {
            settings,
            before: Some(self),
            chance,
            now,
        };
        build.policy(self.seed)
    }

    /// `namespace/name`.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What it was made of.
    pub fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    /// The bound of what is under way, to be entered after [`Policy::admit`].
    pub fn concurrency(&self) -> Option<&Arc<Concurrency<W>>> {
        self.concurrency.as_ref()
    }

    /// The classes of requests, in the order of the settings.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Asks all rules but the concurrency.
    pub fn admit(&self, read: Read<'_>, now: Time) -> Result<Admission, Denied> {
        let mut admission = Admission::default();
        let asked = self.ask(&mut admission, read, now);
        match asked {
            Ok(()) => Ok(admission),
            Err(denied) => {
                self.undo(admission, now);
                Err(denied)
            }
        }
    }

    fn ask(&self, admission: &mut Admission, read: Read<'_>, now: Time) -> Result<(), Denied> {
        let by_key = self
            .limits
            .partition_point(|limit| !limit.of.rule.key.is_empty());
        for at in 0..by_key {
            self.ask_limit(at, admission, read, now)?;
        }
        for (at, rule) in self.hot_keys.iter().enumerate() {
            let Some(key) = self.key(&rule.of.key, read) else {
                continue;
            };
            let label = || rule.of.label(read);
            if rule.of.found.observe(key.as_u64(), label, now).is_none() {
                continue;
            }
            match rule.of.limits.take(key, 1, now) {
                Ok(()) => admission.hot.push((at, key)),
                Err(refused) => rule.refuse(Reason::HotKey, refused.retry_after())?,
            }
        }
        for (at, rule) in self.breakers.iter().enumerate() {
            match rule.of.admit(now) {
                Ok(pass) => admission.passes.push((at, pass)),
                Err(open) => rule.refuse(Reason::BreakerOpen, Some(open.retry_after))?,
            }
        }
        for at in by_key..self.limits.len() {
            self.ask_limit(at, admission, read, now)?;
        }
        Ok(())
    }

    fn ask_limit(
        &self,
        at: usize,
        admission: &mut Admission,
        read: Read<'_>,
        now: Time,
    ) -> Result<(), Denied> {
        let rule = &self.limits[at];
        let key = match self.key(&rule.of.rule.key, read) {
            Some(key) => key,
            None => match rule.of.on_missing() {
                OnMissing::Skip => return Ok(()),
                OnMissing::Refuse => return rule.refuse(Reason::KeyMissing, Some(MISSING_RETRY)),
                OnMissing::Share => self.seed.hash::<&[u8]>([]),
            },
        };
        if rule.of.rule.is_shared() {
            rule.tally.offered.fetch_add(1, Ordering::Relaxed);
        }
        match rule.of.take(key, now) {
            Ok(wait) => {
                admission.limits.push((at, key));
                if rule.is_enforced {
                    admission.wait = admission.wait.max(wait);
                }
                Ok(())
            }
            Err(refused) => rule.refuse(Reason::RateLimited, refused.retry_after()),
        }
    }

    /// The key that the parts make; none if one of them is missing.
    fn key(&self, parts: &[KeyPart], read: Read<'_>) -> Option<KeyHash> {
        self.seed.hash_all(parts.iter().map(read))
    }

    /// The request was not sent: what it took is given back.
    pub fn undo(&self, admission: Admission, now: Time) {
        for (at, key) in admission.limits {
            self.limits[at].of.give_back(key, now);
        }
        for (at, key) in admission.hot {
            self.hot_keys[at].of.limits.give_back(key, 1);
        }
        for (at, pass) in admission.passes {
            self.breakers[at].of.cancel(pass, now);
        }
    }

    /// The request was sent, and went like this.
    pub fn finish(&self, admission: Admission, outcome: breaker::Outcome, now: Time) {
        for (at, pass) in admission.passes {
            self.breakers[at].of.finish(pass, outcome, now);
        }
    }

    /// The request was sent, but its client left before anybody could tell how it went.
    pub fn forget(&self, admission: Admission, now: Time) {
        for (at, pass) in admission.passes {
            self.breakers[at].of.forget(pass, now);
        }
    }

    /// What each rule did.
    pub fn standings(&self) -> Vec<RuleStanding> {
        let limits = self.limits.iter().map(Rule::standing);
        let hot_keys = self.hot_keys.iter().map(Rule::standing);
        let breakers = self.breakers.iter().map(Rule::standing);
        limits.chain(hot_keys).chain(breakers).collect()
    }

    /// How often each rule that tells keys apart forgot one for another: the newcomer begins with less than
    /// it deserves.
    pub fn keys_replaced(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let limits = self.limits.iter();
        let limits = limits.filter_map(|rule| Some((&rule.name, rule.of.replaced()?)));
        let hot_keys = self.hot_keys.iter();
        limits.chain(hot_keys.map(|rule| (&rule.name, rule.of.limits.replaced())))
    }

    /// Where each breaker stands.
    pub fn breakers(&self, now: Time) -> Vec<BreakerStanding> {
        let standing = |rule: &Rule<Arc<Breaker>>| BreakerStanding {
            rule: Arc::clone(&rule.name),
            state: rule.of.state(now),
        };
        self.breakers.iter().map(standing).collect()
    }

    /// What is hot now, by rule.
    pub fn hot_keys(&self, now: Time) -> Vec<(Arc<str>, Vec<HotKey>)> {
        let hot = |rule: &Rule<Arc<Hot>>| (Arc::clone(&rule.name), rule.of.found.hot(now));
        self.hot_keys.iter().map(hot).collect()
    }
}

impl<T> Rule<T> {
    fn new(name: &str, mode: Mode, tally: Option<&Arc<Tally>>, of: T) -> Self {
        Self {
            name: name.into(),
            is_enforced: mode == Mode::Enforce,
            tally: tally.cloned().unwrap_or_default(),
            of,
        }
    }

    /// Counts a refusal, which is one only if the rule is enforced.
    fn refuse(&self, reason: Reason, retry_after: Option<Duration>) -> Result<(), Denied> {
        if !self.is_enforced {
            self.tally.would_refuse.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.tally.refused.fetch_add(1, Ordering::Relaxed);
        Err(Denied {
            rule: Arc::clone(&self.name),
            reason,
            retry_after,
        })
    }

    fn standing(&self) -> RuleStanding {
        RuleStanding {
            rule: Arc::clone(&self.name),
            refused: self.tally.refused.load(Ordering::Relaxed),
            would_refuse: self.tally.would_refuse.load(Ordering::Relaxed),
        }
    }
}

impl Hot {
    fn new(rule: &HotKeyRule) -> Result<Self, String> {
        Ok(Self {
            key: rule.key.clone(),
            found: HotKeys::new(rule.hot).map_err(|error| error.to_string())?,
            limits: Keyed::new(rule.limit.pace(), HOT_LIMITS).map_err(|error| error.to_string())?,
        })
    }

    /// The key as people know it.
    fn label(&self, read: Read<'_>) -> Label {
        let mut bytes = Vec::new();
        for value in self.key.iter().filter_map(read) {
            if !bytes.is_empty() {
                bytes.push(b',');
            }
            bytes.extend_from_slice(&value);
        }
        Label::escaped(&bytes)
    }
}
