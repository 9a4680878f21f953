//! The folder of one fleet: claimed by a lock, so that a folder has at most one living fleet.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::process::{Supervisor, reaper};

/// Locked by the living owner; holds its pid. Also what tells a fleet's folder from any other.
const LOCK: &str = "lock";
/// Memory-backed on Linux: etcd syncs on every write, and nothing here needs to survive.
const MEMORY: &str = "/dev/shm";

/// The folder belongs to a fleet that is still alive.
#[derive(Debug)]
pub struct InUse {
    dir: PathBuf,
    pid: String,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} belongs to a sandbox that is still running as process {pid}: stop it with Ctrl-C \
             or `kill {pid}`, or choose another folder",
            self.dir.display(),
            pid = self.pid
        )
    }
}

impl std::error::Error for InUse {}

/// A claimed folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Claims `dir`, ends what a crashed fleet left running and removes what it left behind.
    pub(super) fn claim(dir: &Path) -> Result<Self> {
        refuse_foreign(dir)?;
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let path = fs::canonicalize(dir).with_context(|| format!("resolve {}", dir.display()))?;
        let lock = lock(&path)?;
        reaper::clear_leftovers(&path)?;
        empty(&path)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder for etcd's data: in memory if possible, removed when the fleet ends.
    pub(super) fn data_dir(&self, supervisor: &Supervisor) -> Result<PathBuf> {
        let name = format!("jiuzhou-{}", uuid::Uuid::new_v4().simple());
        let in_memory = Path::new(MEMORY).join(name);
        let data = if fs::create_dir(&in_memory).is_ok() {
            in_memory
        } else {
            let on_disk = self.path.join("data");
            fs::create_dir(&on_disk).with_context(|| format!("create {}", on_disk.display()))?;
            on_disk
        };
        supervisor.remove_at_end(&data)?;
        Ok(data)
    }
}

/// A folder with content that no fleet made is somebody's work, and is never emptied.
fn refuse_foreign(dir: &Path) -> Result<()> {
    let Ok(mut entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    if entries.next().is_some() && !dir.join(LOCK).is_file() {
        bail!(
            "{} is not empty and was not made by a sandbox: choose another folder",
            dir.display()
        );
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path)
                .unwrap_or_default()
                .trim()
                .to_owned();
            return Err(InUse {
                dir: dir.to_owned(),
                pid,
            }
            .into());
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", path.display()));
        }
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Removes everything but the lock, which must not be replaced under its holder.
fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name() == LOCK {
            continue;
        }
        let removed = if entry.file_type()?.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("jiuzhou-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn never_empties_a_folder_that_no_fleet_made() {
        let dir = scratch("foreign");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("thesis.txt"), "years of work").unwrap();
        let error = Folder::claim(&dir).unwrap_err().to_string();
        assert!(error.contains("was not made by a sandbox"), "{error}");
        assert!(dir.join("thesis.txt").exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn refuses_a_living_owner_by_pid_and_clears_up_after_a_gone_one() {
        let dir = scratch("claimed");
        let owner = Folder::claim(&dir).unwrap();
        fs::write(dir.join("old"), "").unwrap();
        let error = Folder::claim(&dir).unwrap_err().to_string();
        assert!(
            error.contains(&format!("kill {}", std::process::id())),
            "{error}"
        );
        drop(owner);
        let next = Folder::claim(&dir).unwrap();
        assert!(!dir.join("old").exists());
        drop(next);
        fs::remove_dir_all(&dir).unwrap();
    }
}
