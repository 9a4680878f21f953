//! Which hub is served, and what is taken from it.

use crds::{ReportState, Uid};
use plan::held::{Frozen, Slices};

use super::{RETRY, State};

/// An App that no slice names for so long may lose its objects to another one, in milliseconds. Slices
/// that somebody deleted are written again within seconds.
const GIVEN_AWAY: i64 = 60_000;

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
        self.stir(taken.changed);
        let reports = &self.reports;
        let removed = |uid: &Uid| {
            reports
                .get(uid)
                .is_some_and(|r| r.state == ReportState::Removed)
        };
        for uid in self.held.forget(&self.slices, removed) {
            self.forget(uid);
        }
        self.unsorted = true;
    }

    /// Forgets what was known of an App that is no longer held.
    fn forget(&mut self, uid: Uid) {
        self.observed.withdrawn.retain(|(_, app)| *app != uid);
        self.give_up_secrets(&uid);
        self.reports.remove(&uid);
        self.wakes.remove(&uid);
        self.news.insert(uid);
        self.unsaved = true;
        self.unswept = true;
        self.use_stale = true;
    }

    /// A Secret that others name as well is theirs alone from now on; one that nobody else names is
    /// left as it is, for somebody to look at.
    fn give_up_secrets(&mut self, uid: &Uid) {
        let named = self.observed.delivered.iter_mut();
        for (key, delivered) in named.filter(|(_, delivered)| delivered.apps.contains(uid)) {
            delivered.apps.remove(uid);
            delivered.looked = 0;
            self.dirty.extend(delivered.apps.iter().cloned());
            if delivered.apps.is_empty() {
                let (namespace, name) = key;
                tracing::warn!(%namespace, name, %uid, "a Secret was delivered for an App that nobody names any more: delete it if nothing uses it");
            }
        }
        self.observed
            .delivered
            .retain(|_, delivered| !delivered.apps.is_empty());
    }

    /// Finds Apps that nobody names any more. They are decided again once somebody does.
    pub(super) fn find_abandoned(&mut self) {
        self.unsorted = false;
        let undecided = self.suspicion.is_some() && self.held.frozen.is_none();
        if !self.slices_known || undecided {
            return;
        }
        let mut found = self.held.abandoned(&self.slices);
        if self.observed.listing.is_empty() {
            // Taken over or deleted by somebody: nothing is left that anyone could ask about. What
            // only a list did not have may come back.
            let observed = &self.observed;
            let empty = |uid: &&Uid| {
                let vanished = observed.vanished_of(uid).next().is_some();
                observed.objects_of(uid).next().is_none()
                    && (!vanished || observed.abandoned.contains(*uid))
            };
            let over: Vec<Uid> = found.keys().filter(empty).cloned().collect();
            for uid in over {
                found.remove(&uid);
                self.held.drop_entry(&uid);
                self.forget(uid);
            }
        }
        if self.held.frozen.is_none() {
            let owners = self.observed.owners();
            let unknown = owners.filter(|uid| !self.held.entries.contains_key(*uid));
            found.extend(unknown.map(|uid| (uid.clone(), false)));
        }
        let mut before = std::mem::take(&mut self.abandoned);
        for (uid, former) in found {
            let since = before.remove(&uid).flatten();
            let since = if former { Some(i64::MIN) } else { since };
            self.abandoned.insert(uid, since);
        }
        self.dirty.extend(before.into_keys());
    }

    /// What was nobody's for long enough may be had by others.
    pub(super) fn give_away(&mut self, now: i64) {
        if self.unsorted {
            self.find_abandoned();
        }
        for since in self.abandoned.values_mut() {
            since.get_or_insert(now);
        }
        let long = |since: &Option<i64>| {
            since.is_some_and(|since| now.saturating_sub(since) >= GIVEN_AWAY)
        };
        let given = self.abandoned.iter().filter(|(_, since)| long(since));
        self.observed.abandoned = given.map(|(uid, _)| uid.clone()).collect();
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
            // What was accepted goes on being carried out, all of it.
            self.unsorted = true;
        }
    }
}
