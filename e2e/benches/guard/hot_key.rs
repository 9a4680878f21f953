//! One venue asks for 40 % of everything, more than the target stands.

use std::time::Duration;

use anyhow::Result;
use e2e::{
    load::{
        Plan,
        mix::{Keys, Kind, Mix},
        report::Report,
        run::Run,
    },
    measure::{round, say},
};
use serde_json::json;

use super::{
    lab::{Lab, Proxy, Wire, browser, exactly, show, steady},
    policies::{Document, VENUE, quota},
    upstream::Upstream,
};

/// The target: about 550 a second, as the timers wake at whole milliseconds.
const WORKERS: usize = 6;
const WORK: Duration = Duration::from_millis(10);
/// All the others together, which the target stands, and the one, with which it does not.
const OTHERS_RATE: f64 = 420.0;
const HOT_RATE: f64 = 280.0;
/// What a hot key may do.
const HOT_LIMIT: u32 = 50;
const LASTS: Duration = Duration::from_secs(15);
/// The bars.
const FOUND_MAX: Duration = Duration::from_secs(3);
const HARM_MAX: f64 = 0.01;
/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Runs before the figure is given up.
const TRIES: usize = 3;

const HOT: &str = "hot";
const OTHERS: &str = "others";

pub(super) async fn measure(lab: &Lab) -> Result<()> {
    let upstream = Upstream::of(WORKERS, WORK)?;
    let policy = json!({"hotKeys": [{"name": "venue", "key": [{"header": VENUE}],
        "hot": {"hotAtPercent": 10}, "limit": quota(HOT_LIMIT, HOT_LIMIT)}]});
    let document = |port| Document::of(port, upstream.address(), policy.clone());
    let guard = lab.guard(2, Wire::Http1, document).await?;
    let alone = || Ok([plan(lab, &guard, OTHERS_RATE, &[others()])?]);
    let [undisturbed] = exactly(alone).await?;
    let undisturbed = success(&undisturbed, OTHERS);
    let (found, report) = disturbed(lab, &guard).await?;
    let harm = undisturbed - success(&report, OTHERS);
    let refused = report.labels.get(OTHERS).map_or(0, |tally| tally.refused);
    let hot = report.labels.get(HOT).map_or(0, |tally| tally.succeeded);
    // Without a rule.
    let bare = Upstream::of(WORKERS, WORK)?;
    let open = |port| Document::of(port, bare.address(), json!({}));
    let open = lab.guard(2, Wire::Http1, open).await?;
    let together = || Ok([plan(lab, &open, OTHERS_RATE + HOT_RATE, &both())?]);
    let [unprotected] = exactly(together).await?;
    let unprotected = success(&unprotected, OTHERS);
    say(&format!(
        "hot key: found after {:.2} s (bar {:.0} s), {refused} of the others refused, their success {:.2} % below undisturbed (bar {:.0} %); without a rule {:.1} % below",
        found.as_secs_f64(),
        FOUND_MAX.as_secs_f64(),
        harm * 100.0,
        HARM_MAX * 100.0,
        (undisturbed - unprotected) * 100.0,
    ));
    show(
        "hot-key",
        &json!({
            "share": round(HOT_RATE / (HOT_RATE + OTHERS_RATE)), "found_seconds": round(found.as_secs_f64()),
            "others_refused": refused, "others_success": round(undisturbed - harm), "hot_passed": hot,
            "reference": {
                "what": "the others alone", "success": round(undisturbed),
                "without_a_rule": round(unprotected),
            },
            "ratio": round((undisturbed - harm) / undisturbed),
            "target": {"found_seconds": FOUND_MAX.as_secs(), "harm": HARM_MAX, "others_refused": 0},
        }),
    )
}

/// The run with the hot key, and when it was first refused.
async fn disturbed(lab: &Lab, guard: &Proxy) -> Result<(Duration, Report)> {
    for _ in 0..TRIES {
        let mut run = Run::start(plan(lab, guard, OTHERS_RATE + HOT_RATE, &both())?)?;
        let mut found = None;
        let report = loop {
            tokio::select! {
                report = run.finish() => break report?,
                () = tokio::time::sleep(LOOK) => {
                    let progress = run.progress();
                    if found.is_none() && progress.refused > 0 {
                        found = Some(progress.elapsed);
                    }
                }
            }
        };
        match report.void().first() {
            None => return Ok((found.unwrap_or(LASTS), report)),
            Some(void) => say(&format!("a run is void: {void}")),
        }
        // What was hot is forgotten.
        tokio::time::sleep(LASTS).await;
    }
    anyhow::bail!("{TRIES} runs were void: this machine is too busy");
}

fn plan(lab: &Lab, guard: &Proxy, rate: f64, kinds: &[Kind]) -> Result<Plan> {
    let mix = Mix::of(kinds, Keys::Uniform { of: 1_000 })?;
    lab.plan(guard.at, Wire::Http1, steady(rate, LASTS)?, mix)
}

fn others() -> Kind {
    Kind {
        label: OTHERS.to_owned(),
        weight: OTHERS_RATE,
        ..browser("/")
    }
}

fn both() -> Vec<Kind> {
    let mut hot = browser("/");
    hot.headers.insert(VENUE.to_owned(), "venue-hot".to_owned());
    vec![
        others(),
        Kind {
            label: HOT.to_owned(),
            weight: HOT_RATE,
            ..hot
        },
    ]
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn success(report: &Report, label: &str) -> f64 {
    let tally = report.labels.get(label);
    tally.map_or(0.0, |tally| {
        tally.succeeded as f64 / tally.attempts.max(1) as f64
    })
}
