//! Targets behind the proxies, in threads of their own.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Requests below this path are for the dependency that may become slow.
pub(super) const DEPENDENCY: &str = "/dependency";
/// As long as a health code's state.
const BODY: &[u8] = br#"{"code":"green","checkedAt":"2026-11-27T08:00:00+08:00","validUntil":"2026-11-28T08:00:00+08:00","station":"610102-0042"}"#;

/// A server on loopback until it is dropped.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// So many requests are worked on at a time; the others wait, in their order, without a bound.
    workers: Option<Semaphore>,
    work: Duration,
    /// How late the dependency answers.
    delay_millis: AtomicU64,
    /// When the dependency was asked.
    asked: Mutex<Vec<Instant>>,
}

impl Upstream {
    /// Answers at once.
    pub(super) fn quick() -> Result<Self> {
        Self::start(None, Duration::ZERO)
    }

    /// Works on so many requests at a time, each for so long. Its capacity is the one by the other,
    /// a little less for the timer's whole milliseconds.
    pub(super) fn of(workers: usize, work: Duration) -> Result<Self> {
        Self::start(Some(Semaphore::new(workers)), work)
    }

    fn start(workers: Option<Semaphore>, work: Duration) -> Result<Self> {
        let state = Arc::new(State {
            workers,
            work,
            delay_millis: AtomicU64::new(0),
            asked: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (there, stopped) = (Arc::clone(&state), stop.clone());
        let (sender, bound) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the upstream's runtime")?;
        let serving = async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
            let address = listener.as_ref().ok().map(TcpListener::local_addr);
            // The other side waits for it.
            let _ = sender.send(address);
            if let Ok(listener) = listener {
                stopped.run_until_cancelled(serve(listener, there)).await;
            }
        };
        thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || runtime.block_on(serving))
            .context("start the upstream's thread")?;
        let address = bound.recv().ok().flatten();
        Ok(Self {
            address: address.context("open a port for the upstream")??,
            state,
            stop,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How late the dependency answers from now on.
    pub(super) fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.state.delay_millis.store(millis, Ordering::Relaxed);
    }

    /// When the dependency was asked.
    pub(super) fn asked(&self) -> Vec<Instant> {
        let asked = self.state.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // Without it an answer in two writes would wait for the other side's acknowledgement.
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&state), request));
        connections.spawn(async move {
            // A proxy that goes away is no failure.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path().starts_with(DEPENDENCY) {
        let asked = Instant::now();
        state
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(asked);
        let delay = state.delay_millis.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
    } else if let Some(workers) = &state.workers {
        // It is never closed.
        let _place = workers.acquire().await;
        tokio::time::sleep(state.work).await;
    }
    let mut answer = Response::new(Full::new(Bytes::from_static(BODY)));
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(answer)
}
