//! What protects the routes of a serving guard and what it did, as `/protection` tells it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What a serving guard knows at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The configuration in force; empty before the first.
    pub revision: String,
    /// By name.
    pub policies: Vec<PolicyStanding>,
    /// By name.
    pub services: Vec<ServiceStanding>,
    /// By name.
    #[serde(default)]
    pub rooms: Vec<RoomStanding>,
}

/// A waiting room. Nothing in it is of a single person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoomStanding {
    /// `namespace/name` of the policy.
    pub name: String,
    /// Whether guards of the cluster have it together; else this one has its own.
    pub is_shared: bool,
    /// Whether people queue, and why.
    pub state: RoomState,
    /// How many queue: over all guards that have it together, as this one heard last.
    pub waiting: u64,
    /// How many are in, likewise.
    pub active: u64,
    /// How many may be in, likewise.
    pub active_users: u64,
    /// People whom this guard let in within the last minute.
    pub admitted_per_minute: u64,
    /// How often this guard told somebody to wait, since the room is there.
    pub refused: u64,
}

/// Whether people queue before a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RoomState {
    /// Everybody passes.
    Closed,
    /// People queue since as many are in as may be.
    ActiveUsers,
    /// People queue since too many requests were slow.
    Latency,
    /// People queue since too many requests failed.
    Errors,
}

/// A policy with its rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStanding {
    /// `namespace/name`.
    pub name: String,
    /// The routes that it protects, as `namespace/route`.
    pub routes: Vec<String>,
    /// Requests of these routes that endpoints answered, since the start.
    pub admitted: u64,
    /// Requests of these routes that the guard answered itself, since the start; also for reasons that
    /// are no rule, such as no endpoint.
    pub refused: u64,
    /// In their order of evaluation: limits, hot keys, breakers.
    pub rules: Vec<RuleStanding>,
    /// What is under way; absent where nothing bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyStanding>,
}

/// A rule with what it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleStanding {
    /// Unique in its policy.
    pub name: String,
    /// Whether it refuses, or only counts.
    pub is_shadow: bool,
    /// Requests that it refused, since the start.
    pub refused: u64,
    /// Requests that it would have refused, had it not been in shadow mode.
    pub would_refuse: u64,
    /// What it is, and where it stands.
    #[serde(flatten)]
    pub kind: RuleKind,
}

/// What a rule is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub enum RuleKind {
    /// So many requests in a time.
    RateLimit {
        /// What this guard lets pass now.
        per_second: f64,
        /// At once after a pause.
        burst: u32,
        /// Whether that is for each key alone.
        #[serde(default)]
        is_per_key: bool,
    },
    /// Keys that make up too much of the requests.
    HotKeys {
        /// Those that are limited now.
        hot: Vec<HotKeyStanding>,
    },
    /// Leaves the target alone.
    Breaker {
        /// Where it stands.
        state: Breaker,
    },
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Breaker {
    /// All requests pass.
    Closed,
    /// Some find out whether the target is well, or a growing share passes.
    HalfOpen,
    /// None passes.
    Open,
}

/// A key that is hot now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HotKeyStanding {
    /// Printable; what is not is escaped, what is long is cut.
    pub key: String,
    /// Of the requests that the rule saw lately.
    pub percent: f64,
    /// How long it has been hot.
    pub seconds: u64,
}

/// What is under way at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConcurrencyStanding {
    /// How many requests may be.
    pub limit: u32,
    /// How many are.
    pub running: u32,
    /// How many wait for a place.
    pub waiting: u64,
    /// Refused, since the start.
    pub refused: u64,
}

/// A service with its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStanding {
    /// `namespace/name:port`.
    pub name: String,
    /// How many endpoints there are.
    pub endpoints: usize,
    /// Those that get no requests now since they fail.
    pub ejected: Vec<SocketAddr>,
}
