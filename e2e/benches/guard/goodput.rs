//! Goodput when more is asked for than the target can do, with nothing configured but `adaptive`.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{
    load::{
        mix::{Keys, Kind, Mix},
        report::Report,
        schedule::{Arrivals, Rate, Schedule, Stage},
    },
    measure::{round, say},
};
use serde_json::{Value, json};

use super::{
    envoy::Filter,
    lab::{Lab, Proxy, Wire, browser, exactly, show},
    policies::Document,
    upstream::Upstream,
};

/// The target: 200 requests a second at most.
const WORKERS: usize = 4;
const WORK: Duration = Duration::from_millis(20);
const CAPACITY: f64 = 200.0;
/// What is offered, in times of that, one after the other. The first makes the peak.
const TIMES: [f64; 4] = [1.0, 2.0, 5.0, 10.0];
/// How long each lasts.
const STEP: usize = 12;
/// Of each step so many seconds are left out: what is measured is not the change.
const SETTLE: usize = 3;
/// Requests of tier Core, a third of what the target can do, at every step.
const CORE_RATE: f64 = 60.0;
/// Nobody waits longer; what comes later is no goodput.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The bars.
const GOODPUT_MIN: f64 = 0.9;
const CORE_MIN: f64 = 0.99;

const CORE: &str = "/core";
const ANCILLARY: &str = "/ancillary";

/// A second of a step on average.
struct Step {
    times: f64,
    goodput: f64,
    core: f64,
    ancillary: f64,
}

pub(super) async fn measure(lab: &Lab) -> Result<()> {
    let own = {
        let upstream = Upstream::of(WORKERS, WORK)?;
        let guard = lab
            .guard(2, Wire::Http1, |port| document(port, &upstream))
            .await?;
        steps(lab, &guard).await?
    };
    let upstream = Upstream::of(WORKERS, WORK)?;
    let filters = [Filter::AdaptiveConcurrency];
    let envoy = lab
        .envoy(2, Wire::Http1, upstream.address(), &filters)
        .await?;
    let other = steps(lab, &envoy).await?;
    let version = lab.envoy_version()?;
    let peak = |steps: &[Step]| steps.iter().map(|step| step.goodput).fold(0.0, f64::max);
    let (own_peak, other_peak) = (peak(&own), peak(&other));
    for (own, other) in own.iter().zip(&other).skip(1) {
        let share = own.goodput / own_peak;
        say(&format!(
            "goodput at {}x: guard {:.0}/s ({:.0} % of the peak, bar {:.0} %), Core {:.1} % (bar {:.0} %), Ancillary {:.0} %; Envoy adaptive {:.0}/s, Core {:.1} %",
            own.times,
            own.goodput,
            share * 100.0,
            GOODPUT_MIN * 100.0,
            own.core * 100.0,
            CORE_MIN * 100.0,
            own.ancillary * 100.0,
            other.goodput,
            other.core * 100.0,
        ));
        show(
            "goodput",
            &json!({
                "offered_times": own.times, "guard": own.json(own_peak),
                "reference": {
                    "what": format!("{version} with its adaptive concurrency"), "figures": other.json(other_peak),
                },
                "ratio": round(own.goodput / other.goodput.max(1.0)),
                "target": {"share_of_peak": GOODPUT_MIN, "core_success": CORE_MIN},
            }),
        )?;
    }
    Ok(())
}

/// Core and Ancillary on paths of their own; nothing has a number.
fn document(port: u16, upstream: &Upstream) -> Document {
    let policy =
        json!({"concurrency": "adaptive", "classes": [{"tier": "Core"}, {"tier": "Ancillary"}]});
    Document {
        routes: vec![(CORE, Some(0)), (ANCILLARY, Some(1))],
        ..Document::of(port, upstream.address(), policy)
    }
}

/// Core stays as it is while Ancillary grows: two generators, since shares of a mix do not change.
async fn steps(lab: &Lab, proxy: &Proxy) -> Result<Vec<Step>> {
    let lasts = Duration::from_secs(STEP as u64);
    let plan = |path: &str, rate: &dyn Fn(f64) -> f64| {
        let stages = TIMES.map(|times| Stage {
            rate: Rate::Constant(rate(times)),
            arrivals: Arrivals::Poisson,
            lasts,
        });
        let kind = Kind {
            label: path.to_owned(),
            ..browser(path)
        };
        let mix = Mix::of(&[kind], Keys::Uniform { of: 1_000 })?;
        let mut plan = lab.plan(proxy.at, Wire::Http1, Schedule::of(stages)?, mix)?;
        plan.limits.timeout = TIMEOUT;
        anyhow::Ok(plan)
    };
    let both = || {
        let ancillary = plan(ANCILLARY, &|times| times * CAPACITY - CORE_RATE)?;
        anyhow::Ok([plan(CORE, &|_| CORE_RATE)?, ancillary])
    };
    let [core, ancillary] = exactly(both).await?;
    let step = |(at, times): (usize, &f64)| {
        let seconds = (at * STEP + SETTLE)..(at + 1) * STEP;
        let goodput = |report: &Report| report.total.goodput(seconds.start, seconds.end);
        Some(Step {
            times: *times,
            goodput: goodput(&core) + goodput(&ancillary),
            core: success(&core, seconds.start, seconds.end)?,
            ancillary: success(&ancillary, seconds.start, seconds.end)?,
        })
    };
    let steps: Option<Vec<_>> = TIMES.iter().enumerate().map(step).collect();
    steps.context("a step in which nothing ended")
}

/// The share of what ended in these seconds that succeeded.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn success(report: &Report, from: usize, to: usize) -> Option<f64> {
    let seconds = report
        .total
        .series
        .get(from..to.min(report.total.series.len()))?;
    let succeeded: u64 = seconds.iter().map(|second| second.succeeded).sum();
    let others: u64 = seconds
        .iter()
        .map(|second| second.refused + second.failed)
        .sum();
    let all = succeeded + others;
    (all > 0).then(|| succeeded as f64 / all as f64)
}

impl Step {
    fn json(&self, peak: f64) -> Value {
        json!({
            "per_second": round(self.goodput), "share_of_peak": round(self.goodput / peak),
            "core_success": round(self.core), "ancillary_success": round(self.ancillary),
        })
    }
}
