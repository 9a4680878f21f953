//! Probes that are not heard of for a long time, or never.

use super::*;

/// As long as a probe keeps its place.
const PATIENCE: Duration = Duration::from_secs(30);

fn half_open(unfinished: u32, good: u32) -> BreakerState {
    BreakerState::HalfOpen { unfinished, good }
}

#[test]
fn a_probe_that_is_not_heard_of_leaves_its_place_and_counts_for_nothing() {
    let breaker = breaker();
    let now = open(&breaker, at(0));
    let lost = probes(&breaker, now);
    let given_up = now.after(PATIENCE);
    let before = Time::from_nanos(given_up.as_nanos() - 1);
    assert!(breaker.admit(before).is_err());
    assert_eq!(breaker.state(before), half_open(5, 0));
    assert_eq!(breaker.state(given_up), half_open(0, 0));
    for probe in probes(&breaker, given_up) {
        breaker.finish(probe, GOOD, given_up);
    }
    let recovering = BreakerState::Recovering { percent: 10 };
    assert_eq!(breaker.state(given_up), recovering);
    // Those are too late to say anything.
    for probe in lost {
        breaker.finish(probe, BAD, given_up);
    }
    assert_eq!(breaker.state(given_up), recovering);
}

#[test]
fn a_dependency_whose_answers_take_longer_than_a_probe_keeps_its_place_recovers() {
    let breaker = breaker();
    let start = open(&breaker, at(0));
    let mut flying: VecDeque<(Time, Pass)> = VecDeque::new();
    for second in 0..120 {
        let now = start.after(Duration::from_secs(second));
        while flying.front().is_some_and(|(done, _)| *done <= now) {
            let (_, pass) = flying.pop_front().unwrap();
            breaker.finish(pass, GOOD, now);
        }
        let asked = probes(&breaker, now).into_iter();
        flying.extend(asked.map(|pass| (now.after(Duration::from_secs(50)), pass)));
        if !matches!(breaker.state(now), BreakerState::HalfOpen { .. }) {
            assert_eq!(second, 50, "with the first five answers");
            return;
        }
    }
    panic!("{:?}", breaker.state(start.after(Duration::from_mins(2))));
}

#[test]
fn a_dependency_that_hangs_is_never_closed_and_asked_by_no_more_than_the_probes_at_a_time() {
    let breaker = breaker();
    let start = open(&breaker, at(0));
    let mut asked = Vec::new();
    for second in 0..3_600 {
        asked.extend(probes(&breaker, start.after(Duration::from_secs(second))));
    }
    assert_eq!(asked.len(), 5 * 120, "five in each half minute");
    let now = start.after(Duration::from_hours(1));
    assert!(matches!(breaker.state(now), BreakerState::HalfOpen { .. }));
    // The first that is known to have failed opens it, however late.
    breaker.finish(asked.remove(0), BAD, now);
    assert!(until(&breaker, now) >= now.after(Duration::from_secs(10)));
    for late in asked {
        breaker.finish(late, GOOD, now);
    }
    assert!(breaker.admit(now).is_err(), "they belong to another time");
}

#[test]
fn who_gives_up_late_leaves_the_place_to_those_who_have_it_now() {
    let breaker = breaker();
    let now = open(&breaker, at(0));
    let late = probes(&breaker, now);
    let given_up = now.after(PATIENCE);
    let _fresh = probes(&breaker, given_up);
    for pass in late {
        breaker.cancel(pass, given_up);
    }
    assert_eq!(breaker.state(given_up), half_open(5, 0));
    assert!(breaker.admit(given_up).is_err());
}
