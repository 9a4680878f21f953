//! What the rest of the process sees of an election.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Fence, LeaseError};

/// Being the leader, until it ends. Clones share the same term.
#[derive(Clone, Debug)]
pub struct Leadership {
    pub(super) epoch: i64,
    /// The fence, where it is not raised yet.
    pub(super) unraised: Option<Fence>,
    /// Whether this term has raised it by now.
    pub(super) raised: Arc<AtomicBool>,
    pub(super) valid_until: watch::Receiver<Instant>,
    pub(super) lost: CancellationToken,
}

impl Leadership {
    /// The number of this term: it goes with every write, and is raised in the fence before the first.
    pub const fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Whether it is one and the same term. Two may have one number, when the first ended before it had
    /// raised the fence.
    pub fn is_same_term(&self, other: &Self) -> bool {
        self.valid_until.same_channel(&other.valid_until)
    }

    /// Nothing may be written after this moment. Each renewal moves it on.
    pub fn valid_until(&self) -> Instant {
        *self.valid_until.borrow()
    }

    /// Do we lead right now? Looks at the clock as well, since a process that was stopped for a
    /// while may ask before its own tasks have noticed.
    pub fn is_valid(&self) -> bool {
        !self.lost.is_cancelled() && Instant::now() < self.valid_until()
    }

    /// Cancelled when the term ends.
    pub const fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Raises the fence to this term, before its first write. A term whose number is taken ends: the
    /// next one gets another.
    pub async fn raise_fence(&self) -> Result<(), LeaseError> {
        let Some(fence) = &self.unraised else {
            return Ok(());
        };
        if self.raised.load(Ordering::Acquire) {
            return Ok(());
        }
        let raised = fence.raise_above(self.epoch).await;
        match &raised {
            Ok(()) => self.raised.store(true, Ordering::Release),
            // Somebody's, or our own raise whose answer was lost: that cannot be told.
            Err(LeaseError::Behind { .. }) => self.lost.cancel(),
            Err(_) => {}
        }
        raised
    }

    /// Runs writes of this term; they are dropped where they stand when it ends.
    pub async fn while_leading<T>(&self, writes: impl Future<Output = T>) -> Option<T> {
        if !self.is_valid() {
            return None;
        }
        self.lost.run_until_cancelled(writes).await
    }
}

/// A running election.
#[derive(Debug)]
pub struct Election {
    pub(super) leader: watch::Receiver<Option<Leadership>>,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl Election {
    /// Our term, if we lead.
    pub fn leadership(&self) -> Option<Leadership> {
        self.leader.borrow().clone().filter(Leadership::is_valid)
    }

    /// Waits until [`leadership`](Self::leadership) may answer differently.
    pub async fn changed(&mut self) {
        if self.leader.changed().await.is_err() {
            pending::<()>().await;
        }
    }

    /// Ends our term and gives the Lease up, so that another replica leads within two seconds.
    /// Call when the last write has ended.
    pub async fn release(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the election ended badly");
        }
    }
}
