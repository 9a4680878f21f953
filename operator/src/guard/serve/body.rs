//! Bodies of answers on their way to clients, as streams: nothing is gathered.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use shield::EndpointResult;
use tokio::time::{Instant, Sleep};

use super::endpoint::Flight;
use super::pool::Lent;
use super::protection::Guarded;
use super::record::{Record, Why};

/// An endpoint that still sends after this has done well: a stream may last for hours, and neither a trial of
/// the endpoint nor that of a breaker waits for its end.
const WELL_AFTER: Duration = Duration::from_secs(1);

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
    /// It is being sent to another endpoint instead.
    #[error("the request is sent elsewhere")]
    Stale,
    /// The connection it came from.
    #[error("the body was cut off")]
    Cut(#[source] hyper::Error),
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
    /// Since when nobody was told how the endpoint did; none where it is told.
    untold: Option<Instant>,
    flight: Flight,
    /// Its place among those under way is free when the body ended.
    guarded: Option<Guarded>,
    record: Option<Box<Record>>,
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
            untold: Some(Instant::now()),
            flight,
            guarded,
            record: None,
        }
    }
}

impl Answer {
    /// Ends `record` when the body does.
    pub(super) fn record(&mut self, mut record: Record) {
        match self {
            Self::Own(body) => record.bytes_out = body.size_hint().lower(),
            Self::Passed(passed) => passed.record = Some(Box::new(record)),
        }
    }

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
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(record), Some(data)) = (&mut self.record, frame.data_ref()) {
                    record.bytes_out += data.len() as u64;
                }
                if self
                    .untold
                    .is_some_and(|since| since.elapsed() >= WELL_AFTER)
                {
                    self.tell(EndpointResult::Good);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.tell(EndpointResult::Failed);
                self.broke(Why::EndpointBroke);
                Poll::Ready(Some(Err(BodyError::Cut(error))))
            }
            Poll::Ready(None) => {
                self.has_ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(overdue) = &mut self.overdue else {
                    return Poll::Pending;
                };
                ready!(overdue.as_mut().poll(context));
                self.tell(EndpointResult::Failed);
                self.broke(Why::EndpointTimeout);
                Poll::Ready(Some(Err(BodyError::Overdue)))
            }
        }
    }
}

impl Passed {
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

    /// It broke off; what was said first about why stays.
    fn broke(&mut self, why: Why) {
        if let Some(record) = &mut self.record {
            record.broke(why);
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // It came whole, or the client left one that went well so far.
        self.tell(EndpointResult::Good);
        // A body of known length is not asked again after its last byte.
        if self.has_ended || self.inner.is_end_stream() {
            if let Some(lent) = self.lent.take() {
                lent.give_back();
            }
        } else {
            self.broke(Why::ClientGone);
        }
    }
}
