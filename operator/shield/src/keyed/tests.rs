use std::collections::HashMap;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::Bucket;
use crate::rate::race::race;

const SECOND: u64 = 1_000_000_000;
const SEED: KeySeed = KeySeed::new(*b"as good as drawn");

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn pace(rate: f64, burst: u32) -> Pace {
    Pace::per_second(rate, burst).unwrap()
}

fn key(number: u32) -> KeyHash {
    SEED.hash([number.to_le_bytes()])
}

fn passed(table: &Keyed, key: KeyHash, offered: u32, now: Time) -> usize {
    (0..offered)
        .filter(|_| table.take(key, 1, now).is_ok())
        .count()
}

/// 40 keys that lie in the same set, which has 19 places.
fn neighbours(table: &Keyed) -> Vec<KeyHash> {
    let place = |key: &KeyHash| key.place() & (table.sets - 1) == 0;
    (0..1000).map(key).filter(place).take(40).collect()
}

#[test]
fn each_key_has_a_bucket_of_its_own() {
    let table = Keyed::new(pace(10.0, 3), 100).unwrap();
    let now = at(SECOND);
    for number in 0..50 {
        assert_eq!(passed(&table, key(number), 10, now), 3, "{number}");
    }
    assert_eq!(table.len(now), 50);
    let soon = at(SECOND + SECOND / 10);
    assert_eq!(passed(&table, key(7), 10, soon), 1);
    assert_eq!(table.len(at(2 * SECOND)), 0);
    assert_eq!(table.replaced(), 0);
}

#[test]
fn a_refused_request_drains_no_other_key_and_writes_nothing() {
    let table = Keyed::new(pace(10.0, 3), 1).unwrap();
    let now = at(SECOND);
    passed(&table, key(0), 3, now);
    let refused = table.take(key(0), 1, now);
    for _ in 0..1000 {
        assert_eq!(table.take(key(0), 1, now), refused);
    }
    let wait = refused.unwrap_err().retry_after();
    assert_eq!(wait, Some(Duration::from_millis(100)));
    for number in 1..40 {
        assert_eq!(
            table.take(key(number), 4, now),
            Err(Refused::Never { burst: 3 })
        );
    }
    assert_eq!(table.len(now), 1, "a refused newcomer takes no place");
    assert_eq!(passed(&table, key(1), 10, now), 3);
}

#[test]
fn a_limited_key_stays_limited_while_a_million_others_come() {
    let table = Keyed::new(pace(1.0, 5), 1000).unwrap();
    let victim = key(u32::MAX);
    assert_eq!(passed(&table, victim, 100, at(0)), 5);
    let mut count = 0;
    for number in 0..1_000_000_u32 {
        let now = at(u64::from(number) * 10_000);
        let _ = table.take(key(number), 1, now);
        if number % 1000 == 0 {
            count += passed(&table, victim, 1, now);
        }
    }
    assert!(count <= 9, "{count} in the first 10 s, 1 a second");
    assert!(
        table.replaced() > 0,
        "the attack was too weak to show anything"
    );
    let size = table.bytes();
    assert!(size < 70 * 1000, "{size}");
}

#[test]
fn a_hundred_thousand_live_keys_cost_less_than_8_mebibytes() {
    let table = Keyed::new(pace(1.0, 2), 100_000).unwrap();
    assert!(table.bytes() < 200, "unused: {}", table.bytes());
    let now = at(SECOND);
    for number in 0..100_000 {
        table.take(key(number), 1, now).unwrap();
    }
    assert!(table.len(now) >= 99_990, "{}", table.len(now));
    assert!(table.replaced() <= 10, "{}", table.replaced());
    assert!(table.bytes() <= 8 << 20, "{}", table.bytes());
    assert_eq!(table.capacity(), 16_384 * 19);
}

#[test]
fn no_size_costs_more_than_it_says() {
    for keys in [1, 31, 1000, 131_073, 1_000_000] {
        let table = Keyed::new(Pace::STOPPED, keys).unwrap();
        let set = size_of::<Set>() + size_of::<Segment>() / SEGMENT_SETS;
        let most = index(table.sets) * set;
        assert!(most <= (68 * index(keys)).max(1100), "{keys}: {most}");
        assert!(table.capacity() >= 2 * index(keys), "{keys}");
    }
    assert_eq!(Keyed::new(Pace::STOPPED, 0).unwrap_err().given, 0);
    assert!(Keyed::new(Pace::STOPPED, 1_000_001).is_err());
}

#[test]
fn two_a_second_for_each_of_a_thousand_keys_are_ten_thousand_in_five_seconds() {
    let table = Keyed::new(pace(2.0, 1), 1000).unwrap();
    let mut count = 0;
    for tick in 0..50_u64 {
        for number in 0..1000 {
            count += passed(&table, key(number), 1, at(tick * SECOND / 10));
        }
    }
    assert_eq!((count, table.replaced()), (10_000, 0));
}

#[test]
fn what_is_given_back_passes_again() {
    let table = Keyed::new(pace(1.0, 2), 10).unwrap();
    let now = at(SECOND);
    assert_eq!(passed(&table, key(1), 5, now), 2);
    table.give_back(key(1), 1);
    table.give_back(key(2), 1);
    assert_eq!(passed(&table, key(1), 5, now), 1);
    assert_eq!(passed(&table, key(2), 5, now), 2);
}

#[test]
fn what_a_key_without_a_place_gives_back_is_given_to_no_other() {
    let table = Keyed::new(pace(1.0, 2), 1).unwrap();
    let keys = neighbours(&table);
    let now = at(SECOND);
    for key in &keys[..WAYS] {
        assert_eq!(passed(&table, *key, 5, now), 2);
    }
    table.give_back(keys[WAYS], 1);
    assert!(keys.iter().all(|key| table.take(*key, 1, now).is_err()));
}

#[test]
fn requests_of_a_key_may_wait_their_turn() {
    let table = Keyed::new(pace(10.0, 1), 10).unwrap();
    let patience = Duration::from_millis(150);
    let take = |number| table.take_within(key(number), 1, at(SECOND), patience);
    assert_eq!(take(1), Ok(Duration::ZERO));
    assert_eq!(take(1), Ok(Duration::from_millis(100)));
    assert!(take(1).is_err());
    assert_eq!(take(2), Ok(Duration::ZERO));
}

#[test]
fn changing_the_pace_keeps_the_tokens_of_every_key() {
    let table = Keyed::new(pace(10.0, 10), 1000).unwrap();
    let now = at(SECOND);
    for number in 0..100 {
        table.take(key(number), 8, now).unwrap();
    }
    table.set(pace(1000.0, 10), now);
    assert_eq!(table.pace(), pace(1000.0, 10));
    for number in 0..100 {
        assert_eq!(passed(&table, key(number), 20, now), 2, "{number}");
    }
    assert_eq!(passed(&table, key(100), 20, now), 10);
    table.set(pace(0.1, 10), now);
    assert_eq!(passed(&table, key(1), 20, at(10 * SECOND)), 0);
    assert_eq!(passed(&table, key(1), 20, at(11 * SECOND)), 1);
    let fresh = (1000..2000).map(|number| passed(&table, key(number), 20, now));
    assert!(
        fresh.into_iter().all(|count| count == 10),
        "also in new segments"
    );
}

#[test]
fn threads_that_share_a_key_pass_its_burst_and_no_more() {
    let table = Keyed::new(pace(10.0, 1000), 10).unwrap();
    let run = || race(|| passed(&table, key(1), 4000, at(SECOND)));
    let count = thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        let mut fast = false;
        for _ in 0..300 {
            thread::yield_now();
            fast = !fast;
            table.set(pace(if fast { 1000.0 } else { 1.0 }, 1000), at(SECOND));
        }
        threads
            .map(|thread| thread.join().unwrap())
            .iter()
            .sum::<usize>()
    });
    assert_eq!(count, 1000);
}

#[test]
fn keys_that_threads_push_out_of_their_places_get_no_more_than_their_own() {
    let table = Keyed::new(pace(10.0, 3), 1).unwrap();
    let keys = neighbours(&table);
    let run = || {
        let mut counts = vec![0; keys.len()];
        race(|| {
            for i in 0..keys.len() * 20 {
                let nth = i * 7 % keys.len();
                counts[nth] += passed(&table, keys[nth], 1, at(SECOND));
            }
        });
        counts
    };
    let counts = thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads.map(|thread| thread.join().unwrap())
    });
    let sums: Vec<usize> = (0..keys.len())
        .map(|nth| counts[0][nth] + counts[1][nth])
        .collect();
    assert!(sums.iter().all(|sum| *sum <= 3), "{sums:?}");
    assert_eq!(
        sums.iter().sum::<usize>(),
        3 * WAYS,
        "every place is used up"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn while_there_are_places_every_key_is_answered_exactly(
        steps in prop::collection::vec((0..15_u32, 0..6_u32, 0..SECOND, 0..8), 1..150),
    ) {
        let table = Keyed::new(pace(1.0, 4), 1).unwrap();
        let mut exact: HashMap<u32, Bucket> = HashMap::new();
        let mut setting = pace(1.0, 4);
        let mut now = 0;
        for (number, cost, pause, kind) in steps {
            now += pause / 4;
            let bucket = exact.entry(number).or_insert_with(|| Bucket::full(setting));
            match kind {
                0 => {
                    bucket.give_back(cost);
                    table.give_back(key(number), cost);
                }
                1 => {
                    setting = pace(f64::from(cost + 1), 4);
                    table.set(setting, at(now));
                    exact.values().for_each(|bucket| bucket.set(setting, at(now)));
                }
                2.. => {
                    let taken = table.take(key(number), cost, at(now));
                    prop_assert_eq!(taken, bucket.take(cost, at(now)));
                }
                ..0 => unreachable!(),
            }
        }
        prop_assert_eq!(table.replaced(), 0);
    }

    #[test]
    fn when_there_are_too_few_places_no_key_gets_more_than_its_own(
        steps in prop::collection::vec((0..400_u32, 1..4_u32, 0..SECOND, 0..8), 1..1500),
    ) {
        let table = Keyed::new(pace(1.0, 4), 1).unwrap();
        let mut exact: HashMap<u32, Bucket> = HashMap::new();
        let mut now = 0;
        for (number, cost, pause, kind) in steps {
            now += pause / 200;
            let bucket = exact.entry(number).or_insert_with(|| Bucket::full(pace(1.0, 4)));
            if table.take(key(number), cost, at(now)).is_ok() {
                prop_assert_eq!(bucket.take(cost, at(now)), Ok(()));
                if kind == 0 {
                    table.give_back(key(number), cost);
                    bucket.give_back(cost);
                }
            }
        }
    }
}
