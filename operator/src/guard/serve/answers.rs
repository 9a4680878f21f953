//! The answers of one connection that are on their way.
//!
//! Nobody polls a body of which the client takes nothing. Whoever asks for much and takes nothing would hold
//! connections to endpoints, and places among those under way, for as long as it likes: so the connection
//! looks at its answers from time to time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::SizeHint;
use slab::Slab;
use tokio::time::Instant;

use super::body::BodyError;
use super::given::{Given, Part};
use super::record::Why;

/// None where the client took nothing for too long.
type Slot = Mutex<Option<Given>>;

/// The answers of one connection.
#[derive(Debug)]
pub(super) struct Answers {
    all: Mutex<Slab<Arc<Slot>>>,
    pause_max: Duration,
}

/// An answer that a client takes.
#[derive(Debug)]
pub(super) struct Taken {
    slot: Arc<Slot>,
    place: usize,
    answers: Arc<Answers>,
}

impl Answers {
    /// None yet. A client may take nothing for so long.
    pub(super) fn new(pause_max: Duration) -> Self {
        Self {
            all: Mutex::default(),
            pause_max,
        }
    }

    pub(super) fn begin(self: &Arc<Self>, given: Given) -> Taken {
        let slot = Arc::new(Slot::new(Some(given)));
        let place = lock(&self.all).insert(Arc::clone(&slot));
        Taken {
            slot,
            place,
            answers: Arc::clone(self),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.all).is_empty()
    }

    /// Cuts what clients do not take. Says whether there are answers of which none goes on.
    pub(super) fn look(&self) -> bool {
        let (all, now) = (lock(&self.all), Instant::now());
        let mut are_cut = !all.is_empty();
        for (_, slot) in all.iter() {
            let mut slot = lock(slot);
            if slot
                .as_mut()
                .is_some_and(|given| given.is_left(now, self.pause_max))
            {
                *slot = None;
            }
            are_cut &= slot.is_none();
        }
        are_cut
    }
}

impl Taken {
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Part> {
        match &mut *lock(&self.slot) {
            Some(given) => given.poll(context),
            None => Poll::Ready(Some(Err((BodyError::NotTaken, Why::ClientStalled)))),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let given = lock(&self.slot);
        given.as_ref().is_some_and(Given::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let given = lock(&self.slot);
        given.as_ref().map(Given::size_hint).unwrap_or_default()
    }

    /// It came whole.
    pub(super) fn give_back(&self) {
        if let Some(given) = &mut *lock(&self.slot) {
            given.give_back();
        }
    }

    /// Why it did not, if its client dropped it now.
    pub(super) fn why(&self) -> Why {
        match &*lock(&self.slot) {
            Some(_) => Why::ClientGone,
            None => Why::ClientStalled,
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        lock(&self.answers.all).remove(self.place);
        // What it held is free now, whoever else looks at the slot.
        let given = lock(&self.slot).take();
        drop(given);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
