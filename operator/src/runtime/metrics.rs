//! The closed vocabulary of metrics: every name, label and label value the operator can emit.
//!
//! Counters and histograms are recorded where things happen. Gauges are replaced whole by the
//! report step through [`Board`] and read at scrape time, so that a cluster or region that is
//! gone leaves no stale series behind. Names carry neither `jiuzhou_` nor `_total` nor a unit
//! here: the exporter adds them.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};

mod board;

pub use board::{Board, Capacity, Grant};

/// Upper bounds of the histogram buckets for everything measured in seconds: from a warm plan
/// (a few milliseconds) to the longest deadline of a request.
pub const SECONDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0,
];

/// Everything the hub and the agent report, registered once.
#[derive(Clone, Debug)]
pub struct Metrics {
    loop_turns: Counter<u64>,
    plan_duration: Histogram<f64>,
    queue_overflow: Counter<u64>,
    /// Requests to API servers, counted by the client of each cluster.
    pub requests: Requests,
    /// The gauges.
    pub board: Board,
}

impl Metrics {
    /// Registers every instrument with `meter`.
    pub fn new(meter: &Meter) -> Self {
        Self {
            loop_turns: meter
                .u64_counter("loop_turns")
                .with_description("Turns of a loop by how they ended.")
                .build(),
            plan_duration: meter
                .f64_histogram("plan_duration")
                .with_unit("s")
                .with_description("Time to plan the whole province once.")
                .build(),
            queue_overflow: meter
                .u64_counter("queue_overflow")
                .with_description("Times a bounded queue was full.")
                .build(),
            requests: Requests::new(meter),
            board: Board::new(meter),
        }
    }

    /// Counts one finished turn.
    pub fn turn(&self, turning: Loop, outcome: TurnOutcome) {
        let labels = [
            KeyValue::new("loop", turning.as_str()),
            KeyValue::new("outcome", outcome.as_str()),
        ];
        self.loop_turns.add(1, &labels);
    }

    /// Records how long one plan took.
    pub fn planned(&self, took: Duration) {
        self.plan_duration.record(took.as_secs_f64(), &[]);
    }

    /// Counts one time that a bounded queue refused or delayed an item.
    pub fn overflowed(&self, queue: &'static str) {
        self.queue_overflow.add(1, &[KeyValue::new("queue", queue)]);
    }
}

/// A closed set of label values.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$value_doc])* $value,)* }

        impl $name {
            /// The label's value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)* }
            }
        }
    };
}

vocabulary! {
    /// Which loop turned.
    Loop {
        /// The hub's plan loop.
        Hub => "hub",
        /// An agent's realize loop.
        Agent => "agent",
        /// The loop of guard control.
        Guard => "guard",
    }
}

vocabulary! {
    /// How a turn of a loop ended.
    TurnOutcome {
        /// Something changed and was written.
        Changed => "changed",
        /// Nothing had to be written.
        Unchanged => "unchanged",
        /// Planned, but another replica leads.
        Standby => "standby",
        /// Held back: a view is not complete or too old to act on.
        Held => "held",
        /// Some writes failed; the next turn tries again.
        Failed => "failed",
    }
}

vocabulary! {
    /// What a request asked of an API server.
    Verb {
        /// One object, or a path outside the resource tree.
        Get => "get",
        /// A page of a collection.
        List => "list",
        /// A stream of changes.
        Watch => "watch",
        /// A new object, or a review.
        Create => "create",
        /// A whole object replaced.
        Update => "update",
        /// A part changed, server-side apply included.
        Patch => "patch",
        /// One object or a collection removed.
        Delete => "delete",
    }
}

vocabulary! {
    /// How an API server answered.
    Outcome {
        /// Any success.
        Ok => "ok",
        /// 404.
        NotFound => "notfound",
        /// 409.
        Conflict => "conflict",
        /// 429.
        Throttled => "throttled",
        /// 401 or 403.
        Denied => "denied",
        /// Any other refusal, or no connection.
        Error => "error",
        /// No answer in time, or nobody waited for it any longer.
        Timeout => "timeout",
    }
}

/// `jiuzhou_api_requests_total{cluster,verb,outcome}`: one count for every request sent, repeats
/// included.
#[derive(Clone, Debug)]
pub struct Requests(Counter<u64>);

impl Requests {
    fn new(meter: &Meter) -> Self {
        let counter = meter
            .u64_counter("api_requests")
            .with_description("Requests sent to API servers, repeats included.")
            .build();
        Self(counter)
    }

    /// Counts one request.
    pub fn count(&self, cluster: &str, verb: Verb, outcome: Outcome) {
        let labels = [
            KeyValue::new("cluster", cluster.to_owned()),
            KeyValue::new("verb", verb.as_str()),
            KeyValue::new("outcome", outcome.as_str()),
        ];
        self.0.add(1, &labels);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::time::Instant;

    use super::*;
    use crate::runtime::telemetry::{meters, render};

    #[test]
    fn the_registry_shows_exactly_the_agreed_names() {
        let (registry, provider) = meters("test").unwrap();
        let metrics = Metrics::new(&opentelemetry::metrics::MeterProvider::meter(
            &provider, "t",
        ));
        metrics.turn(Loop::Hub, TurnOutcome::Changed);
        metrics.planned(Duration::from_millis(3));
        metrics.overflowed("changes");
        metrics
            .requests
            .count("hangzhou-a", Verb::Patch, Outcome::Ok);
        metrics.board.set_apps([("Ready", 2)]);
        metrics.board.set_capacity(vec![Capacity {
            region: "hangzhou".into(),
            resource: "cpu".into(),
            allocatable: 12.0,
            granted: Some(10.0),
            requested: 4.5,
            headroom: 7.5,
        }]);
        metrics.board.set_unreadable([("apps", 1)]);
        metrics
            .board
            .set_contacts([("hangzhou-a".to_owned(), Instant::now())]);

        let text = render(&registry).unwrap();
        let names: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        let expected = [
            "jiuzhou_api_requests_total",
            "jiuzhou_apps",
            "jiuzhou_capacity_allocatable",
            "jiuzhou_capacity_granted",
            "jiuzhou_capacity_headroom",
            "jiuzhou_capacity_requested",
            "jiuzhou_cluster_last_contact_seconds",
            "jiuzhou_loop_turns_total",
            "jiuzhou_objects_unreadable",
            "jiuzhou_plan_duration_seconds",
            "jiuzhou_queue_overflow_total",
            "target_info",
        ];
        assert_eq!(names, BTreeSet::from(expected), "{text}");
        for line in [
            r#"jiuzhou_loop_turns_total{loop="hub",outcome="changed"} 1"#,
            r#"jiuzhou_apps{state="Ready"} 2"#,
            r#"jiuzhou_api_requests_total{cluster="hangzhou-a",outcome="ok",verb="patch"} 1"#,
            r#"jiuzhou_plan_duration_seconds_bucket{le="0.005"} 1"#,
            r#"jiuzhou_capacity_headroom{region="hangzhou",resource="cpu"} 7.5"#,
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line} in\n{text}");
        }
    }

    #[test]
    fn a_region_that_is_gone_leaves_no_series() {
        let (registry, provider) = meters("test").unwrap();
        let metrics = Metrics::new(&opentelemetry::metrics::MeterProvider::meter(
            &provider, "t",
        ));
        metrics.board.set_apps([("Ready", 2), ("Failed", 1)]);
        assert!(render(&registry).unwrap().contains("Failed"));
        metrics.board.set_apps([("Ready", 3)]);
        let text = render(&registry).unwrap();
        assert!(
            !text.contains("Failed") && text.contains(r#"{state="Ready"} 3"#),
            "{text}"
        );
    }
}
