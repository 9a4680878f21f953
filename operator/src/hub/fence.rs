//! Before a leader's first write: the fence is raised, and holds.
//!
//! The API server learns of a raised fence through a watch of its own, so for a moment after the
//! raise it would still take a former leader's write. The new leader therefore tries such a write,
//! without effect, until it is refused, and only then begins. A leader that finds nothing to write
//! leaves the fence as it is: until then the store holds what its predecessor decided, and nobody
//! decides against it.

use std::time::Duration;

use crds::{SYSTEM_NAMESPACE, label};
use http::Request;
use http::header::CONTENT_TYPE;
use kube::Client;
use serde_json::{Value, json};

use crate::runtime::first_write::FirstWrite;
use crate::runtime::lease::{Fence, Leadership};

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Writes taken in a row after which the fence is said to be missing: five seconds, many times what
/// the API server takes to hear of a raise.
const TRIES: u32 = 100;
/// Answers that say nothing about the fence, in a row, after which the turn ends and another begins.
const UNANSWERED: u32 = 20;
/// Why the fence is not known to hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum FenceError {
    /// The store takes a former leader's writes.
    #[error(
        "the store takes writes of leader epoch {epoch}, which is over: install the admission policy {policy} and its binding, and let the hub write as ServiceAccount {account}"
    )]
    Open {
        /// That epoch.
        epoch: i64,
        /// The policy that should have refused.
        policy: &'static str,
        /// For whom it does.
        account: &'static str,
    },
    /// Nobody could tell.
    #[error("the store does not answer whether the fence holds")]
    Unanswered(#[source] Box<kube::Error>),
}

/// A fence, and a write that it must refuse.
#[derive(Clone, Copy)]
struct Gate {
    /// The policy, whose name the API server quotes. The name of the written object must not look
    /// like it: other refusals quote that.
    policy: &'static str,
    account: &'static str,
    /// Where such an object is created, and the object.
    path: &'static str,
    stale: fn(epoch: i64) -> Value,
}

const AT_HUB: Gate = Gate {
    policy: "jiuzhou-hub-fence",
    account: "jiuzhou-system/jiuzhou-hub",
    path: "/apis/jiuzhou.io/v1alpha1/namespaces/jiuzhou-content/contents",
    stale: |epoch| {
        json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Content", "metadata": {"name": "probe"},
            "spec": {
                "tenant": "probe", "leaderEpoch": epoch,
                "items": [{"hash": "0".repeat(20), "data": "{}"}],
            },
        })
    },
};

const IN_MEMBER: Gate = Gate {
    policy: "jiuzhou-push-fence",
    account: "jiuzhou-system/jiuzhou-push",
    path: "/api/v1/namespaces",
    stale: |epoch| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": "probe",
            "labels": {(label::MANAGED_BY): label::MANAGED_BY_VALUE},
            "annotations": {(label::LEADER_EPOCH): epoch.to_string()},
        }})
    },
};

/// What comes before a leader's first write at the hub.
pub(super) fn at_hub(client: Client, leadership: Leadership) -> FirstWrite {
    FirstWrite::after(move || {
        let (client, leadership) = (client.clone(), leadership.clone());
        async move {
            leadership.raise_fence().await?;
            Ok(AT_HUB.refuses(&client, leadership.epoch(), PAUSE).await?)
        }
    })
}

/// What comes before a leader's first write in a cluster that is pushed to. Its number is counted
/// at the hub, so the fence there comes first.
pub(super) fn in_member(at_hub: FirstWrite, member: Client, epoch: i64) -> FirstWrite {
    FirstWrite::after(move || {
        let (at_hub, member) = (at_hub.clone(), member.clone());
        async move {
            at_hub.begin().await?;
            let fence = Fence::new(member.clone(), SYSTEM_NAMESPACE);
            fence.raise_to(epoch).await?;
            Ok(IN_MEMBER.refuses(&member, epoch, PAUSE).await?)
        }
    })
}

impl Gate {
    /// Waits until a write of the epoch before is refused.
    async fn refuses(self, client: &Client, epoch: i64, pause: Duration) -> Result<(), FenceError> {
        if epoch <= 1 {
            return Ok(());
        }
        let quoted = format!("'{}'", self.policy);
        let (mut taken, mut unanswered) = (0, 0);
        loop {
            let request = Request::post(format!("{}?dryRun=All", self.path))
                .header(CONTENT_TYPE, "application/json")
                .body((self.stale)(epoch - 1).to_string().into_bytes());
            let request = request
                .map_err(|error| FenceError::Unanswered(Box::new(kube::Error::HttpError(error))))?;
            match client.request::<Value>(request).await {
                Err(kube::Error::Api(status)) if status.message.contains(&quoted) => return Ok(()),
                Ok(_) => {
                    (taken, unanswered) = (taken + 1, 0);
                    if taken >= TRIES {
                        return Err(FenceError::Open {
                            epoch: epoch - 1,
                            policy: self.policy,
                            account: self.account,
                        });
                    }
                }
                // A connection that failed is no write that was taken.
                Err(error) => {
                    unanswered += 1;
                    if unanswered >= UNANSWERED {
                        return Err(FenceError::Unanswered(Box::new(error)));
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::{Fake, Scripted, failure, reply};

    fn refusal(message: &str) -> Scripted {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422,
            "reason": "Invalid", "message": message,
        });
        Scripted::Answer(reply(422, &status))
    }

    fn taken() -> Scripted {
        let content = json!({
            "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Content", "metadata": {"name": "probe"},
            "spec": {"tenant": "probe", "leaderEpoch": 1, "items": []},
        });
        Scripted::Answer(reply(201, &content))
    }

    async fn after(script: Vec<Scripted>) -> (Result<(), FenceError>, usize) {
        let fake = Fake::default();
        script
            .into_iter()
            .for_each(|scripted| fake.script(scripted));
        let held = AT_HUB.refuses(&fake.client(), 2, Duration::ZERO).await;
        (held, fake.log().len())
    }

    #[tokio::test]
    async fn only_a_refusal_by_the_policy_itself_says_that_the_fence_holds() {
        let other = "contents.jiuzhou.io \"fence-probe\" is forbidden: no such quota";
        let fenced = "ValidatingAdmissionPolicy 'jiuzhou-hub-fence' with binding 'jiuzhou-hub-fence' denied request: leader epoch 1 is behind the fence at 2";
        let script = vec![refusal(other), taken(), refusal(fenced)];
        let (held, requests) = after(script).await;
        assert!(held.is_ok(), "{held:?}");
        assert_eq!(requests, 3);
    }

    #[tokio::test]
    async fn a_pushed_cluster_without_its_fence_takes_no_write_and_the_policy_is_named() {
        let fake = Fake::default();
        (0..TRIES).for_each(|_| fake.script(taken()));
        let held = IN_MEMBER.refuses(&fake.client(), 2, Duration::ZERO).await;
        let why = held.unwrap_err().to_string();
        assert!(why.contains("jiuzhou-push-fence"), "{why}");
        assert!(fake.log()[0].contains("/api/v1/namespaces?dryRun=All"));
    }

    #[tokio::test]
    async fn errors_are_no_tries_and_a_store_without_a_fence_holds_the_turn() {
        let errors = || (0..UNANSWERED).map(|_| Scripted::Answer(failure(500, "InternalError")));
        let (held, _) = after(errors().collect()).await;
        assert!(matches!(held, Err(FenceError::Unanswered(_))), "{held:?}");
        let some = errors().skip(1).chain((0..TRIES).map(|_| taken()));
        let (held, _) = after(some.collect()).await;
        assert!(
            matches!(held, Err(FenceError::Open { epoch: 1, .. })),
            "{held:?}"
        );
    }
}
