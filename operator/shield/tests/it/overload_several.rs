//! Guards that let requests in to one target by themselves keep it useful together.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests may fail and print as tests do"
)]

use std::time::Duration;

use shield::concurrency::{Entered, Limit, Outcome, Turn};
use shield::{Permit, Time};

use crate::overload::{MS, Shielded, core_share, steady, upstreams};
use crate::overload_sim::{Capacity, Demand, Guard, Random, Report, Sim, run, success};

const SEEDS: u64 = 2;

/// Guards that know nothing of each other but that there are others, each with its share of the requests.
struct Several {
    guards: Vec<Shielded>,
    /// How far the clock of each is ahead of that of the one before.
    apart: Duration,
}

impl Several {
    fn new(count: usize, apart: Duration) -> Self {
        let guard = |_| {
            let shielded = Shielded::new(Limit::Adaptive);
            shielded.concurrency.share(true);
            shielded
        };
        Self {
            guards: (0..count).map(guard).collect(),
            apart,
        }
    }

    /// The guard of a request, and what its clock says.
    fn of(&mut self, request: usize, now: Time) -> (&mut Shielded, Time) {
        let at = request % self.guards.len();
        let ahead = self.apart * u32::try_from(at).unwrap();
        (&mut self.guards[at], now.after(ahead))
    }
}

impl Guard for Several {
    fn enter(&mut self, core: bool, now: Time, request: usize) -> Entered<usize> {
        let (guard, now) = self.of(request, now);
        guard.enter(core, now, request)
    }

    fn leave(
        &mut self,
        request: usize,
        permit: Permit,
        outcome: Outcome,
        now: Time,
    ) -> Vec<Turn<usize>> {
        let (guard, now) = self.of(request, now);
        guard.leave(request, permit, outcome, now)
    }

    fn expire(&mut self, now: Time) -> Vec<Turn<usize>> {
        let all = 0..self.guards.len();
        all.flat_map(|at| {
            let (guard, now) = self.of(at, now);
            guard.expire(now)
        })
        .collect()
    }

    fn limit(&self) -> u32 {
        self.guards.iter().map(Guard::limit).sum()
    }
}

struct Setting {
    guards: usize,
    apart: Duration,
    capacities: Vec<(f64, Capacity)>,
    demands: Vec<(f64, Demand)>,
    seconds: usize,
    seed: u64,
}

fn simulate(setting: Setting) -> Report {
    let mut guard = Several::new(setting.guards, setting.apart);
    run(Sim {
        guard: &mut guard,
        capacities: setting.capacities,
        demands: setting.demands,
        seconds: setting.seconds,
        random: Random::new(setting.seed),
    })
}

/// Several guards before upstreams that are overloaded all the time.
fn overloaded(apart: Duration, holds: impl Fn(&str, &str, f64, f64)) {
    for guards in [2, 4] {
        for (name, upstream, best) in upstreams().map(|one| times(guards, one)) {
            for load in [2.0, 10.0] {
                for seed in 0..SEEDS {
                    let report = simulate(Setting {
                        guards,
                        apart,
                        capacities: vec![(0.0, upstream)],
                        demands: steady(load * best, core_share(load)),
                        seconds: 60,
                        seed,
                    });
                    let goodput = report.goodput(10, 59) / best;
                    let core = success(&report.core[10..59]);
                    let limits: Vec<&u32> = report.limits.iter().step_by(20).collect();
                    let case = format!(
                        "{guards} guards, {name}, load {load}, seed {seed}: goodput {goodput:.3} core {core:.4}, {limits:?}"
                    );
                    holds(&case, name, goodput, core);
                }
            }
        }
    }
}

/// The upstream that is for so many guards what the given one is for one.
fn times(
    guards: usize,
    (name, upstream, best): (&'static str, Capacity, f64),
) -> (&'static str, Capacity, f64) {
    let many = f64::from(u32::try_from(guards).unwrap());
    let larger = Capacity {
        workers: upstream.workers * guards,
        contention: upstream.contention / many / many,
        ..upstream
    };
    (name, larger, best * many)
}

#[test]
fn several_guards_overload_no_target_together() {
    overloaded(Duration::ZERO, |case, name, goodput, core| {
        assert!(goodput >= 0.93, "{case}");
        // A guard that lets in more than its part for a while takes it from the others: Core alone is four
        // fifths of what the target can do.
        let least = match name {
            "10 workers, even" | "contended" => 0.999,
            _ => 0.9,
        };
        assert!(core >= least, "{case}");
    });
}

#[test]
fn guards_whose_clocks_are_some_milliseconds_apart_do_as_well() {
    overloaded(30 * MS, |case, _, goodput, core| {
        assert!(goodput >= 0.93, "{case}");
        assert!(core >= 0.85, "{case}");
    });
}

#[test]
fn a_target_that_becomes_slower_or_smaller_and_back_is_followed_by_several_guards() {
    let usual = ("usual", Capacity::workers(12, 60 * MS), 200.0);
    let slow = ("slower workers", Capacity::workers(12, 160 * MS), 75.0);
    let few = ("fewer workers", Capacity::workers(6, 60 * MS), 100.0);
    for guards in [2, 3] {
        let (_, usual, most) = times(guards, usual);
        for (name, worse, left) in [slow, few].map(|one| times(guards, one)) {
            for seed in 0..SEEDS {
                let report = simulate(Setting {
                    guards,
                    apart: Duration::ZERO,
                    capacities: vec![(0.0, usual), (20.0, worse), (50.0, usual)],
                    demands: steady(2.0 * most, 0.06),
                    seconds: 80,
                    seed,
                });
                for (from, to, best) in [(8, 19, most), (30, 49, left), (60, 79, most)] {
                    let goodput = report.goodput(from, to) / best;
                    let core = success(&report.core[from..to]);
                    let case = format!(
                        "{guards} guards, {name}, seed {seed}, from {from} s: {goodput} {core} {:?}",
                        report.limits
                    );
                    assert!(goodput >= 0.93, "{case}");
                    assert!(core >= 0.97, "{case}");
                }
            }
        }
    }
}
