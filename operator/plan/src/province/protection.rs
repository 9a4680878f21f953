//! Step: protection. Every TrafficPolicy has an entry of its own in each cluster where an App of it stands:
//! what it says to the routes there. It goes through no waves, so that a change holds within a second.
//!
//! Of several policies that name one App the oldest counts. A rate for the province as a whole, and one of a
//! Region, is divided over the clusters by the replicas there, as long as nobody hands it out by demand.

mod content;
mod shares;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{
    Charge, ClusterName, ContentHash, Entry, EntryState, LimitShare, ReportState, Scope, TakeOver,
    Tier, Uid,
};

pub(crate) use content::capped;
pub(crate) use shares::{Divided, PERIODS_MAX, parts};
use standing::Objection;
pub use standing::Protection;
pub(crate) use standing::{Held, objection, protection_of, tier_of};

use super::assignments::{Edit, LOST, acknowledgements, answers, pack_of, same};
use super::memory::Planner;
use super::placement::{At, Load};
use super::regions::{Fleet, Standing};
use crate::report::policy_status;
use crate::world::{PolicyKey, PolicySlot, World, policy_uid};
use content::{Made, made};
use shares::{Party, RegionNumber, Room, divide};

/// What is to be written for a TrafficPolicy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyWrite {
    /// Hold it by our finalizer before anything is sent: that it vanished is then no instruction.
    Hold(PolicyKey, Uid),
    /// Let it go: nothing stands for it any more where somebody can answer.
    Release(PolicyKey, Uid),
}

/// What the planner remembers of TrafficPolicies.
#[derive(Debug, Default)]
pub(super) struct Guarding {
    /// Policies that something changed for.
    due: BTreeSet<Uid>,
    /// Clusters for which there is an edit.
    edited: BTreeMap<Uid, Vec<ClusterName>>,
    /// Contents that are to be stored.
    contents: BTreeMap<Uid, BTreeMap<ContentHash, Arc<str>>>,
    /// What is to be written for the objects.
    pub(super) writes: BTreeMap<Uid, PolicyWrite>,
}

impl Guarding {
    /// Notes that a policy is to be decided on.
    pub(super) fn stir(&mut self, uid: Uid) {
        self.due.insert(uid);
    }

    /// The content of a policy's entry.
    pub(super) fn data(&self, entry: &Entry) -> Option<&Arc<str>> {
        self.contents.get(&entry.uid)?.get(&entry.content)
    }
}

impl Planner {
    /// Notes that an App was decided on, for the policies that name it.
    pub(super) fn stir_policies(&mut self, world: &World, app: &crate::world::AppSlot) {
        for (_, slot) in world.policies_of(&app.namespace, &app.name) {
            self.guarding.stir(policy_uid(&slot.uid));
        }
    }

    /// Decides on the policies for which anything changed.
    pub(super) fn protect(&mut self, world: &World) {
        let fleet = self.report.fleet.clone();
        let due = std::mem::take(&mut self.guarding.due);
        if due.is_empty() {
            return;
        }
        for uid in &due {
            self.protect_one(world, &fleet, uid);
        }
        let there = |key: &PolicyKey| world.policies.contains_key(key);
        self.report.policy_statuses.retain(|key, _| there(key));
        self.edits.retain(|_, edits| !edits.is_empty());
    }

    fn protect_one(&mut self, world: &World, fleet: &Fleet, uid: &Uid) {
        for cluster in self.guarding.edited.remove(uid).unwrap_or_default() {
            if let Some(edits) = self.edits.get_mut(&cluster) {
                edits.remove(uid);
            }
        }
        self.guarding.contents.remove(uid);
        self.guarding.writes.remove(uid);
        let mut edits = acknowledgements(world.ledger(uid));
        let found = world.policy_uids.get(uid);
        if found.is_none() {
            edits.extend(superseded(world, uid));
        }
        let found = found.and_then(|key| Some((key, world.policies.get(key)?)));
        if let Some((key, slot)) = found {
            let desk = Desk::new(self, world, fleet, key, slot, uid);
            let (more, contents) = desk.edits();
            edits.extend(more);
            if let Some(write) = write(world, fleet, key, slot, uid, !edits.is_empty()) {
                self.guarding.writes.insert(uid.clone(), write);
            }
            if !contents.is_empty() {
                self.guarding.contents.insert(uid.clone(), contents);
            }
            let clusters: BTreeSet<&ClusterName> = edits.keys().collect();
            match policy_status(world, key, slot, &clusters) {
                Some(status) => {
                    self.report.policy_statuses.insert(key.clone(), status);
                }
                None => drop(self.report.policy_statuses.remove(key)),
            }
        }
        if !edits.is_empty() {
            let clusters = edits.keys().cloned().collect();
            self.guarding.edited.insert(uid.clone(), clusters);
        }
        for (cluster, edit) in edits {
            let mine = self.edits.entry(cluster).or_default();
            mine.insert(uid.clone(), edit);
        }
    }
}

/// What is left of a policy that vanished goes when there is another one of its name: that one says that it is
/// gone, and waits for it.
fn superseded(world: &World, uid: &Uid) -> BTreeMap<ClusterName, Edit> {
    let ledger = world.ledger(uid).into_iter();
    let entries = ledger.flat_map(|ledger| &ledger.entries);
    let left = entries.filter(|(_, held)| {
        let key: PolicyKey = (
            held.entry.namespace.clone(),
            held.entry.name.as_str().into(),
        );
        held.entry.state.is_present() && world.policies.contains_key(&key)
    });
    let gone = |held: &Entry| Entry {
        state: EntryState::Removed,
        generation: 0,
        ..held.clone()
    };
    left.map(|(cluster, held)| (cluster.clone(), Edit::Put(Box::new(gone(&held.entry)))))
        .collect()
}

/// Whether a policy is to be held, or let go.
fn write(
    world: &World,
    fleet: &Fleet,
    key: &PolicyKey,
    slot: &PolicySlot,
    uid: &Uid,
    busy: bool,
) -> Option<PolicyWrite> {
    let of_apps = !slot.apps.is_empty();
    if !slot.held {
        let wanted = of_apps && !slot.deleting;
        return wanted.then(|| PolicyWrite::Hold(key.clone(), slot.uid.clone()));
    }
    let ledger = world.ledger(uid);
    let gone = ledger.is_none_or(|ledger| {
        let mut entries = ledger.entries.iter();
        entries.all(|(cluster, held)| {
            // What a cluster that is out of contact holds is marked, and stays in the ledger.
            !held.entry.state.is_present() && !answers(fleet, cluster)
        })
    });
    let over = slot.deleting || !of_apps;
    (over && gone && !busy).then(|| PolicyWrite::Release(key.clone(), slot.uid.clone()))
}

/// What stands of a policy's Apps in one cluster.
#[derive(Debug, Default)]
struct Here {
    /// Apps that count for it.
    apps: BTreeSet<Uid>,
    /// Replicas of theirs.
    weight: u64,
    /// Whether all of them are let go with the cluster.
    released: bool,
}

/// What the entries of one policy are written from.
struct Desk<'a> {
    world: &'a World,
    fleet: &'a Fleet,
    key: &'a PolicyKey,
    slot: &'a PolicySlot,
    uid: &'a Uid,
    /// Where its Apps stand.
    places: BTreeMap<At, Here>,
    /// Whether what was decided before stands, since the policy cannot be carried out.
    parked: bool,
}

impl<'a> Desk<'a> {
    fn new(
        planner: &Planner,
        world: &'a World,
        fleet: &'a Fleet,
        key: &'a PolicyKey,
        slot: &'a PolicySlot,
        uid: &'a Uid,
    ) -> Self {
        let mut desk = Self {
            world,
            fleet,
            key,
            slot,
            uid,
            places: BTreeMap::new(),
            parked: slot.state.is_err() && !slot.deleting,
        };
        if slot.held && slot.standing().is_some() {
            for app in &slot.apps {
                match objection(world, key, slot, app) {
                    None => {
                        for uid in world.uids_named(&key.0, app) {
                            desk.find(planner, uid);
                        }
                    }
                    Some(Objection::TooManyRoutes(_)) => desk.parked = true,
                    Some(Objection::NoApp | Objection::NoRoute | Objection::Conflicted(_)) => {}
                }
            }
        }
        desk
    }

    /// Takes in where an App stands, or is about to, or still runs.
    fn find(&mut self, planner: &Planner, app: &Uid) {
        let ledger = self.world.ledger(app);
        let mut there: BTreeMap<&ClusterName, (u64, bool)> = BTreeMap::new();
        let load = |entry: &Entry| {
            let count = Load::of_stages(&entry.stages, self.world.now).count();
            let released = entry.state == EntryState::Released;
            (u64::try_from(count).unwrap_or(0), released)
        };
        for (cluster, report) in ledger.into_iter().flat_map(|ledger| &ledger.reports) {
            if report.content.is_some() && report.state != ReportState::Removed {
                let replicas = u64::try_from(report.replicas).unwrap_or(0);
                there.insert(cluster, (replicas.max(1), false));
            }
        }
        for (cluster, held) in ledger.into_iter().flat_map(|ledger| &ledger.entries) {
            there.insert(cluster, load(&held.entry));
        }
        for (cluster, edits) in &planner.edits {
            // What is about to be dropped counts until it is.
            if let Some(Edit::Put(entry)) = edits.get(app) {
                there.insert(cluster, load(entry));
            }
        }
        for (cluster, (weight, released)) in there {
            let Some(at) = self.fleet.position(cluster) else {
                continue;
            };
            let first = !self.places.contains_key(&at);
            let here = self.places.entry(at).or_default();
            here.apps.insert(app.clone());
            here.weight += weight;
            here.released = released && (first || here.released);
        }
    }

    fn held(&self, at: At) -> Option<&'a Entry> {
        let ledger = self.world.ledger(self.uid)?;
        let held = ledger.entries.get(&self.fleet.clusters[at].name)?;
        Some(&*held.entry)
    }

    /// Whether the policy stands in a cluster, by its entry or, where that was lost, by what is told.
    fn is_there(&self, at: At) -> bool {
        let ledger = self.world.ledger(self.uid);
        let reports = ledger.map(|ledger| &ledger.reports);
        let told = reports.and_then(|reports| reports.get(&self.fleet.clusters[at].name));
        match self.held(at) {
            Some(held) => held.state.is_present(),
            None => told.is_some_and(|told| told.content.is_some()),
        }
    }

    /// What is to be written, and what of it is to be stored first.
    fn edits(self) -> (BTreeMap<ClusterName, Edit>, BTreeMap<ContentHash, Arc<str>>) {
        let mut edits = BTreeMap::new();
        let mut store: BTreeMap<ContentHash, Arc<str>> = BTreeMap::new();
        if self.parked {
            return (edits, store);
        }
        let contents = self.contents();
        let shares = self.shares(&contents);
        for (at, content) in &contents {
            let Some(content) = content else { continue };
            let Some(shares) = shares.get(at) else {
                continue;
            };
            let held = self.held(*at);
            let want = self.entry(held, &content.hash, shares.clone());
            if !held.is_some_and(|held| same(held, &want)) {
                store.insert(content.hash.clone(), content.data.clone());
                let cluster = self.fleet.clusters[*at].name.clone();
                edits.insert(cluster, Edit::Put(Box::new(want)));
            }
        }
        let ledger = self.world.ledger(self.uid);
        for (cluster, held) in ledger.into_iter().flat_map(|ledger| &ledger.entries) {
            let at = self.fleet.position(cluster);
            let stays = at.is_some_and(|at| contents.contains_key(&at));
            if !stays && let Some(gone) = self.take_back(at, &held.entry) {
                edits.insert(cluster.clone(), Edit::Put(Box::new(gone)));
            }
        }
        for (cluster, report) in ledger.into_iter().flat_map(|ledger| &ledger.reports) {
            let known = ledger.is_some_and(|ledger| ledger.entries.contains_key(cluster));
            let at = self.fleet.position(cluster);
            let stays = at.is_none_or(|at| contents.contains_key(&at));
            // The slice was lost, but the cluster tells of it: it is taken back all the same.
            if let (false, false, Some(content)) = (known, stays, &report.content) {
                let held = Entry {
                    pack: LOST.into(),
                    ..self.entry(None, content, Vec::new())
                };
                if let Some(gone) = self.take_back(at, &held) {
                    edits.insert(cluster.clone(), Edit::Put(Box::new(gone)));
                }
            }
        }
        (edits, store)
    }

    /// What it says in each cluster where it is to be; `None` where what is there stays as it is.
    fn contents(&self) -> BTreeMap<At, Option<Made>> {
        let mut known: BTreeMap<&BTreeSet<Uid>, Option<Made>> = BTreeMap::new();
        let mut contents = BTreeMap::new();
        for (at, here) in self.places.iter().filter(|(_, here)| !here.released) {
            let unknown = here.apps.iter().any(|app| self.world.app(app).is_none());
            if unknown {
                // The App vanished, which is no instruction.
                if self.is_there(*at) {
                    contents.insert(*at, None);
                }
                continue;
            }
            let content = known
                .entry(&here.apps)
                .or_insert_with(|| made(self.world, self.key, self.slot, &here.apps));
            if let Some(content) = content {
                contents.insert(*at, Some(content.clone()));
            }
        }
        contents
    }

    /// The shares of each cluster in what passes in the province and in its Region. Where one grows before the others have
    /// shrunk, it keeps what it has, and a new one waits.
    fn shares(&self, contents: &BTreeMap<At, Option<Made>>) -> BTreeMap<At, Vec<LimitShare>> {
        let Ok(spec) = &self.slot.state else {
            return BTreeMap::new();
        };
        let party = |at: At| Party {
            region: self.region(at),
            weight: self.places.get(&at).map_or(1, |here| here.weight),
        };
        let parties = contents.keys().map(|at| (*at, party(*at))).collect();
        let mut wanted = divide(spec, &parties);
        let mut limits = spec.rate_limits.iter().map(Divided::of);
        if limits.any(|divided| divided == Some(Divided::Region)) {
            // What has a part of a Region's rate keeps it while nobody knows of which Region: the others have theirs.
            wanted.retain(|at, _| self.region(*at).is_some());
        }
        let current: BTreeSet<&ContentHash> =
            contents.values().flatten().map(|made| &made.hash).collect();
        let ledger = self.world.ledger(self.uid);
        let entries = ledger.into_iter().flat_map(|l| &l.entries);
        let of_now = entries.filter(|(_, held)| current.contains(&held.entry.content));
        let held = of_now.map(|(cluster, held)| {
            let region = self.fleet.position(cluster).and_then(|at| self.region(at));
            (region, &held.entry.shares[..])
        });
        let mut room = Room::of(spec, &parties, held);
        let all: Vec<At> = wanted.keys().copied().collect();
        for at in all {
            let held = self.held(at);
            let held = held.filter(|held| current.contains(&held.content));
            let has = held.map_or(&[][..], |held| &held.shares);
            if room.take(self.region(at), has, &wanted[&at]) {
                continue;
            }
            if held.is_some() {
                wanted.insert(at, has.to_vec());
            } else {
                wanted.remove(&at);
            }
        }
        wanted
    }

    fn region(&self, at: At) -> RegionNumber {
        self.fleet.region_numbers.get(at).copied().flatten()
    }

    fn entry(&self, held: Option<&Entry>, content: &ContentHash, shares: Vec<LimitShare>) -> Entry {
        let namespace = &self.key.0;
        let held = held.filter(|held| held.state.is_present());
        Entry {
            uid: self.uid.clone(),
            scope: Scope::Policy,
            namespace: namespace.clone(),
            name: (&*self.key.1).into(),
            generation: 0,
            state: EntryState::Present,
            content: content.clone(),
            pack: pack_of(self.world, namespace, content, held).unwrap_or_default(),
            overrides: Vec::new(),
            stages: Vec::new(),
            secrets: Vec::new(),
            take_over: TakeOver::Never,
            tier: Tier::General,
            limits: Arc::default(),
            shares,
            charge: Arc::<Charge>::default(),
        }
    }

    /// Marks what stands in a cluster as removed, or as let go where the cluster itself is.
    fn take_back(&self, at: Option<At>, held: &Entry) -> Option<Entry> {
        let leaves = at.is_some_and(|at| {
            let standing = &self.fleet.clusters[at].standing;
            matches!(standing, Standing::Releasing | Standing::Deleting)
        });
        let state = if leaves {
            EntryState::Released
        } else {
            EntryState::Removed
        };
        let done = held.state == state || held.state == EntryState::Removed;
        (!done).then(|| Entry {
            state,
            generation: 0,
            ..held.clone()
        })
    }
}
