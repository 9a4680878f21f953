//! The reports of all guards, added up.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::advance::{LAG, STALE, Summary};
use super::census::{GENERATION, SLICES, Sessions, WIDTH, generation};
use super::signals::Signals;
use super::sound::crowd_max;
use crate::ticket::Wall;

/// What all guards together count.
#[derive(Debug)]
pub(super) struct Standing {
    width: u64,
    cells: BTreeMap<u64, People>,
    /// How many are in, by slices: the length of a slice, its number.
    sessions: BTreeMap<(u64, u64), i64>,
    /// How many are in.
    pub(super) active: u64,
    /// How the last seconds were.
    pub(super) signals: Signals,
    /// Guards that are heard.
    pub(super) heard: u32,
    /// Guards that run, as far as is known.
    pub(super) known: u32,
}

/// People of one cell over all guards.
#[derive(Debug, Clone, Copy, Default)]
struct People {
    waiting: i64,
    claimed: i64,
}

/// People who came one after the other, within milliseconds of which both ends count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) people: u64,
}

impl Summary {
    /// Whether nothing of it counts any more, so that the coordinator may drop it.
    pub fn is_spent(&self, wall: Wall) -> bool {
        let sessions = (SLICES + 2).saturating_mul(self.sessions.slice);
        let kept = Duration::from_millis(sessions.max(3 * GENERATION));
        self.at.after(kept) < wall
    }
}

impl Standing {
    /// `since` is from when on all counts are known: what was counted before may be lost.
    pub(super) fn of(reports: &[Summary], wall: Wall, since: Wall) -> Self {
        let widest = reports.iter().map(|report| report.crowd.width).max();
        let sessions = sessions(reports, wall);
        let mut standing = Self {
            width: widest.unwrap_or(WIDTH).max(1),
            cells: BTreeMap::new(),
            active: active(&sessions, since),
            sessions,
            signals: Signals::default(),
            heard: 0,
            known: 0,
        };
        for report in reports {
            standing.count(report, wall);
        }
        standing
    }

    /// What part of a whole those have who are heard: a guard that is silent has its own.
    pub(super) fn share(&self, whole: u64, part: NonZeroU32) -> u64 {
        let (heard, known) = match self.known {
            0 => (1, 1),
            known => (self.heard, known),
        };
        let share =
            u128::from(whole) * u128::from(heard) / (u128::from(known) * u128::from(part.get()));
        u64::try_from(share).expect("a part is not more than the whole")
    }

    /// Who is in, as far as counted in the slices of these sessions.
    pub(super) fn sessions(&self, mut empty: Sessions) -> Sessions {
        let slice = empty.slice;
        let counts = self.sessions.range((slice, 0)..=(slice, u64::MAX));
        empty.counts = counts
            .map(|((_, number), people)| (*number, *people))
            .collect();
        empty
    }

    /// The people who came after this millisecond, in order.
    pub(super) fn after(&self, admitted: u64) -> impl Iterator<Item = Stretch> + '_ {
        self.cells
            .range(admitted / self.width..)
            .filter_map(move |(number, people)| {
                let (start, last) = (number * self.width, (number + 1) * self.width - 1);
                let first = start.max(admitted + 1);
                let people = match first {
                    first if first > last => 0,
                    first if first == start => people.waiting(),
                    // Of a cell in whose middle the watermark stands, those after it are not let in
                    // yet, and are as many as if all had come evenly.
                    first => (people.originally() * (last - first + 1))
                        .div_ceil(self.width)
                        .min(people.waiting()),
                };
                (people > 0).then_some(Stretch {
                    first,
                    last,
                    people,
                })
            })
    }

    /// How many are admitted and have not come for it yet.
    pub(super) fn unshown(&self, admitted: u64) -> u64 {
        let waiting: u64 = self.cells.values().map(|people| people.waiting()).sum();
        let after: u64 = self.after(admitted).map(|stretch| stretch.people).sum();
        waiting.saturating_sub(after)
    }

    fn count(&mut self, report: &Summary, wall: Wall) {
        let heard = wall.before(STALE) <= report.at;
        if heard {
            self.signals = self.signals + report.signals;
        }
        self.heard += u32::from(heard && !report.gone);
        self.known += u32::from(!report.gone);

        let oldest = generation(wall).saturating_sub(1);
        let crowd = &report.crowd;
        for (number, cell) in &crowd.cells {
            let wide = self.cells.entry(number * crowd.width / self.width);
            let wide = wide.or_default();
            wide.claimed += cell.claimed;
            for (asked, back) in cell.asked.into_iter().zip(0..) {
                if crowd.generation >= oldest + back {
                    wide.waiting += asked;
                }
            }
        }
    }
}

impl People {
    /// Whoever left at a guard that lost count of who came is fewer than nobody. No more than one guard may
    /// tell of a cell, however many tell it: twice a billion people, times the 86 million milliseconds of the
    /// widest cell, are below 2^58.
    fn waiting(self) -> u64 {
        u64::try_from(self.waiting).unwrap_or(0).min(crowd_max())
    }

    fn originally(self) -> u64 {
        let claimed = u64::try_from(self.claimed).unwrap_or(0);
        self.waiting() + claimed.min(crowd_max())
    }
}

impl Stretch {
    pub(super) const fn length(self) -> u64 {
        self.last - self.first + 1
    }

    /// The part of it until the end of a millisecond, if there is one.
    pub(super) fn until(self, last: u64) -> Option<Self> {
        if self.first > last {
            return None;
        }
        let last = last.min(self.last);
        let cut = Self { last, ..self };
        let people = (self.people * cut.length()).div_ceil(self.length());
        Some(Self { people, ..cut })
    }
}

/// The sessions that are not over, also for a guard whose clock is a little behind.
fn sessions(reports: &[Summary], wall: Wall) -> BTreeMap<(u64, u64), i64> {
    let mut slices: BTreeMap<(u64, u64), i64> = BTreeMap::new();
    for sessions in reports.iter().map(|report| &report.sessions) {
        for (number, people) in &sessions.counts {
            if (number + SLICES + 1) * sessions.slice > wall.before(LAG).as_millis() {
                *slices.entry((sessions.slice, *number)).or_default() += people;
            }
        }
    }
    slices
}

/// How many are in.
///
/// Where all counts are known, a slice has fewer than nobody because tickets were shown at several
/// guards: each took one from there, and each added one later. So it is a debt of the later ones. At
/// each guard takings and additions of one ticket come by turns, so that the sum counts the ticket once
/// at most for each guard, and never less than not at all. Where counts were lost, fewer than nobody
/// are people who are counted anew as they return: nothing is owed.
fn active(sessions: &BTreeMap<(u64, u64), i64>, since: Wall) -> u64 {
    let counted = sessions.iter().map(|((slice, number), people)| {
        let is_known = number.saturating_mul(*slice) >= since.as_millis();
        if is_known { *people } else { (*people).max(0) }
    });
    u64::try_from(counted.sum::<i64>()).unwrap_or(0)
}
