//! What 100,000 live keys cost in memory, against a guard that did the same without keys.

use anyhow::{Context, Result, bail, ensure};
use e2e::measure::{round, say, usage::peak_rss_mib};
use futures::future::try_join_all;
use http::{HeaderValue, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle};

use super::{
    lab::{Lab, Proxy, Wire, show},
    policies::{CITIZEN, Document},
    upstream::Upstream,
};

/// Keys that are alive at one time.
const KEYS: usize = 100_000;
/// The bar.
const MIB_MAX: f64 = 32.0;
/// Connections, each of which asks for one key after the other.
const CONNECTIONS: usize = 32;
/// Of all keys so many may have lost their place to another: they begin with its debt, and are
/// refused one request early.
const LOST_ONE_IN: usize = 1_000;

/// Answers by kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Answers {
    passed: usize,
    refused: usize,
}

pub(super) async fn measure(lab: &Lab) -> Result<()> {
    let upstream = Upstream::quick()?;
    let (without, answers) = peak(lab, &upstream, json!({})).await?;
    ensure!(
        answers.iter().all(|all| all.passed == KEYS),
        "without keys nobody is refused: {answers:?}"
    );
    // One request of a key passes in a day: a key that is forgotten passes again.
    let policy = json!({"rateLimits": [{"name": "each", "scope": "Cluster", "key": [{"header": CITIZEN}],
        "quota": {"rate": {"requests": 1, "perSeconds": 86_400}, "burst": 1}}]});
    let (with, [first, second]) = peak(lab, &upstream, policy).await?;
    ensure!(
        second.passed == 0 && first.refused * LOST_ONE_IN < KEYS,
        "{KEYS} keys were not told apart: at first {first:?}, then {second:?}"
    );
    let more = with - without;
    say(&format!(
        "{KEYS} live keys: {more:.1} MiB more (bar {MIB_MAX:.0}), {with:.1} and {without:.1} MiB; none was forgotten, {} early refusals",
        first.refused
    ));
    show(
        "live-keys",
        &json!({
            "keys": KEYS, "mib_more": round(more), "peak_rss_mib": round(with),
            "refused_early": first.refused, "forgotten": second.passed,
            "reference": {"what": "the same requests without a limit by key", "peak_rss_mib": round(without)},
            "ratio": round(with / without), "target_mib_more": MIB_MAX,
        }),
    )
}

/// Peak memory after all keys were seen twice.
async fn peak(lab: &Lab, upstream: &Upstream, policy: Value) -> Result<(f64, [Answers; 2])> {
    let document = |port| Document::of(port, upstream.address(), policy);
    let guard = lab.guard(2, Wire::Http1, document).await?;
    let answers = [ask(&guard).await?, ask(&guard).await?];
    Ok((peak_rss_mib(guard.pid()?)?, answers))
}

/// Asks once for every key.
async fn ask(guard: &Proxy) -> Result<Answers> {
    let connections = (0..CONNECTIONS).map(|connection| ask_some(guard, connection));
    let all = try_join_all(connections).await?;
    let sum = |of: fn(&Answers) -> usize| all.iter().map(of).sum();
    Ok(Answers {
        passed: sum(|all| all.passed),
        refused: sum(|all| all.refused),
    })
}

/// Asks for every key of one connection.
async fn ask_some(guard: &Proxy, connection: usize) -> Result<Answers> {
    let stream = TcpStream::connect(guard.at)
        .await
        .context("connect to the guard")?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let driving: JoinHandle<_> = tokio::spawn(driver);
    let mut answers = Answers::default();
    for key in (connection..KEYS).step_by(CONNECTIONS) {
        let mut request = Request::new(Empty::<Bytes>::new());
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(
            CITIZEN,
            HeaderValue::from_str(&format!("610102-{key:018}"))?,
        );
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        match answer.status() {
            StatusCode::OK => answers.passed += 1,
            StatusCode::TOO_MANY_REQUESTS => answers.refused += 1,
            other => bail!("the guard answered {other}"),
        }
        answer.into_body().collect().await?;
    }
    drop(sender);
    driving.await??;
    Ok(answers)
}
