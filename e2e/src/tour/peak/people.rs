//! Who asks, how often, and whether what was measured counts.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::{Share, running};
use crate::{
    load::{
        Limits, Plan,
        mix::{Keys, Kind, Mix},
        report::Report,
        schedule::{Arrivals, Rate, Schedule},
        target::{Protocol, Target},
    },
    tour::{Stage, say},
};

/// Where the health code is asked for.
pub(super) const CODE: &str = "code.health.example";
/// People, each with a key of their own. A run has a tenth as many requests, so that few come twice.
const PEOPLE: u32 = 100_000;
/// Beyond the 3 s after which guards give up what they passed on: what they say is heard.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How late a send may be: a tenth of the half second for which guards let requests wait.
const LAG: Duration = Duration::from_millis(50);
/// What waits or runs at both guards at a time is some hundreds; the rest is for requests to slow pods.
const CONNECTIONS: usize = 2_048;
/// Open from the start, so that the first second is as the others.
const WARM: usize = 32;

/// What a step has measured.
pub(super) trait Measured {
    /// The runs that it measured by.
    fn reports(&self) -> Vec<&Report>;
}

/// Plays a step, and once more where the machine could not keep up. At half of its rates and capacities that is a
/// generator that was late or a bar that is missed: the guards share its two cores with all else. At the whole ones it
/// is the generator alone, as a second try must not hide a miss. What a void run shows is never told, and the bars are
/// the same both times. Returns a line that says so if it was.
pub(super) async fn measured<M: Measured>(
    again: Share,
    play: impl AsyncFn(Share) -> Result<M>,
    judge: impl Fn(&M, Share) -> Result<()>,
) -> Result<(M, Share, String)> {
    let whole = play(Share::Whole).await?;
    let missed = || match again {
        Share::Whole => None,
        Share::Half => judge(&whole, Share::Whole).err().map(|why| why.to_string()),
    };
    let Some(why) = void(&whole).or_else(missed) else {
        return Ok((whole, Share::Whole, String::new()));
    };
    let (note, now) = match again {
        Share::Whole => (format!("played twice: the first time {why}\n"), "as before"),
        Share::Half => (
            format!("played at half of the rates and capacities: at the whole ones {why}\n"),
            "at half of the rates",
        ),
    };
    say(&format!("once more {now}: {why}"));
    let second = play(again).await?;
    if let Some(why) = void(&second) {
        bail!("this machine is too busy: {note}now {why}");
    }
    Ok((second, again, note))
}

fn void(measured: &impl Measured) -> Option<String> {
    let mut reports = measured.reports().into_iter();
    reports.find_map(|report| report.void().first().map(ToString::to_string))
}

/// What a run sends to the guards of the city.
pub(super) fn plan(stage: &Stage, schedule: Schedule, kinds: &[Kind]) -> Result<Plan> {
    let addresses = running(stage)?.guards.iter().map(|guard| {
        let address = guard.http.trim_start_matches("http://");
        let address: Result<SocketAddr, _> = address.parse();
        address.with_context(|| format!("the guard's address {}", guard.http))
    });
    let addresses: Vec<SocketAddr> = addresses.collect::<Result<_>>()?;
    let (first, others) = addresses.split_first().context("no guard runs")?;
    let mut target = Target::at(*first, Protocol::Http1)?;
    for other in others {
        target = target.also_at(*other)?;
    }
    let mix = Mix::of(kinds, Keys::Uniform { of: PEOPLE })?;
    Ok(Plan {
        limits: Limits {
            connections: CONNECTIONS,
            warm: WARM,
            timeout: TIMEOUT,
            lag: LAG,
            ..Limits::default()
        },
        ..Plan::new(schedule, mix, target)
    })
}

/// Rates one after the other, each for so many seconds, as people come who do not know of each other.
pub(super) fn stages<const N: usize>(stages: [(f64, usize); N]) -> Result<Schedule> {
    let stage = |(rate, seconds): (f64, usize)| {
        anyhow::Ok(crate::load::schedule::Stage {
            rate: Rate::Constant(rate),
            arrivals: Arrivals::Poisson,
            lasts: Duration::from_secs(seconds.try_into()?),
        })
    };
    let stages: Vec<_> = stages.into_iter().map(stage).collect::<Result<_>>()?;
    Ok(Schedule::of(stages)?)
}

/// A citizen's request, each time another citizen's.
pub(super) fn citizen(label: &str, path: &str) -> Kind {
    let mut kind = Kind {
        label: label.to_owned(),
        path: path.to_owned(),
        ..Kind::get(CODE)
    };
    let headers = [("x-citizen", "330102-{key}"), ("accept-language", "zh-CN")];
    for (name, value) in headers {
        kind.headers.insert(name.to_owned(), value.to_owned());
    }
    kind
}

/// Whether guards said nothing but yes, or no with a reason: neither errors nor silence.
pub(super) fn only_answers(report: &Report, also: &[u16]) -> Result<()> {
    let fits = |status: &u16| matches!(status, 200..=299 | 429 | 503) || also.contains(status);
    let total = &report.total;
    ensure!(
        total.failures.is_empty() && total.statuses.keys().all(fits),
        "guards answered otherwise than by 2xx, 429 and 503:\n{}",
        report.table()
    );
    Ok(())
}
