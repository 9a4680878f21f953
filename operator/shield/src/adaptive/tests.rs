use super::*;

/// Lets a target with this many workers end requests for a while, always with the limit in flight.
fn saturate(adaptive: &mut Adaptive, now: &mut Time, workers: u32, service: Duration, rounds: u32) {
    for _ in 0..rounds {
        let running = adaptive.limit();
        let waits = f64::from(running.max(workers)) / f64::from(workers);
        let latency = service.mul_f64(waits);
        let gap = latency / running;
        *now = now.after(gap);
        adaptive.finished(Finished {
            started: Time::from_nanos(now.as_nanos().saturating_sub(crate::time::nanos(latency))),
            now: *now,
            outcome: Outcome::Success,
            running,
        });
    }
}

const SERVICE: Duration = Duration::from_millis(50);

#[test]
fn a_busy_target_gets_about_twice_what_it_works_on() {
    for workers in [5, 40, 300] {
        let mut now = Time::ZERO;
        let mut adaptive = Adaptive::new(now);
        saturate(&mut adaptive, &mut now, workers, SERVICE, 60 * workers * 20);
        let limit = adaptive.limit;
        assert!(
            (workers * 3 / 2..=workers * 5 / 2).contains(&limit),
            "{workers} workers: {limit}"
        );
    }
}

#[test]
fn the_limit_stays_within_its_bounds() {
    let mut now = Time::ZERO;
    let mut adaptive = Adaptive::new(now);
    saturate(&mut adaptive, &mut now, 1_000_000, SERVICE, 400_000);
    assert_eq!(adaptive.limit, LIMIT_MAX);
    let mut adaptive = Adaptive::new(now);
    saturate(&mut adaptive, &mut now, 1, SERVICE, 5_000);
    assert_eq!(adaptive.limit, LIMIT_MIN);
}

#[test]
fn a_small_load_makes_nothing_grow() {
    let mut adaptive = Adaptive::new(Time::ZERO);
    for request in 0..10_000_u64 {
        let started = Time::from_nanos(request * 1_000_000);
        adaptive.finished(Finished {
            started,
            now: started.after(SERVICE),
            outcome: Outcome::Success,
            running: LIMIT_START / 2,
        });
        assert_eq!(adaptive.limit(), LIMIT_START);
    }
}

#[test]
fn a_target_that_only_fails_gets_the_smallest_limit() {
    let mut adaptive = Adaptive::new(Time::ZERO);
    for request in 0..1_000_u64 {
        let started = Time::from_nanos(request * 10_000_000);
        adaptive.finished(Finished {
            started,
            now: started.after(SERVICE),
            outcome: Outcome::Failure,
            running: adaptive.limit(),
        });
    }
    assert_eq!(adaptive.limit(), LIMIT_MIN);
}

#[test]
fn a_probe_lets_in_less_for_a_moment_and_comes_again() {
    let mut now = Time::ZERO;
    let mut adaptive = Adaptive::new(now);
    let mut probing = 0;
    let mut probes = 0;
    let mut before = false;
    for _ in 0..12_000 {
        saturate(&mut adaptive, &mut now, 10, SERVICE, 1);
        let probe = adaptive.probe.is_some();
        probing += u32::from(probe);
        probes += u32::from(probe && !before);
        before = probe;
    }
    assert!((5..=9).contains(&probes), "{probes} in a minute");
    assert!(probing < 12_000 / 20, "{probing} of 12,000 requests");
}
