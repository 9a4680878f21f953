//! Whether a workload is well, from its status.

use crds::{Reason, Timestamp};
use serde_json::Value;

use super::Seen;
use crate::object::Kind;

/// Who says what guards know of a policy.
const GUARD: &str = "jiuzhou.io/guard";
/// How long a route that a policy names may be missing before that is trouble, in milliseconds. A policy is there
/// before the routes of its Apps, so that none is open for a moment: those wait until their namespace is
/// isolated, which takes a second or two, and guard control looks again after 100 ms. Five times that.
pub(super) const ROUTE_COMES: i64 = 10_000;

/// Health of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    verdict: Verdict,
    /// Replicas it wants.
    pub wanted: i32,
    /// Replicas that are ready.
    pub ready: i32,
    /// Whether pods are missing that were refused, as far as it tells.
    pub refused: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Verdict {
    /// Not a workload: it is well once it exists.
    #[default]
    None,
    Well,
    Progressing,
    Failed(Box<str>),
    /// What it names is not there, and since when, in milliseconds since the Unix epoch.
    Lacking(Box<str>, i64),
}

impl Health {
    /// The health of an object by its kind, generation, spec and status.
    pub fn of(
        kind: Kind,
        name: &str,
        generation: i64,
        spec_replicas: Option<i32>,
        status: &Value,
    ) -> Self {
        let number = |field: &str| number(status, field);
        let observed = status
            .get("observedGeneration")
            .and_then(Value::as_i64)
            .unwrap_or(0)
            >= generation;
        match kind {
            Kind::Deployment => {
                let wanted = spec_replicas.unwrap_or(1);
                deployment(name, wanted, observed, status)
            }
            Kind::StatefulSet => stateful_set(spec_replicas.unwrap_or(1), observed, status),
            Kind::DaemonSet => {
                let wanted = number("desiredNumberScheduled");
                let done = observed
                    && number("updatedNumberScheduled") >= wanted
                    && number("numberAvailable") >= wanted;
                Self {
                    verdict: verdict(done, None),
                    wanted,
                    ready: number("numberReady"),
                    refused: false,
                }
            }
            Kind::Job => {
                let condition = |kind: &str| has_condition(status, kind, "True");
                let failure = condition("Failed").then(|| format!("Job {name} failed").into());
                Self {
                    verdict: verdict(condition("Complete"), failure),
                    wanted: 0,
                    ready: 0,
                    refused: false,
                }
            }
            Kind::TrafficPolicy => policy(name, generation, status),
            Kind::Namespace
            | Kind::NetworkPolicy
            | Kind::LimitRange
            | Kind::ResourceQuota
            | Kind::ServiceAccount
            | Kind::ConfigMap
            | Kind::PersistentVolumeClaim
            | Kind::Service
            | Kind::CronJob
            | Kind::HorizontalPodAutoscaler
            | Kind::PodDisruptionBudget
            | Kind::HTTPRoute => Self::default(),
        }
    }

    pub(super) fn is_progressing(&self, now: i64) -> bool {
        self.verdict == Verdict::Progressing || self.fails_at(now).is_some()
    }

    pub(super) fn failure(&self, now: i64) -> Option<&str> {
        match &self.verdict {
            Verdict::Failed(why) => Some(why),
            Verdict::Lacking(why, _) => self.fails_at(now).is_none().then_some(&**why),
            Verdict::None | Verdict::Well | Verdict::Progressing => None,
        }
    }

    /// When what it lacks becomes a failure, if that is still to come.
    pub(super) fn fails_at(&self, now: i64) -> Option<i64> {
        let Verdict::Lacking(_, since) = &self.verdict else {
            return None;
        };
        // Guard control has a clock of its own; one that is far ahead holds nothing up.
        let is_new = (-ROUTE_COMES..ROUTE_COMES).contains(&now.saturating_sub(*since));
        is_new.then(|| since.saturating_add(ROUTE_COMES))
    }
}

/// Whether pods were refused by a ResourceQuota.
fn lacks_room(status: &Value) -> bool {
    let failure = condition(status, "ReplicaFailure");
    let says = failure.and_then(|c| c.get("message")?.as_str());
    has_condition(status, "ReplicaFailure", "True")
        && says.is_some_and(|message| message.contains("exceeded quota"))
}

fn number(status: &Value, field: &str) -> i32 {
    let number = status.get(field).and_then(Value::as_i64);
    number.and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
}

fn deployment(name: &str, wanted: i32, observed: bool, status: &Value) -> Health {
    let number = |field: &str| number(status, field);
    let ready = number("readyReplicas");
    let done = observed
        && number("updatedReplicas") >= wanted
        && number("availableReplicas") >= wanted
        && number("replicas") <= number("updatedReplicas");
    let failure = observed
        .then(|| deadline_exceeded(name, wanted, ready, status))
        .flatten();
    Health {
        verdict: verdict(done, failure),
        wanted,
        ready,
        refused: lacks_room(status),
    }
}

fn stateful_set(wanted: i32, observed: bool, status: &Value) -> Health {
    let number = |field: &str| number(status, field);
    let revision = |field: &str| status.get(field).and_then(Value::as_str);
    let current = revision("currentRevision") == revision("updateRevision")
        || number("updatedReplicas") >= wanted;
    let done = observed && current && number("readyReplicas") >= wanted;
    Health {
        verdict: verdict(done, None),
        wanted,
        ready: number("readyReplicas"),
        // It has no condition of its own for that.
        refused: observed && number("replicas") < wanted,
    }
}

/// A policy is well once all guards of the cluster enforce it as it is now, for each of its targets.
fn policy(name: &str, generation: i64, status: &Value) -> Health {
    let ancestors = status.get("ancestors").and_then(Value::as_array);
    let said: Vec<&Value> = ancestors
        .into_iter()
        .flatten()
        .filter(|one| one.get("controllerName").and_then(Value::as_str) == Some(GUARD))
        .collect();
    let now = |one: &Value, kind: &str, wanted: &str| {
        condition(one, kind).is_some_and(|condition| {
            let at = condition.get("observedGeneration").and_then(Value::as_i64);
            at.is_none_or(|at| at >= generation)
                && condition.get("status").and_then(Value::as_str) == Some(wanted)
        })
    };
    let refused = said.iter().find(|one| now(one, "Accepted", "False"));
    let done = !said.is_empty() && said.iter().all(|one| now(one, "Programmed", "True"));
    Health {
        verdict: match refused {
            Some(one) => refusal(name, one),
            None => verdict(done, None),
        },
        ..Health::default()
    }
}

/// What guards say of a target that they refuse.
fn refusal(name: &str, target: &Value) -> Verdict {
    let accepted = condition(target, "Accepted");
    let text = |field: &str| accepted.and_then(|condition| condition.get(field)?.as_str());
    let why: Box<str> = match text("message") {
        // Guard control names the policy itself.
        Some(why) if why.starts_with("TrafficPolicy ") => why.into(),
        why => format!(
            "TrafficPolicy {name}: {}",
            why.unwrap_or("the guards refuse it")
        )
        .into(),
    };
    let since = text("lastTransitionTime").and_then(|text| text.parse::<Timestamp>().ok());
    match since {
        Some(since) if text("reason") == Some(Reason::TargetNotFound.as_str()) => {
            Verdict::Lacking(why, since.millis())
        }
        Some(_) | None => Verdict::Failed(why),
    }
}

fn verdict(done: bool, failure: Option<Box<str>>) -> Verdict {
    match (done, failure) {
        (true, _) => Verdict::Well,
        (false, Some(why)) => Verdict::Failed(why),
        (false, None) => Verdict::Progressing,
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = status.get("conditions")?.as_array()?;
    conditions
        .iter()
        .find(|c| c.get("type").and_then(Value::as_str) == Some(kind))
}

fn has_condition(status: &Value, kind: &str, value: &str) -> bool {
    condition(status, kind)
        .and_then(|c| c.get("status"))
        .and_then(Value::as_str)
        == Some(value)
}

fn deadline_exceeded(name: &str, wanted: i32, ready: i32, status: &Value) -> Option<Box<str>> {
    let progressing = condition(status, "Progressing")?;
    let reason = progressing.get("reason").and_then(Value::as_str)?;
    (reason == "ProgressDeadlineExceeded").then(|| {
        format!("Deployment {name} has {ready} of {wanted} replicas ready after its progressDeadlineSeconds").into()
    })
}

/// Replicas wanted and ready over all workloads of an App.
pub(super) fn replicas(objects: &[&Seen]) -> (i32, i32) {
    objects.iter().fold((0, 0), |(wanted, ready), seen| {
        (
            wanted.saturating_add(seen.health.wanted),
            ready.saturating_add(seen.health.ready),
        )
    })
}
