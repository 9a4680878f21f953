//! Which hub is served, and what is taken from it.

use crds::{ReportState, Uid};
use plan::held::{Frozen, Slices};

use super::{RETRY, State};

impl State {
    pub(super) fn take(&mut self) {
        let before = (self.held.management, self.held.frozen.is_some());
        let served = self.served();
        let taken = self.held.take(&self.cluster_uid, &self.slices);
        self.suspicion = taken.suspicion;
        if (self.held.management, self.held.frozen.is_some()) != before {
            self.unsaved = true;
            self.dirty.extend(self.held.entries.keys().cloned());
        }
        // Which hub it serves, an agent remembers before it has anything to do.
        self.unsaved |= !taken.changed.is_empty() || self.served() != served;
        self.unswept |= !taken.changed.is_empty();
        self.use_stale |= !taken.changed.is_empty();
        self.dirty.extend(taken.changed);
        let reports = &self.reports;
        let removed = |uid: &Uid| {
            reports
                .get(uid)
                .is_some_and(|r| r.state == ReportState::Removed)
        };
        for uid in self.held.forget(&self.slices, removed) {
            self.observed.withdrawn.retain(|(_, app)| *app != uid);
            self.forget(uid);
        }
        self.find_abandoned();
    }

    /// Forgets what was known of an App that is no longer held.
    fn forget(&mut self, uid: Uid) {
        self.reports.remove(&uid);
        self.wakes.remove(&uid);
        self.news.insert(uid);
        self.unsaved = true;
        self.unswept = true;
        self.use_stale = true;
    }

    /// Finds Apps that nobody names any more. They are decided again once somebody does.
    pub(super) fn find_abandoned(&mut self) {
        if !self.slices_known || self.suspicion.is_some() {
            return;
        }
        let mut abandoned = self.held.abandoned(&self.slices);
        let empty = |uid: &&Uid| self.observed.objects_of(uid).next().is_none();
        let mut over: Vec<Uid> = abandoned.iter().filter(empty).cloned().collect();
        if !self.observed.listing.is_empty() {
            over.clear();
        }
        for uid in over {
            // Taken over or deleted by somebody: nothing is left that anyone could ask about.
            abandoned.remove(&uid);
            self.held.drop_entry(&uid);
            self.forget(uid);
        }
        if self.held.frozen.is_none() {
            let owners = self.observed.owners();
            let unknown = owners.filter(|uid| !self.held.entries.contains_key(*uid));
            abandoned.extend(unknown.cloned());
        }
        if abandoned != self.observed.abandoned {
            let back = self.observed.abandoned.difference(&abandoned);
            self.dirty.extend(back.cloned());
            self.observed.abandoned = abandoned;
        }
    }

    /// Identity and epoch of the hub that is served.
    pub(super) fn served(&self) -> Option<(Uid, i64)> {
        self.held
            .hub
            .as_ref()
            .map(|hub| (hub.id.clone(), hub.epoch))
    }

    pub(crate) fn is_suspicious(&self) -> bool {
        self.suspicion.is_some() && self.held.frozen != self.suspicion
    }

    pub(super) fn refuses_hub(&self) -> bool {
        matches!(self.held.frozen, Some(Frozen::OtherHub { .. }))
    }

    /// Whether it is time to look for an acknowledgement.
    pub(crate) fn asks_for_acknowledgement(&mut self, now: i64) -> bool {
        let due = self.refuses_hub() && now >= self.ask_at;
        if due {
            self.ask_at = now + RETRY;
        }
        due
    }

    /// Serves the hub that an administrator named, if it is the one that is refused.
    pub(crate) fn acknowledge(&mut self, hub: Uid) {
        if self.held.acknowledge_hub(&hub) {
            tracing::warn!(%hub, "an administrator acknowledged another hub, which is served from now on");
            self.unsaved = true;
            self.take();
        }
        self.acknowledged = Some(hub);
    }

    /// Judges a suspicion by what the store's leader shows.
    pub(crate) fn judge(&mut self, slices: Slices) {
        self.slices = slices;
        self.take();
        if let Some(why) = self.suspicion.clone() {
            if let (Frozen::OtherHub { found, .. }, Some(hub)) = (&why, &self.acknowledged)
                && found == hub
            {
                self.held.freeze(why.clone());
                let _served = self.held.acknowledge_hub(hub);
                return self.take();
            }
            tracing::error!(why = %why, "every change from the hub is refused");
            self.held.freeze(why);
            self.unsaved = true;
        }
    }
}
