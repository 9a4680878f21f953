use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn sends(rate: Rate, arrivals: Arrivals, seconds: u64, seed: u64) -> Vec<f64> {
    let lasts = SECOND * u32::try_from(seconds).unwrap();
    let stage = Stage {
        rate,
        arrivals,
        lasts,
    };
    let schedule = Schedule::of([stage]).unwrap();
    schedule.sends(seed).map(|at| at.as_secs_f64()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
fn float(count: usize) -> f64 {
    count as f64
}

fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / float(values.len());
    let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, square / float(values.len()))
}

#[test]
fn a_constant_rate_sends_as_many_as_it_says_and_evenly() {
    let at = sends(Rate::Constant(250.0), Arrivals::Uniform, 4, 1);
    assert_eq!(at.len(), 1_000);
    assert!(at[0].abs() < 1e-9);
    for pair in at.windows(2) {
        assert!((pair[1] - pair[0] - 0.004).abs() < 1e-6, "{pair:?}");
    }
}

#[test]
fn rounding_adds_no_send() {
    assert_eq!(
        sends(Rate::Constant(0.1), Arrivals::Uniform, 30, 1).len(),
        3
    );
}

#[test]
fn poisson_counts_have_their_mean_as_variance_over_seeds() {
    let counts: Vec<f64> = (0..400)
        .map(|seed| float(sends(Rate::Constant(100.0), Arrivals::Poisson, 2, seed).len()))
        .collect();
    let (mean, variance) = mean_and_variance(&counts);
    // Four standard errors: 14.1 / sqrt(400) of the mean, about 200 * sqrt(2 / 400) of the variance.
    assert!((mean - 200.0).abs() < 2.9, "{mean}");
    assert!((variance - 200.0).abs() < 57.0, "{variance}");
}

#[test]
fn poisson_gaps_are_exponential() {
    let at = sends(Rate::Constant(1_000.0), Arrivals::Poisson, 50, 7);
    let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (mean, variance) = mean_and_variance(&gaps);
    assert!((mean * 1e3 - 1.0).abs() < 0.02, "{mean}");
    assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{variance}");
    assert!(gaps.iter().all(|gap| *gap >= 0.0));
}

#[test]
fn a_ramp_has_the_area_under_it_at_every_second() {
    let rate = Rate::Ramp {
        from: 100.0,
        to: 500.0,
    };
    let at = sends(rate, Arrivals::Uniform, 10, 1);
    assert_eq!(at.len(), 3_000);
    for second in 1..=10_u32 {
        let t = f64::from(second);
        let area = 100.0 * t + 400.0 * t * t / 20.0;
        let count = float(at.iter().filter(|at| **at < t).count());
        assert!((count - area).abs() <= 1.0, "{count} by {t}, not {area}");
    }
}

#[test]
fn a_ramp_of_poisson_arrivals_rises_as_well() {
    let rate = Rate::Ramp {
        from: 0.0,
        to: 2_000.0,
    };
    let at = sends(rate, Arrivals::Poisson, 10, 3);
    let early = float(at.iter().filter(|at| **at < 5.0).count());
    let all = float(at.len());
    assert!((all - 10_000.0).abs() < 400.0, "{all}");
    assert!((early / all - 0.25).abs() < 0.02, "{early} of {all}");
}

#[test]
fn a_ramp_may_fall_to_nothing() {
    let rate = Rate::Ramp {
        from: 100.0,
        to: 0.0,
    };
    let at = sends(rate, Arrivals::Uniform, 2, 1);
    assert_eq!(at.len(), 100);
    assert!(at.is_sorted() && at[99] < 2.0);
}

#[test]
fn steps_hold_each_rate_for_an_equal_time() {
    let rate = Rate::Steps {
        from: 100.0,
        to: 300.0,
        count: 3,
    };
    let at = sends(rate, Arrivals::Uniform, 6, 1);
    let between = |from: f64, to: f64| at.iter().filter(|at| (from..to).contains(at)).count();
    assert_eq!(between(0.0, 2.0), 200);
    assert_eq!(between(2.0, 4.0), 400);
    assert_eq!(between(4.0, 6.0), 600);
}

#[test]
fn stages_follow_each_other_and_a_rate_of_zero_is_a_pause() {
    let stage = |rate| Stage {
        rate: Rate::Constant(rate),
        arrivals: Arrivals::Uniform,
        lasts: SECOND,
    };
    let schedule = Schedule::of([stage(10.0), stage(0.0), stage(20.0)]).unwrap();
    let at: Vec<Duration> = schedule.sends(1).collect();
    assert_eq!(at.len(), 30);
    assert!(at.is_sorted());
    assert!(at[9] < SECOND && at[10] == SECOND * 2);
}

#[test]
fn the_same_seed_gives_the_same_times_and_another_seed_others() {
    let times = |seed| sends(Rate::Constant(50.0), Arrivals::Poisson, 2, seed);
    assert_eq!(times(5), times(5));
    assert_ne!(times(5), times(6));
}

#[test]
fn what_cannot_be_sent_is_refused_with_its_bound() {
    let of = |rate, lasts| Schedule::constant(rate, Arrivals::Uniform, lasts);
    assert_eq!(of(-1.0, SECOND), Err(Unfit::Rate(-1.0)));
    assert!(matches!(of(f64::NAN, SECOND), Err(Unfit::Rate(_))));
    assert_eq!(of(1.0, Duration::ZERO), Err(Unfit::Time(Duration::ZERO)));
    assert_eq!(of(1.0, TIME_MAX * 2), Err(Unfit::Time(TIME_MAX * 2)));
    assert!(matches!(of(RATE_MAX, TIME_MAX), Err(Unfit::Sends(_))));
}
