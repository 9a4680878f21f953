//! Builds one binary from the pinned Go modules, with progress.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Binary, MODULE_DIR, kubernetes_version};

/// How often a line of progress appears.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Builds `binary` into `cache`: first under another name, so that a file with the right name is
/// always complete. One at a time, since Go's linker needs more than a gigabyte for each.
pub(super) fn build(
    binary: Binary,
    cache: &Path,
    position: &str,
    progress: &impl Fn(&str),
) -> Result<()> {
    let unfinished = cache.join(format!(".{binary}.unfinished"));
    let log = cache.join(format!("{binary}.build.log"));
    progress(&format!(
        "building {binary} ({position}), once; minutes on a fresh machine"
    ));
    let started = Instant::now();
    let mut child = start(binary, &unfinished, &log)?;
    let status = wait(&mut child, |elapsed| {
        progress(&format!(
            "building {binary} ({position}): {} s",
            elapsed.as_secs()
        ));
    })?;
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        bail!("go build of {binary} failed ({status}):\n{}", text.trim());
    }
    fs::rename(&unfinished, cache.join(binary.name())).context("put the new binary in place")?;
    fs::remove_file(&log).context("remove the log of a good build")?;
    progress(&format!(
        "built {binary} in {} s",
        started.elapsed().as_secs()
    ));
    Ok(())
}

fn start(binary: Binary, output: &Path, log: &Path) -> Result<Child> {
    let log = File::create(log).with_context(|| format!("create {}", log.display()))?;
    Command::new("go")
        .current_dir(MODULE_DIR)
        .env("CGO_ENABLED", "0")
        .args([
            "build",
            "-trimpath",
            "-ldflags",
            &linker_flags(binary),
            "-o",
        ])
        .arg(output)
        .arg(binary.package())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start go build")
}

pub(super) fn wait(child: &mut Child, progress: impl Fn(Duration)) -> Result<ExitStatus> {
    let started = Instant::now();
    let mut next = PROGRESS_EVERY;
    loop {
        if let Some(status) = child.try_wait().context("wait for go build")? {
            return Ok(status);
        }
        if started.elapsed() >= next {
            progress(started.elapsed());
            next += PROGRESS_EVERY;
        }
        sleep(Duration::from_millis(100));
    }
}

/// Without the version flags the servers would call themselves v0.0.0.
fn linker_flags(binary: Binary) -> String {
    if binary == Binary::Etcd {
        return "-s -w".into();
    }
    let version = kubernetes_version();
    let mut numbers = version.trim_start_matches('v').split('.');
    let major = numbers.next().unwrap_or_default();
    let minor = numbers.next().unwrap_or_default();
    let package = "k8s.io/component-base/version";
    format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} \
         -X {package}.gitMinor={minor}"
    )
}
