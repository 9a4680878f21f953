//! Figures of the steps, as people read them.

use std::time::Duration;

use crate::load::{
    latency::Latency,
    report::{Report, Second, Tally, table::short},
};

/// A second of a phase on average.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Phase {
    /// Requests that people wanted.
    pub(super) wanted: f64,
    /// Sends, with what was tried again.
    pub(super) tries: f64,
    pub(super) admitted: f64,
    pub(super) shed: f64,
    pub(super) failed: f64,
    /// Of what was admitted or failed.
    pub(super) latency: Latency,
}

impl Phase {
    /// The seconds from one to another of a run, the last one excluded.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(super) fn of(tally: &Tally, from: usize, to: usize) -> Self {
        let seconds = || tally.series.iter().take(to).skip(from);
        let mean = |count: fn(&Second) -> u64| {
            let all: u64 = seconds().map(count).sum();
            all as f64 / to.saturating_sub(from).max(1) as f64
        };
        let mut latency = Latency::default();
        for second in seconds() {
            latency.merge(&second.latency);
        }
        Self {
            wanted: mean(|second| second.offered),
            tries: mean(|second| second.attempts),
            admitted: mean(|second| second.succeeded),
            shed: mean(|second| second.refused),
            failed: mean(|second| second.failed),
            latency,
        }
    }

    /// The share of the answers that were as hoped; all of none.
    pub(super) fn success(&self) -> f64 {
        let all = self.admitted + self.shed + self.failed;
        if all > 0.0 { self.admitted / all } else { 1.0 }
    }

    pub(super) fn p99(&self) -> Duration {
        self.latency.quantile(0.99)
    }
}

/// Phases, one a line.
pub(super) fn phases<'a>(rows: impl IntoIterator<Item = (&'a str, Phase)>) -> String {
    let head = [
        "a second", "wanted", "tried", "admitted", "shed", "failed", "p99",
    ];
    let row = |(name, phase): (&str, Phase)| {
        let p99 = short(phase.p99());
        let Phase {
            wanted,
            tries,
            admitted,
            shed,
            failed,
            ..
        } = phase;
        let rates = [wanted, tries, admitted, shed, failed].map(|rate| format!("{rate:.0}"));
        let [wanted, tries, admitted, shed, failed] = rates;
        [name.to_owned(), wanted, tries, admitted, shed, failed, p99]
    };
    aligned(head, rows.into_iter().map(row))
}

/// Kinds of requests, one a line.
pub(super) fn kinds(report: &Report) -> String {
    let head = [
        "in all", "wanted", "tried", "admitted", "shed", "served", "at once", "p99",
    ];
    let row = |(label, tally): (&String, &Tally)| {
        [
            label.clone(),
            tally.offered.to_string(),
            tally.attempts.to_string(),
            tally.succeeded.to_string(),
            tally.refused.to_string(),
            percent(share(tally.served, tally.offered)),
            percent(share(tally.served_at_once, tally.offered)),
            short(tally.success_latency.quantile(0.99)),
        ]
    };
    aligned(head, report.labels.iter().map(row))
}

/// The one in the other; all of none.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn share(some: u64, all: u64) -> f64 {
    if all == 0 {
        1.0
    } else {
        some as f64 / all as f64
    }
}

/// To a hundredth, and never rounded up to all.
pub(super) fn percent(share: f64) -> String {
    let hundredths = (share * 10_000.0).floor() / 100.0;
    format!("{hundredths:.2} %")
}

pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}

/// Rows under a head, in columns that end together but for the first.
fn aligned<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut all = vec![head.map(str::to_owned)];
    all.extend(rows);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            1.. => format!("  {cell:>width$}"),
        });
        cells.collect::<String>() + "\n"
    };
    all.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(admitted: &[u64]) -> Tally {
        let second = |admitted: &u64| Second {
            offered: 10,
            attempts: 30,
            succeeded: *admitted,
            refused: 30 - admitted,
            ..Second::default()
        };
        Tally {
            series: admitted.iter().map(second).collect(),
            ..Tally::default()
        }
    }

    #[test]
    fn a_phase_is_the_mean_of_its_seconds() {
        let phase = Phase::of(&tally(&[1, 10, 20, 30]), 1, 3);
        assert_eq!((phase.wanted, phase.tries), (10.0, 30.0));
        assert_eq!((phase.admitted, phase.shed), (15.0, 15.0));
        assert!((phase.success() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn seconds_that_did_not_come_count_as_empty_ones() {
        let phase = Phase::of(&tally(&[30]), 0, 2);
        assert_eq!((phase.admitted, phase.shed), (15.0, 0.0));
    }

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        assert_eq!(percent(share(99_999, 100_000)), "99.99 %");
        assert_eq!(percent(share(5, 5)), "100.00 %");
        assert_eq!(percent(share(0, 0)), "100.00 %");
    }

    #[test]
    fn columns_end_together() {
        let text = phases([("before", Phase::of(&tally(&[30]), 0, 1))]);
        let mut lines = text.lines().map(|line| line.chars().count());
        assert_eq!(lines.next(), lines.next());
    }
}
