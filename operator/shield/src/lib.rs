//! Decides for each request whether it may pass.
//!
//! Rate limits, breakers, concurrency, hot keys and waiting rooms as values with a few methods each, and
//! a [`Policy`] that asks all of them in one order.
//! Time is an argument ([`Time`]), secrets and seeds are arguments, nothing here waits, spawns or does
//! I/O: who calls may be a proxy, a simulation of ten years in a second, or a model checker.
//! State is shared by many threads: a decision takes a handful of atomic operations or one short
//! critical section, never a call that may block on anything else.

mod adaptive;
pub mod breaker;
mod bucket;
mod budget;
pub mod concurrency;
mod hot_keys;
mod jitter;
mod keyed;
#[cfg(all(test, loom))]
mod models;
mod outlier;
pub mod policy;
mod queue;
mod rate;
pub mod room;
mod sync;
pub mod ticket;
mod tier;
mod time;
mod warm_up;
mod window;

pub use adaptive::{Adaptive, Finished, LIMIT_MAX, LIMIT_MIN, SHARED_CYCLE};
pub use breaker::{Breaker, BreakerFault, BreakerSettings, BreakerState, Condition};
pub use bucket::Bucket;
pub use budget::{BudgetFault, BudgetSettings, RetryBudget};
pub use concurrency::{Concurrency, Permit};
pub use hot_keys::{
    HOT_KEYS_SHOWN, HotKey, HotKeyId, HotKeys, HotKeysFault, HotKeysSettings, LABEL_BYTES_MAX,
    Label,
};
pub use jitter::Jitter;
pub use keyed::{KeyHash, KeySeed, Keyed, KeyedError};
pub use outlier::{Ejections, EndpointPass, EndpointResult, Health, OutlierFault, OutlierSettings};
pub use policy::{Policy, PolicySettings};
pub use queue::Place;
pub use rate::{Pace, Quota, QuotaError, Rate, Refused, Share};
pub use tier::{Class, ClassError, ClassId, Classes, MAX_CLASSES, Tier};
pub use time::Time;
pub use warm_up::{WarmUp, WarmUpError};
pub use window::{WINDOW_BUCKETS, Window};
