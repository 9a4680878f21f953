//! Processes to measure, and the load on them.

use std::{
    cell::{Cell, OnceCell},
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::{
    certs::Certificates,
    load::{
        Limits, Plan,
        mix::{Kind, Mix},
        report::Report,
        run::Run,
        schedule::{Arrivals, Schedule},
        target::{Protocol, Target},
    },
    measure::{print, say, usage},
    process::{Process, Program, Supervisor, reserve::Port},
    province::binary::jiuzhou,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::envoy::{self, Envoy, Filter};
use super::policies::{CITIZEN, Document, VENUE};

/// A process listens within a second; this bounds a machine that is very busy.
const START_MAX: Duration = Duration::from_secs(20);
/// How often a starting process is looked at.
const POLL: Duration = Duration::from_millis(20);
/// A drain of the guard's own default is 35 s; here it is told to be shorter.
const END_MAX: Duration = Duration::from_secs(10);
/// How late a send may be. CPU and counts are measured, no latencies: a send that is late by less
/// changes neither.
pub(super) const LAG_MILLIS: u64 = 20;
/// Runs that are made before a figure is given up.
const TRIES: u32 = 4;

/// Whether a guard writes down every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessLog {
    Off,
    Stdout,
}

/// How citizens speak to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Http1,
    Http2,
    /// HTTP/1.1 over TLS, so that it differs from the first in one thing.
    Tls,
}

/// Where everything is started from.
pub(super) struct Lab {
    dir: PathBuf,
    supervisor: Supervisor,
    jiuzhou: PathBuf,
    /// Where somebody says that there is one.
    envoy_file: Option<PathBuf>,
    /// Looked for, and installed, when it is first needed.
    envoy: OnceCell<Result<Envoy>>,
    certificates: Certificates,
    started: Cell<u32>,
    lag: Duration,
}

/// A running proxy.
pub(super) struct Proxy {
    pub(super) process: Process,
    pub(super) at: SocketAddr,
    pub(super) configuration: PathBuf,
    _ports: Vec<Port>,
}

impl Wire {
    pub(super) const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Tls];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Tls => "HTTP/1.1 over TLS",
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Http1 | Self::Tls => Protocol::Http1,
            Self::Http2 => Protocol::Http2,
        }
    }
}

impl Lab {
    /// Builds the guard, if there is none.
    pub(super) fn open(guard: Option<&Path>, envoy: Option<&Path>, lag: Duration) -> Result<Self> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = target.join("guard");
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
        }
        let supervisor = Supervisor::start(Path::new(env!("CARGO_BIN_EXE_sandbox")), &dir)?;
        Ok(Self {
            jiuzhou: match guard {
                Some(file) => {
                    fs::canonicalize(file).with_context(|| format!("find {}", file.display()))?
                }
                None => jiuzhou()?,
            },
            certificates: Certificates::create(&dir)?,
            started: Cell::new(0),
            lag,
            supervisor,
            envoy_file: envoy.map(Path::to_owned),
            envoy: OnceCell::new(),
            dir,
        })
    }

    fn found_envoy(&self) -> Result<&Envoy> {
        let find = || {
            Envoy::find(
                self.envoy_file.as_deref(),
                Path::new(env!("CARGO_TARGET_TMPDIR")),
            )
        };
        let found = self.envoy.get_or_init(find);
        found
            .as_ref()
            .map_err(|error| anyhow!("it needs an Envoy: {error:#}"))
    }

    /// The Envoy, or why there is none.
    pub(super) fn envoy_version(&self) -> Result<String> {
        Ok(format!("Envoy {}", self.found_envoy()?.version))
    }

    /// Starts a guard with so many threads; `document` gets the port. It logs no requests, as the
    /// other side does not either.
    pub(super) async fn guard(
        &self,
        threads: usize,
        wire: Wire,
        document: impl FnOnce(u16) -> Document,
    ) -> Result<Proxy> {
        self.guard_logging(AccessLog::Off, threads, wire, document)
            .await
    }

    /// The same, with an access log or without.
    pub(super) async fn guard_logging(
        &self,
        log: AccessLog,
        threads: usize,
        wire: Wire,
        document: impl FnOnce(u16) -> Document,
    ) -> Result<Proxy> {
        let (port, health) = (Port::reserve()?, Port::reserve()?);
        let mut document = document(port.number());
        if wire == Wire::Tls {
            let Certificates {
                serving,
                serving_key,
                ..
            } = &self.certificates;
            document.tls = Some((serving.clone(), serving_key.clone()));
        }
        let configuration = self.file("guard");
        document.write(&configuration)?;
        let program = Program::new(name(&configuration), &self.jiuzhou)
            .arg("guard")
            .arg("serve")
            .flag("configuration", &configuration)
            .flag("address", "127.0.0.1")
            .flag("metrics-address", format!("127.0.0.1:{}", health.number()))
            .flag("drain-delay", "1s")
            .flag("drain-timeout", "5s")
            .flag(
                "access-log",
                match log {
                    AccessLog::Off => "off",
                    AccessLog::Stdout => "stdout",
                },
            )
            .env("TOKIO_WORKER_THREADS", threads.to_string());
        self.start(program, configuration, vec![port, health]).await
    }

    /// Starts an Envoy with so many threads.
    pub(super) async fn envoy(
        &self,
        threads: usize,
        wire: Wire,
        upstream: SocketAddr,
        filters: &[Filter],
    ) -> Result<Proxy> {
        let envoy = self.found_envoy()?;
        let port = Port::reserve()?;
        let configuration = self.file("envoy");
        let tls = envoy::Tls {
            certificate: &self.certificates.serving,
            key: &self.certificates.serving_key,
        };
        let tls = (wire == Wire::Tls).then_some(&tls);
        envoy::write(&configuration, port.number(), upstream, filters, tls)?;
        let program = Program::new(name(&configuration), &envoy.executable)
            // It takes values as arguments of their own only.
            .arg("--concurrency")
            .arg(threads.to_string())
            .arg("--disable-hot-restart")
            .arg("--log-level")
            .arg("error")
            .arg("--config-path")
            .arg(&configuration);
        self.start(program, configuration, vec![port]).await
    }

    async fn start(
        &self,
        program: Program,
        configuration: PathBuf,
        ports: Vec<Port>,
    ) -> Result<Proxy> {
        let port = ports.first().context("a port to serve on")?.number();
        let proxy = Proxy {
            process: self.supervisor.spawn(program)?,
            at: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            configuration,
            _ports: ports,
        };
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(proxy.at).await.is_err() {
            proxy.process.check()?;
            ensure!(
                Instant::now() < deadline,
                "{} does not listen on {} within {START_MAX:?}; {}",
                proxy.process.name(),
                proxy.at,
                proxy.process.log_tail()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(proxy)
    }

    /// How late sends may be.
    pub(super) fn lag_millis(&self) -> u128 {
        self.lag.as_millis()
    }

    /// A file of its own for each process.
    fn file(&self, what: &str) -> PathBuf {
        let number = self.started.get() + 1;
        self.started.set(number);
        self.dir.join(format!("{what}-{number}.json"))
    }

    pub(super) fn target(&self, at: SocketAddr, wire: Wire) -> Result<Target> {
        let target = Target::at(at, wire.protocol())?;
        if wire == Wire::Tls {
            return target.over_tls(self.certificates.ca_pem.as_bytes(), "localhost");
        }
        Ok(target)
    }

    /// So many requests a second for so long, on connections that are open from the start.
    pub(super) fn plan(
        &self,
        at: SocketAddr,
        wire: Wire,
        schedule: Schedule,
        mix: Mix,
    ) -> Result<Plan> {
        // Of HTTP/1.1 what one gateway in front would hold; of HTTP/2 what carries the same.
        let (warm, connections, streams) = match wire {
            Wire::Http1 | Wire::Tls => (64, 4096, 1),
            Wire::Http2 => (8, 16, 250),
        };
        Ok(Plan {
            limits: Limits {
                connections,
                streams,
                warm,
                lag: self.lag,
                ..Limits::default()
            },
            ..Plan::new(schedule, mix, self.target(at, wire)?)
        })
    }
}

fn name(configuration: &Path) -> String {
    let stem = configuration.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

impl Proxy {
    /// CPU of all its threads since they began. The kernel's account of each thread counts
    /// nanoseconds; where it keeps none, that of the process counts hundredths of a second.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let pid = self.pid()?;
        let Some(nanos) = threads_nanos(pid) else {
            return Ok(Duration::from_secs_f64(usage::cpu_seconds(pid)?));
        };
        Ok(Duration::from_nanos(nanos))
    }

    pub(super) fn pid(&self) -> Result<u32> {
        self.process.check()?;
        let pid = self.process.pid();
        pid.with_context(|| format!("{} has ended", self.process.name()))
    }

    /// Tells it to end and waits until it did, of itself: what it writes last is not lost.
    pub(super) async fn end(&self) -> Result<()> {
        let stopped = self.process.stop(END_MAX).await?;
        let name = self.process.name();
        ensure!(
            stopped.is_success(),
            "{name} did not end well within {END_MAX:?} of being told to: {stopped:?}"
        );
        Ok(())
    }
}

fn threads_nanos(pid: u32) -> Option<u64> {
    let mut all = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let account = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        all += account.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(all)
}

/// A request as a browser makes it, labelled by its path.
pub(super) fn browser(path: &str) -> Kind {
    let headers = [
        (
            "user-agent",
            "Mozilla/5.0 (Linux; Android 14; HarmonyOS) AppleWebKit/537.36 (KHTML, like Gecko) Mobile",
        ),
        ("accept", "application/json, text/plain, */*"),
        ("accept-language", "zh-CN,zh;q=0.9"),
        ("accept-encoding", "gzip, deflate, br"),
        ("cookie", "session=6f1d2a9b7c3e4f508192a3b4c5d6e7f8"),
        (CITIZEN, "610102-{key}"),
        (VENUE, "venue-{key}"),
    ];
    Kind {
        label: path.to_owned(),
        path: path.to_owned(),
        ..Kind::get("localhost").with_headers(headers)
    }
}

/// The same rate throughout, as people come who do not know of each other.
pub(super) fn steady(rate: f64, lasts: Duration) -> Result<Schedule> {
    Ok(Schedule::constant(rate, Arrivals::Poisson, lasts)?)
}

/// Makes the same runs, all at one time, until all of them count: what they show depends on the rate.
pub(super) async fn exactly<const N: usize>(
    plans: impl Fn() -> Result<[Plan; N]>,
) -> Result<[Report; N]> {
    for _ in 0..TRIES {
        let running = plans()?
            .map(Run::start)
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let mut reports = Vec::new();
        for mut run in running {
            reports.push(run.finish().await?);
        }
        match reports
            .iter()
            .find_map(|report| report.void().first().copied())
        {
            None => {
                return reports
                    .try_into()
                    .map_err(|_| anyhow!("a run without a report"));
            }
            Some(void) => say(&format!("a run is void: {void}")),
        }
    }
    bail!("{TRIES} runs were void: this machine is too busy");
}

/// The rate after one at which the generator lagged.
pub(super) fn slower(rate: f64) -> f64 {
    (rate * 2.0 / 3.0).round()
}

/// Prints a measurement, with what it is at its head.
pub(super) fn show(measure: &str, figures: &Value) -> Result<()> {
    let mut all = json!({"bench": "guard", "measure": measure});
    if let (Value::Object(all), Value::Object(figures)) = (&mut all, figures) {
        all.extend(figures.clone());
    }
    print(&all)
}
