//! Atomics and locks where the order of memory matters: those of the standard library, and under `--cfg loom`
//! those of a checker that tries every order.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
