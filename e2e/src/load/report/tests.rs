use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn attempt(intended: u32, took: u32, ending: Ending, verdict: Verdict) -> Attempt {
    Attempt {
        intended: MILLI * intended,
        ended: MILLI * (intended + took),
        ending,
        verdict,
    }
}

/// A run of a label whose successes take so long each.
fn run(label: &str, took: &[u32]) -> Report {
    let mut report = Report::empty(MILLI * 5);
    let mut tally = Tally::default();
    for (at, took) in (0..).zip(took) {
        tally.offer(MILLI * at);
        tally.sent(MILLI * at);
        tally.ended(attempt(at, *took, Ending::Answer(200), Verdict::Succeeded));
        tally.served += 1;
        tally.served_at_once += 1;
        report.sent_late_by(MILLI);
    }
    report.labels.insert(label.to_owned(), tally);
    report.close(false);
    report
}

#[test]
fn merging_runs_is_as_one_run_of_both() {
    let (slow, quick): (Vec<u32>, Vec<u32>) = ((100..900).collect(), vec![1; 200]);
    let mut merged = run("read", &slow);
    merged.merge(&run("read", &quick));
    merged.merge(&run("write", &[7]));
    assert_eq!(merged.total.offered, 1_001);
    assert_eq!(merged.labels["read"].statuses[&200], 1_000);
    assert_eq!(merged.labels["write"].served, 1);
    assert_eq!(merged.total.served_at_once, 1_001);
    // A mean of the two medians would be 250 ms; half of all took up to 400 ms.
    let median = merged.labels["read"].success_latency.quantile(0.5);
    assert!((MILLI * 398..=MILLI * 401).contains(&median), "{median:?}");
    let seconds: u64 = merged.total.series.iter().map(|s| s.succeeded).sum();
    assert_eq!(seconds, 1_001);
    assert!(merged.void().is_empty());
}

#[test]
fn an_attempt_counts_when_it_ends_and_its_latency_when_it_was_meant() {
    let mut tally = Tally::default();
    tally.ended(attempt(500, 1_700, Ending::Answer(200), Verdict::Succeeded));
    tally.ended(attempt(500, 1, Ending::Answer(429), Verdict::Refused));
    let timeout = Ending::Failure(Failure::Timeout);
    tally.ended(attempt(500, 2_000, timeout, Verdict::Failed));
    assert_eq!(
        (tally.series[0].succeeded, tally.series[2].succeeded),
        (0, 1)
    );
    assert_eq!((tally.series[0].refused, tally.series[2].failed), (1, 1));
    assert_eq!(tally.series[0].latency.count(), 2);
    assert_eq!(tally.refusal_latency.count(), 1);
    assert!(tally.goodput(0, 3) > 0.3 && tally.goodput(0, 2) < 0.1);
}

#[test]
fn one_late_send_in_a_hundred_is_borne_and_more_void_the_run() {
    let lagged = |late: u32| {
        let mut report = Report::empty(MILLI * 5);
        for send in 0..1_000 {
            report.sent_late_by(if send < late { MILLI * 6 } else { MILLI * 5 });
        }
        report.close(false);
        report
    };
    assert!(!lagged(10).lagged);
    let void = lagged(11);
    assert!(void.lagged);
    assert!(
        void.table()
            .contains("VOID      11 of 1000 sends were late")
    );
    let mut merged = lagged(0);
    merged.merge(&void);
    assert!(merged.lagged, "a void part voids the whole");
}

#[test]
fn dropped_sends_void_the_run() {
    let mut report = run("read", &[1, 2, 3]);
    report.labels.get_mut("read").unwrap().dropped = 2;
    report.close(false);
    assert_eq!(report.void(), [Void::Dropped(2)]);
}

#[test]
fn a_report_survives_json() {
    let mut report = run("read", &(0..2_500).collect::<Vec<_>>());
    report.merge(&run("write", &[3, 3, 3_000]));
    let text = serde_json::to_string(&report).unwrap();
    let again: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(again.total.statuses, report.total.statuses);
    assert_eq!(again.total.series.len(), report.total.series.len());
    for share in [0.1, 0.5, 0.99, 1.0] {
        let (a, b) = (&again.total, &report.total);
        assert_eq!(
            a.success_latency.quantile(share),
            b.success_latency.quantile(share)
        );
    }
    assert!(text.contains("\"p99Micros\""));
}

#[test]
fn the_table_names_labels_and_endings() {
    let mut report = run("read", &[1, 2, 3]);
    report.merge(&run("write", &[4]));
    let table = report.table();
    for word in [
        "LABEL",
        "read",
        "write",
        "total",
        "200: 4",
        "late by p50 1.0ms",
    ] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    assert!(!table.contains("VOID"));
}
