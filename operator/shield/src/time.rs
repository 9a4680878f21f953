//! Moments, as the caller's clock tells them.

use std::time::Duration;

/// A moment: nanoseconds since some start that the caller chose, on a clock that never goes back.
///
/// It holds 584 years, so sums saturate in theory only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);

    /// The moment so many nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment this much later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A span in nanoseconds, as far as 64 bits hold them.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_what_lies_between_and_never_negative() {
        let start = Time::from_nanos(5);
        let end = start.after(Duration::from_nanos(7));
        assert_eq!(end.since(start), Duration::from_nanos(7));
        assert_eq!(start.since(end), Duration::ZERO);
        assert_eq!(end.after(Duration::MAX).as_nanos(), u64::MAX);
    }
}
