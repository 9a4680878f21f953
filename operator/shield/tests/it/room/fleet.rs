//! A few guards and a coordinator on a clock that the test turns.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that uses it"
)]

use std::num::NonZeroU32;
use std::time::Duration;

use shield::Time;
use shield::room::{
    Entry, OpenWhen, Phase, Progress, Room, RoomSettings, RoomSpec, Signals, Summary, Verdict,
    Watermark, advance,
};
use shield::ticket::{GuardId, Key, Keys, RoomId, Wall};

/// The interval at which guards and coordinator speak.
pub(super) const TICK: Duration = Duration::from_millis(100);
pub(super) const START: Wall = Wall::from_millis(1_790_000_000_000);
pub(super) const ROOM: RoomId = RoomId(1);

pub(super) struct Fleet {
    pub(super) guards: Vec<Guard>,
    pub(super) settings: RoomSettings,
    pub(super) keys: Keys,
    pub(super) elapsed: Duration,
    /// Whether the coordinator is reached.
    pub(super) coordinated: bool,
    pub(super) progress: Progress,
    /// How far the coordinator's clock is ahead, in milliseconds.
    pub(super) ahead: i64,
    ended: Vec<Summary>,
    runs: u32,
}

pub(super) struct Guard {
    pub(super) room: Room,
    /// How far its clock is ahead, in milliseconds.
    pub(super) skew: i64,
    /// Whether coordinator and guard do not hear each other.
    pub(super) silent: bool,
    last: Option<Summary>,
}

pub(super) fn settings(active_users: u64, new_per_minute: u64, session: u64) -> RoomSettings {
    RoomSettings::try_from(RoomSpec {
        active_users,
        new_per_minute,
        session: Duration::from_secs(session),
        open_when: OpenWhen {
            p99_over: Some(Duration::from_secs(1)),
            error_percent: Some(5),
        },
    })
    .unwrap()
}

pub(super) const BAD: Signals = Signals {
    requests: 1000,
    errors: 0,
    slow: 20,
};

pub(super) const GOOD: Signals = Signals {
    requests: 1000,
    errors: 0,
    slow: 0,
};

impl Fleet {
    pub(super) fn new(guards: u32, settings: RoomSettings) -> Self {
        let mut fleet = Self {
            guards: Vec::new(),
            settings,
            keys: Keys::new(Key::new(1, &[1; 32]), None),
            elapsed: Duration::ZERO,
            coordinated: true,
            progress: Progress::new(),
            ahead: 0,
            ended: Vec::new(),
            runs: 0,
        };
        for _ in 0..guards {
            let guard = fleet.run(guards);
            fleet.guards.push(guard);
        }
        fleet
    }

    fn run(&mut self, guards: u32) -> Guard {
        self.runs += 1;
        let guards = NonZeroU32::new(guards).unwrap();
        let id = GuardId(self.runs);
        let room = Room::new(ROOM, id, self.settings.clone(), guards, 1);
        Guard {
            room,
            skew: 0,
            silent: false,
            last: None,
        }
    }

    pub(super) fn now(&self) -> Time {
        Time::ZERO.after(self.elapsed)
    }

    pub(super) fn wall(&self) -> Wall {
        START.after(self.elapsed)
    }

    pub(super) fn enter(&self, guard: usize, ticket: Option<&str>) -> Entry {
        let guard = &self.guards[guard];
        let wall = self.clock_of(guard);
        guard.room.enter(&self.keys, ticket, wall, self.now())
    }

    fn clock_of(&self, guard: &Guard) -> Wall {
        self.clock(guard.skew)
    }

    fn clock(&self, ahead: i64) -> Wall {
        let millis = self.wall().as_millis();
        Wall::from_millis(millis.checked_add_signed(ahead).unwrap())
    }

    /// Lets [`TICK`] pass.
    pub(super) fn tick(&mut self) {
        self.elapsed += TICK;
        let (wall, now) = (self.clock(self.ahead), self.now());
        for index in 0..self.guards.len() {
            let clock = self.clock_of(&self.guards[index]);
            let guard = &mut self.guards[index];
            let summary = guard.room.tick(clock, now);
            if !guard.silent {
                guard.last = Some(summary);
            }
        }
        if self.coordinated {
            self.ended.retain(|summary| !summary.is_spent(wall));
            let told = self.guards.iter().filter_map(|guard| guard.last.clone());
            let reports: Vec<Summary> = told.chain(self.ended.iter().cloned()).collect();
            let one = NonZeroU32::MIN;
            self.progress = advance(&self.progress, &self.settings, &reports, one, wall, now);
            for guard in self.guards.iter().filter(|guard| !guard.silent) {
                guard.room.hear(&self.progress.word, now);
            }
        }
    }

    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.elapsed + span;
        while self.elapsed < end {
            self.tick();
        }
    }

    /// Lets seconds pass in which each guard sees such requests.
    pub(super) fn seconds(&mut self, seconds: u64, signals: Signals) {
        for _ in 0..seconds {
            for guard in &self.guards {
                guard.room.observe(signals);
            }
            self.pass(Duration::from_secs(1));
        }
    }

    /// Opens the queue by a short distress.
    pub(super) fn open(&mut self) {
        self.seconds(6, BAD);
        self.seconds(6, GOOD);
        assert_ne!(self.progress.word.phase, Phase::Closed);
    }

    /// Kills a guard and starts another run of it, which has heard the last word.
    pub(super) fn restart(&mut self, index: usize) {
        let fresh = self.run(u32::try_from(self.guards.len()).unwrap());
        let old = std::mem::replace(&mut self.guards[index], fresh);
        self.ended
            .extend(old.last.map(|last| Summary { gone: true, ..last }));
        if self.coordinated {
            let now = self.now();
            self.guards[index].room.hear(&self.progress.word, now);
        }
    }

    pub(super) fn words(&self) -> Vec<Watermark> {
        self.guards.iter().map(|guard| guard.room.word()).collect()
    }
}

/// The ticket that was given, and whether it lets its holder pass.
pub(super) fn given(entry: &Entry) -> (bool, Option<String>) {
    match &entry.verdict {
        Verdict::Pass { ticket } => (true, ticket.clone()),
        Verdict::Wait { ticket, .. } => (false, Some(ticket.clone())),
    }
}

/// A small generator of numbers, so that a run can be repeated.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let number = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % bound
    }

    pub(super) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}
