//! Waiting longer after each failure, with full jitter, so that a fleet that failed together does
//! not come back together.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// A doubling ceiling under which each wait is drawn at random.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is drawn below `min`, later ones below a ceiling that doubles up to `max`.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            failures: 0,
        }
    }

    /// Draws the wait after one more failure.
    pub fn wait(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        // Half the smallest ceiling is the floor: a draw near zero would be a retry at once.
        ceiling.mul_f64(random_unit()).max(self.min / 2)
    }

    /// How many failures followed each other.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets the failures: something worked.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }
}

/// A number in `[0, 1)`, good enough to spread waits.
///
/// The standard library seeds every `RandomState` differently; a crate for random numbers would
/// only serve this one line.
pub fn random_unit() -> f64 {
    // 32 bits convert to f64 without loss.
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or(0);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_its_maximum_and_falls_back_on_success() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut ceilings = Vec::new();
        for _ in 0..9 {
            ceilings.push(backoff.ceiling().as_millis());
            let wait = backoff.wait();
            assert!(wait >= Duration::from_millis(250) && wait <= Duration::from_secs(30));
        }
        assert_eq!(
            ceilings,
            [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]
        );
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(500));
    }

    #[test]
    fn a_thousand_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(1));
        for _ in 0..1000 {
            assert!(backoff.wait() <= Duration::from_secs(1));
        }
        assert_eq!(backoff.failures(), 1000);
    }

    #[test]
    fn draws_differ() {
        let draws: std::collections::BTreeSet<u64> =
            (0..50).map(|_| random_unit().to_bits()).collect();
        assert!(draws.len() > 40);
    }
}
