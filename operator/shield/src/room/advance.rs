//! Who is admitted next: one pure step, run by the coordinator for all guards, or by a guard that
//! hears of none for its share.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::census::{Crowd, Sessions};
use super::clock::Steady;
use super::settings::RoomSettings;
use super::signals::Signals;
use super::standing::Standing;
use crate::Time;
use crate::ticket::{GuardId, Place, SKEW, Wall};
use crate::time::nanos;

/// How long a word or a report counts: ten intervals of 200 ms, so that one lost or late message
/// changes nothing.
pub const STALE: Duration = Duration::from_secs(2);

/// Nobody is admitted sooner after arrival: by then the reports of all guards have the arrivals
/// before, and clocks that are a few hundred milliseconds apart agree on who was first.
pub(super) const LAG: Duration = Duration::from_millis(500);

/// Distress for so long opens the queue: longer than one pause of a garbage collector.
const OPEN_AFTER: Duration = Duration::from_secs(3);

/// An empty queue and good signals for so long close it: twice the longest window in which whoever
/// was told to wait a little is back.
const CLOSE_AFTER: Duration = Duration::from_mins(1);

/// While the service is in distress it gets this part of the newcomers: enough to notice that it
/// recovers, and few enough that it can.
const DISTRESSED: u64 = 4;

/// The most that is made up for after a pause, and so the largest burst: a second of admissions.
const BURST: Duration = Duration::from_secs(1);

/// What one admission costs, in nanoseconds of one admission a minute.
const PERSON: i64 = 60_000_000_000;

/// Words in a millisecond since 1970 that there can have been: a coordinator says 1,333 in a second. What
/// claims more is no epoch. The bound rises faster than honest epochs, so that one that was lied up to it
/// silences nobody.
const EPOCHS: u64 = 2;

/// How many points of the queue guards get to know in order to tell positions: to about 2 % of the
/// queue's length.
const POINTS: usize = 64;

/// Why the queue is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// Too many requests are slow.
    Latency,
    /// Too many requests fail.
    Errors,
    /// As many are in as may be.
    ActiveUsers,
}

/// Whether there is a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Everybody passes.
    #[default]
    Closed,
    /// Newcomers wait in turn.
    Open(Cause),
}

/// What one guard tells of itself every 100 to 200 ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// This run of the guard.
    pub guard: GuardId,
    /// When it was told, by the guard's clock.
    pub at: Wall,
    /// Set by the coordinator when it knows that this run has ended: what the guard counted still
    /// counts, but no share is kept for it.
    pub gone: bool,
    /// Who waits.
    pub crowd: Crowd,
    /// Who is in.
    pub sessions: Sessions,
    /// How the last seconds were.
    pub signals: Signals,
    /// Newcomers since the guard's start.
    pub arrived: u64,
    /// People let in since the guard's start.
    pub admitted: u64,
    /// Tickets refused since the guard's start.
    pub refused: u64,
    /// People who stopped asking, since the guard's start. Only the sum over all guards means
    /// something: one counts who came, another who left.
    pub abandoned: i64,
    /// The epoch of the last word heard; zero before.
    pub epoch: u64,
    /// How far that word admitted.
    pub heard: Place,
    /// The phase that word told.
    pub phase: Phase,
}

/// The coordinator's word to all guards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// Words are in this order; an older one is ignored.
    pub epoch: u64,
    /// Everybody up to here is admitted.
    pub admitted: Place,
    /// Whether there is a queue.
    pub phase: Phase,
    /// When it was said, by the coordinator's clock.
    pub at: Wall,
    /// By how many guards a guard that hears nothing more divides.
    pub guards: NonZeroU32,
    /// How many are in.
    pub active: u64,
    /// How many wait.
    pub waiting: u64,
    /// How many newcomers each guard may let in without a queue until the next word.
    pub quota: u64,
    /// Who is in, so that a guard that hears nothing more knows its share of them.
    pub sessions: Sessions,
    /// How many of those waiting came until when.
    pub ahead: Vec<Ahead>,
}

/// A point of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// Until the end of this millisecond
    pub until: Wall,
    /// so many of those waiting came.
    pub people: u64,
}

/// What is remembered from one step to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The last word.
    pub word: Watermark,
    clock: Steady,
    /// From when on all counts of sessions of this length are known.
    since: Wall,
    /// Admissions not yet used, or used in advance if negative; in parts of a [`PERSON`].
    credit: i64,
    /// The most credit there can be.
    burst: i64,
    at: Option<Time>,
    distressed: Option<Time>,
    calm: Option<Time>,
}

impl Progress {
    /// Before anything is known.
    pub fn new() -> Self {
        Self {
            word: Watermark {
                epoch: 0,
                admitted: Place::default(),
                phase: Phase::Closed,
                at: Wall::default(),
                guards: NonZeroU32::MIN,
                active: 0,
                waiting: 0,
                quota: 0,
                sessions: Sessions {
                    slice: 1,
                    counts: BTreeMap::new(),
                },
                ahead: Vec::new(),
            },
            clock: Steady::default(),
            since: Wall::default(),
            credit: 0,
            burst: 0,
            at: None,
            distressed: None,
            calm: None,
        }
    }

    /// Takes up where another one stopped, as a guard heard it. What cannot have been said counts for
    /// nothing: nobody was ever admitted before they came.
    fn follow(&mut self, report: &Summary, wall: Wall) {
        let most = wall.as_millis().saturating_mul(EPOCHS);
        if !(self.word.epoch.saturating_add(1)..=most).contains(&report.epoch) {
            return;
        }
        self.word.epoch = report.epoch;
        self.word.phase = report.phase;
        if report.heard.arrival <= wall.after(SKEW) {
            self.word.admitted = self.word.admitted.max(report.heard);
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Moves the watermark as far as `newPerMinute` and `activeUsers` allow, and opens or closes the
/// queue.
///
/// `reports` has the last summary of each run of a guard, also of those that ended, until
/// [`Summary::is_spent`]. `part` is 1 for the coordinator; a guard on its own gives the number of
/// guards it shares with. The watermark never goes back.
#[must_use]
pub fn advance(
    progress: &Progress,
    settings: &RoomSettings,
    reports: &[Summary],
    part: NonZeroU32,
    wall: Wall,
    now: Time,
) -> Progress {
    let mut next = progress.clone();
    let anchor = median(reports).filter(|_| !next.clock.is_anchored());
    let wall = next.clock.read(wall, anchor, now);
    for report in reports {
        next.follow(report, wall);
    }
    let sessions = Sessions::new(settings.session());
    if next.word.sessions.slice != sessions.slice {
        // The first step, or the first with sessions of this length.
        next.since = wall;
    }
    // A guard on its own has a share of what others counted, which is a guess.
    let is_whole = part == NonZeroU32::MIN;
    let since = if is_whole { next.since } else { wall };
    let standing = Standing::of(reports, wall, since);
    let limit = standing.share(settings.active_users(), part).max(1);
    let distress = standing.signals.distress(settings.open_when());

    // Free slots that cannot be shared out are none.
    let free = limit.saturating_sub(standing.active);
    next.open(distress, free < u64::from(standing.heard.max(1)), now);
    next.earn(settings, &standing, part, distress.is_some(), now);
    let queue = Queue {
        standing: &standing,
        limit,
        until: wall.before(LAG).as_millis(),
    };
    let drained = match next.word.phase {
        Phase::Open(_) => queue.admit(&mut next),
        Phase::Closed => false,
    };
    let roomy = standing.active.saturating_mul(10) < limit.saturating_mul(9);
    let calm = standing.signals.is_calm(settings.open_when());
    next.close(drained && roomy && calm, now);
    next.word.sessions = standing.sessions(sessions);
    next.tell(&queue, part, wall);
    next
}

impl Progress {
    fn open(&mut self, distress: Option<Cause>, full: bool, now: Time) {
        self.distressed = distress.map(|_| self.distressed.unwrap_or(now));
        let lasting = self
            .distressed
            .is_some_and(|since| now.since(since) >= OPEN_AFTER);
        if self.word.phase == Phase::Closed {
            let full = full.then_some(Cause::ActiveUsers);
            if let Some(cause) = distress.filter(|_| lasting).or(full) {
                self.word.phase = Phase::Open(cause);
                self.credit = 0;
            }
        }
    }

    fn close(&mut self, good: bool, now: Time) {
        self.calm = good.then(|| self.calm.unwrap_or(now));
        if self
            .calm
            .is_some_and(|since| now.since(since) >= CLOSE_AFTER)
        {
            self.word.phase = Phase::Closed;
            self.calm = None;
        }
    }

    /// Credits the time since the last step, or [`BURST`] if that was a pause.
    fn earn(
        &mut self,
        settings: &RoomSettings,
        standing: &Standing,
        part: NonZeroU32,
        distressed: bool,
        now: Time,
    ) {
        let passed = self.at.map_or(0, |at| nanos(now.since(at)));
        let slower = if distressed { DISTRESSED } else { 1 };
        let earned = |span: u64| {
            let whole = settings.new_per_minute().saturating_mul(span) / slower;
            i64::try_from(standing.share(whole, part)).unwrap_or(i64::MAX)
        };
        self.burst = earned(nanos(BURST)).max(PERSON);
        let earned = earned(passed.min(nanos(BURST)));
        self.credit = self.credit.saturating_add(earned).min(self.burst);
        self.at = self.at.max(Some(now));
    }

    fn tell(&mut self, queue: &Queue<'_>, part: NonZeroU32, wall: Wall) {
        let (standing, limit) = (queue.standing, queue.limit);
        let admitted = self.word.admitted.arrival.as_millis();
        let people = u64::from(part.get());
        let mut waiting = 0;
        let mut ahead: Vec<Ahead> = standing
            .after(admitted)
            .map(|stretch| {
                waiting = stretch
                    .people
                    .saturating_mul(people)
                    .saturating_add(waiting);
                let until = Wall::from_millis(stretch.last);
                Ahead {
                    until,
                    people: waiting,
                }
            })
            .collect();
        thin(&mut ahead);
        let held = standing.active + standing.unshown(admitted);
        self.word.epoch = self.word.epoch.saturating_add(1);
        self.word.at = wall;
        let guards = part.get().saturating_mul(standing.known.max(1));
        self.word.guards = NonZeroU32::new(guards).unwrap_or(part);
        self.word.active = standing.active.saturating_mul(people);
        self.word.waiting = waiting;
        self.word.quota = limit.saturating_sub(held) / u64::from(standing.heard.max(1));
        self.word.ahead = ahead;
    }
}

/// Who waits, and how far they may be admitted.
struct Queue<'a> {
    standing: &'a Standing,
    /// How many may be in.
    limit: u64,
    /// Arrivals after this millisecond are not known for sure yet.
    until: u64,
}

impl Queue<'_> {
    /// Admits whom credit and free slots allow; says whether nobody is left who could be.
    fn admit(&self, progress: &mut Progress) -> bool {
        let mut admitted = progress.word.admitted.arrival.as_millis();
        let held = self.standing.active + self.standing.unshown(admitted);
        let mut free = self.limit.saturating_sub(held);
        for stretch in self.standing.after(admitted) {
            let Some(stretch) = stretch.until(self.until) else {
                break;
            };
            let credit = u64::try_from(progress.credit / PERSON).unwrap_or(0);
            let allowed = credit.min(free);
            let length = stretch.length();
            let mut step = if stretch.people <= allowed {
                length
            } else {
                length * allowed / stretch.people
            };
            // More people than may come at once can have come in one millisecond. They are admitted
            // together, and in advance, when no more credit or room can be had by waiting.
            let crowd = stretch.people.div_ceil(length);
            let burst = u64::try_from(progress.burst / PERSON).unwrap_or(0);
            if step == 0 && credit >= crowd.min(burst) && free >= crowd.min(self.limit) {
                step = 1;
            }
            let people = (stretch.people * step).div_ceil(length);
            let price = i64::try_from(people)
                .unwrap_or(i64::MAX)
                .saturating_mul(PERSON);
            progress.credit = progress.credit.saturating_sub(price);
            free = free.saturating_sub(people);
            admitted = stretch.first + step - 1;
            if step < length {
                progress.raise(admitted);
                return false;
            }
        }
        // The rest came too recently; where nobody is counted nobody is overtaken.
        let first = self.standing.after(admitted).next();
        let empty = first.map_or(self.until, |stretch| self.until.min(stretch.first - 1));
        progress.raise(admitted.max(empty));
        true
    }
}

impl Progress {
    fn raise(&mut self, admitted: u64) {
        let place = Place::end_of(Wall::from_millis(admitted));
        self.word.admitted = self.word.admitted.max(place);
    }
}

/// The clock of the crowd: the one in the middle.
fn median(reports: &[Summary]) -> Option<Wall> {
    let mut clocks: Vec<Wall> = reports
        .iter()
        .filter(|report| !report.gone)
        .map(|report| report.at)
        .collect();
    clocks.sort_unstable();
    clocks.get(clocks.len() / 2).copied()
}

/// Keeps [`POINTS`] points, the last among them.
fn thin(ahead: &mut Vec<Ahead>) {
    let (length, every) = (ahead.len(), ahead.len().div_ceil(POINTS).max(1));
    let mut left = length;
    ahead.retain(|_| {
        left -= 1;
        left.is_multiple_of(every)
    });
}
