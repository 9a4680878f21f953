use std::sync::atomic::AtomicBool;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::rate::race::race;

const SECOND: u64 = 1_000_000_000;

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn pace(rate: f64, burst: u32) -> Pace {
    Pace::per_second(rate, burst).unwrap()
}

/// How many of so many requests at one moment pass.
fn passed(bucket: &Bucket, offered: u32, now: Time) -> usize {
    (0..offered).filter(|_| bucket.take(1, now).is_ok()).count()
}

#[test]
fn a_full_bucket_lets_its_burst_pass_and_then_one_each_interval() {
    let bucket = Bucket::full(pace(10.0, 5));
    let now = at(7 * SECOND);
    assert_eq!(passed(&bucket, 100, now), 5);
    assert_eq!(passed(&bucket, 100, at(7 * SECOND + SECOND / 10 - 1)), 0);
    assert_eq!(passed(&bucket, 100, at(7 * SECOND + SECOND / 10)), 1);
    assert_eq!(passed(&bucket, 100, at(7 * SECOND + SECOND / 2)), 4);
    assert_eq!(passed(&bucket, 100, at(100 * SECOND)), 5);
}

#[test]
fn an_empty_bucket_lets_nothing_pass_until_tokens_came() {
    let bucket = Bucket::empty(pace(10.0, 5), at(SECOND));
    assert_eq!(bucket.tokens(at(SECOND)), 0);
    assert_eq!(passed(&bucket, 100, at(SECOND)), 0);
    assert_eq!(passed(&bucket, 100, at(SECOND + SECOND / 5)), 2);
}

#[test]
fn a_refused_request_passes_after_exactly_the_time_it_was_told() {
    let bucket = Bucket::full(pace(3.0, 4));
    bucket.take(3, at(0)).unwrap();
    let refused = bucket.take(4, at(1)).unwrap_err();
    let wait = refused.retry_after().unwrap();
    let then = at(1).after(wait);
    assert!(bucket.take(4, at(then.as_nanos() - 1)).is_err());
    assert_eq!(bucket.take(4, then), Ok(()));
}

#[test]
fn a_refusal_writes_nothing() {
    let bucket = Bucket::full(pace(10.0, 3));
    bucket.take(2, at(SECOND)).unwrap();
    let word = bucket.word.0.load(Ordering::Relaxed);
    bucket.take(2, at(SECOND)).unwrap_err();
    bucket.take(4, at(SECOND)).unwrap_err();
    bucket.take(0, at(SECOND)).unwrap();
    assert_eq!(bucket.word.0.load(Ordering::Relaxed), word);
}

#[test]
fn what_asks_for_more_than_the_burst_is_refused_for_ever() {
    let bucket = Bucket::full(pace(10.0, 3));
    let never = Refused::Never { burst: 3 };
    assert_eq!(bucket.take(4, at(0)), Err(never));
    assert_eq!(bucket.take(4, at(u64::MAX)), Err(never));
    assert_eq!(never.retry_after(), None);
    let patient = bucket.take_within(4, at(0), Duration::MAX);
    assert_eq!(patient, Err(never));
}

#[test]
fn requests_that_may_wait_leave_one_interval_apart_up_to_their_patience() {
    let bucket = Bucket::full(pace(10.0, 1));
    let patience = Duration::from_millis(250);
    let waits: Vec<_> = (0..4)
        .map(|_| bucket.take_within(1, at(SECOND), patience))
        .collect();
    let later = Refused::Later {
        retry_after: Duration::from_millis(50),
    };
    let millis = |millis| Ok(Duration::from_millis(millis));
    assert_eq!(waits, [millis(0), millis(100), millis(200), Err(later)]);
    assert_eq!(bucket.tokens(at(SECOND)), -2);
    assert!(
        bucket.take(1, at(SECOND)).is_err(),
        "others come after them"
    );
}

#[test]
fn twice_the_rate_with_half_a_second_of_patience_passes_rate_and_patience() {
    let bucket = Bucket::full(pace(200.0, 1));
    let patience = Duration::from_millis(500);
    let served = (0..2000_u64)
        .flat_map(|i| bucket.take_within(1, at(i * SECOND / 400), patience))
        .count();
    assert!((1099..=1101).contains(&served), "{served}");
}

#[test]
fn what_is_given_back_passes_again_and_never_more_than_the_burst() {
    let bucket = Bucket::full(pace(10.0, 3));
    let now = at(SECOND);
    assert_eq!(passed(&bucket, 9, now), 3);
    bucket.give_back(2);
    assert_eq!(passed(&bucket, 9, now), 2);
    bucket.give_back(3);
    bucket.give_back(3);
    assert_eq!(bucket.tokens(now), 3);
    assert_eq!(passed(&bucket, 9, now), 3);
}

#[test]
fn changing_the_rate_keeps_tokens_and_not_time() {
    let bucket = Bucket::full(pace(10.0, 10));
    let now = at(SECOND);
    bucket.take(8, now).unwrap();
    for rate in [1000.0, 0.3, 1e6, 10.0] {
        bucket.set(pace(rate, 10), now);
        assert_eq!(bucket.tokens(now), 2, "{rate}");
    }
    bucket.set(pace(10.0, 100), now);
    assert_eq!(bucket.tokens(now), 2, "a larger burst fills with time");
    bucket.set(pace(10.0, 1), now);
    bucket.set(pace(10.0, 10), now);
    assert_eq!(bucket.tokens(now), 1, "a smaller one cuts");
    assert_eq!(bucket.pace(), pace(10.0, 10));
}

#[test]
fn changing_the_rate_keeps_the_places_that_were_taken_ahead() {
    let bucket = Bucket::full(pace(10.0, 1));
    let minute = Duration::from_mins(1);
    for _ in 0..31 {
        bucket.take_within(1, at(0), minute).unwrap();
    }
    bucket.set(pace(1000.0, 5), at(0));
    assert_eq!(bucket.tokens(at(0)), -30);
    let next = bucket.take_within(1, at(0), minute).unwrap();
    assert_eq!(next, Duration::from_millis(31));
    bucket.set(Pace::STOPPED, at(0));
    bucket.set(pace(1000.0, 5), at(0));
    assert!(bucket.tokens(at(0)) < 0, "stopping forgives no debt");
}

#[test]
fn a_debt_of_centuries_is_cut_to_what_100_days_work_off() {
    let bucket = Bucket::full(pace(2.0, 10_000_000));
    let patient = || bucket.take_within(10_000_000, at(0), Duration::MAX);
    while patient().is_ok() {}
    bucket.set(Pace::STOPPED, at(0));
    assert_eq!(bucket.tokens(at(0)), -1);
}

#[test]
fn a_stopped_limit_starts_again_empty() {
    let bucket = Bucket::full(pace(10.0, 3));
    bucket.set(Pace::STOPPED, at(SECOND));
    let refused = bucket.take(1, at(2 * SECOND));
    assert_eq!(refused, Err(Refused::Never { burst: 0 }));
    bucket.set(pace(10.0, 3), at(3 * SECOND));
    assert_eq!(bucket.tokens(at(3 * SECOND)), 0);
    assert_eq!(bucket.take(1, at(3 * SECOND + SECOND / 10)), Ok(()));
}

#[test]
fn at_the_end_of_the_clock_everything_is_refused() {
    let bucket = Bucket::full(pace(10.0, 3));
    assert!(bucket.take(1, at(LAST)).is_err());
    assert!(bucket.take(1, at(u64::MAX)).is_err());
    bucket.set(pace(1000.0, 30), at(u64::MAX));
    assert!(bucket.take(1, at(u64::MAX)).is_err());
    let late = Bucket::empty(pace(10.0, 3), at(u64::MAX));
    assert_eq!(late.take(0, at(0)), Ok(()));
    assert!(late.take(1, at(0)).is_err());
}

#[test]
fn two_threads_pass_exactly_the_rate_and_the_burst_at_ten_times_the_load() {
    let (rate, burst, seconds) = (1000_u64, 100, 20);
    let bucket = Bucket::full(pace(1000.0, burst));
    let clock = AtomicU64::new(0);
    let step = SECOND / rate / 10;
    let run = || {
        let mut passed = 0_u64;
        loop {
            let now = clock.fetch_add(step, Ordering::Relaxed);
            if now >= seconds * SECOND {
                return passed;
            }
            passed += u64::from(bucket.take(1, at(now)).is_ok());
        }
    };
    let passed = thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads
            .map(|thread| thread.join().unwrap())
            .iter()
            .sum::<u64>()
    });
    let due = rate * seconds + u64::from(burst);
    assert!(passed <= due, "{passed} of {due}");
    // A thread that was paused between reading the clock and asking comes too early.
    assert!(passed >= due - due / 50, "{passed} of {due}");
}

#[test]
fn threads_that_look_at_the_same_token_do_not_both_take_it() {
    let bucket = Bucket::full(pace(1000.0, 2000));
    let run = || race(|| passed(&bucket, 3000, at(SECOND)));
    let passed = thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run), scope.spawn(run)];
        threads
            .map(|thread| thread.join().unwrap())
            .iter()
            .sum::<usize>()
    });
    assert_eq!(passed, 2000);
}

#[test]
fn no_change_of_rate_makes_a_token_for_threads_that_race_with_it() {
    const BURST: u32 = 5000;
    let bucket = Bucket::full(pace(10_000.0, BURST));
    let now = at(1000 * SECOND);
    let done = AtomicBool::new(false);
    let take = || {
        let passed = race(|| passed(&bucket, 2 * BURST, now));
        done.store(true, Ordering::Relaxed);
        passed
    };
    let passed = thread::scope(|scope| {
        let threads = [scope.spawn(take), scope.spawn(take)];
        let mut fast = false;
        while !done.load(Ordering::Relaxed) {
            fast = !fast;
            bucket.set(pace(if fast { 1_000_000.0 } else { 100.0 }, BURST), now);
            thread::yield_now();
        }
        threads
            .map(|thread| thread.join().unwrap())
            .iter()
            .sum::<usize>()
    });
    assert_eq!(passed, usize::try_from(BURST).unwrap());
}

#[test]
fn what_threads_take_and_give_back_is_all_there_in_the_end() {
    let bucket = Bucket::full(pace(10.0, 10));
    let now = at(SECOND);
    let run = || {
        for _ in 0..5000 {
            if bucket.take(3, now).is_ok() {
                bucket.give_back(3);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| race(run));
        scope.spawn(|| race(run));
    });
    assert_eq!(bucket.tokens(now), 10);
    assert_eq!(passed(&bucket, 100, now), 10);
}

/// A token bucket as in the textbook: what it holds, filled by the clock, in nanoseconds of its pace.
struct Model {
    pace: Pace,
    held: i128,
    now: u64,
}

impl Model {
    fn fill(pace: Pace) -> i128 {
        pace.interval().as_nanos().cast_signed() * i128::from(pace.burst())
    }

    fn cost(&self, tokens: u32) -> i128 {
        self.pace.interval().as_nanos().cast_signed() * i128::from(tokens)
    }

    fn pass_to(&mut self, now: u64) {
        self.held = Self::fill(self.pace).min(self.held + i128::from(now - self.now));
        self.now = now;
    }

    fn take(&mut self, tokens: u32, patience: u64) -> Result<Duration, Refused> {
        let burst = self.pace.burst();
        if tokens == 0 {
            return Ok(Duration::ZERO);
        }
        if tokens > burst {
            return Err(Refused::Never { burst });
        }
        let span = |nanos: i128| Duration::from_nanos(u64::try_from(nanos).unwrap());
        let left = self.held - self.cost(tokens);
        let short = (-left).max(0);
        if short > i128::from(patience) {
            return Err(Refused::Later {
                retry_after: span(short - i128::from(patience)),
            });
        }
        self.held = left;
        Ok(span(short))
    }

    fn give_back(&mut self, tokens: u32) {
        let tokens = tokens.min(self.pace.burst());
        self.held = Self::fill(self.pace).min(self.held + self.cost(tokens));
    }

    fn set(&mut self, pace: Pace) {
        let new = pace.interval().as_nanos().cast_signed();
        let old = self.pace.interval().as_nanos().cast_signed();
        if pace != self.pace {
            self.held = Self::fill(pace).min((self.held * new).div_euclid(old));
        }
        self.pace = pace;
    }
}

#[derive(Debug, Clone)]
enum Step {
    Take(u32),
    TakeWithin(u32, u64),
    GiveBack(u32),
    Set(Pace),
}

fn any_pace() -> impl Strategy<Value = Pace> {
    let rate = prop_oneof![0.01..10.0, 10.0..1e4, 1e4..1e7];
    (rate, 1..20_u32).prop_map(|(rate, burst)| pace(rate, burst))
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..22_u32).prop_map(Step::Take),
        3 => (0..22_u32, 0..2 * SECOND).prop_map(|(cost, wait)| Step::TakeWithin(cost, wait)),
        2 => (0..22_u32).prop_map(Step::GiveBack),
        1 => any_pace().prop_map(Step::Set),
    ]
}

fn any_pause() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(0),
        2 => 1..1000_u64,
        4 => 1000..SECOND,
        2 => SECOND..1000 * SECOND,
        1 => Just(1 << 54),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_bucket_answers_as_the_textbook_does(
        first in any_pace(),
        start in prop_oneof![Just(0), Just(1_u64 << 61)],
        steps in prop::collection::vec((any_pause(), any_step()), 1..80),
    ) {
        let bucket = Bucket::full(first);
        let mut model = Model { pace: first, held: Model::fill(first), now: start };
        let mut now = start;
        for (pause, step) in steps {
            now += pause;
            model.pass_to(now);
            match step {
                Step::Take(cost) => {
                    let taken = bucket.take(cost, at(now));
                    prop_assert_eq!(taken, model.take(cost, 0).map(|_| ()));
                }
                Step::TakeWithin(cost, wait) => {
                    let answer = bucket.take_within(cost, at(now), Duration::from_nanos(wait));
                    prop_assert_eq!(answer, model.take(cost, wait));
                }
                Step::GiveBack(cost) => {
                    bucket.give_back(cost);
                    model.give_back(cost);
                }
                Step::Set(pace) => {
                    bucket.set(pace, at(now));
                    model.set(pace);
                }
            }
            let tokens = model.held.div_euclid(model.cost(1));
            prop_assert_eq!(i128::from(bucket.tokens(at(now))), tokens);
        }
    }
}
