//! Latencies as a histogram that can be merged and written down.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Digits that are kept: an error of a thousandth, well below what differs from run to run.
const DIGITS: u8 = 3;

/// A histogram of times in microseconds. It takes any time and grows with the longest.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency(Histogram<u64>);

/// How it is written: what people read, and the counts that make it mergeable.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    count: u64,
    mean_micros: f64,
    p50_micros: u64,
    p90_micros: u64,
    p99_micros: u64,
    p999_micros: u64,
    max_micros: u64,
    /// Pairs of a time and how often it was seen.
    counts: Vec<(u64, u64)>,
}

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new(DIGITS).expect("so many digits are allowed"))
    }
}

impl Latency {
    /// Adds one.
    pub fn record(&mut self, time: Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), 1);
    }

    /// Adds all of another.
    #[expect(
        clippy::missing_panics_doc,
        reason = "a histogram that grows holds what another one does"
    )]
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("it grows as far as needed");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share of them did not exceed, such as 0.99; zero when there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e6)
    }

    fn add(&mut self, micros: u64, count: u64) {
        // Only a time beyond all counting does not fit, and none is waited for so long.
        self.0
            .record_n(micros, count)
            .expect("a histogram that grows holds any time");
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = |share| self.0.value_at_quantile(share);
        Written {
            count: self.0.len(),
            mean_micros: self.0.mean(),
            p50_micros: at(0.5),
            p90_micros: at(0.9),
            p99_micros: at(0.99),
            p999_micros: at(0.999),
            max_micros: self.0.max(),
            counts: self
                .0
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let mut latency = Self::default();
        for (micros, count) in written.counts {
            // An hour at most: a file that claims more would make the histogram huge.
            latency.add(micros.min(3_600_000_000), count);
        }
        Ok(latency)
    }
}
