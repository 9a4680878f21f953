//! A guard that runs by a file: what is in it, and what it becomes.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::guard::serve::Guard;
use crate::guard::serve::store::{self, StoreError};

/// How often the file is looked at: a rule applies within a second of its change.
const LOOK: Duration = Duration::from_millis(250);

/// Serves by the file, and by what it becomes. The first configuration must be good; a later one that
/// is not is told, and the last good one stays.
pub(super) async fn follow(guard: &Guard, path: &Path) -> anyhow::Result<()> {
    let mut file = Watched::new(path);
    loop {
        file.look(guard).await?;
        tokio::time::sleep(LOOK).await;
    }
}

/// The file as far as it is known.
struct Watched<'a> {
    path: &'a Path,
    /// What was read last, and so was told if it was bad.
    seen: Option<Version>,
    /// What could not be read, which is told once.
    unread: Option<Version>,
    has_taken: bool,
}

/// Which file it is, and of when; none if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version(Option<Marks>);

/// What differs between a file and the one that replaces it. Its time alone does not: copies keep it, archives
/// set it, and two writes may come within one tick of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Of the file or of what is said about it; nobody can set this one.
    changed: (i64, i64),
}

impl<'a> Watched<'a> {
    fn new(path: &'a Path) -> Self {
        Self {
            path,
            seen: None,
            unread: None,
            has_taken: false,
        }
    }

    /// Takes in what is new. An error is one of the first configuration.
    async fn look(&mut self, guard: &Guard) -> anyhow::Result<()> {
        let version = Version::of(self.path);
        if self.seen == Some(version) {
            return Ok(());
        }
        let error = match take(guard, self.path).await {
            Ok(()) => {
                self.has_taken = true;
                self.seen = Some(version);
                return Ok(());
            }
            Err(error) if !self.has_taken => return Err(error),
            Err(error) => error,
        };
        // What the system does not give now, as with too many open files, it may give at the next look.
        let is_unread = matches!(
            error.downcast_ref::<StoreError>(),
            Some(StoreError::File { .. })
        );
        let is_told = is_unread && self.unread == Some(version);
        if is_unread {
            self.unread = Some(version);
        } else {
            self.seen = Some(version);
        }
        if !is_told {
            tracing::error!(error = format!("{error:#}"), "configuration refused");
        }
        Ok(())
    }
}

impl Version {
    fn of(path: &Path) -> Self {
        let marks = std::fs::metadata(path).map(|file| Marks {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        });
        Self(marks.ok())
    }
}

async fn take(guard: &Guard, path: &Path) -> anyhow::Result<()> {
    let configuration = store::read(path)?;
    let configuration =
        configuration.with_context(|| format!("{} does not exist", path.display()))?;
    // Whoever wrote it is asked at once; the file of a guard that follows control is not read here.
    configuration
        .check_paths()
        .with_context(|| format!("{} cannot be served", path.display()))?;
    Ok(guard.apply(&configuration).await?)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;
    use crate::guard::serve::{Dial, Observing, Settings};

    /// A folder of one test, which is gone after it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("guard-file-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("guard.json")
        }

        /// Replaces the file by one of this time.
        fn put(&self, text: &str, time: SystemTime) {
            let fresh = self.0.join("fresh.json");
            fs::write(&fresh, text).unwrap();
            let file = File::options().write(true).open(&fresh).unwrap();
            file.set_modified(time).unwrap();
            fs::rename(&fresh, self.file()).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    fn guard() -> Guard {
        let settings = Settings {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            seed: [7; 16],
            dial: Dial::default(),
            connections_max: 1,
            body_bytes_max: 1,
            body_pause_max: Duration::from_secs(1),
            upgrade_idle_max: Duration::from_secs(1),
            observing: Observing::default(),
            trusted_hops: 0,
        };
        Guard::new(&settings, &prometheus::Registry::new()).unwrap()
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_by_one_of_the_same_time_and_size_is_noticed() {
        let (folder, guard) = (Folder::new("time"), guard());
        let (path, time) = (folder.file(), SystemTime::UNIX_EPOCH);
        let mut file = Watched::new(&path);
        for revision in ["1", "2", "3"] {
            folder.put(&format!(r#"{{"revision": "{revision}"}}"#), time);
            file.look(&guard).await.unwrap();
            assert_eq!(guard.revision(), revision);
        }
    }

    #[tokio::test]
    async fn what_is_bad_leaves_what_was_taken_and_does_not_end_the_guard() {
        let (folder, guard) = (Folder::new("bad"), guard());
        let path = folder.file();
        let mut file = Watched::new(&path);
        fs::write(&path, r#"{"revision": "1"}"#).unwrap();
        file.look(&guard).await.unwrap();
        for bad in ["{", r#"{"revision": ""}"#, ""] {
            folder.put(bad, SystemTime::now());
            file.look(&guard).await.unwrap();
            assert_eq!(file.seen, Some(Version::of(&path)), "read once: {bad}");
        }
        fs::remove_file(&path).unwrap();
        file.look(&guard).await.unwrap();
        assert_eq!(guard.revision(), "1");
        folder.put(r#"{"revision": "2"}"#, SystemTime::now());
        file.look(&guard).await.unwrap();
        assert_eq!(guard.revision(), "2");
    }

    #[tokio::test]
    async fn a_first_configuration_without_a_revision_is_an_error_that_names_the_field() {
        let (folder, guard) = (Folder::new("first"), guard());
        let path = folder.file();
        fs::write(&path, r#"{"revision": ""}"#).unwrap();
        let error = Watched::new(&path).look(&guard).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("revision: must not be empty"), "{error}");
        assert!(
            error.starts_with("a configuration without a revision cannot be served"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_path_that_no_request_has_is_refused_in_a_file() {
        let (folder, guard) = (Folder::new("path"), guard());
        let path = folder.file();
        let text = r#"{"revision": "1", "ports": [{"port": 80, "tls": false, "listeners": [{"name": "a",
            "hosts": [{"entries": [{"path": {"prefix": "x"}, "rule": 0}]}]}]}]}"#;
        fs::write(&path, text).unwrap();
        let error = Watched::new(&path).look(&guard).await.unwrap_err();
        let error = format!("{error:#}");
        let wanted =
            "guard.json cannot be served: ports[0].listeners[0].hosts[0].entries[0].path.prefix: ";
        assert!(error.contains(wanted), "{error}");
        assert_eq!(guard.revision(), "");
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_read_again_at_the_next_look() {
        let (folder, guard) = (Folder::new("unread"), guard());
        let path = folder.file();
        let mut file = Watched::new(&path);
        fs::write(&path, r#"{"revision": "1"}"#).unwrap();
        file.look(&guard).await.unwrap();
        // The system does not give the bytes of a directory, whoever asks.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        file.look(&guard).await.unwrap();
        let version = Some(Version::of(&path));
        assert_eq!((file.seen == version, file.unread), (false, version));
        assert_eq!(guard.revision(), "1");
    }
}
