use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn service(endpoints: usize) -> (Arc<Ejections>, Vec<Health>) {
    service_with(OutlierSettings::default(), endpoints)
}

fn service_with(settings: OutlierSettings, endpoints: usize) -> (Arc<Ejections>, Vec<Health>) {
    let shared = Arc::new(Ejections::new(settings, 1).unwrap());
    let healths = (0..endpoints).map(|_| Health::new(&shared)).collect();
    (shared, healths)
}

fn fail(health: &Health, times: u32, now: Time) {
    let entries: Vec<_> = (0..times).map(|_| health.enter(now).unwrap()).collect();
    for pass in entries {
        health.report(pass, EndpointResult::Failed, now);
    }
}

/// How long it stays ejected from now on, to the tenth of a second.
fn ejected_for(health: &Health, now: Time) -> Duration {
    let steps = (0..4_000).map(|tenth| Duration::from_millis(tenth * 100));
    let is_over = |span: &Duration| !health.is_ejected(now.after(*span));
    steps.into_iter().find(is_over).unwrap()
}

/// The trial when the ejection is over.
fn trial(health: &Health, now: Time) -> (EndpointPass, Time) {
    let now = now.after(ejected_for(health, now));
    (health.enter(now).unwrap(), now)
}

#[test]
fn five_failures_in_a_row_eject_an_endpoint_for_half_a_minute() {
    let (shared, healths) = service(4);
    fail(&healths[0], 4, at(0));
    let good = healths[0].enter(at(0)).unwrap();
    healths[0].report(good, EndpointResult::Good, at(0));
    fail(&healths[0], 4, at(0));
    assert!(!healths[0].is_ejected(at(0)));
    fail(&healths[0], 1, at(0));
    assert!(healths[0].is_ejected(at(0)));
    assert_eq!(healths[0].enter(at(0)), None);
    assert_eq!(shared.counts(), (1, 4));
    let span = ejected_for(&healths[0], at(0));
    assert!(
        span >= Duration::from_secs(30) && span <= Duration::from_secs(34),
        "{span:?}"
    );
}

#[test]
fn one_real_request_decides_whether_it_returns() {
    let (shared, healths) = service(2);
    fail(&healths[0], 5, at(0));
    let (pass, now) = trial(&healths[0], at(0));
    assert!(healths[0].is_ejected(now), "others wait for the result");
    assert_eq!(healths[0].enter(now), None);
    healths[0].report(pass, EndpointResult::Good, now);
    assert!(!healths[0].is_ejected(now));
    assert_eq!(shared.counts(), (0, 2));
    fail(&healths[0], 4, now);
    assert!(!healths[0].is_ejected(now), "it starts with a clean slate");
}

#[test]
fn of_many_threads_one_tries_the_endpoint() {
    for _ in 0..50 {
        let (_, healths) = service(2);
        fail(&healths[0], 5, at(0));
        let over = at(60_000);
        let entered = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let pass = healths[0].enter(over);
                    entered.lock().unwrap().extend(pass);
                });
            }
        });
        assert_eq!(entered.into_inner().unwrap().len(), 1);
    }
}

#[test]
fn a_failed_trial_ejects_for_longer_each_time_up_to_a_cap() {
    let (shared, healths) = service(2);
    let mut now = at(0);
    fail(&healths[0], 5, now);
    for turn in 2..=14_u64 {
        let (pass, then) = trial(&healths[0], now);
        now = then;
        healths[0].report(pass, EndpointResult::Failed, now);
        let least = Duration::from_secs(30 * turn.min(10));
        let span = ejected_for(&healths[0], now);
        assert!(span >= least && span <= least * 112 / 100, "{span:?}");
    }
    assert_eq!(shared.counts(), (1, 2));
}

#[test]
fn who_relapses_soon_is_out_for_longer_and_who_was_good_for_long_is_not() {
    let (_, healths) = service(2);
    let mut now = at(0);
    for (good_for, seconds) in [(0, 30), (299, 60), (299, 90), (300, 30)] {
        now = now.after(Duration::from_secs(good_for));
        fail(&healths[0], 5, now);
        let least = Duration::from_secs(seconds);
        let span = ejected_for(&healths[0], now);
        assert!(span >= least && span <= least * 112 / 100, "{span:?}");
        let (pass, then) = trial(&healths[0], now);
        now = then;
        healths[0].report(pass, EndpointResult::Good, now);
    }
}

#[test]
fn a_cancelled_trial_leaves_the_try_to_the_next_request() {
    let (_, healths) = service(2);
    fail(&healths[0], 5, at(0));
    let (mut pass, now) = trial(&healths[0], at(0));
    for _ in 0..10 {
        healths[0].cancel(pass, now);
        assert!(!healths[0].is_ejected(now));
        pass = healths[0].enter(now).unwrap();
    }
    healths[0].report(pass, EndpointResult::Good, now);
    assert!(!healths[0].is_ejected(now));
}

#[test]
fn a_trial_that_is_not_heard_of_leaves_the_try_to_another_and_counts_for_nothing() {
    let (shared, healths) = service(2);
    fail(&healths[0], 5, at(0));
    let (lost, now) = trial(&healths[0], at(0));
    let patience = Duration::from_secs(30);
    let before = Time::from_nanos(now.after(patience).as_nanos() - 1);
    assert!(healths[0].is_ejected(before) && healths[0].enter(before).is_none());
    let given_up = now.after(patience);
    assert!(!healths[0].is_ejected(given_up));
    let next = healths[0].enter(given_up).unwrap();
    assert_eq!(healths[0].enter(given_up), None, "one at a time");
    assert_eq!(shared.counts(), (1, 2));
    // The ejection is the second and not the third.
    healths[0].report(next, EndpointResult::Failed, given_up);
    let span = ejected_for(&healths[0], given_up);
    assert!(span >= 2 * patience && span < 3 * patience, "{span:?}");
    healths[0].report(lost, EndpointResult::Good, given_up);
    assert!(healths[0].is_ejected(given_up), "another was heard first");
}

#[test]
fn an_endpoint_whose_answers_take_longer_than_others_wait_for_its_trial_returns() {
    let (shared, healths) = service(2);
    fail(&healths[0], 5, at(0));
    let (first, now) = trial(&healths[0], at(0));
    let later = now.after(Duration::from_secs(30));
    let second = healths[0].enter(later).unwrap();
    let answered = now.after(Duration::from_secs(45));
    healths[0].report(first, EndpointResult::Good, answered);
    assert!(!healths[0].is_ejected(answered));
    assert_eq!(shared.counts(), (0, 2));
    healths[0].report(second, EndpointResult::Failed, answered);
    fail(&healths[0], 4, answered);
    assert!(
        !healths[0].is_ejected(answered),
        "it starts with a clean slate"
    );
}

#[test]
fn an_endpoint_that_hangs_is_tried_by_one_request_in_half_a_minute() {
    let (_, healths) = service(2);
    fail(&healths[0], 5, at(0));
    let (first, now) = trial(&healths[0], at(0));
    let mut tried = vec![first];
    for second in 0..600 {
        tried.extend(healths[0].enter(now.after(Duration::from_secs(second))));
    }
    assert_eq!(tried.len(), 20, "in ten minutes");
    // A client that gave up is in the way of none that still waits.
    healths[0].cancel(tried.remove(0), now);
    assert_eq!(healths[0].enter(now.after(Duration::from_secs(599))), None);
}

#[test]
fn a_lost_trial_takes_nothing_from_the_next_one() {
    let (_, healths) = service(2);
    fail(&healths[0], 5, at(0));
    let (lost, now) = trial(&healths[0], at(0));
    let much_later = now.after(Duration::from_mins(10));
    let next = healths[0].enter(much_later).unwrap();
    healths[0].cancel(lost, much_later);
    assert_eq!(healths[0].enter(much_later), None);
    healths[0].report(next, EndpointResult::Good, much_later);
    assert!(!healths[0].is_ejected(much_later));
}

#[test]
fn what_was_under_way_when_it_was_ejected_says_nothing_afterwards() {
    let (shared, healths) = service(6);
    let late: Vec<_> = (0..20).map(|_| healths[0].enter(at(0)).unwrap()).collect();
    fail(&healths[0], 5, at(0));
    let before = ejected_for(&healths[0], at(0));
    let mut late = late.into_iter();
    for pass in late.by_ref().take(10) {
        healths[0].report(pass, EndpointResult::Failed, at(1));
    }
    assert_eq!(ejected_for(&healths[0], at(0)), before);
    assert_eq!(shared.counts(), (1, 6));
    let (pass, now) = trial(&healths[0], at(0));
    healths[0].report(pass, EndpointResult::Good, now);
    for pass in late {
        healths[0].report(pass, EndpointResult::Failed, now);
    }
    assert!(!healths[0].is_ejected(now));
}

#[test]
fn a_share_may_be_ejected_but_one_always_and_the_last_never() {
    for (endpoints, percent, most) in [
        (1, 100, 0),
        (2, 50, 1),
        (2, 100, 1),
        (3, 50, 1),
        (5, 10, 1),
        (10, 50, 5),
        (10, 100, 9),
    ] {
        let settings = OutlierSettings {
            max_ejected_percent: percent,
            ..OutlierSettings::default()
        };
        let (shared, healths) = service_with(settings, endpoints);
        for health in &healths {
            fail(health, 5, at(0));
        }
        let ejected = healths.iter().filter(|h| h.is_ejected(at(0))).count();
        assert_eq!(ejected, most, "{percent} % of {endpoints}");
        assert_eq!(shared.counts().0, u32::try_from(most).unwrap());
    }
}

#[test]
fn who_could_not_be_ejected_is_when_there_is_room() {
    let (_, healths) = service(2);
    fail(&healths[0], 5, at(0));
    fail(&healths[1], 5, at(0));
    assert!(!healths[1].is_ejected(at(0)));
    let (pass, now) = trial(&healths[0], at(0));
    healths[0].report(pass, EndpointResult::Good, now);
    fail(&healths[1], 1, now);
    assert!(healths[1].is_ejected(now));
}

#[test]
fn when_only_ejected_endpoints_are_left_all_are_used() {
    let (shared, mut healths) = service(4);
    fail(&healths[0], 5, at(0));
    fail(&healths[1], 5, at(0));
    healths.truncate(2);
    assert_eq!(shared.counts(), (2, 2));
    assert!(
        healths
            .iter()
            .all(|h| !h.is_ejected(at(0)) && h.enter(at(0)).is_some())
    );
    healths.push(Health::new(&shared));
    assert!(healths[0].is_ejected(at(0)));
    healths.clear();
    assert_eq!(shared.counts(), (0, 0));
}

#[test]
fn settings_out_of_bounds_are_refused_by_name() {
    let good = OutlierSettings::default();
    assert_eq!(good.validate(), Ok(()));
    let refusal = |settings: OutlierSettings| settings.validate().unwrap_err().to_string();
    assert_eq!(
        refusal(OutlierSettings {
            consecutive_failures: 0,
            ..good
        }),
        "outlier ejection: consecutiveFailures is 0, allowed is 1 to 1000"
    );
    assert_eq!(
        refusal(OutlierSettings {
            max_ejected_percent: 101,
            ..good
        }),
        "outlier ejection: maxEjectedPercent is 101, allowed is 1 to 100"
    );
    assert_eq!(
        refusal(OutlierSettings {
            eject_for: Duration::ZERO,
            ..good
        }),
        "outlier ejection: ejectFor is 0ns, allowed is 100ms to 3600s"
    );
    assert_eq!(
        refusal(OutlierSettings {
            eject_for_max: Duration::from_secs(1),
            ..good
        }),
        "outlier ejection: ejectForMax is 1s, allowed is 30s to 3600s"
    );
}

proptest! {
    #[test]
    fn whatever_happens_one_endpoint_is_left_and_none_is_lost_for_good(
        endpoints in 1..6_usize,
        percent in 1..=100_u32,
        acts in prop::collection::vec((any::<usize>(), 0..8_u8, 0..9_000_u64), 1..300),
    ) {
        let settings = OutlierSettings {
            consecutive_failures: 2,
            max_ejected_percent: percent,
            ..OutlierSettings::default()
        };
        let (shared, healths) = service_with(settings, endpoints);
        let mut now = at(0);
        let mut held: Vec<Vec<EndpointPass>> = healths.iter().map(|_| Vec::new()).collect();
        for (which, act, millis) in acts {
            let (health, held) = (&healths[which % endpoints], &mut held[which % endpoints]);
            match (act, held.pop()) {
                (0..=2, old) => held.extend(old.into_iter().chain(health.enter(now))),
                (3 | 4, Some(pass)) => health.report(pass, EndpointResult::Failed, now),
                (5, Some(pass)) => health.report(pass, EndpointResult::Good, now),
                (6, Some(pass)) => health.cancel(pass, now),
                (3..=6, None) | (7.., _) => now = now.after(Duration::from_millis(millis)),
            }
            let out = healths.iter().filter(|h| h.is_ejected(now)).count();
            prop_assert!(out < endpoints);
            let (ejected, all) = shared.counts();
            prop_assert!(usize::try_from(ejected).unwrap() >= out);
            prop_assert!(ejected < all);
            prop_assert!(ejected <= (all * percent / 100).max(1));
        }
        let quiet = now.after(Duration::from_mins(6));
        prop_assert!(healths.iter().all(|h| h.enter(quiet).is_some()));
    }
}
