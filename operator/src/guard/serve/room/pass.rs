//! A request that a room let pass or told to wait.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use shield::Time;

use super::Room;
use super::carry::{Carriage, Stamp};
use crate::guard::serve::language::Language;
use crate::guard::serve::outgoing::Intake;

/// A client that leaves this late left because it waited, unless the service may take longer; one that
/// leaves earlier says nothing about the target.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A request that may go on. How it ends is what opens the room.
#[derive(Debug)]
pub(in crate::guard::serve) struct Pass {
    room: Arc<Room>,
    since: Time,
    /// Of what is sent; none before.
    intake: Option<Intake>,
    stamp: Option<Stamp>,
    /// Whether how it ends is still to be told.
    is_open: bool,
}

/// What who waits is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::guard::serve) struct Waiting {
    pub(super) position: u64,
    /// Seconds until the turn, as far as can be told.
    pub(super) estimated: Option<u64>,
    pub(super) retry_seconds: u64,
    pub(super) stamp: Stamp,
    pub(super) language: Language,
    /// Whether a page may ask again by itself.
    pub(super) reloads: bool,
}

impl Pass {
    pub(super) fn counted(
        room: Arc<Room>,
        since: Time,
        ticket: Option<String>,
        how: Carriage,
    ) -> Self {
        let keep = room.session_max();
        let stamp = ticket.map(|ticket| room.carrier.stamp(ticket, how, keep));
        Self {
            room,
            since,
            intake: None,
            stamp,
            is_open: true,
        }
    }

    /// Of nobody: it gets no ticket, and says nothing about the service.
    pub(super) fn uncounted(room: Arc<Room>, since: Time) -> Self {
        Self {
            room,
            since,
            intake: None,
            stamp: None,
            is_open: false,
        }
    }

    /// Gives the citizen their ticket, whatever the answer is.
    pub(in crate::guard::serve) fn stamp(&self, headers: &mut HeaderMap) {
        if let Some(stamp) = &self.stamp {
            stamp.put(headers);
        }
    }

    /// From here on the target is asked. What the request waited for before, such as the pause that a
    /// limit wants, was not the target's doing.
    pub(in crate::guard::serve) fn sent(&mut self, intake: Intake) {
        self.since = self.room.common.clock.now();
        self.intake = Some(intake);
    }

    /// How the request ended: whether the service failed it, or none where that says nothing about
    /// the service.
    pub(in crate::guard::serve) fn ended(&mut self, is_error: Option<bool>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        if let Some(is_error) = is_error {
            self.room.observe(self.waited(), is_error);
        }
    }

    /// How long the target has had the request as far as it is there; no time at all where it was not sent.
    fn waited(&self) -> Duration {
        let elapsed = self.room.common.clock.now().since(self.since);
        let intake = self.intake.as_ref();
        intake.map_or(Duration::ZERO, |intake| intake.waited(elapsed))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        let waited = self.waited();
        // What its client is still to send says nothing about the target.
        let is_faulty = self.intake.as_ref().is_some_and(Intake::is_faulty);
        // Else a service that hangs would never be found out by clients that give up.
        if waited >= self.room.patience() && !is_faulty {
            self.room.observe(waited, true);
        }
    }
}
