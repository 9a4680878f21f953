//! The place of one client's connection among all that may be open.

use prometheus::IntGauge;
use tokio::sync::OwnedSemaphorePermit;

/// A place, which is free when nothing of the connection is left; one that changed to another protocol keeps it.
#[derive(Debug)]
pub(super) struct Seat {
    _permit: OwnedSemaphorePermit,
    taken: IntGauge,
}

impl Seat {
    /// Takes a place and counts it among those that are taken.
    pub(super) fn take(permit: OwnedSemaphorePermit, taken: &IntGauge) -> Self {
        taken.inc();
        Self {
            _permit: permit,
            taken: taken.clone(),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.dec();
    }
}
