use super::*;

const SECOND: u64 = 1_000_000_000;

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn pace(rate: f64, burst: u32) -> Pace {
    Pace::per_second(rate, burst).unwrap()
}

/// A limit of 1000 a second that warms up in 10 s.
fn limit() -> WarmUp {
    WarmUp::new(Bucket::full(pace(1000.0, 10)), Duration::from_secs(10)).unwrap()
}

/// How many pass when so many a second come evenly between two moments.
fn passed(limit: &WarmUp, rate: u64, from: u64, to: u64) -> u64 {
    let mut count = 0;
    let mut now = from;
    while now < to {
        count += u64::from(limit.take(1, at(now)).is_ok());
        now += SECOND / rate;
    }
    count
}

fn about(count: u64, due: u64) -> bool {
    count.abs_diff(due) <= due / 50 + 10
}

#[test]
fn under_load_the_rate_rises_along_the_curve_and_is_whole_after_one_period() {
    let limit = limit();
    let start = 100 * SECOND;
    assert_eq!(limit.percent(at(start)), 33);
    for quarter in 0..4_u32 {
        let from = start + u64::from(quarter) * SECOND * 5 / 2;
        let count = passed(&limit, 10_000, from, from + SECOND * 5 / 2);
        // What has passed at t of the period is rate * period * (3 - sqrt(9 - 8 t)) / 4.
        let sum = |t: f64| 10_000.0 * (3.0 - (9.0 - 8.0 * t).sqrt()) / 4.0;
        let due = sum(f64::from(quarter + 1) / 4.0) - sum(f64::from(quarter) / 4.0);
        let error = f64::from(u32::try_from(count).unwrap()) - due;
        assert!(
            error.abs() < due / 50.0 + 10.0,
            "{quarter}: {count}, due {due}"
        );
    }
    let warm = start + 10 * SECOND + SECOND / 10;
    passed(&limit, 10_000, start + 10 * SECOND, warm);
    assert_eq!(limit.percent(at(warm)), 100);
    let count = passed(&limit, 10_000, warm, warm + 5 * SECOND);
    assert!(about(count, 5000), "{count}");
}

#[test]
fn a_cold_limit_lets_a_third_of_its_burst_pass_at_once() {
    let limit = WarmUp::new(Bucket::full(pace(1000.0, 300)), Duration::from_secs(10)).unwrap();
    let count = (0..1000)
        .filter(|_| limit.take(1, at(SECOND)).is_ok())
        .count();
    assert!((100..=115).contains(&count), "{count}");
}

#[test]
fn a_burst_of_one_passes_also_when_it_is_cold() {
    let limit = WarmUp::new(Bucket::full(pace(10.0, 1)), Duration::from_secs(10)).unwrap();
    assert_eq!(limit.take(1, at(SECOND)), Ok(()));
    let wait = limit
        .take(1, at(SECOND))
        .unwrap_err()
        .retry_after()
        .unwrap();
    assert!((290..=300).contains(&wait.as_millis()), "{wait:?}");
    assert_eq!(limit.take(1, at(SECOND).after(wait)), Ok(()));
}

#[test]
fn half_of_the_rate_keeps_it_warm_and_a_fifth_lets_it_go_cold() {
    let limit = limit();
    passed(&limit, 10_000, 0, 15 * SECOND);
    passed(&limit, 520, 15 * SECOND, 100 * SECOND);
    assert_eq!(limit.percent(at(100 * SECOND)), 100);
    passed(&limit, 200, 100 * SECOND, 200 * SECOND);
    assert_eq!(limit.percent(at(200 * SECOND)), 33);
}

#[test]
fn a_little_more_than_a_quarter_of_the_rate_warms_a_cold_limit() {
    let limit = limit();
    assert_eq!(
        passed(&limit, 300, 0, 200 * SECOND),
        60_001,
        "all of it passes"
    );
    assert!(limit.percent(at(200 * SECOND)) > 40);
}

#[test]
fn a_short_pause_costs_nothing_and_a_period_of_rest_everything() {
    let limit = limit();
    passed(&limit, 10_000, 0, 30 * SECOND);
    assert_eq!(limit.percent(at(34 * SECOND)), 100);
    assert_eq!(limit.percent(at(40 * SECOND)), 33);
    assert_eq!(limit.tokens(at(40 * SECOND)), 10);
    assert!(limit.take(1, at(40 * SECOND)).is_ok());
}

#[test]
fn a_limit_whose_rate_changes_stays_as_warm_as_it_is() {
    let limit = limit();
    passed(&limit, 10_000, 0, 5 * SECOND);
    let percent = limit.percent(at(5 * SECOND));
    assert!((44..=46).contains(&percent), "{percent}");
    limit.set(pace(100.0, 1), at(5 * SECOND));
    assert_eq!(limit.percent(at(5 * SECOND)), percent);
    assert_eq!(limit.pace(), pace(100.0, 1));
    passed(&limit, 10_000, 5 * SECOND, 10 * SECOND + SECOND / 10);
    assert_eq!(limit.percent(at(10 * SECOND + SECOND / 10)), 100);
    let count = passed(&limit, 10_000, 11 * SECOND, 21 * SECOND);
    assert!(about(count, 1000), "{count}");
}

#[test]
fn a_share_that_changes_every_second_warms_up_in_the_same_time() {
    let limit = limit();
    for second in 0..10_u64 {
        let rate = if second % 2 == 0 { 400.0 } else { 900.0 };
        limit.set(Pace::of_share(rate), at(second * SECOND));
        passed(&limit, 10_000, second * SECOND, (second + 1) * SECOND);
    }
    assert!(limit.percent(at(10 * SECOND)) >= 95);
}

#[test]
fn requests_that_may_wait_leave_further_apart_while_it_is_cold() {
    let limit = WarmUp::new(Bucket::full(pace(10.0, 1)), Duration::from_mins(1)).unwrap();
    let patience = Duration::from_secs(1);
    let waits: Vec<_> = (0..5)
        .filter_map(|_| limit.take_within(1, at(SECOND), patience).ok())
        .map(|wait| wait.as_millis())
        .collect();
    assert!(
        matches!(waits[..], [0, 290..=300, 580..=600, 860..=900]),
        "{waits:?}"
    );
}

#[test]
fn what_did_not_pass_warms_nothing_and_costs_nothing() {
    let limit = limit();
    for i in 0..100_000 {
        let now = at(SECOND + i * 1000);
        limit.take(1, now).unwrap();
        limit.give_back(1, now);
    }
    assert_eq!(limit.percent(at(SECOND * 11 / 10)), 33);
    assert_eq!(limit.tokens(at(SECOND * 11 / 10)), 10);
}

#[test]
fn a_period_outside_its_bounds_is_refused_with_what_is_allowed() {
    for period in [
        Duration::ZERO,
        Duration::from_millis(999),
        Duration::from_secs(3601),
    ] {
        let error = WarmUp::new(Bucket::full(pace(1.0, 1)), period).unwrap_err();
        assert_eq!(error.given, period);
        assert!(error.to_string().contains("1 second to 1 hour"));
    }
}
