//! A pace that many threads read while one writes it.

use super::Pace;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A pace in two atomics. Who reads them while they are written may see half of each: the owner has a
/// word of its own by which that is noticed.
#[derive(Debug)]
pub(crate) struct SharedPace {
    interval: AtomicU64,
    burst: AtomicU32,
}

impl SharedPace {
    /// This pace.
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            interval: AtomicU64::new(pace.interval_nanos()),
            burst: AtomicU32::new(pace.burst()),
        }
    }

    /// What was written last, in the order that the owner's word gives.
    pub(crate) fn load(&self) -> Pace {
        Pace::exactly(
            self.interval.load(Ordering::Relaxed),
            self.burst.load(Ordering::Relaxed),
        )
    }

    /// Writes; one thread at a time.
    pub(crate) fn store(&self, pace: Pace) {
        self.interval
            .store(pace.interval_nanos(), Ordering::Relaxed);
        self.burst.store(pace.burst(), Ordering::Relaxed);
    }
}
