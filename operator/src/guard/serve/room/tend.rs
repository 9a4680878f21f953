//! What rooms need between requests: at each beat they are brought to the moment, tell their counts
//! and hear the coordinator.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use shield::Time;
use shield::policy::Scope;
use shield::room::{Phase, RoomSettings, Watermark};
use shield::ticket::{GuardId, RoomId};
use tokio::time::MissedTickBehavior;

use super::clock::{Clock, Machine};
use super::live::Live;
use super::{Room, Rooms};
use crate::guard::config::WaitingRoom;
use crate::guard::rooms::{BEAT, Coordinator, LOST, RoomSummaries, RoomWords};
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
    /// What was said last of rooms that are not kept here yet, and when.
    early: Mutex<(RoomWords, Time)>,
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
            early: Mutex::new((RoomWords::default(), Time::ZERO)),
        }
    }

    /// From here on somebody else coordinates rooms of more than one guard.
    pub(super) fn share(&self, guards: NonZeroU32) {
        // The first word counts: guards come and go, and the coordinator tells how many there are.
        self.guards.get_or_init(|| guards);
    }

    /// A room that goes on from what was said of it: else those who come now would pass by all who wait.
    pub(super) fn open(
        &self,
        name: &str,
        id: RoomId,
        settings: &RoomSettings,
        scope: Scope,
    ) -> Live {
        let guards = self.guards.get().filter(|_| scope != Scope::Instance);
        let early = guards.and_then(|_| self.early(name));
        let guards = guards.copied().unwrap_or(NonZeroU32::MIN);
        // Not by the lot that drew the guard's id, which tickets show.
        let secret = RandomState::new().hash_one(id.0);
        let room = shield::room::Room::new(id, self.guard, settings.clone(), guards, secret);
        let live = Live::new(room, settings.clone());
        if let Some((word, heard)) = early {
            // It was said before this guard was counted, and so may leave all that is free to others. One that
            // heard nothing would let in its part of an empty room, and this one lets in no more.
            let part = settings.active_users() / u64::from(guards.get());
            let quota = word.quota.min(part);
            live.hear(&Watermark { quota, ..word }, heard);
        }
        live
    }

    fn keep(&self, words: RoomWords) {
        let now = self.clock.now();
        // One assignment: a panic elsewhere leaves nothing half done.
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = (words, now);
    }

    /// What was said last of a room that is not kept here yet. It counts for as long as a guard that is not
    /// heard is counted; what is older tells of others than those who wait now.
    fn early(&self, name: &str) -> Option<(Watermark, Time)> {
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        let (words, heard) = &*early;
        let is_new = self.clock.now().since(*heard) < LOST;
        let word = words.0.get(name).filter(|_| is_new)?;
        Some((word.clone(), *heard))
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

    /// Takes the coordinator's words. Rooms that are not known here are the next configuration's, and begin by
    /// what was said of them.
    pub(super) fn hear(&self, words: &RoomWords) {
        if words.is_empty() {
            return;
        }
        let (mut known, mut early) = (BTreeMap::new(), BTreeMap::new());
        for (name, word) in &words.0 {
            match self.by_name.get(name) {
                Some(room) if self.common.is_own(room) => {}
                Some(_) => drop(known.insert(name.clone(), word.clone())),
                None => drop(early.insert(name.clone(), word.clone())),
            }
        }
        self.common.keep(RoomWords(early));
        self.tell(&RoomWords(known));
    }

    /// Whether something was said of each of these rooms that guards share, none of which is kept here yet.
    pub(super) fn has_heard(&self, wanted: &BTreeMap<String, WaitingRoom>) -> bool {
        let mut rooms = wanted.iter();
        rooms.all(|(name, room)| room.scope == Scope::Instance || self.common.early(name).is_some())
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
