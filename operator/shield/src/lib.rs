//! Decides for each request whether it may pass.
//!
//! Rate limits, breakers, concurrency, hot keys and waiting rooms as values with a few methods each.
//! Time is an argument ([`Time`]), secrets and seeds are arguments, nothing here waits, spawns or does
//! I/O: who calls may be a proxy, a simulation of ten years in a second, or a model checker.
//! State is shared by many threads: a decision takes a handful of atomic operations or one short
//! critical section, never a call that may block on anything else.

mod bucket;
mod keyed;
mod rate;
mod breaker;
mod budget;
mod hot_keys;
mod jitter;
mod outlier;
mod adaptive;
mod concurrency;
mod queue;
mod tier;
pub mod room;
pub mod ticket;
mod time;
mod warm_up;

pub use bucket::Bucket;
pub use keyed::{KeyHash, KeySeed, Keyed, KeyedError};
pub use rate::{Pace, Quota, QuotaError, Rate, Refused};
pub use adaptive::{Adaptive, Finished, LIMIT_MAX, LIMIT_MIN};
pub use concurrency::{
    Concurrency, Counts, Entered, Limit, Outcome, Permit, QUEUE_MIN, QUEUE_PER_PERMIT,
    RETRY_AFTER_MAX, Reason, Refusal, Snapshot, Turn, WAIT_MAX,
};
pub use queue::Place;
pub use tier::{Class, ClassError, ClassId, Classes, MAX_CLASSES, Tier};
pub use time::Time;
pub use warm_up::{WarmUp, WarmUpError};
mod window;

pub use breaker::{
    Breaker, BreakerFault, BreakerSettings, BreakerState, Condition, Open, Outcome, Pass,
};
pub use budget::{BudgetFault, BudgetSettings, RetryBudget};
pub use hot_keys::{
    HOT_KEYS_SHOWN, HotKey, HotKeyId, HotKeys, HotKeysFault, HotKeysSettings, LABEL_BYTES_MAX,
    Label,
};
pub use jitter::Jitter;
pub use outlier::{Ejections, Entry, Health, OutlierFault, OutlierSettings, Verdict};
pub use outlier::{Ejections, EndpointPass, EndpointResult, Health, OutlierFault, OutlierSettings};
pub use window::{WINDOW_BUCKETS, Window};
