//! Events: what a person has to look at, said once when it begins, and once when a cluster is back.
//!
//! Conditions say how things are; Events are for `kubectl describe` and for those who watch. Only
//! trouble is told, since an Event a step would cost the API server more than the steps themselves.

use std::collections::BTreeMap;

use crds::{Condition, ConditionStatus, ConditionType, Reason, find_condition};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::prepare::MANAGER;
use super::statuses::Owner;
use crate::runtime::lease::Leadership;
use crate::runtime::metrics::Metrics;

/// Events that wait to be written. A province in trouble has hundreds of stalled Apps; whoever
/// misses one finds its condition.
const QUEUE: usize = 256;
/// Troubles remembered until the status that says so comes back by the watch. Beyond it all are
/// forgotten, which at worst says something twice.
const REMEMBERED: usize = 10_000;

/// Conditions that tell of trouble, and the status that does.
const TROUBLE: [(ConditionType, ConditionStatus); 2] = [
    (ConditionType::Stalled, ConditionStatus::True),
    (ConditionType::Reachable, ConditionStatus::False),
];

/// Tells of trouble that begins, as long as it lives.
pub(super) struct Announcer {
    sender: mpsc::Sender<(ObjectReference, Event)>,
    metrics: Metrics,
    said: Said,
    _writer: AbortOnDropHandle<()>,
}

/// What was said of whom, and is perhaps not in the status yet that the watch brings back.
#[derive(Default)]
struct Said(BTreeMap<(Owner, ConditionType), Option<Reason>>);

impl Announcer {
    /// Starts writing Events, for the time of one leadership.
    pub(super) fn start(client: Client, leadership: Leadership, metrics: Metrics) -> Self {
        let (sender, mut waiting) = mpsc::channel::<(ObjectReference, Event)>(QUEUE);
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: None,
        };
        let recorder = Recorder::new(client, reporter);
        let write = async move {
            while let Some((regarding, event)) = waiting.recv().await {
                let written = leadership.while_leading(recorder.publish(&event, &regarding));
                if let Some(Err(error)) = written.await {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "event not written");
                }
            }
        };
        Self {
            sender,
            metrics,
            said: Said::default(),
            _writer: AbortOnDropHandle::new(tokio::spawn(write)),
        }
    }

    /// Says what the new conditions have that the old ones had not.
    pub(super) fn compare(
        &mut self,
        owner: &Owner,
        regarding: impl FnOnce() -> ObjectReference,
        old: &[Condition],
        new: &[Condition],
    ) {
        let events = self.said.events(owner, old, new);
        if events.is_empty() {
            return;
        }
        let regarding = regarding();
        for event in events {
            if self.sender.try_send((regarding.clone(), event)).is_err() {
                self.metrics.overflowed("events");
            }
        }
    }
}

impl Said {
    fn events(&mut self, owner: &Owner, old: &[Condition], new: &[Condition]) -> Vec<Event> {
        if self.0.len() > REMEMBERED {
            self.0.clear();
        }
        let mut events = Vec::new();
        for (kind, bad) in TROUBLE {
            let key = (owner.clone(), kind);
            let stored = trouble(old, kind, bad).map(|c| c.reason);
            let before = self.0.get(&key).copied().unwrap_or(stored);
            let now = trouble(new, kind, bad);
            let reason = now.map(|c| c.reason);
            if before == reason {
                continue;
            }
            self.0.insert(key, reason);
            match now {
                Some(condition) => events.push(event(EventType::Warning, condition)),
                None if kind == ConditionType::Reachable => {
                    let back = find_condition(new, kind);
                    events.extend(back.map(|condition| event(EventType::Normal, condition)));
                }
                None => {}
            }
        }
        events
    }
}

fn trouble(
    conditions: &[Condition],
    kind: ConditionType,
    bad: ConditionStatus,
) -> Option<&Condition> {
    find_condition(conditions, kind).filter(|condition| condition.status == bad)
}

fn event(type_: EventType, condition: &Condition) -> Event {
    Event {
        type_,
        reason: condition.reason.as_str().to_owned(),
        // The server takes a note of at most a kilobyte; conditions are no longer than that.
        note: Some(condition.message.clone()),
        action: "Plan".to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::{Timestamp, condition};

    fn owner() -> Owner {
        Owner::App("uid-1".into())
    }

    fn conditions(kind: ConditionType, status: ConditionStatus, reason: Reason) -> Vec<Condition> {
        let at = Timestamp::from_millis(0);
        vec![condition(&[], kind, status, reason, "Why.", 1, at)]
    }

    fn stalled(reason: Reason) -> Vec<Condition> {
        conditions(ConditionType::Stalled, ConditionStatus::True, reason)
    }

    fn reachable(status: ConditionStatus, reason: Reason) -> Vec<Condition> {
        conditions(ConditionType::Reachable, status, reason)
    }

    fn reasons(events: &[Event]) -> Vec<(EventType, &str)> {
        events.iter().map(|e| (e.type_, &*e.reason)).collect()
    }

    #[test]
    fn trouble_is_said_once_although_its_status_comes_back_late() {
        let (mut said, owner) = (Said::default(), owner());
        let now = stalled(Reason::RolloutStopped);
        let events = said.events(&owner, &[], &now);
        let expected = [(EventType::Warning, "RolloutStopped")];
        assert_eq!(reasons(&events), expected);
        assert!(said.events(&owner, &[], &now).is_empty(), "on its way");
        assert!(said.events(&owner, &now, &now).is_empty(), "come back");
    }

    #[test]
    fn trouble_that_a_former_leader_said_is_not_said_again() {
        let now = stalled(Reason::NotManaged);
        assert!(Said::default().events(&owner(), &now, &now).is_empty());
    }

    #[test]
    fn trouble_that_comes_back_and_another_reason_are_said_again() {
        let (mut said, owner) = (Said::default(), owner());
        let (first, second) = (stalled(Reason::NotManaged), stalled(Reason::Rejected));
        assert_eq!(said.events(&owner, &[], &first).len(), 1);
        assert_eq!(said.events(&owner, &first, &second).len(), 1);
        assert!(said.events(&owner, &second, &[]).is_empty());
        assert_eq!(said.events(&owner, &[], &second).len(), 1);
    }

    #[test]
    fn a_cluster_that_goes_and_comes_back_is_said_both_times() {
        let (mut said, owner) = (Said::default(), owner());
        let here = reachable(ConditionStatus::True, Reason::AsExpected);
        let away = reachable(ConditionStatus::False, Reason::OutOfContact);
        let gone = said.events(&owner, &here, &away);
        assert_eq!(reasons(&gone), [(EventType::Warning, "OutOfContact")]);
        let back = said.events(&owner, &away, &here);
        assert_eq!(reasons(&back), [(EventType::Normal, "AsExpected")]);
    }
}
