//! The figures beside those of other limits, for a look: `cargo test -p shield table -- --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests may fail and print as tests do"
)]

use std::num::NonZeroU32;
use std::time::Duration;

use shield::concurrency::{Entered, Limit, Outcome, Turn};
use shield::{Permit, Time};

use crate::overload::{Shielded, core_share, upstreams};
use crate::overload_sim::{Demand, Guard, Random, Sim, run, success};

fn fixed(limit: f64) -> Limit {
    let digits = format!("{limit:.0}");
    Limit::Fixed(NonZeroU32::new(digits.parse().unwrap()).unwrap())
}

/// A limit by the ratio of long to short mean latency, in front of the same queue.
struct Gradient {
    inner: Shielded,
    limit: f64,
    long: f64,
    short: (f64, f64),
    running: u32,
    admitted: Vec<Time>,
}

impl Gradient {
    fn new() -> Self {
        Self {
            inner: Shielded::new(fixed(20.0)),
            limit: 20.0,
            long: 0.0,
            short: (0.0, 0.0),
            running: 0,
            admitted: Vec::new(),
        }
    }

    /// Latencies are known in order of admission: good enough for means of many.
    fn learn(&mut self, latency: f64) {
        self.short = (self.short.0 + latency, self.short.1 + 1.0);
        if self.short.1 < 10.0 {
            return;
        }
        let short = self.short.0 / self.short.1;
        self.short = (0.0, 0.0);
        self.long = if self.long == 0.0 {
            short
        } else {
            self.long + (short - self.long) * 10.0 / 600.0
        };
        if self.long > 2.0 * short {
            self.long *= 0.95;
        }
        if f64::from(self.running) < self.limit / 2.0 {
            return;
        }
        let gradient = (1.5 * self.long / short).clamp(0.5, 1.0);
        let next = self.limit * gradient + 4.0;
        self.limit = (self.limit * 0.8 + next * 0.2).clamp(20.0, 200.0);
    }

    fn note(&mut self, turns: &[Turn<usize>], now: Time) {
        for turn in turns {
            if let Turn::Run(..) = turn {
                self.running += 1;
                self.admitted.push(now);
            }
        }
    }
}

impl Guard for Gradient {
    fn enter(&mut self, core: bool, now: Time, request: usize) -> Entered<usize> {
        let entered = self.inner.enter(core, now, request);
        if let Entered::Now(_) = &entered {
            self.running += 1;
            self.admitted.push(now);
        }
        entered
    }

    fn leave(
        &mut self,
        request: usize,
        permit: Permit,
        outcome: Outcome,
        now: Time,
    ) -> Vec<Turn<usize>> {
        let since = self.admitted.remove(0);
        self.learn(now.since(since).as_secs_f64());
        self.running -= 1;
        let mut turns = self.inner.leave(request, permit, outcome, now);
        turns.extend(self.inner.concurrency.set_limit(fixed(self.limit), now));
        self.note(&turns, now);
        turns
    }

    fn expire(&mut self, now: Time) -> Vec<Turn<usize>> {
        self.inner.expire(now)
    }

    fn limit(&self) -> u32 {
        self.inner.limit()
    }
}

#[test]
fn beyond_what_a_target_stands_the_found_limit_serves_more_than_none_and_the_table_shows_it() {
    println!(
        "| upstream | load | limit | goodput of best | core | ancillary | p99 ms | limit at end |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (name, upstream, best) in upstreams() {
        for load in [0.5, 1.0, 2.0, 5.0, 10.0] {
            let mut found = 0.0;
            for kind in ["adaptive", "gradient", "none"] {
                let mut guard: Box<dyn Guard> = match kind {
                    "adaptive" => Box::new(Shielded::new(Limit::Adaptive)),
                    "gradient" => Box::new(Gradient::new()),
                    _ => Box::new(Shielded::new(fixed(10_000.0))),
                };
                let demand = Demand {
                    per_second: load * best,
                    core: core_share(load),
                    retries: 0,
                };
                let report = run(Sim {
                    guard: &mut *guard,
                    capacities: vec![(0.0, upstream)],
                    demands: vec![(0.0, demand)],
                    seconds: 16,
                    random: Random::new(7),
                });
                let goodput = report.goodput(5, 15) / best;
                match kind {
                    "adaptive" => found = goodput,
                    "none" if load > 1.5 => {
                        assert!(
                            found > 0.9 && found > goodput,
                            "{name} {load}: {found} {goodput}"
                        );
                    }
                    _ => {}
                }
                println!(
                    "| {name} | {load} | {kind} | {:.2} | {:.3} | {:.3} | {:.0} | {} |",
                    goodput,
                    success(&report.core[5..15]),
                    success(&report.ancillary[5..15]),
                    Duration::from_secs_f64(report.p99(5.0)).as_secs_f64() * 1000.0,
                    report.limits.last().unwrap(),
                );
            }
        }
    }
}
