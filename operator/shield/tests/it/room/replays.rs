//! Whoever shows tickets again, in whatever order and wherever, counts no more for it.

use std::time::Duration;

use proptest::prelude::*;
use shield::room::Phase;

use super::fleet::{Fleet, ROOM, given, settings};

/// A ticket of those that were given so far is shown at a guard, and then so many ticks pass.
#[derive(Debug, Clone)]
struct Show {
    ticket: usize,
    guard: usize,
    ticks: u32,
}

fn show() -> impl Strategy<Value = Show> {
    let ticks = prop_oneof![3 => Just(0_u32), 1 => 1..20_u32];
    (any::<usize>(), 0..3_usize, ticks).prop_map(|(ticket, guard, ticks)| Show {
        ticket,
        guard,
        ticks,
    })
}

/// A fleet whose coordinator knows all that is counted from here on.
fn settled(guards: u32, session: u64) -> Fleet {
    let mut fleet = Fleet::new(guards, settings(10_000, 60_000, session));
    fleet.pass(Duration::from_secs(10));
    fleet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn however_tickets_are_shown_again_each_person_counts_once_at_most_for_each_guard(
        guards in 1..4_u32,
        people in 1..6_u64,
        shows in prop::collection::vec(show(), 50..300),
    ) {
        // Slices of 1.25 s, so that sessions end meanwhile.
        let mut fleet = settled(guards, 10);
        let mut tickets: Vec<String> = (0..people)
            .filter_map(|_| given(&fleet.enter(0, None)).1)
            .collect();
        for show in shows {
            let wall = fleet.wall();
            let keys = &fleet.keys;
            tickets.retain(|ticket| keys.read(ticket, ROOM, wall).is_ok());
            if tickets.is_empty() {
                break;
            }
            let ticket = tickets[show.ticket % tickets.len()].clone();
            let entry = fleet.enter(show.guard % fleet.guards.len(), Some(&ticket));
            prop_assert_eq!(entry.refused, None);
            let (passes, next) = given(&entry);
            prop_assert!(passes, "who is in stays in");
            tickets.extend(next);
            for _ in 0..=show.ticks {
                fleet.tick();
                let active = fleet.progress.word.active;
                prop_assert!(active <= people * u64::from(guards));
            }
        }
    }
}

#[test]
fn many_who_show_their_first_tickets_again_and_again_are_as_many() {
    let mut fleet = settled(1, 10);
    let tickets: Vec<String> = (0..2000)
        .filter_map(|_| given(&fleet.enter(0, None)).1)
        .collect();
    for round in 0..40 {
        for ticket in &tickets {
            fleet.enter(0, Some(ticket));
        }
        fleet.pass(Duration::from_millis(200));
        let active = fleet.progress.word.active;
        assert!(active <= 2000, "{active} in round {round}");
    }
    assert_eq!(fleet.progress.word.phase, Phase::Closed);
}

#[test]
fn whoever_returns_to_a_guard_that_lost_all_counts_is_counted_anew() {
    let mut fleet = settled(1, 40);
    fleet.coordinated = false;
    let tickets: Vec<String> = (0..20)
        .filter_map(|_| given(&fleet.enter(0, None)).1)
        .collect();
    fleet.pass(Duration::from_secs(6));
    fleet.restart(0);
    fleet.tick();
    for ticket in &tickets {
        assert!(given(&fleet.enter(0, Some(ticket))).0);
    }
    fleet.tick();
    assert_eq!(fleet.words()[0].active, 20);
}

#[test]
fn a_ticket_that_is_shown_again_uses_up_no_place_of_others() {
    let mut fleet = Fleet::new(2, settings(10, 600, 40));
    fleet.pass(Duration::from_millis(200));
    // Five are this guard's part.
    let asked: Vec<(bool, Option<String>)> = (0..6).map(|_| given(&fleet.enter(0, None))).collect();
    assert!(asked[..5].iter().all(|(passes, _)| *passes) && !asked[5].0);
    // Two of the other five are, as soon as the first are known to have come.
    fleet.pass(Duration::from_millis(200));
    assert_eq!(fleet.progress.word.phase, Phase::Closed);
    for _ in 0..5 {
        assert!(given(&fleet.enter(0, asked[5].1.as_deref())).0);
    }
    assert!(given(&fleet.enter(0, None)).0);
    assert!(!given(&fleet.enter(0, None)).0);
}

#[test]
fn tickets_kept_from_a_queue_that_is_over_bring_no_more_than_may_come_at_once() {
    let mut fleet = Fleet::new(1, settings(20, 60_000, 10));
    fleet.open();
    // All are admitted, and nobody of them comes.
    let kept: Vec<String> = (0..50)
        .filter_map(|_| {
            fleet.elapsed += Duration::from_millis(100);
            given(&fleet.enter(0, None)).1
        })
        .collect();
    fleet.pass(Duration::from_mins(12));
    assert_eq!(fleet.progress.word.phase, Phase::Closed);
    let passed = kept
        .iter()
        .filter(|ticket| given(&fleet.enter(0, Some(ticket.as_str()))).0);
    let passed = passed.count();
    assert!((1..=20).contains(&passed), "{passed}");
}
