//! A dependency becomes slow and recovers: the breaker opens, the rest does not notice, and the
//! breaker closes by itself without sending a second storm.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{
    load::{
        Plan, Retry,
        mix::{Keys, Mix},
        report::{Report, Second},
        run::Run,
    },
    measure::{round, say},
};
use serde_json::json;

use super::{
    lab::{Lab, Proxy, Wire, browser, show, steady},
    policies::{Document, slow_breaker},
    upstream::{DEPENDENCY, Upstream},
};

const REST: &str = "/rest";
/// Requests a second.
const DEPENDENCY_RATE: f64 = 100.0;
const REST_RATE: f64 = 200.0;
/// The window of the breaker, and the bar of its opening.
const WINDOW: Duration = Duration::from_secs(5);
/// The dependency is quick, then slow, then quick again.
const QUICK: Duration = Duration::from_secs(6);
const SLOW: Duration = Duration::from_secs(12);
const AGAIN: Duration = Duration::from_secs(32);
/// How late it answers while it is slow: three times what the breaker takes for slow.
const DELAY: Duration = Duration::from_millis(1_500);
/// What people do who are refused.
const RETRY: Duration = Duration::from_secs(2);
const RETRIES: u32 = 2;
/// The bars: the rest's success, and calls of the recovered dependency within a second, in times of
/// what is asked for.
const REST_MIN: f64 = 0.999;
const STORM_MAX: f64 = 1.5;
/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Runs before the figure is given up.
const TRIES: usize = 3;

/// What happened, and when.
struct Story {
    began: Instant,
    /// After the dependency became slow.
    opened: Option<Duration>,
    slowed: Instant,
    recovered: Instant,
    dependency: Report,
    rest: Report,
}

pub(super) async fn measure(lab: &Lab) -> Result<()> {
    let upstream = Upstream::quick()?;
    let document = |port| Document {
        routes: vec![(DEPENDENCY, Some(0)), (REST, None)],
        ..Document::of(
            port,
            upstream.address(),
            json!({"breakers": [slow_breaker(WINDOW)]}),
        )
    };
    let guard = lab.guard(2, Wire::Http1, document).await?;
    let story = played(lab, &guard, &upstream).await?;
    let opened = story.opened.context("the breaker did not open")?;
    let closed = story.closed().context("the breaker did not close again")?;
    let reopened = story.refused_after(closed);
    let asked = upstream.asked();
    let during = asked
        .iter()
        .filter(|at| (story.slowed..story.recovered).contains(*at))
        .count();
    let peak = busiest(&asked, story.recovered);
    let rest = success(&story.rest);
    let slowest = |from: Duration, to: Duration| latency(&story.rest, from, to);
    let (calm, troubled) = (slowest(Duration::ZERO, QUICK), slowest(QUICK, QUICK + SLOW));
    say(&format!(
        "slow dependency: open after {:.2} s (bar {:.0} s), asked {during} times while slow, closed {:.1} s after it recovered, {reopened} refused after that, at most {peak} calls a second (bar {:.0}); the rest {:.2} % served, p99 {:.1} ms, {:.1} ms before",
        opened.as_secs_f64(),
        WINDOW.as_secs_f64(),
        story.after_recovery(closed).as_secs_f64(),
        STORM_MAX * DEPENDENCY_RATE,
        rest * 100.0,
        troubled.as_secs_f64() * 1e3,
        calm.as_secs_f64() * 1e3,
    ));
    show(
        "slow-dependency",
        &json!({
            "opened_seconds": round(opened.as_secs_f64()), "calls_while_slow": during,
            "closed_seconds_after_recovery": round(story.after_recovery(closed).as_secs_f64()),
            "refused_after_closing": reopened, "busiest_second": peak,
            "rest_success": round(rest), "rest_p99_millis": round(troubled.as_secs_f64() * 1e3),
            "reference": {
                "what": "the same before it was slow", "calls_per_second": DEPENDENCY_RATE,
                "rest_p99_millis": round(calm.as_secs_f64() * 1e3),
            },
            "ratio": round(f64::from(peak) / DEPENDENCY_RATE),
            "target": {"opened_seconds": WINDOW.as_secs(), "rest_success": REST_MIN,
                "refused_after_closing": 0, "busiest_second_times": STORM_MAX},
        }),
    )
}

async fn played(lab: &Lab, guard: &Proxy, upstream: &Upstream) -> Result<Story> {
    for _ in 0..TRIES {
        let story = play(lab, guard, upstream).await?;
        let reports = [&story.dependency, &story.rest];
        match reports
            .iter()
            .find_map(|report| report.void().first().copied())
        {
            None => return Ok(story),
            Some(void) => say(&format!("a run is void: {void}")),
        }
    }
    anyhow::bail!("{TRIES} runs were void: this machine is too busy");
}

async fn play(lab: &Lab, guard: &Proxy, upstream: &Upstream) -> Result<Story> {
    let mut retried = plan(lab, guard, DEPENDENCY, DEPENDENCY_RATE)?;
    retried.retry = Some(Retry::every(RETRY, RETRIES));
    let mut dependency = Run::start(retried)?;
    let mut rest = Run::start(plan(lab, guard, REST, REST_RATE)?)?;
    let began = Instant::now();
    tokio::time::sleep(QUICK).await;
    upstream.delay(DELAY);
    let slowed = Instant::now();
    let mut opened = None;
    while slowed.elapsed() < SLOW {
        tokio::time::sleep(LOOK).await;
        if opened.is_none() && dependency.progress().refused > 0 {
            opened = Some(slowed.elapsed());
        }
    }
    upstream.delay(Duration::ZERO);
    let recovered = Instant::now();
    let dependency = dependency.finish().await?;
    let rest = rest.finish().await?;
    Ok(Story {
        began,
        opened,
        slowed,
        recovered,
        dependency,
        rest,
    })
}

fn plan(lab: &Lab, guard: &Proxy, path: &str, rate: f64) -> Result<Plan> {
    let mix = Mix::of(&[browser(path)], Keys::Uniform { of: 1_000 })?;
    lab.plan(
        guard.at,
        Wire::Http1,
        steady(rate, QUICK + SLOW + AGAIN)?,
        mix,
    )
}

impl Story {
    /// The first second after the recovery in which nobody was refused, counted from the beginning.
    fn closed(&self) -> Option<usize> {
        let first = usize::try_from((self.recovered - self.began).as_secs()).ok()? + 1;
        let calm = |second: &Second| second.refused == 0 && second.succeeded > 0;
        let series = &self.dependency.total.series;
        (first..series.len()).find(|at| calm(&series[*at]))
    }

    fn after_recovery(&self, second: usize) -> Duration {
        Duration::from_secs(second as u64).saturating_sub(self.recovered - self.began)
    }

    fn refused_after(&self, second: usize) -> u64 {
        let series = &self.dependency.total.series;
        series
            .iter()
            .skip(second)
            .map(|second| second.refused)
            .sum()
    }
}

/// The most calls within any second from `since` on.
fn busiest(asked: &[Instant], since: Instant) -> u32 {
    let after: Vec<Instant> = asked.iter().copied().filter(|at| *at >= since).collect();
    let within = |(at, first): (usize, &Instant)| {
        let second = after[at..]
            .iter()
            .take_while(|call| **call - *first < Duration::from_secs(1));
        u32::try_from(second.count()).unwrap_or(u32::MAX)
    };
    after.iter().enumerate().map(within).max().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn success(report: &Report) -> f64 {
    report.total.succeeded as f64 / report.total.attempts.max(1) as f64
}

/// The p99 of what was sent in these seconds.
fn latency(report: &Report, from: Duration, to: Duration) -> Duration {
    let [from, to] = [from, to].map(|at| usize::try_from(at.as_secs()).unwrap_or(usize::MAX));
    let mut all = e2e::load::latency::Latency::default();
    for second in report.total.series.iter().take(to).skip(from) {
        all.merge(&second.latency);
    }
    all.quantile(0.99)
}
