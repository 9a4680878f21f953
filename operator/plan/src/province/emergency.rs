//! The emergency lane. An App of tier Core for which somebody of the province says so in an Approval is
//! heard first, may take what others borrow as far as it may borrow itself, and takes it at once.

use crds::{ApprovalDecision, Tier, Timestamp};

use super::regions::Wake;
use crate::world::{AppSlot, ValidApp, World};

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
    /// It is not, and why no Approval counts.
    Closed(&'static str),
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
            if spec.decision == ApprovalDecision::Reject {
                return Some(Self::Closed("one of them rejects it"));
            }
            if let Some(why) = objection(slot, app, approval) {
                lane = lane.or(Some(Self::Closed(why)));
                continue;
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

/// Why an Approval does not count. The authors of the App must be known and its approver none of them;
/// that the approver is who created it was checked at admission.
fn objection(slot: &AppSlot, app: &ValidApp, approval: &crds::Approval) -> Option<&'static str> {
    let spec = &approval.spec;
    if app.tier != Tier::Core {
        return Some("spec.tier of the App has to be Core");
    }
    if spec.content_hash != app.content {
        return Some("spec.contentHash is that of another content");
    }
    let Some(mut authors) = slot.authors() else {
        return Some("it is not known who changed the App, or too many did");
    };
    let own = authors.any(|author| author == spec.approver);
    own.then_some("spec.approver had a hand in the App")
}
