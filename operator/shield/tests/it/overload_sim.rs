//! A guard in front of an upstream, event by event, on a clock that only the simulation moves.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests may fail and print as tests do"
)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use shield::concurrency::{Entered, Outcome, Reason, Turn};
use shield::{Permit, Time};

/// Drawn numbers that a seed settles (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xA24B_AED4_963E_E407))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// At least 0, less than 1.
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / (f64::from(u32::MAX) + 1.0)
    }

    /// Exponentially distributed with mean 1.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

/// How long one request takes a free worker, relative to the mean.
#[derive(Clone, Copy)]
pub(crate) enum Spread {
    Even,
    Exponential,
}

/// What the upstream can do from some moment on.
#[derive(Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) workers: usize,
    pub(crate) service: Duration,
    /// Each request takes longer by this times the square of those that run.
    pub(crate) contention: f64,
    pub(crate) failing: f64,
    pub(crate) spread: Spread,
}

impl Capacity {
    pub(crate) fn workers(workers: usize, service: Duration) -> Self {
        Self {
            workers,
            service,
            contention: 0.0,
            failing: 0.0,
            spread: Spread::Even,
        }
    }
}

/// What is asked from some moment on.
#[derive(Clone, Copy)]
pub(crate) struct Demand {
    pub(crate) per_second: f64,
    pub(crate) core: f64,
    pub(crate) retries: u32,
}

/// What stands before the upstream.
pub(crate) trait Guard {
    fn enter(&mut self, core: bool, now: Time, request: usize) -> Entered<usize>;
    fn leave(
        &mut self,
        request: usize,
        permit: Permit,
        outcome: Outcome,
        now: Time,
    ) -> Vec<Turn<usize>>;
    fn expire(&mut self, now: Time) -> Vec<Turn<usize>>;
    fn limit(&self) -> u32;
}

enum Event {
    Arrive {
        core: bool,
        first: bool,
        retries: u32,
    },
    Served {
        request: usize,
        failed: bool,
    },
    Tick,
}

struct Request {
    core: bool,
    arrived: Time,
    retries: u32,
    permit: Option<Permit>,
}

/// How it went for one tier in one second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Second {
    pub(crate) asked: u32,
    pub(crate) good: u32,
    pub(crate) refused: u32,
}

/// How it went.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) core: Vec<Second>,
    pub(crate) ancillary: Vec<Second>,
    /// When a request that was answered had arrived, and seconds from arrival to answer.
    pub(crate) latencies: Vec<(f64, f64)>,
    /// The limit every 100 ms.
    pub(crate) limits: Vec<u32>,
    pub(crate) reasons: BTreeMap<&'static str, u32>,
}

impl Report {
    pub(crate) fn goodput(&self, from: usize, to: usize) -> f64 {
        let good = |tier: &[Second]| tier[from..to].iter().map(|second| second.good).sum::<u32>();
        f64::from(good(&self.core) + good(&self.ancillary))
            / f64::from(u32::try_from(to - from).unwrap())
    }

    pub(crate) fn refused(&self, from: usize, to: usize) -> u32 {
        let tiers = self.core[from..to].iter().chain(&self.ancillary[from..to]);
        tiers.map(|second| second.refused).sum()
    }

    /// Seconds from arrival to answer that 99 % stay below.
    pub(crate) fn p99(&self, from: f64) -> f64 {
        let late = self.latencies.iter().filter(|(at, _)| *at >= from);
        let mut spans: Vec<f64> = late.map(|(_, span)| *span).collect();
        spans.sort_by(f64::total_cmp);
        spans.get(spans.len() * 99 / 100).copied().unwrap_or(0.0)
    }
}

/// Share of those who asked that got an answer in time.
pub(crate) fn success(tier: &[Second]) -> f64 {
    let asked: u32 = tier.iter().map(|second| second.asked).sum();
    let good: u32 = tier.iter().map(|second| second.good).sum();
    f64::from(good) / f64::from(asked.max(1))
}

/// A user who has waited longer has gone, and their client with them.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

pub(crate) struct Sim<'a> {
    pub(crate) guard: &'a mut dyn Guard,
    /// By the second from which on each holds, the first at 0.
    pub(crate) capacities: Vec<(f64, Capacity)>,
    pub(crate) demands: Vec<(f64, Demand)>,
    pub(crate) seconds: usize,
    pub(crate) random: Random,
}

pub(crate) fn run(sim: Sim<'_>) -> Report {
    let seconds = sim.seconds;
    let mut world = World {
        sim,
        events: BinaryHeap::new(),
        pending: BTreeMap::new(),
        number: 0,
        requests: Vec::new(),
        settled: 0,
        line: VecDeque::new(),
        busy: 0,
        report: Report {
            core: vec![Second::default(); seconds + 2],
            ancillary: vec![Second::default(); seconds + 2],
            ..Report::default()
        },
    };
    world.run();
    world.report
}

struct World<'a> {
    sim: Sim<'a>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    pending: BTreeMap<u64, Event>,
    number: u64,
    /// In the order of their arrival.
    requests: Vec<Request>,
    /// So many of them have arrived longer ago than anybody waits.
    settled: usize,
    /// Requests at the upstream that no worker has taken up.
    line: VecDeque<usize>,
    busy: usize,
    report: Report,
}

fn at<T: Copy>(steps: &[(f64, T)], now: Time) -> T {
    let now = now.since(Time::ZERO).as_secs_f64();
    let step = steps.iter().rev().find(|(from, _)| *from <= now);
    step.unwrap().1
}

impl World<'_> {
    fn run(&mut self) {
        let first = self.next_arrival(Time::ZERO);
        self.at(first.0, first.1);
        self.at(Time::ZERO, Event::Tick);
        while let Some(Reverse((nanos, number))) = self.events.pop() {
            let now = Time::from_nanos(nanos);
            if now.since(Time::ZERO).as_secs_f64()
                >= f64::from(u32::try_from(self.sim.seconds).unwrap())
            {
                break;
            }
            match self.pending.remove(&number).unwrap() {
                Event::Arrive {
                    core,
                    first,
                    retries,
                } => {
                    if first {
                        let (when, next) = self.next_arrival(now);
                        self.at(when, next);
                    }
                    self.arrive(core, retries, now);
                }
                Event::Served { request, failed } => self.served(request, failed, now),
                Event::Tick => self.tick(now),
            }
        }
    }

    fn at(&mut self, when: Time, event: Event) {
        self.events.push(Reverse((when.as_nanos(), self.number)));
        self.pending.insert(self.number, event);
        self.number += 1;
    }

    fn next_arrival(&mut self, now: Time) -> (Time, Event) {
        let demand = at(&self.sim.demands, now);
        let gap = self.sim.random.exponential() / demand.per_second;
        let core = self.sim.random.unit() < demand.core;
        let arrive = Event::Arrive {
            core,
            first: true,
            retries: demand.retries,
        };
        (now.after(Duration::from_secs_f64(gap)), arrive)
    }

    /// Every 10 ms the guard looks for waits that are over and clients give up.
    fn tick(&mut self, now: Time) {
        let turns = self.sim.guard.expire(now);
        self.turns(turns, now);
        if now.as_nanos().is_multiple_of(100_000_000) {
            self.report.limits.push(self.sim.guard.limit());
        }
        while let Some(late) = self.requests.get_mut(self.settled) {
            if now.since(late.arrived) < DEADLINE {
                break;
            }
            let request = self.settled;
            self.settled += 1;
            // The guard closes the stream; the upstream does not notice and works on.
            if let Some(permit) = late.permit.take() {
                self.retry(request, now);
                let turns = self.sim.guard.leave(request, permit, Outcome::Dropped, now);
                self.turns(turns, now);
            }
        }
        self.at(now.after(Duration::from_millis(10)), Event::Tick);
    }

    fn arrive(&mut self, core: bool, retries: u32, now: Time) {
        let request = self.requests.len();
        self.requests.push(Request {
            core,
            arrived: now,
            retries,
            permit: None,
        });
        self.second(request).asked += 1;
        match self.sim.guard.enter(core, now, request) {
            Entered::Now(permit) => self.start(request, permit, now),
            Entered::Queued {
                place: _,
                until: _,
                turns,
            } => self.turns(turns, now),
            Entered::Refused(refusal) => self.refuse(request, refusal.reason, now),
        }
    }

    fn turns(&mut self, turns: Vec<Turn<usize>>, now: Time) {
        for turn in turns {
            match turn {
                Turn::Run(request, permit) => self.start(request, permit, now),
                Turn::Refused(request, refusal) => self.refuse(request, refusal.reason, now),
            }
        }
    }

    fn refuse(&mut self, request: usize, reason: Reason, now: Time) {
        let name = match reason {
            Reason::QueueFull => "full",
            Reason::Displaced => "displaced",
            Reason::Waited => "waited",
        };
        *self.report.reasons.entry(name).or_default() += 1;
        self.second(request).refused += 1;
        self.retry(request, now);
    }

    fn retry(&mut self, request: usize, now: Time) {
        let Request { core, retries, .. } = self.requests[request];
        if retries > 0 {
            let pause = Duration::from_secs_f64(0.1 + 0.2 * self.sim.random.unit());
            self.at(
                now.after(pause),
                Event::Arrive {
                    core,
                    first: false,
                    retries: retries - 1,
                },
            );
        }
    }

    fn start(&mut self, request: usize, permit: Permit, now: Time) {
        self.requests[request].permit = Some(permit);
        self.line.push_back(request);
        self.work(now);
    }

    fn work(&mut self, now: Time) {
        let capacity = at(&self.sim.capacities, now);
        while self.busy < capacity.workers {
            let Some(request) = self.line.pop_front() else {
                return;
            };
            self.busy += 1;
            let busy = f64::from(u32::try_from(self.busy).unwrap());
            let varies = match capacity.spread {
                Spread::Even => 0.8 + 0.4 * self.sim.random.unit(),
                Spread::Exponential => self.sim.random.exponential(),
            };
            let slower = 1.0 + capacity.contention * busy * (busy - 1.0);
            let failed = self.sim.random.unit() < capacity.failing;
            let served = now.after(capacity.service.mul_f64(varies * slower));
            self.at(served, Event::Served { request, failed });
        }
    }

    fn served(&mut self, request: usize, failed: bool, now: Time) {
        self.busy -= 1;
        self.work(now);
        if let Some(permit) = self.requests[request].permit.take() {
            let outcome = if failed {
                Outcome::Failure
            } else {
                Outcome::Success
            };
            let arrived = self.requests[request].arrived;
            let took = now.since(arrived).as_secs_f64();
            if failed {
                self.retry(request, now);
            } else {
                self.second(request).good += u32::from(took <= DEADLINE.as_secs_f64());
                let arrived = arrived.since(Time::ZERO).as_secs_f64();
                self.report.latencies.push((arrived, took));
            }
            let turns = self.sim.guard.leave(request, permit, outcome, now);
            self.turns(turns, now);
        }
    }

    fn second(&mut self, request: usize) -> &mut Second {
        let Request { core, arrived, .. } = self.requests[request];
        let second = usize::try_from(arrived.since(Time::ZERO).as_secs()).unwrap();
        let tier = if core {
            &mut self.report.core
        } else {
            &mut self.report.ancillary
        };
        &mut tier[second]
    }
}
