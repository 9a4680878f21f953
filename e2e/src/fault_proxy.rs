//! A line to an API server that loses answers: a proxy that carries out some writes and then closes the
//! connection without a word, refuses others as conflicts, and takes its time over more of them.
//!
//! Reads and watches pass as they are. Requests keep their own credentials, so that rights and admission
//! are those of the caller.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use crate::{fleet::Cluster, random::Random};

/// The longest delay: beyond what writes of one turn take, so that their order changes.
const DELAY_MAX_MILLIS: u64 = 250;
/// Writes to our kinds, which are what goes wrong.
const OURS: &str = "/apis/jiuzhou.io/";
/// What is written at rest as well: signs of life.
const LEASES: &str = "/leases";
/// The hub's Lease, whose writes can be cut off.
const LEASE: &str = "/leases/jiuzhou-hub";

/// How many of a thousand writes go wrong, by the way they do.
#[derive(Debug, Clone, Copy)]
pub struct Odds {
    /// Carried out, and the answer is lost.
    pub lost: u64,
    /// Refused as a conflict, and not carried out.
    pub refused: u64,
    /// Carried out late.
    pub late: u64,
}

/// What went through so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes, but for those of Leases.
    pub writes: u64,
    /// Writes that were carried out and whose answer was lost.
    pub lost: u64,
    /// Writes that were refused as a conflict.
    pub refused: u64,
    /// Writes that were late.
    pub late: u64,
    /// Writes of the hub's Lease that were cut off.
    pub cut: u64,
}

/// The proxy. Dropping it ends its connections.
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    line: Arc<Line>,
    _task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    writes: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    late: AtomicU64,
    cut: AtomicU64,
}

struct Line {
    server: Client,
    odds: fn(path: &str) -> Odds,
    random: Mutex<Random>,
    counts: Counts,
    lease_is_cut: AtomicBool,
    /// When the hub's Lease was last written through here.
    renewed: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// No answer: the connection is closed.
#[derive(Debug)]
struct NoAnswer;

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer is lost")
    }
}

impl std::error::Error for NoAnswer {}

enum Fault {
    None,
    Lost,
    Refused,
    Late(Duration),
}

impl FaultProxy {
    /// Listens on loopback, by plain HTTP, before a cluster's API server. `odds` are those of a write to a
    /// path.
    pub async fn before(
        cluster: &Cluster,
        odds: fn(path: &str) -> Odds,
        random: Random,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("listen")?;
        let port = listener.local_addr()?.port();
        let line = Arc::new(Line {
            server: cluster.nobody().await?,
            odds,
            random: Mutex::new(random),
            counts: Counts::default(),
            lease_is_cut: AtomicBool::new(false),
            renewed: Mutex::new(None),
        });
        let mut task = JoinSet::new();
        let here = Arc::clone(&line);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(connection(near, Arc::clone(&here)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            port,
            line,
            _task: task,
        })
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What went through so far.
    pub fn tally(&self) -> Tally {
        let counts = &self.line.counts;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            writes: count(&counts.writes),
            lost: count(&counts.lost),
            refused: count(&counts.refused),
            late: count(&counts.late),
            cut: count(&counts.cut),
        }
    }

    /// Cuts off the writes of the hub's Lease, or no longer.
    pub fn cut_lease(&self, cut: bool) {
        self.line.lease_is_cut.store(cut, Ordering::Relaxed);
    }

    /// When the hub's Lease was last written through here.
    pub fn renewed(&self) -> Option<Instant> {
        *locked(&self.line.renewed)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connection(near: TcpStream, line: Arc<Line>) {
    let service = service_fn(|request| {
        let line = Arc::clone(&line);
        async move { line.answer(request).await }
    });
    // It ends by an error where an answer is lost, and when the caller is killed.
    let _ended = http1::Builder::new()
        .serve_connection(TokioIo::new(near), service)
        .await;
}

impl Line {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, NoAnswer> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let body = body.collect().await.map_err(|_| NoAnswer)?.to_bytes();
        let mut onward = Request::from_parts(parts, Body::from(body.to_vec()));
        for_one_hop(onward.headers_mut());
        // It names the proxy.
        onward.headers_mut().remove(header::HOST);
        let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        if !writes.contains(onward.method()) {
            return self.pass_on(onward).await;
        }
        if path.ends_with(LEASE) {
            return self.pass_on_lease(onward).await;
        }
        if path.contains(LEASES) {
            return self.pass_on(onward).await;
        }
        count(&self.counts.writes);
        match self.fault(&path) {
            Fault::None => self.pass_on(onward).await,
            Fault::Late(delay) => {
                count(&self.counts.late);
                tokio::time::sleep(delay).await;
                self.pass_on(onward).await
            }
            Fault::Refused => {
                count(&self.counts.refused);
                Ok(conflict())
            }
            Fault::Lost => {
                // All of it, so that the server is done with it.
                let _lost = self.pass_on(onward).await?.into_body().collect().await;
                count(&self.counts.lost);
                Err(NoAnswer)
            }
        }
    }

    fn fault(&self, path: &str) -> Fault {
        if !path.starts_with(OURS) {
            return Fault::None;
        }
        let Odds {
            lost,
            refused,
            late,
        } = (self.odds)(path);
        let mut random = locked(&self.random);
        match random.below(1000) {
            drawn if drawn < lost => Fault::Lost,
            drawn if drawn < lost + refused => Fault::Refused,
            drawn if drawn < lost + refused + late => {
                Fault::Late(Duration::from_millis(random.below(DELAY_MAX_MILLIS)))
            }
            _ => Fault::None,
        }
    }

    async fn pass_on_lease(&self, onward: Request<Body>) -> Result<Response<Body>, NoAnswer> {
        if self.lease_is_cut.load(Ordering::Relaxed) {
            count(&self.counts.cut);
            return Err(NoAnswer);
        }
        let answer = self.pass_on(onward).await?;
        if answer.status().is_success() {
            *locked(&self.renewed) = Some(Instant::now());
        }
        Ok(answer)
    }

    async fn pass_on(&self, onward: Request<Body>) -> Result<Response<Body>, NoAnswer> {
        let mut answer = self.server.send(onward).await.map_err(|_| NoAnswer)?;
        for_one_hop(answer.headers_mut());
        *answer.version_mut() = Version::HTTP_11;
        Ok(answer)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Takes away what is between two neighbours alone.
fn for_one_hop(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
}

/// As an API server says it that was asked to replace a version which is no longer there.
fn conflict() -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409, "reason": "Conflict",
        "message": "the object has been modified; please apply your changes to the latest version and try again",
    });
    let mut answer = Response::new(Body::from(status.to_string().into_bytes()));
    *answer.status_mut() = StatusCode::CONFLICT;
    let json = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}
