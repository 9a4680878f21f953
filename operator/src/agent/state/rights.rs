//! Why Apps do not get on, and the agent's own rights, which may be the reason.

use crds::{NamespaceName, Reason, ReportEntry, ReportState, Uid};
use plan::held::HeldEntry;
use plan::realize::{Action, Namespace, shorten};

use super::{State, Work};
use crate::agent::member::Asker;

/// Least time between two times that rights in one namespace are set up anew, in milliseconds.
const REBIND: i64 = 60_000;

/// Why an App does not get on.
pub(super) struct Failure {
    pub(super) why: Box<str>,
    /// Whether the agent lacks a right, so that somebody has to act.
    pub(super) forbidden: bool,
}

impl State {
    /// Tells why a removal stands still, and that the agent's own rights are missing.
    pub(super) fn say_why(&mut self, uid: &Uid, report: &mut ReportEntry) {
        if report.state == ReportState::Healthy {
            self.failures.remove(uid);
        }
        let Some(failure) = self.failures.get(uid) else {
            return;
        };
        let message = Some(shorten(failure.why.to_string()));
        if report.state == ReportState::Removing {
            report.message = message;
        } else if report.state == ReportState::Progressing && failure.forbidden {
            report.state = ReportState::Failed;
            report.reason = Some(Reason::AgentForbidden);
            report.message = message;
        }
    }

    /// Remembers why Apps do not get on: a removal that stands still says so.
    pub(super) fn begin_failure(&mut self, asker: &Asker, why: &str, forbidden: bool) {
        for app in self.asking(asker) {
            let why = why.into();
            self.failures.insert(app, Failure { why, forbidden });
        }
    }

    pub(super) fn end_failure(&mut self, asker: &Asker) {
        for app in self.asking(asker) {
            self.failures.remove(&app);
        }
    }

    /// The Apps that an action was carried out for.
    fn asking(&self, asker: &Asker) -> Vec<Uid> {
        match asker {
            Asker::App(uid) => vec![uid.clone()],
            Asker::Namespace(name) => {
                let here = |held: &HeldEntry| held.entry.namespace == *name;
                let apps = self.held.entries.iter().filter(|(_, held)| here(held));
                apps.map(|(uid, _)| uid.clone()).collect()
            }
        }
    }

    /// Decides again for whomever an action was carried out, at that time.
    pub(super) fn again(&mut self, asker: &Asker, at: i64) {
        for app in self.asking(asker) {
            self.wake(app, at);
        }
    }

    /// The agent's rights in a namespace of ours are missing: they are set up anew, once in a while.
    /// Nothing else there waits for it.
    pub(super) fn rebind(&mut self, namespace: &NamespaceName, now: i64) {
        let ours = self.observed.namespaces.get(namespace) == Some(&Namespace::Ready);
        let lately = self.rebound.get(namespace);
        if ours && lately.is_none_or(|at| now - at >= REBIND) {
            self.rebound.insert(namespace.clone(), now);
            self.unbound.insert(namespace.clone());
        }
    }

    pub(super) fn bind_again(&mut self, work: &mut Work) {
        for name in std::mem::take(&mut self.unbound) {
            let asker = Asker::Namespace(name.clone());
            let bind = Action::CreateNamespace { name, exists: true };
            work.actions.push((asker, bind));
        }
    }

    /// Rights in a namespace are in place: what was refused for want of them is tried now.
    pub(super) fn bound(&mut self, namespace: &NamespaceName) {
        let tries = &self.tries;
        let mut concerned = Vec::new();
        self.observed.refused.retain(|key, refused| {
            let over = key.namespace == *namespace && refused.reason == Reason::AgentForbidden;
            if over {
                concerned.extend(tries.get(key).map(|(app, _)| app.clone()));
            }
            !over
        });
        self.observed.undelivered.retain(|(place, _), undelivered| {
            place != namespace || undelivered.reason != Reason::AgentForbidden
        });
        self.dirty.extend(concerned);
        let secrets = self.held.entries.iter().filter(|(_, held)| {
            held.entry.namespace == *namespace && !held.entry.secrets.is_empty()
        });
        self.dirty.extend(secrets.map(|(uid, _)| uid.clone()));
    }
}
