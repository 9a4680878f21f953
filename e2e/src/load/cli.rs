//! The command line of the generator.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use tokio::time::{MissedTickBehavior, interval};

use self::parse::{Leg, duration, keys, leg, rate};
use super::{
    Limits, Plan, Retry,
    mix::{Keys, Kind, Mix},
    report::table::short,
    run::{Progress, Run},
    schedule::{Arrivals, Rate, Schedule, Stage},
    target::{Protocol, Target},
};

mod parse;

/// How often the live line comes.
const PULSE: Duration = Duration::from_secs(1);

/// What the command takes.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The address to dial, on loopback, whatever the host
    #[arg(long, value_name = "ADDRESS")]
    connect_to: SocketAddr,
    /// Requests a second: `200`, a ramp `200..5000`, or steps `200..5000/10`
    #[arg(long, value_parser = rate)]
    rate: Rate,
    /// For how long: `500ms`, `10s`, `5m`
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasts: Duration,
    /// A further stage, such as `5000:30s` or `5000..200:1m`; repeatable
    #[arg(long, value_name = "RATE:TIME", value_parser = leg)]
    then: Vec<Leg>,
    /// Arrivals as of people who do not know of each other, instead of evenly
    #[arg(long)]
    poisson: bool,
    /// The host to ask for
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The path with its query; `{key}` is replaced, as in headers and the body
    #[arg(long, default_value = "/")]
    path: String,
    /// The method
    #[arg(long, default_value = "GET")]
    method: String,
    /// A header, as `name: value`; repeatable
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// The body
    #[arg(long, default_value = "")]
    body: String,
    /// Kinds of requests instead of the one above, a JSON list of
    /// {label, weight, method, path, host, headers, body}
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "path", "method", "headers", "body"])]
    kinds: Option<PathBuf>,
    /// Keys: `uniform:1000`, `zipf:1000:1.1`, or `hot:40:1000` for one of 1000 in 40 % of requests
    #[arg(long, value_parser = keys, default_value = "uniform:1")]
    keys: Keys,
    /// Speak HTTP/2
    #[arg(long)]
    http2: bool,
    /// Speak TLS with a server whose certificate this CA has signed
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name the certificate must have; the host of `--host` without it
    #[arg(long, value_name = "NAME", requires = "ca")]
    server_name: Option<String>,
    /// Try what was not served again, so many times
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    retries: u32,
    /// How long people wait before they try again
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    retry_after: Duration,
    /// Wait as long as the server asks for
    #[arg(long)]
    honour_retry_after: bool,
    /// A status that turns requests away on purpose; repeatable
    #[arg(long = "refusal", value_name = "STATUS", default_values_t = [429, 503])]
    refusals: Vec<u16>,
    /// Connections at a time
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().connections)]
    connections: usize,
    /// Requests at a time on a connection of HTTP/2
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().streams)]
    streams: usize,
    /// Connections to open beforehand
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().warm)]
    warm: usize,
    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    timeout: Duration,
    /// How late a send may be; the run is void when more than 1 % are later
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5ms")]
    lag: Duration,
    /// The same seed makes the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A short table
    Table,
    /// Everything, as one JSON object
    Json,
}

impl Options {
    /// What is to be done. What is wrong with it is the caller's mistake.
    pub fn plan(&self) -> Result<Plan> {
        let arrivals = if self.poisson {
            Arrivals::Poisson
        } else {
            Arrivals::Uniform
        };
        let first = Leg {
            rate: self.rate,
            lasts: self.lasts,
        };
        let legs = [first].into_iter().chain(self.then.iter().copied());
        let schedule = Schedule::of(legs.map(|Leg { rate, lasts }| Stage {
            rate,
            arrivals,
            lasts,
        }))?;
        let retry = Retry {
            after: self.retry_after,
            times: self.retries,
            honours_retry_after: self.honour_retry_after,
        };
        let plan = Plan {
            retry: (self.retries > 0).then_some(retry),
            refusals: self.refusals.clone(),
            limits: Limits {
                connections: self.connections,
                streams: self.streams,
                warm: self.warm,
                timeout: self.timeout,
                lag: self.lag,
            },
            seed: self.seed,
            ..Plan::new(
                schedule,
                Mix::of(&self.kinds()?, self.keys)?,
                self.target()?,
            )
        };
        plan.check()?;
        Ok(plan)
    }

    fn kinds(&self) -> Result<Vec<Kind>> {
        if let Some(file) = &self.kinds {
            let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
            return serde_json::from_slice(&text)
                .with_context(|| format!("{} is no list of kinds", file.display()));
        }
        let mut headers = BTreeMap::new();
        for header in &self.headers {
            let Some((name, value)) = header.split_once(':') else {
                bail!("the header {header:?} has no colon: write `name: value`");
            };
            let before = headers.insert(name.trim().to_owned(), value.trim().to_owned());
            ensure!(before.is_none(), "the header {name:?} is given twice");
        }
        Ok(vec![Kind {
            method: self.method.clone(),
            path: self.path.clone(),
            headers,
            body: self.body.clone(),
            ..Kind::get(&self.host)
        }])
    }

    fn target(&self) -> Result<Target> {
        let protocol = if self.http2 {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        let target = Target::at(self.connect_to, protocol)?;
        let Some(ca) = &self.ca else {
            return Ok(target);
        };
        let pem = fs::read(ca).with_context(|| format!("read {}", ca.display()))?;
        let host = self.host.split(':').next().unwrap_or_default();
        target.over_tls(&pem, self.server_name.as_deref().unwrap_or(host))
    }
}

/// Makes the run, with a line a second on standard error and the report on standard output. The
/// answer says whether the run counts.
pub async fn load(plan: Plan, output: Output) -> Result<bool> {
    let mut run = Run::start(plan)?;
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Skip);
    pulse.tick().await;
    let mut before = Progress::default();
    let report = loop {
        tokio::select! {
            report = run.finish() => break report?,
            interrupt = tokio::signal::ctrl_c() => {
                interrupt.context("wait for Ctrl-C")?;
                run.stop();
            }
            _ = pulse.tick() => {
                let now = run.progress();
                // Nobody watches when standard error is closed.
                let _ = writeln!(io::stderr(), "{}", line(&before, &now));
                before = now;
            }
        }
    };
    let mut out = io::stdout().lock();
    match output {
        Output::Table => write!(out, "{}", report.table())?,
        Output::Json => {
            serde_json::to_writer(&mut out, &report)?;
            writeln!(out)?;
        }
    }
    Ok(report.void().is_empty())
}

/// What happened since the line before.
fn line(before: &Progress, now: &Progress) -> String {
    let Progress {
        elapsed,
        offered,
        attempts,
        succeeded,
        refused,
        failed,
        dropped,
        late,
        under_way,
        waiting,
    } = now;
    format!(
        "{:>7}  offered {}  sent {}  ok {}  refused {}  failed {}  under way {under_way}  to be retried {waiting}  late {}  dropped {}",
        short(*elapsed),
        offered - before.offered,
        attempts - before.attempts,
        succeeded - before.succeeded,
        refused - before.refused,
        failed - before.failed,
        late - before.late,
        dropped - before.dropped,
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn plan(args: &[&str]) -> Result<Plan> {
        let base = ["load", "--connect-to", "127.0.0.1:80"];
        let args = base.iter().chain(args);
        Command::try_parse_from(args)?.options.plan()
    }

    #[test]
    fn stages_follow_in_the_order_they_are_given() {
        let args = "--rate 10 --for 2s --then 10..30:4s --then 30..50/3:6s";
        let plan = plan(&args.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!(plan.schedule.lasts(), Duration::from_secs(12));
        assert!((plan.schedule.expected() - 340.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_sent() {
        let refused = |args: &str| {
            let args: Vec<&str> = args.split(' ').collect();
            format!("{:#}", plan(&args).unwrap_err())
        };
        let run = "--rate 1 --for 1s";
        assert!(refused("--rate 1 --for 10").contains("a unit"));
        assert!(refused("--rate x --for 1s").contains("no number"));
        assert!(refused(&format!("{run} --header x")).contains("colon"));
        assert!(refused(&format!("{run} --keys zipf:9")).contains("zipf:"));
        assert!(refused(&format!("{run} --timeout 2h")).contains("timeout"));
        assert!(refused(&format!("{run} --server-name a")).contains("--ca"));
        let far = [
            "load",
            "--connect-to",
            "10.0.0.1:80",
            "--rate=1",
            "--for=1s",
        ];
        let far = Command::try_parse_from(far).unwrap_or_else(|_| panic!("it parses"));
        let error = far.options.plan().unwrap_err().to_string();
        assert!(error.contains("no loopback address"), "{error}");
    }
}
