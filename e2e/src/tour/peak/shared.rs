//! A service that Apps share, called through the guards by its host: it becomes slow, and is still there for the
//! App that matters most.
//!
//! Pods of the sandbox call nobody. The load tool plays both Apps, with the header by which each says who it is.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep_until};

use super::{
    Share, Work,
    figures::{Phase, kinds, percent, phases, share},
    guards,
    people::{measured, only_answers, plan, stages},
    protection, work,
};
use crate::{
    load::{
        Retry,
        mix::Kind,
        report::{Report, Tally, table::short},
        run::Run,
    },
    tour::Stage,
};

const APP: (&str, &str) = ("bigdata", "population");
const HOST: &str = "population.bigdata.example";
/// Requests a second of the App that matters, and of one that asks for more than its share.
const CORE_RATE: f64 = 8.0;
const OTHER_RATE: f64 = 60.0;
/// Two pods: 80 requests a second, and 16 while they are slow.
const QUICK: Work = Work {
    latency: Duration::from_millis(50),
    at_a_time: 2,
};
const SLOW: Work = Work {
    latency: Duration::from_millis(250),
    at_a_time: 2,
};
/// Seconds in which it is quick, slow, and quick again.
const BEFORE: usize = 5;
const DURING: usize = 10;
const AFTER: usize = 8;
/// So many seconds after a change are not judged: guards find out what the pods stand now.
const SETTLE: usize = 3;
/// What Apps do that are turned away.
const RETRY: Duration = Duration::from_secs(1);
const RETRIES: u32 = 2;
/// What the policy lets an App have at the two guards together, and the share of it that is there when the service
/// is quick.
const LIMIT: f64 = 2.0 * 12.0;
const LIMIT_USED_MIN: f64 = 0.7;
/// The bars: what is served of the App that matters, and how long an App is kept waiting for a no.
const CORE_MIN: f64 = 0.99;
const NO_MAX: Duration = Duration::from_secs(1);

const CORE: &str = "health/health-code";
const OTHER: &str = "statistics/reports";

/// A service that two Apps call.
pub(in crate::tour) async fn shared_service(stage: &mut Stage) -> Result<String> {
    guards(stage).await?;
    let stage = &*stage;
    let holds = |report: &Report, _| judge(report);
    // Never at half: the policy's four places and the half second in which one has to become free stay, so that a
    // service half as fast keeps the App that matters waiting twice as long.
    let again = Share::Whole;
    let (report, _, note) = measured(again, async |_| play(stage).await, holds).await?;
    let told = told(&report)?;
    judge(&report).with_context(|| told.clone())?;
    Ok(format!("{note}{told}\n{}", protection(stage, APP)?))
}

async fn play(stage: &Stage) -> Result<Report> {
    work(stage, APP, QUICK).await?;
    let schedule = stages([(CORE_RATE + OTHER_RATE, BEFORE + DURING + AFTER)])?;
    let kinds = [caller(CORE, CORE_RATE), caller(OTHER, OTHER_RATE)];
    let mut plan = plan(stage, schedule, &kinds)?;
    plan.retry = Some(Retry::every(RETRY, RETRIES));
    let mut calls = Run::start(plan)?;
    let began = Instant::now();
    let after = |part: usize| began + Duration::from_secs(part as u64);
    sleep_until(after(BEFORE)).await;
    work(stage, APP, SLOW).await?;
    sleep_until(after(BEFORE + DURING)).await;
    work(stage, APP, QUICK).await?;
    calls.finish().await
}

fn caller(app: &str, rate: f64) -> Kind {
    let mut kind = Kind {
        label: app.to_owned(),
        weight: rate,
        path: "/citizens/{key}".to_owned(),
        ..Kind::get(HOST)
    };
    kind.headers.insert("x-app".to_owned(), app.to_owned());
    kind
}

fn of<'a>(report: &'a Report, app: &str) -> Result<&'a Tally> {
    let tally = report.labels.get(app);
    tally.with_context(|| format!("{app} called nobody"))
}

fn settled(tally: &Tally, part: usize) -> Phase {
    let ends = [0, BEFORE, BEFORE + DURING, BEFORE + DURING + AFTER];
    Phase::of(tally, ends[part] + SETTLE, ends[part + 1])
}

fn told(report: &Report) -> Result<String> {
    let (core, other) = (of(report, CORE)?, of(report, OTHER)?);
    let mut text = format!(
        "two pods take {} ms over a call and do {:.0} a second, then {} ms and {:.0}, then as before\n\n",
        QUICK.latency.as_millis(),
        QUICK.capacity(),
        SLOW.latency.as_millis(),
        SLOW.capacity()
    );
    let spans = ["quick", "slow", "quick again"];
    let rows: Vec<(String, Phase)> = [(CORE, core), (OTHER, other)]
        .into_iter()
        .flat_map(|(app, tally)| {
            let named = spans.iter().enumerate();
            named.map(move |(part, name)| (format!("{app}, {name}"), settled(tally, part)))
        })
        .collect();
    text.push_str(&phases(
        rows.iter()
            .map(|(name, phase)| (name.as_str(), phase.clone())),
    ));
    text.push('\n');
    text.push_str(&kinds(report));
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\n{CORE} was served {} of its calls (bar {}); a no came within {} at the 99th percentile",
        percent(share(core.served, core.offered)),
        percent(CORE_MIN),
        short(report.total.refusal_latency.quantile(0.99))
    );
    Ok(text)
}

fn judge(report: &Report) -> Result<()> {
    only_answers(report, &[])?;
    let (core, other) = (of(report, CORE)?, of(report, OTHER)?);
    let success = share(core.served, core.offered);
    ensure!(
        success >= CORE_MIN,
        "{CORE} was served {} of its calls, less than {}",
        percent(success),
        percent(CORE_MIN)
    );
    ensure!(
        !core.statuses.contains_key(&429) && other.statuses.contains_key(&429),
        "the limit of each App did not fall on {OTHER} alone: {:?} and {:?}",
        core.statuses,
        other.statuses
    );
    let no = report.total.refusal_latency.quantile(0.99);
    ensure!(
        no <= NO_MAX,
        "a no came after {no:?} at the 99th percentile"
    );
    for part in [0, 2] {
        let passed = settled(other, part).admitted;
        ensure!(
            passed >= LIMIT * LIMIT_USED_MIN,
            "{OTHER} had {passed:.1} calls a second while the service was quick, of {LIMIT}"
        );
    }
    let (core, slow) = (settled(core, 1), settled(other, 1));
    ensure!(
        slow.success() < core.success(),
        "while the service was slow {OTHER} was served no less than {CORE}"
    );
    Ok(())
}
