//! The leader's side of waiting rooms that guards share: each report is heard, and answered with a word that
//! counts what its guard told since it heard the word before.
//!
//! That order is what a guard's own count relies on: whom it let in since its last word but one it takes for
//! unknown to the coordinator, and all others for known. A word that knew less would let in the same number of
//! people twice when a crowd comes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shield::Time;
use shield::policy::Scope;
use shield::room::RoomSettings;
use shield::ticket::Wall;

use crate::guard::config::Configuration;
use crate::guard::exchange::{GUARDS_MAX, Report};
use crate::guard::rooms::{BEAT, Coordinator, RoomWords, Unsound};

/// Between two steps for each guard that there is. A step adds up what all guards told, so that with this
/// pause as many are added up in a second, 1,333, however many guards there are. Two guards have a step for
/// each report, and 200 one in each beat.
const STEP: Duration = Duration::from_micros(750);
const _: () = assert!(STEP.as_micros() * GUARDS_MAX as u128 == BEAT.as_micros());

/// Rooms by name.
pub(super) type Settings = BTreeMap<String, RoomSettings>;

/// The rooms of one term.
#[derive(Debug)]
pub(super) struct Rooms {
    coordinator: Coordinator,
    /// What guards are to serve by, once it is known.
    newest: Option<String>,
    is_empty: bool,
    /// What was said last, and in which step.
    words: RoomWords,
    step: u64,
    stepped: Option<Time>,
    members: BTreeMap<String, Member>,
    /// Of whom it is said already that they told what cannot be.
    unsound: BTreeSet<(String, String)>,
}

/// A guard.
#[derive(Debug)]
struct Member {
    session: u64,
    /// The first step that counts what it told since its last word; none before it told something.
    counts_from: Option<u64>,
    /// The rooms that it told of then. What was too long to be told is not counted, and a word of it would let
    /// in the same number of people again and again. None of a guard that serves nothing: it lets in nobody.
    told: Option<BTreeSet<String>>,
}

/// The rooms of a configuration that are one over several guards.
pub(super) fn shared(configuration: &Configuration) -> Settings {
    let rooms = configuration.rooms.iter();
    let shared = rooms.filter(|(_, room)| room.scope != Scope::Instance);
    let settings = shared.filter_map(|(name, room)| {
        let settings = RoomSettings::try_from(room.spec());
        // No guard can serve it either, and each says so.
        settings.ok().map(|settings| (name.clone(), settings))
    });
    settings.collect()
}

impl Rooms {
    pub(super) fn new(wanted: Settings) -> Self {
        let mut rooms = Self {
            coordinator: Coordinator::new(),
            is_empty: true,
            newest: None,
            words: RoomWords::default(),
            step: 0,
            stepped: None,
            members: BTreeMap::new(),
            unsound: BTreeSet::new(),
        };
        rooms.configure(wanted);
        rooms
    }

    /// Goes on with these rooms.
    pub(super) fn configure(&mut self, wanted: Settings) {
        self.is_empty = wanted.is_empty();
        self.words.0.retain(|name, _| wanted.contains_key(name));
        self.coordinator.configure(wanted);
    }

    /// Guards are to serve by this now.
    pub(super) fn offered(&mut self, revision: String) {
        self.newest = Some(revision);
    }

    /// Hears a report, and says what its guard is to be told: nothing where no word counts its last reports
    /// yet.
    pub(super) fn exchange(&mut self, report: Report, wall: Wall, now: Time) -> RoomWords {
        let serves = report.serves();
        // One that serves by an older configuration does not know of all rooms yet, and begins by their words.
        let is_up_to_date = serves
            .is_some_and(|serves| self.newest.as_deref().is_none_or(|newest| newest == serves));
        let Report {
            guard,
            session,
            rooms: told,
            ..
        } = report;
        let next = self.step + 1;
        let member = self.members.entry(guard.clone()).or_insert(Member {
            session,
            counts_from: None,
            told: None,
        });
        if member.session != session {
            // It began anew: what it was before is over, and has no share any longer.
            member.session = session;
            member.counts_from = None;
            self.coordinator.gone(&guard);
        }
        if member.counts_from.is_none() {
            member.counts_from = Some(next);
            member.told = is_up_to_date.then(|| told.0.keys().cloned().collect());
        }
        if let Err(unsound) = self.coordinator.hear(&guard, told, now) {
            self.complain(&unsound);
        }
        if self.is_empty {
            return RoomWords::default();
        }
        self.advance(wall, now);
        let step = self.step;
        let Some(member) = self.members.get_mut(&guard) else {
            return RoomWords::default();
        };
        let is_counted = member.counts_from.is_some_and(|from| from <= step);
        if !is_counted || self.words.0.is_empty() {
            return RoomWords::default();
        }
        member.counts_from = None;
        let is_told = |name: &String| member.told.as_ref().is_none_or(|told| told.contains(name));
        let words = self.words.0.iter().filter(|(name, _)| is_told(name));
        RoomWords(
            words
                .map(|(name, word)| (name.clone(), word.clone()))
                .collect(),
        )
    }

    /// A guard is no more: its share is the others' at once. Whom it let in are still in.
    pub(super) fn gone(&mut self, guard: &str) {
        self.coordinator.gone(guard);
        self.members.remove(guard);
        self.unsound.retain(|(known, _)| known != guard);
    }

    fn advance(&mut self, wall: Wall, now: Time) {
        let guards = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let pause = STEP.saturating_mul(guards);
        let is_due = |stepped: Time| now.since(stepped) >= pause;
        if self.stepped.is_none_or(is_due) {
            self.words = self.coordinator.advance(wall, now);
            self.step += 1;
            self.stepped = Some(now);
        }
    }

    /// Said once of a guard and a room: it comes seven times a second.
    fn complain(&mut self, unsound: &Unsound) {
        let Unsound { guard, room } = unsound;
        if self.unsound.insert((guard.clone(), room.clone())) {
            tracing::error!(guard, room, error = %unsound, "what a guard told of a waiting room counts for nothing");
        }
    }
}

#[cfg(test)]
mod tests;
