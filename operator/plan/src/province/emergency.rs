//! The emergency lane. An App of tier Core for which somebody of the province says so in an Approval is heard
//! first, and takes at once, without the grace time, what others borrow of what its tenant is granted.

use crds::{Approval, ApprovalDecision, ContentHash, Tier, Timestamp};

use super::regions::Wake;
use crate::content::hash_of;
use crate::world::{AppSlot, Scale, ValidApp, World};

/// Longest time from when an Approval is made to its end: an emergency is over some day.
const LONGEST: i64 = 7 * 24 * 3_600_000;

/// Where an App stands for which there is an Approval for the emergency lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It is in the lane.
    Open {
        /// Until when.
        until: Timestamp,
        /// Who said so,
        by: String,
        /// and why.
        reason: Option<String>,
    },
    /// It is not, and why which Approval does not count.
    Closed(String),
}

impl Lane {
    /// Where an App stands; `None` without any Approval that is about this.
    pub(super) fn of(
        world: &World,
        slot: &AppSlot,
        app: &ValidApp,
        wake: &mut Wake,
    ) -> Option<Self> {
        let mut lane: Option<Self> = None;
        for approval in world.emergencies_of(&slot.namespace, &slot.name) {
            let spec = &approval.spec;
            if spec.expires.millis() <= world.now {
                continue;
            }
            wake.at(spec.expires.millis());
            let name = approval.metadata.name.as_deref().unwrap_or_default();
            if let Some(why) = objection(slot, app, approval) {
                let why = format!("Approval {name} does not count: {why}");
                lane = lane.or(Some(Self::Closed(why)));
                continue;
            }
            if spec.decision == ApprovalDecision::Reject {
                let why = format!("{} rejects it by Approval {name}", spec.approver);
                return Some(Self::Closed(why));
            }
            let later = match &lane {
                Some(Self::Open { until, .. }) => *until < spec.expires,
                Some(Self::Closed(_)) | None => true,
            };
            if later {
                lane = Some(Self::Open {
                    until: spec.expires,
                    by: spec.approver.clone(),
                    reason: spec.reason.clone(),
                });
            }
        }
        lane
    }

    /// Whether an App is in the lane.
    pub(super) fn is_open(world: &World, slot: &AppSlot, app: &ValidApp) -> bool {
        // Nearly always there is none.
        !world.emergencies.is_empty()
            && matches!(
                Self::of(world, slot, app, &mut Wake::default()),
                Some(Self::Open { .. })
            )
    }
}

/// What an Approval for the lane approves: this very App, what it runs, how much of it, and where.
///
/// # Panics
/// Never: a placement holds nothing that JSON cannot say.
pub fn emergency_hash(slot: &AppSlot, app: &ValidApp) -> ContentHash {
    let size = match &app.scale {
        Scale::Replicas { total, .. } => format!("replicas {total}"),
        Scale::Autoscaled { min, max, .. } => format!("from {min} to {max}"),
        Scale::Manifests => "as the manifests say".to_owned(),
    };
    let places = serde_json::to_string(&app.placement).expect("plain data");
    let all = [slot.uid.as_str(), app.content.as_str(), &size, &places];
    hash_of(all.join("\n").as_bytes())
}

/// Why an Approval does not count. The authors of the App must be known and its approver none of them;
/// that the approver is who created it was checked at admission.
fn objection(slot: &AppSlot, app: &ValidApp, approval: &Approval) -> Option<&'static str> {
    let spec = &approval.spec;
    if app.tier != Tier::Core {
        return Some("spec.tier of the App has to be Core");
    }
    if spec.content_hash != emergency_hash(slot, app) {
        return Some(
            "its spec.contentHash is not that of the App as it is now: its content, replicas and placement",
        );
    }
    let made = approval.metadata.creation_timestamp.as_ref();
    let made = made.map(|made| made.0.as_millisecond());
    if made.is_some_and(|made| spec.expires.millis() - made > LONGEST) {
        return Some("its spec.expires is more than seven days after it was made");
    }
    let Some(mut authors) = slot.authors() else {
        return Some(
            "it is not known who changed the App, or too many did; have somebody change it once more after its next complete rollout",
        );
    };
    let own = authors.any(|author| author == spec.approver);
    own.then_some("its spec.approver had a hand in the App; let somebody else create one")
}
