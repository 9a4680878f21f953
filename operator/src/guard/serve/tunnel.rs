//! Connections that changed to another protocol, such as WebSocket: bytes both ways until either side
//! ends, or neither says anything for too long.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::record::{Record, Why};
use super::seat::Seat;

/// Two connections that become one.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) server: OnUpgrade,
    /// Its place among the connections of clients.
    pub(super) seat: Arc<Seat>,
    pub(super) idle_max: Duration,
}

impl Tunnel {
    /// Carries bytes both ways, until `cut` at the latest; `record` ends with it.
    pub(super) async fn carry(self, mut record: Record, cut: CancellationToken) {
        let Self {
            client,
            server,
            seat: _seat,
            idle_max,
        } = self;
        let (Ok(client), Ok(server)) = (client.await, server.await) else {
            record.broke(Why::EndpointBroke);
            return;
        };
        let pulse = Arc::new(Pulse::start());
        let (mut client, mut server) = (pulse.watch(client), pulse.watch(server));
        let carried = tokio::io::copy_bidirectional(&mut client, &mut server);
        // How it ends is between the two of them.
        let why = tokio::select! {
            _ended = carried => None,
            () = pulse.stops(idle_max) => Some(Why::Idle),
            () = cut.cancelled() => Some(Why::Drained),
        };
        record.bytes_in += client.bytes;
        record.bytes_out += server.bytes;
        if let Some(why) = why {
            record.broke(why);
        }
    }
}

/// When something last came from either side.
#[derive(Debug)]
struct Pulse {
    start: Instant,
    last_millis: AtomicU64,
}

/// One side.
struct Watched {
    inner: TokioIo<Upgraded>,
    pulse: Arc<Pulse>,
    /// That came from it.
    bytes: u64,
}

impl Pulse {
    fn start() -> Self {
        Self {
            start: Instant::now(),
            last_millis: AtomicU64::new(0),
        }
    }

    fn watch(self: &Arc<Self>, side: Upgraded) -> Watched {
        Watched {
            inner: TokioIo::new(side),
            pulse: Arc::clone(self),
            bytes: 0,
        }
    }

    fn beat(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// Returns when nothing came for so long.
    async fn stops(&self, idle_max: Duration) {
        loop {
            let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
            let end = self.start + last + idle_max;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.inner).poll_read(context, buffer));
        let came = buffer.filled().len() - before;
        if came > 0 {
            this.bytes += came as u64;
            this.pulse.beat();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}
