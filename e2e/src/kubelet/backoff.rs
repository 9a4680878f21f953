//! How long a broken watch waits before it is opened again.

use std::time::Duration;

use kube::runtime::utils::Backoff;

/// Short and bounded: after an outage of the API server the nodes are to be back within a second,
/// and there is only one kubelet per cluster to ask.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// Doubles up to a second, and begins anew after a success.
#[derive(Debug)]
pub(super) struct Steady(Duration);

impl Default for Steady {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST);
        Some(wait)
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {
        self.0 = FIRST;
    }
}
