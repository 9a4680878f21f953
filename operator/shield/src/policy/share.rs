//! Limits that several guards hold together: each enforces its part, and says how much is asked of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Policy, RateLimit, Scope};
use crate::rate::Share;
use crate::time::Time;

/// A limit that is wider than one guard, as this guard knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedLimit {
    /// The rule.
    pub rule: Arc<str>,
    /// Whether it counts each key apart.
    pub is_keyed: bool,
    /// Requests that came to it since the start, whether they passed or not.
    pub offered: u64,
    /// The part of it that is enforced here.
    pub share: Share,
}

/// The part in force; one place for a limit and for what it becomes by other settings.
#[derive(Debug)]
pub(super) struct Held(AtomicU32);

impl Default for Held {
    /// A guard that nobody told otherwise is alone.
    fn default() -> Self {
        Self(AtomicU32::new(Share::WHOLE.as_millionths()))
    }
}

impl Held {
    pub(super) fn get(&self) -> Share {
        Share::millionths(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, share: Share) {
        self.0.store(share.as_millionths(), Ordering::Relaxed);
    }
}

impl RateLimit {
    /// Whether several guards hold it together.
    pub fn is_shared(&self) -> bool {
        self.scope != Scope::Instance
    }
}

impl<W> Policy<W> {
    /// Whether other guards let requests in to the same target.
    pub fn share_target(&self, is_shared: bool) {
        if let Some(concurrency) = self.concurrency() {
            concurrency.share(is_shared);
        }
    }

    /// The limits that are wider than this guard.
    pub fn shared(&self) -> impl Iterator<Item = SharedLimit> {
        let shared = self.limits.iter().filter(|limit| limit.of.rule.is_shared());
        shared.map(|limit| SharedLimit {
            rule: Arc::clone(&limit.name),
            is_keyed: !limit.of.rule.key.is_empty(),
            offered: limit.tally.offered.load(Ordering::Relaxed),
            share: limit.of.share(),
        })
    }

    /// From now on this part of a shared limit is enforced. Tokens stay, as far as the part has room
    /// for them, and a larger part fills with time: however often parts move, no token is made.
    pub fn set_share(&self, rule: &str, share: Share, now: Time) {
        for limit in &self.limits {
            if limit.of.rule.is_shared() && *limit.name == *rule {
                limit.of.set_share(share, now);
            }
        }
    }

    /// Shared limits go on with one token each, as one must that takes the place of a guard that
    /// ended: with a full bucket each restart would be worth a burst.
    pub fn begin_with_little(&self, now: Time) {
        for limit in &self.limits {
            if limit.of.rule.is_shared() {
                limit.of.begin_with_little(now);
            }
        }
    }
}
