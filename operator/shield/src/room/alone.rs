//! What a guard goes by that hears no coordinator: its share of what all counted when the last word
//! was said, and what it has counted itself since.
//!
//! Its own counts alone would not do: citizens roam, and those who came to another guard, or to a
//! former run of this one, are counted there.

use super::advance::{STALE, Summary, Watermark};
use super::census::{Crowd, MAX_CELLS, generation};
use super::signals::Signals;
use crate::Time;
use crate::ticket::{GuardId, Wall};

/// The last word, as it was heard.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) word: Watermark,
    time: Time,
    /// What this guard had counted by then, with the opposite sign.
    told: Option<Summary>,
    /// This guard's share, once it is needed.
    share: Option<Summary>,
}

impl Heard {
    pub(super) fn new(word: Watermark, time: Time, told: Option<Summary>) -> Self {
        Self {
            word,
            time,
            told: told.map(negative),
            share: None,
        }
    }

    /// The coordinator's clock, while the word counts.
    pub(super) fn clock(&self, now: Time) -> Option<Wall> {
        let since = now.since(self.time);
        (since < STALE).then(|| self.word.at.after(since))
    }

    /// Reports that add up to this guard's share.
    pub(super) fn reports(&mut self, own: Summary) -> Vec<Summary> {
        let share = self.share.get_or_insert_with(|| share(&self.word));
        [Some(own), self.told.clone(), Some(share.clone())]
            .into_iter()
            .flatten()
            .collect()
    }
}

fn negative(mut told: Summary) -> Summary {
    for cell in told.crowd.cells.values_mut() {
        cell.asked = cell.asked.map(|people| -people);
        cell.claimed = -cell.claimed;
    }
    for people in told.sessions.counts.values_mut() {
        *people = -*people;
    }
    Summary {
        gone: true,
        signals: Signals::default(),
        ..told
    }
}

fn share(word: &Watermark) -> Summary {
    let part = i64::from(word.guards.get());
    let mut sessions = word.sessions.clone();
    for people in sessions.counts.values_mut() {
        *people /= part;
    }
    Summary {
        guard: GuardId::default(),
        at: word.at,
        gone: true,
        crowd: spread(word),
        sessions,
        signals: Signals::default(),
        arrived: 0,
        admitted: 0,
        refused: 0,
        abandoned: 0,
        epoch: 0,
        heard: word.admitted,
        phase: word.phase,
    }
}

/// The share of those who wait, spread evenly between the points that are known.
fn spread(word: &Watermark) -> Crowd {
    let part = i64::from(word.guards.get());
    let mut crowd = Crowd::new();
    crowd.generation = generation(word.at);
    let mut start = word.admitted.arrival.as_millis() + 1;
    let end = word
        .ahead
        .last()
        .map_or(start, |point| point.until.as_millis());
    while end.saturating_sub(start) / crowd.width >= MAX_CELLS as u64 {
        crowd.width *= 2;
    }
    let mut before = 0;
    for point in &word.ahead {
        let (first, last) = (start / crowd.width, point.until.as_millis() / crowd.width);
        let cells = last.saturating_sub(first) + 1;
        let people = i64::try_from(point.people - before).unwrap_or(i64::MAX);
        let whole = i64::try_from(cells)
            .unwrap_or(i64::MAX)
            .saturating_mul(part);
        // What rounding leaves is carried on, so that it does not add up over the cells.
        let mut left = 0;
        for number in first..=last {
            left += people;
            let cell = crowd.cells.entry(number).or_default();
            cell.asked[0] += left / whole;
            left %= whole;
        }
        start = point.until.as_millis() + 1;
        before = point.people;
    }
    crowd
}
