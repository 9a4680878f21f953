//! What an endpoint gives for one answer: the body, and all that is held while it comes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use shield::EndpointResult;
use tokio::time::{Instant, Sleep};

use super::body::BodyError;
use super::due::Due;
use super::endpoint::Flight;
use super::framing::clean_trailers;
use super::pool::Lent;
use super::protection::Guarded;
use super::record::Why;

/// An endpoint that still sends after this has done well: a stream may last for hours, and neither a trial of
/// the endpoint nor that of a breaker waits for its end.
const WELL_AFTER: Duration = Duration::from_secs(1);
/// A client that was waited for this long, at once or in all, keeps nobody else from the target: its answer
/// takes no place among those under way any more.
const FREE_AFTER: Duration = Duration::from_secs(2);

/// A part of a body, or why there is none and what is told of it.
pub(super) type Part = Option<Result<Frame<Bytes>, (BodyError, Why)>>;

/// A body on its way from an endpoint.
#[derive(Debug)]
pub(super) struct Given {
    inner: Incoming,
    lent: Option<Lent>,
    /// When the time for the whole request is over.
    due: Option<Due>,
    overdue: Option<Pin<Box<Sleep>>>,
    /// Since when nobody was told how the endpoint did; none where it is told.
    untold: Option<Instant>,
    /// Since when the client was offered something and took nothing more; none while the endpoint is waited for.
    untaken: Option<Instant>,
    /// How long the client was waited for before that.
    waited: Duration,
    flight: Flight,
    /// Its place among those under way is free when the body ended.
    guarded: Option<Guarded>,
}

impl Given {
    pub(super) fn new(
        inner: Incoming,
        lent: Lent,
        flight: Flight,
        due: Option<Due>,
        guarded: Option<Guarded>,
    ) -> Self {
        let now = Instant::now();
        Self {
            inner,
            lent: Some(lent),
            due,
            overdue: due.map(|due| Box::pin(tokio::time::sleep_until(due.at))),
            untold: Some(now),
            untaken: Some(now),
            waited: Duration::ZERO,
            flight,
            guarded,
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Part> {
        if let Some(since) = self.untaken.take() {
            self.waited += since.elapsed();
            if self.waited >= FREE_AFTER {
                self.free();
            }
        }
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(mut frame))) => {
                let now = Instant::now();
                self.untaken = Some(now);
                if self.untold.is_some_and(|since| now - since >= WELL_AFTER) {
                    self.tell(EndpointResult::Good);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                    if trailers.is_empty() {
                        return Poll::Ready(None);
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.tell(EndpointResult::Failed);
                Poll::Ready(Some(Err((BodyError::Cut(error), Why::EndpointBroke))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let Some(overdue) = &mut self.overdue else {
                    return Poll::Pending;
                };
                ready!(overdue.as_mut().poll(context));
                if self.due.is_some_and(|due| due.is_late) {
                    self.forget();
                } else {
                    self.tell(EndpointResult::Failed);
                }
                Poll::Ready(Some(Err((BodyError::Overdue, Why::EndpointTimeout))))
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    /// It came whole: the connection is free for the next request.
    pub(super) fn give_back(&mut self) {
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
    }

    /// Frees what others may need where the client takes nothing, and says whether it is to be cut: nothing was
    /// taken for `pause_max`, or the time of the request is over.
    pub(super) fn is_left(&mut self, now: Instant, pause_max: Duration) -> bool {
        let Some(since) = self.untaken else {
            return false;
        };
        let left = now.saturating_duration_since(since);
        if self.waited + left >= FREE_AFTER.min(pause_max) {
            self.free();
        }
        let is_overdue = self.due.is_some_and(|due| due.at <= now);
        left >= pause_max || (left >= FREE_AFTER && is_overdue)
    }

    /// Lets another have its place: it is the client that takes its time.
    fn free(&mut self) {
        self.tell(EndpointResult::Good);
        self.guarded = None;
    }

    /// How the endpoint did says nothing.
    fn forget(&mut self) {
        self.untold = None;
        if let Some(guarded) = &mut self.guarded {
            guarded.forget();
        }
    }

    /// How the endpoint did; the first word counts.
    fn tell(&mut self, result: EndpointResult) {
        if self.untold.take().is_none() {
            return;
        }
        self.flight.report(result);
        if let Some(guarded) = &mut self.guarded {
            guarded.ended(result == EndpointResult::Failed);
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // It came whole, or the client left one that went well so far.
        self.tell(EndpointResult::Good);
    }
}
