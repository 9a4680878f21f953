//! Whatever happens: the watermark only rises, admissions keep their rate, and who came first is
//! first.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use shield::ticket::{GuardId, Place, Wall};

use super::crowd::Crowd;
use super::fleet::{Dice, Fleet, START, TICK, settings};

/// What happens in one second.
#[derive(Debug, Clone)]
struct Second {
    people: usize,
    coordinated: bool,
    restart: Option<usize>,
    step: Option<(usize, i64)>,
}

fn second() -> impl Strategy<Value = Second> {
    let step = (0..3_usize, -3_600_000..3_600_000_i64);
    (
        0..60_usize,
        prop::bool::weighted(0.9),
        prop::option::weighted(0.02, 0..3_usize),
        prop::option::weighted(0.02, step),
    )
        .prop_map(|(people, coordinated, restart, step)| Second {
            people,
            coordinated,
            restart,
            step,
        })
}

fn place() -> impl Strategy<Value = Place> {
    (0..3_u64, 0..3_u32, 0..3_u32).prop_map(|(arrival, guard, serial)| Place {
        arrival: Wall::from_millis(arrival),
        guard: GuardId(guard),
        serial,
    })
}

/// How many citizens a watermark has passed by now, and how many in the last minute at most.
#[derive(Default)]
struct Passed {
    people: VecDeque<(Duration, usize)>,
    most: usize,
}

impl Passed {
    fn note(&mut self, at: Duration, people: usize) {
        self.people.push_back((at, people));
        while self.people[0].0 + Duration::from_mins(1) < at {
            self.people.pop_front();
        }
        self.most = self.most.max(people - self.people[0].1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn places_are_in_one_total_order(a in place(), b in place(), c in place()) {
        let key = |place: Place| (place.arrival, place.guard, place.serial);
        prop_assert_eq!(a.cmp(&b), key(a).cmp(&key(b)));
        prop_assert!(!(a <= b && b <= c) || a <= c);
        prop_assert!(a <= Place::end_of(a.arrival));
    }

    #[test]
    fn the_watermark_never_goes_back_whatever_clocks_and_guards_do(
        seconds in prop::collection::vec(second(), 40..80),
        seed in any::<u64>(),
    ) {
        let mut fleet = Fleet::new(3, settings(100_000, 1200, 30));
        let (mut crowd, mut dice) = (Crowd::default(), Dice(seed));
        fleet.open();
        let mut before = fleet.words();
        for second in seconds {
            fleet.coordinated = second.coordinated;
            crowd.come(&fleet, second.people, u32::MAX);
            let restarted = second.restart.inspect(|guard| fleet.restart(*guard));
            if let Some((guard, millis)) = second.step {
                fleet.guards[guard].skew += millis;
            }
            for _ in 0..10 {
                crowd.tick(&mut fleet, &mut dice);
                let words = fleet.words();
                for (guard, (word, before)) in words.iter().zip(&before).enumerate() {
                    let kept = before.admitted <= word.admitted;
                    prop_assert!(kept || restarted == Some(guard));
                }
                before = words;
            }
        }
    }

    #[test]
    fn admissions_keep_to_the_rate_in_every_minute_and_the_first_come_first(
        people in prop::collection::vec(0..60_usize, 30..80),
        skews in prop::array::uniform3(-150..150_i64),
        seed in any::<u64>(),
    ) {
        let mut fleet = Fleet::new(3, settings(100_000, 1200, 30));
        for (guard, skew) in fleet.guards.iter_mut().zip(skews) {
            guard.skew = skew;
        }
        let (mut crowd, mut dice) = (Crowd::default(), Dice(seed));
        fleet.open();
        let mut arrivals = Vec::new();
        let mut passed = Passed::default();
        let mut seconds = people.into_iter();
        let mut calm = 0;
        while calm < 2 || arrivals.len() as u64 > crowd.inside {
            let people = seconds.next().unwrap_or_else(|| { calm += 1; 0 });
            crowd.come(&fleet, people, u32::MAX);
            arrivals.extend(std::iter::repeat_n(fleet.wall(), people));
            for _ in 0..10 {
                crowd.tick(&mut fleet, &mut dice);
                let watermark = fleet.progress.word.admitted.arrival;
                passed.note(fleet.elapsed, arrivals.partition_point(|at| *at <= watermark));
            }
            prop_assert!(calm < 600, "{} of {} are in", crowd.inside, arrivals.len());
        }
        // A second's worth at once, and what the watermark cannot tell apart: a second's arrivals
        // come here in one millisecond, and skewed clocks move some of them past it.
        let bound = 1200 + 20 + 60 + 60;
        prop_assert!(passed.most <= bound, "{} in a minute", passed.most);
        let is_used = passed.most >= 1100 || arrivals.len() < 1400;
        prop_assert!(is_used, "{} of {}", passed.most, arrivals.len());
        prop_assert!(crowd.blur <= Duration::from_millis(300 + 100), "{:?}", crowd.blur);
        prop_assert_eq!(crowd.set_back, 0);
    }
}

#[test]
fn a_step_of_an_hour_of_one_clock_costs_nobody_the_place() {
    for hour in [3_600_000, -3_600_000] {
        let mut fleet = Fleet::new(3, settings(100_000, 6000, 30));
        let (mut crowd, mut dice) = (Crowd::default(), Dice(1));
        fleet.open();
        for tick in 0..1500 {
            if tick < 600 {
                crowd.come(&fleet, 15, u32::MAX);
            }
            if tick == 200 {
                fleet.guards[1].skew = hour;
            }
            if tick == 500 {
                fleet.guards[1].skew = 0;
            }
            crowd.tick(&mut fleet, &mut dice);
        }
        assert_eq!(crowd.inside, 9000, "everybody is in, whatever {hour}");
        assert!(crowd.blur <= Duration::from_secs(1), "{:?}", crowd.blur);
        assert!(fleet.progress.word.admitted.arrival <= fleet.wall());
    }
}

#[test]
fn a_step_of_the_coordinators_clock_neither_stops_nor_floods() {
    for hour in [Duration::from_hours(1), Duration::ZERO] {
        let mut fleet = Fleet::new(3, settings(100_000, 6000, 30));
        let (mut crowd, mut dice) = (Crowd::default(), Dice(1));
        fleet.open();
        crowd.come(&fleet, 3000, u32::MAX);
        for tick in 0..1200 {
            if tick == 20 {
                // The coordinator starts anew, with whatever clock.
                fleet.progress = shield::room::Progress::new();
                fleet.ahead = if hour.is_zero() {
                    -3_600_000
                } else {
                    3_600_000
                };
            }
            crowd.tick(&mut fleet, &mut dice);
        }
        assert_eq!(crowd.inside, 3000);
        assert!(crowd.most_in_a_minute <= 6600, "{}", crowd.most_in_a_minute);
        assert!(fleet.progress.word.admitted.arrival <= START.after(fleet.elapsed + TICK * 30));
    }
}
