//! The real binary `jiuzhou`, built by Cargo with the profile this program was built with.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Builds the binary if it is out of date and returns its path.
///
/// All of the workspace is named, so that dependencies are built with the same features as in
/// `cargo test` and nothing is compiled twice.
pub fn jiuzhou() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let executable = std::env::current_exe().context("find this program")?;
    let profile_folder = executable
        .ancestors()
        .find(|folder| folder.join(".fingerprint").exists())
        .context("this program does not lie in a Cargo target folder")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(&root)
        .args(["build", "--quiet", "--workspace", "--bin", "jiuzhou"]);
    // Folders are called as the profiles are, but for this one.
    let profile = profile_folder.file_name().context("the folder's name")?;
    if profile != "debug" {
        cargo.arg("--profile").arg(profile);
    }
    // What Cargo told this program about itself would look like a change to build scripts that watch
    // it, and half of all dependencies would be built again, back and forth.
    let own = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if own.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    let status = cargo.status().context("run cargo")?;
    if !status.success() {
        bail!("cargo build of the binary jiuzhou failed: {status}");
    }
    let binary = profile_folder.join("jiuzhou");
    if !binary.exists() {
        bail!("cargo built no {}", binary.display());
    }
    Ok(binary)
}
