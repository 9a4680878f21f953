//! How often something may happen: [`Pace`] per key for writes, [`Dirty`] for a loop's wake-ups.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::Notify,
    time::{Duration, Instant, sleep_until},
};

/// At most once per interval for each key: the first time at once, then spaced.
///
/// Pure: the caller passes the time, and comes back at the moment it is told.
#[derive(Clone, Debug)]
pub struct Pace<K> {
    interval: Duration,
    last: BTreeMap<K, Instant>,
    /// Entries older than the interval say nothing; they are swept when the map doubles.
    sweep_at: usize,
}

/// The answer of [`Pace::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Go ahead; the next turn for this key is one interval away.
    Now,
    /// Too soon: ask again at this moment.
    At(Instant),
}

/// Below this size sweeping is not worth the walk.
const SWEEP_FLOOR: usize = 256;

impl<K: Ord> Pace<K> {
    /// A pace of one turn per `interval` for each key.
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: BTreeMap::new(),
            sweep_at: SWEEP_FLOOR,
        }
    }

    /// May `key` have its turn at `now`? A yes is remembered as taken.
    pub fn admit(&mut self, key: K, now: Instant) -> Turn {
        if let Some(last) = self.last.get(&key) {
            let next = *last + self.interval;
            if next > now {
                return Turn::At(next);
            }
        }
        self.sweep(now);
        self.last.insert(key, now);
        Turn::Now
    }

    fn sweep(&mut self, now: Instant) {
        if self.last.len() < self.sweep_at {
            return;
        }
        let interval = self.interval;
        self.last.retain(|_, last| *last + interval > now);
        self.sweep_at = (self.last.len() * 2).max(SWEEP_FLOOR);
    }
}

/// A coalescing wake-up: any number of marks between two turns of a loop are one.
///
/// Watches hold clones and [`mark`](Self::mark); the loop holds one and waits.
#[derive(Clone, Debug, Default)]
pub struct Dirty {
    notify: Arc<Notify>,
    last_wake: Option<Instant>,
}

/// Why a loop woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Something was marked.
    Dirty,
    /// The moment it asked for has come.
    Due,
}

impl Dirty {
    /// A wake-up with nothing marked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the world changed. Never blocks.
    pub fn mark(&self) {
        self.notify.notify_one();
    }

    /// Waits for a mark or for `wake_at`, and at least `min_gap` since this handle last woke.
    ///
    /// What is marked during the gap belongs to the turn that follows it. For one waiter: clones
    /// are for marking. Cancel safe, except that a mark taken just before is lost with the future.
    pub async fn wait(&mut self, min_gap: Duration, wake_at: Option<Instant>) -> Wake {
        let wake = match wake_at {
            None => self.marked().await,
            Some(at) => tokio::select! {
                biased;
                wake = self.marked() => wake,
                () = sleep_until(at) => Wake::Due,
            },
        };
        if let Some(last) = self.last_wake {
            sleep_until(last + min_gap).await;
        }
        // The turn that starts now sees whatever was marked while we held back.
        let _ = futures::FutureExt::now_or_never(self.notify.notified());
        self.last_wake = Some(Instant::now());
        wake
    }

    async fn marked(&self) -> Wake {
        self.notify.notified().await;
        Wake::Dirty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_turn_is_immediate_and_the_next_a_second_later() {
        let mut pace = Pace::new(SECOND);
        let start = Instant::now();
        assert_eq!(pace.admit("slice", start), Turn::Now);
        let soon = start + Duration::from_millis(300);
        assert_eq!(pace.admit("slice", soon), Turn::At(start + SECOND));
        assert_eq!(pace.admit("other", soon), Turn::Now);
        assert_eq!(pace.admit("slice", start + SECOND), Turn::Now);
        assert_eq!(
            pace.admit("slice", start + SECOND),
            Turn::At(start + SECOND * 2)
        );
    }

    #[test]
    fn a_pace_forgets_keys_that_no_longer_matter() {
        let mut pace = Pace::new(SECOND);
        let start = Instant::now();
        for key in 0..10_000_u32 {
            assert_eq!(pace.admit(key, start + SECOND * key), Turn::Now);
        }
        assert!(pace.last.len() <= SWEEP_FLOOR);
    }

    #[tokio::test]
    async fn many_marks_make_one_turn() {
        let mut dirty = Dirty::new();
        let marker = dirty.clone();
        (0..100).for_each(|_| marker.mark());
        assert_eq!(dirty.wait(Duration::ZERO, None).await, Wake::Dirty);
        let soon = Some(Instant::now() + Duration::from_millis(20));
        assert_eq!(dirty.wait(Duration::ZERO, soon).await, Wake::Due);
    }

    #[tokio::test]
    async fn turns_keep_their_distance_and_absorb_marks_made_meanwhile() {
        let gap = Duration::from_millis(50);
        let mut dirty = Dirty::new();
        let marker = dirty.clone();
        marker.mark();
        dirty.wait(gap, None).await;
        let first = Instant::now();
        marker.mark();
        let during = marker.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            during.mark();
        });
        assert_eq!(dirty.wait(gap, None).await, Wake::Dirty);
        assert!(first.elapsed() + Duration::from_millis(1) >= gap);
        let soon = Some(Instant::now() + Duration::from_millis(20));
        assert_eq!(dirty.wait(gap, soon).await, Wake::Due);
    }
}
