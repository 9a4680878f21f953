//! Child processes that never outlive their fleet.
//!
//! A [`Supervisor`] starts programs, each with its own log file, and tells a [`reaper`] about every
//! one of them. A [`Process`] can be stopped, killed, paused and started again with the same
//! arguments. Only processes started here are ever signalled.

mod identity;
pub mod reaper;
pub mod reserve;
mod tail;

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    io::retry_on_intr,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid},
};

pub(crate) use identity::ProcessId;
use reaper::Reaper;

/// How often an ending process is looked at; short, since most end within tens of milliseconds.
const POLL: Duration = Duration::from_millis(20);
/// How much of a log an error message shows.
const TAIL_LINES: usize = 12;

/// What to run: an executable with its arguments and extra environment.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    executable: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
}

impl Program {
    /// A program known as `name` in messages and in the name of its log file.
    pub fn new(name: impl Into<String>, executable: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            executable: executable.into(),
            args: vec![],
            env: vec![],
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds `--name=value`.
    #[must_use]
    pub fn flag(self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        let mut text = OsString::from(format!("--{name}="));
        text.push(value);
        self.arg(text)
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

/// Starts programs and makes sure that none of them outlives this program.
#[derive(Debug, Clone)]
pub struct Supervisor {
    reaper: Arc<Reaper>,
    logs: PathBuf,
}

impl Supervisor {
    /// Starts the reaper from the `sandbox` executable; logs go to `dir/logs`.
    pub fn start(sandbox: &Path, dir: &Path) -> Result<Self> {
        let logs = dir.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let reaper = Arc::new(Reaper::start(sandbox, dir)?);
        Ok(Self { reaper, logs })
    }

    /// Removes `folder` when this program ends, however it ends.
    pub fn remove_at_end(&self, folder: &Path) -> Result<()> {
        self.reaper.remove_at_end(folder)
    }

    /// Starts a program.
    pub fn spawn(&self, program: Program) -> Result<Process> {
        let log = self.logs.join(format!("{}.log", program.name));
        let process = Process {
            program,
            log,
            reaper: Arc::clone(&self.reaper),
            state: Mutex::default(),
        };
        process.start()?;
        Ok(process)
    }
}

/// How a process ended that was asked to.
#[derive(Debug, Clone, Copy)]
pub enum Stopped {
    /// In time, and how; or it ran no more.
    Itself(Option<ExitStatus>),
    /// Killed, since its time was up: what it would have written last is lost.
    Killed,
}

impl Stopped {
    /// Whether it did all that it does at its end, and was content.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Itself(Some(status)) if status.success())
    }
}

/// One child process, which may be ended and started again.
#[derive(Debug)]
pub struct Process {
    program: Program,
    log: PathBuf,
    reaper: Arc<Reaper>,
    state: Mutex<Option<Child>>,
}

impl Process {
    /// The name given to the program.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Its log file, appended to by every start.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The pid, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.state().as_ref().map(Child::id)
    }

    /// Starts it, again if need be; nothing happens while it runs.
    pub fn start(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(child) = state.as_mut() {
            if child.try_wait()?.is_none() {
                return Ok(());
            }
            self.reaper.forget(child.id())?;
        }
        let child = self.reaper.record(&self.program.name, || {
            let log = append(&self.log)?;
            Command::new(&self.program.executable)
                .args(&self.program.args)
                .envs(self.program.env.iter().map(|(name, value)| (name, value)))
                .env(reaper::RUN_VARIABLE, self.reaper.run())
                // Its own group: Ctrl-C in a terminal reaches the parent alone, which then ends
                // its children in order.
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .with_context(|| format!("start {}", self.program.executable.display()))
        })?;
        *state = Some(child);
        Ok(())
    }

    /// Fails, with the end of its log, if it ended without being asked to.
    pub fn check(&self) -> Result<()> {
        let Some(status) = self.ended()? else {
            return Ok(());
        };
        bail!(
            "{} ended ({status}); {}",
            self.name(),
            tail::describe(&self.log, TAIL_LINES)
        );
    }

    /// Whether the log's end contains `text`.
    pub(crate) fn log_mentions(&self, text: &str) -> bool {
        tail::last_lines(&self.log, TAIL_LINES)
            .iter()
            .any(|line| line.contains(text))
    }

    /// The end of its log, for error messages.
    pub fn log_tail(&self) -> String {
        tail::describe(&self.log, TAIL_LINES)
    }

    /// Asks it to end; kills it once `grace` has passed.
    pub async fn stop(&self, grace: Duration) -> Result<Stopped> {
        self.terminate()?;
        let deadline = Instant::now() + grace;
        let stopped = loop {
            if self.pid().is_none() {
                break Stopped::Itself(None);
            }
            if let Some(status) = self.ended()? {
                break Stopped::Itself(Some(status));
            }
            if Instant::now() >= deadline {
                break Stopped::Killed;
            }
            tokio::time::sleep(POLL).await;
        };
        // Also takes leave of one that ended.
        self.kill()?;
        Ok(stopped)
    }

    /// Sends SIGTERM and returns at once.
    pub(crate) fn terminate(&self) -> Result<()> {
        // A paused process would only see the signal after it is resumed.
        self.signal(Signal::CONT)?;
        self.signal(Signal::TERM)
    }

    /// Ends it at once and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(mut child) = state.take() {
            child
                .kill()
                .with_context(|| format!("kill {}", self.name()))?;
            child
                .wait()
                .with_context(|| format!("wait for {}", self.name()))?;
            self.reaper.forget(child.id())?;
        }
        Ok(())
    }

    /// Freezes it: connections stay open and nothing answers (SIGSTOP). Returns once all its
    /// threads stand still, which is a moment after the signal: until then it may still answer.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let state = self.state();
        if let Some(child) = state.as_ref() {
            // What is only looked at, the ending of a child too, stays to be collected.
            let stands = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            retry_on_intr(|| waitid(WaitId::Pid(Pid::from_child(child)), stands))
                .with_context(|| format!("wait until {} stands still", self.name()))?;
        }
        Ok(())
    }

    /// Ends a pause (SIGCONT).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// How it ended, if it did so by itself.
    pub(crate) fn ended(&self) -> Result<Option<ExitStatus>> {
        match self.state().as_mut() {
            Some(child) => child
                .try_wait()
                .with_context(|| format!("look at {}", self.name())),
            None => Ok(None),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let mut state = self.state();
        let Some(child) = state.as_mut() else {
            return Ok(());
        };
        // An ended child that was not waited for keeps its pid, so a pid seen running under this
        // lock cannot belong to anyone else.
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(child), signal)
            .with_context(|| format!("signal {}", self.name()))
    }

    fn state(&self) -> MutexGuard<'_, Option<Child>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(process = self.name(), "not killed: {error:#}");
        }
    }
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}
