//! Configurations of the guard, as guard control would compile them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The header that names a citizen.
pub(super) const CITIZEN: &str = "x-citizen";
/// The header that names a venue.
pub(super) const VENUE: &str = "x-venue";
/// The one policy.
pub(super) const POLICY: &str = "bench/app";

/// A configuration of one port.
pub(super) struct Document {
    pub(super) port: u16,
    pub(super) upstreams: Vec<SocketAddr>,
    /// Prefix of the path, and which class of the policy it is; none is not protected.
    pub(super) routes: Vec<(&'static str, Option<usize>)>,
    /// The policy without its name.
    pub(super) policy: Value,
    /// Certificate and key, for TLS.
    pub(super) tls: Option<(PathBuf, PathBuf)>,
    /// Says which configuration it is, and is told in every answer.
    pub(super) revision: usize,
}

/// Tells the revision in answers.
pub(super) const REVISION: &str = "x-revision";

impl Document {
    /// One protected route for everything.
    pub(super) fn of(port: u16, upstream: SocketAddr, policy: Value) -> Self {
        Self {
            port,
            upstreams: vec![upstream],
            routes: vec![("/", Some(0))],
            policy,
            tls: None,
            revision: 1,
        }
    }

    /// Writes it as a whole or not at all: the guard may look at any time.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let new = file.with_extension("new");
        fs::write(&new, self.json()?.to_string())
            .and_then(|()| fs::rename(&new, file))
            .with_context(|| format!("write {}", file.display()))
    }

    fn json(&self) -> Result<Value> {
        let revision = self.revision.to_string();
        let mut listener =
            json!({"name": "bench/gateway/front", "hosts": [{"entries": entries(&self.routes)}]});
        let mut certificates = json!({});
        if let Some((certificate, key)) = &self.tls {
            let read = |file: &Path| {
                fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
            };
            certificates["bench/tls"] = json!({"chain": read(certificate)?, "key": read(key)?});
            listener["certificates"] = json!(["bench/tls"]);
        }
        let rules = self.routes.iter().enumerate().map(|(at, (_, class))| {
            let mut rule = json!({
                "route": format!("bench/route-{at}"), "name": "0",
                "backends": [{"weight": 1, "service": "bench/app:80"}],
            });
            if let Some(class) = class {
                rule["policy"] = POLICY.into();
                rule["class"] = (*class).into();
            }
            // A header more in every answer is paid for: only who asks for revisions has it.
            if self.revision > 1 {
                rule["filters"] = json!([{"responseHeaders": {"set": [[REVISION, revision]]}}]);
            }
            rule
        });
        let rules: Vec<Value> = rules.collect();
        let endpoints = self
            .upstreams
            .iter()
            .map(|at| json!({"address": at.ip(), "port": at.port()}));
        let endpoints: Vec<Value> = endpoints.collect();
        Ok(json!({
            "revision": revision,
            "ports": [{"port": self.port, "tls": self.tls.is_some(), "listeners": [listener]}],
            "rules": rules,
            "policies": {POLICY: named(self.policy.clone())},
            "services": {"bench/app:80": {"endpoints": endpoints}},
            "certificates": certificates,
        }))
    }
}

fn entries(routes: &[(&str, Option<usize>)]) -> Vec<Value> {
    let entry = |(rule, (prefix, _)): (usize, &(&str, _))| json!({"path": {"prefix": prefix}, "rule": rule});
    routes.iter().enumerate().map(entry).collect()
}

/// A policy with its name in it.
pub(super) fn named(mut policy: Value) -> Value {
    policy["name"] = POLICY.into();
    policy
}

/// So many requests a second over a cluster, and so many at once.
pub(super) fn quota(per_second: u32, burst: u32) -> Value {
    json!({"rate": {"requests": per_second, "perSeconds": 1}, "burst": burst})
}

/// A limit over all requests.
pub(super) fn total(per_second: u32, burst: u32) -> Value {
    json!({"name": "total", "scope": "Cluster", "quota": quota(per_second, burst)})
}

/// A limit for each value of a header.
pub(super) fn each(header: &str, per_second: u32, burst: u32) -> Value {
    json!({"name": "each", "scope": "Cluster", "key": [{"header": header}], "onMissing": "Share",
        "quota": quota(per_second, burst)})
}

/// Everything that protects a target, with this limit over all requests: one by key, hot keys, two
/// breakers and adaptive concurrency. Nothing else than the total is meant to be reached.
pub(super) fn chain(per_second: u32, burst: u32) -> Value {
    json!({
        "rateLimits": [total(per_second, burst), each(CITIZEN, 100_000, 100_000)],
        "hotKeys": [{"name": "venue", "key": [{"header": VENUE}], "hot": {"hotAtPercent": 50},
            "limit": quota(1_000_000, 1_000_000)}],
        "breakers": [
            breaker("slow", &json!({"slowCalls": {"over": {"secs": 10, "nanos": 0}, "percent": 50}})),
            breaker("errors", &json!({"errors": {"percent": 50}})),
        ],
        "concurrency": "adaptive",
    })
}

fn breaker(name: &str, condition: &Value) -> Value {
    json!({"name": name, "settings": {"condition": condition, "window": {"secs": 10, "nanos": 0},
        "minRequests": 20, "openFor": {"secs": 5, "nanos": 0}, "probes": 5}})
}

/// A breaker that opens when half of the calls within five seconds are slower than half a second.
pub(super) fn slow_breaker(window: std::time::Duration) -> Value {
    json!({"name": "slow", "settings": {
        "condition": {"slowCalls": {"over": {"secs": 0, "nanos": 500_000_000}, "percent": 50}},
        "window": {"secs": window.as_secs(), "nanos": window.subsec_nanos()},
        "minRequests": 20, "openFor": {"secs": 2, "nanos": 0}, "probes": 5}})
}
