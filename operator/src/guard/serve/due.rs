//! When the time of a request is over.

use std::time::Duration;

use tokio::time::Instant;

/// An endpoint that had this long is to blame in any case: else who keeps a limit busy would hide one that hangs.
const ENOUGH: Duration = Duration::from_secs(5);

/// When the time of a request is over; it began with the request's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) at: Instant,
    /// Whether more than half of it was gone when its turn came, and little was left. An endpoint that had so little
    /// of it is not blamed for what it did not do in time.
    pub(super) is_late: bool,
}

impl Due {
    /// Of a request whose turn is now.
    pub(super) fn new(began: Instant, span: Duration) -> Self {
        let waited = began.elapsed();
        Self {
            at: began + span,
            is_late: waited > span / 2 && span.saturating_sub(waited) < ENOUGH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_long_and_has_little_left_is_late() {
        let late = |waited: u64, span: u64| {
            let began = Instant::now().checked_sub(Duration::from_secs(waited));
            Due::new(began.unwrap(), Duration::from_secs(span)).is_late
        };
        assert!(late(3, 4));
        assert!(!late(1, 4));
        assert!(!late(20, 30), "ten seconds are enough for an endpoint");
        assert!(late(26, 30));
    }
}
