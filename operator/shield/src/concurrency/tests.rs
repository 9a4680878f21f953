use super::*;
use crate::tier::Class;

fn fixed(limit: u32) -> Limit {
    Limit::Fixed(NonZeroU32::new(limit).unwrap())
}

fn target(limit: u32) -> (Concurrency<u32>, ClassId, ClassId) {
    let class = |tier| Class {
        tier,
        guaranteed_percent: None,
    };
    let classes = Classes::new(vec![class(Tier::Core), class(Tier::Ancillary)]).unwrap();
    let target = Concurrency::new(fixed(limit), &classes, Time::ZERO);
    let [core, ancillary] = [0, 1].map(|at| classes.id(at).unwrap());
    (target, core, ancillary)
}

fn runs(entered: Entered<u32>) -> Permit {
    match entered {
        Entered::Now(permit) => permit,
        Entered::Queued { .. } | Entered::Refused(_) => panic!("it should run: {entered:?}"),
    }
}

fn waits(entered: Entered<u32>) -> (Place, Vec<Turn<u32>>) {
    match entered {
        Entered::Queued { place, turns, .. } => (place, turns),
        Entered::Now(_) | Entered::Refused(_) => panic!("it should wait: {entered:?}"),
    }
}

fn woken(turns: Vec<Turn<u32>>) -> (u32, Permit) {
    match turns.into_iter().next() {
        Some(Turn::Run(waiter, permit)) => (waiter, permit),
        Some(Turn::Refused(..)) | None => panic!("one should run"),
    }
}

fn refused(turns: &[Turn<u32>]) -> Vec<(u32, Reason)> {
    let each = turns.iter().map(|turn| match turn {
        Turn::Run(waiter, _) => panic!("{waiter} should not run"),
        Turn::Refused(waiter, refusal) => (*waiter, refusal.reason),
    });
    each.collect()
}

#[test]
fn a_freed_permit_goes_to_the_most_important_that_waits() {
    let (target, core, ancillary) = target(1);
    let permit = runs(target.enter(ancillary, Time::ZERO, || 0));
    let _ = waits(target.enter(ancillary, Time::ZERO, || 1));
    let _ = waits(target.enter(core, Time::ZERO, || 2));
    let (waiter, permit) = woken(target.leave(permit, Outcome::Success, Time::ZERO));
    assert_eq!(waiter, 2);
    let (waiter, permit) = woken(target.leave(permit, Outcome::Success, Time::ZERO));
    assert_eq!(waiter, 1);
    let turns = target.leave(permit, Outcome::Success, Time::ZERO);
    assert!(turns.is_empty());
    let seen = target.snapshot();
    assert_eq!(seen.running, 0);
    assert_eq!((seen.tiers[0].admitted, seen.tiers[0].waited), (1, 1));
    assert_eq!((seen.tiers[3].admitted, seen.tiers[3].waited), (2, 1));
}

#[test]
fn a_full_queue_refuses_an_equal_and_gives_way_to_the_more_important() {
    let (target, core, ancillary) = target(1);
    let _permit = runs(target.enter(core, Time::ZERO, || 0));
    for waiter in 1..=QUEUE_MIN {
        assert!(
            waits(target.enter(ancillary, Time::ZERO, || waiter))
                .1
                .is_empty()
        );
    }
    let late = target.enter(ancillary, Time::ZERO, || panic!("nobody waits"));
    let Entered::Refused(refusal) = late else {
        panic!("the queue is full: {late:?}");
    };
    assert_eq!(refusal.reason, Reason::QueueFull);
    let (_, turns) = waits(target.enter(core, Time::ZERO, || 100));
    assert_eq!(refused(&turns), [(QUEUE_MIN, Reason::Displaced)]);
    let ancillary = target.snapshot().tiers[3];
    assert_eq!((ancillary.queue_full, ancillary.displaced), (1, 1));
    assert_eq!(ancillary.waiting, u64::from(QUEUE_MIN) - 1);
}

#[test]
fn who_waited_too_long_is_refused_and_makes_room() {
    let (target, core, _) = target(1);
    let permit = runs(target.enter(core, Time::ZERO, || 0));
    for waiter in 1..=QUEUE_MIN {
        let _ = waits(target.enter(core, Time::from_nanos(waiter.into()), || waiter));
    }
    let over = Time::from_nanos(2).after(WAIT_MAX);
    let (_, turns) = waits(target.enter(core, over, || 100));
    assert_eq!(refused(&turns), [(1, Reason::Waited), (2, Reason::Waited)]);
    let turns = target.expire(Time::from_nanos(3).after(WAIT_MAX));
    assert_eq!(refused(&turns), [(3, Reason::Waited)]);
    let now = Time::from_nanos(4).after(WAIT_MAX);
    let mut turns = target.leave(permit, Outcome::Success, now);
    let run = turns.split_off(1);
    assert_eq!(refused(&turns), [(4, Reason::Waited)]);
    assert_eq!(woken(run).0, 5);
    assert_eq!(target.snapshot().tiers[0].expired, 4);
}

#[test]
fn who_must_go_is_told_even_if_the_queue_is_too_long_for_a_limit_that_fell() {
    let (target, core, _) = target(100);
    let permits: Vec<Permit> = (0..100)
        .map(|waiter| runs(target.enter(core, Time::ZERO, || waiter)))
        .collect();
    for waiter in 0..100 {
        let since = Time::from_nanos(u64::from(waiter > 0));
        let _ = waits(target.enter(core, since, || waiter));
    }
    assert!(target.set_limit(fixed(1), Time::ZERO).is_empty());
    let (_, turns) = waits(target.enter(core, Time::ZERO.after(WAIT_MAX), || 100));
    assert_eq!(refused(&turns), [(0, Reason::Waited)]);
    assert_eq!(permits.len(), 100);
}

#[test]
fn who_went_away_waits_no_more_and_is_not_woken() {
    let (target, core, _) = target(1);
    let permit = runs(target.enter(core, Time::ZERO, || 0));
    let (place, _) = waits(target.enter(core, Time::ZERO, || 1));
    assert_eq!(target.abandon(place), Some(1));
    assert_eq!(target.abandon(place), None);
    assert!(
        target
            .leave(permit, Outcome::Success, Time::ZERO)
            .is_empty()
    );
    assert_eq!(target.snapshot().tiers[0].abandoned, 1);
}

#[test]
fn a_smaller_limit_stops_nobody_and_a_larger_one_lets_in_at_once() {
    let (target, core, _) = target(2);
    let first = runs(target.enter(core, Time::ZERO, || 0));
    let second = runs(target.enter(core, Time::ZERO, || 1));
    let _ = waits(target.enter(core, Time::ZERO, || 2));
    let _ = waits(target.enter(core, Time::ZERO, || 3));
    assert!(target.set_limit(fixed(1), Time::ZERO).is_empty());
    assert!(target.leave(first, Outcome::Success, Time::ZERO).is_empty());
    let (waiter, _third) = woken(target.leave(second, Outcome::Success, Time::ZERO));
    assert_eq!(waiter, 2);
    let (waiter, _fourth) = woken(target.set_limit(fixed(2), Time::ZERO));
    assert_eq!(waiter, 3);
}

#[test]
fn a_new_policy_keeps_what_an_adaptive_limit_has_learnt() {
    let mut bound = Bound::new(Limit::Adaptive, Time::ZERO);
    let start = bound.limit();
    for request in 0..100_u64 {
        let now = Time::from_nanos(request * 10_000_000);
        bound.finished(Finished {
            started: now,
            now: now.after(Duration::from_millis(100)),
            outcome: Outcome::Failure,
            running: 20,
        });
    }
    let learnt = bound.limit();
    assert_ne!(learnt, start);
    bound.set(Limit::Adaptive, 3, Time::ZERO);
    assert_eq!(bound.limit(), learnt);
    bound.set(fixed(7), 3, Time::ZERO);
    assert_eq!(bound.limit(), 7);
}

#[test]
fn a_limit_lowered_from_100_to_80_with_100_running_lets_nobody_in_before_fewer_than_80_run() {
    let (target, core, _) = target(100);
    let enter = |waiter| target.enter(core, Time::ZERO, || waiter);
    let mut running: Vec<Permit> = (0..100).map(|waiter| runs(enter(waiter))).collect();
    let _ = waits(enter(100));
    assert!(target.set_limit(fixed(80), Time::ZERO).is_empty());
    for left in (80..100).rev() {
        let permit = running.pop().unwrap();
        let turns = target.leave(permit, Outcome::Success, Time::ZERO);
        assert!(turns.is_empty(), "{left} still run");
        let _ = waits(enter(100 + left));
    }
    let permit = running.pop().unwrap();
    let (waiter, _permit) = woken(target.leave(permit, Outcome::Success, Time::ZERO));
    assert_eq!(waiter, 100, "the 79 that were left make room for the first");
}

#[test]
fn a_limit_that_becomes_adaptive_begins_with_what_runs_and_one_that_is_fixed_again_counts_it() {
    let (target, core, _) = target(300);
    let enter = || target.enter(core, Time::ZERO, || 0);
    let mut permits: Vec<Permit> = (0..200).map(|_| runs(enter())).collect();
    assert!(target.set_limit(Limit::Adaptive, Time::ZERO).is_empty());
    let seen = target.snapshot();
    assert_eq!((seen.limit, seen.running), (200, 200));
    let _ = waits(enter());
    let (_, permit) = woken(target.leave(permits.remove(0), Outcome::Success, Time::ZERO));
    permits.push(permit);
    let _ = waits(enter());
    let turns = target.set_limit(fixed(201), Time::ZERO);
    assert_eq!(turns.len(), 1);
    permits.push(woken(turns).1);
    assert_eq!(target.snapshot().running, 201);
    assert_eq!(permits.len(), 201);
}

#[test]
fn clients_stay_away_longer_the_more_are_refused_and_never_together() {
    let mut pressure = Pressure::default();
    let first = pressure.refused(Time::ZERO);
    assert!(first >= Duration::from_secs(1) && first <= Duration::from_secs(2));
    for _ in 0..10 {
        pressure.admitted(Time::ZERO);
    }
    for _ in 0..99 {
        pressure.refused(Time::ZERO);
    }
    let now = Time::from_nanos(1_000_000_000);
    let mut spans: Vec<Duration> = (0..100).map(|_| pressure.refused(now)).collect();
    spans.sort();
    // Ten were refused for each that ran.
    assert!(spans[0] >= Duration::from_secs(11) && spans[99] <= Duration::from_secs(22));
    let gaps = spans.windows(2).map(|two| two[1].saturating_sub(two[0]));
    assert!(
        gaps.max().unwrap() < Duration::from_millis(300),
        "{spans:?}"
    );
    let later = pressure.refused(Time::from_nanos(9_000_000_000));
    assert!(
        later <= Duration::from_secs(2),
        "after a silence: {later:?}"
    );
    for _ in 0..10_000 {
        pressure.refused(Time::from_nanos(9_500_000_000));
    }
    let most = pressure.refused(Time::from_nanos(10_000_000_000));
    assert!(most >= RETRY_AFTER_MAX / 2 && most <= RETRY_AFTER_MAX);
}
