//! A bucket under every order in which two threads may meet.

use loom::sync::Arc;
use loom::thread;

use super::Bucket;
use crate::Time;
use crate::models::check;
use crate::rate::Pace;

fn bucket() -> Arc<Bucket> {
    Arc::new(Bucket::full(Pace::per_second(1.0, 1).unwrap()))
}

fn takes(bucket: &Bucket) -> bool {
    bucket.take(1, Time::from_nanos(1)).is_ok()
}

#[test]
fn of_two_that_take_the_last_token_one_gets_it() {
    check(|| {
        let bucket = bucket();
        let other = Arc::clone(&bucket);
        let asking = thread::spawn(move || takes(&other));
        let own = takes(&bucket);
        assert!(own != asking.join().unwrap());
    });
}

#[test]
fn nobody_is_judged_by_half_of_a_pace() {
    check(|| {
        let bucket = bucket();
        let other = Arc::clone(&bucket);
        // The token stays, and is counted in another unit; a larger burst fills with time.
        let larger = Pace::per_second(1_000.0, 3).unwrap();
        let changing = thread::spawn(move || other.set(larger, Time::from_nanos(1)));
        let own = takes(&bucket);
        changing.join().unwrap();
        assert!(own, "there was a token before and after");
        assert!(!takes(&bucket), "and no other came");
    });
}

#[test]
fn what_is_given_back_during_a_change_is_there_afterwards() {
    check(|| {
        let bucket = bucket();
        assert!(takes(&bucket));
        let other = Arc::clone(&bucket);
        let larger = Pace::per_second(1_000.0, 1).unwrap();
        let changing = thread::spawn(move || other.set(larger, Time::from_nanos(1)));
        bucket.give_back(1);
        changing.join().unwrap();
        assert!(takes(&bucket));
    });
}
