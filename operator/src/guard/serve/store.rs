//! The last good configuration on disk, so that a restart needs nobody.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::guard::config::Configuration;

/// Why a stored configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is in it.
    #[error("{} holds no configuration of a guard", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        source: serde_json::Error,
    },
}

/// Reads a configuration; none if there is no such file.
pub fn read(path: &Path) -> Result<Option<Configuration>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(StoreError::File {
                path: path.to_owned(),
                source,
            });
        }
    };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|source| StoreError::Content {
        path: path.to_owned(),
        source,
    })
}

/// Replaces the file as a whole or not at all. Only the owner may read it: it holds private keys.
pub fn write(path: &Path, configuration: &Configuration) -> Result<(), StoreError> {
    let bad = |source| StoreError::File {
        path: path.to_owned(),
        source,
    };
    let bytes = serde_json::to_vec(configuration).map_err(|error| bad(error.into()))?;
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(bad)?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .map_err(bad)?;
    fs::rename(&fresh, path).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_by_its_owner_alone_and_garbage_is_named() {
        let folder = std::env::temp_dir().join(format!("guard-store-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("last-good.json");
        assert!(read(&path).unwrap().is_none());
        let configuration = Configuration {
            revision: "r1".into(),
            ..Configuration::default()
        };
        write(&path, &configuration).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), configuration);
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o077, 0);
        fs::write(&path, "{").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("last-good.json"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
