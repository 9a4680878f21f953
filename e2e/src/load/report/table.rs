//! A report as text.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use super::{Failure, Report, Tally};

/// Columns of the table, each right-aligned but for the first.
const COLUMNS: [&str; 14] = [
    "LABEL",
    "OFFERED",
    "ATTEMPTS",
    "OK",
    "REFUSED",
    "FAILED",
    "DROPPED",
    "SERVED",
    "GAVE-UP",
    "P50",
    "P99",
    "P99.9",
    "MAX",
    "REFUSAL-P99",
];

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
        })
    }
}

impl Report {
    /// A short table, and whether it counts.
    pub fn table(&self) -> String {
        let mut rows = vec![COLUMNS.map(str::to_owned)];
        if self.labels.len() > 1 {
            rows.extend(self.labels.iter().map(|(label, tally)| row(label, tally)));
        }
        rows.push(row("total", &self.total));
        let mut text = aligned(&rows);
        let mut endings: Vec<String> = Vec::new();
        let Tally {
            statuses, failures, ..
        } = &self.total;
        endings.extend(statuses.iter().map(|(status, n)| format!("{status}: {n}")));
        endings.extend(failures.iter().map(|(cause, n)| format!("{cause}: {n}")));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\nendings   {}", endings.join(", "));
        let _ = writeln!(
            text,
            "latency   of successes, from the time a request was meant to be sent"
        );
        let _ = writeln!(
            text,
            "generator late by p50 {}, p99 {}, at most {}",
            short(self.lag.quantile(0.5)),
            short(self.lag.quantile(0.99)),
            short(self.lag.max())
        );
        if self.stopped {
            let _ = writeln!(
                text,
                "stopped   before its end; {} requests were not awaited",
                self.total.unfinished
            );
        }
        for reason in self.void() {
            let _ = writeln!(text, "VOID      {reason}");
        }
        text
    }
}

/// A time in three digits or so.
pub fn short(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..1_000_000 => format!("{:.1}ms", time.as_secs_f64() * 1e3),
        1_000_000.. => format!("{:.2}s", time.as_secs_f64()),
    }
}

fn row(label: &str, tally: &Tally) -> [String; COLUMNS.len()] {
    let at = |share| short(tally.success_latency.quantile(share));
    [
        label.to_owned(),
        tally.offered.to_string(),
        tally.attempts.to_string(),
        tally.succeeded.to_string(),
        tally.refused.to_string(),
        tally.failed.to_string(),
        tally.dropped.to_string(),
        tally.served.to_string(),
        tally.given_up.to_string(),
        at(0.5),
        at(0.99),
        at(0.999),
        short(tally.success_latency.max()),
        short(tally.refusal_latency.quantile(0.99)),
    ]
}

fn aligned(rows: &[[String; COLUMNS.len()]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let [label, cells @ ..] = row;
        let _ = write!(text, "{label:<width$}", width = widths[0]);
        for (cell, width) in cells.iter().zip(&widths[1..]) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}
