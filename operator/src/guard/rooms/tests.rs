use shield::room::{Entry, OpenWhen, Room as Shielded, RoomSpec, Verdict};
use shield::ticket::{Key, Keys, RoomId};

use super::*;

const START: Wall = Wall::from_millis(1_790_000_000_000);
const NAME: &str = "health/code";

/// Guards of one room, and a coordinator that hears them by what goes over the network.
struct Fleet {
    coordinator: Coordinator,
    guards: BTreeMap<String, Shielded>,
    keys: Keys,
    elapsed: Duration,
    runs: u32,
}

fn settings(active_users: u64) -> RoomSettings {
    RoomSettings::try_from(RoomSpec {
        active_users,
        new_per_minute: 6000,
        session: Duration::from_secs(40),
        open_when: OpenWhen::default(),
    })
    .unwrap()
}

fn named(active_users: u64) -> BTreeMap<String, RoomSettings> {
    [(NAME.to_owned(), settings(active_users))].into()
}

impl Fleet {
    fn of(guards: &[&str], active_users: u64) -> Self {
        let mut fleet = Self {
            coordinator: Coordinator::new(),
            guards: BTreeMap::new(),
            keys: Keys::new(Key::new(1, &[1; 32]), None),
            elapsed: Duration::ZERO,
            runs: 0,
        };
        fleet.coordinator.configure(named(active_users));
        for guard in guards {
            fleet.start(guard, guards.len(), active_users);
        }
        fleet
    }

    fn start(&mut self, guard: &str, guards: usize, active_users: u64) {
        self.runs += 1;
        let guards = NonZeroU32::new(u32::try_from(guards).unwrap()).unwrap();
        let run = GuardId(self.runs);
        let room = Shielded::new(RoomId(1), run, settings(active_users), guards, 1);
        self.guards.insert(guard.to_owned(), room);
    }

    fn now(&self) -> Time {
        Time::ZERO.after(self.elapsed)
    }

    fn enter(&self, guard: &str, ticket: Option<&str>) -> Entry {
        let wall = START.after(self.elapsed);
        self.guards[guard].enter(&self.keys, ticket, wall, self.now())
    }

    fn pass(&mut self, span: Duration) {
        let end = self.elapsed + span;
        while self.elapsed < end {
            self.beat();
        }
    }

    fn beat(&mut self) -> RoomWords {
        self.elapsed += BEAT;
        let (wall, now) = (START.after(self.elapsed), self.now());
        for (name, room) in &self.guards {
            let told = RoomSummaries([(NAME.to_owned(), room.tick(wall, now))].into());
            self.coordinator
                .hear(name, over_the_wire(&told), now)
                .unwrap();
        }
        let words = over_the_wire(&self.coordinator.advance(wall, now));
        for room in self.guards.values() {
            for word in words.0.values() {
                room.hear(word, now);
            }
        }
        words
    }

    fn word(&self) -> &Watermark {
        &self.coordinator.rooms[NAME].progress.word
    }
}

fn over_the_wire<T: Serialize + for<'a> Deserialize<'a> + PartialEq + std::fmt::Debug>(
    told: &T,
) -> T {
    let text = serde_json::to_string(told).unwrap();
    let heard = serde_json::from_str(&text).unwrap();
    assert_eq!(told, &heard);
    heard
}

fn passes(entry: &Entry) -> bool {
    matches!(entry.verdict, Verdict::Pass { .. })
}

#[test]
fn a_coordinator_says_nothing_before_it_has_heard_all_guards() {
    let mut fleet = Fleet::of(&["a", "b"], 100);
    let mut silent = Duration::ZERO;
    while fleet.beat().0.is_empty() {
        silent = fleet.elapsed;
    }
    assert!(
        silent >= SETTLE.saturating_sub(BEAT) && silent < STALE,
        "{silent:?}"
    );
    let mut alone = Coordinator::of_one();
    alone.configure(named(100));
    assert_eq!(alone.advance(START, Time::ZERO).0.len(), 1);
}

#[test]
fn no_more_are_let_in_over_all_guards_than_may_be() {
    let mut fleet = Fleet::of(&["a", "b", "c"], 30);
    fleet.pass(SETTLE * 2);
    let mut inside = 0;
    for number in 0..300 {
        let guard = ["a", "b", "c"][number % 3];
        inside += u32::from(passes(&fleet.enter(guard, None)));
        if number % 10 == 0 {
            fleet.beat();
        }
    }
    assert!((27..=30).contains(&inside), "{inside}");
}

#[test]
fn the_share_of_a_guard_that_is_gone_or_silent_goes_to_the_others() {
    for is_told in [true, false] {
        let mut fleet = Fleet::of(&["a", "b"], 100);
        fleet.pass(SETTLE * 2);
        assert_eq!(fleet.word().guards.get(), 2);
        fleet.guards.remove("b");
        if is_told {
            fleet.coordinator.gone("b");
            fleet.pass(STALE * 2);
        } else {
            fleet.pass(LOST.saturating_sub(BEAT * 2));
            assert_eq!(fleet.word().guards.get(), 2, "it may be alive");
            fleet.pass(BEAT * 4);
        }
        assert_eq!(fleet.word().guards.get(), 1);
        assert_eq!(fleet.word().quota, 100);
    }
}

#[test]
fn a_guard_that_starts_again_is_one_guard_and_whom_it_let_in_is_still_in() {
    let mut fleet = Fleet::of(&["a", "b"], 100);
    fleet.pass(SETTLE * 2);
    for _ in 0..10 {
        assert!(passes(&fleet.enter("b", None)));
    }
    fleet.pass(BEAT);
    fleet.start("b", 2, 100);
    fleet.pass(STALE * 2);
    assert_eq!(fleet.word().guards.get(), 2);
    assert_eq!(fleet.word().active, 10);
}

#[test]
fn numbers_that_cannot_be_are_named_and_change_nothing() {
    let mut fleet = Fleet::of(&["a"], 100);
    fleet.pass(SETTLE * 2);
    let wall = START.after(fleet.elapsed);
    let mut summary = fleet.guards["a"].tick(wall, fleet.now());
    summary.crowd.width = 0;
    let told = RoomSummaries([(NAME.to_owned(), summary)].into());
    let now = fleet.now();
    let error = fleet.coordinator.hear("a", told, now).unwrap_err();
    assert!(error.to_string().contains(NAME), "{error}");
    fleet.beat();
    assert_eq!(fleet.word().guards.get(), 1);
}

#[test]
fn who_waits_waits_on_when_the_room_is_configured_anew() {
    let mut fleet = Fleet::of(&["a"], 1);
    fleet.pass(SETTLE * 2);
    for _ in 0..5 {
        fleet.enter("a", None);
    }
    fleet.pass(BEAT * 2);
    assert_eq!(fleet.word().waiting, 4);
    fleet.coordinator.configure(named(2));
    fleet.beat();
    assert_eq!(fleet.word().waiting, 4);
    fleet.coordinator.configure(BTreeMap::new());
    assert_eq!(fleet.beat(), RoomWords::default());
}

#[test]
fn runs_that_are_remembered_are_bounded() {
    let mut fleet = Fleet::of(&["a"], 100);
    let wall = START.after(fleet.elapsed);
    let summary = fleet.guards["a"].tick(wall, fleet.now());
    for run in 1..2 * u32::try_from(RUNS_MAX).unwrap() {
        let guard = GuardId(run);
        let summary = Summary {
            guard,
            ..summary.clone()
        };
        let told = RoomSummaries([(NAME.to_owned(), summary)].into());
        let now = Time::from_nanos(run.into());
        fleet.coordinator.hear("restless", told, now).unwrap();
    }
    assert_eq!(fleet.coordinator.rooms[NAME].reports.len(), RUNS_MAX);
}
