//! Whether numbers that came over a network can be counted with. Who sends them has proved who they
//! are, so this stops mistakes of another version, not lies.

use super::advance::{Ahead, Summary, Watermark};
use super::census::{Crowd, MAX_CELLS, Sessions, WIDTH};
use super::settings::{LONGEST_SESSION, MOST_USERS};
use crate::ticket::{LIFETIME, Place, Wall, millis};

/// The year 3000: the end of each cell then fits 64 bits.
const LAST: u64 = 32_503_680_000_000;

/// Slices of one guard: eight times those of a session, which leaves room for clocks that are off.
const MAX_SLICES: usize = 64;

/// More points than any version tells.
const MAX_POINTS: usize = 1024;

impl Summary {
    /// Whether a coordinator can count with it.
    pub fn is_sound(&self) -> bool {
        is_moment(self.at)
            && is_place(self.heard)
            && self.crowd.is_sound()
            && self.sessions.is_sound()
    }
}

impl Watermark {
    /// Whether a guard can go by it.
    pub fn is_sound(&self) -> bool {
        let rises =
            |pair: &[Ahead]| pair[0].until <= pair[1].until && pair[0].people <= pair[1].people;
        let last = self.ahead.last();
        is_moment(self.at)
            && is_place(self.admitted)
            && self.sessions.is_sound()
            && self.ahead.len() <= MAX_POINTS
            && self.ahead.windows(2).all(rises)
            && last.is_none_or(|last| is_moment(last.until) && last.people <= crowd_max())
    }
}

impl Crowd {
    fn is_sound(&self) -> bool {
        let fits = |number: &u64| number.checked_mul(self.width).is_some_and(|at| at <= LAST);
        let counts = self.cells.values().flat_map(|cell| {
            let [now, before, last] = cell.asked;
            [now, before, last, cell.claimed]
        });
        // Twice the cells that the lifetime of places needs: the next widening may have come.
        (WIDTH..=2 * millis(LIFETIME)).contains(&self.width)
            && self.cells.len() <= MAX_CELLS
            && self.cells.keys().all(fits)
            && counts.into_iter().all(is_count)
    }
}

impl Sessions {
    fn is_sound(&self) -> bool {
        let fits = |number: &u64| number.checked_mul(self.slice).is_some_and(|at| at <= LAST);
        (1..=millis(LONGEST_SESSION)).contains(&self.slice)
            && self.counts.len() <= MAX_SLICES
            && self.counts.keys().all(fits)
            && self.counts.values().copied().all(is_count)
    }
}

fn is_moment(wall: Wall) -> bool {
    wall.as_millis() <= LAST
}

fn is_place(place: Place) -> bool {
    is_moment(place.arrival)
}

fn is_count(people: i64) -> bool {
    people.unsigned_abs() <= crowd_max()
}

/// Ten arrivals of each citizen that a room can have.
pub(super) const fn crowd_max() -> u64 {
    10 * MOST_USERS
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::Time;
    use crate::room::{OpenWhen, Room, RoomSettings, RoomSpec};
    use crate::ticket::{GuardId, Key, Keys, RoomId};

    const NOW: Wall = Wall::from_millis(1_790_000_000_000);

    fn told() -> (Summary, Watermark) {
        let settings = RoomSettings::try_from(RoomSpec {
            active_users: 1,
            new_per_minute: 60,
            session: Duration::from_mins(5),
            open_when: OpenWhen::default(),
        });
        let one = NonZeroU32::MIN;
        let room = Room::new(RoomId(1), GuardId(1), settings.unwrap(), one, 1);
        let keys = Keys::new(Key::new(1, &[1; 32]), None);
        for _ in 0..9 {
            room.enter(&keys, None, NOW, Time::ZERO);
        }
        let summary = room.tick(NOW, Time::ZERO);
        (summary, room.word())
    }

    #[test]
    fn what_a_room_tells_is_sound() {
        let (summary, word) = told();
        assert!(summary.is_sound() && word.is_sound());
        assert!(!summary.crowd.cells.is_empty() && !word.ahead.is_empty());
    }

    #[test]
    fn a_summary_that_would_divide_by_nothing_or_overflow_is_not_sound() {
        type Change = fn(&mut Summary);
        let changes: [Change; 7] = [
            |summary| summary.crowd.width = 0,
            |summary| summary.sessions.slice = 0,
            |summary| summary.at = Wall::from_millis(u64::MAX),
            |summary| summary.heard.arrival = Wall::from_millis(u64::MAX),
            |summary| {
                summary
                    .crowd
                    .cells
                    .insert(u64::MAX, super::super::Cell::default());
            },
            |summary| {
                summary.sessions.counts.insert(1, i64::MAX);
            },
            |summary| {
                for number in 0..=MAX_CELLS as u64 {
                    summary
                        .crowd
                        .cells
                        .insert(number, super::super::Cell::default());
                }
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let (mut summary, _) = told();
            change(&mut summary);
            assert!(!summary.is_sound(), "change {number}");
        }
    }

    #[test]
    fn a_word_whose_queue_shrinks_towards_its_end_is_not_sound() {
        let (_, mut word) = told();
        let mut next = *word.ahead.last().unwrap();
        next.people -= 1;
        word.ahead.push(next);
        assert!(!word.is_sound());
    }
}
