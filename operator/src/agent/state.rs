//! Everything the agent knows, and the pure part of its turn.

mod hear;
mod home;
mod hub;
mod learn;
mod report;
mod rights;
mod schedule;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crds::{ContentHash, NamespaceName, ReportEntry, ReportState, Scope, Uid};
use plan::content::AppContent;
use plan::held::{Frozen, Held, Slices};
use plan::object::{Kind, ObjectKey};
use plan::realize::{Action, ContentState, Observed, SecretKey, protect, realize};

use super::capacity::{Capacity, Use};
use super::member::Asker;
use super::secrets::Vault;
use super::snapshot::{Found, Snapshot};
use rights::Failure;

/// Pause before something that failed is tried again, in milliseconds.
const RETRY: i64 = 2_000;
/// Pause before a Secret that was refused is tried again, in milliseconds.
const SECRET_RETRY: i64 = 5_000;
/// How long an answer about a tenant's rights holds, by the answer: rights are given while somebody
/// waits, and rarely taken away.
const ALLOWED_FOR: i64 = 600_000;
const DENIED_FOR: i64 = 5_000;
/// Least time between two reports of capacity, in milliseconds: pods come and go in bursts.
const CAPACITY_INTERVAL: i64 = 5_000;
/// Packs of which the agent keeps what no entry names yet. The Apps of one pack stand in several
/// slices, which come within a second or two of each other; a burst opens three packs in that time.
const SPARE_PACKS: usize = 8;
/// Unclaimed objects shown by name.
const UNCLAIMED_SHOWN: usize = 16;

/// Work of one turn.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) actions: Vec<(Asker, Action)>,
    /// Deletes, which wait until the hub confirmed their entries.
    pub(crate) destructive: Vec<(Uid, Action)>,
    /// Secrets that are delivered or taken back.
    pub(crate) secrets: BTreeSet<SecretKey>,
    /// Packs to fetch.
    pub(crate) fetch: BTreeSet<String>,
    /// Trace context of one of the decisions that are carried out.
    pub(crate) traceparent: Option<Arc<str>>,
}

/// Why a pack did not give some content.
struct Missing {
    why: String,
    retry_at: i64,
}

/// Everything the agent knows.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that hold or do not, each on its own; no two of them make up one state"
)]
pub(crate) struct State {
    cluster_uid: Uid,
    version: String,
    identity: String,
    local: bool,
    observed: Observed,
    vault: Vault,
    held: Held,
    slices: Slices,
    slices_known: bool,
    suspicion: Option<Frozen>,
    contents: BTreeMap<ContentHash, Arc<AppContent>>,
    /// What else the packs held that were fetched last: entries that name it are on their way.
    spare: VecDeque<BTreeMap<ContentHash, Arc<AppContent>>>,
    /// What a pack turned out not to hold. Another pack may: content is the same wherever it is.
    missing: BTreeMap<(ContentHash, String), Missing>,
    /// Packs that are being fetched, each at most once at a time.
    fetching: BTreeSet<String>,
    reports: BTreeMap<Uid, ReportEntry>,
    /// Apps whose report changed since it was last handed over, or is withheld.
    news: BTreeSet<Uid>,
    access_until: BTreeMap<(NamespaceName, Kind), i64>,
    /// Apps that own objects here and that no slice names, and since when.
    abandoned: BTreeMap<Uid, Option<i64>>,
    /// Apps that are held, by their namespace.
    homes: BTreeMap<NamespaceName, BTreeSet<Uid>>,
    /// When the agent's rights in a namespace were last set up anew.
    rebound: BTreeMap<NamespaceName, i64>,
    /// Namespaces in which they are to be set up anew now.
    unbound: BTreeSet<NamespaceName>,
    /// Why Apps do not get on, as long as they do not.
    failures: BTreeMap<Uid, Failure>,
    /// Why the memory cannot be saved, as long as it cannot.
    unsaveable: Option<String>,
    /// How often an object was refused, and for which App.
    tries: BTreeMap<ObjectKey, (Uid, u32)>,
    capacity: Capacity,
    reported_use: Use,
    /// Whether the cluster's use may differ from what was reported.
    use_stale: bool,
    /// Highest generation, as last reported.
    reported_sequence: i64,
    use_due: i64,
    dirty: BTreeSet<Uid>,
    wakes: BTreeMap<Uid, i64>,
    unsaved: bool,
    /// Removals that the last snapshot holds as done, by App and generation. Others are not
    /// acknowledged yet: the hub forgets an acknowledged App, and an older snapshot would bring it back
    /// for good, or would wait for ever for the hub to confirm what is done.
    remembered: BTreeSet<(Uid, i64)>,
    /// Whether entries came or went, and with them what else is worth keeping.
    unswept: bool,
    /// Whether something changed that decides which Apps nobody names any more.
    unsorted: bool,
    /// When the first turn was.
    began: Option<i64>,
    acknowledged: Option<Uid>,
    /// When to look again whether the hub that is refused was acknowledged.
    ask_at: i64,
}

impl State {
    pub(crate) fn new(cluster_uid: Uid, version: String, identity: String, local: bool) -> Self {
        Self {
            cluster_uid,
            version,
            identity,
            local,
            observed: Observed::new(local),
            vault: Vault::default(),
            held: Held::default(),
            slices: Slices::new(),
            slices_known: false,
            suspicion: None,
            contents: BTreeMap::new(),
            spare: VecDeque::new(),
            missing: BTreeMap::new(),
            fetching: BTreeSet::new(),
            reports: BTreeMap::new(),
            news: BTreeSet::new(),
            access_until: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            homes: BTreeMap::new(),
            rebound: BTreeMap::new(),
            unbound: BTreeSet::new(),
            failures: BTreeMap::new(),
            unsaveable: None,
            tries: BTreeMap::new(),
            capacity: Capacity::default(),
            reported_use: Use::default(),
            use_stale: true,
            reported_sequence: 0,
            use_due: 0,
            dirty: BTreeSet::new(),
            wakes: BTreeMap::new(),
            unsaved: false,
            remembered: BTreeSet::new(),
            unswept: false,
            unsorted: false,
            began: None,
            acknowledged: None,
            ask_at: 0,
        }
    }

    /// Decides an App again at that time, or before if something else asks for it.
    fn wake(&mut self, uid: Uid, at: i64) {
        let due = self.wakes.entry(uid).or_insert(at);
        *due = at.min(*due);
    }

    /// Takes over what an earlier run of the agent knew.
    pub(crate) fn remember(&mut self, found: Found) {
        let Snapshot {
            held,
            contents,
            settled,
            reports,
            delivered,
        } = found.snapshot;
        self.held = held;
        self.acknowledged = found.acknowledged;
        self.contents = contents;
        self.observed.settled = settled.into_iter().collect();
        self.observed.delivered = delivered.into_iter().collect();
        self.news = reports.keys().cloned().collect();
        self.reports = reports;
        self.use_stale = true;
        self.dirty = self.held.entries.keys().cloned().collect();
        self.remembered = self.removals().collect();
        self.unswept = true;
    }

    /// What the next run of the agent has to know.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            held: self.held.clone(),
            contents: self.contents.clone(),
            settled: self
                .observed
                .settled
                .iter()
                .map(|(k, s)| (k.clone(), s.clone()))
                .collect(),
            reports: self.reports.clone(),
            delivered: self
                .observed
                .delivered
                .iter()
                .map(|(k, d)| (k.clone(), d.clone()))
                .collect(),
        }
    }

    pub(crate) fn unsaved(&self) -> bool {
        self.unsaved
    }

    pub(crate) fn not_saved(&mut self, why: String) {
        self.unsaveable = Some(why);
    }

    pub(crate) fn saved(&mut self) {
        self.unsaved = false;
        self.unsaveable = None;
        self.remembered = self.removals().collect();
    }

    /// Whether a removal waits for the next snapshot before it is acknowledged.
    pub(crate) fn must_remember(&self) -> bool {
        self.removals()
            .any(|removal| !self.remembered.contains(&removal))
    }

    /// Removals that are done.
    fn removals(&self) -> impl Iterator<Item = (Uid, i64)> {
        let entries = self.held.entries.values().map(|held| &held.entry);
        let done = entries.filter(|entry| {
            let report = self.reports.get(&entry.uid);
            !entry.state.is_present() && report.is_some_and(|r| r.state == ReportState::Removed)
        });
        done.map(|entry| (entry.uid.clone(), entry.generation))
    }

    /// Kinds that are served and not watched yet; from now on their lists are waited for.
    pub(crate) fn kinds_to_watch(&mut self, served: &[Kind]) -> Vec<Kind> {
        let known = |kind: &Kind| {
            self.observed.kinds.contains(kind) || self.observed.listing.contains(kind)
        };
        let new: Vec<Kind> = served.iter().copied().filter(|kind| !known(kind)).collect();
        self.observed.listing.extend(&new);
        new
    }

    /// When to decide again although nothing was heard.
    pub(crate) fn wake_at(&self) -> Option<i64> {
        let now_dirty = (!self.dirty.is_empty() && self.can_decide()).then_some(0);
        let unsorted = (self.unsorted && self.can_decide()).then_some(0);
        let capacity = self.report_from().filter(|_| self.use_stale);
        let capacity = capacity.map(|from| from.max(self.use_due));
        let access = self.access_until.values().copied();
        let ask = self.refuses_hub().then_some(self.ask_at);
        self.wakes
            .values()
            .copied()
            .chain(ask)
            .chain(now_dirty)
            .chain(unsorted)
            .chain(capacity)
            .chain(access)
            .min()
    }

    /// The hub's copies of Secrets, as far as they have come.
    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Nothing is decided before the cluster was looked at.
    fn can_decide(&self) -> bool {
        !self.observed.namespaces.is_empty()
    }

    /// Decides every App that something changed for.
    pub(crate) fn decide(&mut self, now: i64) -> Work {
        let mut work = Work::default();
        self.began.get_or_insert(now);
        if !self.can_decide() {
            return work;
        }
        self.sweep();
        self.give_away(now);
        self.ask_again(now, &mut work);
        self.bind_again(&mut work);
        let due: Vec<Uid> = self
            .wakes
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in &due {
            self.wakes.remove(uid);
        }
        let dirty: BTreeSet<Uid> = std::mem::take(&mut self.dirty)
            .into_iter()
            .chain(due)
            .collect();
        // Namespaces first: Apps start and grow in what was decided for those.
        let (apps, homes): (Vec<Uid>, Vec<Uid>) =
            dirty.into_iter().partition(|uid| !self.is_home(uid));
        for uid in &homes {
            self.decide_one(uid, now, &mut work);
        }
        let stirred = std::mem::take(&mut self.dirty);
        let apps: BTreeSet<Uid> = apps.into_iter().chain(stirred).collect();
        for uid in apps {
            self.decide_one(&uid, now, &mut work);
        }
        work
    }

    /// Takes the content of an entry from what came in the pack of another one.
    fn take_spare(&mut self, uid: &Uid) {
        let entry = self.held.entries.get(uid).map(|held| &held.entry);
        let Some(entry) = entry.filter(|e| !self.contents.contains_key(&e.content)) else {
            return;
        };
        let spare = self.spare.iter_mut();
        let found = spare.rev().find_map(|pack| pack.remove(&entry.content));
        if let Some(content) = found {
            self.contents.insert(entry.content.clone(), content);
            self.unsaved = true;
        }
    }

    fn decide_one(&mut self, uid: &Uid, now: i64, work: &mut Work) {
        self.take_spare(uid);
        let Some(held) = self.held.entries.get(uid) else {
            return;
        };
        if self.abandoned.contains_key(uid) {
            return;
        }
        let (hash, pack) = (&held.entry.content, &held.entry.pack);
        let missing = self.missing.get(&(hash.clone(), pack.to_string()));
        let content = match (self.contents.get(hash), missing) {
            (Some(content), _) => ContentState::Here(content),
            (None, _) if self.fetching.contains(&**pack) => ContentState::Coming,
            (None, Some(missing)) if missing.retry_at > now => ContentState::Missing(&missing.why),
            (None, _) => ContentState::Unknown,
        };
        let retry = match content {
            ContentState::Missing(_) => missing.map(|missing| missing.retry_at),
            ContentState::Unknown | ContentState::Coming | ContentState::Here(_) => None,
        };
        let (entry, management) = (&held.entry, self.held.management);
        let mut realized = match entry.scope {
            Scope::App => realize(entry, content, management, &self.observed, now),
            Scope::Policy => protect(entry, content, management, &self.observed, now),
            Scope::Namespace => self.isolated(entry, content, now),
        };
        if let Some(at) = realized.wake_at.into_iter().chain(retry).min() {
            self.wakes.insert(uid.clone(), at);
        }
        let actions = std::mem::take(&mut realized.actions);
        self.schedule(uid, actions, now, work);
        self.say_why(uid, &mut realized.report);
        self.settle_home(uid, &realized.report, now);
        let before = self.reports.get(uid);
        let stands = |told: &crds::ReportEntry| {
            *told == realized.report
                || (realized.unsure && told.generation == realized.report.generation)
        };
        if !before.is_some_and(stands) {
            self.reports.insert(uid.clone(), realized.report);
            self.news.insert(uid.clone());
            self.unsaved = true;
        }
    }

    /// The deletes whose entry the hub holds right now, exactly as the agent knows it. The others
    /// wait: the watch of slices may be behind, or the hub is not the one that is served.
    pub(crate) fn confirmed(
        &mut self,
        destructive: Vec<(Uid, Action)>,
        slices: &Slices,
        now: i64,
    ) -> Vec<(Asker, Action)> {
        // While an entry moves it stands in two slices, and the higher one counts.
        let mut live: BTreeMap<&Uid, (i64, &crds::Entry)> = BTreeMap::new();
        for slice in slices.values().filter(|slice| self.serves(slice)) {
            for entry in &slice.entries {
                let newest = live.entry(&entry.uid).or_insert((slice.hub_epoch, entry));
                if (slice.hub_epoch, entry.generation) > (newest.0, newest.1.generation) {
                    *newest = (slice.hub_epoch, entry);
                }
            }
        }
        let confirmed = |uid: &Uid| {
            let (Some(held), Some((epoch, live))) = (self.held.entries.get(uid), live.get(uid))
            else {
                return false;
            };
            (*epoch, live.generation) >= (held.epoch, held.entry.generation)
                && live.state == held.entry.state
                && live.content == held.entry.content
        };
        let (confirmed, waiting): (Vec<_>, Vec<_>) =
            destructive.into_iter().partition(|(uid, _)| confirmed(uid));
        self.retry_later(&waiting, now);
        confirmed
            .into_iter()
            .map(|(uid, action)| (Asker::App(uid), action))
            .collect()
    }

    /// Whether a slice is for this cluster and from the hub that is served.
    fn serves(&self, slice: &crds::AssignmentSliceSpec) -> bool {
        slice.cluster_uid == self.cluster_uid
            && self
                .held
                .hub
                .as_ref()
                .is_some_and(|hub| slice.hub_id == hub.id)
    }

    pub(crate) fn retry_later(&mut self, destructive: &[(Uid, Action)], now: i64) {
        for (uid, _) in destructive {
            self.wake(uid.clone(), now + RETRY);
        }
    }

    /// Asks again where an answer is old. The old one holds until the new one is here, so that a
    /// lasting refusal is not reported as progress in between.
    fn ask_again(&mut self, now: i64, work: &mut Work) {
        for ((namespace, kind), until) in &mut self.access_until {
            if *until <= now {
                *until = now + DENIED_FOR;
                let asker = Asker::Namespace(namespace.clone());
                work.actions
                    .push((asker, Action::Ask(namespace.clone(), *kind)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
