//! What a guard makes of the tickets it is shown.

use std::time::Duration;

use proptest::prelude::*;
use shield::room::Verdict;
use shield::ticket::{Key, Keys, Kind, Refusal};

use super::fleet::{BAD, Fleet, GOOD, ROOM, given, settings};

fn open(active: u64, per_minute: u64) -> Fleet {
    let mut fleet = Fleet::new(2, settings(active, per_minute, 40));
    fleet.seconds(6, BAD);
    fleet.seconds(6, GOOD);
    fleet
}

proptest! {
    #[test]
    fn a_ticket_that_no_guard_wrote_never_passes(text in "[A-Za-z0-9_-]{0,130}") {
        let fleet = open(1000, 1);
        let entry = fleet.enter(0, Some(&text));
        prop_assert!(!given(&entry).0);
        prop_assert!(entry.refused.is_some());
    }

    #[test]
    fn a_ticket_changed_by_its_holder_never_passes(at in 0..100_usize, to in "[A-Za-z0-9_-]") {
        let fleet = open(1000, 1);
        let (_, ticket) = given(&fleet.enter(0, None));
        let mut ticket = ticket.unwrap();
        prop_assume!(ticket[at..=at] != to);
        ticket.replace_range(at..=at, &to);
        let entry = fleet.enter(0, Some(&ticket));
        prop_assert!(!given(&entry).0);
        prop_assert!(entry.refused.is_some());
    }
}

#[test]
fn a_ticket_signed_by_another_is_a_newcomers() {
    let mut fleet = open(1000, 60_000);
    let (_, ticket) = given(&fleet.enter(0, None));
    fleet.pass(Duration::from_secs(5));
    fleet.keys = Keys::new(Key::new(1, &[2; 32]), None);
    let entry = fleet.enter(0, ticket.as_deref());
    assert_eq!(entry.refused, Some(Refusal::Forged));
    assert!(!given(&entry).0);
}

#[test]
fn a_turn_that_was_not_taken_is_over_while_others_queue() {
    let mut fleet = open(1000, 60_000);
    let (_, ticket) = given(&fleet.enter(0, None));
    fleet.seconds(160, BAD);
    let entry = fleet.enter(1, ticket.as_deref());
    assert_eq!(entry.refused, Some(Refusal::Lapsed));
    assert!(!given(&entry).0);
}

#[test]
fn a_place_is_kept_by_who_asks_late_but_before_their_turn() {
    let mut fleet = open(1, 1);
    assert!(!given(&fleet.enter(0, None)).0);
    let (_, ticket) = given(&fleet.enter(0, None));
    let place =
        |fleet: &Fleet, text: &str| fleet.keys.read(text, ROOM, fleet.wall()).unwrap().place;
    let before = place(&fleet, ticket.as_deref().unwrap());
    fleet.guards[0].silent = true;
    fleet.guards[1].silent = true;
    fleet.seconds(200, BAD);
    let entry = fleet.enter(1, ticket.as_deref());
    if entry.refused.is_none() {
        let (_, ticket) = given(&entry);
        assert_eq!(place(&fleet, &ticket.unwrap()), before);
    }
}

#[test]
fn requests_that_one_browser_sends_at_once_are_one_citizen() {
    let mut fleet = open(1000, 60_000);
    let (_, ticket) = given(&fleet.enter(0, None));
    fleet.pass(Duration::from_secs(5));
    let mut last = None;
    for _ in 0..6 {
        let (passes, ticket) = given(&fleet.enter(0, ticket.as_deref()));
        assert!(passes);
        last = ticket;
    }
    fleet.tick();
    assert_eq!(fleet.progress.word.active, 1);
    fleet.pass(Duration::from_secs(6));
    for _ in 0..6 {
        assert!(given(&fleet.enter(1, last.as_deref())).0);
    }
    fleet.tick();
    assert_eq!(fleet.progress.word.active, 1);
}

#[test]
fn who_is_in_stays_in_while_they_return_and_leaves_a_session_after() {
    let mut fleet = open(1000, 60_000);
    let (_, mut ticket) = given(&fleet.enter(0, None));
    fleet.pass(Duration::from_secs(5));
    for _ in 0..5 {
        let (passes, new) = given(&fleet.enter(0, ticket.as_deref()));
        assert!(passes);
        ticket = new.or(ticket);
        fleet.seconds(30, BAD);
        assert_eq!(fleet.progress.word.active, 1);
    }
    let read = fleet
        .keys
        .read(ticket.as_deref().unwrap(), ROOM, fleet.wall());
    assert!(matches!(read.unwrap().kind, Kind::Admitted { .. }));
    fleet.seconds(20, BAD);
    assert_eq!(fleet.progress.word.active, 0);
    let entry = fleet.enter(0, ticket.as_deref());
    assert_eq!(entry.refused, Some(Refusal::Expired));
    assert!(!given(&entry).0);
}

#[test]
fn the_further_back_the_later_to_ask_again_and_not_all_at_once() {
    let mut fleet = open(100_000, 600);
    let mut waits = Vec::new();
    for _ in 0..100 {
        fleet.tick();
        for _ in 0..50 {
            match fleet.enter(0, None).verdict {
                Verdict::Pass { .. } => panic!("the queue is open"),
                Verdict::Wait { retry_after, .. } => waits.push(retry_after),
            }
        }
    }
    let (first, last) = (&waits[..50], &waits[waits.len() - 50..]);
    assert!(first.iter().all(|wait| *wait <= Duration::from_secs(6)));
    assert!(last.iter().all(|wait| *wait >= Duration::from_secs(50)));
    assert!(last.iter().all(|wait| *wait <= Duration::from_mins(1)));
    let (soonest, latest) = (last.iter().min().unwrap(), last.iter().max().unwrap());
    assert!(
        *latest > *soonest + Duration::from_secs(5),
        "{soonest:?}..{latest:?}"
    );
}
