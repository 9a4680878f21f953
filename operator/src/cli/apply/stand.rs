//! How an object stands, by what its status says, and when waiting for it is of no use any more.

use std::time::Duration;

use crds::Reason;
use kube::api::DynamicObject;
use serde_json::json;
use tokio::time::Instant;

/// The hub decides on all of a file within a second or two, and writes at once what stands still. Only what
/// stands still for longer than that does not wait on something that comes with the same file.
pub(super) const STANDS_STILL: Duration = Duration::from_secs(5);
/// What may pass without anybody's change: pods become healthy, clusters come back or are asked again, and
/// what others use becomes free.
const MAY_PASS: [Reason; 15] = [
    Reason::Unhealthy,
    Reason::Rejected,
    Reason::Conflict,
    Reason::Forbidden,
    Reason::AgentForbidden,
    Reason::CRDMissing,
    Reason::ContentMissing,
    Reason::OwnedByOther,
    Reason::NoClusterQualifies,
    Reason::TooFewRegions,
    Reason::InsufficientCapacity,
    Reason::QuotaExceeded,
    Reason::PredecessorRemains,
    Reason::HubRefused,
    Reason::KubeconfigRefused,
];

/// Why an object is not as it should be.
pub(super) struct Trouble {
    pub(super) what: String,
    pub(super) reason: String,
    pub(super) message: String,
    /// Whether it stays so until somebody changes something.
    pub(super) stands_still: bool,
}

/// What an object waits on.
#[derive(Default)]
pub(super) struct Wait {
    pub(super) trouble: Option<Trouble>,
    /// Whether that was told: long work shows what it waits on, once for each cause that lasts.
    pub(super) told: bool,
    /// Since when it stands still for the same reason.
    still_since: Option<Instant>,
}

impl Wait {
    /// What it waits on now, and whether that has to be told: it lasted from one look to the next.
    pub(super) fn next(self, trouble: Trouble, now: Instant) -> (Self, bool) {
        let before = self.trouble.as_ref();
        let lasts = before.is_some_and(|before| before.reason == trouble.reason);
        let since = self.still_since.filter(|_| lasts);
        let still_since = trouble.stands_still.then(|| since.unwrap_or(now));
        let next = Self {
            trouble: Some(trouble),
            told: lasts,
            still_since,
        };
        (next, lasts && !self.told)
    }

    /// Whether it stood still for so long that it does not go on by itself.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let still = self.still_since.map(|since| now.duration_since(since));
        still.is_some_and(|still| still >= STANDS_STILL)
    }
}

/// Why an object is not Ready as it is written now.
pub(super) fn trouble(now: &DynamicObject, what: &str) -> Option<Trouble> {
    let trouble = |reason: &str, message: &str, stands_still| {
        Some(Trouble {
            what: what.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            stands_still,
        })
    };
    let status = &now.data["status"];
    if status["observedGeneration"] != json!(now.metadata.generation) {
        let message = "the hub has not decided on it as it is written now";
        return trouble("Pending", message, false);
    }
    let conditions = status["conditions"].as_array();
    let find = |kind: &str| {
        let mut all = conditions.into_iter().flatten();
        all.find(|condition| condition["type"] == kind)
    };
    let ready = find("Ready");
    let text = |field: &str| ready.and_then(|c| c[field].as_str()).unwrap_or_default();
    if text("status") == "True" {
        return None;
    }
    let may_pass = MAY_PASS
        .iter()
        .any(|known| known.as_str() == text("reason"));
    let is_stalled = find("Stalled").is_some_and(|stalled| stalled["status"] == "True");
    trouble(text("reason"), text("message"), is_stalled && !may_pass)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn app(observed: i64, conditions: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "App",
            "metadata": {"name": "web", "namespace": "health", "generation": 2},
            "status": {"observedGeneration": observed, "conditions": conditions},
        }))
        .unwrap()
    }

    fn stalled(reason: &str) -> Value {
        json!([
            {"type": "Ready", "status": "False", "reason": reason, "message": "so it is"},
            {"type": "Stalled", "status": "True", "reason": reason, "message": "so it is"},
        ])
    }

    #[test]
    fn what_stands_still_by_its_own_fault_is_told_from_what_may_pass() {
        let stands = |object: &DynamicObject| trouble(object, "it").unwrap().stands_still;
        assert!(stands(&app(2, &stalled("InvalidPatch"))));
        assert!(
            !stands(&app(1, &stalled("InvalidPatch"))),
            "of the file before"
        );
        assert!(!stands(&app(2, &stalled("Unhealthy"))));
        assert!(!stands(&app(2, &stalled("QuotaExceeded"))));
        let mut reconciling = stalled("InvalidPatch");
        reconciling[1]["type"] = json!("Reconciling");
        assert!(!stands(&app(2, &reconciling)));
        let ready = json!([{"type": "Ready", "status": "True", "reason": "AsExpected"}]);
        assert!(trouble(&app(2, &ready), "it").is_none());
        assert_eq!(trouble(&app(1, &ready), "it").unwrap().reason, "Pending");
    }

    #[test]
    fn waiting_is_over_once_the_same_fault_stood_for_longer_than_the_hub_needs() {
        let begin = Instant::now();
        let at = |wait: Wait, reason: &str, after: Duration| {
            let trouble = trouble(&app(2, &stalled(reason)), "it").unwrap();
            wait.next(trouble, begin + after)
        };
        let (wait, told) = at(Wait::default(), "TargetNotFound", Duration::ZERO);
        assert!(!told, "it may come with the next object of the file");
        let (wait, told) = at(wait, "InvalidPatch", Duration::from_secs(1));
        assert!(!told, "another fault");
        let (wait, told) = at(wait, "InvalidPatch", STANDS_STILL);
        assert!(
            told && !wait.is_over(begin + STANDS_STILL),
            "since a second"
        );
        let over = begin + STANDS_STILL + Duration::from_secs(1);
        let (wait, told) = at(wait, "InvalidPatch", STANDS_STILL + Duration::from_secs(1));
        assert!(!told && wait.is_over(over), "told once");
        let (wait, _) = at(wait, "Unhealthy", STANDS_STILL * 2);
        assert!(!wait.is_over(begin + STANDS_STILL * 3));
    }
}
