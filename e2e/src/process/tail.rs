//! The end of a log file, for error messages.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Enough for a dozen long lines; logs themselves grow without bound.
const WINDOW_BYTES: u64 = 16 * 1024;

/// At most `count` last lines; empty when the file cannot be read.
pub(super) fn last_lines(path: &Path, count: usize) -> Vec<String> {
    let text = window(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let skip = lines.len().saturating_sub(count);
    lines.into_iter().skip(skip).map(str::to_owned).collect()
}

/// The last lines under a heading that names the file.
pub(super) fn describe(path: &Path, count: usize) -> String {
    let lines = last_lines(path, count);
    if lines.is_empty() {
        return format!("{} is empty", path.display());
    }
    format!("the end of {}:\n  {}", path.display(), lines.join("\n  "))
}

fn window(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(WINDOW_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
