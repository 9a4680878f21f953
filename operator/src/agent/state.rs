//! Everything the agent knows, and the pure part of its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{
    ClusterReportSpec, ContentHash, NamespaceName, Reason, ReportEntry, ReportState, Uid,
    Unclaimed, UnclaimedObject, label,
};
use plan::content::AppContent;
use plan::held::{Frozen, Held, Slices};
use plan::object::{Kind, ObjectKey};
use plan::realize::{
    Access, Action, ContentState, Delivered, Namespace, Observed, Refused, SecretKey, Settled,
    Undelivered, realize,
};

use super::capacity::{Capacity, Use};
use super::events::Heard;
use super::hub_side::Fetched;
use super::member::{BOUND, Outcome};
use super::reports::Reports;
use super::secrets::{Copied, Vault};
use super::snapshot::{Found, Snapshot};
use super::view::View;
use crate::runtime::watch::Change;

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
/// Unclaimed objects shown by name.
const UNCLAIMED_SHOWN: usize = 16;

/// Work of one turn.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) actions: Vec<Action>,
    /// Deletes, which wait until the hub confirmed their entries.
    pub(crate) destructive: Vec<(Uid, Action)>,
    /// Secrets that are delivered.
    pub(crate) secrets: BTreeSet<SecretKey>,
    /// Packs to fetch.
    pub(crate) fetch: BTreeSet<String>,
    /// Trace context of one of the decisions that are carried out.
    pub(crate) traceparent: Option<Arc<str>>,
}

enum Content {
    Coming,
    Missing { why: String, retry_at: i64 },
    Here(Arc<AppContent>),
}

/// Everything the agent knows.
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
    contents: BTreeMap<ContentHash, Content>,
    reports: BTreeMap<Uid, ReportEntry>,
    access_until: BTreeMap<(NamespaceName, Kind), i64>,
    tries: BTreeMap<ObjectKey, u32>,
    capacity: Capacity,
    reported_use: Use,
    use_due: i64,
    dirty: BTreeSet<Uid>,
    wakes: BTreeMap<Uid, i64>,
    unsaved: bool,
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
            reports: BTreeMap::new(),
            access_until: BTreeMap::new(),
            tries: BTreeMap::new(),
            capacity: Capacity::default(),
            reported_use: Use::default(),
            use_due: 0,
            dirty: BTreeSet::new(),
            wakes: BTreeMap::new(),
            unsaved: false,
            acknowledged: None,
            ask_at: 0,
        }
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
        self.contents = contents
            .into_iter()
            .map(|(hash, content)| (hash, Content::Here(content)))
            .collect();
        self.observed.settled = settled.into_iter().collect();
        self.observed.delivered = delivered.into_iter().collect();
        self.reports = reports;
        self.dirty = self.held.entries.keys().cloned().collect();
    }

    /// What the next run of the agent has to know.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let here = |(hash, content): (&ContentHash, &Content)| match content {
            Content::Here(content) => Some((hash.clone(), content.clone())),
            Content::Coming | Content::Missing { .. } => None,
        };
        Snapshot {
            held: self.held.clone(),
            contents: self.contents.iter().filter_map(here).collect(),
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

    pub(crate) fn saved(&mut self) {
        self.unsaved = false;
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
        let capacity = (self.current_use() != self.reported_use).then_some(self.use_due);
        let access = self.access_until.values().copied();
        let ask = self.refuses_hub().then_some(self.ask_at);
        self.wakes
            .values()
            .copied()
            .chain(ask)
            .chain(now_dirty)
            .chain(capacity)
            .chain(access)
            .min()
    }

    pub(crate) fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Slices(change) => self.hear_slices(change),
            Heard::Copies(change) => self.hear_copies(change),
            Heard::Objects(kind, change) => self.hear_objects(kind, change),
            Heard::Namespaces(change) => self.hear_namespaces(change),
            Heard::Nodes(change) => match change {
                Change::Replaced(all) => self.capacity.replace_nodes(&all),
                Change::Applied(one) => self.capacity.see_node(&one),
                Change::Deleted(one) => self
                    .capacity
                    .lose_node(one.metadata.name.as_deref().unwrap_or_default()),
            },
            Heard::Pods(change) => match change {
                Change::Replaced(all) => self.capacity.replace_pods(&all),
                Change::Applied(one) => self.capacity.see_pod(&one),
                Change::Deleted(one) => self.capacity.lose_pod(&one),
            },
            Heard::Content(pack, fetched) => self.hear_content(&pack, &fetched),
            Heard::Kinds(_) => {}
        }
    }

    fn hear_slices(&mut self, change: Change<(Box<str>, Arc<crds::AssignmentSliceSpec>)>) {
        match change {
            Change::Replaced(all) => self.slices = all.into_iter().collect(),
            Change::Applied((name, slice)) => drop(self.slices.insert(name, slice)),
            Change::Deleted((name, _)) => drop(self.slices.remove(&name)),
        }
        self.slices_known = true;
        self.take();
    }

    /// The hub's copies of Secrets, as far as they have come.
    pub(crate) fn vault(&self) -> &Vault {
        &self.vault
    }

    fn hear_copies(&mut self, change: Change<Copied>) {
        self.vault.hear(change);
        self.observed.copies = self.vault.versions();
        let users = self
            .held
            .entries
            .iter()
            .filter(|(_, held)| !held.entry.secrets.is_empty());
        self.dirty.extend(users.map(|(uid, _)| uid.clone()));
    }

    fn take(&mut self) {
        let before = (self.held.management, self.held.frozen.is_some());
        let served = self.served();
        let taken = self.held.take(&self.cluster_uid, &self.slices);
        self.suspicion = taken.suspicion;
        if (self.held.management, self.held.frozen.is_some()) != before {
            self.dirty.extend(self.held.entries.keys().cloned());
        }
        // Which hub it serves, an agent remembers before it has anything to do.
        self.unsaved |= !taken.changed.is_empty() || self.served() != served;
        self.dirty.extend(taken.changed);
        let reports = &self.reports;
        let removed = |uid: &Uid| {
            reports
                .get(uid)
                .is_some_and(|r| r.state == ReportState::Removed)
        };
        for uid in self.held.forget(&self.slices, removed) {
            self.reports.remove(&uid);
            self.wakes.remove(&uid);
            self.observed.withdrawn.retain(|(_, app)| *app != uid);
            self.unsaved = true;
        }
    }

    /// Identity and epoch of the hub that is served.
    fn served(&self) -> Option<(Uid, i64)> {
        self.held
            .hub
            .as_ref()
            .map(|hub| (hub.id.clone(), hub.epoch))
    }

    pub(crate) fn is_suspicious(&self) -> bool {
        self.suspicion.is_some() && self.held.frozen != self.suspicion
    }

    fn refuses_hub(&self) -> bool {
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

    fn hear_objects(&mut self, kind: Kind, change: Change<(ObjectKey, Box<plan::realize::Seen>)>) {
        match change {
            Change::Replaced(all) => {
                let mut gone = self.observed.keys_of_kind(kind);
                for (key, seen) in all {
                    gone.remove(&key);
                    self.dirty.extend(self.observed.see(key, *seen));
                }
                for key in gone {
                    self.dirty.extend(self.observed.lose(&key));
                }
                if self.observed.listing.remove(&kind) {
                    self.observed.kinds.insert(kind);
                    self.dirty.extend(self.held.entries.keys().cloned());
                }
            }
            Change::Applied((key, seen)) => self.dirty.extend(self.observed.see(key, *seen)),
            Change::Deleted((key, seen)) => {
                // A late echo of an object that was meanwhile created anew says nothing.
                if self
                    .observed
                    .objects
                    .get(&key)
                    .is_some_and(|now| now.uid == seen.uid)
                {
                    self.dirty.extend(self.observed.lose(&key));
                }
            }
        }
    }

    fn hear_namespaces(&mut self, change: Change<View>) {
        match change {
            Change::Replaced(all) => {
                let new: BTreeMap<_, _> = all.iter().map(|view| self.namespace(view)).collect();
                let names: BTreeSet<_> = new
                    .keys()
                    .chain(self.observed.namespaces.keys())
                    .cloned()
                    .collect();
                for name in names {
                    match new.get(&name) {
                        Some(namespace) => self.see_namespace(&name, *namespace),
                        None => self.lose_namespace(&name),
                    }
                }
            }
            Change::Applied(view) => {
                let (name, namespace) = self.namespace(&view);
                self.see_namespace(&name, namespace);
            }
            Change::Deleted(view) => {
                let (name, _) = self.namespace(&view);
                self.lose_namespace(&name);
            }
        }
    }

    fn namespace(&self, view: &View) -> (NamespaceName, Namespace) {
        let meta = &view.metadata;
        let labels = meta.labels.as_ref();
        let managed = labels
            .and_then(|l| l.get(label::MANAGED_BY))
            .is_some_and(|v| v == label::MANAGED_BY_VALUE);
        let bound = meta.annotations.as_ref().and_then(|a| a.get(BOUND)) == Some(&self.identity);
        let namespace = match (meta.deletion_timestamp.is_some(), managed, bound) {
            (true, ..) => Namespace::Terminating,
            (false, true, true) => Namespace::Ready,
            (false, true, false) => Namespace::Unbound,
            // In the hub's own cluster the tenant's namespace is the one its Apps live in.
            (false, false, _) if self.local => Namespace::Unbound,
            (false, false, _) => Namespace::Foreign,
        };
        (meta.name.clone().unwrap_or_default().into(), namespace)
    }

    fn see_namespace(&mut self, name: &NamespaceName, namespace: Namespace) {
        if self.observed.namespaces.insert(name.clone(), namespace) != Some(namespace) {
            self.touch_namespace(name);
        }
    }

    fn lose_namespace(&mut self, name: &NamespaceName) {
        self.observed.namespaces.remove(name);
        self.touch_namespace(name);
    }

    fn touch_namespace(&mut self, name: &NamespaceName) {
        let here = self
            .held
            .entries
            .iter()
            .filter(|(_, held)| held.entry.namespace == *name);
        self.dirty.extend(here.map(|(uid, _)| uid.clone()));
    }

    fn hear_content(&mut self, pack: &str, fetched: &Result<Option<Fetched>, String>) {
        let now = jiff::Timestamp::now().as_millisecond();
        let missing = |why: &str| Content::Missing {
            why: why.to_owned(),
            retry_at: now + RETRY,
        };
        let waiting: Vec<(Uid, ContentHash)> = self
            .held
            .entries
            .iter()
            .filter(|(_, held)| {
                held.entry.pack == pack
                    && !matches!(
                        self.contents.get(&held.entry.content),
                        Some(Content::Here(_))
                    )
            })
            .map(|(uid, held)| (uid.clone(), held.entry.content.clone()))
            .collect();
        let items: BTreeMap<ContentHash, Result<Arc<AppContent>, String>> = match fetched {
            Ok(Some(items)) => items.iter().cloned().collect(),
            Ok(None) | Err(_) => BTreeMap::new(),
        };
        for (uid, hash) in waiting {
            let content = match (items.get(&hash), fetched) {
                (Some(Ok(content)), _) => Content::Here(content.clone()),
                (Some(Err(why)), _) => missing(why),
                (None, Err(_)) => {
                    // The hub is away: nobody is at fault, so nothing is reported.
                    self.contents.remove(&hash);
                    self.wakes.insert(uid, now + RETRY);
                    continue;
                }
                (None, Ok(Some(_))) => missing(&format!("pack {pack} does not hold it")),
                (None, Ok(None)) => missing(&format!("pack {pack} does not exist at the hub")),
            };
            self.unsaved = true;
            self.contents.insert(hash, content);
            self.dirty.insert(uid);
        }
    }

    /// Nothing is decided before the cluster was looked at.
    fn can_decide(&self) -> bool {
        !self.observed.namespaces.is_empty()
    }

    /// Decides every App that something changed for.
    pub(crate) fn decide(&mut self, now: i64) -> Work {
        let mut work = Work::default();
        if !self.can_decide() {
            return work;
        }
        self.ask_again(now, &mut work);
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
        for uid in dirty {
            self.decide_one(&uid, now, &mut work);
        }
        work
    }

    fn decide_one(&mut self, uid: &Uid, now: i64, work: &mut Work) {
        let Some(held) = self.held.entries.get(uid) else {
            return;
        };
        let content = match self.contents.get(&held.entry.content) {
            Some(Content::Coming) => ContentState::Coming,
            Some(Content::Missing { why, retry_at }) if *retry_at > now => {
                ContentState::Missing(why)
            }
            None | Some(Content::Missing { .. }) => ContentState::Unknown,
            Some(Content::Here(content)) => ContentState::Here(content),
        };
        let realized = realize(
            &held.entry,
            content,
            self.held.management,
            &self.observed,
            now,
        );
        let retry = match self.contents.get(&held.entry.content) {
            Some(Content::Missing { retry_at, .. }) => Some(*retry_at),
            Some(Content::Coming | Content::Here(_)) | None => None,
        };
        if let Some(at) = realized.wake_at.into_iter().chain(retry).min() {
            self.wakes.insert(uid.clone(), at);
        }
        for action in realized.actions {
            match action {
                Action::Fetch { pack, hash } => {
                    self.contents.insert(hash, Content::Coming);
                    work.fetch.insert(pack);
                }
                Action::Delete { .. } | Action::LetGo { .. } | Action::Withdraw(_) => {
                    work.destructive.push((uid.clone(), action));
                }
                Action::Ask(..) | Action::CreateNamespace(_) if work.actions.contains(&action) => {}
                // Two Apps may name one Secret: the second finds it delivered in the next turn.
                Action::Deliver(deliver) if !work.secrets.insert(deliver.key.clone()) => {
                    self.wakes.insert(uid.clone(), now);
                }
                Action::Ask(..)
                | Action::CreateNamespace(_)
                | Action::Apply(_)
                | Action::Deliver(_) => {
                    work.traceparent = work.traceparent.take().or_else(|| held.traceparent.clone());
                    work.actions.push(action);
                }
            }
        }
        if self.reports.get(uid) != Some(&realized.report) {
            self.reports.insert(uid.clone(), realized.report);
            self.unsaved = true;
        }
    }

    /// The deletes whose entry the hub holds right now, exactly as the agent knows it.
    pub(crate) fn confirmed(
        &self,
        destructive: Vec<(Uid, Action)>,
        slices: &Slices,
    ) -> Vec<Action> {
        let entries: BTreeMap<&Uid, &crds::Entry> = slices
            .values()
            .flat_map(|s| &s.entries)
            .map(|e| (&e.uid, e))
            .collect();
        let confirmed = |uid: &Uid| {
            let held = self.held.entries.get(uid)?;
            let live = entries.get(uid)?;
            (live.generation >= held.entry.generation
                && live.state == held.entry.state
                && live.content == held.entry.content)
                .then_some(())
        };
        destructive
            .into_iter()
            .filter(|(uid, _)| confirmed(uid).is_some())
            .map(|(_, action)| action)
            .collect()
    }

    pub(crate) fn retry_later(&mut self, destructive: &[(Uid, Action)], now: i64) {
        for (uid, _) in destructive {
            self.wakes.insert(uid.clone(), now + RETRY);
        }
    }

    /// Asks again where an answer is old. The old one holds until the new one is here, so that a
    /// lasting refusal is not reported as progress in between.
    fn ask_again(&mut self, now: i64, work: &mut Work) {
        for ((namespace, kind), until) in &mut self.access_until {
            if *until <= now {
                *until = now + DENIED_FOR;
                work.actions.push(Action::Ask(namespace.clone(), *kind));
            }
        }
    }

    /// Takes in what came of the actions. Returns whether any failed.
    #[expect(
        clippy::too_many_lines,
        reason = "a flat table, one arm for each outcome; it reads best whole"
    )]
    pub(crate) fn learn(&mut self, outcomes: Vec<Outcome>, now: i64) -> bool {
        let mut failed = false;
        for outcome in outcomes {
            match outcome {
                Outcome::Applied {
                    key,
                    hash,
                    seen,
                    repair,
                } => self.learn_applied(key, hash, *seen, repair.then_some(now)),
                Outcome::Refused {
                    key,
                    hash,
                    reason,
                    message,
                    transient,
                } => {
                    failed |= transient;
                    let message = message.into();
                    let refused = Refused {
                        hash,
                        reason,
                        message,
                        retry_at: now,
                    };
                    self.learn_refused(key, refused);
                }
                Outcome::Deleted(key) | Outcome::LetGo(key) => {
                    self.observed.settled.remove(&key);
                    self.dirty.extend(
                        self.observed
                            .objects
                            .get(&key)
                            .and_then(|seen| seen.owner.clone()),
                    );
                    self.unsaved = true;
                }
                outcome @ (Outcome::Delivered { .. }
                | Outcome::Undelivered { .. }
                | Outcome::Withdrawn { .. }) => {
                    failed |= self.learn_secret(outcome, now);
                }
                Outcome::Access(namespace, kind, access) => {
                    let hold = if access == Access::Allowed {
                        ALLOWED_FOR
                    } else {
                        DENIED_FOR
                    };
                    self.access_until
                        .insert((namespace.clone(), kind), now + hold);
                    if self
                        .observed
                        .access
                        .insert((namespace.clone(), kind), access)
                        != Some(access)
                    {
                        self.touch_namespace(&namespace);
                    }
                }
                Outcome::NamespaceReady(name) => self.see_namespace(&name, Namespace::Ready),
                Outcome::Failed(why) => {
                    failed = true;
                    tracing::warn!(why, "an action failed and is tried again");
                    // Whoever asked for it does so again.
                    let again: Vec<Uid> = self
                        .held
                        .entries
                        .keys()
                        .filter(|uid| self.busy(uid))
                        .cloned()
                        .collect();
                    for uid in again {
                        self.wakes.insert(uid, now + RETRY);
                    }
                }
            }
        }
        failed
    }

    /// Takes in an object as it looks right after it was applied, or repaired at that time.
    fn learn_applied(
        &mut self,
        key: ObjectKey,
        hash: ContentHash,
        seen: plan::realize::Seen,
        repaired: Option<i64>,
    ) {
        let old = self.observed.settled.remove(&key);
        let mut settled = Settled {
            uid: seen.uid.clone(),
            hash,
            stamp: seen.stamp.clone(),
            repairs: old.map(|old| old.repairs).unwrap_or_default(),
        };
        repaired.into_iter().for_each(|at| settled.repaired(at));
        self.observed.settled.insert(key.clone(), settled);
        self.observed.refused.remove(&key);
        self.tries.remove(&key);
        self.dirty.extend(seen.owner.clone());
        self.dirty.extend(self.observed.see(key, seen));
        self.unsaved = true;
    }

    /// Takes in what was refused just now, to be tried again after a pause that doubles.
    fn learn_refused(&mut self, key: ObjectKey, mut refused: Refused) {
        let tries = self.tries.entry(key.clone()).or_default();
        *tries = (*tries + 1).min(6);
        // 1, 2, 4 … 32 s: a mended right or a returned server is noticed within half a minute.
        refused.retry_at += 500 << *tries;
        self.dirty.extend(self.owners_of(&key));
        self.observed.refused.insert(key, refused);
    }

    /// Takes in what came of a Secret. Returns whether it failed.
    fn learn_secret(&mut self, outcome: Outcome, now: i64) -> bool {
        match outcome {
            Outcome::Delivered {
                key,
                app,
                uid,
                version,
            } => {
                self.observed.undelivered.remove(&key);
                self.observed.withdrawn.remove(&(key.clone(), app.clone()));
                let before = self.observed.delivered.remove(&key);
                let mut apps = before.as_ref().map(|d| d.apps.clone()).unwrap_or_default();
                apps.insert(app.clone());
                let delivered = Delivered {
                    uid,
                    version,
                    apps,
                    looked: now,
                };
                // Merely looked at again: nothing to remember.
                let known = before.is_some_and(|before| {
                    Delivered {
                        looked: now,
                        ..before
                    } == delivered
                });
                self.observed.delivered.insert(key, delivered);
                self.dirty.insert(app);
                if known {
                    return false;
                }
            }
            Outcome::Undelivered {
                key,
                app,
                version,
                reason,
                message,
            } => {
                let refused = Undelivered {
                    version,
                    reason,
                    message: message.into(),
                    retry_at: now + SECRET_RETRY,
                };
                self.observed.undelivered.insert(key, refused);
                self.dirty.insert(app);
                return reason == Reason::InProgress;
            }
            Outcome::Withdrawn { key, app } => {
                if let Some(delivered) = self.observed.delivered.get_mut(&key) {
                    delivered.apps.remove(&app);
                    // Whoever still names it marks it as its own.
                    delivered.looked = 0;
                    self.dirty.extend(delivered.apps.iter().cloned());
                    if delivered.apps.is_empty() {
                        self.observed.delivered.remove(&key);
                    }
                }
                self.observed.withdrawn.insert((key, app.clone()));
                self.dirty.insert(app);
            }
            Outcome::Applied { .. }
            | Outcome::Refused { .. }
            | Outcome::Deleted(_)
            | Outcome::LetGo(_)
            | Outcome::Access(..)
            | Outcome::NamespaceReady(_)
            | Outcome::Failed(_) => return false,
        }
        self.unsaved = true;
        false
    }

    fn busy(&self, uid: &Uid) -> bool {
        self.reports.get(uid).is_none_or(|r| {
            matches!(
                r.state,
                ReportState::Progressing | ReportState::Removing | ReportState::Pending
            )
        })
    }

    /// Apps whose entry is in the namespace of an object.
    fn owners_of(&self, key: &ObjectKey) -> Vec<Uid> {
        let here = self
            .held
            .entries
            .iter()
            .filter(|(_, held)| held.entry.namespace == key.namespace);
        here.filter(|(uid, _)| self.busy(uid))
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    fn current_use(&self) -> Use {
        let managed = self
            .held
            .entries
            .values()
            .map(|held| held.entry.namespace.clone())
            .collect();
        self.capacity.account(&managed)
    }

    /// Everything there is to report.
    pub(crate) fn reports(&mut self) -> Reports {
        let now = jiff::Timestamp::now().as_millisecond();
        let current = self.current_use();
        if current != self.reported_use && now >= self.use_due {
            self.reported_use = current;
            self.use_due = now + CAPACITY_INTERVAL;
        }
        // Before the first list nothing is known of the cluster.
        let cluster = self.can_decide().then(|| self.cluster_report());
        Reports {
            apps: self.reports.clone(),
            cluster,
        }
    }

    fn cluster_report(&self) -> ClusterReportSpec {
        let Use {
            nodes,
            allocatable,
            managed,
            others,
        } = self.reported_use.clone();
        let missing = |kind: &&Kind| {
            !self.observed.kinds.contains(kind) && !self.observed.listing.contains(kind)
        };
        ClusterReportSpec {
            cluster_uid: self.cluster_uid.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kubernetes_version: self.version.clone(),
            hub: self
                .held
                .hub
                .clone()
                .map(|hub| crds::HubSeen { sequence: 0, ..hub }),
            frozen: self.held.frozen.as_ref().map(ToString::to_string),
            nodes,
            allocatable,
            managed,
            others,
            missing_kinds: Kind::ALL
                .iter()
                .filter(missing)
                .map(|k| format!("{}/{}", k.api_version(), k.name()))
                .collect(),
            unclaimed: self.unclaimed(),
        }
    }

    fn unclaimed(&self) -> Unclaimed {
        if !self.slices_known {
            return Unclaimed::default();
        }
        let orphans = self
            .observed
            .owners()
            .filter(|uid| !self.held.entries.contains_key(*uid));
        let keys: Vec<&ObjectKey> = orphans
            .flat_map(|uid| self.observed.objects_of(uid))
            .collect();
        let object = |key: &&ObjectKey| UnclaimedObject {
            kind: key.kind.name().to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        };
        Unclaimed {
            count: i32::try_from(keys.len()).unwrap_or(i32::MAX),
            objects: keys.iter().take(UNCLAIMED_SHOWN).map(object).collect(),
        }
    }
}
