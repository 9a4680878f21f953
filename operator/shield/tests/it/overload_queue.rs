//! Whatever comes and goes, nobody is lost, woken twice or let in out of turn.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests may fail and print as tests do"
)]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use shield::concurrency::{
    Entered, Limit, Outcome, QUEUE_MIN, QUEUE_PER_PERMIT, Reason, Turn, WAIT_MAX,
};
use shield::{Class, ClassId, Classes, Concurrency, Permit, Place, Tier, Time};

#[derive(Debug, Clone)]
enum Act {
    Enter(usize),
    Leave(usize),
    Abandon(usize),
    Expire,
    Limit(u32),
    Pause(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        12 => (0..4_usize).prop_map(Act::Enter),
        4 => any::<usize>().prop_map(Act::Leave),
        1 => any::<usize>().prop_map(Act::Abandon),
        1 => Just(Act::Expire),
        1 => (1..30_u32).prop_map(Act::Limit),
        1 => (0..300_u64).prop_map(Act::Pause),
    ];
    prop::collection::vec(act, 0..600)
}

/// What an onlooker knows: who runs and who waits, in order of arrival.
struct Model {
    target: Concurrency<u32>,
    classes: Vec<(ClassId, Tier, u32)>,
    limit: u32,
    now: Time,
    next: u32,
    running: Vec<(usize, Permit)>,
    waiting: BTreeMap<u32, (usize, Time, Place)>,
}

const CLASSES: [(Tier, u8); 4] = [
    (Tier::Core, 0),
    (Tier::Important, 30),
    (Tier::Ancillary, 10),
    (Tier::Ancillary, 0),
];

impl Model {
    fn new(limit: u32) -> Self {
        let each = CLASSES.map(|(tier, percent)| Class {
            tier,
            guaranteed_percent: Some(percent),
        });
        let classes = Classes::new(each.to_vec()).unwrap();
        let fixed = Limit::Fixed(NonZeroU32::new(limit).unwrap());
        let ids = CLASSES
            .iter()
            .enumerate()
            .map(|(position, (tier, percent))| {
                (classes.id(position).unwrap(), *tier, u32::from(*percent))
            });
        Self {
            target: Concurrency::new(fixed, &classes, Time::ZERO),
            classes: ids.collect(),
            limit,
            now: Time::ZERO,
            next: 0,
            running: Vec::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// How many more requests than run a class is owed.
    fn owed(&self, class: usize) -> usize {
        let (_, _, percent) = self.classes[class];
        if percent == 0 {
            return 0;
        }
        let guaranteed = usize::try_from((self.limit * percent / 100).max(1)).unwrap();
        let running = self.running.iter().filter(|(of, _)| *of == class).count();
        guaranteed.saturating_sub(running)
    }

    /// Standing of a waiter, the smallest first.
    fn rank(&self, waiter: u32) -> (bool, Tier, u32) {
        let (class, ..) = self.waiting[&waiter];
        let before = self.waiting.range(..waiter);
        let before = before.filter(|(_, (of, ..))| *of == class).count();
        (before >= self.owed(class), self.classes[class].1, waiter)
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Enter(class) => self.enter(class),
            Act::Leave(which) => {
                if !self.running.is_empty() {
                    let (_, permit) = self.running.swap_remove(which % self.running.len());
                    let turns = self.target.leave(permit, Outcome::Success, self.now);
                    self.turns(turns);
                }
            }
            Act::Abandon(which) => {
                if let Some(waiter) = self.waiting.keys().nth(which % self.waiting.len().max(1)) {
                    let waiter = *waiter;
                    let (_, _, place) = self.waiting.remove(&waiter).unwrap();
                    assert_eq!(self.target.abandon(place), Some(waiter));
                    assert_eq!(self.target.abandon(place), None);
                }
            }
            Act::Expire => {
                let turns = self.target.expire(self.now);
                self.turns(turns);
                let waits = self.waiting.values();
                assert!(
                    waits
                        .clone()
                        .all(|(_, since, _)| self.now < since.after(WAIT_MAX))
                );
            }
            Act::Limit(limit) => {
                self.limit = limit;
                let fixed = Limit::Fixed(NonZeroU32::new(limit).unwrap());
                let turns = self.target.set_limit(fixed, self.now);
                self.turns(turns);
            }
            Act::Pause(millis) => self.now = self.now.after(Duration::from_millis(millis)),
        }
        self.check();
    }

    fn enter(&mut self, class: usize) {
        let waiter = self.next;
        self.next += 1;
        let places = usize::try_from((self.limit * QUEUE_PER_PERMIT).max(QUEUE_MIN)).unwrap();
        let full = self.waiting.len() >= places;
        match self
            .target
            .enter(self.classes[class].0, self.now, || waiter)
        {
            Entered::Now(permit) => {
                assert!(self.waiting.is_empty(), "nobody overtakes the queue");
                self.running.push((class, permit));
                assert!(self.running.len() <= usize::try_from(self.limit).unwrap());
            }
            Entered::Queued {
                place,
                until,
                turns,
            } => {
                assert_eq!(until, self.now.after(WAIT_MAX));
                assert!(full || turns.is_empty(), "nobody goes without need");
                self.waiting.insert(waiter, (class, self.now, place));
                self.turns(turns);
            }
            Entered::Refused(refusal) => {
                assert!(full && refusal.reason == Reason::QueueFull);
                let oldest = self.waiting.values().map(|(_, since, _)| *since).min();
                assert!(oldest.unwrap().after(WAIT_MAX) > self.now);
            }
        }
    }

    fn turns(&mut self, turns: Vec<Turn<u32>>) {
        for turn in turns {
            match turn {
                Turn::Run(waiter, permit) => {
                    let first = self.waiting.keys().map(|waiter| self.rank(*waiter)).min();
                    assert_eq!(Some(self.rank(waiter)), first, "the first one runs");
                    let (class, ..) = self.waiting.remove(&waiter).unwrap();
                    self.running.push((class, permit));
                    assert!(self.running.len() <= usize::try_from(self.limit).unwrap());
                }
                Turn::Refused(waiter, refusal) => {
                    let last = self.waiting.keys().map(|waiter| self.rank(*waiter)).max();
                    let rank = self.rank(waiter);
                    let (_, since, _) = self.waiting.remove(&waiter).unwrap();
                    match refusal.reason {
                        Reason::Waited => assert!(since.after(WAIT_MAX) <= self.now),
                        Reason::Displaced => {
                            assert_eq!(Some(rank), last, "the last one is displaced");
                            let newest = *self.waiting.keys().next_back().unwrap();
                            let arrived = self.rank(newest);
                            assert!((arrived.0, arrived.1) < (rank.0, rank.1));
                        }
                        Reason::QueueFull => panic!("who waits has a place"),
                    }
                }
            }
        }
    }

    fn check(&self) {
        let seen = self.target.snapshot();
        let waiting: u64 = seen.tiers.iter().map(|counts| counts.waiting).sum();
        assert_eq!(
            usize::try_from(waiting).unwrap(),
            self.waiting.len(),
            "nobody is lost"
        );
        assert_eq!(usize::try_from(seen.running).unwrap(), self.running.len());
        let idle = seen.running < self.limit;
        assert!(!idle || self.waiting.is_empty(), "nobody waits in vain");
        let ended: u64 = seen
            .tiers
            .iter()
            .map(|counts| {
                counts.admitted
                    + counts.queue_full
                    + counts.displaced
                    + counts.expired
                    + counts.abandoned
                    + counts.waiting
            })
            .sum();
        assert_eq!(ended, u64::from(self.next), "everybody is counted once");
    }
}

proptest! {
    #[test]
    fn nobody_is_lost_woken_twice_or_let_in_out_of_turn(limit in 1..30_u32, acts in acts()) {
        let mut model = Model::new(limit);
        for act in &acts {
            model.act(act);
        }
    }
}

/// A class that always asks gets its guarantee however much the more important ask.
#[test]
fn a_guarantee_is_taken_back_from_borrowers_as_they_leave() {
    let mut model = Model::new(10);
    for _ in 0..50 {
        model.act(&Act::Enter(0));
    }
    for _ in 0..5 {
        model.act(&Act::Enter(1));
        model.act(&Act::Enter(2));
    }
    let count = |model: &Model, class| {
        let of = model.running.iter().filter(|(of, _)| *of == class);
        of.count()
    };
    assert_eq!([0, 1, 2].map(|class| count(&model, class)), [10, 0, 0]);
    for _ in 0..4 {
        let borrower = model.running.iter().position(|(class, _)| *class == 0);
        model.act(&Act::Leave(borrower.unwrap()));
    }
    assert_eq!([0, 1, 2].map(|class| count(&model, class)), [6, 3, 1]);
}
