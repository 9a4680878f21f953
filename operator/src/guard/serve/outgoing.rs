//! A request's body on its way to an endpoint: a stream, of which the beginning is kept as long as it may
//! have to be sent once more.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::HeaderMap;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::body::BodyError;
use super::framing::clean_trailers;
use super::headers::drop_underscores;

/// What is kept of one body: enough for forms and calls of an interface, and 64 KiB is what other
/// proxies keep as well. What is longer is an upload, which is sent once.
pub(super) const REPLAY_BYTES_MAX: usize = 64 * 1024;
/// What is kept of all bodies together: a thousand of the longest. Beyond it requests are sent once, so
/// that slow uploads cannot fill the memory.
const REPLAY_BYTES_TOTAL: usize = 1_000 * REPLAY_BYTES_MAX;
/// What each byte of a body gives back of the patience that pauses use up: a client may send more slowly than five hundred
/// bytes a second for no longer than one pause may last. Else a byte before each pause is over would hold a place at
/// the target for as long as its client likes.
const FOR_EACH_BYTE: Duration = Duration::from_millis(2);

/// What a client may send.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub(super) bytes_max: u64,
    /// Between two parts of a body.
    pub(super) pause_max: Duration,
    /// Bytes that are kept now, of all bodies.
    pub(super) kept: Arc<AtomicUsize>,
}

/// A request's body, as the endpoint's connection takes it.
#[derive(Debug)]
pub(super) struct Outgoing(Option<Reader>);

/// A request's body, as the guard sees it while it is sent.
#[derive(Clone, Debug)]
pub(super) struct Intake(Option<Arc<Mutex<Source>>>);

/// Why a body broke off, where its client is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TooLong,
    TooSlow,
    Cut,
}

/// One sending of a body.
#[derive(Debug)]
struct Reader {
    source: Arc<Mutex<Source>>,
    /// Which sending it is; an earlier one gets nothing any more.
    turn: u32,
    /// Bytes that this sending got.
    at: usize,
    has_ended: bool,
}

#[derive(Debug)]
struct Source {
    inner: Incoming,
    bounds: Bounds,
    seen: u64,
    has_ended: bool,
    trailers: Option<HeaderMap>,
    /// Runs while nothing comes.
    pause: Option<Pause>,
    /// How long pauses may last that are left.
    patience: Duration,
    /// Whether only single pauses count: what is said after the answer has begun may take its time, as streams do.
    is_relaxed: bool,
    /// When something came last.
    last: Option<Instant>,
    kept: Option<Kept>,
    fault: Option<Fault>,
    turn: u32,
    /// Who waits for more.
    waiting: Option<Waker>,
}

/// A time in which nothing comes.
#[derive(Debug)]
struct Pause {
    since: Instant,
    end: Pin<Box<Sleep>>,
}

/// All that was sent so far.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    total: Arc<AtomicUsize>,
}

impl Intake {
    /// The body for the first sending, and what is known of it. `is_kept` says whether there may be more.
    pub(super) fn new(inner: Incoming, bounds: &Bounds, is_kept: bool) -> (Self, Outgoing) {
        if inner.is_end_stream() {
            return (Self(None), Outgoing(None));
        }
        let fits = inner.size_hint().lower() <= REPLAY_BYTES_MAX as u64;
        let kept = (is_kept && fits).then(|| Kept {
            bytes: Vec::new(),
            total: Arc::clone(&bounds.kept),
        });
        let source = Arc::new(Mutex::new(Source {
            inner,
            bounds: bounds.clone(),
            seen: 0,
            has_ended: false,
            trailers: None,
            pause: None,
            patience: bounds.pause_max,
            is_relaxed: false,
            last: None,
            kept,
            fault: None,
            turn: 0,
            waiting: None,
        }));
        let reader = Reader::new(&source, 0);
        (Self(Some(source)), Outgoing(Some(reader)))
    }

    /// That of a request without a body.
    #[cfg(test)]
    pub(super) fn nothing() -> Self {
        Self(None)
    }

    /// The body once more, from its beginning; none if it is not known any longer.
    pub(super) fn again(&self) -> Option<Outgoing> {
        let Some(source) = &self.0 else {
            return Some(Outgoing(None));
        };
        let mut state = lock(source);
        if state.kept.is_none() || state.fault.is_some() {
            return None;
        }
        state.turn += 1;
        if let Some(earlier) = state.waiting.take() {
            earlier.wake();
        }
        let turn = state.turn;
        drop(state);
        Some(Outgoing(Some(Reader::new(source, turn))))
    }

    /// Whether it could be sent once more now.
    pub(super) fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|source| {
            let state = lock(source);
            state.kept.is_some() && state.fault.is_none()
        })
    }

    /// It will not be sent again: what was kept is forgotten.
    pub(super) fn settle(&self) {
        if let Some(source) = &self.0 {
            lock(source).kept = None;
        }
    }

    /// From now on the client is held to no pace.
    pub(super) fn relax(&self) {
        let Some(source) = &self.0 else {
            return;
        };
        let mut state = lock(source);
        state.is_relaxed = true;
        let pause_max = state.bounds.pause_max;
        if let Some(pause) = &mut state.pause {
            pause.end.as_mut().reset(pause.since + pause_max);
        }
    }

    /// When the client said its last word so far; none where there is no body.
    pub(super) fn last(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|source| lock(source).last)
    }

    /// How much of this time the target has had all that came: what the client takes to send is not the target's,
    /// and nothing is while it is still to send.
    pub(super) fn waited(&self, elapsed: Duration) -> Duration {
        let Some(source) = &self.0 else {
            return elapsed;
        };
        let source = lock(source);
        if source.is_awaited() {
            return Duration::ZERO;
        }
        let last = source.last.map(|last| last.elapsed());
        last.map_or(elapsed, |last| last.min(elapsed))
    }

    /// The time is over. Where the client is still to send, it is too slow, and the endpoint waited as well.
    pub(super) fn end(&self) {
        if let Some(source) = &self.0 {
            let mut state = lock(source);
            if state.is_awaited() {
                state.fault.get_or_insert(Fault::TooSlow);
            }
        }
    }

    /// Whether it is the client's fault that nothing comes of it: it broke off, or is still to send.
    pub(super) fn is_faulty(&self) -> bool {
        self.end();
        self.fault().is_some()
    }

    /// How the client broke it off.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.0.as_ref().and_then(|source| lock(source).fault)
    }

    /// Bytes that came from the client.
    pub(super) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |source| lock(source).seen)
    }
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    fn new(source: &Arc<Mutex<Source>>, turn: u32) -> Self {
        Self {
            source: Arc::clone(source),
            turn,
            at: 0,
            has_ended: false,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = lock(&self.source);
        if self.turn != source.turn {
            return Poll::Ready(Some(Err(BodyError::Stale)));
        }
        let kept = source.kept.as_ref();
        let known = kept.and_then(|kept| kept.bytes.get(self.at..));
        if let Some(known) = known.filter(|known| !known.is_empty()) {
            let known = Bytes::copy_from_slice(known);
            self.at += known.len();
            return Poll::Ready(Some(Ok(Frame::data(known))));
        }
        if source.has_ended {
            let trailers = source.trailers.clone().filter(|_| !self.has_ended);
            self.has_ended = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(source.poll(context));
        if let Some(Ok(frame)) = &frame {
            self.at += frame.data_ref().map_or(0, Bytes::len);
            self.has_ended |= frame.is_trailers();
        }
        Poll::Ready(frame)
    }
}

impl Source {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.come(frame.data_ref().map_or(0, Bytes::len));
                self.last = Some(Instant::now());
                Poll::Ready(self.take(frame).transpose())
            }
            Poll::Ready(Some(Err(error))) => {
                self.fault = Some(Fault::Cut);
                Poll::Ready(Some(Err(BodyError::Cut(error))))
            }
            Poll::Ready(None) => {
                self.pause = None;
                self.last = Some(Instant::now());
                self.has_ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let patience = self.patience();
                let pause = self.pause.get_or_insert_with(|| Pause {
                    since: Instant::now(),
                    end: Box::pin(tokio::time::sleep(patience)),
                });
                if pause.end.as_mut().poll(context).is_pending() {
                    self.waiting = Some(context.waker().clone());
                    return Poll::Pending;
                }
                self.fault = Some(Fault::TooSlow);
                Poll::Ready(Some(Err(BodyError::TooSlow)))
            }
        }
    }

    /// So many bytes came: the pause is over, if there was one.
    fn come(&mut self, bytes: usize) {
        let paused = self.pause.take().map(|pause| pause.since.elapsed());
        let left = self.patience.saturating_sub(paused.unwrap_or_default());
        let earned = FOR_EACH_BYTE.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.patience = left.saturating_add(earned).min(self.bounds.pause_max);
    }

    /// How long nothing may come from now on.
    fn patience(&self) -> Duration {
        if self.is_relaxed {
            self.bounds.pause_max
        } else {
            self.patience
        }
    }

    /// Whether the endpoint would take more than there is.
    fn is_awaited(&self) -> bool {
        self.pause.is_some() && !self.has_ended
    }

    /// Takes a part into account, and leaves nothing of trailers that must not pass.
    fn take(&mut self, mut frame: Frame<Bytes>) -> Result<Option<Frame<Bytes>>, BodyError> {
        if let Some(data) = frame.data_ref() {
            self.seen += data.len() as u64;
            if self.seen > self.bounds.bytes_max {
                self.fault = Some(Fault::TooLong);
                return Err(BodyError::TooLong);
            }
            if self.kept.as_mut().is_some_and(|kept| !kept.add(data)) {
                self.kept = None;
            }
        }
        if let Some(trailers) = frame.trailers_mut() {
            self.has_ended = true;
            drop_underscores(trailers);
            clean_trailers(trailers);
            if trailers.is_empty() {
                return Ok(None);
            }
            self.trailers = self.kept.is_some().then(|| trailers.clone());
        }
        Ok(Some(frame))
    }
}

impl Kept {
    /// Whether it could be kept as well.
    fn add(&mut self, data: &[u8]) -> bool {
        if self.bytes.len() + data.len() > REPLAY_BYTES_MAX {
            return false;
        }
        let before = self.total.fetch_add(data.len(), Ordering::Relaxed);
        self.bytes.extend_from_slice(data);
        before + data.len() <= REPLAY_BYTES_TOTAL
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Some(reader) => reader.poll(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let Some(reader) = &self.0 else { return true };
        let source = lock(&reader.source);
        let known = source.kept.as_ref().map_or(0, |kept| kept.bytes.len());
        let has_all = source.has_ended || source.inner.is_end_stream();
        // Trailers that came are still to be sent, unless this sending had them.
        has_all && reader.at >= known && (reader.has_ended || source.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(reader) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        let source = lock(&reader.source);
        let known = source.kept.as_ref().map_or(0, |kept| kept.bytes.len());
        let known = known.saturating_sub(reader.at) as u64;
        let coming = source.inner.size_hint();
        let mut all = SizeHint::new();
        if let Some(upper) = coming.upper() {
            all.set_upper(upper + known);
        }
        all.set_lower(coming.lower() + known);
        all
    }
}
