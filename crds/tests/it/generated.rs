//! `crds/yaml/` is generated from the Rust types; `UPDATE=1 cargo test -p crds` writes it anew.

use std::fs;
use std::path::{Path, PathBuf};

fn yaml_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("yaml")
        .join(format!("{name}.yaml"))
}

/// Files that hold a CRD: the one among all, and of a kind that regions know as well its chart's.
fn files(name: &str) -> Vec<PathBuf> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/region/templates");
    let in_regions =
        (name == "trafficpolicies.jiuzhou.io").then(|| chart.join("0-crd-trafficpolicies.yaml"));
    std::iter::once(yaml_file(name)).chain(in_regions).collect()
}

#[test]
fn committed_yaml_is_what_the_types_generate() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut stale = Vec::new();
    for crd in crds::all() {
        let name = crd.metadata.name.clone().unwrap();
        let want = crds::to_yaml(&crd);
        for file in files(&name) {
            if update {
                fs::write(&file, &want).unwrap();
            } else if fs::read_to_string(&file).ok().as_ref() != Some(&want) {
                stale.push(name.clone());
            }
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
