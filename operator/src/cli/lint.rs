//! `jiuzhou lint`: schema and CEL offline, with the messages the API server would give.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::manifests;
use super::output::{Format, Paint};
use crate::args::LintArguments;

/// Checks files and folders. Exit code 1 when anything is wrong.
pub fn lint(arguments: &LintArguments) -> anyhow::Result<ExitCode> {
    let files = manifests::files(&arguments.paths)?;
    let mut findings = Vec::new();
    for file in &files {
        let text = manifests::text(file)?;
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
