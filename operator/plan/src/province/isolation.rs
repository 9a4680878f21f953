//! Step: isolation. Every namespace in which an App stands, or is about to, has an entry of its own in that
//! cluster: what isolates it is there before the first App and stays for as long as the tenant does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use crds::{
    ClusterName, ContentHash, DataGrade, Entry, EntryState, IsolationSpec, NamespaceName, Reason,
    ReportState, Scope, TakeOver, Tier, Uid, Zone,
};

use super::assignments::{Edit, pack_of, same};
use super::memory::Planner;
use super::placement::At;
use super::quotas::Desks;
use super::regions::{Fleet, Standing};
use super::tenants::Tenants;
use crate::baseline::Baseline;
use crate::content::hash_of;
use crate::report::isolation_statuses;
use crate::world::{AppLedger, AppSlot, LedgerEntry, Parked, ValidApp, World, namespace_uid};

const ZONES: [Zone; 3] = [
    Zone::Internet,
    Zone::ExtranetPublic,
    Zone::ExtranetDedicated,
];
const GRADES: [DataGrade; 3] = [DataGrade::General, DataGrade::Important, DataGrade::Core];
/// Resources that limit a tenant which has Quotas, but none that counts in a cluster.
const UNGRANTED: [&str; 3] = ["cpu", "memory", "pods"];

/// Baselines of zones and grades.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baselines {
    specs: BTreeMap<Box<str>, Arc<IsolationSpec>>,
    known: BTreeMap<(Zone, DataGrade), Arc<Enclosing>>,
}

/// What encloses a namespace, and the content that is made of it once somebody asks.
#[derive(Debug)]
struct Enclosing {
    baseline: Baseline,
    content: OnceLock<(ContentHash, Box<str>)>,
}

impl PartialEq for Enclosing {
    fn eq(&self, other: &Self) -> bool {
        self.baseline == other.baseline
    }
}

impl Enclosing {
    fn content(&self) -> &(ContentHash, Box<str>) {
        self.content.get_or_init(|| {
            let data = self.baseline.content().to_data();
            (hash_of(data.as_bytes()), data.into())
        })
    }
}

/// Whether an Isolation applies where data of a grade may be in a zone.
fn applies(spec: &IsolationSpec, zone: Zone, grade: DataGrade) -> bool {
    spec.zones.contains(&zone) && (spec.data_grades.is_empty() || spec.data_grades.contains(&grade))
}

impl Baselines {
    fn of(world: &World) -> Self {
        let specs = world.isolations.iter();
        let specs: BTreeMap<_, _> = specs
            .map(|(name, slot)| (name.clone(), slot.spec.clone()))
            .collect();
        let mut known = BTreeMap::new();
        let mut equal: BTreeMap<Baseline, Arc<Enclosing>> = BTreeMap::new();
        for zone in ZONES {
            for grade in GRADES {
                let here = specs.values().filter(|spec| applies(spec, zone, grade));
                let baseline = Baseline::of(here.map(|spec| &**spec));
                let enclosing = equal.entry(baseline.clone()).or_insert_with(|| {
                    let content = OnceLock::new();
                    Arc::new(Enclosing { baseline, content })
                });
                known.insert((zone, grade), enclosing.clone());
            }
        }
        Self { specs, known }
    }

    /// What stored content is made of.
    pub(crate) fn data(&self, content: &ContentHash) -> Option<&str> {
        let mut known = self.known.values().map(|enclosing| enclosing.content());
        known
            .find(|(hash, _)| hash == content)
            .map(|(_, data)| &**data)
    }

    /// Why an App may not run in its zone, if what it carries is not allowed there.
    pub(crate) fn objection(
        &self,
        tenants: &Tenants,
        slot: &AppSlot,
        app: &ValidApp,
    ) -> Option<Parked> {
        let grade = tenants
            .owner(&slot.namespace)
            .map_or(DataGrade::Core, |own| own.limits.grade);
        let baseline = &self.known.get(&(app.zone, grade))?.baseline;
        let zone = app.zone;
        let kind = app
            .footprint
            .claims
            .iter()
            .map(|(kind, name)| (kind.name(), name));
        if let Some((kind, name)) = kind
            .into_iter()
            .find(|(kind, _)| !baseline.allows_kind(kind))
        {
            let message = format!(
                "spec.manifests carry {kind} {name}, and an Isolation of zone {zone:?} does not list {kind} in allowedKinds: take it out, or have it listed"
            );
            return Some(Parked::new(Reason::KindNotAllowed, message));
        }
        let image = app
            .footprint
            .images
            .iter()
            .find(|image| !baseline.allows_image(image))?;
        let message = format!(
            "image {image} comes from a registry that an Isolation of zone {zone:?} does not list in allowedRegistries: take it from one that is listed, or have its own listed"
        );
        Some(Parked::new(Reason::RegistryNotAllowed, message))
    }
}

/// Where an Isolation is to be in force, where it is, and what stands in its way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Enforcement {
    /// Namespaces in member clusters where it is to be.
    pub wanted: usize,
    /// Those of them where it is.
    pub in_force: usize,
    /// Where something stands in its way, first of all, and why.
    pub obstacle: Option<Remark>,
    /// Where somebody weakened it of late and it was put back, first of all.
    pub reverted: Option<Remark>,
}

/// What a cluster tells of the isolation of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The namespace.
    pub namespace: NamespaceName,
    /// The cluster.
    pub cluster: ClusterName,
    /// What it is, as one word.
    pub reason: Reason,
    /// What it is, as a sentence without its stop.
    pub message: String,
}

/// Where Apps stand, or are about to, by namespace.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// How many in each cluster.
    counts: BTreeMap<NamespaceName, Vec<u32>>,
    /// Namespaces where that changed between none and some, or that something else changed for.
    due: BTreeSet<NamespaceName>,
    /// Clusters for which there is an edit of a namespace.
    edited: BTreeMap<NamespaceName, Vec<ClusterName>>,
    orphans: BTreeMap<NamespaceName, BTreeSet<At>>,
}

impl Presence {
    /// Counts an App in these clusters.
    pub(super) fn come(&mut self, namespace: &NamespaceName, at: &[At], clusters: usize) {
        if at.is_empty() {
            return;
        }
        let counts = self.counts.entry(namespace.clone());
        let counts = counts.or_insert_with(|| vec![0; clusters]);
        let mut first = false;
        for at in at {
            first |= counts[*at] == 0;
            counts[*at] += 1;
        }
        if first {
            self.due.insert(namespace.clone());
        }
    }

    /// Counts an App no longer.
    pub(super) fn go(&mut self, namespace: &NamespaceName, at: &[At]) {
        let Some(counts) = self.counts.get_mut(namespace) else {
            return;
        };
        let mut last = false;
        for at in at {
            counts[*at] -= 1;
            last |= counts[*at] == 0;
        }
        if last {
            self.due.insert(namespace.clone());
        }
    }

    fn is_at(&self, namespace: &NamespaceName, at: At) -> bool {
        let counted = self
            .counts
            .get(namespace)
            .is_some_and(|counts| counts[at] > 0);
        let orphans = self.orphans.get(namespace);
        counted || orphans.is_some_and(|here| here.contains(&at))
    }

    fn clusters(&self, namespace: &NamespaceName) -> BTreeSet<At> {
        let counts = self.counts.get(namespace).into_iter().flatten().enumerate();
        let counted = counts.filter(|(_, count)| **count > 0).map(|(at, _)| at);
        let orphans = self.orphans.get(namespace).into_iter().flatten();
        counted.chain(orphans.copied()).collect()
    }

    /// Takes in where Apps stand that are gone at the hub.
    fn see_orphans(&mut self, world: &World, fleet: &Fleet) {
        let before = std::mem::take(&mut self.orphans);
        for uid in &world.orphans {
            let ledger = world.ledger(uid).into_iter();
            for (cluster, held) in ledger.flat_map(|ledger| &ledger.entries) {
                let here = self
                    .orphans
                    .entry(held.entry.namespace.clone())
                    .or_default();
                here.extend(fleet.position(cluster));
            }
        }
        let changed = |name: &&NamespaceName| before.get(*name) != self.orphans.get(*name);
        let names = before.keys().chain(self.orphans.keys());
        let changed: Vec<_> = names.filter(changed).cloned().collect();
        self.due.extend(changed);
    }
}

impl Planner {
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
        let mut counted = self.presence.counts.keys();
        let named = named.or_else(|| counted.find(|name| namespace_uid(name) == *uid).cloned());
        self.presence.due.extend(named);
    }

    /// Decides on the namespaces for which anything changed.
    pub(super) fn isolate(&mut self, world: &World) {
        let fleet = self.report.fleet.clone();
        self.presence.see_orphans(world, &fleet);
        let tenancy = (world.tenancy, world.ledger_changes);
        if self.enclosed_for.replace(tenancy) != Some(tenancy)
            || std::mem::take(&mut self.enclosed_anew)
        {
            let all = self.presence.counts.keys().chain(world.enclosed.keys());
            self.presence.due = all.cloned().collect();
        }
        if world.tenants().any(|(_, tenant)| tenant.deleting) {
            // What is inside goes first, and any change of that counts.
            let clearing = |name: &&NamespaceName| {
                world
                    .namespaces
                    .get(*name)
                    .is_some_and(|slot| slot.clearing)
            };
            let going = world.enclosed.keys().filter(clearing).cloned();
            self.presence.due.extend(going);
        }
        let due = std::mem::take(&mut self.presence.due);
        for namespace in &due {
            self.isolate_one(world, &fleet, namespace);
        }
        if !due.is_empty() || self.report.enforcement.len() != self.report.baselines.specs.len() {
            self.report.enforcement =
                enforcement(world, &fleet, &self.report.baselines, &self.report.tenants);
        }
        self.report.isolation_statuses = isolation_statuses(world, &self.report.enforcement);
    }

    fn isolate_one(&mut self, world: &World, fleet: &Fleet, namespace: &NamespaceName) {
        let uid = namespace_uid(namespace);
        for cluster in self.presence.edited.remove(namespace).into_iter().flatten() {
            if let Some(edits) = self.edits.get_mut(&cluster) {
                edits.remove(&uid);
            }
        }
        let desks = self.book.desks(world, fleet, namespace);
        let place = Home {
            world,
            fleet,
            baselines: &self.report.baselines,
            tenants: &self.report.tenants,
            desks: desks.as_deref(),
            namespace,
            uid: &uid,
            ledger: world.ledger(&uid),
            clearing: world
                .namespaces
                .get(namespace)
                .is_some_and(|slot| slot.clearing),
        };
        let mut clusters = self.presence.clusters(namespace);
        let held = place
            .ledger
            .into_iter()
            .flat_map(|ledger| ledger.entries.keys());
        clusters.extend(held.filter_map(|cluster| fleet.position(cluster)));
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
        if !edited.is_empty() {
            self.presence.edited.insert(namespace.clone(), edited);
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
    /// Whether its tenant is being deleted.
    clearing: bool,
}

impl Home<'_> {
    /// What is to be written about it in a cluster; `used` says whether an App is there.
    fn edit(&self, at: At, used: bool) -> Option<Edit> {
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
            None if !used || leaves || self.clearing => None,
            Some(_) | None => {
                let want = self.entry(at, held)?;
                let as_it_is = held.is_some_and(|held| same(held, &want));
                (!as_it_is).then(|| Edit::Put(Box::new(want)))
            }
        }
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

    fn entry(&self, at: At, held: Option<&Entry>) -> Option<Entry> {
        let (fleet, baselines) = (self.fleet, self.baselines);
        let enclosing = enclosing(fleet, baselines, self.tenants, self.namespace, at)?;
        let (content, _) = enclosing.content();
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
            charge: Arc::default(),
        })
    }

    fn limits(&self, at: At) -> Vec<String> {
        let Some(desks) = self.desks else {
            return Vec::new();
        };
        let names = desks.desk(at).iter().map(|(name, _)| name.to_string());
        let names: BTreeSet<String> = names.collect();
        if names.is_empty() {
            return UNGRANTED.map(str::to_owned).into();
        }
        names.into_iter().collect()
    }
}

/// What encloses a namespace in a cluster: the baseline of the zone, for the highest grade of data that may
/// be there.
fn enclosing<'b>(
    fleet: &Fleet,
    baselines: &'b Baselines,
    tenants: &Tenants,
    namespace: &NamespaceName,
    at: At,
) -> Option<&'b Enclosing> {
    let cluster = fleet.clusters[at].cluster.as_ref().ok()?;
    let grade = tenants
        .owner(namespace)
        .map_or(DataGrade::Core, |own| own.limits.grade);
    let key = (cluster.zone, grade.min(cluster.max_data_grade));
    baselines.known.get(&key).map(|known| &**known)
}

/// Where each Isolation is to be in force, and where it is.
fn enforcement(
    world: &World,
    fleet: &Fleet,
    baselines: &Baselines,
    tenants: &Tenants,
) -> BTreeMap<Box<str>, Enforcement> {
    let mut all: BTreeMap<Box<str>, Enforcement> = baselines
        .specs
        .keys()
        .map(|name| (name.clone(), Enforcement::default()))
        .collect();
    if all.is_empty() {
        return all;
    }
    for (namespace, uid) in &world.enclosed {
        let Some(ledger) = world.ledger(uid) else {
            continue;
        };
        let present = |(_, held): &(&ClusterName, &LedgerEntry)| held.entry.state.is_present();
        for (name, held) in ledger.entries.iter().filter(present) {
            let cluster = fleet.position(name).map(|at| &fleet.clusters[at].cluster);
            let Some(Ok(cluster)) = cluster else { continue };
            let grade = tenants
                .owner(namespace)
                .map_or(DataGrade::Core, |own| own.limits.grade);
            let grade = grade.min(cluster.max_data_grade);
            let report = ledger.reports.get(name);
            let report = report.filter(|report| report.generation >= held.entry.generation);
            let specs = baselines.specs.iter();
            for (isolation, _) in specs.filter(|(_, spec)| applies(spec, cluster.zone, grade)) {
                let sum = all.entry(isolation.clone()).or_default();
                sum.wanted += 1;
                let well = |state| matches!(state, ReportState::Healthy | ReportState::Observed);
                sum.in_force += usize::from(report.is_some_and(|report| well(report.state)));
                let Some(report) = report else { continue };
                let (place, reason) = match report.state {
                    ReportState::Failed => {
                        let reason = report.reason.unwrap_or(Reason::InProgress);
                        (&mut sum.obstacle, reason)
                    }
                    state if well(state) => (&mut sum.reverted, Reason::Drifted),
                    _ => continue,
                };
                if let (None, Some(message)) = (&place, &report.message) {
                    *place = Some(Remark {
                        namespace: namespace.clone(),
                        cluster: name.clone(),
                        reason,
                        message: message.clone(),
                    });
                }
            }
        }
    }
    all
}
