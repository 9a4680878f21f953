//! How somebody else coordinates the rooms of a guard.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::guard::config::WaitingRoom;
use crate::guard::rooms::{RoomSummaries, RoomWords};
use crate::guard::serve::proxy::Shared;

/// Carries counts of a guard's rooms to a coordinator, and its words back.
///
/// A guard that is not heard, or hears nothing, goes on by itself with its share.
#[derive(Clone, Debug)]
pub struct RoomLink(Arc<Shared>);

impl RoomLink {
    pub(in crate::guard::serve) fn new(shared: Arc<Shared>, guards: NonZeroU32) -> Self {
        shared.current.load().rooms.common.share(guards);
        Self(shared)
    }

    /// What to tell the coordinator, each [`BEAT`](crate::guard::rooms::BEAT).
    pub fn summaries(&self) -> RoomSummaries {
        self.0.current.load().rooms.summaries()
    }

    /// Whether the coordinator said something of each of these rooms, which are not kept here yet, as far as
    /// guards share them.
    pub(in crate::guard::serve) fn has_heard(
        &self,
        wanted: &BTreeMap<String, WaitingRoom>,
    ) -> bool {
        self.0.current.load().rooms.has_heard(wanted)
    }

    /// Takes what the coordinator said; words that are older than the last count for nothing.
    pub fn hear(&self, words: &RoomWords) {
        self.0.current.load().rooms.hear(words);
    }
}
