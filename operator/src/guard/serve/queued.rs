//! A request in the queue of a policy. Its client may leave at any moment.

use std::sync::Arc;

use shield::concurrency::{self, Permit, Refusal};
use shield::{Place, Time};
use tokio::sync::oneshot;

use super::protection::Protection;

/// One place in the queue. Dropped, it is left, and whatever came for it goes to the next.
#[derive(Debug)]
pub(super) struct Queued {
    protection: Arc<Protection>,
    place: Option<Place>,
    until: Time,
    woken: oneshot::Receiver<Result<Permit, Refusal>>,
}

impl Queued {
    pub(super) fn new(
        protection: Arc<Protection>,
        place: Place,
        until: Time,
        woken: oneshot::Receiver<Result<Permit, Refusal>>,
    ) -> Self {
        Self {
            protection,
            place: Some(place),
            until,
            woken,
        }
    }

    /// Waits for its turn, or to hear that it does not come.
    pub(super) async fn turn(mut self) -> Result<Permit, Refusal> {
        let clock = self.protection.clock;
        let patience = self.until.since(clock.now());
        if let Ok(turn) = tokio::time::timeout(patience, &mut self.woken).await {
            self.place = None;
            return turn.expect("a waker is used or kept until it is");
        }
        // Those whose time is over, this one among them, are told so.
        let now = clock.now().max(self.until);
        let late = self.protection.concurrency().expire(now);
        self.protection.wake(late);
        let turn = (&mut self.woken).await;
        self.place = None;
        turn.expect("a waker is used or kept until it is")
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else {
            return;
        };
        if self.protection.concurrency().abandon(place).is_some() {
            return;
        }
        // Its turn came while it was leaving. What is sent from here on comes back to the sender.
        self.woken.close();
        if let Ok(Ok(permit)) = self.woken.try_recv() {
            self.protection.leave(permit, concurrency::Outcome::Dropped);
        }
    }
}
