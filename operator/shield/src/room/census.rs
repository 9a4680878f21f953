//! How many wait and how many are in, counted without a list of them.
//!
//! Each ticket says when its holder was last counted. Whoever counts them again takes one from where
//! they were and adds one where they are now, maybe at another guard: the counts of one guard have
//! signs, and their sum over all guards is the number of people.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ticket::{Place, Wall, millis};

/// The finest resolution of arrivals: the interval at which guards tell their counts.
pub(super) const WIDTH: u64 = 100;

/// How many cells of arrivals one guard keeps. At the finest this is a queue of 100 s; each time it
/// is full, cells double in width, so that the [`LIFETIME`](crate::ticket::LIFETIME) of places needs
/// cells of 51 s. Told ten times a second it is about 200 kB a second.
pub(super) const MAX_CELLS: usize = 1024;

/// Who has not asked during one whole generation is gone. The longest time between two asks, and a
/// quarter of it for slow phones.
pub(super) const GENERATION: u64 = 75_000;

/// A session ends to within an eighth of its length.
pub(super) const SLICES: u64 = 8;

/// People who came within one cell's time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Who asked last in this generation, in the one before, and in the one before that: the oldest
    /// is over, and kept for those whose clock is not there yet.
    pub asked: [i64; 3],
    /// Who was let in.
    pub claimed: i64,
}

/// Who waits, by arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crowd {
    /// Milliseconds per cell.
    pub width: u64,
    /// The generation that is counted now.
    pub generation: u64,
    /// Cells by the number of widths since 1970.
    pub cells: BTreeMap<u64, Cell>,
}

/// Who is in, by the slice of time of their last request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Milliseconds per slice.
    pub slice: u64,
    /// People by the number of slices since 1970.
    pub counts: BTreeMap<u64, i64>,
}

impl Crowd {
    pub(super) const fn new() -> Self {
        Self {
            width: WIDTH,
            generation: 0,
            cells: BTreeMap::new(),
        }
    }

    /// Turns to the generation of this moment; returns how many have gone without a word.
    pub(super) fn turn(&mut self, wall: Wall, watermark: Place) -> i64 {
        let generation = generation(wall);
        let mut gone = 0;
        // After three turns nothing is left, however long nobody asked.
        for _ in 0..generation.saturating_sub(self.generation).min(3) {
            for cell in self.cells.values_mut() {
                let [now, before, _] = cell.asked;
                gone += before;
                cell.asked = [0, now, before];
            }
        }
        if generation > self.generation {
            self.generation = generation;
            let (width, passed) = (self.width, watermark.arrival.as_millis());
            self.cells.retain(|number, cell| {
                let behind = (number + 1) * width <= passed;
                cell.asked != [0; 3] || (cell.claimed != 0 && !behind)
            });
        }
        if self.cells.is_empty() {
            self.width = WIDTH;
        }
        gone
    }

    /// Somebody came, or came back after having been given up.
    pub(super) fn join(&mut self, place: Place) {
        self.cell(place).asked[0] += 1;
    }

    /// Somebody who was counted at `seen` asks again.
    pub(super) fn ask(&mut self, place: Place, seen: Wall) {
        self.leave(place, seen);
        self.join(place);
    }

    /// Somebody who was counted at `seen` is let in.
    pub(super) fn claim(&mut self, place: Place, seen: Wall) {
        self.leave(place, seen);
        self.cell(place).claimed += 1;
    }

    /// Whether a count at this moment still holds.
    pub(super) fn holds(&self, seen: Wall) -> bool {
        generation(seen) + 1 >= self.generation
    }

    /// Whether a count at this moment is of this generation.
    pub(super) fn is_fresh(&self, seen: Wall) -> bool {
        generation(seen) >= self.generation
    }

    fn leave(&mut self, place: Place, seen: Wall) {
        if self.is_fresh(seen) {
            self.cell(place).asked[0] -= 1;
        } else if self.holds(seen) {
            self.cell(place).asked[1] -= 1;
        }
    }

    fn cell(&mut self, place: Place) -> &mut Cell {
        let arrival = place.arrival.as_millis();
        while self.cells.len() >= MAX_CELLS && !self.cells.contains_key(&(arrival / self.width)) {
            self.widen();
        }
        self.cells.entry(arrival / self.width).or_default()
    }

    fn widen(&mut self) {
        self.width *= 2;
        for (number, cell) in std::mem::take(&mut self.cells) {
            let wide = self.cells.entry(number / 2).or_default();
            for (wide, narrow) in wide.asked.iter_mut().zip(cell.asked) {
                *wide += narrow;
            }
            wide.claimed += cell.claimed;
        }
    }
}

impl Sessions {
    pub(super) fn new(session: Duration) -> Self {
        Self {
            slice: millis(session).div_ceil(SLICES).max(1),
            counts: BTreeMap::new(),
        }
    }

    /// Until when somebody seen now is in, unless seen again.
    pub(super) fn until(&self, wall: Wall) -> Wall {
        Wall::from_millis((self.number(wall) + SLICES + 1) * self.slice)
    }

    /// Which slice a moment is in.
    pub(super) const fn number(&self, wall: Wall) -> u64 {
        wall.as_millis() / self.slice
    }

    /// Somebody comes in.
    pub(super) fn start(&mut self, wall: Wall) {
        *self.counts.entry(self.number(wall)).or_default() += 1;
    }

    /// Somebody who was counted at `seen` is here again.
    pub(super) fn renew(&mut self, seen: Wall, wall: Wall) {
        *self.counts.entry(self.number(seen)).or_default() -= 1;
        self.start(wall);
    }

    /// Forgets the sessions that are over even for those whose clock is a little behind, and those
    /// of a future that a clock has come back from.
    pub(super) fn turn(&mut self, wall: Wall) {
        let number = self.number(wall);
        self.counts
            .retain(|slice, _| (number.saturating_sub(SLICES + 1)..=number + 1).contains(slice));
    }
}

/// Which generation a moment is in.
pub(super) const fn generation(wall: Wall) -> u64 {
    wall.as_millis() / GENERATION
}

/// Spreads a number over 64 bits (the finalizer of splitmix64).
pub(super) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
