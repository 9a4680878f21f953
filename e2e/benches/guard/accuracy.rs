//! How many requests a limit lets pass when ten times as many come.

use std::time::Duration;

use anyhow::Result;
use e2e::{
    load::{
        mix::{Keys, Kind, Mix},
        report::{Report, Tally},
    },
    measure::{round, say},
};
use serde_json::json;

use super::{
    envoy::Filter,
    lab::{Lab, Proxy, Wire, browser, exactly, show, steady},
    policies::{CITIZEN, Document, each, total},
    upstream::Upstream,
};

/// The limit, per second, and its burst.
const LIMIT: u32 = 200;
/// Ten times the limit.
const OFFERED: f64 = 2_000.0;
const LASTS: Duration = Duration::from_secs(6);
/// How far the admitted may lie from limit and burst, as a share.
const TARGET: f64 = 0.02;
/// Threads of the proxies: two that count on one limit.
const THREADS: usize = 2;
/// The limit of each key, of which one asks for ten times as much.
const KEY_LIMIT: u32 = 100;
/// What the other keys ask for, each less than its limit.
const MODEST: [&str; 2] = ["one", "two"];
const MODEST_RATE: f64 = 60.0;
const GREEDY: &str = "greedy";
/// Over all keys: enough for the limit of the greedy one and for the others, not for its refusals.
const KEYS_TOTAL: u32 = 260;

pub(super) async fn measure(lab: &Lab) -> Result<()> {
    let upstream = Upstream::quick()?;
    let policy = json!({"rateLimits": [total(LIMIT, LIMIT)]});
    let document = |port| Document::of(port, upstream.address(), policy);
    let guard = lab.guard(THREADS, Wire::Http1, document).await?;
    let own = admitted(lab, &guard).await?;
    let reference = match lab.envoy_version() {
        Ok(version) => {
            let limit = Filter::LocalRateLimit {
                per_second: LIMIT,
                burst: LIMIT,
            };
            let envoy = lab
                .envoy(THREADS, Wire::Http1, upstream.address(), &[limit])
                .await?;
            Some((version, admitted(lab, &envoy).await?))
        }
        Err(_) => None,
    };
    let other = reference.as_ref().map(|(version, error)| {
        json!({"what": format!("{version} with its local rate limit"), "error": round(*error)})
    });
    say(&format!(
        "accuracy of {LIMIT}/s with {OFFERED}/s offered: {:+.2} % of limit + burst, bar {:.0} %; Envoy {}",
        own * 100.0,
        TARGET * 100.0,
        reference
            .as_ref()
            .map_or("none".to_owned(), |(_, error)| format!(
                "{:+.2} %",
                error * 100.0
            )),
    ));
    show(
        "accuracy",
        &json!({
            "limit": LIMIT, "burst": LIMIT, "offered_per_second": OFFERED, "threads": THREADS,
            "error": round(own), "reference": other,
            "ratio": reference.map(|(_, error)| round(own.abs() / error.abs().max(1e-3))),
            "target": TARGET,
        }),
    )?;
    apart(lab, &upstream).await
}

/// By what share the admitted differ from limit and burst.
async fn admitted(lab: &Lab, proxy: &Proxy) -> Result<f64> {
    let plan = || {
        let mix = Mix::of(&[browser("/")], Keys::Uniform { of: 1_000 })?;
        Ok([lab.plan(proxy.at, Wire::Http1, steady(OFFERED, LASTS)?, mix)?])
    };
    let [report] = exactly(plan).await?;
    let allowed = f64::from(LIMIT) * (1.0 + LASTS.as_secs_f64());
    Ok(count(report.total.succeeded) / allowed - 1.0)
}

/// One key asks for ten times its limit: it gets the limit, and the others, and the total, do not
/// notice what it was refused.
async fn apart(lab: &Lab, upstream: &Upstream) -> Result<()> {
    let policy = json!({"rateLimits": [
        total(KEYS_TOTAL, KEYS_TOTAL), each(CITIZEN, KEY_LIMIT, KEY_LIMIT),
    ]});
    let document = |port| Document::of(port, upstream.address(), policy);
    let guard = lab.guard(THREADS, Wire::Http1, document).await?;
    let greedy = f64::from(KEY_LIMIT) * 10.0;
    #[expect(clippy::cast_precision_loss, reason = "two")]
    let all = greedy + MODEST_RATE * MODEST.len() as f64;
    let plan = || {
        let mut kinds = vec![of(GREEDY, greedy)];
        kinds.extend(MODEST.map(|key| of(key, MODEST_RATE)));
        let mix = Mix::of(&kinds, Keys::Uniform { of: 1 })?;
        Ok([lab.plan(guard.at, Wire::Http1, steady(all, LASTS)?, mix)?])
    };
    let [report] = exactly(plan).await?;
    let allowed = f64::from(KEY_LIMIT) * (1.0 + LASTS.as_secs_f64());
    let error = count(tally(&report, GREEDY).succeeded) / allowed - 1.0;
    let modest: u64 = MODEST.iter().map(|key| tally(&report, key).attempts).sum();
    let served: u64 = MODEST.iter().map(|key| tally(&report, key).succeeded).sum();
    say(&format!(
        "one key at ten times its limit: {:+.2} % of limit + burst, bar {:.0} %; of the others {served} of {modest} pass",
        error * 100.0,
        TARGET * 100.0,
    ));
    show(
        "accuracy-by-key",
        &json!({
            "limit": KEY_LIMIT, "burst": KEY_LIMIT, "offered_per_second": greedy, "threads": THREADS,
            "error": round(error), "target": TARGET,
            "others": {"sent": modest, "passed": served},
            "reference": {"what": "what the others asked for", "sent": modest},
            "ratio": round(count(served) / count(modest)),
        }),
    )
}

/// Requests of one citizen.
fn of(key: &str, weight: f64) -> Kind {
    let mut kind = browser("/");
    kind.headers.insert(CITIZEN.to_owned(), key.to_owned());
    Kind {
        label: key.to_owned(),
        weight,
        ..kind
    }
}

fn tally<'a>(report: &'a Report, label: &str) -> &'a Tally {
    report.labels.get(label).unwrap_or(&report.total)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn count(count: u64) -> f64 {
    count as f64
}
