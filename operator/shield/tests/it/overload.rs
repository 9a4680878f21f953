//! An adaptive limit with its queue keeps a target useful, whatever is asked of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests may fail and print as tests do"
)]

use std::time::Duration;

use shield::concurrency::{Entered, Limit, Outcome, Turn};
use shield::{Class, ClassId, Classes, Concurrency, Permit, Tier, Time};

use crate::overload_sim::{Capacity, Demand, Guard, Random, Report, Sim, Spread, run, success};

const SEEDS: u64 = 20;
pub(crate) const MS: Duration = Duration::from_millis(1);

/// The shield as a proxy would use it.
pub(crate) struct Shielded {
    pub(crate) concurrency: Concurrency<usize>,
    pub(crate) classes: [ClassId; 2],
}

impl Shielded {
    pub(crate) fn new(limit: Limit) -> Self {
        let class = |tier| Class {
            tier,
            guaranteed_percent: None,
        };
        let classes = Classes::new(vec![class(Tier::Core), class(Tier::Ancillary)]).unwrap();
        Self {
            concurrency: Concurrency::new(limit, &classes, Time::ZERO),
            classes: [classes.id(0).unwrap(), classes.id(1).unwrap()],
        }
    }
}

impl Guard for Shielded {
    fn enter(&mut self, core: bool, now: Time, request: usize) -> Entered<usize> {
        let class = self.classes[usize::from(!core)];
        self.concurrency.enter(class, now, || request)
    }

    fn leave(&mut self, _: usize, permit: Permit, outcome: Outcome, now: Time) -> Vec<Turn<usize>> {
        self.concurrency.leave(permit, outcome, now)
    }

    fn expire(&mut self, now: Time) -> Vec<Turn<usize>> {
        self.concurrency.expire(now)
    }

    fn limit(&self) -> u32 {
        self.concurrency.snapshot().limit
    }
}

pub(crate) fn steady(per_second: f64, core: f64) -> Vec<(f64, Demand)> {
    vec![(
        0.0,
        Demand {
            per_second,
            core,
            retries: 0,
        },
    )]
}

fn simulate(
    capacities: Vec<(f64, Capacity)>,
    demands: Vec<(f64, Demand)>,
    seconds: usize,
    seed: u64,
) -> Report {
    let mut guard = Shielded::new(Limit::Adaptive);
    let random = Random::new(seed);
    run(Sim {
        guard: &mut guard,
        capacities,
        demands,
        seconds,
        random,
    })
}

/// Upstreams with what each delivers at best.
pub(crate) fn upstreams() -> [(&'static str, Capacity, f64); 4] {
    let exponential = Capacity {
        spread: Spread::Exponential,
        ..Capacity::workers(10, 50 * MS)
    };
    // With n at work each takes 1 + n(n-1)/900 times as long: the most is delivered at 30.
    let contended = Capacity {
        contention: 1.0 / 900.0,
        ..Capacity::workers(1000, 50 * MS)
    };
    [
        ("10 workers, even", Capacity::workers(10, 50 * MS), 200.0),
        ("10 workers, exponential", exponential, 200.0),
        ("1 worker", Capacity::workers(1, 20 * MS), 50.0),
        ("contended", contended, 305.0),
    ]
}

/// Core stays below capacity: it is a part of the demand that shrinks as the demand grows.
pub(crate) fn core_share(load: f64) -> f64 {
    (0.8 / load).min(0.4)
}

fn overloaded(load: f64) {
    for (name, upstream, best) in upstreams() {
        for seed in 0..SEEDS {
            let demand = steady(load * best, core_share(load));
            let report = simulate(vec![(0.0, upstream)], demand, 14, seed);
            let goodput = report.goodput(4, 13) / best;
            assert!(
                goodput >= 0.9,
                "{name}, seed {seed}: {goodput} of the best, limits {:?}",
                report.limits
            );
            let core = success(&report.core[4..13]);
            assert!(core >= 0.99, "{name}, seed {seed}: {core} of core");
            let shed = 1.0 - success(&report.ancillary[4..13]);
            assert!(shed >= 0.3, "{name}, seed {seed}: {shed} of ancillary shed");
            let p99 = report.p99(4.0);
            assert!(p99 <= 0.95, "{name}, seed {seed}: p99 {p99} s");
        }
    }
}

#[test]
fn at_twice_the_capacity_goodput_stays_and_core_passes() {
    overloaded(2.0);
}

#[test]
fn at_five_times_the_capacity_goodput_stays_and_core_passes() {
    overloaded(5.0);
}

#[test]
fn at_ten_times_the_capacity_goodput_stays_and_core_passes() {
    overloaded(10.0);
}

#[test]
fn below_saturation_nobody_is_refused_probes_or_not() {
    for (name, upstream, best) in upstreams() {
        for seed in 0..SEEDS {
            for load in [0.5, 0.8] {
                let demand = steady(load * best, 0.4);
                let report = simulate(vec![(0.0, upstream)], demand, 30, seed);
                assert_eq!(
                    report.refused(0, 29),
                    0,
                    "{name}, seed {seed}, load {load}: {:?}",
                    report.limits
                );
            }
        }
    }
}

#[test]
fn a_capacity_that_falls_or_rises_is_followed_within_seconds() {
    let many = Capacity::workers(12, 60 * MS);
    let few = Capacity::workers(3, 60 * MS);
    // Slower still, what waits twice 240 ms there and half a second here misses the deadline.
    let slow = Capacity::workers(12, 160 * MS);
    for (name, worse, left) in [("fewer workers", few, 50.0), ("slower workers", slow, 75.0)] {
        for seed in 0..SEEDS {
            let capacities = vec![(0.0, many), (15.0, worse), (30.0, many)];
            let report = simulate(capacities, steady(400.0, 0.06), 45, seed);
            for (from, to, best) in [(4, 14, 200.0), (19, 29, left), (33, 44, 200.0)] {
                let goodput = report.goodput(from, to) / best;
                assert!(
                    goodput >= 0.9,
                    "{name}, seed {seed}, from {from} s: {goodput} of the best, limits {:?}",
                    report.limits
                );
            }
            for part in [4..14, 19..29, 33..44] {
                let core = success(&report.core[part.clone()]);
                assert!(
                    core >= 0.99,
                    "{name}, seed {seed}, {part:?}: {core} of core, limits {:?}",
                    report.limits
                );
            }
        }
    }
}

#[test]
fn a_latency_that_doubles_for_real_costs_no_more_than_it_must() {
    for seed in 0..SEEDS {
        let usual = Capacity::workers(10, 50 * MS);
        let doubled = Capacity::workers(10, 100 * MS);
        let report = simulate(
            vec![(0.0, usual), (10.0, doubled)],
            steady(400.0, 0.1),
            30,
            seed,
        );
        let goodput = report.goodput(13, 29) / 100.0;
        assert!(
            goodput >= 0.9,
            "seed {seed}: {goodput}, limits {:?}",
            report.limits
        );
    }
}

#[test]
fn failures_that_come_without_load_do_not_close_the_door() {
    for seed in 0..SEEDS {
        let failing = Capacity {
            failing: 0.7,
            ..Capacity::workers(10, 50 * MS)
        };
        let report = simulate(vec![(0.0, failing)], steady(400.0, 0.1), 20, seed);
        let goodput = report.goodput(8, 19) / 60.0;
        assert!(
            goodput >= 0.85,
            "seed {seed}: {goodput}, limits {:?}",
            report.limits
        );
    }
}

#[test]
fn after_an_overload_with_retries_the_least_important_recovers_at_once() {
    for seed in 0..SEEDS {
        let demand = |per_second| Demand {
            per_second,
            core: 0.1,
            retries: 3,
        };
        let demands = vec![
            (0.0, demand(120.0)),
            (5.0, demand(1000.0)),
            (15.0, demand(120.0)),
        ];
        let capacities = vec![(0.0, Capacity::workers(10, 50 * MS))];
        let report = simulate(capacities, demands, 25, seed);
        let core = success(&report.core[..24]);
        assert!(core >= 0.99, "seed {seed}: {core} of core");
        // Retries of the last overloaded second still come in the next two.
        let after = success(&report.ancillary[17..24]);
        assert!(
            after >= 0.999,
            "seed {seed}: {after} of ancillary after the overload"
        );
    }
}

#[test]
fn a_long_time_just_at_capacity_does_not_spoil_the_limit() {
    for spread in [Spread::Even, Spread::Exponential] {
        for seed in 0..SEEDS {
            let upstream = Capacity {
                spread,
                ..Capacity::workers(10, 50 * MS)
            };
            let demand = |per_second: f64| Demand {
                per_second,
                core: core_share(per_second / 200.0),
                retries: 0,
            };
            let demands = vec![(0.0, demand(198.0)), (40.0, demand(1000.0))];
            let report = simulate(vec![(0.0, upstream)], demands, 50, seed);
            let core = success(&report.core[40..49]);
            assert!(
                core >= 0.98,
                "seed {seed}: {core}, limits {:?}",
                report.limits
            );
            let goodput = report.goodput(41, 49) / 200.0;
            assert!(
                goodput >= 0.9,
                "seed {seed}: {goodput}, limits {:?}",
                report.limits
            );
        }
    }
}

#[test]
fn a_silent_target_keeps_its_limit() {
    let demand = |per_second| Demand {
        per_second,
        core: 1.0,
        retries: 0,
    };
    let demands = vec![
        (0.0, demand(400.0)),
        (10.0, demand(2.0)),
        (40.0, demand(400.0)),
    ];
    for seed in 0..SEEDS {
        let capacities = vec![(0.0, Capacity::workers(10, 50 * MS))];
        let report = simulate(capacities, demands.clone(), 50, seed);
        let quiet = &report.limits[150..390];
        let least = quiet.iter().min().unwrap();
        assert!(*least >= 10, "seed {seed}: {quiet:?}");
        let goodput = report.goodput(44, 49) / 200.0;
        assert!(
            goodput >= 0.9,
            "seed {seed}: {goodput} {:?}",
            &report.limits[380..]
        );
    }
}
