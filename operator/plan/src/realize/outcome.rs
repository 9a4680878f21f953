//! What is reported of an App, out of everything that was found on the way.

use crds::{Reason, ReportEntry, ReportState};

use super::{Action, Apply, Realized, Seen, Work, health};
use crate::charge::surge_of;
use crate::object::Kind;

impl Work<'_> {
    pub(super) fn finish(self) -> Realized {
        let objects: Vec<&Seen> = self
            .observed
            .objects_of(&self.entry.uid)
            .filter_map(|key| self.observed.objects.get(key))
            .collect();
        let (wanted, ready) = health::replicas(&objects);
        // Pods on their way out take up what they did until they are gone.
        let pods = self.observed.pods_of(self.entry);
        let surge = surge_of(self.entry.charge.surge, wanted.into());
        let spare = i32::try_from(surge).unwrap_or(i32::MAX);
        let wanted = wanted.max(pods.saturating_sub(spare));
        let failure = self.failures.first();
        let unhealthy = self.health.iter().find_map(|h| h.failure(self.now));
        // What was good and is only looked at again is good until the answer says otherwise.
        let acts = self.actions.iter().any(|action| !self.is_aside(action));
        let busy = acts || self.health.iter().any(|h| h.is_progressing(self.now));
        // Going, gone and merely observed say all there is; otherwise a failure outweighs the rest.
        let settled = self.state.filter(|state| {
            matches!(
                state,
                ReportState::Removed | ReportState::Removing | ReportState::Observed
            )
        });
        let failure = failure.filter(|_| settled.is_none());
        let (state, reason, message) = match (failure, self.state, unhealthy) {
            (Some((reason, message)), ..) => {
                (ReportState::Failed, Some(*reason), Some(message.clone()))
            }
            (None, Some(state), _) => (state, None, self.message),
            (None, None, Some(why)) => (
                ReportState::Unhealthy,
                Some(Reason::Unhealthy),
                Some(why.to_owned()),
            ),
            (None, None, None) if busy => (ReportState::Progressing, None, self.message),
            (None, None, None) => {
                let aside = self.message.filter(|_| self.entry.scope.is_namespace());
                (ReportState::Healthy, None, aside)
            }
        };
        let report = ReportEntry {
            uid: self.entry.uid.clone(),
            generation: self.entry.generation,
            content: (!objects.is_empty()).then(|| self.entry.content.clone()),
            state,
            replicas: wanted,
            ready,
            reason,
            message: message.map(shorten),
        };
        Realized {
            actions: self.actions,
            report,
            unsure: self.unsure,
            wake_at: self.wake_at,
        }
    }
}

impl Work<'_> {
    /// Whether an action is no news of what it is for: it looks again at what is well, or follows the Apps
    /// of a namespace with the room they are given.
    fn is_aside(&self, action: &Action) -> bool {
        let limits = |apply: &Apply| apply.key.kind == Kind::ResourceQuota;
        let follows = matches!(action, Action::Apply(apply) if limits(apply));
        action.is_look()
            || matches!(action, Action::Nudge(_))
            || follows && self.entry.scope.is_namespace()
    }
}

/// Messages are bounded by the schema.
pub fn shorten(mut message: String) -> String {
    const MAX: usize = 256;
    if message.chars().count() > MAX {
        message = message.chars().take(MAX - 1).collect();
        message.push('…');
    }
    message
}
