//! Draws from a seed: the distributions that arrivals and keys follow.

use crate::random::Random;

/// Bits of a draw between 0 and 1: as many as a double holds exactly.
const BITS: u32 = 53;

/// A stream of draws. Streams of one seed are independent, so that another mix of requests does
/// not move when they are sent.
#[derive(Debug, Clone)]
pub struct Draw(Random);

impl Draw {
    /// Begins the stream `stream` of `seed`; any two numbers will do.
    pub fn seeded(seed: u64, stream: u64) -> Self {
        let mixed = scatter(seed ^ scatter(stream));
        // The generator stands still at zero.
        Self(Random::seeded(if mixed == 0 { 1 } else { mixed }))
    }

    /// Uniform in [0, 1).
    #[expect(
        clippy::cast_precision_loss,
        reason = "as many bits as a double holds are drawn"
    )]
    pub fn unit(&mut self) -> f64 {
        self.0.below(1 << BITS) as f64 / (1_u64 << BITS) as f64
    }

    /// Exponential with mean 1: the gaps of a Poisson process of rate 1.
    pub fn exponential(&mut self) -> f64 {
        // 1 - unit is never zero, so that the logarithm is finite.
        -(1.0 - self.unit()).ln()
    }

    /// Uniform below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }
}

/// Running sums of weights, from which one of them is drawn by its share.
#[derive(Debug, Clone)]
pub struct Shares(Vec<f64>);

impl Shares {
    /// Sums up `weights`, which must not be negative, nor all zero.
    pub fn of(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        Self(
            weights
                .into_iter()
                .map(|weight| {
                    sum += weight;
                    sum
                })
                .collect(),
        )
    }

    /// The place of the drawn weight.
    pub fn draw(&self, draw: &mut Draw) -> usize {
        let all = self.0.last().copied().unwrap_or(0.0);
        let at = draw.unit() * all;
        // Rounding may put a draw on the very end.
        self.0
            .partition_point(|sum| *sum <= at)
            .min(self.0.len().saturating_sub(1))
    }
}

/// Spreads near seeds far apart: people choose 1, 2, 3, whose first draws would be alike.
const fn scatter(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
