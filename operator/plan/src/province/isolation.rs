//! Step: isolation. Every namespace in which an App stands, or is about to, has an entry of its own in that
//! cluster: what isolates it is there before the first App and stays for as long as the tenant does.

mod baselines;
mod enforcement;
mod presence;
mod walls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{
    Charge, ClusterName, ContentHash, Entry, EntryState, NamespaceName, ReportState, Scope,
    TakeOver, Tier, Uid,
};

pub use baselines::Baselines;
pub use enforcement::{Enforcement, Force, Remark};
pub(crate) use presence::Edited;
pub(super) use presence::Presence;
pub use walls::{LinkSide, Wall};

use super::assignments::{Edit, LOST, pack_of, same};
use super::links::Links;
use super::memory::Planner;
use super::placement::At;
use super::quotas::Desks;
use super::regions::{Fleet, Standing, Wake};
use super::tenants::Tenants;
use crate::baseline::Baseline;
use crate::content::hash_of;
use crate::report::{isolation_statuses, link_statuses};
use crate::world::{AppLedger, World, namespace_uid};
use baselines::enclosing;
use enforcement::enforcement;
use serde_json::Value;

/// Resources that limit a tenant which has Quotas, but none that counts in a cluster.
const UNGRANTED: [&str; 3] = ["cpu", "memory", "pods"];

/// Contents of namespaces with Links that are to be stored, by namespace.
#[derive(Debug, Default)]
pub(super) struct Linked(BTreeMap<NamespaceName, BTreeMap<ContentHash, Arc<str>>>);

impl Linked {
    /// The content of a namespace's entry.
    pub(super) fn data(&self, entry: &Entry) -> Option<&Arc<str>> {
        let mine = self.0.get(&entry.namespace)?;
        mine.get(&entry.content)
    }
}

impl Planner {
    /// Changed Links, or one that ends, change what passes the borders of namespaces.
    pub(super) fn see_links(&mut self, world: &World, wake: &mut Wake) {
        let seen = (world.link_changes, world.tenancy);
        let same = self.links_seen.replace(seen) == Some(seen);
        let over = self.report.links.ends.is_some_and(|ends| ends <= world.now);
        if !same || over {
            let before = std::mem::replace(
                &mut self.report.links,
                Arc::new(Links::of(world, &self.report.tenants)),
            );
            let differ = self.report.links.differences(&before);
            self.presence.due.extend(differ);
            self.links_told = None;
        }
        if let Some(ends) = self.report.links.ends {
            wake.at(ends);
        }
    }

    /// Changed Isolations change what Apps may carry, and how every namespace is enclosed.
    pub(super) fn see_isolations(&mut self, world: &World) {
        if self.isolations_seen.replace(world.isolation_changes) == Some(world.isolation_changes) {
            return;
        }
        let before = std::mem::replace(&mut self.report.baselines, Arc::new(Baselines::of(world)));
        if *before != *self.report.baselines {
            self.stirred
                .extend(world.apps().map(|(uid, _)| uid.clone()));
            self.enclosed_anew = true;
        }
    }

    /// Notes that something changed about what stands for a namespace.
    pub(super) fn stir_namespace(&mut self, world: &World, uid: &Uid) {
        let ledger = world.ledger(uid).into_iter();
        let mut entries = ledger.flat_map(|ledger| ledger.entries.values());
        let named = entries.next().map(|held| held.entry.namespace.clone());
        let known = || {
            let mut known = world.enclosed.iter().filter(|(_, known)| *known == uid);
            known.next().map(|(name, _)| name.clone())
        };
        let counted = || {
            let mut counted = self.presence.counts.keys();
            counted.find(|name| namespace_uid(name) == *uid).cloned()
        };
        let named = named.or_else(known).or_else(counted);
        self.presence.due.extend(named);
    }

    /// Decides on the namespaces for which anything changed.
    pub(super) fn isolate(&mut self, world: &World) {
        let fleet = self.report.fleet.clone();
        self.presence.see_orphans(world, &fleet);
        let tenancy = (world.tenancy, self.books);
        if self.enclosed_for.replace(tenancy) != Some(tenancy)
            || std::mem::take(&mut self.enclosed_anew)
        {
            let all = self.presence.counts.keys().chain(world.enclosed.keys());
            self.presence.due = all.cloned().collect();
        }
        let leaving = world.namespaces.values().any(|slot| slot.deleting);
        if leaving || world.tenants().any(|(_, tenant)| tenant.deleting) {
            // What is inside goes first, and any change of that counts.
            let clearing = |name: &&NamespaceName| world.is_cleared(name);
            let going = world.enclosed.keys().filter(clearing).cloned();
            self.presence.due.extend(going);
        }
        let due = self.presence.take_due();
        for namespace in &due {
            self.isolate_one(world, &fleet, namespace);
        }
        if !due.is_empty() || self.report.enforcement.len() != self.report.baselines.specs.len() {
            self.report.enforcement = enforcement(
                world,
                &fleet,
                &self.report.baselines,
                &self.report.tenants,
                &self.presence.edited,
            );
        }
        let echoes = world.link_echoes;
        if !due.is_empty() || self.links_told.replace(echoes) != Some(echoes) {
            self.report.link_statuses =
                link_statuses(world, &self.report.links, &self.presence.edited);
        }
        self.report.isolation_statuses = isolation_statuses(world, &self.report.enforcement);
    }

    fn isolate_one(&mut self, world: &World, fleet: &Fleet, namespace: &NamespaceName) {
        let uid = world.home_uid(namespace);
        for cluster in self.presence.edited.remove(namespace) {
            if let Some(edits) = self.edits.get_mut(&cluster) {
                edits.remove(&uid);
            }
        }
        let desks = self.book.desks(world, fleet, namespace);
        let mut place = Home {
            world,
            fleet,
            baselines: &self.report.baselines,
            tenants: &self.report.tenants,
            desks: desks.as_deref(),
            namespace,
            uid: &uid,
            ledger: world.ledger(&uid),
            policies: self
                .report
                .links
                .policies
                .get(namespace)
                .map_or(&[], Vec::as_slice),
            made: Vec::new(),
            limits: BTreeMap::new(),
            clearing: world.is_cleared(namespace),
        };
        let mut clusters = self.presence.clusters(namespace);
        let held = place
            .ledger
            .into_iter()
            .flat_map(|ledger| ledger.entries.keys());
        clusters.extend(held.filter_map(|cluster| fleet.position(cluster)));
        clusters.extend(place.reported());
        let mut edited = Vec::new();
        for at in clusters {
            if let Some(edit) = place.edit(at, self.presence.is_at(namespace, at)) {
                let name = fleet.clusters[at].name.clone();
                self.edits
                    .entry(name.clone())
                    .or_default()
                    .insert(uid.clone(), edit);
                edited.push(name);
            }
        }
        let made = place.made.into_iter().map(|(_, content)| content);
        let made: BTreeMap<ContentHash, Arc<str>> = made.collect();
        if made.is_empty() || edited.is_empty() {
            self.linked.0.remove(namespace);
        } else {
            self.linked.0.insert(namespace.clone(), made);
        }
        if !edited.is_empty() {
            self.presence.edited.insert(namespace, edited);
        }
    }
}

/// A namespace, and what its entries are written from.
struct Home<'a> {
    world: &'a World,
    fleet: &'a Fleet,
    baselines: &'a Baselines,
    tenants: &'a Tenants,
    desks: Option<&'a Desks>,
    namespace: &'a NamespaceName,
    uid: &'a Uid,
    ledger: Option<&'a AppLedger>,
    /// Policies that follow from Links.
    policies: &'a [Value],
    /// Contents with those, by the baseline that they are added to.
    made: Vec<(Baseline, (ContentHash, Arc<str>))>,
    /// Resources that are limited, by what the Apps draw from.
    limits: BTreeMap<usize, Arc<[String]>>,
    /// Whether its tenant is being deleted.
    clearing: bool,
}

impl Home<'_> {
    /// What is to be written about it in a cluster; `used` says whether an App is there.
    fn edit(&mut self, at: At, used: bool) -> Option<Edit> {
        let view = &self.fleet.clusters[at];
        let held = self
            .ledger
            .and_then(|ledger| ledger.entries.get(&view.name));
        let held = held.map(|held| &*held.entry);
        let leaves = matches!(view.standing, Standing::Releasing | Standing::Deleting);
        match held {
            Some(held) if !held.state.is_present() => {
                let report = self.ledger?.reports.get(&view.name)?;
                let done =
                    report.state == ReportState::Removed && report.generation >= held.generation;
                done.then_some(Edit::Drop)
            }
            Some(held) if leaves && !used || self.clearing && !self.is_lived_in(&view.name) => {
                let state = if leaves {
                    EntryState::Released
                } else {
                    EntryState::Removed
                };
                let gone = Entry {
                    state,
                    generation: 0,
                    ..held.clone()
                };
                Some(Edit::Put(Box::new(gone)))
            }
            None if !used && self.told(&view.name).is_none() => None,
            None if leaves || self.clearing => self.lost(at, leaves),
            Some(held) if self.is_right(at, held) => None,
            Some(_) | None => {
                let want = self.entry(at, held)?;
                let as_it_is = held.is_some_and(|held| same(held, &want));
                (!as_it_is).then(|| Edit::Put(Box::new(want)))
            }
        }
    }

    /// What a cluster tells of the namespace, while it is there.
    fn told(&self, cluster: &ClusterName) -> Option<&ContentHash> {
        self.ledger?.reports.get(cluster)?.content.as_ref()
    }

    /// Clusters that tell of the namespace, whatever became of its entries.
    fn reported(&self) -> Vec<At> {
        let reports = self
            .ledger
            .into_iter()
            .flat_map(|ledger| ledger.reports.keys());
        let there = reports.filter(|cluster| self.told(cluster).is_some());
        there
            .filter_map(|cluster| self.fleet.position(cluster))
            .collect()
    }

    /// The slice was lost, but the cluster tells of the namespace: it is taken back all the same.
    fn lost(&mut self, at: At, leaves: bool) -> Option<Edit> {
        let name = &self.fleet.clusters[at].name;
        let content = self.told(name)?.clone();
        if !leaves && self.is_lived_in(name) {
            return None;
        }
        let state = if leaves {
            EntryState::Released
        } else {
            EntryState::Removed
        };
        let entry = self.entry(at, None)?;
        let pack = LOST.into();
        Some(Edit::Put(Box::new(Entry {
            state,
            content,
            pack,
            ..entry
        })))
    }

    /// Whether any App is to run in a cluster. The agent takes the namespace back after what is told to go.
    fn is_lived_in(&self, cluster: &ClusterName) -> bool {
        let mut apps = self
            .world
            .apps_in(self.namespace)
            .chain(&self.world.orphans);
        apps.any(|uid| {
            let held = self.world.ledger(uid).and_then(|l| l.entries.get(cluster));
            held.is_some_and(|held| {
                held.entry.state.is_present() && held.entry.namespace == *self.namespace
            })
        })
    }

    /// Whether an entry says all that it should. To make another one and compare the two takes longer,
    /// and nearly all are right.
    fn is_right(&mut self, at: At, held: &Entry) -> bool {
        let world = self.world;
        held.scope == Scope::Namespace
            && held.overrides.is_empty()
            && held.stages.is_empty()
            && held.secrets.is_empty()
            && held.shares.is_empty()
            && (held.take_over, held.tier) == (TakeOver::Always, Tier::General)
            && *held.charge == Charge::default()
            && self.content(at).as_ref() == Some(&held.content)
            && world.contents.contains_key(&*held.pack)
            && self.limits(at) == held.limits
    }

    fn entry(&mut self, at: At, held: Option<&Entry>) -> Option<Entry> {
        let content = &self.content(at)?;
        Some(Entry {
            uid: self.uid.clone(),
            scope: Scope::Namespace,
            namespace: self.namespace.clone(),
            name: self.namespace.as_str().into(),
            generation: 0,
            state: EntryState::Present,
            content: content.clone(),
            pack: pack_of(self.world, self.namespace, content, held).unwrap_or_default(),
            overrides: Vec::new(),
            stages: Vec::new(),
            secrets: Vec::new(),
            take_over: TakeOver::Always,
            tier: Tier::General,
            limits: self.limits(at),
            shares: Vec::new(),
            charge: Arc::default(),
        })
    }

    /// The baseline of the zone, and what Links add to it.
    fn content(&mut self, at: At) -> Option<ContentHash> {
        let (fleet, baselines) = (self.fleet, self.baselines);
        let enclosing = enclosing(fleet, baselines, self.tenants, self.namespace, at)?;
        if self.policies.is_empty() {
            return Some(enclosing.content().0.clone());
        }
        let known = self
            .made
            .iter()
            .find(|(baseline, _)| *baseline == enclosing.baseline);
        if let Some((_, (hash, _))) = known {
            return Some(hash.clone());
        }
        let mut content = enclosing.baseline.content();
        content.manifests.extend(self.policies.iter().cloned());
        let data = content.to_data();
        let hash = hash_of(data.as_bytes());
        let made = (hash.clone(), data.into());
        self.made.push((enclosing.baseline.clone(), made));
        Some(hash)
    }

    fn limits(&mut self, at: At) -> Arc<[String]> {
        let Some(desks) = self.desks else {
            return Arc::default();
        };
        let known = self.limits.entry(desks.number(at));
        let limits = known.or_insert_with(|| {
            let names = desks.desk(at).iter().map(|(name, _)| name.to_string());
            let names: BTreeSet<String> = names.collect();
            if names.is_empty() {
                return UNGRANTED.map(str::to_owned).into();
            }
            names.into_iter().collect()
        });
        limits.clone()
    }
}
