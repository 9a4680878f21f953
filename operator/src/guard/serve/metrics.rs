//! What is counted. Counters of a route are looked up once, when a configuration is prepared: a lookup
//! by labels for each request would cost more than the decision.

mod rooms;
mod tokens;

use std::collections::BTreeSet;
use std::time::Duration;

use http::StatusCode;
use prometheus::core::Collector as _;
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::access_log::Dropped;
use super::answer::Refusal;
pub(super) use rooms::RoomMetrics;
pub(super) use tokens::TokenMetrics;

/// From a refusal's microseconds to the longest that clients wait.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// The label of requests that no route is for.
const NO_ROUTE: &str = "";

/// How requests of a route end, as labels.
const OUTCOMES: [&str; 5] = ["Passed", "Failed", "Refused", "ClientGone", "Drained"];
/// What becomes of retries, as labels.
const RETRY_OUTCOMES: [&str; 4] = ["Recovered", "Failed", "OverBudget", "TooLong"];

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The endpoint answered, and not with an error of its own.
    Passed,
    /// The endpoint answered with 5xx.
    Failed,
    /// The guard answered instead.
    Guard,
    /// The client left before there was an answer.
    Gone,
    /// The guard ended before there was one.
    Drained,
}

/// All counters of a serving guard.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    requests: IntCounterVec,
    refused: IntCounterVec,
    seconds: HistogramVec,
    pub(super) connections: IntGauge,
    pub(super) connections_refused: IntCounter,
    /// Ports that are wanted and could not be opened yet.
    pub(super) ports_closed: IntGauge,
    pub(super) log_dropped: Dropped,
    retries: IntCounterVec,
    pub(super) rooms: RoomMetrics,
    pub(super) tokens: TokenMetrics,
    without_route: RouteMetrics,
}

/// What became of retries of a route.
#[derive(Clone, Debug)]
pub(super) struct RetryMetrics {
    /// Requests that ended well since they were sent again.
    pub(super) recovered: IntCounter,
    /// Requests that were sent again and failed all the same.
    pub(super) failed: IntCounter,
    /// Not sent again: the budget was spent.
    pub(super) over_budget: IntCounter,
    /// Not sent again: too much of the body was gone.
    pub(super) too_long: IntCounter,
}

/// What a route did since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteCounts {
    /// Answered by an endpoint, with an error of its own or without.
    pub(super) admitted: u64,
    /// Answered by the guard.
    pub(super) refused: u64,
}

/// Those of one route.
#[derive(Clone, Debug)]
pub(super) struct RouteMetrics {
    name: String,
    passed: IntCounter,
    failed: IntCounter,
    refused: IntCounter,
    gone: IntCounter,
    drained: IntCounter,
    by_rule: IntCounterVec,
    seconds: Histogram,
}

impl RouteMetrics {
    /// The counter of refusals by a rule for a reason. Looking it up costs more than a decision.
    pub(super) fn refused_by(&self, rule: &str, reason: &str) -> IntCounter {
        self.by_rule.with_label_values(&[&self.name, rule, reason])
    }

    pub(super) fn counts(&self) -> RouteCounts {
        RouteCounts {
            admitted: self.passed.get() + self.failed.get(),
            refused: self.refused.get(),
        }
    }
}

impl Outcome {
    pub(super) fn of(status: StatusCode) -> Self {
        if status.is_server_error() {
            Self::Failed
        } else {
            Self::Passed
        }
    }
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("jiuzhou_requests_total", "Requests by how they ended."),
            &["route", "outcome"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "jiuzhou_requests_refused_total",
                "Requests that the guard answered itself, by the one rule and reason.",
            ),
            &["route", "rule", "reason"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "jiuzhou_request_duration_seconds",
                "Time from a request's head to the answer's head.",
            )
            .buckets(SECONDS.to_vec()),
            &["route"],
        )?;
        let connections = IntGauge::new("jiuzhou_connections", "Open connections of clients.")?;
        let connections_refused = IntCounter::new(
            "jiuzhou_connections_refused_total",
            "Connections closed at once since too many were open.",
        )?;
        let ports_closed = IntGauge::new(
            "jiuzhou_ports_closed",
            "Ports of Gateways that could not be opened yet.",
        )?;
        let retries = IntCounterVec::new(
            Opts::new(
                "jiuzhou_retries_total",
                "Requests that were sent again, or were not although the rule wants it.",
            ),
            &["route", "outcome"],
        )?;
        let dropped = IntCounterVec::new(
            Opts::new(
                "jiuzhou_access_log_dropped_total",
                "Lines that are missing in the access log.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(ports_closed.clone()))?;
        registry.register(Box::new(retries.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(connections_refused.clone()))?;
        let rooms = RoomMetrics::register(registry)?;
        let tokens = TokenMetrics::register(registry)?;
        let without_route = route(NO_ROUTE, &requests, &refused, &seconds);
        Ok(Self {
            requests,
            refused,
            seconds,
            connections,
            connections_refused,
            ports_closed,
            log_dropped: Dropped {
                pressure: dropped.with_label_values(&["Pressure"]),
                refusals: dropped.with_label_values(&["Refusals"]),
            },
            retries,
            rooms,
            tokens,
            without_route,
        })
    }

    pub(super) fn of(&self, name: &str) -> RouteMetrics {
        route(name, &self.requests, &self.refused, &self.seconds)
    }

    /// Those of retries, for a route.
    pub(super) fn retries_of(&self, name: &str) -> RetryMetrics {
        let [recovered, failed, over_budget, too_long] =
            RETRY_OUTCOMES.map(|outcome| self.retries.with_label_values(&[name, outcome]));
        RetryMetrics {
            recovered,
            failed,
            over_budget,
            too_long,
        }
    }

    pub(super) fn count(&self, of: Option<&RouteMetrics>, outcome: Outcome, took: Duration) {
        let of = of.unwrap_or(&self.without_route);
        match outcome {
            Outcome::Passed => of.passed.inc(),
            Outcome::Failed => of.failed.inc(),
            Outcome::Guard => of.refused.inc(),
            Outcome::Gone => of.gone.inc(),
            Outcome::Drained => of.drained.inc(),
        }
        of.seconds.observe(took.as_secs_f64());
    }

    /// Drops the series of routes that are gone.
    pub(super) fn forget(&self, routes: &BTreeSet<&str>) {
        for route in routes {
            for outcome in OUTCOMES {
                // What was never counted has no series.
                let _ = self.requests.remove_label_values(&[route, outcome]);
            }
            for outcome in RETRY_OUTCOMES {
                let _ = self.retries.remove_label_values(&[route, outcome]);
            }
            let _ = self.seconds.remove_label_values(&[route]);
        }
        for [route, rule, reason] in refused_series(&self.refused) {
            if routes.contains(route.as_str()) {
                let _ = self.refused.remove_label_values(&[&route, &rule, &reason]);
            }
        }
    }

    /// Counts a refusal of which nothing is known before.
    pub(super) fn count_refusal(&self, refusal: &Refusal, of: Option<&RouteMetrics>) {
        let of = of.unwrap_or(&self.without_route);
        of.refused_by(refusal.rule(), refusal.name()).inc();
    }
}

/// Route, rule and reason of each series.
fn refused_series(refused: &IntCounterVec) -> Vec<[String; 3]> {
    let families = refused.collect();
    let series = families.iter().flat_map(MetricFamily::get_metric);
    let labels = |metric: &Metric| {
        ["route", "rule", "reason"].map(|wanted| {
            let mut all = metric.get_label().iter();
            let label = all.find(|label| label.name() == wanted);
            label
                .map(|label| label.value().to_owned())
                .unwrap_or_default()
        })
    };
    series.map(labels).collect()
}

fn route(
    name: &str,
    requests: &IntCounterVec,
    refused: &IntCounterVec,
    seconds: &HistogramVec,
) -> RouteMetrics {
    let [passed, failed, refused_by_us, gone, drained] =
        OUTCOMES.map(|outcome| requests.with_label_values(&[name, outcome]));
    RouteMetrics {
        name: name.to_owned(),
        passed,
        failed,
        refused: refused_by_us,
        gone,
        drained,
        by_rule: refused.clone(),
        seconds: seconds.with_label_values(&[name]),
    }
}
