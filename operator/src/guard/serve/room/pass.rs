//! A request that a room let pass or told to wait.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use shield::Time;

use super::Room;
use super::carry::{Carriage, Stamp};
use super::page::Language;

/// A client that leaves this late left because it waited; one that leaves earlier says nothing about
/// the target.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request that may go on. How it ends is what opens the room.
#[derive(Debug)]
pub(in crate::guard::serve) struct Pass {
    room: Arc<Room>,
    since: Time,
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
            stamp,
            is_open: true,
        }
    }

    /// Of nobody: it gets no ticket, and says nothing about the service.
    pub(super) fn uncounted(room: Arc<Room>, since: Time) -> Self {
        Self {
            room,
            since,
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

    /// How the request ended: whether the service failed it, or none where that says nothing about
    /// the service.
    pub(in crate::guard::serve) fn ended(&mut self, is_error: Option<bool>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        if let Some(is_error) = is_error {
            self.room.observe(self.elapsed(), is_error);
        }
    }

    fn elapsed(&self) -> Duration {
        self.room.common.clock.now().since(self.since)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // Else a service that hangs would never be found out by clients that give up.
        if self.is_open && self.elapsed() >= PATIENCE {
            self.room.observe(self.elapsed(), true);
        }
    }
}
