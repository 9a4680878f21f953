//! The control plane's binaries: found, or built once from the pinned Go modules.
//!
//! Looked for in `KUBEBUILDER_ASSETS`, then in the user's cache folder under the hash of `go.sum`;
//! what is in neither is built into the cache. They are kept outside the checkout because they
//! outlive `cargo clean` and take minutes to build.

mod build;
mod suite;

use std::{
    env, fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
pub use suite::conformance_suite;

/// Other programs' ready binaries, as the test tools of Kubernetes name them.
const ASSETS_VARIABLE: &str = "KUBEBUILDER_ASSETS";
const GO_SUM: &str = include_str!("../controlplane/go.sum");
const GO_MOD: &str = include_str!("../controlplane/go.mod");
const GATEWAY_API: &str = "sigs.k8s.io/gateway-api";
const MODULE_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/controlplane");

/// Where the four binaries are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `etcd`
    pub etcd: PathBuf,
    /// `kube-apiserver`
    pub apiserver: PathBuf,
    /// `kube-controller-manager`
    pub controller_manager: PathBuf,
    /// `kube-scheduler`
    pub scheduler: PathBuf,
}

/// One of the four binaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binary {
    Etcd,
    Apiserver,
    ControllerManager,
    Scheduler,
}

impl Binary {
    const ALL: [Self; 4] = [
        Self::Etcd,
        Self::Apiserver,
        Self::ControllerManager,
        Self::Scheduler,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Apiserver => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::Apiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::ControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::Scheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
        }
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Binaries {
    /// Finds the binaries and builds what is missing, which takes minutes the first time;
    /// `progress` is told about it line by line.
    pub fn ensure(progress: impl Fn(&str)) -> Result<Self> {
        let ready = env::var_os(ASSETS_VARIABLE).map(PathBuf::from);
        let cache = cache_dir("controlplane", GO_SUM)?;
        let find = |binary: Binary| find(binary, ready.as_deref(), &cache);
        let missing = || {
            Binary::ALL
                .into_iter()
                .filter(|binary| find(*binary).is_none())
        };
        if missing().next().is_some() {
            build_missing(&cache, missing, &progress)?;
        }
        let found = |binary| find(binary).with_context(|| format!("{binary} was not built"));
        Ok(Self {
            etcd: found(Binary::Etcd)?,
            apiserver: found(Binary::Apiserver)?,
            controller_manager: found(Binary::ControllerManager)?,
            scheduler: found(Binary::Scheduler)?,
        })
    }
}

/// Others' ready binaries come before our own.
fn find(binary: Binary, ready: Option<&Path>, cache: &Path) -> Option<PathBuf> {
    let folders = ready.into_iter().chain([cache]);
    folders
        .map(|folder| folder.join(binary.name()))
        .find(|path| path.is_file())
}

fn build_missing<I: Iterator<Item = Binary>>(
    cache: &Path,
    missing: impl Fn() -> I,
    progress: &impl Fn(&str),
) -> Result<()> {
    require_go(has_go(), &missing().map(Binary::name).collect::<Vec<_>>())?;
    fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(cache.join("lock")).context("create the lock of the cache")?;
    if lock.try_lock().is_err() {
        progress("waiting for another program that builds the control plane");
        lock.lock().context("lock the cache")?;
    }
    // Asked again under the lock: another builder may have made them meanwhile.
    let missing: Vec<Binary> = missing().collect();
    for (done, binary) in missing.iter().enumerate() {
        build::build(
            *binary,
            cache,
            &format!("{} of {}", done + 1, missing.len()),
            progress,
        )?;
    }
    Ok(())
}

/// The Custom Resource Definitions of Gateway API's standard channel, as YAML files. None without
/// Go: they are read from the module cache and are not part of this repository.
pub fn gateway_api_crds() -> Result<Option<Vec<PathBuf>>> {
    if !has_go() {
        return Ok(None);
    }
    let mut module = module_dir(GATEWAY_API)?;
    if module.is_none() {
        go(&["mod", "download", GATEWAY_API])?;
        module = module_dir(GATEWAY_API)?;
    }
    let module = module.context("go mod download left no sigs.k8s.io/gateway-api")?;
    let dir = module.join("config/crd/standard");
    let entries = fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        // A list of the others, for kustomize.
        .filter(|path| path.file_stem().is_some_and(|stem| stem != "kustomization"))
        .collect();
    files.sort();
    Ok(Some(files))
}

/// Where Go keeps a module's files; none before it was downloaded.
fn module_dir(module: &str) -> Result<Option<PathBuf>> {
    let dir = go(&["list", "-m", "-f", "{{.Dir}}", module])?;
    Ok(Some(PathBuf::from(dir.trim())).filter(|dir| dir.is_absolute()))
}

/// The version of Kubernetes pinned in `go.mod`, with its `v`.
pub fn kubernetes_version() -> &'static str {
    let pinned = GO_MOD
        .lines()
        .find_map(|line| line.strip_prefix("require k8s.io/kubernetes "));
    // A test holds that it is found.
    pinned.unwrap_or_default().trim()
}

/// The folder for what is built of certain sources.
fn cache_dir(name: &str, sources: &str) -> Result<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME names a folder to keep the control plane in")?;
    let hash = Sha256::digest(sources.as_bytes());
    let mut key = format!("{hash:x}");
    key.truncate(16);
    Ok(base.join("jiuzhou").join(name).join(key))
}

fn require_go(has_go: bool, missing: &[&str]) -> Result<()> {
    if has_go {
        return Ok(());
    }
    bail!(
        "{} not found, and no Go toolchain to build from: install Go 1.26 or newer, or set \
         {ASSETS_VARIABLE} to a folder with etcd, kube-apiserver, kube-controller-manager and \
         kube-scheduler",
        missing.join(", ")
    );
}

fn has_go() -> bool {
    Command::new("go")
        .arg("version")
        .output()
        .is_ok_and(|output| output.status.success())
}

fn go(args: &[&str]) -> Result<String> {
    let output = Command::new("go")
        .args(args)
        .current_dir(MODULE_DIR)
        .output()?;
    if !output.status.success() {
        bail!(
            "go {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_gateway_api_where_there_is_go() {
        let Some(files) = gateway_api_crds().expect("read or left out") else {
            return;
        };
        let named = |name: &str| {
            files
                .iter()
                .any(|file| file.to_string_lossy().contains(name))
        };
        assert!(named("httproutes") && named("gateways"), "{files:?}");
    }

    #[test]
    fn ready_binaries_are_taken_before_those_of_the_cache_each_by_its_name() {
        let folder = |name: &str, files: &[&str]| {
            let folder = env::temp_dir().join(format!("jiuzhou-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).expect("a folder");
            for file in files {
                File::create(folder.join(file)).expect("a file");
            }
            folder
        };
        let ready = folder("ready", &["etcd", "kube-apiserver"]);
        let cache = folder("cache", &["etcd", "kube-controller-manager"]);
        let found = |binary| find(binary, Some(&ready), &cache);
        assert_eq!(found(Binary::Etcd), Some(ready.join("etcd")));
        assert_eq!(
            found(Binary::ControllerManager),
            Some(cache.join("kube-controller-manager"))
        );
        assert_eq!(found(Binary::Scheduler), None);
        assert_eq!(find(Binary::Etcd, None, &cache), Some(cache.join("etcd")));
        for folder in [&ready, &cache] {
            fs::remove_dir_all(folder).expect("it was ours");
        }
    }

    #[test]
    fn without_go_the_error_says_what_is_missing_and_what_to_do() {
        let error = require_go(false, &["etcd", "kube-scheduler"]).expect_err("no Go");
        let text = error.to_string();
        for word in [
            "etcd, kube-scheduler not found",
            "install Go",
            ASSETS_VARIABLE,
        ] {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn reads_the_pinned_version() {
        assert!(
            kubernetes_version().starts_with("v1."),
            "{}",
            kubernetes_version()
        );
    }
}
