//! The morning of a launch.

use std::time::Duration;

use shield::room::{Cause, Phase};

use super::crowd::Crowd;
use super::fleet::{BAD, Dice, Fleet, GOOD, settings};

const CITIZENS: usize = 100_000;

#[test]
fn a_launch_of_100_000_citizens_keeps_order_and_bounds_through_restart_and_lost_coordinator() {
    let mut fleet = Fleet::new(3, settings(45_000, 60_000, 40));
    fleet.guards[1].skew = 100;
    fleet.guards[2].skew = -100;
    let mut crowd = Crowd::default();
    let mut dice = Dice(1);
    let mut tick = 0;
    while crowd.inside < CITIZENS as u64 {
        let rate = if tick < 200 { 30 } else { 300 };
        let people = rate.min(CITIZENS - crowd.citizens.len());
        crowd.come(&fleet, people, u32::MAX);
        if tick == 400 {
            fleet.restart(1);
        }
        fleet.coordinated = !(500..1100).contains(&tick);
        crowd.tick(&mut fleet, &mut dice);
        if tick % 10 == 0 {
            crowd.active(&fleet);
            // The people of one tick come in one millisecond here, and a watermark within their cell
            // is a guess; guards on their own go by shares besides.
            let guess = if tick < 500 { 300 } else { 450 };
            assert!(crowd.most_active <= 45_000 + guess, "{}", crowd.most_active);
        }
        tick += 1;
        assert!(tick < 4000, "{} of {CITIZENS} are in", crowd.inside);
    }
    assert!(crowd.most_active > 44_000, "{}", crowd.most_active);
    assert!(
        crowd.most_in_a_minute <= 61_000,
        "{}",
        crowd.most_in_a_minute
    );
    assert!(crowd.blur <= Duration::from_secs(1), "{:?}", crowd.blur);
    assert!(crowd.set_back <= 100, "{}", crowd.set_back);
}

#[test]
fn distress_opens_the_queue_far_below_the_nominal_users_and_good_times_close_it() {
    for (signals, cause) in [
        (BAD, Cause::Latency),
        (shield::room::Signals { errors: 60, ..GOOD }, Cause::Errors),
    ] {
        let mut fleet = Fleet::new(3, settings(50_000, 6_000, 60));
        for guard in 0..3 {
            assert!(super::fleet::given(&fleet.enter(guard, None)).0);
        }
        fleet.seconds(2, signals);
        fleet.seconds(10, GOOD);
        assert_eq!(fleet.progress.word.phase, Phase::Closed, "a hiccup");
        fleet.seconds(10, signals);
        assert_eq!(fleet.progress.word.phase, Phase::Open(cause));
        assert!(fleet.progress.word.active < 10);
        let (passes, ticket) = super::fleet::given(&fleet.enter(0, None));
        assert!(!passes);
        fleet.seconds(30, GOOD);
        assert_eq!(fleet.progress.word.phase, Phase::Open(cause), "too early");
        assert!(super::fleet::given(&fleet.enter(1, ticket.as_deref())).0);
        fleet.seconds(60, GOOD);
        assert_eq!(fleet.progress.word.phase, Phase::Closed);
        assert!(super::fleet::given(&fleet.enter(0, None)).0);
    }
}
