//! What each guard may be using of one limit, and how it is divided.

use std::time::Duration;

use shield::Share;

use super::Limit;
use crate::guard::control::shares::apportion;
use crate::guard::exchange::PERIOD;

/// A part that differs from what it should be by less than a fiftieth of an even one stays.
const STEADY_DIVISOR: u32 = 50;
/// Times over which demand is averaged, in milliseconds: it follows a rise in a second, and forgets it in
/// ten, so that a part does not leave between two waves.
const AVERAGES: [u64; 2] = [1_000, 10_000];

/// A limit, as guards use it.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) key: (String, String),
    /// By the guards' places.
    parts: Vec<Option<Part>>,
    /// What all of them may be using together, in millionths.
    taken: u64,
    /// What each that is heard is to have in the end, by their places.
    targets: Vec<Share>,
    /// Among whom and when it was divided.
    pub(super) divided: Option<(u64, Duration)>,
}

/// What one guard uses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    pub(super) offered: u64,
    /// Thousandths of a request per second, over each of [`AVERAGES`].
    flow: [u64; 2],
    pub(super) may_use: Share,
}

/// What is the same for all limits in one exchange.
pub(super) struct Round {
    pub(super) now: Duration,
    /// Of those that are there.
    pub(super) generation: u64,
    /// How many guards hold limits together.
    pub(super) count: u32,
    /// What those have that are there and were never heard.
    pub(super) strangers: Share,
    /// The places of those that are heard.
    pub(super) live: Vec<usize>,
    pub(super) is_learning: bool,
}

impl Column {
    pub(super) fn new(key: (String, String)) -> Self {
        Self {
            key,
            parts: Vec::new(),
            taken: 0,
            targets: Vec::new(),
            divided: None,
        }
    }

    pub(super) fn part(&self, slot: usize) -> Option<Part> {
        self.parts.get(slot).copied().flatten()
    }

    fn may_use(&self, slot: usize) -> Share {
        self.part(slot).unwrap_or_default().may_use
    }

    /// All changes go through here, so that the sum is that of the parts.
    pub(super) fn set(&mut self, slot: usize, part: Option<Part>) {
        if self.parts.len() <= slot {
            self.parts.resize(slot + 1, None);
        }
        let before = self.may_use(slot).as_millionths();
        let after = part.unwrap_or_default().may_use.as_millionths();
        self.taken = (self.taken + u64::from(after)).saturating_sub(u64::from(before));
        if let Some(place) = self.parts.get_mut(slot) {
            *place = part;
        }
    }

    /// A guard may be using this, or what it had if that is more.
    pub(super) fn raise(&mut self, slot: usize, share: Share) {
        let part = self.part(slot).unwrap_or_default();
        let may_use = part.may_use.max(share);
        self.set(slot, Some(Part { may_use, ..part }));
    }

    /// A guard that uses some goes on with this.
    pub(super) fn fall(&mut self, slot: usize, may_use: Share) {
        if let Some(part) = self.part(slot) {
            self.set(slot, Some(Part { may_use, ..part }));
        }
    }

    pub(super) fn decide(&mut self, limit: &Limit, slot: usize, round: &Round) -> Share {
        let mine = self.may_use(slot);
        if round.is_learning {
            return mine;
        }
        let others = self.taken.saturating_sub(mine.as_millionths().into());
        let free = Share::WHOLE.minus(round.strangers.plus(sum(others)));
        let is_current = self.divided.is_some_and(|(generation, at)| {
            generation == round.generation && round.now.saturating_sub(at) < PERIOD
        });
        if !is_current {
            self.divide(limit, round);
        }
        let target = self.targets.get(slot).copied().unwrap_or_default();
        let even = Share::one_of(round.count).as_millionths();
        let steady = Share::millionths(even / STEADY_DIVISOR);
        let is_near = target.minus(mine) <= steady && mine.minus(target) <= steady;
        if is_near && mine > Share::NONE && mine <= free {
            mine
        } else if target <= mine {
            target
        } else {
            target.min(mine.max(free))
        }
    }

    /// What each guard is to have in the end.
    fn divide(&mut self, limit: &Limit, round: &Round) {
        let live = round.live.iter().map(|slot| self.part(*slot));
        let parts: Vec<Part> = live.map(Option::unwrap_or_default).collect();
        let heard = parts.iter().map(|part| part.may_use.as_millionths());
        let heard: u64 = heard.map(u64::from).sum();
        // What those have that are silent.
        let kept = round.strangers.plus(sum(self.taken.saturating_sub(heard)));
        // Where more are silent than there should be, nobody can know what they use; those that are
        // heard are as good as they.
        let available = Share::WHOLE.minus(kept).max(Share::one_of(round.count));
        let demand = |part: &Part| if limit.is_keyed { 0 } else { part.demand() };
        let demands: Vec<u64> = parts.iter().map(demand).collect();
        let shares = apportion(scaled(limit.rate, available), &demands);
        self.targets.clear();
        self.targets.resize(self.parts.len(), Share::NONE);
        for (slot, share) in round.live.iter().zip(shares) {
            if let Some(target) = self.targets.get_mut(*slot) {
                *target = sum(scaled(share.as_millionths().into(), available));
            }
        }
        self.divided = Some((round.generation, round.now));
    }
}

impl Part {
    /// Takes in what came over a time.
    pub(super) fn flow(&mut self, came: u64, passed: Duration) {
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        // In thousandths of a request per second, times milliseconds.
        let amount = came.saturating_mul(1_000_000);
        for (flow, over) in self.flow.iter_mut().zip(AVERAGES) {
            *flow = if passed >= over {
                amount / passed
            } else {
                flow.saturating_mul(over - passed).saturating_add(amount) / over
            };
        }
    }

    fn demand(&self) -> u64 {
        self.flow.iter().copied().max().unwrap_or_default()
    }
}

fn scaled(number: u64, share: Share) -> u64 {
    let scaled = u128::from(number) * u128::from(share.as_millionths())
        / u128::from(Share::WHOLE.as_millionths());
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// So many millionths, at most the whole.
fn sum(millionths: u64) -> Share {
    Share::millionths(u32::try_from(millionths).unwrap_or(u32::MAX))
}
