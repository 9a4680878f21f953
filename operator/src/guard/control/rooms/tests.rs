//! Guards that exchange at their own moments, people who come to them, and leaders that come and go.

use serde_json::json;
use shield::room::{Cell, OpenWhen, Phase, Room, RoomSpec, Signals, Summary, Verdict, Watermark};
use shield::ticket::{GuardId, Key, Keys, LIFETIME, Place, RoomId};

use std::num::NonZeroU32;

use super::*;
use crate::guard::rooms::{RoomSummaries, SETTLE};

const START: Wall = Wall::from_millis(1_790_000_000_000);
const NAME: &str = "health/code";
const BEAT_MILLIS: u64 = 150;
/// Beats until a leader that begins has said something to all.
const SETTLED: u64 = 10;

fn wanted(active_users: u64) -> Settings {
    let settings = RoomSettings::try_from(RoomSpec {
        active_users,
        new_per_minute: 600,
        session: Duration::from_mins(5),
        open_when: OpenWhen {
            p99_over: None,
            error_percent: Some(5),
        },
    });
    [(NAME.to_owned(), settings.unwrap())].into()
}

/// A guard, as the leader meets it.
struct Guard {
    name: String,
    session: u64,
    room: Room,
    /// When it exchanges, in milliseconds of each beat.
    at: u64,
}

/// Guards, and who leads.
struct Fleet {
    leader: Rooms,
    guards: Vec<Guard>,
    keys: Keys,
    millis: u64,
}

/// Somebody, at the guard where they ask.
struct Person {
    guard: usize,
    ticket: Option<String>,
    is_in: bool,
}

impl Fleet {
    fn of(guards: u64, active_users: u64) -> Self {
        let count = NonZeroU32::new(u32::try_from(guards).unwrap()).unwrap();
        let settings = wanted(active_users).remove(NAME).unwrap();
        let guard = |number: u64| Guard {
            name: format!("guard-{number}"),
            session: 1,
            room: Room::new(
                RoomId(1),
                GuardId(u32::try_from(number).unwrap() + 1),
                settings.clone(),
                count,
                number,
            ),
            // Spread, in no order.
            at: number * 47 % BEAT_MILLIS,
        };
        let mut fleet = Self {
            leader: Rooms::new(wanted(active_users)),
            guards: (0..guards).map(guard).collect(),
            keys: Keys::new(Key::new(1, &[1; 32]), None),
            millis: 0,
        };
        fleet.pass(SETTLED * BEAT_MILLIS);
        fleet
    }

    fn now(&self) -> Time {
        Time::ZERO.after(Duration::from_millis(self.millis))
    }

    fn wall(&self) -> Wall {
        START.after(Duration::from_millis(self.millis))
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.millis += 1;
            for number in 0..self.guards.len() {
                if self.millis % BEAT_MILLIS == self.guards[number].at {
                    self.exchange(number);
                }
            }
        }
    }

    fn report(&self, number: usize) -> Report {
        let guard = &self.guards[number];
        let summary = guard.room.tick(self.wall(), self.now());
        let report = Report {
            guard: guard.name.clone(),
            session: guard.session,
            rooms: RoomSummaries([(NAME.to_owned(), summary)].into()),
            ..Report::default()
        };
        let text = serde_json::to_string(&report).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn exchange(&mut self, number: usize) -> RoomWords {
        let (report, wall, now) = (self.report(number), self.wall(), self.now());
        let words = self.leader.exchange(report, wall, now);
        for word in words.0.values() {
            self.guards[number].room.hear(word, now);
        }
        words
    }

    /// A report in which a guard says this of the room.
    fn claim(&mut self, number: usize, change: impl FnOnce(&mut Summary)) {
        let mut report = self.report(number);
        change(report.rooms.0.get_mut(NAME).unwrap());
        let (wall, now) = (self.wall(), self.now());
        self.leader.exchange(report, wall, now);
    }

    fn ask(&self, person: &mut Person) {
        let room = &self.guards[person.guard].room;
        let entry = room.enter(
            &self.keys,
            person.ticket.as_deref(),
            self.wall(),
            self.now(),
        );
        match entry.verdict {
            Verdict::Pass { ticket } => {
                person.is_in = true;
                person.ticket = ticket.or(person.ticket.take());
            }
            Verdict::Wait { ticket, .. } => person.ticket = Some(ticket),
        }
    }

    /// So many, to one guard after the other, as many milliseconds apart.
    fn come(&mut self, people: usize, apart: u64) -> Vec<Person> {
        let mut all = Vec::new();
        for number in 0..people {
            let mut person = Person {
                guard: number % self.guards.len(),
                ticket: None,
                is_in: false,
            };
            self.ask(&mut person);
            all.push(person);
            self.pass(apart);
        }
        all
    }

    /// The service fails until people queue.
    fn sicken(&mut self) {
        while self.word(0).phase == Phase::Closed {
            for guard in &self.guards {
                let bad = Signals {
                    requests: 300,
                    errors: 300,
                    slow: 0,
                };
                guard.room.observe(bad);
            }
            self.pass(1000);
        }
        for guard in &self.guards {
            for _ in 0..5 {
                guard.room.observe(Signals::default());
            }
        }
        self.pass(1000);
    }

    fn word(&self, number: usize) -> Watermark {
        self.guards[number].room.word()
    }
}

#[test]
fn two_guards_let_in_together_what_may_come_in_a_minute_and_who_came_first_is_first() {
    let mut fleet = Fleet::of(2, 100_000);
    fleet.sicken();
    let mut people = fleet.come(500, 7);
    let inside = |people: &[Person]| people.iter().filter(|person| person.is_in).count();
    let mut first = 0;
    // Each asks the other guard the next time: a place counts at both.
    for half_second in 0..=60 {
        for person in people.iter_mut().filter(|person| !person.is_in) {
            person.guard = (person.guard + 1) % 2;
            fleet.ask(person);
        }
        if half_second == 0 {
            first = inside(&people);
        }
        let waiting = people.iter().position(|person| !person.is_in);
        let last = people.iter().rposition(|person| person.is_in);
        if let (Some(waiting), Some(last)) = (waiting, last) {
            // The guards heard words that are a beat apart, within which ten a second are one or two.
            assert!(
                last < waiting + 4,
                "{last} before {waiting} after {half_second}"
            );
        }
        fleet.pass(500);
    }
    let came = inside(&people) - first;
    // Never more; up to a tenth less was seen, which is on the safe side.
    assert!(
        (270..=305).contains(&came),
        "{came} in 30 s of 600 a minute"
    );
}

#[test]
fn a_crowd_that_comes_at_once_to_many_guards_fills_the_room_and_not_twice() {
    let mut fleet = Fleet::of(100, 2000);
    let mut inside = 0;
    for _ in 0..20 {
        // Each guard is asked by more than its part within a few milliseconds, again and again.
        for guard in 0..100 {
            for _ in 0..20 {
                let mut person = Person {
                    guard,
                    ticket: None,
                    is_in: false,
                };
                fleet.ask(&mut person);
                inside += u32::from(person.is_in);
            }
        }
        fleet.pass(37);
    }
    assert!((1900..=2000).contains(&inside), "{inside}");
}

#[test]
fn each_of_many_guards_hears_a_word_while_one_counts() {
    let mut fleet = Fleet::of(200, 2000);
    let before: Vec<u64> = (0..200).map(|number| fleet.word(number).epoch).collect();
    fleet.pass(2 * BEAT_MILLIS + 1);
    for (number, before) in before.into_iter().enumerate() {
        assert!(fleet.word(number).epoch > before, "guard {number}");
    }
    let steps = fleet.leader.step;
    fleet.pass(60 * BEAT_MILLIS);
    assert!(fleet.leader.step - steps <= 61, "adding up is bounded");
}

#[test]
fn the_part_of_a_guard_that_leaves_is_the_others_at_once_and_whom_it_let_in_are_in() {
    let mut fleet = Fleet::of(2, 100);
    let people = fleet.come(10, 1);
    assert!(people.iter().all(|person| person.is_in));
    assert_eq!(fleet.word(0).guards.get(), 2);
    // Its last report, and then no more.
    fleet.exchange(1);
    fleet.leader.gone("guard-1");
    fleet.guards.truncate(1);
    fleet.pass(3 * BEAT_MILLIS);
    let word = fleet.word(0);
    assert_eq!((word.guards.get(), word.active), (1, 10));
    assert_eq!(word.quota, 90);
    assert_eq!(fleet.leader.members.len(), 1);
}

#[test]
fn a_guard_that_serves_hears_no_word_of_a_room_that_it_could_not_tell_of() {
    let mut fleet = Fleet::of(2, 100);
    fleet.pass(2 * BEAT_MILLIS);
    for (revision, hears) in [("", true), ("r1", false), ("r1", false)] {
        fleet.pass(5);
        let report = Report {
            revision: revision.into(),
            rooms: RoomSummaries::default(),
            ..fleet.report(1)
        };
        let (wall, now) = (fleet.wall(), fleet.now());
        let words = fleet.leader.exchange(report, wall, now);
        assert_eq!(!words.is_empty(), hears, "{revision}");
    }
    fleet.pass(2 * BEAT_MILLIS);
    assert!(!fleet.exchange(1).is_empty());
}

#[test]
fn a_guard_that_serves_by_an_older_configuration_hears_words_of_rooms_that_are_new_to_it() {
    for (newest, hears) in [("r1", false), ("r2", true)] {
        let mut fleet = Fleet::of(2, 100);
        fleet.leader.offered(newest.into());
        let mut has_heard = false;
        for _ in 0..4 * BEAT_MILLIS {
            fleet.millis += 1;
            let report = Report {
                session: 7,
                revision: "r1".into(),
                rooms: RoomSummaries::default(),
                ..fleet.report(1)
            };
            let (wall, now) = (fleet.wall(), fleet.now());
            has_heard |= !fleet.leader.exchange(report, wall, now).is_empty();
        }
        assert_eq!(has_heard, hears, "r1 of {newest}");
    }
}

#[test]
fn a_guard_that_begins_anew_is_one_guard_before_it_tells_of_its_rooms() {
    let mut fleet = Fleet::of(2, 100);
    fleet.guards[1].session = 2;
    let report = Report {
        rooms: RoomSummaries::default(),
        ..fleet.report(1)
    };
    let (wall, now) = (fleet.wall(), fleet.now());
    fleet.leader.exchange(report, wall, now);
    fleet.guards.truncate(1);
    fleet.pass(2 * BEAT_MILLIS);
    assert_eq!(fleet.word(0).guards.get(), 1);
}

#[test]
fn a_new_leader_is_silent_until_it_heard_all_and_goes_on_where_the_last_one_stopped() {
    let mut fleet = Fleet::of(2, 100_000);
    fleet.sicken();
    fleet.come(300, 7);
    fleet.pass(3 * BEAT_MILLIS);
    let before = [fleet.word(0), fleet.word(1)];
    assert!(before[0].waiting > 200, "{}", before[0].waiting);
    fleet.leader = Rooms::new(wanted(100_000));
    let began = fleet.millis;
    while fleet.word(0).epoch == before[0].epoch {
        fleet.pass(1);
    }
    let silent = Duration::from_millis(fleet.millis - began);
    assert!(silent >= SETTLE && silent < SETTLE + 2 * BEAT, "{silent:?}");
    fleet.pass(2 * BEAT_MILLIS);
    for (number, before) in before.iter().enumerate() {
        let word = fleet.word(number);
        assert!(word.admitted >= before.admitted && word.epoch > before.epoch);
        assert_ne!(word.phase, Phase::Closed);
        assert_eq!(word.guards.get(), 2);
        assert!(word.waiting + 20 > before.waiting, "{}", word.waiting);
    }
}

#[test]
fn numbers_that_cannot_be_are_said_once_and_stop_nobody_else() {
    let mut fleet = Fleet::of(2, 100);
    for _ in 0..3 {
        let mut report = fleet.report(1);
        report.rooms.0.get_mut(NAME).unwrap().crowd.width = 0;
        let (wall, now) = (fleet.wall(), fleet.now());
        fleet.leader.exchange(report, wall, now);
        fleet.pass(BEAT_MILLIS);
    }
    assert_eq!(fleet.leader.unsound.len(), 1);
    let before = fleet.word(0).epoch;
    fleet.pass(2 * BEAT_MILLIS);
    assert!(fleet.word(0).epoch > before);
    fleet.leader.gone("guard-1");
    assert!(fleet.leader.unsound.is_empty());
}

#[test]
fn a_guard_that_says_who_is_admitted_tomorrow_admits_nobody_and_silences_no_leader() {
    let mut fleet = Fleet::of(2, 100);
    fleet.pass(5);
    for epoch in [u64::MAX, 1_000_000] {
        let tomorrow = fleet.wall().after(Duration::from_hours(24));
        fleet.claim(1, |told| {
            (told.epoch, told.heard) = (epoch, Place::end_of(tomorrow));
        });
        let before = fleet.word(0).epoch;
        fleet.pass(2 * BEAT_MILLIS);
        let word = fleet.word(0);
        assert!(
            word.epoch > before && word.epoch < 2_000_000,
            "{}",
            word.epoch
        );
        assert!(word.admitted.arrival <= fleet.wall());
    }
}

#[test]
fn crowds_that_nobody_can_have_counted_are_added_up_all_the_same() {
    let mut fleet = Fleet::of(2, 100);
    let (wall, width) = (fleet.wall(), u64::try_from(2 * LIFETIME.as_millis()));
    let width = width.unwrap();
    for run in 0..400 {
        fleet.pass(2);
        fleet.claim(1, |told| {
            told.guard = GuardId(100 + run);
            // In the middle of a cell, of which a part is still to be admitted.
            (told.epoch, told.heard) = (1_000_000, Place::end_of(wall));
            let most = Cell {
                asked: [1_000_000_000; 3],
                claimed: 1_000_000_000,
            };
            told.crowd.width = width;
            told.crowd.cells = [(wall.as_millis() / width, most)].into();
        });
    }
    assert!(fleet.leader.unsound.is_empty());
    fleet.pass(2 * BEAT_MILLIS);
    assert!(fleet.word(0).waiting > 0);
}

#[test]
fn rooms_of_single_guards_and_those_that_are_gone_are_none_of_the_leaders() {
    let room = |scope: &str| {
        json!({"scope": scope, "activeUsers": 5, "newPerMinute": 5, "keys": [],
            "session": {"secs": 60, "nanos": 0}})
    };
    let configuration = json!({"revision": "1", "rooms": {
        "ns/alone": room("Instance"), "ns/cluster": room("Cluster"), "ns/region": room("Region")}});
    let configuration = serde_json::from_value(configuration).unwrap();
    let names: Vec<String> = shared(&configuration).into_keys().collect();
    assert_eq!(names, ["ns/cluster", "ns/region"]);
    let mut fleet = Fleet::of(2, 100);
    fleet.leader.configure(Settings::new());
    assert!(fleet.exchange(0).0.is_empty());
}
