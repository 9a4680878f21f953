//! `sandbox conformance`: the official conformance suite of Gateway API against a guard of a real cluster.
//!
//! ```text
//! suite (Go) ── Gateways, routes ──> API server ──> guard control ──> guard
//!     └──────── requests ─────────────────────────────────────────────> │ ──> pods of the fake kubelet
//! ```
//!
//! The suite takes what to test from the class's `status.supportedFeatures`: what the guard claims is held
//! against it. What it does not claim is skipped, with the reason from `conformance/skipped.yaml`.

mod results;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    assets,
    fleet::{Cluster, Fleet, FleetConfig},
    process::{Process, Program},
    province::{
        Pace,
        guards::{self, Guards},
        install,
    },
};
use results::{Outcome, Results, Test};

/// The one cluster.
const CLUSTER: &str = "region";
/// The class that is shipped.
const CLASS: &str = "jiuzhou";
/// What of Gateway API is claimed as a whole.
const PROFILE: &str = "GATEWAY-HTTP";
/// Addresses for Gateways: the suite keeps four Gateways all the time, and no test adds more than five.
const GATEWAY_ADDRESSES: u16 = 24;
/// An address that no guard has: set aside for documentation.
const UNUSABLE: &str = "192.0.2.1";
/// How long the suite waits, in seconds, where less than its default will do: a guard that has not done it by then
/// never will, and a failing test is to fail soon. The pods are waited for longest: there are some thirty.
const TIMEOUTS: &str = "GatewayMustHaveAddress:30;GatewayMustHaveCondition:30;GWCMustBeAccepted:30;\
                        HTTPRouteMustHaveCondition:30;RouteMustHaveParents:30;NamespacesMustBeReady:120;\
                        GatewayListenersMustHaveConditions:30;GatewayStatusMustHaveListeners:30;\
                        HTTPRouteMustNotHaveParents:30;LatestObservedGenerationSet:30";
/// The whole run. It takes a minute where all passes, on two busy cores too; a test that fails waits half a minute for
/// each of its requests, and some have twenty.
const RUN_MAX: Duration = Duration::from_mins(20);
/// How often the file of results is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Time for guards to end by themselves.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// The command line of `sandbox conformance`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Folder for the report and logs; what an earlier run left there is removed
    #[arg(long, default_value = "target/conformance")]
    pub dir: PathBuf,
    /// Name of the one test to run, as the suite calls it; without it all that the guard claims
    #[arg(long)]
    pub test: Option<String>,
    /// Log every request and answer
    #[arg(long)]
    pub debug: bool,
}

/// Runs the suite and tells what came of it; an error where anything that is claimed failed.
pub async fn run(options: Options) -> Result<()> {
    let began = Instant::now();
    let suite = tokio::task::spawn_blocking(|| assets::conformance_suite(say)).await??;
    let mut config = FleetConfig::new(&options.dir, [CLUSTER]);
    config.progress = say;
    let fleet = Fleet::start(config).await?;
    say("installing Gateway API and the guard");
    let guards = start(&fleet).await?;
    let paths = Paths::of(fleet.dir());
    let suite =
        fleet
            .supervisor()
            .spawn(program(suite, &options, fleet.hub(), &guards, &paths)?)?;
    say(&format!(
        "running the suite; its log is {}",
        suite.log().display()
    ));
    let ran = tokio::time::timeout(RUN_MAX, follow(&suite, &paths.results)).await;
    drop(suite);
    say("stopping");
    for process in &guards.processes {
        process.stop(STOP_GRACE).await?;
    }
    drop(guards);
    fleet.stop().await?;
    let tests =
        ran.with_context(|| format!("the suite did not end in {} min", RUN_MAX.as_secs() / 60))??;
    let results = Results::of(tests, options.test.as_deref())?;
    let mut out = io::stdout().lock();
    write!(out, "{results}")?;
    if options.test.is_none() {
        writeln!(out, "\nreport: {}", paths.report.display())?;
    }
    writeln!(out, "{:.0} s", began.elapsed().as_secs_f32())?;
    results.verdict(options.test.as_deref())
}

/// Files of a run.
struct Paths {
    results: PathBuf,
    report: PathBuf,
}

impl Paths {
    fn of(dir: &Path) -> Self {
        Self {
            results: dir.join("results.jsonl"),
            report: dir.join("report.yaml"),
        }
    }
}

async fn start(fleet: &Fleet) -> Result<Guards> {
    let client = fleet.hub().client().await?;
    install::chart(&client, "region").await?;
    guards::install_with_all_kinds(&client).await?;
    let pace = Pace {
        guards: Some(1),
        gateway_addresses: GATEWAY_ADDRESSES,
        ..Pace::QUICK
    };
    guards::start(fleet, fleet.hub(), pace).await
}

/// The suite with its flags.
fn program(
    suite: PathBuf,
    options: &Options,
    cluster: &Cluster,
    guards: &Guards,
    paths: &Paths,
) -> Result<Program> {
    // Addresses are given out in the order of their texts: the last one is still free when it is asked for.
    let spare = guards.addresses().map(|address| address.to_string()).max();
    let spare = spare.context("the guard has no address")?;
    let version = env!("CARGO_PKG_VERSION");
    let program = Program::new("conformance", suite)
        .flag("test.v", "true")
        .flag("test.timeout", format!("{}s", RUN_MAX.as_secs()))
        .flag("results", &paths.results)
        .flag("kubeconfig", cluster.kubeconfig_file())
        .flag("gateway-class", CLASS)
        .flag("conformance-profiles", PROFILE)
        .flag("timeout-config-overrides", TIMEOUTS)
        .flag("usable-address", spare)
        .flag("unusable-address", UNUSABLE)
        // What tests leave behind goes with the cluster.
        .flag("cleanup-base-resources", "false")
        // One guard on two cores, and tests that ask for answers in a second.
        .flag("disable-parallel-tests", "true")
        .flag("debug", options.debug.to_string());
    Ok(match &options.test {
        Some(test) => program.flag("run-test", test),
        None => program
            .flag("report-output", &paths.report)
            .flag("organization", "jiuzhou")
            .flag("project", "jiuzhou")
            .flag("url", "https://jiuzhou.io")
            .flag("version", format!("v{version}"))
            .flag("contact", "https://jiuzhou.io"),
    })
}

/// Tells each result as it comes, until the suite ends.
async fn follow(suite: &Process, file: &Path) -> Result<Vec<Test>> {
    let mut told = 0;
    loop {
        let ended = suite.ended()?;
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
        };
        let tests = results::read(&text)?;
        for test in tests.iter().skip(told) {
            if test.outcome != Outcome::Skipped {
                say(&format!("{} {}", test.outcome, test.name));
            }
        }
        told = tests.len();
        if let Some(status) = ended {
            if !status.success() && tests.iter().all(|test| test.outcome != Outcome::Failed) {
                bail!(
                    "the suite ended ({status}) before it came to a result; {}",
                    suite.log_tail()
                );
            }
            return Ok(tests);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn say(text: &str) {
    // Progress is lost if nobody reads it; the run goes on.
    let _ = writeln!(io::stderr(), "conformance: {text}");
}
