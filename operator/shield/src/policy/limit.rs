//! A rate limit of any shape, as one thing that is taken from and given back to.

use std::sync::Arc;
use std::time::Duration;

use super::settings::{OnMissing, RateLimit, Scope};
use super::share::Held;
use crate::bucket::Bucket;
use crate::keyed::{KeyHash, Keyed};
use crate::rate::{Pace, Refused, Share};
use crate::time::Time;
use crate::warm_up::WarmUp;

/// A limit with its state.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) rule: RateLimit,
    state: Arc<State>,
    held: Arc<Held>,
}

#[derive(Debug)]
enum State {
    Bucket(Bucket),
    WarmUp(WarmUp),
    Keyed(Keyed),
}

impl Limit {
    pub(super) fn new(rule: RateLimit) -> Result<Self, String> {
        let pace = rule.quota.pace();
        let has_warm_up = !rule.warm_up.is_zero();
        let state = match (rule.key.is_empty(), has_warm_up) {
            (true, false) => State::Bucket(Bucket::full(pace)),
            (true, true) => {
                let warm_up = WarmUp::new(Bucket::full(pace), rule.warm_up);
                State::WarmUp(warm_up.map_err(|error| error.to_string())?)
            }
            (false, false) => {
                let keyed = Keyed::new(pace, rule.keys);
                State::Keyed(keyed.map_err(|error| error.to_string())?)
            }
            (false, true) => {
                return Err("warmUp is allowed only without a key; leave one of them out".into());
            }
        };
        Ok(Self {
            rule,
            state: Arc::new(state),
            held: Arc::default(),
        })
    }

    /// The same limit by another rule, once it is [adopted](Self::adopt): what was counted counts on.
    pub(super) fn renew(&self, rule: RateLimit) -> Self {
        Self {
            rule,
            state: Arc::clone(&self.state),
            held: Arc::clone(&self.held),
        }
    }

    /// Goes by its own rule from now on; tokens stay.
    pub(super) fn adopt(&self, now: Time) {
        self.set_pace(self.rule.quota.pace().part(self.held.get()), now);
    }

    /// How often a key lost its place among those that are told apart; none where none are.
    pub(super) fn replaced(&self) -> Option<u64> {
        match &*self.state {
            State::Bucket(_) | State::WarmUp(_) => None,
            State::Keyed(keyed) => Some(keyed.replaced()),
        }
    }

    /// The part of it that is enforced.
    pub(super) fn share(&self) -> Share {
        self.held.get()
    }

    pub(super) fn set_share(&self, share: Share, now: Time) {
        self.held.set(share);
        self.adopt(now);
    }

    pub(super) fn begin_with_little(&self, now: Time) {
        let pace = self.rule.quota.pace().part(self.held.get());
        self.set_pace(pace.without_burst(), now);
        self.set_pace(pace, now);
    }

    fn set_pace(&self, pace: Pace, now: Time) {
        match &*self.state {
            State::Bucket(bucket) => bucket.set(pace, now),
            State::WarmUp(warm_up) => warm_up.set(pace, now),
            State::Keyed(keyed) => keyed.set(pace, now),
        }
    }

    /// Whether another rule only has another pace or patience.
    pub(super) fn can_become(&self, rule: &RateLimit) -> bool {
        let RateLimit {
            name,
            scope,
            key,
            on_missing,
            quota: _,
            mode,
            max_wait: _,
            warm_up,
            keys,
        } = &self.rule;
        *name == rule.name
            && *scope == rule.scope
            && *key == rule.key
            && *on_missing == rule.on_missing
            && *mode == rule.mode
            && *warm_up == rule.warm_up
            && *keys == rule.keys
    }

    /// Where it stands in the order of evaluation: limits of keys first, then by scope.
    pub(super) fn rank(&self) -> (bool, Scope) {
        (self.rule.key.is_empty(), self.rule.scope)
    }

    /// Takes one; says how long to wait for it.
    pub(super) fn take(&self, key: KeyHash, now: Time) -> Result<Duration, Refused> {
        let max_wait = self.rule.max_wait;
        if max_wait.is_zero() {
            let taken = match &*self.state {
                State::Bucket(bucket) => bucket.take(1, now),
                State::WarmUp(warm_up) => warm_up.take(1, now),
                State::Keyed(keyed) => keyed.take(key, 1, now),
            };
            return taken.map(|()| Duration::ZERO);
        }
        match &*self.state {
            State::Bucket(bucket) => bucket.take_within(1, now, max_wait),
            State::WarmUp(warm_up) => warm_up.take_within(1, now, max_wait),
            State::Keyed(keyed) => keyed.take_within(key, 1, now, max_wait),
        }
    }

    pub(super) fn give_back(&self, key: KeyHash, now: Time) {
        match &*self.state {
            State::Bucket(bucket) => bucket.give_back(1),
            State::WarmUp(warm_up) => warm_up.give_back(1, now),
            State::Keyed(keyed) => keyed.give_back(key, 1),
        }
    }

    pub(super) fn on_missing(&self) -> OnMissing {
        self.rule.on_missing
    }
}
