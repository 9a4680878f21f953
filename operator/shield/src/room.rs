//! A waiting room over all guards of a scope: citizens queue in the order in which they came.
//!
//! Each guard has a [`Room`] and decides alone, within the last [`Watermark`] it heard. A
//! coordinator gathers a [`Summary`] from each and answers with the next watermark, which
//! [`advance`] finds. Who waits is remembered by their tickets; guards only count. Approximate are
//! therefore: the number of those who are in (to an eighth of a session, and a browser that asks
//! several guards at once counts several times), the number of those waiting (who left is noticed
//! after 75 to 150 s), and positions (to about 2 % of the queue). The order is exact.

mod advance;
mod alone;
mod census;
mod clock;
mod counting;
mod memory;
mod settings;
mod signals;
mod sound;
mod standing;

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use advance::{Ahead, Cause, Phase, Progress, STALE, Summary, Watermark, advance};
pub use census::{Cell, Crowd, Sessions};
pub use settings::{
    LONGEST_SESSION, MOST_USERS, OpenWhen, RoomSettings, RoomSpec, SHORTEST_SESSION, SettingsError,
};
pub use signals::Signals;

use crate::Time;
use crate::ticket::{GuardId, Keys, Kind, Place, Refusal, RoomId, Ticket, Wall};
use alone::Heard;
use census::mix;
use clock::Steady;
use memory::{Memory, SLOTS_MIN, secret, slots};
use signals::Window;

/// Nobody is asked to come back sooner: a crowd of a million then costs 200 000 refusals a second
/// at worst, and on the way to the head of the queue a fifth of it.
pub const SHORTEST_WAIT: Duration = Duration::from_secs(5);

/// Nobody is asked to come back later: who waits is gone if not seen for a
/// generation of 75 s, which is a quarter longer.
pub const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Who waits asks about four times before their turn.
const ASKS: u64 = 4;

/// One guard's side of a waiting room.
#[derive(Debug)]
pub struct Room {
    id: RoomId,
    guard: GuardId,
    seed: u64,
    state: Mutex<State>,
}

/// What a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whether it passes.
    pub verdict: Verdict,
    /// Why the ticket it came with counted for nothing, if it came with one.
    pub refused: Option<Refusal>,
}

/// Whether a request passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Pass {
        /// The ticket to give to the citizen, if it is a new one.
        ticket: Option<String>,
    },
    /// Its sender has to come back.
    Wait {
        /// The ticket to give to the citizen, who has this place from now on.
        ticket: String,
        /// About how many come before, this one included.
        position: u64,
        /// When to ask again.
        retry_after: Duration,
        /// Who came until then is admitted.
        watermark: Wall,
    },
}

#[derive(Debug)]
struct State {
    settings: RoomSettings,
    clock: Steady,
    crowd: census::Crowd,
    sessions: census::Sessions,
    /// When those who are in were counted here last.
    inside: Memory,
    /// When those who wait were counted here last.
    asked: Memory,
    window: Window,
    serial: u32,
    arrived: u64,
    admitted: u64,
    refused: u64,
    abandoned: i64,
    /// The last word heard, or said to itself.
    word: Watermark,
    /// The last word heard.
    heard: Option<Heard>,
    /// The last summary while the coordinator is heard.
    told: Option<Summary>,
    /// The steps of this guard while it hears nothing.
    alone: Progress,
    /// Newcomers let in without a queue since the last word, and between the two before it: those
    /// may have come after the reports that the last word is based on.
    let_in: [u64; 2],
    /// Newcomers who wait since the last word and, before it, since the word before, for the same reason.
    joined: [u64; 2],
}

/// What the state decides, before a ticket is signed.
enum Outcome {
    Stay,
    Enter(Ticket),
    Wait(Ticket, u64),
}

impl Room {
    /// A closed room at one of so many guards.
    ///
    /// `guard` is an id of this run: a guard that starts again takes another one. `guards` is how
    /// many share the scope, which counts until the first word is heard. `seed` spreads the times
    /// at which citizens come back and keeps tickets apart; it is a secret, drawn by the caller.
    pub fn new(
        id: RoomId,
        guard: GuardId,
        settings: RoomSettings,
        guards: NonZeroU32,
        seed: u64,
    ) -> Self {
        let mut alone = Progress::new();
        alone.word.guards = guards;
        let state = State {
            clock: Steady::default(),
            crowd: Crowd::new(),
            sessions: Sessions::new(settings.session()),
            inside: Memory::new(slots(settings.active_users()), secret(seed)),
            asked: Memory::new(SLOTS_MIN, secret(seed)),
            window: Window::default(),
            serial: 0,
            arrived: 0,
            admitted: 0,
            refused: 0,
            abandoned: 0,
            word: Watermark {
                // Until the first step the limit is that of a guard alone.
                quota: settings.active_users() / u64::from(guards.get()),
                ..alone.word.clone()
            },
            heard: None,
            told: None,
            alone,
            let_in: [0; 2],
            joined: [0; 2],
            settings,
        };
        Self {
            id,
            guard,
            // What is told by it does not give the secret away.
            seed: secret(seed).hash(["when to come back"]).as_u64(),
            state: Mutex::new(state),
        }
    }

    /// Decides whether a request passes, by the ticket it carries.
    ///
    /// No signature is computed while others wait for the state.
    pub fn enter(&self, keys: &Keys, ticket: Option<&str>, wall: Wall, now: Time) -> Entry {
        let ticket = ticket.map(|text| keys.verify(text)).transpose();
        let mut state = self.lock();
        let wall = state.turn(wall, now);
        let ticket = ticket.and_then(|ticket| {
            ticket
                .map(|ticket| state.check(ticket, self.id, wall))
                .transpose()
        });
        let (outcome, refused) = match ticket {
            Ok(Some(ticket)) => (state.answer(ticket, wall), None),
            Ok(None) => (self.welcome(&mut state, wall), None),
            Err(refusal) => {
                state.refused += 1;
                (self.welcome(&mut state, wall), Some(refusal))
            }
        };
        let watermark = state.word.admitted.arrival;
        let rate = state.settings.new_per_minute();
        drop(state);
        let verdict = match outcome {
            Outcome::Stay => Verdict::Pass { ticket: None },
            Outcome::Enter(ticket) => Verdict::Pass {
                ticket: Some(keys.write(&ticket)),
            },
            Outcome::Wait(ticket, position) => Verdict::Wait {
                ticket: keys.write(&ticket),
                position,
                retry_after: retry_after(position, rate, mix_place(&ticket) ^ self.seed),
                watermark,
            },
        };
        Entry { verdict, refused }
    }

    /// Notes what became of the requests of one second. To be told each second, also if there were
    /// none.
    pub fn observe(&self, second: Signals) {
        self.lock().window.push(second);
    }

    /// Takes the coordinator's word; says whether it was new.
    pub fn hear(&self, word: &Watermark, now: Time) -> bool {
        let mut state = self.lock();
        let epoch = state.heard.as_ref().map_or(0, |heard| heard.word.epoch);
        if epoch >= word.epoch {
            return false;
        }
        let told = state.told.clone();
        state.heard = Some(Heard::new(word.clone(), now, told));
        state.take(word.clone());
        state.alone.word = state.word.clone();
        true
    }

    /// Sums up what the coordinator wants to know. To be called every 100 to 200 ms, also without a
    /// coordinator: a guard that hears of none for [`STALE`] advances its share by itself.
    pub fn tick(&self, wall: Wall, now: Time) -> Summary {
        let mut state = self.lock();
        let wall = state.turn(wall, now);
        let summary = state.sum_up(self.guard, wall);
        if state.anchor(now).is_none() {
            let part = state.word.guards;
            let reports = match &mut state.heard {
                Some(heard) => heard.reports(summary.clone()),
                None => vec![summary.clone()],
            };
            state.alone = advance(&state.alone, &state.settings, &reports, part, wall, now);
            let word = state.alone.word.clone();
            state.take(word);
        } else {
            state.told = Some(summary.clone());
        }
        summary
    }

    /// Goes on under other settings. If sessions have another length, those who are in are counted
    /// anew as they return.
    pub fn adopt(&self, settings: RoomSettings) {
        let mut state = self.lock();
        if settings.session() != state.settings.session() {
            state.sessions = Sessions::new(settings.session());
        }
        let wanted = slots(settings.active_users());
        if wanted != slots(state.settings.active_users()) {
            state.inside = state.inside.emptied(wanted);
        }
        state.settings = settings;
    }

    /// The last word heard, or what this guard told itself.
    pub fn word(&self) -> Watermark {
        self.lock().word.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counts are right after each statement, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a newcomer in, or gives them the last place.
    fn welcome(&self, state: &mut State, wall: Wall) -> Outcome {
        state.arrived += 1;
        state.serial = state.serial.wrapping_add(1);
        // Whoever comes now is not admitted already, whatever a clock that lags says.
        let after = state.word.admitted.arrival.after(Duration::from_millis(1));
        let ticket = Ticket {
            room: self.id,
            place: Place {
                arrival: wall.max(after),
                guard: self.guard,
                serial: state.serial,
            },
            seen: wall,
            kind: Kind::Waiting { position: u32::MAX },
        };
        if state.has_quota() {
            return state.let_in(ticket, wall);
        }
        state.crowd.join(ticket.place);
        state.joined[0] += 1;
        state.wait(ticket, u32::MAX, wall)
    }
}

impl State {
    /// Brings clock and counts to this moment.
    fn turn(&mut self, wall: Wall, now: Time) -> Wall {
        let anchor = self.anchor(now);
        let wall = self.clock.read(wall, anchor, now);
        self.abandoned += self.crowd.turn(wall, self.word.admitted);
        self.sessions.turn(wall);
        wall
    }

    /// The coordinator's clock, while it is heard.
    fn anchor(&self, now: Time) -> Option<Wall> {
        self.heard.as_ref()?.clock(now)
    }

    fn check(&self, ticket: Ticket, room: RoomId, wall: Wall) -> Result<Ticket, Refusal> {
        let ticket = ticket.check(room, wall)?;
        match ticket.kind {
            Kind::Admitted { until: _ } if self.sessions.until(ticket.seen) <= wall => {
                Err(Refusal::Expired)
            }
            // A slot is kept as long as its holder may be on the way, and is then another's.
            Kind::Waiting { position: _ }
                if self.is_open()
                    && ticket.place <= self.word.admitted
                    && !self.crowd.holds(ticket.seen) =>
            {
                Err(Refusal::Lapsed)
            }
            Kind::Waiting { position: _ } | Kind::Admitted { until: _ } => Ok(ticket),
        }
    }

    fn answer(&mut self, ticket: Ticket, wall: Wall) -> Outcome {
        match ticket.kind {
            Kind::Admitted { until: _ } => self.renew(ticket, wall),
            // Who was given up is no more than a newcomer: else who kept old tickets brought them all
            // at once to a room that has closed.
            Kind::Waiting { position: _ }
                if ticket.place <= self.word.admitted && self.crowd.holds(ticket.seen) =>
            {
                self.claim(ticket, wall)
            }
            Kind::Waiting { position: _ } if self.has_quota() => {
                let before = self.admitted;
                let outcome = self.claim(ticket, wall);
                // A ticket that is shown again lets nobody else in.
                self.let_in[0] += self.admitted - before;
                outcome
            }
            Kind::Waiting { position } => self.ask(ticket, position, wall),
        }
    }

    fn enter(&self, ticket: Ticket, wall: Wall) -> Outcome {
        let until = self.sessions.until(wall);
        Outcome::Enter(Ticket {
            seen: wall,
            kind: Kind::Admitted { until },
            ..ticket
        })
    }

    fn wait(&self, ticket: Ticket, shown: u32, wall: Wall) -> Outcome {
        let position = self.position(ticket.place, shown);
        Outcome::Wait(
            Ticket {
                seen: wall,
                kind: Kind::Waiting { position },
                ..ticket
            },
            u64::from(position),
        )
    }

    /// About how many come before and including a place. It is not more than was shown before,
    /// unless that has turned out to be far too good: then the truth is better than comfort.
    fn position(&self, place: Place, shown: u32) -> u32 {
        let mut before = Ahead {
            until: self.word.admitted.arrival,
            people: 0,
        };
        let mut people = None;
        for point in &self.word.ahead {
            if place.arrival <= point.until {
                let whole = point.until.since(before.until).as_millis().max(1);
                let part = place.arrival.since(before.until).as_millis();
                let between = u128::from(point.people - before.people) * part / whole;
                people = Some(before.people + u64::try_from(between).unwrap_or(0));
                break;
            }
            before = *point;
        }
        let guards = u64::from(self.word.guards.get());
        let joined: u64 = self.joined.iter().sum();
        let people = people.unwrap_or(before.people + joined * guards).max(1);
        let people = u32::try_from(people).unwrap_or(u32::MAX);
        let believed = shown.saturating_add(shown / 4).saturating_add(100);
        if people <= believed {
            people.min(shown)
        } else {
            people
        }
    }

    fn is_open(&self) -> bool {
        self.word.phase != Phase::Closed
    }

    /// Whether one more may pass without queueing. If not, there is a queue at this guard before
    /// the coordinator knows.
    fn has_quota(&self) -> bool {
        !self.is_open() && self.let_in[0] + self.let_in[1] < self.word.quota
    }

    /// The watermark never goes back, not even to where the coordinator still is.
    fn take(&mut self, word: Watermark) {
        let admitted = word.admitted.max(self.word.admitted);
        self.word = Watermark { admitted, ..word };
        self.let_in = [0, self.let_in[0]];
        self.joined = [0, self.joined[0]];
    }

    fn sum_up(&self, guard: GuardId, at: Wall) -> Summary {
        let heard = self.heard.as_ref().map(|heard| &heard.word);
        let (epoch, heard, phase) = heard.map_or_else(Default::default, |word| {
            (word.epoch, word.admitted, word.phase)
        });
        Summary {
            guard,
            at,
            gone: false,
            crowd: self.crowd.clone(),
            sessions: self.sessions.clone(),
            signals: self.window.sum(),
            arrived: self.arrived,
            admitted: self.admitted,
            refused: self.refused,
            abandoned: self.abandoned,
            epoch,
            heard,
            phase,
        }
    }
}

/// A part of the time until one's turn, spread over a fifth so that those who came together do not
/// come back together.
fn retry_after(position: u64, per_minute: u64, lot: u64) -> Duration {
    let shortest = SHORTEST_WAIT.as_secs() * 1000;
    let longest = LONGEST_WAIT.as_secs() * 1000;
    let turn = position.saturating_mul(60_000) / per_minute;
    let base = (turn / ASKS).clamp(shortest, longest * 5 / 6);
    Duration::from_millis(base + base / 5 * (mix(lot) % 1000) / 1000)
}

fn mix_place(ticket: &Ticket) -> u64 {
    let id = u64::from(ticket.place.guard.0) << 32 | u64::from(ticket.place.serial);
    mix(id ^ mix(ticket.seen.as_millis()))
}
