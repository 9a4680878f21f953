//! The access log: one line of JSON for a request, written by a thread of its own.
//!
//! ```text
//! requests ─ lines ─> buffer (bounded) ─> writer thread ─> standard output or a file
//! ```
//!
//! A request appends its line to a buffer under a short lock and goes on. The writer takes the whole
//! buffer ten times a second. When it cannot keep up, lines are dropped and counted: the log never
//! slows a request.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use prometheus::IntCounter;
use serde::Serialize;
use shield::{Bucket, Quota, QuotaError, Rate};
use tokio::sync::oneshot;

use super::protection::Clock;

/// How often the writer looks: often enough for those who watch, seldom enough to cost nothing.
const LOOK: Duration = Duration::from_millis(100);
/// Lines that wait: a line has about 400 bytes, so that these are 40,000 of them, two looks at five times
/// the requests that one machine serves.
const BUFFER_BYTES_MAX: usize = 16 << 20;
/// Refusals that are logged in a second. A flood is told by its counters; a line each would make
/// refusing dearer than accepting.
const REFUSALS_PER_SECOND: u32 = 100;
/// Bytes of a text of the client's in a line, so that nobody can fill the buffer with one request.
const TEXT_BYTES_MAX: usize = 1024;
/// How long the end waits for what is written.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Where the access log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// A file, which is appended to and opened anew when it was moved away.
    File(PathBuf),
}

impl std::str::FromStr for AccessLogTarget {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "off" => Self::Off,
            "stdout" => Self::Stdout,
            path => Self::File(path.into()),
        })
    }
}

/// Why there is no access log.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// The file.
    #[error("cannot open the access log {}", path.display())]
    Open {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The thread.
    #[error("cannot start the thread that writes the access log")]
    Thread(#[source] io::Error),
    /// A constant of ours.
    #[error("cannot bound the refusals in the access log")]
    Bound(#[from] QuotaError),
}

/// What is counted when a line is not written.
#[derive(Clone, Debug)]
pub(super) struct Dropped {
    /// The writer does not keep up, or cannot write.
    pub(super) pressure: IntCounter,
    /// More refusals than are logged.
    pub(super) refusals: IntCounter,
}

/// The access log of a guard.
#[derive(Debug)]
pub(super) struct AccessLog {
    buffer: Arc<Buffer>,
    writer: Thread,
    percent: u32,
    refusals: Bucket,
    clock: Clock,
}

/// One request, as it is written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line<'a> {
    /// When its head had come.
    pub(super) time: String,
    pub(super) method: Text<'a>,
    pub(super) host: Text<'a>,
    /// Without the query: queries hold what citizens ask about themselves.
    pub(super) path: Text<'a>,
    pub(super) protocol: &'static str,
    pub(super) status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) rule: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) route: &'a str,
    pub(super) client: std::net::IpAddr,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) micros: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream: Option<Upstream>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace: Option<String>,
}

/// The endpoint that was asked last.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Upstream {
    pub(super) address: std::net::SocketAddr,
    /// From sending to the answer's head.
    pub(super) micros: u64,
    /// How often the request was sent, to this endpoint and others.
    pub(super) attempts: u32,
}

/// A text of the client's, cut where it is too long.
#[derive(Debug)]
pub(super) struct Text<'a>(pub(super) &'a str);

impl Serialize for Text<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.len() <= TEXT_BYTES_MAX {
            return serializer.serialize_str(self.0);
        }
        let cut = self.0.floor_char_boundary(TEXT_BYTES_MAX);
        serializer.collect_str(&format_args!("{}…", &self.0[..cut]))
    }
}

#[derive(Debug)]
struct Buffer {
    state: Mutex<State>,
    dropped: Dropped,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    count: u64,
    /// Told when all that was there before them is written.
    waiting: Vec<oneshot::Sender<()>>,
    has_ended: bool,
}

impl AccessLog {
    /// A log of `percent` of the requests; none if it goes nowhere.
    pub(super) fn open(
        target: &AccessLogTarget,
        percent: u32,
        dropped: &Dropped,
        clock: Clock,
    ) -> Result<Option<Self>, AccessLogError> {
        let output = match target {
            AccessLogTarget::Off => return Ok(None),
            AccessLogTarget::Stdout => Output::Stdout,
            AccessLogTarget::File(path) => Output::file(path)?,
        };
        let second = Duration::from_secs(1);
        let refusals = Quota::new(Rate::new(REFUSALS_PER_SECOND, second)?, REFUSALS_PER_SECOND)?;
        let buffer = Arc::new(Buffer {
            state: Mutex::default(),
            dropped: dropped.clone(),
        });
        let read = Arc::clone(&buffer);
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || read.write_to(output))
            .map_err(AccessLogError::Thread)?;
        Ok(Some(Self {
            buffer,
            writer: writer.thread().clone(),
            percent,
            refusals: Bucket::full(refusals),
            clock,
        }))
    }

    /// Whether a request is logged. Asked before its line is made, as most of the cost is in that.
    pub(super) fn wants(&self, is_refusal: bool) -> bool {
        if fastrand::u32(..100) >= self.percent {
            return false;
        }
        if is_refusal && self.refusals.take(1, self.clock.now()).is_err() {
            self.buffer.dropped.refusals.inc();
            return false;
        }
        true
    }

    /// Appends a line; never waits for the writer.
    pub(super) fn write(&self, line: &Line<'_>) {
        // What is in a line can always be written as JSON.
        let Ok(mut bytes) = serde_json::to_vec(line) else {
            return;
        };
        bytes.push(b'\n');
        let mut state = self.buffer.lock();
        if state.lines.len() + bytes.len() > BUFFER_BYTES_MAX {
            drop(state);
            self.buffer.dropped.pressure.inc();
            return;
        }
        state.lines.extend_from_slice(&bytes);
        state.count += 1;
    }

    /// Returns when all lines up to now are written, or the patience for it is over.
    pub(super) async fn flush(&self) {
        let (written, done) = oneshot::channel();
        self.buffer.lock().waiting.push(written);
        self.writer.unpark();
        if tokio::time::timeout(FLUSH_PATIENCE, done).await.is_err() {
            tracing::warn!("the end of the access log was not written in time");
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.buffer.lock().has_ended = true;
        self.writer.unpark();
    }
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut output: Output) {
        let mut lines = Vec::new();
        let mut is_broken = false;
        loop {
            let mut state = self.lock();
            std::mem::swap(&mut state.lines, &mut lines);
            let count = std::mem::take(&mut state.count);
            let waiting = std::mem::take(&mut state.waiting);
            let has_ended = state.has_ended;
            drop(state);
            if !lines.is_empty() {
                let written = output.write(&lines);
                lines.clear();
                match written {
                    Ok(()) => is_broken = false,
                    Err(error) => {
                        self.dropped.pressure.inc_by(count);
                        // Told once, not ten times a second.
                        if !is_broken {
                            tracing::error!(error = %error, "the access log cannot be written; its lines are dropped");
                        }
                        is_broken = true;
                    }
                }
            }
            for written in waiting {
                // Who does not wait any longer needs no answer.
                let _ = written.send(());
            }
            if has_ended {
                return;
            }
            std::thread::park_timeout(LOOK);
        }
    }
}

enum Output {
    Stdout,
    File { path: PathBuf, file: File },
}

impl Output {
    fn file(path: &Path) -> Result<Self, AccessLogError> {
        let path = path.to_owned();
        match open(&path) {
            Ok(file) => Ok(Self::File { path, file }),
            Err(source) => Err(AccessLogError::Open { path, source }),
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File { path, file } => {
                if !is_same(path, file) {
                    *file = open(path)?;
                }
                file.write_all(lines)
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

/// Whether the file that is open is still the one of that name: logs are rotated by moving them.
fn is_same(path: &Path, file: &File) -> bool {
    let (Ok(named), Ok(open)) = (std::fs::metadata(path), file.metadata()) else {
        return false;
    };
    named.ino() == open.ino() && named.dev() == open.dev()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped() -> Dropped {
        let counter = |name| IntCounter::new(name, "test").unwrap();
        Dropped {
            pressure: counter("pressure"),
            refusals: counter("refusals"),
        }
    }

    fn line(path: &str) -> Line<'_> {
        Line {
            time: "2026-01-01T00:00:00.000Z".into(),
            method: Text("GET"),
            host: Text("app.example"),
            path: Text(path),
            protocol: "HTTP/1.1",
            status: 200,
            reason: None,
            rule: "",
            route: "ns/route",
            client: [127, 0, 0, 1].into(),
            bytes_in: 0,
            bytes_out: 2,
            micros: 7,
            upstream: None,
            trace: None,
        }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("access-log-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn open_at(path: &Path, dropped: &Dropped) -> AccessLog {
        let target = AccessLogTarget::File(path.to_owned());
        let log = AccessLog::open(&target, 100, dropped, Clock::start());
        log.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_log_that_was_moved_away_goes_on_in_a_file_of_its_name() {
        let folder = folder("moved");
        let path = folder.join("access.log");
        let log = open_at(&path, &dropped());
        log.write(&line("/one"));
        log.flush().await;
        std::fs::rename(&path, folder.join("access.log.1")).unwrap();
        log.write(&line("/two"));
        log.flush().await;
        let [old, new] = ["access.log.1", "access.log"]
            .map(|name| std::fs::read_to_string(folder.join(name)).unwrap());
        assert!(old.contains("/one") && !old.contains("/two"), "{old}");
        assert!(new.contains("/two") && !new.contains("/one"), "{new}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_line_is_one_line_whatever_a_client_wrote() {
        let folder = folder("escaped");
        let path = folder.join("access.log");
        let log = open_at(&path, &dropped());
        log.write(&line("/\"}\n{\u{1b}[31m"));
        log.write(&line(&"人".repeat(10_000)));
        log.flush().await;
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["path"], "/\"}\n{\u{1b}[31m");
        let lengthy = lines[1]["path"].as_str().unwrap();
        assert!(
            lengthy.len() < TEXT_BYTES_MAX + 4 && lengthy.ends_with("人…"),
            "{lengthy}"
        );
        assert_eq!(lines.len(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_writer_that_does_not_keep_up_costs_lines_and_no_time() {
        // A pipe that nobody reads: the writer hangs in it.
        let folder = folder("pressure");
        let path = folder.join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        // Holding the reading end open lets the writer open it.
        let held = File::options().read(true).write(true).open(&path).unwrap();
        let dropped = dropped();
        let log = open_at(&path, &dropped);
        let lengthy = "x".repeat(TEXT_BYTES_MAX);
        // Twice what the buffer and the writer hold together.
        for _ in 0..4 * BUFFER_BYTES_MAX / TEXT_BYTES_MAX {
            log.write(&line(&lengthy));
        }
        assert!(dropped.pressure.get() > 0);
        drop(held);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn of_a_flood_of_refusals_few_are_logged_and_the_rest_is_counted() {
        let folder = folder("refusals");
        let dropped = dropped();
        let log = open_at(&folder.join("access.log"), &dropped);
        let began = std::time::Instant::now();
        let logged = (0..10_000).filter(|_| log.wants(true)).count();
        // The bound, and what comes free while they are asked for.
        let meanwhile = usize::try_from(began.elapsed().as_millis() / 10).unwrap();
        assert!((100..=101 + meanwhile).contains(&logged), "{logged}");
        assert_eq!(
            usize::try_from(dropped.refusals.get()).unwrap(),
            10_000 - logged
        );
        assert!(log.wants(false));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
