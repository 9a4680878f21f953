mod always;
mod changed;
mod late;
mod places;

use std::collections::VecDeque;

use super::*;

const GOOD: Outcome = Outcome {
    elapsed: Duration::from_millis(5),
    is_error: false,
};
const BAD: Outcome = Outcome {
    elapsed: Duration::from_secs(2),
    is_error: true,
};

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn settings(condition: Condition) -> BreakerSettings {
    BreakerSettings {
        condition,
        window: Duration::from_secs(10),
        min_requests: 20,
        open_for: Duration::from_secs(5),
        probes: 5,
    }
}

fn breaker() -> Breaker {
    Breaker::new(settings(Condition::Errors { percent: 50 }), 1).unwrap()
}

/// Fails as many requests as it takes to open.
fn open(breaker: &Breaker, now: Time) -> Time {
    for _ in 0..20 {
        breaker.finish(breaker.admit(now).unwrap(), BAD, now);
    }
    until(breaker, now)
}

fn until(breaker: &Breaker, now: Time) -> Time {
    match breaker.state(now) {
        BreakerState::Open { until } => until,
        other @ (BreakerState::Closed
        | BreakerState::HalfOpen { .. }
        | BreakerState::Recovering { .. }) => panic!("{other:?}"),
    }
}

fn probes(breaker: &Breaker, now: Time) -> Vec<Pass> {
    (0..100).map_while(|_| breaker.admit(now).ok()).collect()
}

/// Opens, waits and lets all probes be good.
fn recover(breaker: &Breaker, now: Time) -> Time {
    let now = open(breaker, now);
    for probe in probes(breaker, now) {
        breaker.finish(probe, GOOD, now);
    }
    assert_eq!(breaker.state(now), BreakerState::Recovering { percent: 10 });
    now
}

#[test]
fn it_opens_at_exactly_the_least_number_of_requests() {
    let breaker = breaker();
    for _ in 0..19 {
        breaker.finish(breaker.admit(at(0)).unwrap(), BAD, at(0));
    }
    assert_eq!(breaker.state(at(0)), BreakerState::Closed);
    breaker.finish(breaker.admit(at(0)).unwrap(), BAD, at(0));
    let refused = breaker.admit(at(0)).unwrap_err().retry_after;
    assert!(refused >= Duration::from_secs(5), "{refused:?}");
    assert!(refused <= Duration::from_millis(8_250), "{refused:?}");
}

#[test]
fn below_the_percentage_it_stays_closed() {
    let breaker = breaker();
    for turn in 0..1_000 {
        let outcome = if turn % 20 < 11 { GOOD } else { BAD };
        breaker.finish(breaker.admit(at(turn)).unwrap(), outcome, at(turn));
    }
    assert_eq!(breaker.state(at(1_000)), BreakerState::Closed);
}

#[test]
fn a_burst_of_failures_across_any_edge_opens_it() {
    for start in (0..12_000).step_by(333) {
        let breaker = breaker();
        for step in 0..20 {
            let now = at(start + step * 500);
            breaker.finish(breaker.admit(now).unwrap(), BAD, now);
        }
        assert!(breaker.admit(at(start + 9_500)).is_err(), "from {start} ms");
    }
}

#[test]
fn slow_calls_open_it_by_their_share_and_not_by_their_average() {
    let over = Duration::from_millis(800);
    let condition = Condition::SlowCalls { over, percent: 50 };
    let one_hangs = Breaker::new(settings(condition), 1).unwrap();
    let half_are_slow = Breaker::new(settings(condition), 1).unwrap();
    for turn in 0..40_u32 {
        let hung = Duration::from_secs(if turn == 0 { 600 } else { 0 });
        let slow = Duration::from_millis(if turn % 2 == 0 { 801 } else { 800 });
        for (breaker, elapsed) in [(&one_hangs, hung), (&half_are_slow, slow)] {
            if let Ok(pass) = breaker.admit(at(0)) {
                let is_error = false;
                breaker.finish(pass, Outcome { elapsed, is_error }, at(0));
            }
        }
    }
    assert_eq!(one_hangs.state(at(0)), BreakerState::Closed);
    assert!(half_are_slow.admit(at(0)).is_err());
}

#[test]
fn a_count_of_errors_opens_it_whatever_their_share() {
    let breaker = Breaker::new(settings(Condition::ErrorCount { count: 3 }), 1).unwrap();
    for turn in 0..1_000 {
        let outcome = if turn < 2 { BAD } else { GOOD };
        breaker.finish(breaker.admit(at(0)).unwrap(), outcome, at(0));
    }
    let pass = breaker.admit(at(0)).unwrap();
    breaker.finish(pass, BAD, at(0));
    assert!(breaker.admit(at(0)).is_err());
}

#[test]
fn half_open_lets_exactly_the_probes_through() {
    let breaker = breaker();
    let now = open(&breaker, at(0));
    let before = Time::from_nanos(now.as_nanos() - 1);
    assert!(breaker.admit(before).is_err());
    let mut passes = probes(&breaker, now);
    assert_eq!(passes.len(), 5);
    breaker.finish(passes.pop().unwrap(), GOOD, now);
    let (unfinished, good) = (4, 1);
    assert_eq!(
        breaker.state(now),
        BreakerState::HalfOpen { unfinished, good }
    );
    assert!(breaker.admit(now).is_err(), "a good probe leaves no place");
}

#[test]
fn of_many_threads_exactly_the_probes_get_through() {
    for _ in 0..50 {
        let breaker = breaker();
        let now = open(&breaker, at(0));
        let passes = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let own = probes(&breaker, now);
                    passes.lock().unwrap().extend(own);
                });
            }
        });
        let passes = passes.into_inner().unwrap();
        assert_eq!(passes.len(), 5);
        for (turn, one) in passes.iter().enumerate() {
            assert!(!passes[turn + 1..].contains(one), "each is identified");
        }
    }
}

#[test]
fn one_bad_probe_reopens_it() {
    let breaker = breaker();
    let now = open(&breaker, at(0));
    let mut passes = probes(&breaker, now);
    breaker.finish(passes.pop().unwrap(), BAD, now);
    assert!(until(&breaker, now) >= now.after(Duration::from_secs(10)));
    for late in passes {
        breaker.finish(late, GOOD, now);
    }
    assert!(breaker.admit(now).is_err(), "they belong to another time");
}

#[test]
fn those_who_finish_late_decide_nothing() {
    let breaker = breaker();
    let late: Vec<_> = (0..100).map(|_| breaker.admit(at(0)).unwrap()).collect();
    let now = open(&breaker, at(0));
    let passes = probes(&breaker, now);
    let half_open = breaker.state(now);
    for (turn, pass) in late.into_iter().enumerate() {
        breaker.finish(pass, if turn % 2 == 0 { GOOD } else { BAD }, now);
        assert_eq!(breaker.state(now), half_open);
    }
    for probe in passes {
        breaker.finish(probe, GOOD, now);
    }
    assert_eq!(breaker.state(now), BreakerState::Recovering { percent: 10 });
}

#[test]
fn those_who_finish_late_disturb_no_recovery() {
    let breaker = breaker();
    let late: Vec<_> = (0..100).map(|_| breaker.admit(at(0)).unwrap()).collect();
    let now = recover(&breaker, at(0));
    for pass in late {
        breaker.finish(pass, BAD, now);
    }
    assert_eq!(breaker.state(now), BreakerState::Recovering { percent: 10 });
}

#[test]
fn a_cancelled_probe_gives_its_place_to_another() {
    let breaker = breaker();
    let now = open(&breaker, at(0));
    for _ in 0..1_000 {
        let passes = probes(&breaker, now);
        assert_eq!(passes.len(), 5);
        for pass in passes {
            breaker.cancel(pass, now);
        }
    }
    for probe in probes(&breaker, now) {
        breaker.finish(probe, GOOD, now);
    }
    assert_eq!(breaker.state(now), BreakerState::Recovering { percent: 10 });
}

#[test]
fn a_probe_of_another_breaker_decides_nothing() {
    let (one, other) = (breaker(), breaker());
    let now = open(&one, at(0));
    open(&other, at(0));
    other.finish(one.admit(now).unwrap(), GOOD, now);
    let (unfinished, good) = (0, 0);
    assert_eq!(
        other.state(now),
        BreakerState::HalfOpen { unfinished, good }
    );
}

#[test]
fn reopening_waits_twice_as_long_each_time_up_to_ten_times() {
    let breaker = breaker();
    let mut now = open(&breaker, at(0));
    for seconds in [10, 20, 40, 50, 50] {
        let mut passes = probes(&breaker, now);
        breaker.finish(passes.pop().unwrap(), BAD, now);
        let span = until(&breaker, now).since(now);
        let least = Duration::from_secs(seconds);
        assert!(span >= least && span <= least * 11 / 10, "{span:?}");
        now = until(&breaker, now);
    }
}

#[test]
fn two_breakers_do_not_probe_together() {
    let condition = Condition::Errors { percent: 50 };
    let ends: Vec<_> = (0..2)
        .map(|seed| open(&Breaker::new(settings(condition), seed).unwrap(), at(0)))
        .collect();
    assert_ne!(ends[0], ends[1]);
}

#[test]
fn closing_forgets_the_statistics_and_the_back_off() {
    let breaker = breaker();
    let now = recover(&breaker, at(0));
    // Nine failures are one short of a relapse.
    let nine: Vec<_> = (0..90).filter_map(|_| breaker.admit(now).ok()).collect();
    assert_eq!(nine.len(), 9);
    for pass in nine {
        breaker.finish(pass, BAD, now);
    }
    let closed = now.after(Duration::from_secs(10));
    assert_eq!(breaker.state(closed), BreakerState::Closed);
    for _ in 0..19 {
        breaker.finish(breaker.admit(closed).unwrap(), BAD, closed);
    }
    assert_eq!(breaker.state(closed), BreakerState::Closed);
    breaker.finish(breaker.admit(closed).unwrap(), BAD, closed);
    let span = until(&breaker, closed).since(closed);
    assert!(span <= Duration::from_millis(5_500), "{span:?}");
}

#[test]
fn readmission_grows_evenly_from_a_tenth_to_all() {
    let breaker = breaker();
    let start = recover(&breaker, at(0));
    for tenth in 0..10_u64 {
        let now = start.after(Duration::from_secs(tenth));
        let admitted = (0..1_000).filter(|_| breaker.admit(now).is_ok()).count();
        let due = usize::try_from(100 + tenth * 90).unwrap();
        assert!(admitted.abs_diff(due) <= 1, "{admitted} of {due}");
    }
    let end = start.after(Duration::from_secs(10));
    assert_eq!(breaker.state(end), BreakerState::Closed);
}

#[test]
fn readmission_takes_as_long_as_the_first_opening_where_that_is_longer() {
    let mut patient = settings(Condition::Errors { percent: 50 });
    patient.open_for = Duration::from_secs(30);
    let breaker = Breaker::new(patient, 1).unwrap();
    let start = recover(&breaker, at(0));
    let half = start.after(Duration::from_secs(15));
    assert_eq!(
        breaker.state(half),
        BreakerState::Recovering { percent: 55 }
    );
}

#[test]
fn a_relapse_reopens_with_back_off() {
    let breaker = breaker();
    let now = recover(&breaker, at(0));
    // Ten of a hundred are admitted, fewer than a closed breaker would ask for.
    for _ in 0..100 {
        if let Ok(pass) = breaker.admit(now) {
            breaker.finish(pass, BAD, now);
        }
    }
    assert!(until(&breaker, now).since(now) >= Duration::from_secs(10));
}

#[test]
fn one_unlucky_request_is_no_relapse() {
    let mut one_probe = settings(Condition::Errors { percent: 50 });
    one_probe.probes = 1;
    let breaker = Breaker::new(one_probe, 1).unwrap();
    let now = recover(&breaker, at(0));
    let pass = (0..10).find_map(|_| breaker.admit(now).ok()).unwrap();
    breaker.finish(pass, BAD, now);
    assert_eq!(breaker.state(now), BreakerState::Recovering { percent: 10 });
}

#[test]
fn the_gate_says_the_same_as_the_lock() {
    for gate in [
        Gate::Closed { epoch: 0 },
        Gate::Closed { epoch: 77 },
        Gate::Open { until: at(3) },
        Gate::Ask,
    ] {
        assert_eq!(Gate::of(gate.word()), gate);
    }
    let beyond = Gate::Open {
        until: Time::from_nanos(u64::MAX),
    };
    assert_eq!(Gate::of(beyond.word()), Gate::Ask);
}

/// A dependency with a capacity: what exceeds it within a second is slow and fails.
struct Dependency {
    per_second: usize,
    sick: std::ops::Range<u64>,
}

/// Offers requests evenly, each so many times more, two seconds apart, while it is refused; returns what was
/// admitted in each second.
fn simulate(
    breaker: &Breaker,
    dependency: &Dependency,
    per_second: u64,
    seconds: u64,
    retries: u32,
) -> Vec<u64> {
    let mut admitted = vec![0; usize::try_from(seconds).unwrap()];
    let mut flying: VecDeque<(u64, Pass, Outcome)> = VecDeque::new();
    let mut again: VecDeque<(u64, u32)> = VecDeque::new();
    let mut turns = (0..per_second * seconds).map(|turn| turn * 1_000 / per_second);
    let mut new = turns.next();
    while let Some(next) = new {
        let waits = again.front().is_some_and(|(at, _)| *at <= next);
        let (now, left) = if waits {
            again.pop_front().unwrap()
        } else {
            new = turns.next();
            (next, retries)
        };
        while flying.front().is_some_and(|(done, _, _)| *done <= now) {
            let (_, pass, outcome) = flying.pop_front().unwrap();
            breaker.finish(pass, outcome, at(now));
        }
        let Ok(pass) = breaker.admit(at(now)) else {
            again.extend((left > 0).then(|| (now + 2_000, left - 1)));
            continue;
        };
        let second = usize::try_from(now / 1_000).unwrap();
        admitted[second] += 1;
        let sick = dependency.sick.contains(&now)
            || usize::try_from(admitted[second]).unwrap() > dependency.per_second;
        let outcome = if sick { BAD } else { GOOD };
        let done = now + u64::try_from(outcome.elapsed.as_millis()).unwrap();
        let place = flying.partition_point(|(other, _, _)| *other <= done);
        flying.insert(place, (done, pass, outcome));
    }
    admitted
}

#[test]
fn a_slow_dependency_is_left_alone_within_a_window_and_taken_back_without_a_second_storm() {
    let over = Duration::from_millis(800);
    let condition = Condition::SlowCalls { over, percent: 50 };
    let breaker = Breaker::new(settings(condition), 9).unwrap();
    let dependency = Dependency {
        per_second: 1_000,
        sick: 20_000..27_000,
    };
    let admitted = simulate(&breaker, &dependency, 400, 90, 0);
    let opened = (20..30).find(|second| admitted[*second] == 0);
    assert!(opened.is_some(), "{admitted:?}");
    let back = (30..90).find(|second| admitted[*second] > 5).unwrap();
    assert!(back < 45, "it closes by itself: {admitted:?}");
    // The first second admits the probes and a share that grows from 10 to 19 percent.
    assert!(admitted[back] <= 5 + 400 * 19 / 100, "{admitted:?}");
    assert!(
        admitted[back + 12..].iter().all(|n| *n == 400),
        "{admitted:?}"
    );
}

#[test]
fn who_was_refused_and_comes_again_does_not_come_back_with_all_others_at_once() {
    let over = Duration::from_millis(800);
    let mut quick = settings(Condition::SlowCalls { over, percent: 50 });
    quick.open_for = Duration::from_secs(2);
    for seed in 0..20 {
        let breaker = Breaker::new(quick.clone(), seed).unwrap();
        let dependency = Dependency {
            per_second: 1_000,
            sick: 10_000..20_000,
        };
        let admitted = simulate(&breaker, &dependency, 100, 60, 2);
        let back = &admitted[20..];
        assert!(back.iter().all(|n| *n <= 140), "{back:?}");
        assert!(back[30..].iter().all(|n| *n == 100), "{back:?}");
    }
}
