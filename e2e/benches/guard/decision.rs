//! CPU of a decision, in this process: what a policy costs without HTTP.

use std::{
    borrow::Cow,
    hint::black_box,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use e2e::measure::{round, say, usage::thread_cpu};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use shield::{KeySeed, Policy, PolicySettings, Time, breaker::Outcome, policy::KeyPart};

use super::{
    lab::show,
    policies::{CITIZEN, VENUE, chain, each, named, total},
};

/// Decisions of which the mean counts as one: the clock of a thread is exact to some hundred
/// nanoseconds.
const BATCH: usize = 1_000;
/// Batches of which percentiles are taken.
const BATCHES: usize = 2_000;
/// The bar.
const P99_MAX_NANOS: f64 = 1_000.0;
/// Citizens and venues.
const KEYS: usize = 1_000;
/// More in a second than two threads decide, and the most that a limit may be.
const PLENTY: u32 = 10_000_000;
/// Decisions between two counts of instructions.
const COUNTED: usize = 1_000_000;
/// As many where each instruction is emulated, fifty times slower.
const EMULATED: usize = 20_000;

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// All rules let it pass.
    Passing,
    /// The last rule refuses, so that all before it give back.
    RefusedLast,
    /// The first rule refuses.
    RefusedFirst,
}

/// What a counter of instructions runs.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    #[arg(long, value_enum)]
    case: Case,
    #[arg(long)]
    count: usize,
}

impl Case {
    const ALL: [Self; 3] = [Self::Passing, Self::RefusedLast, Self::RefusedFirst];

    fn name(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::RefusedLast => "refused-last",
            Self::RefusedFirst => "refused-first",
        }
    }

    fn policy(self) -> Value {
        match self {
            Self::Passing => chain(PLENTY, PLENTY),
            Self::RefusedLast => chain(1, 1),
            Self::RefusedFirst => {
                let mut policy = chain(PLENTY, PLENTY);
                policy["rateLimits"] = json!([total(PLENTY, PLENTY), each(CITIZEN, 1, 1)]);
                policy
            }
        }
    }
}

/// A policy and the requests that it is asked about.
struct Bench {
    policy: Policy<()>,
    requests: Vec<HeaderMap>,
    start: Instant,
    passes: bool,
}

impl Bench {
    fn of(case: Case) -> Result<Self> {
        let settings: PolicySettings = serde_json::from_value(named(case.policy()))?;
        let seed = KeySeed::new(*b"sixteen byte key");
        let request = |key: usize| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(CITIZEN, "610102"), (VENUE, "venue")] {
                headers.insert(name, HeaderValue::from_str(&format!("{value}-{key}"))?);
            }
            anyhow::Ok(headers)
        };
        let bench = Self {
            policy: Policy::new(&settings, seed, 1, Time::ZERO)?,
            requests: (0..KEYS).map(request).collect::<Result<_>>()?,
            start: Instant::now(),
            passes: case == Case::Passing,
        };
        // The bucket of every key has been asked, and what refuses is empty.
        bench.decide(2 * KEYS);
        Ok(bench)
    }

    fn now(&self) -> Time {
        Time::ZERO.after(self.start.elapsed())
    }

    /// Asks about so many requests and says how many ended as they should. The clock is read as
    /// often as a guard reads it.
    fn decide(&self, count: usize) -> usize {
        let mut expected = 0;
        for headers in self.requests.iter().cycle().take(count) {
            let read = |part: &KeyPart| match part {
                KeyPart::Header(name) => headers
                    .get(name)
                    .map(|value| Cow::Borrowed(value.as_bytes())),
                KeyPart::Query(_)
                | KeyPart::Cookie(_)
                | KeyPart::JwtClaim(_)
                | KeyPart::ClientAddress => None,
            };
            let admitted = self.policy.admit(&read, self.now());
            expected += usize::from(admitted.is_ok() == self.passes);
            if let Ok(admission) = black_box(admitted) {
                let outcome = Outcome {
                    elapsed: Duration::from_millis(1),
                    is_error: false,
                };
                self.policy.finish(admission, outcome, self.now());
            }
        }
        expected
    }

    /// Nanoseconds a decision, batch by batch, in order.
    fn batches(&self) -> Result<Vec<f64>> {
        let mut all = Vec::with_capacity(BATCHES);
        let mut expected = 0;
        for _ in 0..BATCHES {
            let before = thread_cpu();
            expected += self.decide(BATCH);
            let spent = thread_cpu().saturating_sub(before);
            #[expect(clippy::cast_precision_loss, reason = "a thousand")]
            all.push(spent.as_secs_f64() * 1e9 / BATCH as f64);
        }
        // A limit of one a second lets some pass.
        ensure!(
            expected * 100 > BATCH * BATCHES * 99,
            "only {expected} of {} decisions ended as they should",
            BATCH * BATCHES
        );
        all.sort_by(f64::total_cmp);
        Ok(all)
    }
}

/// Makes decisions and ends.
pub(super) fn decide(options: &Options) -> Result<()> {
    let bench = Bench::of(options.case)?;
    black_box(bench.decide(options.count));
    Ok(())
}

/// Percentiles of a decision, on one thread and on two that share the policy.
pub(super) fn measure() -> Result<()> {
    for threads in [1, 2] {
        let mut passing = None;
        for case in Case::ALL {
            let bench = Bench::of(case)?;
            let all = on_threads(&bench, threads)?;
            let [p50, p99] = [50, 99].map(|percent| all[all.len() * percent / 100]);
            let accepting = *passing.get_or_insert(p50);
            let instructions = (threads == 1).then(|| instructions(case));
            let instructions = match instructions {
                Some(Ok(count)) => json!(count),
                Some(Err(error)) => json!(format!("not available: {error:#}")),
                None => Value::Null,
            };
            say(&format!(
                "decision, {} on {threads} thread(s): p50 {p50:.0} ns, p99 {p99:.0} ns of {P99_MAX_NANOS:.0}; instructions {instructions}",
                case.name(),
            ));
            show(
                "decision",
                &json!({
                    "case": case.name(), "threads": threads, "p50_nanos": round(p50),
                    "p99_nanos": round(p99), "target_p99_nanos": P99_MAX_NANOS,
                    "reference": {"what": "passing", "p50_nanos": round(accepting)},
                    "ratio": round(p50 / accepting), "target": 1.0, "instructions": instructions,
                }),
            )?;
        }
    }
    Ok(())
}

/// The batches of all threads together, in order.
fn on_threads(bench: &Bench, threads: usize) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| bench.batches()))
            .collect();
        for thread in running {
            let Ok(batches) = thread.join() else {
                bail!("a thread of decisions ended early");
            };
            all.extend(batches?);
        }
        Ok(())
    })?;
    all.sort_by(f64::total_cmp);
    Ok(all)
}

/// Instructions of a decision: as the processor counts them, or where a machine does not count, as an emulation of
/// it does.
fn instructions(case: Case) -> Result<f64> {
    let by_processor = || {
        let (few, many) = (by_perf(case, COUNTED)?, by_perf(case, 2 * COUNTED)?);
        each_of(COUNTED, many - few)
    };
    let emulated = || {
        let (few, many) = (emulate(case, EMULATED)?, emulate(case, 2 * EMULATED)?);
        each_of(EMULATED, many - few)
    };
    by_processor().or_else(|why| emulated().with_context(|| format!("{why:#}")))
}

fn each_of(count: usize, instructions: f64) -> Result<f64> {
    let count = u32::try_from(count).context("not so many")?;
    Ok(round(instructions / f64::from(count)))
}

fn by_perf(case: Case, count: usize) -> Result<f64> {
    let perf = [
        "perf",
        "stat",
        "--field-separator=,",
        "--event=instructions:u",
    ];
    let said = run_under(&perf, case, count)?;
    let line = said.lines().find(|line| line.contains("instructions"));
    let line = line.context("perf names no instructions")?;
    let number = line.split(',').next().unwrap_or_default();
    number.parse().ok().context("this machine counts none")
}

fn emulate(case: Case, count: usize) -> Result<f64> {
    let callgrind = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
    ];
    let said = run_under(&callgrind, case, count)?;
    let number = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, number) = number.context("valgrind names no instructions")?;
    number.trim().parse().context("read what valgrind counted")
}

/// Runs decisions under a program that counts, and returns what it said.
fn run_under(program: &[&str], case: Case, count: usize) -> Result<String> {
    let (name, arguments) = program.split_first().context("no program")?;
    let this = std::env::current_exe().context("find this program")?;
    let count = count.to_string();
    let output = Command::new(name)
        .args(arguments)
        .arg(this)
        .args(["decide", "--case", case.name(), "--count", &count])
        .output()
        .with_context(|| format!("run {name}"))?;
    ensure!(
        output.status.success(),
        "{name} ended with {}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}
