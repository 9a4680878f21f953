//! One step of the watermark after the other.

use std::time::Duration;

use shield::room::{Phase, Progress, STALE};

use super::crowd::Crowd;
use super::fleet::{BAD, Dice, Fleet, GOOD, given, settings};

#[test]
fn a_guard_alone_needs_no_coordinator() {
    let mut fleet = Fleet::new(1, settings(100_000, 6000, 30));
    fleet.coordinated = false;
    fleet.seconds(6, BAD);
    fleet.seconds(6, GOOD);
    assert_ne!(fleet.words()[0].phase, Phase::Closed);
    let (mut crowd, mut dice) = (Crowd::default(), Dice(1));
    crowd.come(&fleet, 2000, u32::MAX);
    while crowd.inside < 2000 {
        crowd.tick(&mut fleet, &mut dice);
        assert!(fleet.elapsed < Duration::from_mins(3), "{}", crowd.inside);
    }
}

#[test]
fn guards_that_hear_nothing_admit_a_share_each_which_is_neither_all_nor_nothing() {
    let mut fleet = Fleet::new(3, settings(100_000, 600, 30));
    fleet.open();
    let mut tickets: Vec<String> = Vec::new();
    for _ in 0..300 {
        fleet.tick();
        tickets.extend((0..2).filter_map(|_| given(&fleet.enter(0, None)).1));
    }
    fleet.coordinated = false;
    let start = fleet.words()[0].admitted.arrival;
    fleet.pass(STALE);
    fleet.pass(Duration::from_secs(15));
    let moved = fleet.words()[0].admitted.arrival.since(start);
    // 15 s at a third of 10 a second are 50 people. They came at 20 a second, of whom this guard
    // takes a third to be its own share.
    let share = Duration::from_secs(6)..Duration::from_secs(9);
    assert!(share.contains(&moved), "{moved:?}");

    let before = fleet.words()[0].admitted;
    fleet.coordinated = true;
    fleet.tick();
    assert!(fleet.progress.word.admitted < before);
    assert_eq!(fleet.words()[0].admitted, before, "nobody is sent back");
}

#[test]
fn another_coordinator_goes_on_where_the_last_one_stopped() {
    let mut fleet = Fleet::new(3, settings(100_000, 600, 30));
    fleet.open();
    let (mut crowd, mut dice) = (Crowd::default(), Dice(1));
    crowd.come(&fleet, 1000, u32::MAX);
    for _ in 0..100 {
        crowd.tick(&mut fleet, &mut dice);
    }
    let old = fleet.progress.word.clone();
    fleet.progress = Progress::new();
    fleet.tick();
    assert_eq!(fleet.progress.word.epoch, old.epoch + 1);
    assert!(fleet.progress.word.admitted >= old.admitted);
    assert_eq!(fleet.progress.word.phase, old.phase);
    let now = fleet.now();
    assert!(
        !fleet.guards[0].room.hear(&old, now),
        "an old word is ignored"
    );
}

#[test]
fn a_guard_that_is_silent_but_runs_keeps_its_share_from_the_others() {
    let admitted_in = |silent: bool| {
        let mut fleet = Fleet::new(2, settings(100_000, 600, 30));
        fleet.open();
        fleet.guards[1].silent = silent;
        fleet.pass(STALE * 2);
        let mut arrived = 0;
        for _ in 0..600 {
            fleet.tick();
            fleet.enter(0, None);
            fleet.enter(0, None);
            arrived += 2;
        }
        arrived - fleet.progress.word.waiting
    };
    let (both, one) = (admitted_in(false), admitted_in(true));
    assert!((580..640).contains(&both), "{both}");
    assert!((280..340).contains(&one), "{one}");
}

#[test]
fn who_stops_asking_holds_nobody_up_and_frees_the_slot() {
    let mut fleet = Fleet::new(2, settings(200, 60_000, 30));
    fleet.open();
    let (mut crowd, mut dice) = (Crowd::default(), Dice(1));
    crowd.come(&fleet, 2000, 1);
    crowd.tick(&mut fleet, &mut dice);
    for _ in 0..40 {
        crowd.come(&fleet, 10, u32::MAX);
        crowd.tick(&mut fleet, &mut dice);
    }
    while crowd.inside < 400 {
        crowd.tick(&mut fleet, &mut dice);
        let active = crowd.active(&fleet);
        assert!(
            active <= 210,
            "{active}, of whom ten came in one millisecond"
        );
        assert!(fleet.elapsed < Duration::from_mins(9), "{}", crowd.inside);
    }
}

#[test]
fn a_closed_room_opens_before_more_are_in_than_may_be() {
    let mut fleet = Fleet::new(3, settings(1000, 600, 30));
    let (mut crowd, mut dice) = (Crowd::default(), Dice(1));
    for _ in 0..50 {
        crowd.come(&fleet, 130, u32::MAX);
        crowd.tick(&mut fleet, &mut dice);
        assert!(crowd.active(&fleet) <= 1000);
    }
    assert!(crowd.inside > 900, "{}", crowd.inside);
    assert_ne!(fleet.progress.word.phase, Phase::Closed);
}

#[test]
fn what_guards_keep_and_tell_is_bounded_however_long_the_queue() {
    let mut fleet = Fleet::new(1, settings(10, 1, 30));
    fleet.open();
    for _ in 0..3000 {
        fleet.enter(0, None);
        fleet.elapsed += Duration::from_millis(110);
        // The queue is refreshed as if everybody asked, without a request each.
        let (wall, now) = (fleet.wall(), fleet.now());
        let summary = fleet.guards[0].room.tick(wall, now);
        assert!(summary.crowd.cells.len() <= 1024);
        assert!(summary.sessions.counts.len() <= 11);
        assert!(fleet.guards[0].room.word().ahead.len() <= 64);
    }
}

#[test]
fn a_service_in_distress_gets_a_quarter_of_the_newcomers() {
    let mut fleet = Fleet::new(1, settings(100_000, 6000, 30));
    fleet.open();
    for _ in 0..3000 {
        fleet.enter(0, None);
        fleet.elapsed += Duration::from_millis(1);
    }
    fleet.seconds(1, GOOD);
    let waiting = |fleet: &Fleet| fleet.progress.word.waiting;
    let start = waiting(&fleet);
    fleet.seconds(6, GOOD);
    let good = start - waiting(&fleet);
    fleet.seconds(6, BAD);
    let start = waiting(&fleet);
    fleet.seconds(6, BAD);
    let bad = start - waiting(&fleet);
    assert!((550..=650).contains(&good), "{good}");
    assert!((100..=200).contains(&bad), "{bad}");
}
