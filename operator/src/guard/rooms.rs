//! Waiting rooms over several guards: what each counts is added up here, and one word goes back to
//! all. Pure: time is an argument.
//!
//! ```text
//! guard ─ RoomSummaries ─> Coordinator ─ RoomWords ─> guard
//! ```

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shield::Time;
use shield::room::{Progress, RoomSettings, STALE, Summary, Watermark, advance};
use shield::ticket::{GuardId, Wall};

/// How often guards tell their counts and the coordinator its word: the middle of the 100 to 200 ms
/// that the shield's tolerances are made for.
pub const BEAT: Duration = Duration::from_millis(150);

/// A guard that was not heard for so long is taken for dead, and its share goes to the others: as
/// long as shares of limits outlive a guard. Its word, should it live, lets it admit its share alone.
pub const LOST: Duration = Duration::from_secs(30);

/// A coordinator that starts says nothing for so long, since a share for the first guard that it
/// hears would be the whole: six beats, so that all guards were heard, and short enough that none
/// falls back on itself meanwhile.
pub const SETTLE: Duration = Duration::from_secs(1);
const _: () = assert!(SETTLE.as_millis() < STALE.as_millis());

/// Runs of guards that one room remembers: a hundred guards that restart each half minute of a
/// session of five minutes.
const RUNS_MAX: usize = 1000;

/// What a guard tells of its rooms, by their names in the configuration.
///
/// Keys of its maps are numbers: a document that carries it must not flatten it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoomSummaries(pub BTreeMap<String, Summary>);

/// What guards are told of their rooms, by their names in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoomWords(pub BTreeMap<String, Watermark>);

impl RoomSummaries {
    /// Whether it tells of no room.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl RoomWords {
    /// Whether it says nothing of any room.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a guard's summary of one room was not counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "guard {guard} told numbers of waiting room {room} that cannot be; run the same version everywhere"
)]
pub struct Unsound {
    /// Who told them.
    pub guard: String,
    /// The room.
    pub room: String,
}

/// Adds up what guards count, and says who is admitted.
#[derive(Debug)]
pub struct Coordinator {
    rooms: BTreeMap<String, Room>,
    /// The run that each guard is in.
    runs: BTreeMap<String, GuardId>,
    settle: Duration,
    since: Option<Time>,
}

#[derive(Debug)]
struct Room {
    settings: RoomSettings,
    progress: Progress,
    reports: BTreeMap<GuardId, Report>,
}

#[derive(Debug)]
struct Report {
    summary: Summary,
    heard: Time,
}

impl Coordinator {
    /// One for guards that it does not know yet.
    pub fn new() -> Self {
        Self {
            rooms: BTreeMap::new(),
            runs: BTreeMap::new(),
            settle: SETTLE,
            since: None,
        }
    }

    /// One for a single guard, which it speaks for at once.
    pub fn of_one() -> Self {
        Self {
            settle: Duration::ZERO,
            ..Self::new()
        }
    }

    /// Goes on with these rooms. Who waits in one that stays, waits on.
    pub fn configure(&mut self, wanted: BTreeMap<String, RoomSettings>) {
        let mut before = std::mem::take(&mut self.rooms);
        for (name, settings) in wanted {
            let room = match before.remove(&name) {
                Some(room) => Room { settings, ..room },
                None => Room::new(settings),
            };
            self.rooms.insert(name, room);
        }
    }

    /// Takes what a guard tells, under a name that no other guard has and that it keeps when it
    /// starts again. Later summaries of a guard must come later. Of rooms that are told with
    /// impossible numbers the first is named, and what was told of them before stands.
    pub fn hear(&mut self, guard: &str, told: RoomSummaries, now: Time) -> Result<(), Unsound> {
        let mut bad = None;
        for (name, summary) in told.0 {
            if !summary.is_sound() {
                bad.get_or_insert(name);
                continue;
            }
            let run = summary.guard;
            let before = self.runs.insert(guard.to_owned(), run);
            if let Some(before) = before.filter(|before| *before != run) {
                self.end(before);
            }
            if let Some(room) = self.rooms.get_mut(&name) {
                room.hear(summary, now);
            }
        }
        bad.map_or(Ok(()), |room| {
            let guard = guard.to_owned();
            Err(Unsound { guard, room })
        })
    }

    /// Takes it that a guard is no more: its share is the others' from now on. Those whom it let in
    /// are still in.
    pub fn gone(&mut self, guard: &str) {
        if let Some(run) = self.runs.remove(guard) {
            self.end(run);
        }
    }

    /// Moves on to this moment, and says what guards are to be told. To be called each [`BEAT`].
    pub fn advance(&mut self, wall: Wall, now: Time) -> RoomWords {
        let since = *self.since.get_or_insert(now);
        let mut words = BTreeMap::new();
        for (name, room) in &mut self.rooms {
            room.advance(wall, now);
            words.insert(name.clone(), room.progress.word.clone());
        }
        let has_settled = now.since(since) >= self.settle;
        RoomWords(if has_settled { words } else { BTreeMap::new() })
    }

    fn end(&mut self, run: GuardId) {
        let rooms = self.rooms.values_mut();
        for report in rooms.filter_map(|room| room.reports.get_mut(&run)) {
            report.summary.gone = true;
        }
    }
}

impl Default for Coordinator {
    fn default() -> Self {
        Self::new()
    }
}

impl Room {
    fn new(settings: RoomSettings) -> Self {
        Self {
            settings,
            progress: Progress::new(),
            reports: BTreeMap::new(),
        }
    }

    fn hear(&mut self, summary: Summary, now: Time) {
        let report = Report {
            heard: now,
            summary,
        };
        self.reports.insert(report.summary.guard, report);
        if self.reports.len() > RUNS_MAX {
            let quietest = self.reports.iter().min_by_key(|(_, report)| report.heard);
            if let Some(run) = quietest.map(|(run, _)| *run) {
                self.reports.remove(&run);
            }
        }
    }

    fn advance(&mut self, wall: Wall, now: Time) {
        // The clock that words are dated by does not jump when this machine's does.
        let spent = self.progress.word.at;
        self.reports.retain(|_, report| {
            report.summary.gone |= now.since(report.heard) >= LOST;
            !(report.summary.gone && report.summary.is_spent(spent))
        });
        let reports: Vec<Summary> = self.reports.values().map(|r| r.summary.clone()).collect();
        let all = NonZeroU32::MIN;
        self.progress = advance(&self.progress, &self.settings, &reports, all, wall, now);
    }
}

#[cfg(test)]
mod tests;
