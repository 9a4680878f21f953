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
    let mut command = Command::new("go");
    command
        .current_dir(MODULE_DIR)
        .args(["build", "-trimpath", "-ldflags", &linker_flags(binary)]);
    let made = Made {
        name: binary.name(),
        package: binary.package(),
        what: &format!("{binary} ({position})"),
    };
    go(command, &made, cache, progress)
}

/// Something that Go makes.
pub(super) struct Made<'a> {
    /// Its file in the cache.
    pub(super) name: &'a str,
    /// What it is made of.
    pub(super) package: &'a str,
    /// For people.
    pub(super) what: &'a str,
}

/// Makes something by a command of Go that lacks only the output and the package.
pub(super) fn go(
    mut command: Command,
    made: &Made<'_>,
    cache: &Path,
    progress: &impl Fn(&str),
) -> Result<()> {
    let Made {
        name,
        package,
        what,
    } = made;
    let unfinished = cache.join(format!(".{name}.unfinished"));
    let log = cache.join(format!("{name}.build.log"));
    progress(&format!(
        "building {what}, once; minutes on a fresh machine"
    ));
    let started = Instant::now();
    let said = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let mut child = command
        .env("CGO_ENABLED", "0")
        // For debuggers, and left out by the linker: a tenth of the compiler's time.
        .arg("-gcflags=all=-dwarf=false")
        .arg("-o")
        .arg(&unfinished)
        .arg(package)
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said)
        .spawn()
        .context("start go")?;
    let status = wait(&mut child, |elapsed| {
        progress(&format!("building {what}: {} s", elapsed.as_secs()));
    })?;
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        bail!("building {what} failed ({status}):\n{}", text.trim());
    }
    fs::rename(&unfinished, cache.join(name)).context("put what was built in place")?;
    fs::remove_file(&log).context("remove the log of a good build")?;
    progress(&format!(
        "built {what} in {} s",
        started.elapsed().as_secs()
    ));
    Ok(())
}

fn wait(child: &mut Child, progress: impl Fn(Duration)) -> Result<ExitStatus> {
    let started = Instant::now();
    let mut next = PROGRESS_EVERY;
    loop {
        if let Some(status) = child.try_wait().context("wait for go")? {
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
