//! The plan's counterpart in a member cluster: what to do so that the cluster is as assigned.
//!
//! [`realize`] compares one App's entry with what is observed and names every write. It never
//! touches what another App or nobody owns, deletes only what an entry says is removed or what
//! content the agent has read no longer holds, and asks before it acts for a tenant.

mod action;
mod enclosure;
mod health;
mod hold;
mod observed;
mod outcome;
mod ownership;
mod protection;
mod secrets;

use std::collections::BTreeSet;

use crds::{Entry, EntryState, HpaBounds, Management, Reason, ReportEntry, ReportState, TakeOver};

pub use action::{Action, Apply, Nudge};
pub use enclosure::Enclosure;
pub use health::Health;
pub use observed::{Access, Limited, Namespace, Nudged, Observed, Refused, Seen, Settled, Stamp};
pub use outcome::shorten;
pub use secrets::{Deliver, Delivered, SecretKey, Undelivered, Withdraw};

use crate::allotment::Allotment;
use crate::content::AppContent;
use crate::object::ObjectKey;
use crate::render::{RenderError, RenderFor, Rendered, render};

/// Repairs of one object within [`FIGHT_WINDOW`] after which somebody else evidently wants it
/// otherwise: the agent stops and says so.
pub const FIGHT_REPAIRS: usize = 5;
/// The time within which repairs count as one fight, in milliseconds.
pub const FIGHT_WINDOW: i64 = 600_000;

/// Pause before looking again at an object that is not ours, in milliseconds: that it is gone or let
/// go is news for whoever owned it, not for those that wait for its name.
pub const LOOK_AGAIN: i64 = 5_000;

/// What is known of an entry's content.
#[derive(Clone, Copy, Debug)]
pub enum ContentState<'a> {
    /// Not fetched yet.
    Unknown,
    /// Being fetched.
    Coming,
    /// The hub does not have it, or not intact; why.
    Missing(&'a str),
    /// Here.
    Here(&'a AppContent),
}

/// What to do for one App and what to report of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Realized {
    /// Writes, reads and questions, in order.
    pub actions: Vec<Action>,
    /// Report.
    pub report: ReportEntry,
    /// Whether something that the report rests on was not looked at yet. What was reported before of
    /// the same generation is then the better knowledge.
    pub unsure: bool,
    /// When to look again although nothing changed, in milliseconds since the Unix epoch.
    pub wake_at: Option<i64>,
}

/// What to do so that one App is in the cluster as its entry says.
pub fn realize(
    entry: &Entry,
    content: ContentState<'_>,
    management: Management,
    observed: &Observed,
    now: i64,
) -> Realized {
    let mut work = Work::new(entry, management, observed, now);
    match entry.state {
        EntryState::Present => work.present(content),
        EntryState::Removed => work.removed(),
        EntryState::Released => work.released(),
    }
    if work.observing {
        work.only_observe();
    }
    work.finish()
}

/// What to do so that a namespace is isolated as its entry says, and holds no more than its Apps are
/// charged. `inhabited` says whether anything of an App is left there.
pub fn isolate(
    entry: &Entry,
    content: ContentState<'_>,
    allotment: &Allotment,
    inhabited: bool,
    management: Management,
    observed: &Observed,
    now: i64,
) -> Realized {
    let mut work = Work::new(entry, management, observed, now);
    match entry.state {
        EntryState::Present => work.isolate(content, allotment),
        EntryState::Removed if inhabited => work.wait_for_apps(),
        EntryState::Removed => work.dissolve(),
        EntryState::Released => work.open_up(),
    }
    if work.observing {
        work.only_observe();
    }
    work.finish()
}

/// What to do so that the routes of a policy's Apps are protected as its entry says.
pub fn protect(
    entry: &Entry,
    content: ContentState<'_>,
    management: Management,
    observed: &Observed,
    now: i64,
) -> Realized {
    let mut work = Work::new(entry, management, observed, now);
    match entry.state {
        EntryState::Present => work.protect(content),
        EntryState::Removed => work.removed(),
        EntryState::Released => work.released(),
    }
    if work.observing {
        work.only_observe();
    }
    work.finish()
}

struct Work<'a> {
    entry: &'a Entry,
    /// Whether nothing may be written: gates that only writes open are passed, to see beyond them.
    observing: bool,
    observed: &'a Observed,
    now: i64,
    actions: Vec<Action>,
    failures: Vec<(Reason, String)>,
    health: Vec<&'a Health>,
    state: Option<ReportState>,
    message: Option<String>,
    unsure: bool,
    wake_at: Option<i64>,
    /// Whether what somebody changed by hand is told and left as it is.
    reports_drift: bool,
}

impl<'a> Work<'a> {
    fn new(entry: &'a Entry, management: Management, observed: &'a Observed, now: i64) -> Self {
        Self {
            entry,
            observing: management == Management::Observe,
            observed,
            now,
            actions: Vec::new(),
            failures: Vec::new(),
            health: Vec::new(),
            state: None,
            message: None,
            unsure: false,
            wake_at: None,
            reports_drift: false,
        }
    }

    fn wake(&mut self, at: i64) {
        self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
    }

    fn fail(&mut self, reason: Reason, message: impl Into<String>) {
        self.failures.push((reason, message.into()));
    }

    /// The content of the entry, if it is here.
    fn content<'c>(&mut self, content: ContentState<'c>) -> Option<&'c AppContent> {
        match content {
            ContentState::Here(content) => return Some(content),
            ContentState::Missing(why) => self.fail(
                Reason::ContentMissing,
                format!(
                    "content {} cannot be had: {why}; what runs is kept",
                    self.entry.content
                ),
            ),
            ContentState::Coming => self.state = Some(ReportState::Progressing),
            ContentState::Unknown => {
                let fetch = Action::Fetch {
                    pack: self.entry.pack.to_string(),
                    hash: self.entry.content.clone(),
                };
                self.actions.push(fetch);
            }
        }
        None
    }

    fn present(&mut self, content: ContentState<'_>) {
        let Some(content) = self.content(content) else {
            return;
        };
        let (replicas, hpa) = self.stage();
        let objects = match render(content, &RenderFor::entry(self.entry, replicas, hpa)) {
            Ok(objects) => objects,
            Err(error) => return self.refuse(&error),
        };
        if !self.may_start(&objects) || !self.namespace_ready() {
            return;
        }
        self.secrets();
        for object in &objects {
            self.object(object);
        }
        self.prune(&objects);
    }

    fn refuse(&mut self, error: &RenderError) {
        self.fail(
            Reason::InvalidPatch,
            format!("spec.{error}: correct it or remove it"),
        );
    }

    /// The stage in force. The clock picks replicas, never content.
    fn stage(&mut self) -> (Option<i32>, Option<HpaBounds>) {
        let begun = |s: &&crds::Stage| s.not_before.is_none_or(|at| at.millis() <= self.now);
        let current = self.entry.stages.iter().rev().find(begun);
        let next = self
            .entry
            .stages
            .iter()
            .filter_map(|s| s.not_before.map(crds::Timestamp::millis))
            .filter(|at| *at > self.now)
            .min();
        let chosen = current.map_or((None, None), |s| (s.replicas, s.hpa));
        next.into_iter().for_each(|at| self.wake(at));
        chosen
    }

    fn namespace_ready(&mut self) -> bool {
        let name = &self.entry.namespace;
        let there = self.observed.namespaces.get(name);
        match there {
            None | Some(Namespace::Unbound) if self.observing => return true,
            None | Some(Namespace::Unbound) => {
                self.actions.push(Action::CreateNamespace {
                    name: name.clone(),
                    exists: there.is_some(),
                });
            }
            Some(Namespace::Terminating) => {
                self.message = Some(format!("namespace {name} is still terminating"));
                self.state = Some(ReportState::Progressing);
            }
            Some(Namespace::Foreign) => self.fail(
                Reason::NotManaged,
                format!("namespace {name} exists and is not managed: label it app.kubernetes.io/managed-by=jiuzhou to let Jiuzhou use it"),
            ),
            Some(Namespace::Ready) => return true,
        }
        false
    }

    /// Somebody may have stripped our labels; the object is still the one we applied.
    fn is_ours(&self, key: &ObjectKey, seen: &Seen) -> bool {
        let known = || {
            let settled = self.observed.settled.get(key);
            settled.is_some_and(|s| s.uid == seen.uid && s.app.as_ref() == Some(&self.entry.uid))
        };
        seen.owner
            .as_ref()
            .map_or_else(known, |owner| *owner == self.entry.uid)
    }

    /// Keeps an object of ours as it is to be.
    fn keep(&mut self, object: &Rendered, seen: &'a Seen) {
        if seen.deleting {
            self.state = Some(ReportState::Progressing);
            return;
        }
        let held = self.hold(object, seen);
        let object = held.as_ref().unwrap_or(object);
        let settled = self.observed.settled.get(&object.key);
        let as_applied = settled.is_some_and(|s| s.hash == object.hash && s.stamp == seen.stamp);
        let labelled = seen.owner.as_ref() == Some(&self.entry.uid);
        if as_applied && labelled && seen.applied.as_ref() == Some(&object.hash) {
            self.health.push(&seen.health);
            if let Some(at) = seen.health.fails_at(self.now) {
                self.wake(at);
            }
            return self.nudge(&object.key, seen);
        }
        self.apply(object, Some(seen));
    }

    fn apply(&mut self, object: &Rendered, seen: Option<&'a Seen>) {
        let key = &object.key;
        if !self.may_try(object) {
            return;
        }
        let settled = self.observed.settled.get(key);
        let ours = seen.is_some_and(|seen| self.is_ours(key, seen));
        let repair = settled.is_some_and(|s| s.hash == object.hash);
        if repair && self.reports_drift {
            return self.fail(
                Reason::Drifted,
                format!("{key} was changed or deleted by hand and stays so, since spec.onDrift of an Isolation says Report: undo the change, or set it to Revert"),
            );
        }
        if !repair && !self.has_room(object) {
            return;
        }
        if repair && let Some(again) = settled.and_then(|s| s.fight_ends(self.now)) {
            self.wake(again);
            return self.fail(
                Reason::Conflict,
                format!("{key} was put back {FIGHT_REPAIRS} times within ten minutes; somebody else keeps changing it: see its managedFields"),
            );
        }
        self.actions.push(Action::Apply(Box::new(Apply {
            key: key.clone(),
            body: object.body.clone(),
            hash: object.hash.clone(),
            force: ours || self.entry.take_over == TakeOver::Always,
            hand_over: seen.filter(|_| object.autoscaled).and_then(|s| s.replicas),
            // If somebody scales or holds it right now, what was decided without knowing must not win.
            resource_version: seen
                .filter(|_| object.body.pointer("/spec/replicas").is_some())
                .map(|seen| seen.resource_version.clone()),
            repair,
        })));
    }

    /// Whether it is time to try what was refused. Until the answer is here the last one holds, so
    /// that a lasting refusal is not reported as progress at every try.
    fn may_try(&mut self, object: &Rendered) -> bool {
        let refused = self.observed.refused.get(&object.key);
        let Some(refused) = refused.filter(|refused| refused.hash == object.hash) else {
            return true;
        };
        if refused.reason == Reason::InProgress {
            // The server was busy or away: that is no fault of the App.
            self.state = Some(ReportState::Progressing);
            self.message = Some(refused.message.to_string());
        } else {
            self.fail(refused.reason, refused.message.to_string());
        }
        if refused.retry_at > self.now {
            self.wake(refused.retry_at);
        }
        refused.retry_at <= self.now
    }

    /// Objects of the App that its content no longer holds.
    fn prune(&mut self, objects: &[Rendered]) {
        let wanted: BTreeSet<&ObjectKey> = objects.iter().map(|o| &o.key).collect();
        for key in self.observed.objects_of(&self.entry.uid) {
            if !wanted.contains(key) {
                self.delete(key);
            }
        }
    }

    fn delete(&mut self, key: &ObjectKey) {
        let Some(seen) = self.observed.objects.get(key).filter(|seen| !seen.deleting) else {
            return;
        };
        self.actions.push(Action::Delete {
            key: key.clone(),
            uid: seen.uid.clone(),
            resource_version: Some(seen.resource_version.clone()),
        });
    }

    fn removed(&mut self) {
        let observed = self.observed;
        let keys: Vec<&ObjectKey> = observed.objects_of(&self.entry.uid).collect();
        // Nothing is known to be gone before everything was looked at.
        self.unsure = !observed.listing.is_empty();
        let secrets = self.withdraw_all(false);
        keys.iter().for_each(|key| self.delete(key));
        let vanished = self.vanished();
        let pods = self.observed.pods_of(self.entry);
        if keys.is_empty() && pods > 0 {
            self.message = Some(format!("{pods} of its pods are still terminating"));
        }
        let left = secrets || self.unsure || !keys.is_empty() || !vanished.is_empty() || pods > 0;
        self.actions.extend(vanished);
        self.leave(left);
    }

    /// What a list did not have may be there all the same: asking for its end answers that. With its
    /// namespace it is gone, and in one that is somebody else's by now there is nothing to ask.
    fn vanished(&self) -> Vec<Action> {
        let namespace = self.observed.namespaces.get(&self.entry.namespace);
        if matches!(namespace, None | Some(Namespace::Foreign)) {
            return Vec::new();
        }
        let ends = self.observed.vanished_of(&self.entry.uid);
        let ends = ends.map(|(key, uid)| Action::Delete {
            key: key.clone(),
            uid: uid.clone(),
            resource_version: None,
        });
        ends.collect()
    }

    /// Says whether the App is gone. Where the agent's rights are not in place any more, as under a new
    /// identity, it gets them before it acts.
    fn leave(&mut self, left: bool) {
        self.state = Some(if left {
            ReportState::Removing
        } else {
            ReportState::Removed
        });
        let name = &self.entry.namespace;
        let unbound = self.observed.namespaces.get(name) == Some(&Namespace::Unbound);
        if unbound && !self.observing && !self.actions.is_empty() {
            self.actions = vec![Action::CreateNamespace {
                name: name.clone(),
                exists: true,
            }];
        }
    }

    fn released(&mut self) {
        self.unsure = !self.observed.listing.is_empty();
        let mut left = self.unsure | self.withdraw_all(true);
        for key in self.observed.objects_of(&self.entry.uid) {
            left = true;
            if let Some(seen) = self.observed.objects.get(key) {
                self.actions.push(Action::LetGo {
                    key: key.clone(),
                    uid: seen.uid.clone(),
                });
            }
        }
        self.leave(left);
    }

    /// In a cluster that is only observed, writes become words.
    fn only_observe(&mut self) {
        let mut counts = [0_usize; 4];
        self.actions.retain(|action| match action {
            Action::Fetch { .. } => true,
            Action::CreateNamespace { .. } | Action::Ask(..) | Action::Nudge(_) => false,
            Action::Apply(apply) => {
                let existing = self.observed.objects.get(&apply.key);
                let at = existing.map_or(0, |seen| if seen.owner.is_none() { 1 } else { 2 });
                counts[at] += 1;
                false
            }
            Action::Deliver(deliver) => {
                counts[2] += usize::from(!deliver.again);
                false
            }
            Action::Withdraw(withdraw) => {
                counts[3] += usize::from(!withdraw.shared);
                false
            }
            Action::Delete { .. } | Action::LetGo { .. } => {
                counts[3] += 1;
                false
            }
        });
        if self.actions.is_empty() && self.state != Some(ReportState::Removed) {
            let [create, take, change, delete] = counts;
            self.state = Some(ReportState::Observed);
            self.message = Some(format!(
                "only observed; managing it would create {create}, take over {take}, change {change} and delete {delete} objects"
            ));
        }
    }
}

#[cfg(test)]
mod tests;
