//! Measuring what work costs: time until objects are there, CPU, memory, requests and storage.
//!
//! Everything is read from outside: `/proc` for CPU and memory, the API servers' own counters for
//! requests, etcd for revisions and stored bytes, one metadata-only watch per cluster for arrivals.
//! The program under measurement does nothing for it.

pub mod arrivals;
pub mod contest;
pub mod floor;
pub mod load;
pub mod readiness;
pub mod requests;
pub mod slow;
pub mod stage;
pub mod store;
pub mod tenant;
pub mod usage;

use std::io::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

/// Prints one measurement as a line of JSON on standard output.
pub fn print(measurement: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{measurement}").context("print a measurement")?;
    out.flush().context("print a measurement")
}

/// Tells a person what happens, on standard error.
pub fn say(line: &str) {
    // A measurement does not fail because nobody looks on.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Rounded to a thousandth: more digits than the clocks have would only hinder reading.
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The middle of some numbers; none for none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
