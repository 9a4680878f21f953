//! Who shows a ticket is counted once, however often and in whatever order tickets are shown.
//!
//! At one guard the counts of one ticket follow one another: each takes back the one before, as long as
//! the [memory](super::memory) reaches. So a ticket counts once at most for each guard, and a guard
//! that has not seen it yet takes it from where it says.

use super::{Outcome, State};
use crate::ticket::{Ticket, Wall};

impl State {
    /// Somebody who is in is here again.
    pub(super) fn renew(&mut self, ticket: Ticket, wall: Wall) -> Outcome {
        let slice = self.sessions.number(wall);
        if self.sessions.number(ticket.seen) >= slice {
            return Outcome::Stay;
        }
        let counted = self.sessions.number(ticket.seen);
        let last = self.inside.seen(ticket.place);
        // A clock that has come back from the future says nothing.
        let last = last.filter(|last| *last <= wall && self.sessions.number(*last) > counted);
        if let Some(last) = last {
            // The ticket that was given for this one, once more: whoever shows an old one again and
            // again is one person, counted where the newest one says.
            return self.enter(ticket, last);
        }
        self.sessions.renew(ticket.seen, wall);
        self.inside.note(ticket.place, wall);
        self.enter(ticket, wall)
    }

    /// Somebody who waited is let in.
    pub(super) fn claim(&mut self, ticket: Ticket, wall: Wall) -> Outcome {
        let last = self.inside.seen(ticket.place);
        if let Some(last) = last.filter(|last| self.sessions.until(*last) > wall) {
            // The ticket that they waited with, once more: they are in already.
            if self.sessions.number(last) < self.sessions.number(wall) {
                self.sessions.renew(last, wall);
                self.inside.note(ticket.place, wall);
            }
            return self.enter(ticket, wall);
        }
        if last.is_none() {
            let asked = self.last_asked(&ticket, wall);
            self.crowd.claim(ticket.place, asked);
        }
        self.sessions.start(wall);
        self.inside.note(ticket.place, wall);
        self.admitted += 1;
        self.enter(ticket, wall)
    }

    /// Somebody waits on.
    pub(super) fn ask(&mut self, ticket: Ticket, position: u32, wall: Wall) -> Outcome {
        let seen = self.last_asked(&ticket, wall);
        if !self.crowd.is_fresh(seen) {
            self.crowd.ask(ticket.place, seen);
            self.asked.note(ticket.place, wall);
        }
        self.wait(ticket, position, wall)
    }

    /// When somebody who waits was counted last, by their ticket or by what is remembered.
    fn last_asked(&self, ticket: &Ticket, wall: Wall) -> Wall {
        let last = self.asked.seen(ticket.place);
        let last = last.filter(|last| *last <= wall);
        last.map_or(ticket.seen, |last| last.max(ticket.seen))
    }

    /// Somebody who has just come is let in.
    pub(super) fn let_in(&mut self, ticket: Ticket, wall: Wall) -> Outcome {
        self.let_in[0] += 1;
        self.sessions.start(wall);
        self.admitted += 1;
        self.enter(ticket, wall)
    }
}
