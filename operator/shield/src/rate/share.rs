//! The part of a limit that one of several guards holds.

use serde::{Deserialize, Serialize};

use super::Pace;
use super::quota::FILL_MAX;
use crate::time::nanos;

/// A part of a whole, in millionths.
///
/// Whole numbers, so that the parts of all guards can be added up without a rounding that makes them
/// more than the whole. A millionth of the largest rate is ten requests a second, and of the usual
/// thousand one in 17 minutes: less than anybody is given.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Share(u32);

impl Share {
    /// Nothing of it.
    pub const NONE: Self = Self(0);
    /// All of it.
    pub const WHOLE: Self = Self(1_000_000);

    /// So many millionths; the whole if they are more.
    pub const fn millionths(parts: u32) -> Self {
        if parts > Self::WHOLE.0 {
            Self::WHOLE
        } else {
            Self(parts)
        }
    }

    /// What each of so many has; the whole for one, and for none.
    pub fn one_of(count: u32) -> Self {
        Self(Self::WHOLE.0 / count.max(1))
    }

    /// In millionths.
    pub const fn as_millionths(self) -> u32 {
        self.0
    }

    /// Both together, at most the whole.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self::millionths(self.0.saturating_add(other.0))
    }

    /// What is left of it without the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Pace {
    /// This part of a pace: as much slower, with as much less burst.
    ///
    /// One token is held however small the part is, else nothing could ever pass: the bursts of all
    /// parts together are at most the whole burst, or one for each part where that is more. No part,
    /// and one that lets less than one request pass in 100 days, is [`Pace::STOPPED`].
    #[must_use]
    pub fn part(self, share: Share) -> Self {
        if share >= Share::WHOLE || self.burst() == 0 {
            return self;
        }
        let (parts, whole) = (u64::from(share.0), u64::from(Share::WHOLE.0));
        // Neither product overflows: an interval is at most 100 days, 2^53 ns, but times a million.
        let interval = (u128::from(self.interval_nanos()) * u128::from(whole))
            .div_ceil(u128::from(parts.max(1)));
        match u64::try_from(interval) {
            Ok(interval) if parts > 0 && interval <= nanos(FILL_MAX) => {
                let burst = u64::from(self.burst()) * parts / whole;
                Self::exactly(interval, u32::try_from(burst).unwrap_or(u32::MAX).max(1))
            }
            Ok(_) | Err(_) => Self::STOPPED,
        }
    }

    /// The same rate with room for one token.
    #[must_use]
    pub(crate) fn without_burst(self) -> Self {
        Self::exactly(self.interval_nanos(), self.burst().min(1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_part_of_a_pace_has_that_part_of_its_rate_and_burst() {
        let pace = Pace::per_second(1000.0, 100).unwrap();
        assert_eq!(
            pace.part(Share::one_of(4)),
            Pace::per_second(250.0, 25).unwrap()
        );
        assert_eq!(pace.part(Share::WHOLE), pace);
        let little = pace.part(Share::millionths(1));
        assert_eq!(little.interval(), Duration::from_secs(1000));
        assert_eq!(little.burst(), 1);
    }

    #[test]
    fn no_part_and_what_would_pass_nobody_stop_a_pace() {
        let pace = Pace::per_second(1.0, 5).unwrap();
        assert_eq!(pace.part(Share::NONE), Pace::STOPPED);
        let slow = Pace::per_second(1.0 / 86_400.0, 5).unwrap();
        assert_eq!(slow.part(Share::millionths(100)), Pace::STOPPED);
        assert_eq!(Pace::STOPPED.part(Share::one_of(2)), Pace::STOPPED);
    }

    #[test]
    fn parts_of_many_are_never_more_than_the_whole() {
        for count in 1..200 {
            let part = Share::one_of(count);
            let all = (0..count).fold(0, |sum, _| sum + part.as_millionths());
            assert!(all <= Share::WHOLE.as_millionths(), "{count}");
        }
    }
}
