//! Bodies of answers on their way to clients, as streams: nothing is gathered.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::answers::Taken;
use super::record::{Record, Why};

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
    /// The client took nothing for too long.
    #[error("the client takes nothing of the answer")]
    NotTaken,
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
    taken: Taken,
    has_ended: bool,
    record: Option<Box<Record>>,
}

impl Passed {
    pub(super) fn new(taken: Taken) -> Self {
        Self {
            taken,
            has_ended: false,
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
            Self::Passed(passed) => passed.has_ended || passed.taken.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Passed(passed) => passed.taken.size_hint(),
        }
    }
}

impl Passed {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.taken.poll(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                // Nothing follows trailers, and nobody asks.
                self.has_ended |= frame.is_trailers();
                if let (Some(record), Some(data)) = (&mut self.record, frame.data_ref()) {
                    record.bytes_out += data.len() as u64;
                }
                Some(Ok(frame))
            }
            Some(Err((error, why))) => {
                self.broke(why);
                Some(Err(error))
            }
            None => {
                self.has_ended = true;
                None
            }
        })
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
        // A body of known length is not asked again after its last byte.
        if self.has_ended || self.taken.is_end_stream() {
            self.taken.give_back();
        } else {
            self.broke(self.taken.why());
        }
    }
}
