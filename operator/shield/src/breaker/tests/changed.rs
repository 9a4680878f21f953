//! Settings that change while the breaker is in use.

use super::*;

fn by(change: impl FnOnce(&mut BreakerSettings)) -> BreakerSettings {
    let mut settings = settings(Condition::Errors { percent: 50 });
    change(&mut settings);
    settings
}

#[test]
fn open_stays_open_when_the_settings_are_tightened() {
    let breaker = breaker();
    let until_then = open(&breaker, at(0));
    let tighter = by(|s| {
        s.condition = Condition::Errors { percent: 20 };
        s.min_requests = 5;
        s.open_for = Duration::from_mins(1);
    });
    breaker.set(&tighter, at(1));
    assert_eq!(until(&breaker, at(1)), until_then);
    assert!(breaker.admit(at(1)).is_err());
    // The next time by the new ones.
    let mut passes = probes(&breaker, until_then);
    breaker.finish(passes.pop().unwrap(), BAD, until_then);
    assert!(until(&breaker, until_then).since(until_then) >= Duration::from_secs(10));
}

#[test]
fn what_was_admitted_before_a_change_counts_as_before() {
    let breaker = breaker();
    let early = breaker.admit(at(0)).unwrap();
    let now = open(&breaker, at(0));
    breaker.set(&by(|s| s.probes = 6), now);
    breaker.finish(early, BAD, now);
    let probes = probes(&breaker, now);
    assert_eq!(probes.len(), 6);
    breaker.set(&by(|s| s.probes = 7), now);
    for probe in probes {
        breaker.finish(probe, GOOD, now);
    }
    let (unfinished, good) = (0, 6);
    assert_eq!(
        breaker.state(now),
        BreakerState::HalfOpen { unfinished, good }
    );
    breaker.finish(breaker.admit(now).unwrap(), GOOD, now);
    assert_eq!(breaker.state(now), BreakerState::Recovering { percent: 10 });
}

#[test]
fn fewer_probes_than_were_good_already_are_enough() {
    let breaker = breaker();
    let now = open(&breaker, at(0));
    let mut passes = probes(&breaker, now);
    for pass in passes.drain(..2) {
        breaker.finish(pass, GOOD, now);
    }
    breaker.set(&by(|s| s.probes = 2), now);
    assert_eq!(breaker.state(now), BreakerState::Recovering { percent: 10 });
}

#[test]
fn an_opening_lasts_no_longer_than_the_new_settings_let_one_last() {
    let long = by(|s| s.open_for = Duration::from_mins(10));
    let breaker = Breaker::new(long, 1).unwrap();
    assert!(open(&breaker, at(0)) >= at(600_000));
    breaker.set(&by(|s| s.open_for = Duration::from_secs(1)), at(0));
    let span = until(&breaker, at(0)).since(at(0));
    assert!(
        span >= Duration::from_secs(10) && span <= Duration::from_secs(11),
        "{span:?}"
    );
    assert!(
        breaker.admit(at(5_000)).is_err(),
        "also for those who read it without the lock"
    );
    assert!(breaker.admit(at(11_000)).is_ok());
}

#[test]
fn what_was_counted_counts_on_unless_it_would_be_counted_otherwise() {
    let slow = |millis| Condition::SlowCalls {
        over: Duration::from_millis(millis),
        percent: 50,
    };
    let counted = |before: BreakerSettings, after: BreakerSettings| {
        let breaker = Breaker::new(before, 1).unwrap();
        for _ in 0..19 {
            breaker.finish(breaker.admit(at(0)).unwrap(), BAD, at(0));
        }
        breaker.set(&after, at(1));
        breaker.finish(breaker.admit(at(1)).unwrap(), BAD, at(1));
        matches!(breaker.state(at(1)), BreakerState::Open { .. })
    };
    let count = Condition::ErrorCount { count: 20 };
    assert!(counted(by(|_| {}), by(|s| s.condition = count)));
    assert!(counted(by(|_| {}), by(|s| s.probes = 1)));
    assert!(!counted(
        by(|_| {}),
        by(|s| s.window = Duration::from_mins(1))
    ));
    assert!(!counted(by(|_| {}), by(|s| s.condition = slow(800))));
    let slower = |millis| by(|s| s.condition = slow(millis));
    assert!(!counted(slower(800), slower(400)));
}
