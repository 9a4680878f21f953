//! Two replicas of the hub, each behind a line of its own that loses answers, and leaders that come and go.

use std::time::Duration;

use e2e::{
    fault_proxy::{FaultProxy, Tally},
    process::Process,
    random::Random,
};

use crate::support::eventually;

/// Longest time between two changes of the leader; the shortest is half of it.
const TERM_MILLIS: u64 = 20_000;
/// Time for a leader to hand over its lease.
const GRACE: Duration = Duration::from_secs(5);

/// A replica, and its line to the API server.
pub(crate) struct Replica<'a> {
    pub(crate) process: &'a Process,
    pub(crate) line: &'a FaultProxy,
}

/// How leaders ended.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) killed: usize,
    pub(crate) asleep: usize,
    pub(crate) cut_off: usize,
    pub(crate) stopped: usize,
}

/// Both replicas.
pub(crate) struct Replicas<'a>(pub(crate) [Replica<'a>; 2]);

impl Replicas<'_> {
    /// Ends one leader after the other at random moments, until it is told to stop.
    pub(crate) async fn change(&self, random: &mut Random, stop: impl Fn() -> bool) -> Ends {
        let mut ends = Ends::default();
        for way in (0..4).cycle() {
            let wait = TERM_MILLIS / 2 + random.below(TERM_MILLIS / 2);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            if stop() {
                break;
            }
            let leader = self.leader();
            let Replica { process, line } = &self.0[leader];
            match way {
                0 => {
                    process.kill().unwrap();
                    process.start().unwrap();
                    ends.killed += 1;
                }
                1 => {
                    // It wakes up in the middle of its work when another one leads.
                    process.pause().unwrap();
                    self.led_by_other_than(leader).await;
                    process.resume().unwrap();
                    ends.asleep += 1;
                }
                2 => {
                    line.cut_lease(true);
                    self.led_by_other_than(leader).await;
                    line.cut_lease(false);
                    ends.cut_off += 1;
                }
                _ => {
                    process.stop(GRACE).await.unwrap();
                    process.start().unwrap();
                    ends.stopped += 1;
                }
            }
        }
        ends
    }

    /// Whoever renewed the lease last.
    fn leader(&self) -> usize {
        let [first, second] = &self.0;
        usize::from(second.line.renewed() > first.line.renewed())
    }

    async fn led_by_other_than(&self, leader: usize) {
        eventually("the other replica leads", async || {
            (self.leader() != leader).then_some(())
        })
        .await;
    }

    /// What went wrong on both lines together.
    pub(crate) fn tally(&self) -> Tally {
        let [first, second] = self.0.each_ref().map(|replica| replica.line.tally());
        Tally {
            writes: first.writes + second.writes,
            lost: first.lost + second.lost,
            refused: first.refused + second.refused,
            late: first.late + second.late,
            cut: first.cut + second.cut,
        }
    }
}
