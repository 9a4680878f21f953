//! Ten times the load within a moment, and everybody who is turned away tries again.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    CODES, CODES_WORK, Share,
    figures::{Phase, kinds, percent, phases, share},
    guards,
    people::{Measured, citizen, measured, only_answers, plan, stages},
    protection, work,
};
use crate::{
    load::{Retry, report::Report, run::run},
    tour::Stage,
};

/// Requests a second on a usual morning: a fifth of the capacity.
const USUAL: f64 = 20.0;
/// What the peak has in times of that: twice the capacity, and seven times with all that is tried again.
const TIMES: f64 = 10.0;
/// Of a hundred requests so many show a code: 60 a second at the peak, which the pods stand.
const SHOWN: f64 = 30.0;
/// What people do who are turned away.
const RETRY: Retry = Retry {
    after: Duration::from_secs(2),
    times: 5,
    honours_retry_after: false,
};
/// Seconds before, at the peak, and after it: the last who are turned away come back for the last time two to
/// two and a half seconds times five later, which leaves some in which all is as before.
const BEFORE: usize = 4;
const PEAK: usize = 12;
const STORM: usize = 13;
const AT_REST: usize = 4;
/// Of the peak so many are left out: those in which guards find out how much the pods stand.
const SETTLE: usize = 2;
/// The bars.
const CORE_MIN: f64 = 0.99;
const GOODPUT_MIN: f64 = 0.9;
/// More than the pods can do is no goodput, but a sign that they are not what limits it. Poisson arrivals
/// and waits leave this much at the edges of ten seconds.
const GOODPUT_MAX: f64 = 1.05;

const CORE: &str = "show-code (Core)";
const ANCILLARY: &str = "statistics (Ancillary)";

impl Measured for Report {
    fn reports(&self) -> Vec<&Report> {
        vec![self]
    }
}

/// The tenfold of the load, and what becomes of it.
pub(in crate::tour) async fn overload(stage: &mut Stage) -> Result<String> {
    guards(stage).await?;
    let stage = &*stage;
    let holds = |report: &Report, part| judge(report, CODES_WORK.scaled(part).capacity());
    let (report, part, note) =
        measured(Share::Half, async |part| play(stage, part).await, holds).await?;
    let capacity = CODES_WORK.scaled(part).capacity();
    let told = told(&report, capacity);
    judge(&report, capacity).with_context(|| told.clone())?;
    Ok(format!("{note}{told}\n{}", protection(stage, CODES)?))
}

async fn play(stage: &Stage, part: Share) -> Result<Report> {
    work(stage, CODES, CODES_WORK.scaled(part)).await?;
    let usual = part.of(USUAL);
    let schedule = stages([
        (usual, BEFORE),
        (usual * TIMES, PEAK),
        (usual, STORM + AT_REST),
    ])?;
    let mut shown = citizen(CORE, "/show?venue=venue-{key}");
    shown.weight = SHOWN;
    let mut statistics = citizen(ANCILLARY, "/statistics");
    statistics.weight = 100.0 - SHOWN;
    let mut plan = plan(stage, schedule, &[shown, statistics])?;
    plan.retry = Some(RETRY);
    run(plan).await
}

/// The settled part of the peak.
fn peak(report: &Report) -> Phase {
    Phase::of(&report.total, BEFORE + SETTLE, BEFORE + PEAK)
}

fn at_rest(report: &Report) -> Phase {
    let after = BEFORE + PEAK + STORM;
    Phase::of(&report.total, after, after + AT_REST)
}

fn told(report: &Report, capacity: f64) -> String {
    let over = BEFORE + PEAK;
    let goodput = peak(report).admitted;
    let mut text = format!(
        "two pods take {} ms over a request and do {capacity:.0} a second; who is turned away tries again after {} s, {} times\n\n",
        CODES_WORK.latency.as_millis(),
        RETRY.after.as_secs(),
        RETRY.times
    );
    text.push_str(&phases([
        ("before", Phase::of(&report.total, 0, BEFORE)),
        ("peak", peak(report)),
        ("then", Phase::of(&report.total, over, over + STORM)),
        ("at rest", at_rest(report)),
    ]));
    text.push('\n');
    text.push_str(&kinds(report));
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\ngoodput at the peak: {goodput:.0} a second, {} of what the pods can do (bar {})",
        percent(goodput / capacity),
        percent(GOODPUT_MIN)
    );
    text
}

fn judge(report: &Report, capacity: f64) -> Result<()> {
    only_answers(report, &[])?;
    let core = report.labels.get(CORE).context("no code was asked for")?;
    for (what, some) in [
        ("at the first try", core.served_at_once),
        ("at last", core.served),
    ] {
        let success = share(some, core.offered);
        ensure!(
            success >= CORE_MIN,
            "{} of the codes were shown {what}, less than {}",
            percent(success),
            percent(CORE_MIN)
        );
    }
    let goodput = peak(report).admitted / capacity;
    ensure!(
        (GOODPUT_MIN..=GOODPUT_MAX).contains(&goodput),
        "goodput at the peak is {} of what the pods can do, not {} to {}",
        percent(goodput),
        percent(GOODPUT_MIN),
        percent(GOODPUT_MAX)
    );
    let rest = at_rest(report);
    ensure!(
        rest.wanted > 0.0 && rest.shed + rest.failed == 0.0,
        "after the peak {:.1} requests a second were turned away",
        rest.shed + rest.failed
    );
    Ok(())
}
