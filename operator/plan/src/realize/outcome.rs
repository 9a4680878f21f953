//! What is reported of an App, out of everything that was found on the way.

use crds::{Reason, ReportEntry, ReportState};

use super::{Realized, Seen, Work, health};

impl Work<'_> {
    pub(super) fn finish(self) -> Realized {
        let objects: Vec<&Seen> = self
            .observed
            .objects_of(&self.entry.uid)
            .filter_map(|key| self.observed.objects.get(key))
            .collect();
        let (wanted, ready) = health::replicas(&objects);
        let failure = self.failures.first();
        let unhealthy = self.health.iter().find_map(|h| h.failure());
        // What was good and is only looked at again is good until the answer says otherwise.
        let acts = self.actions.iter().any(|action| !action.is_look());
        let busy = acts || self.health.iter().any(|h| h.is_progressing());
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
            (None, None, None) => (ReportState::Healthy, None, None),
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

/// Messages are bounded by the schema.
pub fn shorten(mut message: String) -> String {
    const MAX: usize = 256;
    if message.chars().count() > MAX {
        message = message.chars().take(MAX - 1).collect();
        message.push('…');
    }
    message
}
