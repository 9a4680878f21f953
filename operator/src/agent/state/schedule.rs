//! What came of deciding becomes the work of a turn.

use crds::Uid;
use plan::realize::{Action, SecretKey};

use super::{State, Work};
use crate::agent::member::Asker;

impl State {
    /// Takes actions for one App or namespace into a turn.
    pub(super) fn schedule(&mut self, uid: &Uid, actions: Vec<Action>, now: i64, work: &mut Work) {
        let Some(held) = self.held.entries.get(uid) else {
            return;
        };
        let (namespace, traceparent) = (held.entry.namespace.clone(), held.traceparent.clone());
        for action in actions {
            // Several Apps may name one Secret. They come one at a time: the next finds it delivered,
            // and the last that gives it up finds that nobody else names it and deletes it.
            if secret_of(&action).is_some_and(|key| !work.secrets.insert(key.clone())) {
                self.wakes.insert(uid.clone(), now);
                continue;
            }
            match action {
                Action::Fetch { pack, .. } => {
                    if self.fetching.insert(pack.clone()) {
                        work.fetch.insert(pack);
                    }
                }
                Action::Delete { .. } | Action::LetGo { .. } | Action::Withdraw(_) => {
                    work.destructive.push((uid.clone(), action));
                }
                Action::Ask(..) | Action::CreateNamespace { .. } => {
                    let shared = (Asker::Namespace(namespace.clone()), action);
                    if !work.actions.contains(&shared) {
                        work.actions.push(shared);
                    }
                }
                Action::Nudge(_) => {
                    if let Action::Nudge(nudge) = &action {
                        let nudged = self.observed.nudged.entry(nudge.key.clone());
                        let nudged = nudged.or_default();
                        nudged.at = now;
                        nudged.times = nudged.times.saturating_add(1);
                    }
                    work.actions.push((Asker::App(uid.clone()), action));
                }
                Action::Apply(_) | Action::Deliver(_) => {
                    if !action.is_look() {
                        work.traceparent = work.traceparent.take().or_else(|| traceparent.clone());
                    }
                    work.actions.push((Asker::App(uid.clone()), action));
                }
            }
        }
    }
}

/// The Secret that an action is about.
fn secret_of(action: &Action) -> Option<&SecretKey> {
    match action {
        Action::Deliver(deliver) => Some(&deliver.key),
        Action::Withdraw(withdraw) => Some(&withdraw.key),
        Action::Fetch { .. }
        | Action::CreateNamespace { .. }
        | Action::Ask(..)
        | Action::Nudge(_)
        | Action::Apply(_)
        | Action::Delete { .. }
        | Action::LetGo { .. } => None,
    }
}
