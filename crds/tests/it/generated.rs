//! `crds/yaml/` is generated from the Rust types; `UPDATE=1 cargo test -p crds` writes it anew.

use std::fs;
use std::path::{Path, PathBuf};

fn yaml_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("yaml")
        .join(format!("{name}.yaml"))
}

#[test]
fn committed_yaml_is_what_the_types_generate() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut stale = Vec::new();
    for crd in crds::all() {
        let name = crd.metadata.name.clone().unwrap();
        let file = yaml_file(&name);
        let want = crds::to_yaml(&crd);
        if update {
            fs::write(&file, &want).unwrap();
        } else if fs::read_to_string(&file).ok().as_ref() != Some(&want) {
            stale.push(name);
        }
    }
    assert!(
        stale.is_empty(),
        "out of date: {stale:?}; run UPDATE=1 cargo test -p crds"
    );
}

#[test]
fn no_yaml_is_left_over_from_a_kind_that_is_gone() {
    let known: Vec<_> = crds::all()
        .iter()
        .map(|c| yaml_file(c.metadata.name.as_ref().unwrap()))
        .collect();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml")).unwrap() {
        let path = entry.unwrap().path();
        assert!(
            known.contains(&path),
            "{} belongs to no kind: delete it",
            path.display()
        );
    }
}
