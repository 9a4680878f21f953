//! Places of a growing share that are given back, or not.

use super::*;

/// Asks so often; the passes.
fn ask(breaker: &Breaker, times: u32, now: Time) -> Vec<Pass> {
    (0..times).filter_map(|_| breaker.admit(now).ok()).collect()
}

#[test]
fn whatever_a_later_rule_refuses_the_share_comes_through() {
    let breaker = breaker();
    let now = recover(&breaker, at(0));
    let (mut later, mut through) = (0, 0);
    for _ in 0..1_000 {
        if let Ok(pass) = breaker.admit(now) {
            later += 1;
            if later % 10 == 0 {
                through += 1;
            } else {
                breaker.cancel(pass, now);
            }
        }
    }
    // A tenth of all, but for the first ten, for whom nothing is due yet.
    assert_eq!(through, 99);
}

#[test]
fn places_that_are_given_back_together_let_in_no_crowd() {
    let breaker = breaker();
    let now = recover(&breaker, at(0));
    let refused = ask(&breaker, 1_000, now);
    assert_eq!(refused.len(), 100);
    for pass in refused {
        breaker.cancel(pass, now);
    }
    assert_eq!(ask(&breaker, 3, now).len(), 2);
    assert_eq!(ask(&breaker, 1_000, now).len(), 100);
}

#[test]
fn a_request_that_was_sent_and_is_forgotten_has_used_its_place() {
    let breaker = breaker();
    let now = recover(&breaker, at(0));
    for pass in ask(&breaker, 10, now) {
        breaker.forget(pass, now);
    }
    assert_eq!(ask(&breaker, 9, now).len(), 0);
}

#[test]
fn a_probe_that_is_forgotten_leaves_its_place_to_another() {
    let breaker = breaker();
    let now = open(&breaker, at(0));
    for pass in probes(&breaker, now) {
        breaker.forget(pass, now);
    }
    assert_eq!(probes(&breaker, now).len(), 5);
}

#[test]
fn who_took_no_place_of_this_recovery_gives_none_back() {
    let breaker = breaker();
    let mut others: Vec<_> = (0..10).map(|_| breaker.admit(at(0)).unwrap()).collect();
    let now = open(&breaker, at(0));
    // The first probes are not heard of, so that others decide.
    others.extend(probes(&breaker, now));
    let now = now.after(Duration::from_secs(30));
    for probe in probes(&breaker, now) {
        breaker.finish(probe, GOOD, now);
    }
    for pass in others {
        breaker.cancel(pass, now);
    }
    assert_eq!(breaker.state(now), BreakerState::Recovering { percent: 10 });
    assert_eq!(ask(&breaker, 9, now).len(), 0);
}
