//! Files and folders of manifests, as commands name them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// How names of manifests end in a folder; a file that is named itself may be called anything.
const ENDS: [&str; 3] = ["yaml", "yml", "json"];

/// All files that are named, and the manifests of folders and of those below them.
pub(super) fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        collect(path, &mut files)?;
        // Whoever checked or applied nothing must hear of it: the folder is the wrong one, or it moved.
        if files.len() == before {
            bail!(
                "no manifest in {}: looked there and in the folders below it for files ending in {}",
                path.display(),
                ENDS.map(|end| format!(".{end}")).join(", ")
            );
        }
    }
    Ok(files)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        let manifest = entry
            .extension()
            .is_some_and(|end| ENDS.iter().any(|known| end == *known));
        if entry.is_dir() || manifest {
            collect(&entry, files)?;
        }
    }
    Ok(())
}

/// The documents of a YAML text that hold anything.
pub(super) fn documents(text: &str) -> impl Iterator<Item = &str> {
    let says_something = |document: &&str| {
        document
            .lines()
            .map(str::trim)
            .any(|line| !line.is_empty() && !line.starts_with('#') && line != "---")
    };
    text.split("\n---").filter(says_something)
}
