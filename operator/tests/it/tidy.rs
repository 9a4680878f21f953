//! The order of the house, held over every Rust file of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines after which a file holds more than one concern; tests stand apart.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for folder in [
        "crds/src",
        "operator/src",
        "operator/plan/src",
        "operator/shield/src",
        "e2e/src",
    ] {
        collect(&root().join(folder), &mut files);
    }
    files
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
}

fn offenders(fault: impl Fn(&Path, &str) -> bool) -> Vec<PathBuf> {
    sources()
        .into_iter()
        .filter(|(path, text)| fault(path, text))
        .map(|(path, _)| path)
        .collect()
}

#[test]
fn no_file_is_long() {
    let long =
        offenders(|path, text| !path.ends_with("tests.rs") && text.lines().count() > LINES_MAX);
    assert_eq!(
        long,
        Vec::<PathBuf>::new(),
        "more than {LINES_MAX} lines: split by concern"
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = offenders(|path, text| !text.starts_with("//!") && !path.ends_with("tests.rs"));
    assert_eq!(
        silent,
        Vec::<PathBuf>::new(),
        "start with a sentence (//!) on what the file does"
    );
}

#[test]
fn every_exception_to_a_lint_has_its_reason() {
    let bare = |_: &Path, text: &str| {
        ["#[allow(", "#![allow(", "#[expect(", "#![expect("]
            .iter()
            .any(|attribute| {
                text.match_indices(attribute).any(|(at, _)| {
                    let end = text[at..].find(")]").map_or(text.len(), |end| at + end);
                    !text[at..end].contains("reason")
                })
            })
    };
    assert_eq!(
        offenders(bare),
        Vec::<PathBuf>::new(),
        "give the exception a reason"
    );
}

#[test]
fn no_module_hides_in_a_mod_rs_and_nothing_is_left_to_do() {
    let faults = offenders(|path, text| {
        path.ends_with("mod.rs")
            || text.contains(concat!("todo", "!("))
            || text.contains(concat!("unimplemented", "!("))
    });
    assert_eq!(faults, Vec::<PathBuf>::new());
}

#[test]
fn every_file_belongs_to_a_module() {
    let files = sources();
    let declared = |path: &Path| {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let folder = path.parent().unwrap();
        let parent = [
            folder.with_extension("rs"),
            folder.join("lib.rs"),
            folder.join("main.rs"),
        ];
        matches!(name, "lib" | "main")
            || path.parent().is_some_and(|p| p.ends_with("bin"))
            || files
                .iter()
                .filter(|(file, _)| parent.contains(file))
                .any(|(_, text)| text.contains(&format!("mod {name};")))
    };
    let lost: Vec<_> = files
        .iter()
        .map(|(path, _)| path)
        .filter(|path| !declared(path))
        .collect();
    assert!(lost.is_empty(), "declared nowhere: {lost:?}");
}
