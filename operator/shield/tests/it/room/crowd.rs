//! Citizens who come, ask again when told, stay a while and leave.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that uses it"
)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shield::room::Verdict;

use super::fleet::{Dice, Fleet, TICK};

/// Who has been in, and what went wrong with whom.
#[derive(Default)]
pub(super) struct Crowd {
    pub(super) citizens: Vec<Citizen>,
    /// Who does something at which tick.
    calendar: BTreeMap<u128, Vec<usize>>,
    /// When people were let in: moment and how many.
    admissions: VecDeque<(Duration, u64)>,
    pub(super) most_in_a_minute: u64,
    /// How long somebody was let in before another who came this much earlier could be.
    pub(super) blur: Duration,
    pub(super) most_active: u64,
    /// How many were told a worse position than before.
    pub(super) set_back: u64,
    pub(super) inside: u64,
    pub(super) passed_at_once: u64,
}

#[derive(Default)]
pub(super) struct Citizen {
    ticket: Option<String>,
    came: Duration,
    pub(super) entered: Option<Duration>,
    seen: Duration,
    position: Option<u64>,
    visits: u8,
    /// How often they ask before they give up.
    patience: u32,
}

impl Crowd {
    /// So many people come now, and ask at most so often.
    pub(super) fn come(&mut self, fleet: &Fleet, people: usize, patience: u32) {
        for _ in 0..people {
            let id = self.citizens.len();
            self.citizens.push(Citizen {
                came: fleet.elapsed,
                patience,
                ..Citizen::default()
            });
            self.plan(id, fleet.elapsed);
        }
    }

    fn plan(&mut self, id: usize, at: Duration) {
        let tick = at.as_nanos().div_ceil(TICK.as_nanos());
        self.calendar.entry(tick).or_default().push(id);
    }

    /// Everybody does what they have to do in this tick, and then it passes.
    pub(super) fn tick(&mut self, fleet: &mut Fleet, dice: &mut Dice) {
        let tick = fleet.elapsed.as_nanos() / TICK.as_nanos();
        let mut later = self.calendar.split_off(&(tick + 1));
        std::mem::swap(&mut later, &mut self.calendar);
        let mut entered = 0;
        for id in later.into_values().flatten() {
            entered += u64::from(self.act(id, fleet, dice));
        }
        self.admissions.push_back((fleet.elapsed, entered));
        while self.admissions[0].0 + Duration::from_mins(1) <= fleet.elapsed {
            self.admissions.pop_front();
        }
        let minute = self.admissions.iter().map(|(_, people)| people).sum();
        self.most_in_a_minute = self.most_in_a_minute.max(minute);
        fleet.tick();
    }

    /// One request; says whether it is the one that lets its sender in.
    fn act(&mut self, id: usize, fleet: &Fleet, dice: &mut Dice) -> bool {
        let citizen = &mut self.citizens[id];
        let guard = dice.index(fleet.guards.len());
        let entry = fleet.enter(guard, citizen.ticket.as_deref());
        match entry.verdict {
            Verdict::Pass { ticket } => {
                let waited = citizen.position.is_some();
                citizen.ticket = ticket.or(citizen.ticket.take());
                let first = citizen.entered.is_none();
                citizen.entered.get_or_insert(fleet.elapsed);
                citizen.seen = fleet.elapsed;
                citizen.visits += 1;
                let again = citizen.visits < 3;
                if first {
                    self.inside += 1;
                    self.passed_at_once += u64::from(!waited);
                }
                if first && waited {
                    self.note_order(id, fleet);
                }
                if again {
                    let pause = Duration::from_millis(5000 + dice.below(10_000));
                    self.plan(id, fleet.elapsed + pause);
                }
                first && waited
            }
            Verdict::Wait {
                ticket,
                position,
                retry_after,
                watermark: _,
            } => {
                assert!((Duration::from_secs(5)..=Duration::from_mins(1)).contains(&retry_after));
                let worse = citizen.position.is_some_and(|before| before < position);
                self.set_back += u64::from(worse);
                citizen.position = Some(position);
                citizen.ticket = Some(ticket);
                citizen.patience -= 1;
                if citizen.patience > 0 {
                    let late = Duration::from_millis(dice.below(1000));
                    self.plan(id, fleet.elapsed + retry_after + late);
                }
                false
            }
        }
    }

    /// How far the guard that admits least is behind somebody who is let in.
    fn note_order(&mut self, id: usize, fleet: &Fleet) {
        let came = super::fleet::START.after(self.citizens[id].came);
        let rooms = fleet.guards.iter().map(|guard| guard.room.word());
        let behind = rooms.map(|word| came.since(word.admitted.arrival)).max();
        self.blur = self.blur.max(behind.unwrap());
    }

    /// How many are in: asked within a session.
    pub(super) fn active(&mut self, fleet: &Fleet) -> u64 {
        let session = fleet.settings.session();
        let active = |citizen: &&Citizen| {
            citizen.entered.is_some() && citizen.seen + session > fleet.elapsed
        };
        let active = self.citizens.iter().filter(active).count() as u64;
        self.most_active = self.most_active.max(active);
        active
    }
}
