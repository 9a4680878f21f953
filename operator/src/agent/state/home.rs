//! Namespaces that Apps live in: what isolates them, and how much room their Apps have.

use std::collections::BTreeSet;

use crds::{Entry, NamespaceName, ReportEntry, ReportState, Uid};
use plan::allotment::Allotment;
use plan::object::{Kind, ObjectKey};
use plan::realize::{Action, ContentState, Enclosure, FIGHT_WINDOW, Realized, isolate};
use plan::world::namespace_uid;

use super::State;

impl State {
    /// Sorts the Apps and policies that are held by their namespaces.
    pub(super) fn sort_homes(&mut self) {
        self.homes.clear();
        let held = self.held.entries.values().map(|held| &held.entry);
        for entry in held.filter(|entry| !entry.scope.is_namespace()) {
            let here = self.homes.entry(entry.namespace.clone()).or_default();
            here.insert(entry.uid.clone());
        }
    }

    /// Whether this stands for a namespace, and not for what is in it.
    pub(super) fn is_home(&self, uid: &Uid) -> bool {
        let held = self.held.entries.get(uid);
        held.is_some_and(|held| held.entry.scope.is_namespace())
    }

    /// Entries of Apps and policies in a namespace of which anything may be left.
    fn residents<'a>(&'a self, namespace: &'a NamespaceName) -> impl Iterator<Item = &'a Entry> {
        let here = self.homes.get(namespace).into_iter().flatten();
        let held = here.filter_map(|uid| Some(&*self.held.entries.get(uid)?.entry));
        held.filter(move |entry| {
            let report = self.reports.get(&entry.uid);
            let gone = !entry.state.is_present()
                && report.is_some_and(|report| report.state == ReportState::Removed);
            !gone
        })
    }

    /// What is to be done for a namespace.
    pub(super) fn isolated(&self, entry: &Entry, content: ContentState<'_>, now: i64) -> Realized {
        let inhabited = self.residents(&entry.namespace).next().is_some();
        let allotment = self.allotment(&entry.namespace, now);
        let mut realized = isolate(
            entry,
            content,
            &allotment,
            inhabited,
            self.held.management,
            &self.observed,
            now,
        );
        if !self.capacity.is_known() {
            // How many nodes there are for DaemonSets is not known yet, and nothing shrinks for that.
            let limits = |action: &Action| matches!(action, Action::Apply(apply) if apply.key.kind == Kind::ResourceQuota);
            realized.actions.retain(|action| !limits(action));
        }
        let stages = self.residents(&entry.namespace).flat_map(|app| &app.stages);
        let begins = stages.filter_map(|stage| stage.not_before.map(crds::Timestamp::millis));
        let next = begins.filter(|at| *at > now);
        realized.wake_at = next.chain(realized.wake_at).min();
        realized
    }

    /// What the Apps of a namespace are charged now.
    fn allotment(&self, namespace: &NamespaceName, now: i64) -> Allotment {
        let nodes = self.capacity.node_count();
        let mut allotment = Allotment::default();
        for entry in self.residents(namespace) {
            allotment.add(entry, nodes, now);
        }
        allotment
    }

    /// Takes in what was decided for a namespace; its Apps are decided on again if that matters to them.
    /// What was decided for an App may matter to its namespace.
    pub(super) fn settle_home(&mut self, uid: &Uid, report: &ReportEntry, now: i64) {
        let Some(held) = self.held.entries.get(uid) else {
            return;
        };
        let entry = held.entry.clone();
        let namespace = &entry.namespace;
        if !entry.scope.is_namespace() {
            let before = self.reports.get(uid).map(|before| before.state);
            if report.state == ReportState::Removed && before != Some(ReportState::Removed) {
                self.wake(namespace_uid(namespace), now);
            }
            return;
        }
        let allotment = self.allotment(namespace, now);
        let mut enclosure = Enclosure::of(namespace, &entry.limits, &allotment, &self.observed);
        enclosure.in_force = matches!(report.state, ReportState::Healthy | ReportState::Observed);
        let obstacle = report.reason.zip(report.message.clone());
        enclosure.obstacle = obstacle.filter(|_| report.state == ReportState::Failed);
        let before = self
            .observed
            .enclosures
            .insert(namespace.clone(), enclosure);
        if before.as_ref() != self.observed.enclosures.get(namespace) {
            let here: Vec<Uid> = self
                .residents(namespace)
                .map(|app| app.uid.clone())
                .collect();
            self.dirty.extend(here);
        }
    }

    /// Decides on Apps whose entries changed, and on the namespaces that they live in.
    pub(super) fn stir(&mut self, changed: BTreeSet<Uid>) {
        for uid in changed {
            if let Some(held) = self.held.entries.get(&uid) {
                self.dirty.insert(namespace_uid(&held.entry.namespace));
            }
            self.dirty.insert(uid);
        }
    }

    /// Notes that a policy of somebody else was deleted: nobody fights about it for ever.
    pub(super) fn note_eviction(&mut self, key: &ObjectKey, now: i64) {
        let seen = self.observed.objects.get(key);
        let theirs = seen.is_some_and(|seen| seen.owner.is_none());
        if key.kind == Kind::NetworkPolicy && theirs {
            let times = self.observed.evicted.entry(key.clone()).or_default();
            times.retain(|at| now - at < FIGHT_WINDOW);
            times.push(now);
        }
    }

    /// Decides on a namespace in which a policy came, went or changed, whosever it is.
    pub(super) fn stir_stranger(&mut self, key: &ObjectKey) {
        let uid = namespace_uid(&key.namespace);
        if key.kind == Kind::NetworkPolicy && self.held.entries.contains_key(&uid) {
            self.dirty.insert(uid);
        }
    }

    /// Decides on every namespace: what their Apps are charged changed with the cluster.
    pub(super) fn stir_homes(&mut self) {
        let held = self.held.entries.iter();
        let homes = held.filter(|(_, held)| held.entry.scope.is_namespace());
        self.dirty.extend(homes.map(|(uid, _)| uid.clone()));
    }
}
