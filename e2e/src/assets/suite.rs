//! Gateway API's conformance suite, built once from its pinned module.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{build, cache_dir, has_go};

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
    // Under another name first, so that a file with the right name is always complete.
    let unfinished = cache.join(format!(".{NAME}.unfinished"));
    let log = cache.join("build.log");
    progress("building the conformance suite, once; minutes on a fresh machine");
    let mut child = Command::new("go")
        .current_dir(MODULE_DIR)
        .env("CGO_ENABLED", "0")
        .args(["test", "-c", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(&unfinished)
        .arg(".")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).with_context(|| format!("create {}", log.display()))?)
        .spawn()
        .context("start go test -c")?;
    let status = build::wait(&mut child, |elapsed| {
        progress(&format!(
            "building the conformance suite: {} s",
            elapsed.as_secs()
        ));
    })?;
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        bail!(
            "go test -c of the conformance suite failed ({status}):\n{}",
            text.trim()
        );
    }
    fs::rename(&unfinished, &program).context("put the new program in place")?;
    Ok(program)
}
