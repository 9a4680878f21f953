//! Gateway API's conformance suite, built once from its pinned module.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    build::{self, Made},
    cache_dir, has_go,
};

const MODULE_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance");
/// What the program is made of, besides Go itself.
const SOURCES: &str = concat!(
    include_str!("../../conformance/go.sum"),
    include_str!("../../conformance/conformance_test.go")
);
const NAME: &str = "conformance.test";

/// Finds the suite's program, or builds it, which takes minutes the first time; `progress` is told about it.
pub fn conformance_suite(progress: impl Fn(&str)) -> Result<PathBuf> {
    let cache = cache_dir("conformance", SOURCES)?;
    let program = cache.join(NAME);
    if program.is_file() {
        return Ok(program);
    }
    if !has_go() {
        bail!(
            "the conformance suite is a Go module, and there is no Go toolchain: install Go 1.26 or newer"
        );
    }
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(cache.join("lock")).context("create the lock of the cache")?;
    lock.lock().context("lock the cache")?;
    // Somebody else may have built it meanwhile.
    if !program.is_file() {
        let mut command = Command::new("go");
        command
            .current_dir(MODULE_DIR)
            .args(["test", "-c", "-trimpath", "-ldflags", "-s -w"]);
        let made = Made {
            name: NAME,
            package: ".",
            what: "the conformance suite",
        };
        build::go(command, &made, &cache, &progress)?;
    }
    Ok(program)
}
