//! What is left alone, what may be under way, and who waits outside.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::{HotKeyLimit, KeyPartSpec, LimitScope, RuleMode};
use crate::name::RuleName;
use crate::scalar::Period;

/// How many requests may be under way; exactly one field is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.adaptive) != has(self.max)")
    .message("exactly one of adaptive and max must be set").reason(Reason::FieldValueInvalid))]
pub struct ConcurrencySpec {
    /// As many as the target is found to stand, from its throughput and its latency without a queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveConcurrency>,
    /// This many at each guard, 1 to 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max: Option<i64>,
}

/// Found by itself; takes no settings.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdaptiveConcurrency {}

/// A [`ConcurrencySpec`] that says exactly one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// As many as the target is found to stand.
    Adaptive,
    /// This many.
    Max(i64),
}

impl Concurrency {
    /// The bound that the spec means, unless it means none or both.
    pub fn of(spec: &ConcurrencySpec) -> Option<Self> {
        match (spec.adaptive, spec.max) {
            (Some(AdaptiveConcurrency {}), None) => Some(Self::Adaptive),
            (None, Some(max)) => Some(Self::Max(max)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }
}

/// What opens it, over which time that is looked at, and how the target is tried again.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.slowCalls), has(self.errors), has(self.errorCount)].filter(x, x).size() == 1")
    .message("exactly one of slowCalls, errors and errorCount must be set").reason(Reason::FieldValueInvalid))]
#[x_kube(validation = Rule::new("!has(self.window) || (duration(self.window) >= duration('100ms') && duration(self.window) <= duration('10m'))")
    .message("window must be 100ms to 10m").reason(Reason::FieldValueInvalid))]
#[x_kube(validation = Rule::new("!has(self.openFor) || (duration(self.openFor) >= duration('100ms') && duration(self.openFor) <= duration('10m'))")
    .message("openFor must be 100ms to 10m").reason(Reason::FieldValueInvalid))]
pub struct Breaker {
    /// Name of the rule, unique in the policy; refusals and metrics name it.
    pub name: RuleName,
    /// Opens when so many percent of the requests are slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_calls: Option<SlowCalls>,
    /// Opens when so many percent of the requests fail: with 500 to 599, or without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorShare>,
    /// Opens when so many requests fail: with 500 to 599, or without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_count: Option<ErrorCount>,
    /// The last span of time that it judges by, 100ms to 10m; default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Period>,
    /// Requests that the window must have seen before it judges, 1 to 1000000; default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<i32>,
    /// How long it stays open the first time, 100ms to 10m; longer when the target has not recovered. Afterwards a growing
    /// share passes for as long, ten seconds at the least. Default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_for: Option<Period>,
    /// Requests that are then let through to find out, 1 to 100; all of them must be good. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub probes: Option<i32>,
    /// Whether it refuses, or only counts what it would refuse; default `Enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RuleMode>,
}

impl Breaker {
    /// The span of time that it judges by, said or not.
    pub fn window(&self) -> Period {
        said_or(self.window.as_ref(), "10s")
    }

    /// Requests that the window must have seen, said or not.
    pub fn min_requests(&self) -> i32 {
        self.min_requests.unwrap_or(20)
    }

    /// How long it stays open the first time, said or not.
    pub fn open_for(&self) -> Period {
        said_or(self.open_for.as_ref(), "5s")
    }

    /// Requests that find out whether the target is well again, said or not.
    pub fn probes(&self) -> i32 {
        self.probes.unwrap_or(5)
    }
}

/// So many percent of the requests are slow.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.over) >= duration('1ms') && duration(self.over) <= duration('1m')")
    .message("over must be 1ms to 1m").reason(Reason::FieldValueInvalid))]
pub struct SlowCalls {
    /// A request that takes longer is slow, 1ms to 1m.
    pub over: Period,
    /// Percent of slow requests at which it opens, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub percent: i32,
}

/// So many percent of the requests fail.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ErrorShare {
    /// Percent of failed requests at which it opens, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub percent: i32,
}

/// So many requests fail.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ErrorCount {
    /// Failed requests within the window at which it opens, 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: i32,
}

/// What opens a [`Breaker`] that says exactly one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip<'a> {
    /// So many percent are slow.
    SlowCalls(&'a SlowCalls),
    /// So many percent fail.
    Errors(&'a ErrorShare),
    /// So many fail.
    ErrorCount(&'a ErrorCount),
}

impl<'a> Trip<'a> {
    /// What opens it, unless nothing or several things would.
    pub fn of(breaker: &'a Breaker) -> Option<Self> {
        let all = [
            breaker.slow_calls.as_ref().map(Self::SlowCalls),
            breaker.errors.as_ref().map(Self::Errors),
            breaker.error_count.as_ref().map(Self::ErrorCount),
        ];
        let mut set = all.into_iter().flatten();
        set.next().filter(|_| set.next().is_none())
    }
}

/// What is looked at, from when it is hot, and what it may do then.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.key) != has(self.keyParts)")
    .message("exactly one of key and keyParts must be set").reason(Reason::FieldValueInvalid))]
pub struct HotKey {
    /// Name of the rule, unique in the policy; refusals and metrics name it.
    pub name: RuleName,
    /// What is looked at; a request without it is no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyPartSpec>,
    /// Instead of `key`: 2 to 4 parts that make one key together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 2, max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub key_parts: Vec<KeyPartSpec>,
    /// Percent of the requests at a guard from which a key is hot, 1 to 100; it is so until it has less than half of that.
    #[schemars(range(min = 1, max = 100))]
    pub hot_at_percent: i32,
    /// What each hot key may do.
    pub limit: HotKeyLimit,
    /// Whether it refuses, or only counts what it would refuse; default `Enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RuleMode>,
}

/// How many people are let in at once; the others wait in the order in which they came.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.session) || (duration(self.session) >= duration('10s') && duration(self.session) <= duration('1h'))")
    .message("session must be 10s to 1h").reason(Reason::FieldValueInvalid))]
pub struct WaitingRoom {
    /// Over what people are counted. `Instance`: each guard has a queue of its own. `Cluster`, `Region`, `Province`: all guards of one cluster have one queue. Clusters never share one, so that each lets in `activeUsers` for itself; of `Province` the policy says so (`ProvinceCapNotServed`).
    pub scope: LimitScope,
    /// People that may be in at one time, 1 to 100000000.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub active_users: i64,
    /// People let in within a minute while the room is open, 1 to 100000000; a quarter of it while the service is in distress. A closed room lets in as many as have place.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub new_per_minute: i64,
    /// How long somebody is in after the last request, 10s to 1h; default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Period>,
    /// What opens the queue before `activeUsers` is reached; absent means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_when: Option<OpenWhen>,
}

impl WaitingRoom {
    /// How long somebody is in after the last request, said or not.
    pub fn session(&self) -> Period {
        said_or(self.session.as_ref(), "5m")
    }
}

/// Signs of a target in distress that open the queue early; any of them does.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.p99Over) || (duration(self.p99Over) >= duration('1ms') && duration(self.p99Over) <= duration('1m'))")
    .message("p99Over must be 1ms to 1m").reason(Reason::FieldValueInvalid))]
pub struct OpenWhen {
    /// More than one request in a hundred takes longer than this, 1ms to 1m; absent means that time does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_over: Option<Period>,
    /// At least so many requests in a hundred fail, 1 to 100; absent means that failures do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub error_percent: Option<i32>,
}

fn said_or(said: Option<&Period>, default: &str) -> Period {
    said.cloned().unwrap_or_else(|| Period(default.to_owned()))
}
