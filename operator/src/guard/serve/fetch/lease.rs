//! The parts of shared limits that control gave this guard, which are let go before control gives them to others.
//!
//! ```text
//! asked ──────── answer ─ held ────────── HOLD after asking: let go
//!    └─ control counts from here ────────────────────── LEASE later: for others
//! ```
//!
//! What looks at the clock is a task of its own: an exchange takes seconds, and a configuration that is fetched,
//! prepared and stored half a minute. It waits for none of them, also where one keeps its thread busy.

use std::sync::Arc;

use shield::Share;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::guard::exchange::{ByRule, HOLD};
use crate::guard::serve::Guard;

/// Lets go of parts in time. Dropping it leaves the guard what it has.
pub(super) struct Lease {
    guard: Arc<Guard>,
    /// None before the first word of control, and after its parts were let go.
    held: watch::Sender<Option<Held>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    until: Instant,
    /// What is left then.
    even: Share,
}

impl Lease {
    /// Holds nothing yet. To be called inside a runtime.
    pub(super) fn new(guard: Arc<Guard>) -> Self {
        let held = watch::Sender::new(None);
        let task = tokio::spawn(let_go(Arc::clone(&guard), held.clone()));
        Self {
            guard,
            held,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Holds what control gave to who asked at that time, and an even part of what it did not name.
    pub(super) fn renew(&self, asked: Instant, given: ByRule<Share>, even: Share) {
        let until = asked + HOLD;
        self.held.send_modify(|held| {
            *held = Some(Held { until, even });
            // Under the lock: else the former could be let go after these are held, and these with them.
            self.guard.hold(given, even);
        });
    }
}

/// Parts that nobody confirmed for long are given to others: an even part is what is left.
async fn let_go(guard: Arc<Guard>, held: watch::Sender<Option<Held>>) {
    let mut news = held.subscribe();
    loop {
        let known = news.wait_for(Option::is_some).await.map(|held| *held);
        let Ok(Some(known)) = known else {
            // Never: there are news as long as this task has a sender itself.
            return;
        };
        sleep_until(known.until).await;
        held.send_if_modified(|held| {
            // Those that were confirmed meanwhile are held longer.
            let Some(over) = held.take_if(|held| held.until <= Instant::now()) else {
                return false;
            };
            tracing::warn!(
                millionths = over.even.as_millionths(),
                "control was not heard for long; the guard goes on with an even part of shared limits"
            );
            guard.hold(ByRule::new(), over.even);
            true
        });
    }
}
