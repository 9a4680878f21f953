//! When the time of a request is over.

use std::time::Duration;

use tokio::time::Instant;

/// When the time of a request is over; it began with the request's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) at: Instant,
    /// Whether more than half of it was gone when its turn came. An endpoint that had so little of it is not blamed
    /// for what it did not do in time.
    pub(super) is_late: bool,
}

impl Due {
    /// Of a request whose turn is now.
    pub(super) fn new(began: Instant, span: Duration) -> Self {
        Self {
            at: began + span,
            is_late: began.elapsed() > span / 2,
        }
    }
}
