//! What is counted. Counters of a route are looked up once, when a configuration is prepared: a lookup
//! by labels for each request would cost more than the decision.

use std::time::Duration;

use http::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::answer::Refusal;

/// From a refusal's microseconds to the longest that clients wait.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// The label of requests that no route is for.
const NO_ROUTE: &str = "";

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The endpoint answered, and not with an error of its own.
    Passed,
    /// The endpoint answered with 5xx.
    Failed,
    /// The guard answered instead.
    Guard,
}

/// All counters of a serving guard.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    requests: IntCounterVec,
    refused: IntCounterVec,
    seconds: HistogramVec,
    pub(super) connections: IntGauge,
    pub(super) connections_refused: IntCounter,
    without_route: RouteMetrics,
}

/// Those of one route.
#[derive(Clone, Debug)]
pub(super) struct RouteMetrics {
    name: String,
    passed: IntCounter,
    failed: IntCounter,
    refused: IntCounter,
    seconds: Histogram,
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
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(connections_refused.clone()))?;
        let without_route = route(NO_ROUTE, &requests, &seconds);
        Ok(Self {
            requests,
            refused,
            seconds,
            connections,
            connections_refused,
            without_route,
        })
    }

    pub(super) fn of(&self, name: &str) -> RouteMetrics {
        route(name, &self.requests, &self.seconds)
    }

    pub(super) fn count(&self, of: Option<&RouteMetrics>, outcome: Outcome, took: Duration) {
        let of = of.unwrap_or(&self.without_route);
        match outcome {
            Outcome::Passed => of.passed.inc(),
            Outcome::Failed => of.failed.inc(),
            Outcome::Guard => of.refused.inc(),
        }
        of.seconds.observe(took.as_secs_f64());
    }

    pub(super) fn count_refusal(&self, refusal: &Refusal, of: Option<&RouteMetrics>) {
        let route = of.map_or(NO_ROUTE, |of| &of.name);
        self.refused
            .with_label_values(&[route, refusal.rule(), refusal.name()])
            .inc();
    }
}

fn route(name: &str, requests: &IntCounterVec, seconds: &HistogramVec) -> RouteMetrics {
    let counter = |outcome| requests.with_label_values(&[name, outcome]);
    RouteMetrics {
        name: name.to_owned(),
        passed: counter("Passed"),
        failed: counter("Failed"),
        refused: counter("Refused"),
        seconds: seconds.with_label_values(&[name]),
    }
}
