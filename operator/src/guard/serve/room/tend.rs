//! What rooms need between requests: at each beat they are brought to the moment, tell their counts
//! and hear the coordinator.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use shield::policy::Scope;
use shield::room::{Phase, RoomSettings};
use shield::ticket::{GuardId, RoomId};
use tokio::time::MissedTickBehavior;

use super::clock::{Clock, Machine};
use super::live::Live;
use super::{Room, Rooms};
use crate::guard::rooms::{BEAT, Coordinator, RoomSummaries, RoomWords};
use crate::guard::serve::proxy::Shared;

/// The name under which a guard coordinates itself.
const SELF: &str = "self";

/// What all rooms of this run of the guard share, whatever the configuration.
#[derive(Debug)]
pub(in crate::guard::serve) struct Common {
    guard: GuardId,
    pub(super) clock: Arc<dyn Clock>,
    /// How many guards there are, once somebody else coordinates them.
    guards: OnceLock<NonZeroU32>,
    /// For rooms that nobody else coordinates.
    own: Mutex<Coordinator>,
}

/// Beats until the guard is no more.
pub(in crate::guard::serve) async fn tend(shared: Weak<Shared>) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.current.load().rooms.beat();
    }
}

impl Common {
    /// For a guard that starts now.
    ///
    /// Its id is drawn by lot: were a thousand runs counted at one time, two of them had the same in
    /// one of 8,000 cases, and then only the later one's counts were known.
    pub(in crate::guard::serve) fn start() -> Self {
        Self::of(GuardId(fastrand::u32(1..)), Arc::new(Machine::start()))
    }

    pub(super) fn of(guard: GuardId, clock: Arc<dyn Clock>) -> Self {
        Self {
            guard,
            clock,
            guards: OnceLock::new(),
            own: Mutex::new(Coordinator::of_one()),
        }
    }

    /// From here on somebody else coordinates rooms of more than one guard.
    pub(super) fn share(&self, guards: NonZeroU32) {
        // The first word counts: guards come and go, and the coordinator tells how many there are.
        self.guards.get_or_init(|| guards);
    }

    pub(super) fn open(&self, id: RoomId, settings: &RoomSettings, scope: Scope) -> Live {
        let guards = self.guards.get().filter(|_| scope != Scope::Instance);
        let guards = guards.copied().unwrap_or(NonZeroU32::MIN);
        let chance = fastrand::u64(..);
        let room = shield::room::Room::new(id, self.guard, settings.clone(), guards, chance);
        Live::new(room, settings.clone())
    }

    fn is_own(&self, room: &Room) -> bool {
        room.scope == Scope::Instance || !self.is_shared()
    }

    /// Whether somebody else coordinates rooms of more than one guard.
    pub(super) fn is_shared(&self) -> bool {
        self.guards.get().is_some()
    }
}

impl Rooms {
    /// Brings all rooms to this moment.
    pub(super) fn beat(&self) {
        let clock = &self.common.clock;
        let (wall, now) = (clock.wall(), clock.now());
        let mut own = BTreeMap::new();
        let mut told = BTreeMap::new();
        for (name, room) in &self.by_name {
            let summary = room.live.beat(&room.settings, wall, now);
            if self.common.is_own(room) {
                own.insert(name.clone(), room.settings.clone());
                told.insert(name.clone(), summary);
            }
        }
        let words = {
            let coordinator = self.common.own.lock();
            let mut coordinator = coordinator.unwrap_or_else(PoisonError::into_inner);
            coordinator.configure(own);
            // What a room of this process tells is sound.
            let _ = coordinator.hear(SELF, RoomSummaries(told), now);
            coordinator.advance(wall, now)
        };
        self.tell(&words);
        self.gauge();
    }

    /// What a coordinator is to know of rooms of more than this guard, as of now: a word that answers counts
    /// from before the last word would let in the same number of people twice.
    pub(super) fn summaries(&self) -> RoomSummaries {
        let clock = &self.common.clock;
        let (wall, now) = (clock.wall(), clock.now());
        let rooms = self.by_name.iter();
        let shared = rooms.filter(|(_, room)| !self.common.is_own(room));
        let told = shared.map(|(name, room)| {
            let summary = room.live.beat(&room.settings, wall, now);
            (name.clone(), summary)
        });
        RoomSummaries(told.collect())
    }

    /// Takes the coordinator's words. Rooms that are not known here are the next configuration's.
    pub(super) fn hear(&self, words: &RoomWords) {
        let strange = |name: &String| self.by_name.get(name).is_none_or(|r| self.common.is_own(r));
        let words = words.0.iter().filter(|(name, _)| !strange(name));
        self.tell(&RoomWords(
            words
                .map(|(name, word)| (name.clone(), word.clone()))
                .collect(),
        ));
    }

    fn tell(&self, words: &RoomWords) {
        let now = self.common.clock.now();
        for (name, word) in &words.0 {
            if let Some(room) = self.by_name.get(name) {
                room.live.hear(word, now);
            }
        }
    }

    fn gauge(&self) {
        let Some(metrics) = self.by_name.values().next().map(|room| &room.metrics) else {
            return;
        };
        let words = self.by_name.values().map(|room| room.live.room.word());
        let (mut waiting, mut active, mut open) = (0, 0, 0);
        for word in words {
            waiting += word.waiting;
            active += word.active;
            open += u64::from(word.phase != Phase::Closed);
        }
        metrics.gauge(waiting, active, open);
    }
}
