//! Files and folders of manifests, as commands name them.

use std::ffi::OsStr;
use std::fs::DirEntry;
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

/// What a file says; `-` is standard input.
pub(super) fn text(file: &Path) -> anyhow::Result<String> {
    let read = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    read.with_context(|| format!("cannot read {}", file.display()))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let cannot = || format!("cannot read {}", path.display());
    let entries = std::fs::read_dir(path).with_context(cannot)?;
    let mut entries: Vec<DirEntry> = entries.collect::<Result<_, _>>().with_context(cannot)?;
    entries.sort_by_key(DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // What is hidden is for somebody else: settings of CI, or the versions of a mounted ConfigMap.
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let ends = |end: &OsStr| ENDS.iter().any(|known| end == *known);
        if entry.file_type().with_context(cannot)?.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(ends) && path.is_file() {
            // A link to a folder is not followed: it may lead round.
            files.push(path);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_searched_but_for_what_is_hidden_and_links_to_folders() {
        let dir = std::env::temp_dir().join(format!("jiuzhou-manifests-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("inner/.github")).unwrap();
        for name in [
            "b.yaml",
            "a.json",
            "notes.txt",
            "inner/c.yml",
            "inner/.github/ci.yml",
        ] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(&dir, dir.join("round.yaml")).unwrap();
        std::os::unix::fs::symlink(dir.join("b.yaml"), dir.join("link.yaml")).unwrap();
        let found = files(std::slice::from_ref(&dir)).unwrap();
        let names = found.iter().map(|file| file.strip_prefix(&dir).unwrap());
        let names: Vec<_> = names.map(|name| name.to_str().unwrap()).collect();
        assert_eq!(names, ["a.json", "b.yaml", "inner/c.yml", "link.yaml"]);
        let hidden = dir.join("inner/.github");
        assert_eq!(files(&[hidden]).unwrap().len(), 1, "it was named itself");
        std::fs::remove_file(dir.join("inner/c.yml")).unwrap();
        assert!(files(&[dir.join("inner")]).is_err(), "nothing was found");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
