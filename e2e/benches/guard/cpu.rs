//! CPU of a request: passed against bare Envoy, refused against Envoy's local rate limit.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use e2e::{
    load::{
        mix::{Keys, Mix},
        report::Report,
        run,
    },
    measure::{median, round, say},
};
use serde_json::{Value, json};

use super::{
    envoy::Filter,
    lab::{Lab, Proxy, Wire, browser, show, slower, steady},
    policies::{Document, chain},
    upstream::Upstream,
};

/// What a request that is passed may cost of what it costs bare Envoy.
const PASSED_MAX: f64 = 0.7;
/// What a request that is refused may cost of what it costs Envoy's local rate limit.
const REFUSED_MAX: f64 = 0.5;
/// Requests a second at first: what a generator, a proxy and an upstream do on two cores with room
/// to spare.
const PASSED_RATE: f64 = 4_000.0;
/// Refusals need no upstream.
const REFUSED_RATE: f64 = 6_000.0;
/// One run: some thousand requests, a hundred times what the kernel's account is exact to.
const LASTS: Duration = Duration::from_secs(2);
/// Before anything counts: connections, memory and branch predictors are warm.
const WARM: Duration = Duration::from_millis(500);
/// Pairs of runs of which the median counts; even, so that each side goes first as often.
const PAIRS: usize = 6;
/// Rates that are tried before a figure is given up.
const RATES: usize = 9;
/// Of all requests so many may end otherwise than the figure is about.
const OTHERS_ONE_IN: u64 = 100;
/// Citizens.
const KEYS: u32 = 1_000;

/// What becomes of the requests of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passed,
    Refused,
}

/// Two proxies in one setting.
struct Pair<'a> {
    lab: &'a Lab,
    wire: Wire,
    fate: Fate,
    guard: &'a Proxy,
    envoy: &'a Proxy,
}

/// Microseconds of CPU a request, in each pair of runs.
struct Costs {
    rate: f64,
    guard: Vec<f64>,
    envoy: Vec<f64>,
}

/// CPU of a request that is passed with all protection on, against bare Envoy.
pub(super) async fn passed(lab: &Lab) -> Result<()> {
    lab.envoy_version()?;
    for wire in Wire::ALL {
        contest(lab, Fate::Passed, wire, 1).await?;
    }
    contest(lab, Fate::Passed, Wire::Http1, 2).await
}

/// CPU of a request that is refused by the last of all rules, against Envoy's one limit.
pub(super) async fn refused(lab: &Lab) -> Result<()> {
    lab.envoy_version()?;
    for wire in Wire::ALL {
        contest(lab, Fate::Refused, wire, 1).await?;
    }
    contest(lab, Fate::Refused, Wire::Http1, 2).await
}

async fn contest(lab: &Lab, fate: Fate, wire: Wire, threads: usize) -> Result<()> {
    let upstream = Upstream::quick()?;
    // Refusing lets one request a second pass, so that both proxies go on being asked.
    let (limit, filters, reference) = match fate {
        Fate::Passed => (1_000_000, vec![], "bare"),
        Fate::Refused => {
            let limit = Filter::LocalRateLimit {
                per_second: 1,
                burst: 1,
            };
            (1, vec![limit], "with its local rate limit")
        }
    };
    let document = |port| Document::of(port, upstream.address(), chain(limit, limit));
    let guard = lab.guard(threads, wire, document).await?;
    let envoy = lab
        .envoy(threads, wire, upstream.address(), &filters)
        .await?;
    let pair = Pair {
        lab,
        wire,
        fate,
        guard: &guard,
        envoy: &envoy,
    };
    let costs = pair.costs().await?;
    let ratio = costs.ratio().context("a ratio of the pairs")?;
    let target = fate.target();
    let [own, other] = [&costs.guard, &costs.envoy].map(|all| median(all.clone()).unwrap_or(0.0));
    say(&format!(
        "CPU {} by {} and {threads} thread(s): guard {own:.1} us, Envoy {reference} {other:.1} us, ratio {ratio:.2} of {target}",
        fate.name(),
        wire.name(),
    ));
    let mut figures = json!({
        "protocol": wire.name(), "threads": threads, "requests_per_second": costs.rate,
        "lag_bound_millis": lab.lag_millis(),
        "guard": {"cpu_micros": round(own), "runs": rounded(&costs.guard)},
        "reference": {
            "what": format!("{} {reference}", lab.envoy_version()?), "cpu_micros": round(other),
            "runs": rounded(&costs.envoy),
        },
        "ratio": round(ratio), "target": target,
    });
    if fate == Fate::Refused {
        let passing = lab.guard(threads, wire, |port| {
            Document::of(port, upstream.address(), chain(1_000_000, 1_000_000))
        });
        let passing = passing.await?;
        let pair = Pair {
            fate: Fate::Passed,
            envoy: &passing,
            ..pair
        };
        let accepted = pair.one(&passing, costs.rate).await?;
        figures["accepting"] =
            json!({"cpu_micros": round(accepted), "ratio": round(own / accepted), "target": 1.0});
    }
    show(&format!("cpu-{}", fate.name()), &figures)
}

fn rounded(all: &[f64]) -> Vec<Value> {
    all.iter().map(|micros| round(*micros).into()).collect()
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
        }
    }

    fn target(self) -> f64 {
        match self {
            Self::Passed => PASSED_MAX,
            Self::Refused => REFUSED_MAX,
        }
    }

    fn rate(self) -> f64 {
        match self {
            Self::Passed => PASSED_RATE,
            Self::Refused => REFUSED_RATE,
        }
    }

    /// How many requests met it; none when the run is about something else, as nearly all must have.
    fn count(self, report: &Report) -> Option<u64> {
        let total = &report.total;
        let count = match self {
            Self::Passed => total.succeeded,
            Self::Refused => total.refused,
        };
        let others = total.attempts - count;
        if others * OTHERS_ONE_IN <= total.attempts {
            return Some(count);
        }
        say(&format!(
            "{others} of {} requests were not {}: statuses {:?}, failures {:?}",
            total.attempts,
            self.name(),
            total.statuses,
            total.failures
        ));
        None
    }
}

impl Pair<'_> {
    /// Pairs of runs, in turns, at one rate for all of them.
    async fn costs(&self) -> Result<Costs> {
        let mut rate = self.fate.rate();
        for _ in 0..RATES {
            if let Some(costs) = self.at(rate).await? {
                return Ok(costs);
            }
            rate = slower(rate);
        }
        bail!("runs of {RATES} rates were void: this machine is too busy");
    }

    /// The cost by one proxy alone, at this rate or the first below it that it stands.
    async fn one(&self, proxy: &Proxy, mut rate: f64) -> Result<f64> {
        for _ in 0..RATES {
            if let Some(cost) = self.cost(proxy, rate).await? {
                return Ok(cost);
            }
            rate = slower(rate);
        }
        bail!("runs of {RATES} rates were void: this machine is too busy");
    }

    /// None when a run was void.
    async fn at(&self, rate: f64) -> Result<Option<Costs>> {
        for proxy in [self.guard, self.envoy] {
            run::run(self.plan(proxy, rate, WARM)?).await?;
        }
        let mut costs = Costs {
            rate,
            guard: vec![],
            envoy: vec![],
        };
        for pair in 0..PAIRS {
            let guard_first = pair % 2 == 0;
            let order = if guard_first {
                [self.guard, self.envoy]
            } else {
                [self.envoy, self.guard]
            };
            let [first, second] = order;
            let Some(first) = self.cost(first, rate).await? else {
                return Ok(None);
            };
            let Some(second) = self.cost(second, rate).await? else {
                return Ok(None);
            };
            let (guard, envoy) = if guard_first {
                (first, second)
            } else {
                (second, first)
            };
            costs.guard.push(guard);
            costs.envoy.push(envoy);
        }
        Ok(Some(costs))
    }

    /// Microseconds a request in one run; none when it was void.
    async fn cost(&self, proxy: &Proxy, rate: f64) -> Result<Option<f64>> {
        let before = proxy.cpu()?;
        let report = run::run(self.plan(proxy, rate, LASTS)?).await?;
        let spent = proxy.cpu()?.saturating_sub(before);
        if let Some(void) = report.void().first() {
            say(&format!("a run of {rate:.0}/s is void: {void}"));
            return Ok(None);
        }
        // A machine that is too busy for the rate makes the protection refuse, rightly.
        let Some(count) = self.fate.count(&report) else {
            return Ok(None);
        };
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let each = spent.as_secs_f64() * 1e6 / count as f64;
        Ok(Some(each))
    }

    fn plan(&self, proxy: &Proxy, rate: f64, lasts: Duration) -> Result<e2e::load::Plan> {
        let mix = Mix::of(&[browser("/api/code")], Keys::Uniform { of: KEYS })?;
        self.lab
            .plan(proxy.at, self.wire, steady(rate, lasts)?, mix)
    }
}

impl Costs {
    /// The middle of the pairs' ratios.
    fn ratio(&self) -> Option<f64> {
        let pairs = self.guard.iter().zip(&self.envoy);
        median(pairs.map(|(guard, envoy)| guard / envoy).collect())
    }
}
