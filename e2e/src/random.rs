//! Random numbers that are the same in every run.

/// A small generator: the same seed gives the same story.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins with a seed, which must not be zero.
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `bound`, which must not be zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Whether something happens that does so in so many of a hundred cases.
    pub const fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of several.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let at = self.below(all.len() as u64);
        &all[usize::try_from(at).unwrap_or(0)]
    }
}
