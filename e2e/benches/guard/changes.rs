//! Changes that nobody may notice: of the configuration, and of the guards themselves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    load::{
        Plan, Retry,
        mix::{Keys, Mix},
        report::Report,
        run::Run,
    },
    measure::{round, say},
};
use http::{HeaderValue, Request, header::HOST};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use super::{
    lab::{Lab, Proxy, Wire, browser, show, steady},
    policies::{Document, REVISION, chain},
    upstream::Upstream,
};

const CHANGES: usize = 100;
/// Requests a second while it changes.
const RATE: f64 = 400.0;
/// Two targets, each with room for all: requests are under way when something changes.
const WORKERS: usize = 64;
const WORK: Duration = Duration::from_millis(20);
/// What a change may take.
const IN_FORCE_MAX: Duration = Duration::from_secs(1);
/// What a change that never comes is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the revision is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// As long as the changes may take; the run is stopped when they are made.
const LASTS: Duration = Duration::from_mins(3);
/// The run with two guards: one is told to end after a third of it.
const TWO: Duration = Duration::from_secs(15);
/// What a gateway in front does with what failed.
const RETRY: Duration = Duration::from_millis(50);
const RETRIES: u32 = 2;

/// A hundred configurations one after the other, each with other endpoints, limits and headers.
pub(super) async fn changes(lab: &Lab) -> Result<()> {
    let upstreams = [Upstream::of(WORKERS, WORK)?, Upstream::of(WORKERS, WORK)?];
    let document = |port: u16, revision: usize| Document {
        revision,
        // Both, the first, the second, and both again.
        upstreams: match revision % 3 {
            0 => vec![upstreams[0].address()],
            1 => upstreams.iter().map(Upstream::address).collect(),
            _ => vec![upstreams[1].address()],
        },
        ..Document::of(port, upstreams[0].address(), {
            let limit = 100_000 + u32::try_from(revision).unwrap_or(0);
            chain(limit, limit)
        })
    };
    let guard = lab.guard(2, Wire::Http1, |port| document(port, 1)).await?;
    let mut run = Run::start(plan(lab, &guard, LASTS)?)?;
    let mut slowest = Duration::ZERO;
    for revision in 2..CHANGES + 2 {
        document(guard.at.port(), revision).write(&guard.configuration)?;
        slowest = slowest.max(in_force(&guard, revision).await?);
    }
    run.stop();
    let report = run.finish().await?;
    let failed = failed(&report);
    let total = &report.total;
    say(&format!(
        "{CHANGES} configurations: {failed} of {} requests failed, each in force within {:.0} ms (bar {:.0} ms){}",
        total.attempts,
        slowest.as_secs_f64() * 1e3,
        IN_FORCE_MAX.as_secs_f64() * 1e3,
        void(&report),
    ));
    show(
        "configuration-changes",
        &json!({
            "changes": CHANGES, "failed": failed, "slowest_millis": round(slowest.as_secs_f64() * 1e3),
            "void": report.void().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "reference": {"what": "requests sent", "requests": total.attempts},
            "ratio": share(failed, total.attempts),
            "target": {"failed": 0, "slowest_millis": IN_FORCE_MAX.as_millis()},
        }),
    )
}

/// Two guards, one of which is told to end.
pub(super) async fn drain(lab: &Lab) -> Result<()> {
    let upstream = Upstream::of(WORKERS, WORK)?;
    let document = |port| Document::of(port, upstream.address(), chain(100_000, 100_000));
    let guards = [
        lab.guard(1, Wire::Http1, document).await?,
        lab.guard(1, Wire::Http1, document).await?,
    ];
    let [stays, goes] = &guards;
    let mut both = plan(lab, stays, TWO)?;
    both.target = both.target.also_at(goes.at)?;
    both.retry = Some(Retry::every(RETRY, RETRIES));
    let mut run = Run::start(both)?;
    tokio::time::sleep(TWO / 3).await;
    let began = Instant::now();
    goes.end().await?;
    let took = began.elapsed();
    let report = run.finish().await?;
    let total = &report.total;
    ensure!(total.offered > 0, "nothing was sent");
    say(&format!(
        "one of two guards ended within {:.1} s: {} of {} requests failed, {} were tried again{}",
        took.as_secs_f64(),
        total.given_up,
        total.offered,
        total.attempts - total.offered,
        void(&report),
    ));
    show(
        "guard-ended",
        &json!({
            "failed": total.given_up, "tried_again": total.attempts - total.offered,
            "ended_seconds": round(took.as_secs_f64()),
            "void": report.void().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "reference": {"what": "requests sent", "requests": total.offered},
            "ratio": share(total.given_up, total.offered),
            "target": {"failed": 0},
        }),
    )
}

fn plan(lab: &Lab, guard: &Proxy, lasts: Duration) -> Result<Plan> {
    let mix = Mix::of(&[browser("/")], Keys::Uniform { of: 1_000 })?;
    lab.plan(guard.at, Wire::Http1, steady(RATE, lasts)?, mix)
}

/// A late send is sent all the same, and must not fail: what a void run shows here still counts.
fn void(report: &Report) -> String {
    report
        .void()
        .first()
        .map_or(String::new(), |void| format!(" ({void})"))
}

fn failed(report: &Report) -> u64 {
    report.total.failed + report.total.refused
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn share(part: u64, all: u64) -> f64 {
    round(part as f64 / all.max(1) as f64)
}

/// How long it takes until answers tell this revision.
async fn in_force(guard: &Proxy, revision: usize) -> Result<Duration> {
    let began = Instant::now();
    let wanted = revision.to_string();
    while began.elapsed() < PATIENCE {
        if told(guard)
            .await?
            .as_ref()
            .is_some_and(|told| told.as_bytes() == wanted.as_bytes())
        {
            return Ok(began.elapsed());
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!(
        "revision {revision} is not in force within {PATIENCE:?}; {}",
        guard.process.log_tail()
    )
}

async fn told(guard: &Proxy) -> Result<Option<HeaderValue>> {
    let stream = TcpStream::connect(guard.at)
        .await
        .context("connect to the guard")?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(driver);
    let mut request = Request::new(Empty::<Bytes>::new());
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("localhost"));
    let answer = sender.send_request(request).await?;
    let told = answer.headers().get(REVISION).cloned();
    answer.into_body().collect().await?;
    drop(sender);
    driving.await??;
    Ok(told)
}
