//! One venue at which everybody shows a code at once.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    CODES, CODES_WORK, Share, Watch,
    figures::{Phase, percent, phases, seconds},
    guards,
    people::{Measured, citizen, measured, only_answers, plan, stages},
    protection, work,
};
use crate::{
    load::{report::Report, run::Run},
    tour::Stage,
};

const RULE: &str = "venue";
/// Requests a second of all other venues, and of the one: 40 % of all.
const OTHERS_RATE: f64 = 66.0;
const VENUE_RATE: f64 = 44.0;
const VENUE: &str = "school-0571";
/// Seconds without the venue, and with it.
const WITHOUT: usize = 6;
const WITH: usize = 12;
/// The bars: until it is found, and how much less of the others may be served.
const FOUND_MAX: Duration = Duration::from_secs(3);
const HARM_MAX: f64 = 0.01;
/// What the policy lets a hot key have at the two guards together.
const LIMIT: f64 = 2.0 * 5.0;
/// By what more may pass in some seconds than the limit says, for what is left of a burst.
const LIMIT_MARGIN: f64 = 1.25;
/// So many seconds after it came people look at it: it is found, and what is left of bursts is used up.
const SHOWN_AFTER: usize = 6;
/// How often guards are asked what is hot.
const LOOK: Duration = Duration::from_millis(100);

/// What happened.
struct Story {
    /// After the first request of the venue, when both guards had named it.
    found: Option<Duration>,
    /// What people see while it is hot.
    shown: String,
    venue: Report,
    others: Report,
}

impl Measured for Story {
    fn reports(&self) -> Vec<&Report> {
        vec![&self.venue, &self.others]
    }
}

/// A venue that has four requests of ten.
pub(in crate::tour) async fn hot_key(stage: &mut Stage) -> Result<String> {
    guards(stage).await?;
    let stage = &*stage;
    let holds = |story: &Story, _| judge(story);
    let (story, part, note) =
        measured(Share::Half, async |part| play(stage, part).await, holds).await?;
    let told = told(&story, CODES_WORK.scaled(part).capacity());
    judge(&story).with_context(|| told.clone())?;
    Ok(format!("{note}{told}\nwhile it is hot, {}", story.shown))
}

async fn play(stage: &Stage, part: Share) -> Result<Story> {
    work(stage, CODES, CODES_WORK.scaled(part)).await?;
    let watch = Watch::of(stage, CODES)?;
    let others = stages([(part.of(OTHERS_RATE), WITHOUT + WITH)])?;
    let others = plan(
        stage,
        others,
        &[citizen("others", "/show?venue=venue-{key}")],
    )?;
    let venue = stages([(0.0, WITHOUT), (part.of(VENUE_RATE), WITH)])?;
    let venue = plan(
        stage,
        venue,
        &[citizen("venue", &format!("/show?venue={VENUE}"))],
    )?;
    let (mut others, mut venue) = (Run::start(others)?, Run::start(venue)?);
    let began = Instant::now();
    let comes = began + Duration::from_secs(WITHOUT as u64);
    sleep_until(comes).await;
    let found = found(&watch, comes + Duration::from_secs(WITH as u64)).await?;
    sleep_until(comes + Duration::from_secs(SHOWN_AFTER as u64)).await;
    let shown = protection(stage, CODES)?;
    Ok(Story {
        found,
        shown,
        venue: venue.finish().await?,
        others: others.finish().await?,
    })
}

/// How long it takes until both guards have named the venue.
async fn found(watch: &Watch, until: Instant) -> Result<Option<Duration>> {
    let began = Instant::now();
    let is_named = |rule: &Value| {
        let mut hot = rule["hot"].as_array().into_iter().flatten();
        hot.any(|hot| hot["key"] == VENUE)
    };
    while Instant::now() < until {
        if watch.rule(RULE).await?.iter().all(is_named) {
            return Ok(Some(began.elapsed()));
        }
        sleep(LOOK).await;
    }
    Ok(None)
}

fn without(report: &Report) -> Phase {
    Phase::of(&report.total, 0, WITHOUT)
}

fn with(report: &Report) -> Phase {
    Phase::of(&report.total, WITHOUT, WITHOUT + WITH)
}

/// The venue once it is limited.
fn limited(story: &Story) -> Phase {
    Phase::of(&story.venue.total, WITHOUT + SHOWN_AFTER, WITHOUT + WITH)
}

fn told(story: &Story, capacity: f64) -> String {
    let Story { venue, others, .. } = story;
    let mut text = format!(
        "two pods do {capacity:.0} a second: the others fit in, and with the venue they do not\n\n"
    );
    text.push_str(&phases([
        ("others, before", without(others)),
        ("others, with the venue", with(others)),
        ("the venue", with(venue)),
        ("the venue, limited", limited(story)),
    ]));
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\nboth guards found it after {} (bar {}); of the others {} were served, before {}",
        story.found.map_or("never".to_owned(), seconds),
        seconds(FOUND_MAX),
        percent(with(others).success()),
        percent(without(others).success())
    );
    text
}

fn judge(story: &Story) -> Result<()> {
    let Story { venue, others, .. } = story;
    only_answers(venue, &[])?;
    only_answers(others, &[])?;
    let found = story.found.context("the venue was not found")?;
    ensure!(
        found <= FOUND_MAX,
        "the venue was found after {found:?}, more than {FOUND_MAX:?}"
    );
    let harm = without(others).success() - with(others).success();
    ensure!(
        harm <= HARM_MAX,
        "{} fewer of the others were served with the venue, more than {}",
        percent(harm),
        percent(HARM_MAX)
    );
    let passed = limited(story).admitted;
    ensure!(
        passed > 0.0 && passed <= LIMIT * LIMIT_MARGIN,
        "of the venue {passed:.1} requests a second passed, not up to {LIMIT}"
    );
    Ok(())
}
