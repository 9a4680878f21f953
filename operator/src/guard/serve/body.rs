//! Bodies on their way, in both directions, as streams: nothing is gathered.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::endpoint::{Flight, Lent};
use super::protection::Guarded;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The client sends more than is allowed.
    #[error("the body is longer than allowed")]
    TooLong,
    /// Nothing came for too long.
    #[error("the sender of the body is too slow")]
    TooSlow,
    /// The time for the whole request is over.
    #[error("the time for the request is over")]
    Overdue,
    /// The connection it came from.
    #[error("the body was cut off")]
    Cut(#[source] hyper::Error),
}

/// A request's body on its way to an endpoint.
#[derive(Debug)]
pub(super) struct Outgoing {
    inner: Incoming,
    left: u64,
    pause_max: Duration,
    /// Runs while nothing comes.
    pause: Option<Pin<Box<Sleep>>>,
}

/// An answer's body on its way to the client.
#[derive(Debug)]
pub(super) enum Answer {
    /// What the guard says itself.
    Own(Full<Bytes>),
    /// What an endpoint says.
    Passed(Box<Passed>),
}

/// What an endpoint says.
#[derive(Debug)]
pub(super) struct Passed {
    inner: Incoming,
    has_ended: bool,
    lent: Option<Lent>,
    overdue: Option<Pin<Box<Sleep>>>,
    _flight: Flight,
    /// Its place among those under way is free when the body ended.
    _guarded: Option<Guarded>,
}

impl Outgoing {
    pub(super) fn new(inner: Incoming, bytes_max: u64, pause_max: Duration) -> Self {
        Self {
            inner,
            left: bytes_max,
            pause_max,
            pause: None,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.pause = None;
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match this.left.checked_sub(length) {
                    Some(left) => this.left = left,
                    None => return Poll::Ready(Some(Err(BodyError::TooLong))),
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Cut(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let pause_max = this.pause_max;
                let pause = this
                    .pause
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause_max)));
                ready!(pause.as_mut().poll(context));
                Poll::Ready(Some(Err(BodyError::TooSlow)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Passed {
    pub(super) fn new(
        inner: Incoming,
        lent: Option<Lent>,
        flight: Flight,
        end: Option<Instant>,
        guarded: Option<Guarded>,
    ) -> Self {
        let overdue = end.map(|end| Box::pin(tokio::time::sleep_until(end)));
        Self {
            inner,
            has_ended: false,
            lent,
            overdue,
            _flight: flight,
            _guarded: guarded,
        }
    }
}

impl Answer {
    pub(super) fn empty() -> Self {
        Self::Own(Full::default())
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|never: Infallible| match never {})))
            }
            Self::Passed(passed) => passed.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Passed(passed) => passed.has_ended || passed.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Passed(passed) => passed.inner.size_hint(),
        }
    }
}

impl Passed {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Cut(error)))),
            Poll::Ready(None) => {
                self.has_ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(overdue) = &mut self.overdue else {
                    return Poll::Pending;
                };
                ready!(overdue.as_mut().poll(context));
                Poll::Ready(Some(Err(BodyError::Overdue)))
            }
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // A body of known length is not asked again after its last byte.
        if (self.has_ended || self.inner.is_end_stream())
            && let Some(lent) = self.lent.take()
        {
            lent.give_back();
        }
    }
}
