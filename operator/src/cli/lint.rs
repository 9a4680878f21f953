//! `jiuzhou lint`: schema and CEL offline, with the messages the API server would give.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::output::{Format, Paint};
use crate::args::LintArguments;

/// How names of manifests end in a folder; a file that is named itself may be called anything.
const MANIFESTS: [&str; 3] = ["yaml", "yml", "json"];

/// Checks files and folders. Exit code 1 when anything is wrong.
pub fn lint(arguments: &LintArguments) -> anyhow::Result<ExitCode> {
    let mut files = Vec::new();
    for path in &arguments.paths {
        let before = files.len();
        collect(path, &mut files)?;
        // A gate that checked nothing must not pass: the folder is the wrong one, or it moved.
        if files.len() == before {
            bail!(
                "no manifest in {}: looked there and in the folders below it for files ending in {}",
                path.display(),
                MANIFESTS.map(|end| format!(".{end}")).join(", ")
            );
        }
    }
    let mut findings = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        findings.extend(
            crds::lint(&text)
                .into_iter()
                .map(|finding| (file.clone(), finding)),
        );
    }
    let mut out = std::io::stdout().lock();
    match arguments.output {
        Format::Json => {
            let one = |(file, f): &(PathBuf, crds::Finding)| json!({"file": file, "document": f.document, "kind": f.kind, "name": f.name, "field": f.field, "message": f.message});
            let value = json!({
                "kind": "LintReport", "apiVersion": "cli.jiuzhou.io/v1", "files": files.len(),
                "findings": findings.iter().map(one).collect::<Vec<_>>(),
            });
            writeln!(out, "{value:#}")?;
        }
        Format::Table => {
            let paint = Paint::stdout();
            for (file, finding) in &findings {
                writeln!(out, "{}: {finding}", paint.bad(&file.display().to_string()))?;
            }
            let (checked, wrong) = (files.len(), findings.len());
            let checked = super::output::number(checked, "file");
            writeln!(
                out,
                "{checked}, {}",
                super::output::number(wrong, "finding")
            )?;
        }
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        let manifest = entry
            .extension()
            .is_some_and(|end| MANIFESTS.iter().any(|manifest| end == *manifest));
        if entry.is_dir() || manifest {
            collect(&entry, files)?;
        }
    }
    Ok(())
}
