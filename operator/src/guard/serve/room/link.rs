//! How somebody else coordinates the rooms of a guard.

use std::num::NonZeroU32;
use std::sync::Arc;

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

    /// Takes what the coordinator said; words that are older than the last count for nothing.
    pub fn hear(&self, words: &RoomWords) {
        self.0.current.load().rooms.hear(words);
    }
}
