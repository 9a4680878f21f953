//! Waiting until the fence holds.
//!
//! The API server learns of a raised fence through a watch of its own, so for a moment after the
//! raise it would still take a former leader's write. The new leader therefore tries such a write,
//! without effect, until it is refused, and only then begins.

use std::time::Duration;

use crds::{CONTENT_NAMESPACE, Content, ContentItem, ContentSpec};
use kube::api::PostParams;
use kube::{Api, Client};

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Tries after which the leader goes on: without the policy nothing will ever be refused, and
/// leases and preconditions still hold.
const TRIES: u32 = 100;

/// Waits until a write of the epoch before is refused.
pub(super) async fn hold(client: &Client, epoch: i64) {
    if epoch <= 1 {
        return;
    }
    let contents: Api<Content> = Api::namespaced(client.clone(), CONTENT_NAMESPACE);
    let item = ContentItem {
        hash: "0".repeat(20).into(),
        data: "{}".to_owned(),
    };
    let spec = ContentSpec {
        tenant: "fence".into(),
        leader_epoch: epoch - 1,
        items: vec![item],
    };
    let stale = Content::new("fence-probe", spec);
    let without_effect = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for _ in 0..TRIES {
        match contents.create(&without_effect, &stale).await {
            Err(kube::Error::Api(status)) if status.message.contains("fence") => return,
            Ok(_) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    tracing::error!(
        epoch,
        "the store does not refuse a former leader's writes: is the admission policy jiuzhou-hub-fence installed?"
    );
}
