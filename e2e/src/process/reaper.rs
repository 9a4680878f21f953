//! The small process that clears up after its parent, even after `kill -9`.
//!
//! ```text
//! parent --stdin pipe--> sandbox reap
//! ```
//!
//! The parent writes down every process and folder it makes, and never closes the pipe. When the
//! parent ends, by whatever means, the kernel closes it, and the reaper kills what is still running
//! and removes the folders. The same lines stand in `processes` in the run's folder, from where the
//! next run in that folder clears up if the reaper itself was killed as well.
//!
//! **Invariant**: it kills only processes that were written down and still have the same start
//! time, and those that carry this run's mark in their environment, which only the run's own
//! children inherit. The mark covers a child whose parent died before writing it down.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::ProcessId;

/// Environment variable with the mark of the run that a process belongs to.
pub(super) const RUN_VARIABLE: &str = "JIUZHOU_SANDBOX_RUN";
/// Name of the journal in a run's folder.
pub(crate) const JOURNAL: &str = "processes";
/// How long killed processes may take to go; a process in the middle of a disk write takes longest.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// The parent's end: everything told to it also goes to the journal file.
#[derive(Debug)]
pub(super) struct Reaper {
    run: String,
    state: Mutex<Pipe>,
}

#[derive(Debug)]
struct Pipe {
    child: Child,
    stdin: Option<ChildStdin>,
    journal: File,
}

impl Reaper {
    pub(super) fn start(sandbox: &Path, dir: &Path) -> Result<Self> {
        let journal = dir.join(JOURNAL);
        let journal =
            File::create(&journal).with_context(|| format!("create {}", journal.display()))?;
        let mut child = Command::new(sandbox)
            .arg("reap")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {} reap", sandbox.display()))?;
        let stdin = child.stdin.take();
        let run = uuid::Uuid::new_v4().simple().to_string();
        let reaper = Self {
            state: Mutex::new(Pipe {
                child,
                stdin,
                journal,
            }),
            run,
        };
        reaper.tell(&format!("run\t{}", reaper.run))?;
        Ok(reaper)
    }

    /// The mark of this run.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// Starts a process and writes it down.
    pub(super) fn record(
        &self,
        name: &str,
        start: impl FnOnce() -> Result<Child>,
    ) -> Result<Child> {
        let child = start()?;
        // None: it has ended already, and nothing needs to be killed.
        if let Some(id) = ProcessId::of(child.id()) {
            self.tell(&format!("process\t{}\t{}\t{name}", id.pid, id.started))?;
        }
        Ok(child)
    }

    pub(super) fn forget(&self, pid: u32) -> Result<()> {
        self.tell(&format!("gone\t{pid}"))
    }

    pub(super) fn remove_at_end(&self, folder: &Path) -> Result<()> {
        self.tell(&format!("folder\t{}", folder.display()))
    }

    fn tell(&self, line: &str) -> Result<()> {
        let line = format!("{line}\n");
        let mut pipe = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        pipe.journal
            .write_all(line.as_bytes())
            .context("write the journal of processes")?;
        if let Some(stdin) = &mut pipe.stdin {
            // A reaper that somebody killed must not stop the fleet; the journal remains.
            if let Err(error) = stdin.write_all(line.as_bytes()) {
                tracing::warn!(
                    "the reaper is gone ({error}); a crash would leave processes behind"
                );
                pipe.stdin = None;
            }
        }
        Ok(())
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        let pipe = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        pipe.stdin = None;
        let _ = pipe.child.wait();
    }
}

/// What a journal says is there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    run: Option<String>,
    processes: BTreeMap<u32, ProcessId>,
    folders: Vec<PathBuf>,
}

impl Left {
    fn read(lines: impl BufRead) -> Self {
        let mut left = Self::default();
        for line in lines.lines() {
            // An unreadable line is the end: what was understood so far still counts.
            let Ok(line) = line else { break };
            left.note(&line);
        }
        left
    }

    fn note(&mut self, line: &str) {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["run", run] => self.run = Some((*run).to_owned()),
            ["folder", folder] => self.folders.push(PathBuf::from(folder)),
            ["gone", pid] => {
                if let Ok(pid) = pid.parse() {
                    self.processes.remove(&pid);
                }
            }
            ["process", pid, started, _name] => {
                if let (Ok(pid), Ok(started)) = (pid.parse(), started.parse()) {
                    self.processes.insert(pid, ProcessId { pid, started });
                }
            }
            // A line cut short by a crash.
            _ => {}
        }
    }

    fn clear(&self) {
        let deadline = Instant::now() + KILL_DEADLINE;
        loop {
            let running = self.running();
            if running.is_empty() || Instant::now() > deadline {
                break;
            }
            running.into_iter().for_each(ProcessId::kill);
            sleep(Duration::from_millis(20));
        }
        for folder in &self.folders {
            let _ = fs::remove_dir_all(folder);
        }
    }

    fn running(&self) -> Vec<ProcessId> {
        let recorded = self.processes.values().copied().filter(|id| id.runs());
        recorded
            .chain(self.run.iter().flat_map(|run| marked(run)))
            .collect()
    }
}

/// Every running process whose environment carries the mark of `run`.
fn marked(run: &str) -> Vec<ProcessId> {
    let mark = format!("{RUN_VARIABLE}={run}");
    let Ok(entries) = fs::read_dir("/proc") else {
        return vec![];
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let id = ProcessId::of(pid)?;
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            environment
                .split(|byte| *byte == 0)
                .any(|v| v == mark.as_bytes())
                .then_some(id)
        })
        .collect()
}

/// The reaper's whole life: listens until the parent is gone, then clears up.
pub fn run() {
    Left::read(std::io::stdin().lock()).clear();
}

/// Clears up what an earlier run in `dir` left behind, from its journal.
pub(crate) fn clear_leftovers(dir: &Path) -> Result<()> {
    let path = dir.join(JOURNAL);
    match File::open(&path) {
        Ok(file) => {
            Left::read(BufReader::new(file)).clear();
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_only_what_was_not_ended_in_order() {
        let text = "run\tabc\nprocess\t7\t70\tetcd\nprocess\t8\t80\tkube-apiserver\n\
                    folder\t/dev/shm/x\ngone\t7\nproc";
        let left = Left::read(text.as_bytes());
        assert_eq!(left.run.as_deref(), Some("abc"));
        assert_eq!(left.processes.keys().copied().collect::<Vec<_>>(), [8]);
        assert_eq!(left.folders, [PathBuf::from("/dev/shm/x")]);
    }

    #[test]
    fn finds_marked_processes_and_kills_nothing_else() {
        let marker = "test-finds-marked";
        let mut ours = Command::new("sleep")
            .arg("60")
            .env(RUN_VARIABLE, marker)
            .spawn()
            .expect("sleep starts");
        let mut other = Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep starts");
        let left = Left {
            run: Some(marker.into()),
            ..Left::default()
        };
        // Until exec has happened, the child still shows its parent's environment.
        while left.running().is_empty() {
            sleep(Duration::from_millis(5));
        }
        left.clear();
        assert!(!ours.wait().expect("can be waited for").success());
        assert!(other.try_wait().expect("can be looked at").is_none());
        other.kill().expect("can be killed");
        other.wait().expect("can be waited for");
    }
}
