//! Counts what happened lately, in a window that slides.

use std::time::Duration;

use crate::time::{Time, nanos};

/// Buckets of a window unless told otherwise: what is counted is at most a tenth older than the
/// window, and moving on touches ten small arrays at most.
pub const WINDOW_BUCKETS: u32 = 10;

/// Some counters over a sliding window.
///
/// It counts everything of the last `span`, and nothing older than a span and one bucket: besides
/// the buckets that make up the span there is the one that is being filled. So a burst that fits
/// into the span is seen whole wherever it begins. Nothing runs in the background: buckets are
/// emptied when a later moment is mentioned. A moment earlier than the latest one mentioned counts
/// as the latest, since threads read their clocks before they get here.
#[derive(Debug, Clone)]
pub struct Window<const COUNTERS: usize> {
    /// Nanoseconds of one bucket; at least one.
    width: u64,
    buckets: Box<[[u64; COUNTERS]]>,
    sums: [u64; COUNTERS],
    /// The number of the bucket being filled, counted from the start of the clock.
    head: u64,
    /// Its place among the buckets.
    slot: usize,
    /// The first nanosecond after it: until then there is nothing to move on and to divide.
    end: u64,
}

impl<const COUNTERS: usize> Window<COUNTERS> {
    /// An empty window of this span.
    pub fn new(span: Duration) -> Self {
        Self::with_buckets(span, WINDOW_BUCKETS)
    }

    /// An empty window of this span in so many buckets; none counts as one.
    pub fn with_buckets(span: Duration, buckets: u32) -> Self {
        let buckets = buckets.max(1);
        let slots = usize::try_from(buckets).map_or(usize::MAX, |n| n.saturating_add(1));
        let width = nanos(span).div_ceil(u64::from(buckets)).max(1);
        Self {
            width,
            buckets: vec![[0; COUNTERS]; slots].into_boxed_slice(),
            sums: [0; COUNTERS],
            head: 0,
            slot: 0,
            end: width,
        }
    }

    /// Counts these in.
    pub fn add(&mut self, now: Time, more: [u64; COUNTERS]) {
        self.advance(now);
        for ((held, sum), more) in self.buckets[self.slot]
            .iter_mut()
            .zip(&mut self.sums)
            .zip(more)
        {
            // Bounded by the sum, so that the sum can never be short of what its buckets hold.
            let more = more.min(u64::MAX - *sum);
            *held += more;
            *sum += more;
        }
    }

    /// What the window counts now.
    pub fn sums(&mut self, now: Time) -> [u64; COUNTERS] {
        self.advance(now);
        self.sums
    }

    /// Forgets everything counted.
    pub fn clear(&mut self) {
        self.buckets.fill([0; COUNTERS]);
        self.sums = [0; COUNTERS];
    }

    fn advance(&mut self, now: Time) {
        if now.as_nanos() < self.end {
            return;
        }
        let head = now.as_nanos() / self.width;
        if head - self.head >= self.buckets.len() as u64 {
            self.clear();
            self.slot = 0;
        } else {
            for _ in self.head..head {
                self.slot = (self.slot + 1) % self.buckets.len();
                for (held, sum) in self.buckets[self.slot].iter_mut().zip(&mut self.sums) {
                    *sum -= *held;
                    *held = 0;
                }
            }
        }
        self.head = head;
        self.end = head.saturating_add(1).saturating_mul(self.width);
    }
}

#[cfg(test)]
mod tests;
