//! Before a leader's first write: the fence is raised, and holds.
//!
//! The API server learns of a raised fence through a watch of its own, so for a moment after the
//! raise it would still take a former leader's write. The new leader therefore tries such a write,
//! without effect, until it is refused, and only then begins. A leader that finds nothing to write
//! leaves the fence as it is: until then the store holds what its predecessor decided, and nobody
//! decides against it.

use std::time::Duration;

use crds::{CONTENT_NAMESPACE, Content, ContentItem, ContentSpec, SYSTEM_NAMESPACE};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::runtime::first_write::FirstWrite;
use crate::runtime::lease::{Fence, Leadership};

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Writes taken in a row after which the fence is said to be missing: five seconds, many times what
/// the API server takes to hear of a raise.
const TRIES: u32 = 100;
/// Answers that say nothing about the fence, in a row, after which the turn ends and another begins.
const UNANSWERED: u32 = 20;
/// The policy that refuses, as the API server quotes its name. The name of the written object must
/// not look like it: other refusals quote that.
const POLICY: &str = "'jiuzhou-hub-fence'";

/// Why the fence is not known to hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum FenceError {
    /// The store takes a former leader's writes.
    #[error(
        "the store takes writes of leader epoch {0}, which is over: install the admission policy jiuzhou-hub-fence and its binding, and run the hub as ServiceAccount jiuzhou-system/jiuzhou-hub"
    )]
    Open(i64),
    /// Nobody could tell.
    #[error("the store does not answer whether the fence holds")]
    Unanswered(#[source] Box<kube::Error>),
}

/// What comes before a leader's first write at the hub.
pub(super) fn at_hub(client: Client, leadership: Leadership) -> FirstWrite {
    FirstWrite::after(move || {
        let (client, leadership) = (client.clone(), leadership.clone());
        async move {
            leadership.raise_fence().await?;
            Ok(refused(&client, leadership.epoch(), PAUSE).await?)
        }
    })
}

/// What comes before a leader's first write in a cluster that is pushed to. Its number is counted
/// at the hub, so the fence there comes first.
pub(super) fn in_member(at_hub: FirstWrite, member: Client, epoch: i64) -> FirstWrite {
    FirstWrite::after(move || {
        let (at_hub, fence) = (at_hub.clone(), Fence::new(member.clone(), SYSTEM_NAMESPACE));
        async move {
            at_hub.begin().await?;
            Ok(fence.raise_to(epoch).await?)
        }
    })
}

/// Waits until a write of the epoch before is refused.
async fn refused(client: &Client, epoch: i64, pause: Duration) -> Result<(), FenceError> {
    if epoch <= 1 {
        return Ok(());
    }
    let contents: Api<Content> = Api::namespaced(client.clone(), CONTENT_NAMESPACE);
    let item = ContentItem {
        hash: "0".repeat(20).into(),
        data: "{}".to_owned(),
    };
    let spec = ContentSpec {
        tenant: "probe".into(),
        leader_epoch: epoch - 1,
        items: vec![item],
    };
    let stale = Content::new("probe", spec);
    let without_effect = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let (mut taken, mut unanswered) = (0, 0);
    loop {
        match contents.create(&without_effect, &stale).await {
            Err(kube::Error::Api(status)) if status.message.contains(POLICY) => return Ok(()),
            Ok(_) => {
                (taken, unanswered) = (taken + 1, 0);
                if taken >= TRIES {
                    return Err(FenceError::Open(epoch - 1));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::{Fake, Scripted, failure, reply};
    use serde_json::json;

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
        let held = refused(&fake.client(), 2, Duration::ZERO).await;
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
    async fn errors_are_no_tries_and_a_store_without_a_fence_holds_the_turn() {
        let errors = || (0..UNANSWERED).map(|_| Scripted::Answer(failure(500, "InternalError")));
        let (held, _) = after(errors().collect()).await;
        assert!(matches!(held, Err(FenceError::Unanswered(_))), "{held:?}");
        let some = errors().skip(1).chain((0..TRIES).map(|_| taken()));
        let (held, _) = after(some.collect()).await;
        assert!(matches!(held, Err(FenceError::Open(1))), "{held:?}");
    }
}
