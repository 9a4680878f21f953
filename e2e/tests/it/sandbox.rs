//! The `sandbox` command as a program: side by side with another, ended in order, and killed.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::support::{SANDBOX, eventually, http_get, http_get_of, scratch};

struct Sandbox {
    child: Child,
    dir: PathBuf,
    description: Value,
}

impl Sandbox {
    async fn start(name: &str) -> Self {
        Self::try_start(name).await.expect("the sandbox starts")
    }

    async fn try_start(name: &str) -> Result<Self> {
        Self::try_start_with(name, &["--bare", "--clusters", "1"]).await
    }

    async fn try_start_with(name: &str, args: &[&str]) -> Result<Self> {
        let dir = scratch(name);
        let mut child = Command::new(SANDBOX)
            .arg("up")
            .args(args)
            .arg("--dir")
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // The test's own safety net; the reaper then ends the rest.
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        while let Some(line) = lines.next_line().await? {
            if line == "ready" {
                let text = std::fs::read(dir.join("sandbox.json"))?;
                return Ok(Self {
                    child,
                    dir,
                    description: serde_json::from_slice(&text)?,
                });
            }
        }
        let output = child.wait_with_output().await?;
        bail!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    fn processes(&self) -> Vec<u32> {
        let processes = self.description["processes"].as_array().expect("a list");
        let pids = processes
            .iter()
            .map(|process| process["pid"].as_u64().expect("a pid"));
        pids.map(|pid| pid.try_into().expect("pids are small"))
            .collect()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a pid");
        kill_process(pid, signal).expect("it runs");
    }
}

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Folders in memory with etcd data, by the journal of the run in `dir`.
fn data(dir: &Path) -> Vec<PathBuf> {
    let journal = std::fs::read_to_string(dir.join("processes")).expect("a journal");
    journal
        .lines()
        .filter_map(|line| line.strip_prefix("folder\t"))
        .map(PathBuf::from)
        .collect()
}

#[tokio::test]
async fn two_sandboxes_live_side_by_side_and_each_ends_what_it_started() {
    let (one, mut two) = tokio::join!(Sandbox::start("side-one"), Sandbox::start("side-two"));
    assert!(one.processes().into_iter().chain(two.processes()).all(runs));

    // A second sandbox in a living one's folder is refused by name of the process to end.
    let refused = Sandbox::try_start("side-one")
        .await
        .err()
        .expect("it is refused")
        .to_string();
    assert!(
        refused.contains(&format!("kill {}", one.pid())),
        "{refused}"
    );

    // Killed without a chance to clear up: the reaper does it.
    one.signal(Signal::KILL);
    eventually("everything of the killed sandbox is gone", async || {
        let processes_gone = !one.processes().into_iter().any(runs);
        let data_gone = !data(&one.dir).iter().any(|folder| folder.exists());
        (processes_gone && data_gone).then_some(())
    })
    .await;
    assert!(
        two.processes().into_iter().all(runs),
        "the other one is untouched"
    );

    two.signal(Signal::TERM);
    let ended = tokio::time::timeout(Duration::from_secs(30), two.child.wait()).await;
    let ended = ended
        .expect("it ends in time")
        .expect("it can be waited for");
    assert_eq!(ended.code(), Some(0));
    assert!(!two.processes().into_iter().any(runs));
    assert!(!data(&two.dir).iter().any(|folder| folder.exists()));
}

/// Metrics that alerts and dashboards read.
const HUB_METRICS: [&str; 6] = [
    "jiuzhou_plan_duration_seconds",
    "jiuzhou_loop_turns_total",
    "jiuzhou_api_requests_total",
    "jiuzhou_apps",
    "jiuzhou_capacity_allocatable",
    "jiuzhou_cluster_last_contact_seconds",
];
/// What an agent knows of these: it plans nothing and sees only its own cluster.
const AGENT_METRICS: [&str; 2] = ["jiuzhou_loop_turns_total", "jiuzhou_api_requests_total"];

/// What a guard tells before anybody asked it for anything.
const GUARD_METRICS: [&str; 1] = ["jiuzhou_connections"];

fn field_of_guard<'a>(described: &'a Value, cluster: usize, guard: usize, field: &str) -> &'a str {
    let pointer = format!("/clusters/{cluster}/guard/{guard}/{field}");
    let value = described.pointer(&pointer).and_then(Value::as_str);
    value.expect("sandbox.json names it")
}

/// A process lives, is ready and has values for these metrics, as whoever watches it asks.
async fn tell_how_they_are(metrics: &str, names: &[&str]) {
    let address = metrics
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix("/metrics"))
        .unwrap();
    for path in ["/livez", "/readyz"] {
        // A step of the loop may be due at this moment.
        eventually(&format!("{address} answers {path}"), async || {
            let (status, _) = http_get(address, path).await.ok()?;
            (status == 200).then_some(())
        })
        .await;
    }
    for name in names {
        eventually(&format!("{address} counts {name}"), async || {
            let (status, body) = http_get(address, "/metrics").await.ok()?;
            assert_eq!(status, 200, "{body}");
            // Not only its description: labels or a value follow, in a histogram a suffix.
            let mut lines = body.lines().filter_map(|line| line.strip_prefix(name));
            lines
                .any(|rest| rest.starts_with(['{', ' ', '_']))
                .then_some(())
        })
        .await;
    }
}

/// The fields that scripts outside rely on.
#[tokio::test]
async fn a_living_sandbox_describes_itself() {
    let mut sandbox = Sandbox::try_start_with("living", &["--clusters", "4"])
        .await
        .expect("the sandbox starts");
    let described = sandbox.description.clone();
    let text = |pointer: &str| {
        let value = described.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("{pointer} in {described}"))
    };
    let is_pid = |pointer: &str| {
        let pid = described.pointer(pointer).and_then(Value::as_u64);
        pid.and_then(|pid| u32::try_from(pid).ok())
            .is_some_and(runs)
    };
    assert!(Path::new(text("/hub/kubeconfig")).is_file());
    assert!(text("/hub/apiserver").starts_with("https://127.0.0.1:"));
    assert!(text("/hub/metrics").ends_with("/metrics") && is_pid("/hub/pid"));
    let expected = [
        ("zhejiang-a", "zhejiang", "local"),
        ("hangzhou-a", "hangzhou", "pull"),
        ("ningbo-a", "ningbo", "pull"),
        ("quzhou-a", "quzhou", "push"),
    ];
    assert_eq!(
        described["clusters"].as_array().map(Vec::len),
        Some(expected.len())
    );
    for (at, (name, region, mode)) in expected.into_iter().enumerate() {
        let field = |field: &str| text(&format!("/clusters/{at}/{field}"));
        let found = (field("name"), field("region"), field("mode"));
        assert_eq!(found, (name, region, mode));
        assert!(sandbox.dir.join(format!("{name}.kubeconfig")).is_file());
        assert!(Path::new(field("kubeconfig")).is_file());
        assert!(field("apiserver").starts_with("https://127.0.0.1:"));
        assert!(field("agent/metrics").ends_with("/metrics"), "{name}");
        assert!(is_pid(&format!("/clusters/{at}/agent/pid")), "{name}");
        let guards = described.pointer(&format!("/clusters/{at}/guard"));
        assert_eq!(guards.and_then(Value::as_array).map(Vec::len), Some(2));
        for guard in 0..2 {
            let field = |field: &str| field_of_guard(&described, at, guard, field);
            assert!(field("http").starts_with("http://127.20."), "{name}");
            assert!(field("metrics").ends_with("/metrics"), "{name}");
            let pid = format!("/clusters/{at}/guard/{guard}/pid");
            assert!(is_pid(&pid), "{name}");
        }
    }
    assert!(sandbox.dir.join("logs").is_dir());
    tell_how_they_are(text("/hub/metrics"), &HUB_METRICS).await;
    tell_how_they_are(text("/clusters/1/agent/metrics"), &AGENT_METRICS).await;
    // The demo App's route goes to the guards of a city as soon as it runs there.
    for guard in 0..2 {
        let metrics = field_of_guard(&described, 1, guard, "metrics");
        tell_how_they_are(metrics, &GUARD_METRICS).await;
        let http = field_of_guard(&described, 1, guard, "http");
        let address = http.trim_start_matches("http://");
        eventually("a citizen is answered by the demo App", async || {
            let (status, body) = http_get_of(address, "hello.example", "/").await.ok()?;
            (status == 200 && body.contains("hello-")).then_some(())
        })
        .await;
    }
    let started = sandbox.processes();
    assert!(started.len() > 10, "{started:?}");
    sandbox.signal(Signal::TERM);
    let ended = tokio::time::timeout(Duration::from_mins(1), sandbox.child.wait()).await;
    assert_eq!(
        ended.expect("it ends in time").expect("it ends").code(),
        Some(0)
    );
    let left: Vec<u32> = started.into_iter().filter(|pid| runs(*pid)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

#[tokio::test]
async fn usage_errors_exit_with_64() {
    for arguments in [&["--clusters", "0"][..], &["--no-such-flag"], &["dance"]] {
        let status = Command::new(SANDBOX)
            .args(arguments)
            .stderr(Stdio::null())
            .status()
            .await
            .expect("it starts");
        assert_eq!(status.code(), Some(64), "{arguments:?}");
    }
}
