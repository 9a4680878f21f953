//! Requests of HTTP/2 that came in one packet.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use tokio_util::task::TaskTracker;

type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What answers the requests that a connection has just read.
///
/// Refusals are there at once. They are made when the connection has read all there is, so that they leave in
/// one packet as well; only what has to wait gets a task of its own.
#[derive(Clone)]
pub(super) struct Arrived {
    all: Arc<Mutex<Vec<Answering>>>,
    /// A drain waits for what has to wait.
    tracker: TaskTracker,
}

impl Arrived {
    pub(super) fn new(tracker: TaskTracker) -> Self {
        Self {
            all: Arc::default(),
            tracker,
        }
    }

    /// Begins to answer everything; to be called whenever the connection was polled.
    pub(super) fn answer(&self) {
        let mut all = {
            let mut arrived = self.lock();
            if arrived.is_empty() {
                return;
            }
            std::mem::take(&mut *arrived)
        };
        // Whoever spawns it polls it again, and wakes the task then. What is ready wakes the connection.
        let mut context = Context::from_waker(Waker::noop());
        for mut answering in all.drain(..) {
            if answering.as_mut().poll(&mut context).is_pending() {
                self.tracker.spawn(answering);
            }
        }
        // Its memory serves the next ones: nothing came meanwhile, for nobody polled the connection.
        *self.lock() = all;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Answering>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> hyper::rt::Executor<F> for Arrived
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.lock().push(Box::pin(future));
    }
}

impl fmt::Debug for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Arrived").field(&self.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hyper::rt::Executor as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_ready_is_answered_when_all_was_read_and_what_waits_later() {
        let arrived = Arrived::new(TaskTracker::new());
        let answered = Arc::new(AtomicUsize::new(0));
        let count = || {
            let answered = Arc::clone(&answered);
            move || answered.fetch_add(1, Ordering::Relaxed)
        };
        for _ in 0..3 {
            let count = count();
            arrived.execute(async move {
                count();
            });
        }
        let (go, told) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let count_late = count();
        arrived.execute(async move {
            let _ = told.await;
            count_late();
            let _ = end.send(());
        });
        assert_eq!(answered.load(Ordering::Relaxed), 0);
        arrived.answer();
        assert_eq!(answered.load(Ordering::Relaxed), 3);
        go.send(()).unwrap();
        ended.await.unwrap();
        assert_eq!(answered.load(Ordering::Relaxed), 4);
        arrived.answer();
        assert_eq!(answered.load(Ordering::Relaxed), 4, "nobody answers twice");
    }
}
