//! What of a room goes on when the configuration changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shield::Time;
use shield::room::{Phase, RoomSettings, Signals, Summary, Watermark};
use shield::ticket::Wall;

use super::pace::Pace;
use super::standing::LastMinute;

/// How long signals are added up before the room is told.
const SECOND: Duration = Duration::from_secs(1);

/// After a pause the room is told of as many seconds: as many as it judges together.
const SECONDS_MAX: u64 = 5;

/// A room at this guard.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) room: shield::room::Room,
    requests: AtomicU64,
    errors: AtomicU64,
    slow: AtomicU64,
    /// How often somebody was told to wait.
    refused: AtomicU64,
    beats: Mutex<Beats>,
}

/// What is done between requests.
#[derive(Debug)]
struct Beats {
    settings: RoomSettings,
    second: Option<Time>,
    pace: Pace,
    admitted: LastMinute,
}

impl Live {
    pub(super) fn new(room: shield::room::Room, settings: RoomSettings) -> Self {
        Self {
            room,
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            beats: Mutex::new(Beats {
                settings,
                second: None,
                pace: Pace::default(),
                admitted: LastMinute::default(),
            }),
        }
    }

    /// Notes how a request of this second ended.
    pub(super) fn observe(&self, is_error: bool, is_slow: bool) {
        // Counts that a second boundary parts are in the next second: nothing hangs on their order.
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.errors
            .fetch_add(u64::from(is_error), Ordering::Relaxed);
        self.slow.fetch_add(u64::from(is_slow), Ordering::Relaxed);
    }

    /// Brings the room to this moment, under these settings.
    pub(super) fn beat(&self, settings: &RoomSettings, wall: Wall, now: Time) -> Summary {
        let mut beats = self.beats();
        if beats.settings != *settings {
            beats.settings = settings.clone();
            self.room.adopt(settings.clone());
        }
        let since = *beats.second.get_or_insert(now);
        let seconds = now.since(since).as_secs();
        if seconds > 0 {
            beats.second = Some(
                since.after(SECOND.saturating_mul(u32::try_from(seconds).unwrap_or(u32::MAX))),
            );
            self.room.observe(self.take());
            for _ in 1..seconds.min(SECONDS_MAX) {
                self.room.observe(Signals::default());
            }
        }
        let summary = self.room.tick(wall, now);
        let word = self.room.word();
        let is_open = word.phase != Phase::Closed;
        let everywhere = summary.admitted.saturating_mul(word.guards.get().into());
        beats.pace.note(is_open, everywhere, now);
        beats.admitted.note(summary.admitted, now);
        summary
    }

    /// Notes that somebody was told to wait.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How often somebody was told to wait.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many this guard let in within the last minute.
    pub(super) fn admitted_in_last_minute(&self) -> u64 {
        self.beats().admitted.count()
    }

    /// Takes the coordinator's word, unless no guard can go by it.
    pub(super) fn hear(&self, word: &Watermark, now: Time) {
        if word.is_sound() {
            self.room.hear(word, now);
        }
    }

    /// In how many seconds it is the turn of a position, as far as can be told.
    pub(super) fn estimate(&self, position: u64, settings: &RoomSettings) -> Option<u64> {
        self.beats()
            .pace
            .estimate(position, settings.new_per_minute())
    }

    fn take(&self) -> Signals {
        Signals {
            requests: self.requests.swap(0, Ordering::Relaxed),
            errors: self.errors.swap(0, Ordering::Relaxed),
            slow: self.slow.swap(0, Ordering::Relaxed),
        }
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        // Each field is right after each statement, so a panic elsewhere leaves nothing half done.
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
