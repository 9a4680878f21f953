//! A dependency becomes slow and recovers: the breakers open, the rest does not notice, and they close by
//! themselves.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    CODES, CODES_WORK, Share, Watch, Work,
    figures::{Phase, percent, phases, seconds, share},
    guards,
    people::{Measured, citizen, measured, only_answers, plan, stages},
    protection, work,
};
use crate::{
    load::{
        Retry,
        report::{Report, table::short},
        run::Run,
    },
    tour::Stage,
};

const APP: (&str, &str) = ("health", "test-results");
const RULE: &str = "slow";
/// Requests a second for results, and for codes beside them.
const RESULTS_RATE: f64 = 30.0;
const CODES_RATE: f64 = 40.0;
/// More at a time than are ever under way: it is slow, not busy.
const AT_A_TIME: u32 = 1_000;
const QUICK: Duration = Duration::from_millis(200);
const SLOW: Duration = Duration::from_secs(8);
/// Seconds in which it is quick, slow, and quick again: a breaker that has opened three times tries again after
/// eight seconds, and lets in a growing share for ten.
const BEFORE: usize = 5;
const DURING: usize = 10;
const AFTER: usize = 22;
/// The window of the breaker, as the policy says, within which it opens.
const WINDOW: Duration = Duration::from_secs(5);
/// What the guards answer to what they passed on and was not answered in time.
const TOO_SLOW: u16 = 504;
/// What people do who are turned away, or wait too long.
const RETRY: Duration = Duration::from_secs(2);
const RETRIES: u32 = 2;
/// The bars of the codes: their success, and how much longer they take while the other is slow. A code takes 80 ms;
/// whatever waits behind results would take seconds.
const CODES_MIN: f64 = 0.999;
const LONGER_MAX: Duration = Duration::from_millis(100);
/// How often guards are asked where their breakers stand.
const LOOK: Duration = Duration::from_millis(100);

/// What happened.
struct Story {
    /// After it became slow, when the last guard had opened.
    opened: Option<Duration>,
    /// After it was quick again, when the last guard had closed.
    closed: Option<Duration>,
    results: Report,
    codes: Report,
}

impl Measured for Story {
    fn reports(&self) -> Vec<&Report> {
        vec![&self.results, &self.codes]
    }
}

/// A dependency that is slow for a while.
pub(in crate::tour) async fn slow_dependency(stage: &mut Stage) -> Result<String> {
    guards(stage).await?;
    let stage = &*stage;
    let holds = |story: &Story, _| judge(story);
    let (story, _, note) =
        measured(Share::Half, async |part| play(stage, part).await, holds).await?;
    let told = told(&story);
    judge(&story).with_context(|| told.clone())?;
    Ok(format!("{note}{told}\n{}", protection(stage, APP)?))
}

async fn play(stage: &Stage, part: Share) -> Result<Story> {
    let of = |latency| Work {
        latency,
        at_a_time: AT_A_TIME,
    };
    work(stage, APP, of(QUICK)).await?;
    work(stage, CODES, CODES_WORK.scaled(part)).await?;
    let watch = Watch::of(stage, APP)?;
    let lasts = BEFORE + DURING + AFTER;
    let steady = |rate: f64, label, path| {
        let schedule = stages([(part.of(rate), lasts)])?;
        plan(stage, schedule, &[citizen(label, path)])
    };
    let mut results = steady(RESULTS_RATE, "results", "/results")?;
    results.retry = Some(Retry::every(RETRY, RETRIES));
    let codes = steady(CODES_RATE, "codes", "/show")?;
    let (mut results, mut codes) = (Run::start(results)?, Run::start(codes)?);
    let began = Instant::now();
    let after = |part: usize| began + Duration::from_secs(part as u64);
    sleep_until(after(BEFORE)).await;
    work(stage, APP, of(SLOW)).await?;
    let opened = first(&watch, "Open", after(BEFORE + DURING)).await?;
    sleep_until(after(BEFORE + DURING)).await;
    work(stage, APP, of(QUICK)).await?;
    let closed = first(&watch, "Closed", after(lasts)).await?;
    Ok(Story {
        opened,
        closed,
        results: results.finish().await?,
        codes: codes.finish().await?,
    })
}

/// How long it takes until the breaker of each guard was seen in a state.
async fn first(watch: &Watch, state: &str, until: Instant) -> Result<Option<Duration>> {
    let began = Instant::now();
    let mut seen = Vec::new();
    while Instant::now() < until {
        let is_so = |rule: &Value| rule["state"] == state;
        let now: Vec<bool> = watch.rule(RULE).await?.iter().map(is_so).collect();
        seen.resize(now.len(), false);
        seen.iter_mut()
            .zip(now)
            .for_each(|(seen, now)| *seen |= now);
        if seen.iter().all(|seen| *seen) {
            return Ok(Some(began.elapsed()));
        }
        sleep(LOOK).await;
    }
    Ok(None)
}

fn phase(report: &Report, part: usize) -> Phase {
    let bounds = [0, BEFORE, BEFORE + DURING, BEFORE + DURING + AFTER];
    Phase::of(&report.total, bounds[part], bounds[part + 1])
}

fn told(story: &Story) -> String {
    let Story { results, codes, .. } = story;
    let mut text = format!(
        "results take {} ms, then {} s, then {0} ms again; the guards wait for 2 s\n\n",
        QUICK.as_millis(),
        SLOW.as_secs(),
    );
    text.push_str(&phases([
        ("results, quick", phase(results, 0)),
        ("results, slow", phase(results, 1)),
        ("results, quick again", phase(results, 2)),
        ("codes, meanwhile quick", phase(codes, 0)),
        ("codes, meanwhile slow", phase(codes, 1)),
        ("codes, quick again", phase(codes, 2)),
    ]));
    let time = |time: Option<Duration>| time.map_or("never".to_owned(), seconds);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\nboth guards left it alone {} after it became slow (bar {}), and asked all of it again {} after it recovered",
        time(story.opened),
        seconds(WINDOW),
        time(story.closed)
    );
    let _ = writeln!(
        text,
        "codes meanwhile: {} shown, p99 {} (before {})",
        percent(share(codes.total.succeeded, codes.total.attempts)),
        short(phase(codes, 1).p99()),
        short(phase(codes, 0).p99())
    );
    text
}

fn judge(story: &Story) -> Result<()> {
    let Story { results, codes, .. } = story;
    only_answers(results, &[TOO_SLOW])?;
    only_answers(codes, &[])?;
    let opened = story.opened.context("the breakers did not open")?;
    ensure!(
        opened <= WINDOW,
        "the breakers were open after {opened:?}, more than their window {WINDOW:?}"
    );
    let closed = story.closed.context("the breakers did not close")?;
    // The second in which they closed has refusals of before.
    let calm = BEFORE + DURING + usize::try_from(closed.as_secs())? + 2;
    let last = Phase::of(&results.total, calm, BEFORE + DURING + AFTER);
    ensure!(
        last.shed + last.failed == 0.0 && last.admitted > 0.0,
        "after the breakers had closed {:.1} requests a second were turned away",
        last.shed + last.failed
    );
    let success = share(codes.total.succeeded, codes.total.attempts);
    ensure!(
        success >= CODES_MIN,
        "{} of the codes were shown beside a slow dependency, less than {}",
        percent(success),
        percent(CODES_MIN)
    );
    let (before, meanwhile) = (phase(codes, 0).p99(), phase(codes, 1).p99());
    ensure!(
        meanwhile <= before + LONGER_MAX,
        "codes took {meanwhile:?} at the 99th percentile beside a slow dependency, {before:?} before"
    );
    Ok(())
}
