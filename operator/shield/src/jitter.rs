//! Spreads moments that would otherwise coincide: retries, probes, ejections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::nanos;

/// A sequence of numbers that looks random and follows from its seed alone (SplitMix64).
///
/// Threads share it without a lock: each draw takes the next place in the sequence. It is good
/// enough to keep clients apart and no secret: whoever sees a few draws can compute the rest.
#[derive(Debug)]
pub struct Jitter(AtomicU64);

impl Jitter {
    /// The sequence of this seed.
    pub const fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number of the sequence.
    pub fn draw(&self) -> u64 {
        // The golden ratio in 64 bits: odd, so that every place of the sequence is visited once.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        mix(self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }

    /// The span, lengthened by up to so many percent of itself.
    ///
    /// It is never shortened: whoever is told to wait until something is over does not come early.
    pub fn spread(&self, span: Duration, percent: u32) -> Duration {
        // Hundreds and the rest apart: a division of 128 bits would cost more than all the rest.
        let (nanos, percent) = (nanos(span), u64::from(percent));
        let hundreds = (nanos / 100).saturating_mul(percent);
        let most = hundreds.saturating_add((nanos % 100) * percent / 100);
        // The high half of the product maps the draw onto 0..=most without a division.
        let extra = (u128::from(self.draw()) * (u128::from(most) + 1)) >> 64;
        let extra = u64::try_from(extra).unwrap_or(most);
        span.saturating_add(Duration::from_nanos(extra))
    }
}

/// Scatters a number over all 64 bits, one to one.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let jitter = Jitter::seeded(0);
        assert_eq!(jitter.draw(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(jitter.draw(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn one_seed_gives_one_sequence_and_two_seeds_give_two() {
        let three = |seed| {
            let jitter = Jitter::seeded(seed);
            [jitter.draw(), jitter.draw(), jitter.draw()]
        };
        assert_eq!(three(7), three(7));
        assert_ne!(three(7), three(8));
    }

    #[test]
    fn spans_cover_the_whole_spread_evenly() {
        let jitter = Jitter::seeded(1);
        let span = Duration::from_secs(10);
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let extra = jitter.spread(span, 50).saturating_sub(span);
            let tenth = extra.as_millis() / 500;
            tenths[usize::try_from(tenth.min(9)).unwrap()] += 1;
        }
        assert!(
            tenths.iter().all(|n| (800..1_200).contains(n)),
            "{tenths:?}"
        );
    }

    #[test]
    fn the_rest_below_a_hundred_nanoseconds_is_spread_by_its_share_too() {
        let jitter = Jitter::seeded(1);
        let spans = (0..1_000).map(|_| jitter.spread(Duration::from_nanos(98), 50));
        assert_eq!(spans.max(), Some(Duration::from_nanos(98 + 49)));
    }

    proptest! {
        #[test]
        fn a_span_is_never_shortened_nor_lengthened_too_far(
            seed: u64, span in 0..u64::MAX, percent in 0..1_000_u32
        ) {
            let span = Duration::from_nanos(span);
            let spread = Jitter::seeded(seed).spread(span, percent);
            prop_assert!(spread >= span);
            prop_assert!(spread.saturating_sub(span).as_nanos() <= span.as_nanos() * u128::from(percent) / 100);
        }
    }
}
