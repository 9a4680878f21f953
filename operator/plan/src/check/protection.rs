//! The second judge on protection: no policy where no App of it is, and never more shares than there is to
//! share, whichever writes of a plan are stored.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    AppName, ClusterName, ContentHash, Entry, EntryState, NamespaceName, RateLimit, RegionName,
    Scope, Uid,
};

use super::{Finding, Judge};
use crate::object::Kind;
use crate::province::{Divided, PERIODS_MAX, SliceWrite, parts};
use crate::world::{PolicyKey, PolicySlot};

impl Judge<'_> {
    /// An entry about a policy.
    pub(super) fn protection(&mut self, write: &SliceWrite, entry: &Entry) {
        let before = self.held(&write.cluster, &entry.uid);
        let slot = self.policy(&entry.uid);
        let governed =
            |waits| slot.is_some_and(|slot| self.is_governed(slot, entry, &write.cluster, waits));
        let fault = match entry.state {
            EntryState::Present => (!governed(true)).then_some("sent where no App of it is"),
            EntryState::Removed if slot.is_none() => {
                let key = (entry.namespace.clone(), entry.name.as_str().into());
                let another = self.world.policies.contains_key(&key);
                (!another).then_some("taken back although nobody deleted it")
            }
            EntryState::Removed => governed(false).then_some("taken back where an App of it is"),
            EntryState::Released => None,
        };
        if entry.state.is_present() {
            self.content(write, entry, before);
        }
        if let Some(fault) = fault {
            let at = write.cluster.to_string();
            self.findings
                .push(Finding::Policy(at, entry.uid.clone(), fault));
        }
    }

    fn policy(&self, uid: &Uid) -> Option<&PolicySlot> {
        self.world.policies.get(self.world.policy_uids.get(uid)?)
    }

    /// Whether an App that a policy names, and no older one does, stands in a cluster and has a route.
    /// With `waits`, also one whose entry is perhaps decided and not written.
    fn is_governed(
        &self,
        slot: &PolicySlot,
        entry: &Entry,
        cluster: &ClusterName,
        waits: bool,
    ) -> bool {
        if slot.standing().is_none() {
            return false;
        }
        let home = &entry.namespace;
        let older = |(key, other): (&PolicyKey, &PolicySlot)| {
            let before = (other.created, &*key.1) < (slot.created, entry.name.as_str());
            before && other.standing().is_some()
        };
        slot.apps.iter().any(|app| {
            let mut others = self.world.policies_of(home, app).into_iter();
            let taken = others.any(older);
            let slots = self.world.apps_named(home, app);
            let claims = slots.iter().flat_map(|slot| &slot.footprint.claims);
            let mut routes = claims.filter(|(kind, _)| *kind == Kind::HTTPRoute);
            let served = slots.is_empty() || routes.next().is_some();
            let there = self.stands(cluster, home, app)
                || waits && !slots.is_empty() && self.holds_back(cluster);
            !taken && served && there
        })
    }

    /// Whether an App stands in a cluster, by what is stored, told, or about to be written.
    fn stands(&self, cluster: &ClusterName, home: &NamespaceName, app: &AppName) -> bool {
        let uids = self.world.uids_named(home, app).into_iter();
        let mut ledgers = uids.filter_map(|uid| self.world.ledger(uid));
        let known = ledgers.any(|ledger| {
            let held = ledger.entries.get(cluster);
            let report = ledger.reports.get(cluster);
            held.is_some_and(|held| held.entry.state != EntryState::Released)
                || report.is_some_and(|report| report.content.is_some())
        });
        let writes = self.plan.slices.iter();
        let writes = writes.filter(|write| write.cluster == *cluster);
        let mut planned = writes.flat_map(|write| &write.spec.entries);
        let named = |other: &Entry| other.namespace == *home && other.name == *app;
        known || planned.any(|other| other.scope.is_app() && named(other))
    }

    /// Whether something decided for a cluster cannot be written yet, since slices are written seldom.
    fn holds_back(&self, cluster: &ClusterName) -> bool {
        let slot = self.world.clusters.get(cluster).into_iter();
        let mut slices = slot.flat_map(|slot| slot.slices.values());
        let (now, least) = (self.world.now, self.world.settings.slice_interval);
        slices.any(|slice| slice.written <= now && slice.written + least > now)
    }

    /// The shares of all clusters in each rate, with what is written now and without.
    pub(super) fn shares(&mut self) {
        let mut written: BTreeMap<&Uid, BTreeMap<&ClusterName, &Entry>> = BTreeMap::new();
        for write in &self.plan.slices {
            for entry in &write.spec.entries {
                let changes = self.held(&write.cluster, &entry.uid) != Some(entry);
                if entry.scope == Scope::Policy && entry.state.is_present() && changes {
                    let mine = written.entry(&entry.uid).or_default();
                    mine.insert(&write.cluster, entry);
                }
            }
        }
        for (uid, entries) in written {
            let Some(Ok(spec)) = self.policy(uid).map(|slot| slot.state.clone()) else {
                continue;
            };
            for limit in &spec.rate_limits {
                let pools = match Divided::of(limit) {
                    Some(Divided::Province) => vec![entries.clone()],
                    Some(Divided::Region) => self.by_region(&entries),
                    None => Vec::new(),
                };
                for entries in pools {
                    let finding = self.share(uid, &entries, limit);
                    self.findings.extend(finding);
                }
            }
        }
    }

    /// Entries by the Region of their clusters. Those of clusters that nobody knows any more share with nobody.
    fn by_region<'e>(
        &self,
        entries: &BTreeMap<&'e ClusterName, &'e Entry>,
    ) -> Vec<BTreeMap<&'e ClusterName, &'e Entry>> {
        let mut regions: BTreeMap<&RegionName, BTreeMap<&ClusterName, &Entry>> = BTreeMap::new();
        for (cluster, entry) in entries {
            if let Some(region) = self.region(cluster) {
                regions.entry(region).or_default().insert(*cluster, *entry);
            }
        }
        regions.into_values().collect()
    }

    /// The most that clusters that divide a rate may let pass together while some of the writes to them are
    /// stored and some are not.
    fn share(
        &self,
        uid: &Uid,
        written: &BTreeMap<&ClusterName, &Entry>,
        limit: &RateLimit,
    ) -> Option<Finding> {
        // What follows from another spec says nothing of this one.
        let contents: BTreeSet<&ContentHash> = written.values().map(|e| &e.content).collect();
        let of = |entry: &Entry| {
            let mut mine = entry.shares.iter().filter(|share| share.name == limit.name);
            mine.next().map_or(0, parts)
        };
        let ledger = self.world.ledger(uid);
        let regions: BTreeSet<_> = written.keys().map(|at| self.region(at)).collect();
        let is_party = |cluster: &ClusterName| match Divided::of(limit) {
            Some(Divided::Region) => regions.contains(&self.region(cluster)),
            Some(Divided::Province) | None => true,
        };
        let stored: BTreeMap<&ClusterName, &Entry> = ledger
            .into_iter()
            .flat_map(|ledger| &ledger.entries)
            .map(|(cluster, held)| (cluster, &*held.entry))
            .filter(|(cluster, entry)| contents.contains(&entry.content) && is_party(cluster))
            .collect();
        let clusters: BTreeSet<_> = stored.keys().chain(written.keys()).copied().collect();
        let most = |cluster: &ClusterName| {
            let both = [stored.get(cluster), written.get(cluster)];
            both.into_iter().flatten().map(|entry| of(entry)).max()
        };
        let sum: i64 = clusters.iter().filter_map(|cluster| most(cluster)).sum();
        // A cluster cannot let less than one request pass, in as long a time as a rule may name.
        let count = i64::try_from(clusters.len()).unwrap_or(i64::MAX);
        let may = limit.rate.requests.max(count) * PERIODS_MAX;
        (sum > may).then(|| Finding::Overshared(uid.clone(), limit.name.to_string(), sum, may))
    }
}
