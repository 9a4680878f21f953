//! Finds the keys that make up too much of a rule's traffic.
//!
//! Counting every key would take memory without bound, so a table of fixed size counts the most
//! frequent ones and lets the others displace each other ([`table`]). What it counts for a key is
//! never more than what was asked, so that no cold key is called hot however many there are.
//!
//! Everything is judged by what was **offered** within three seconds: a hot key stays hot while it
//! is being refused, and until it has fallen to half of what made it hot.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Time;

mod label;
mod table;

pub use self::label::{LABEL_BYTES_MAX, Label};

use self::table::{Counts, SLOTS, Table};

/// Hot keys that a status shows.
pub const HOT_KEYS_SHOWN: usize = 32;

/// Hot keys at once: with the least threshold of one percent, two hundred keys can be above half.
const HOT_KEYS_MAX: usize = 200;

/// Nanoseconds of a slot: three of them make the three seconds within which a key is found.
const SLOT_NANOS: u64 = 1_000_000_000;

/// Requests for a key before it can be hot: with fewer, a share is a matter of luck. A key of one
/// percent comes that often among the first hundred requests once in ten million times.
const KEY_REQUESTS_MIN: u64 = 10;

/// The most that the least rate may be: a rule that sees more has hot keys to speak of.
const MIN_PER_SECOND_MAX: u32 = 1_000_000;

/// When a key is hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HotKeysSettings {
    /// Its share of the rule's requests, 1 to 100 percent.
    pub hot_at_percent: u32,
    /// Requests per second that the rule must see before any key is hot.
    #[serde(default = "default_min_per_second")]
    pub min_per_second: u32,
}

const fn default_min_per_second() -> u32 {
    20
}

/// Why settings of hot keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("hot keys: {field} is {found}, allowed is {least} to {most}")]
pub struct HotKeysFault {
    /// The field as its user writes it.
    pub field: &'static str,
    /// What it says.
    pub found: u32,
    /// The least it may say.
    pub least: u32,
    /// The most it may say.
    pub most: u32,
}

/// Identifies a hot key. It is the same each time the key is hot, so that a limit kept under it
/// gives no fresh quota to a key that cooled down and came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HotKeyId(u64);

impl HotKeyId {
    /// The hash under which the key was observed.
    pub const fn hash(self) -> u64 {
        self.0
    }
}

/// A key that is hot now.
#[derive(Debug, Clone, PartialEq)]
pub struct HotKey {
    /// The key, fit to be shown.
    pub name: Label,
    /// Its share of the requests offered to the rule lately, 0 to 1.
    pub share: f64,
    /// When it became hot.
    pub since: Time,
}

/// The hot keys of one rule, shared by all threads.
#[derive(Debug)]
pub struct HotKeys {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: HotKeysSettings,
    table: Table,
    /// All requests of the rule.
    total: Counts,
    hot: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    key: u64,
    /// None for the moment in which its name is being made.
    name: Option<Label>,
    since: Time,
}

/// What a request for a key means.
enum Finding {
    Cold,
    Hot,
    /// It is hot as of now and has no name yet.
    Turned,
}

impl HotKeysSettings {
    /// Says the first field that is out of bounds.
    pub fn validate(&self) -> Result<(), HotKeysFault> {
        let Self {
            hot_at_percent,
            min_per_second,
        } = *self;
        for (field, found, least, most) in [
            ("hotAtPercent", hot_at_percent, 1, 100),
            ("minPerSecond", min_per_second, 1, MIN_PER_SECOND_MAX),
        ] {
            if !(least..=most).contains(&found) {
                return Err(HotKeysFault {
                    field,
                    found,
                    least,
                    most,
                });
            }
        }
        Ok(())
    }
}

impl HotKeys {
    /// Nothing seen, nothing hot.
    pub fn new(settings: HotKeysSettings) -> Result<Self, HotKeysFault> {
        settings.validate()?;
        Ok(Self {
            inner: Mutex::new(Inner {
                settings,
                table: Table::new(),
                total: Counts::default(),
                hot: Vec::new(),
            }),
        })
    }

    /// Goes by other settings from now on, which were [validated](HotKeysSettings::validate). What was counted
    /// counts on, and what is hot stays so until it is asked for too little.
    pub(crate) fn set(&self, settings: HotKeysSettings) {
        self.lock().settings = settings;
    }

    /// Counts a request offered for this key, and says whether the key is hot.
    ///
    /// It is to be asked for every request before the limit of hot keys is, and the limit only if
    /// the answer is some. The hash should depend on a secret: who can choose many keys with equal
    /// hashes can hide one among them. The name is asked for only when the key becomes hot.
    pub fn observe(&self, key: u64, name: impl FnOnce() -> Label, now: Time) -> Option<HotKeyId> {
        let finding = self.lock().observe(key, now);
        match finding {
            Finding::Cold => None,
            Finding::Hot => Some(HotKeyId(key)),
            Finding::Turned => {
                // Named without the lock: it is the caller's code and allocates.
                let name = name();
                self.lock().name(key, name);
                Some(HotKeyId(key))
            }
        }
    }

    /// The hottest keys of now, the hottest first, [`HOT_KEYS_SHOWN`] at most.
    pub fn hot(&self, now: Time) -> Vec<HotKey> {
        let mut inner = self.lock();
        inner.advance(now);
        let mut hot: Vec<_> = inner
            .hot
            .iter()
            .filter_map(|known| {
                let name = known.name.clone()?;
                let share = share(&inner.table, known.key, inner.total.sum());
                let since = known.since;
                Some(HotKey { name, share, since })
            })
            .collect();
        drop(inner);
        hot.sort_by(|a, b| {
            b.share
                .total_cmp(&a.share)
                .then_with(|| a.name.cmp(&b.name))
        });
        hot.truncate(HOT_KEYS_SHOWN);
        hot
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn observe(&mut self, key: u64, now: Time) -> Finding {
        self.advance(now);
        let slot = self.total.slot();
        self.total.add(slot);
        let total = self.total.sum();
        let Some(entry) = self.table.count(key, slot) else {
            return Finding::Cold;
        };
        let own = entry.counted.sum();
        let percent = u64::from(self.settings.hot_at_percent);
        if entry.is_hot {
            if is_share_above_half(own, total, percent) {
                return Finding::Hot;
            }
            entry.is_hot = false;
            self.hot.retain(|known| known.key != key);
            return Finding::Cold;
        }
        let is_hot = own >= KEY_REQUESTS_MIN
            && own * 100 >= total * percent
            && is_busy(total, now, self.settings.min_per_second)
            && self.hot.len() < HOT_KEYS_MAX;
        if !is_hot {
            return Finding::Cold;
        }
        entry.is_hot = true;
        self.hot.push(Known {
            key,
            name: None,
            since: now,
        });
        Finding::Turned
    }

    fn name(&mut self, key: u64, name: Label) {
        // It may have cooled down meanwhile; then the name is of no use.
        if let Some(known) = self.hot.iter_mut().find(|known| known.key == key) {
            known.name = Some(name);
        }
    }

    /// Moves on to the slot of this moment; what is hot but no longer asked for cools down then.
    fn advance(&mut self, now: Time) {
        let slot = now.as_nanos() / SLOT_NANOS;
        if !self.total.advance(slot) {
            return;
        }
        let total = self.total.sum();
        let percent = u64::from(self.settings.hot_at_percent);
        let table = &mut self.table;
        self.hot.retain(|known| {
            table.entry_mut(known.key).is_some_and(|entry| {
                entry.advance(slot);
                entry.is_hot = is_share_above_half(entry.counted.sum(), total, percent);
                entry.is_hot
            })
        });
    }
}

/// The share of a hot key, as of the slot that the total stands at.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of three seconds are far below 2^52"
)]
fn share(table: &Table, key: u64, total: u64) -> f64 {
    let own = table.entry(key).map_or(0, |entry| entry.counted.sum());
    own as f64 / total.max(1) as f64
}

/// Whether a key that is hot remains so.
fn is_share_above_half(own: u64, total: u64, percent: u64) -> bool {
    own * 200 > total * percent
}

/// Whether so many requests are the least rate over the seconds that the slots cover now.
fn is_busy(total: u64, now: Time, min_per_second: u32) -> bool {
    let covered = (SLOTS as u64 - 1) * SLOT_NANOS + now.as_nanos() % SLOT_NANOS;
    let least = u128::from(min_per_second) * u128::from(covered);
    u128::from(total) * u128::from(SLOT_NANOS) >= least
}

#[cfg(test)]
mod tests;
