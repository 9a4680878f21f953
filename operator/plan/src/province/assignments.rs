//! Step: assignments. Turns targets and contents into edits of the ledger: what to put, what to
//! mark as removed, what to drop because its removal was acknowledged.

mod timetable;

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{
    Charge, ClusterName, ContentHash, Entry, EntryState, NamespaceName, ReportState, Scope,
    SecretCopy, Stage,
};

use super::placement::{At, Load, Placed};
use super::reclaim::{Cut, Cuts};
use super::regions::{Fleet, Reach, Standing};
use super::rollout::Rolled;
use crate::charge::Charges;
use crate::content::hash_of;
use crate::world::{AppLedger, AppSlot, ValidApp, World};

/// One change of the ledger of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Put this entry; its generation is given when it is packed. An empty pack name stands for the
    /// pack that this very plan stores.
    Put(Box<Entry>),
    /// Drop the entry: its removal was acknowledged.
    Drop,
}

/// Edits of one App, by cluster.
pub(crate) type Edits = BTreeMap<ClusterName, Edit>;

/// Whether an agent acknowledged that an entry is removed or released.
fn acknowledged(ledger: &AppLedger, cluster: &ClusterName, entry: &Entry) -> bool {
    !entry.state.is_present()
        && ledger
            .reports
            .get(cluster)
            .is_some_and(|r| r.state == ReportState::Removed && r.generation >= entry.generation)
}

/// Edits that hold whatever is decided: acknowledged removals go.
pub(crate) fn acknowledgements(ledger: Option<&AppLedger>) -> Edits {
    let Some(ledger) = ledger else {
        return Edits::new();
    };
    let gone = ledger
        .entries
        .iter()
        .filter(|(cluster, held)| acknowledged(ledger, cluster, &held.entry));
    gone.map(|(cluster, _)| (cluster.clone(), Edit::Drop))
        .collect()
}

/// Edits of an App that is placed. What grows comes first; what shrinks or goes waits until that
/// stands, so that a move never leaves an App with less than it asks for.
pub(crate) fn of_placed(
    world: &World,
    fleet: &Fleet,
    slot: &AppSlot,
    app: &ValidApp,
    placed: &Placed,
    rolled: &Rolled,
    cuts: Option<&Cuts>,
) -> Edits {
    let ledger = world.ledger(&slot.uid);
    let mut edits = acknowledgements(ledger);
    let desk = Desk {
        world,
        fleet,
        slot,
        app,
        ledger,
    };
    let (mut all_well, mut all_done) = (placed.shortage.is_none(), true);
    let shrinks = |at: At, load: Load| {
        let held = desk.held(at).filter(|entry| entry.state.is_present());
        held.is_some_and(|entry| Load::of_stages(&entry.stages, world.now).count() > load.count())
    };
    let (shrinking, growing): (Vec<_>, Vec<_>) = placed
        .targets
        .iter()
        .partition(|(at, load)| shrinks(**at, **load));
    for (at, load) in growing {
        if placed.withheld.contains(at) {
            edits.extend(desk.held_back(*at, *load, cuts.and_then(|cuts| cuts.get(at))));
            continue;
        }
        let stages = desk.timetable(*at, *load, cuts.and_then(|cuts| cuts.get(at)));
        let want = desk.entry(*at, stages, &rolled.content[at]);
        let cluster = &fleet.clusters[*at].name;
        match desk.held(*at) {
            Some(has) if same(has, &want) => {
                all_well &= well(ledger, cluster, has);
                all_done &= done(ledger, cluster, has);
            }
            Some(_) | None => {
                (all_well, all_done) = (false, false);
                edits.insert(cluster.clone(), Edit::Put(Box::new(want)));
            }
        }
    }
    for (at, load) in shrinking {
        let held = desk.held(*at);
        // It keeps what it has until the others are there, but for what is taken back.
        let load = match held {
            Some(held) if !all_done => Load::of_stages(&held.stages, world.now),
            Some(_) | None => *load,
        };
        let stages = desk.timetable(*at, load, cuts.and_then(|cuts| cuts.get(at)));
        let kept = held.filter(|_| placed.withheld.contains(at));
        let content = kept.map_or(&rolled.content[at], |held| &held.content);
        let want = desk.entry(*at, stages, content);
        all_well = false;
        if !held.is_some_and(|has| same(has, &want)) {
            edits.insert(fleet.clusters[*at].name.clone(), Edit::Put(Box::new(want)));
        }
    }
    let leave = |at: &At| (*at, EntryState::Removed);
    let leaving = placed.leaving.iter().filter(|_| all_well).map(leave);
    let releasing = placed
        .releasing
        .iter()
        .map(|at| (*at, EntryState::Released));
    for (at, state) in leaving.chain(releasing) {
        let cluster = &fleet.clusters[at].name;
        if let Some(edit) = take_back(ledger, slot, cluster, state) {
            edits.entry(cluster.clone()).or_insert(edit);
        }
    }
    edits
}

/// What entries of one App are written from.
struct Desk<'a> {
    world: &'a World,
    fleet: &'a Fleet,
    slot: &'a AppSlot,
    app: &'a ValidApp,
    ledger: Option<&'a AppLedger>,
}

impl<'a> Desk<'a> {
    fn held(&self, at: At) -> Option<&'a Entry> {
        let cluster = &self.fleet.clusters[at].name;
        Some(&*self.ledger?.entries.get(cluster)?.entry)
    }

    /// An entry whose content waits stays as it is, but for what is taken back.
    fn held_back(&self, at: At, load: Load, cut: Option<&Cut>) -> Option<(ClusterName, Edit)> {
        let held = self.held(at)?;
        let want = Entry {
            stages: self.timetable(at, load, cut),
            ..held.clone()
        };
        let cluster = self.fleet.clusters[at].name.clone();
        (!same(held, &want)).then(|| (cluster, Edit::Put(Box::new(want))))
    }

    /// The entry of one cluster; its generation comes later. Positions of overrides, names of
    /// Secrets and what is charged belong to a content: a cluster that keeps an earlier one keeps
    /// those as well.
    fn entry(&self, at: At, stages: Vec<Stage>, content: &ContentHash) -> Entry {
        let held = self.held(at);
        let (overrides, secrets, charge, tier) = if *content == self.app.content {
            (
                overrides_for(self.fleet, at, self.app),
                secrets_for(self.slot, self.app),
                self.app.footprint.charge.clone(),
                self.app.tier,
            )
        } else {
            let others = self.ledger.into_iter().flat_map(|l| l.entries.values());
            let before = held.into_iter().chain(others.map(|other| &*other.entry));
            let source = before.into_iter().find(|entry| entry.content == *content);
            source
                .map(|e| {
                    (
                        e.overrides.clone(),
                        e.secrets.clone(),
                        e.charge.clone(),
                        e.tier,
                    )
                })
                .unwrap_or_default()
        };
        let charge = self.while_it_rolls(at, content, &stages, charge);
        Entry {
            uid: self.slot.uid.clone(),
            scope: Scope::App,
            namespace: self.slot.namespace.clone(),
            name: self.slot.name.clone(),
            generation: 0,
            state: EntryState::Present,
            content: content.clone(),
            pack: pack_for(self.world, self.slot, self.app, content, held),
            overrides,
            stages,
            secrets,
            take_over: self.app.take_over,
            tier,
            limits: Arc::default(),
            shares: Vec::new(),
            charge,
        }
    }

    /// What is charged in a cluster until its pods are those of the wanted content: the earlier ones are
    /// there meanwhile, and ask for as much as they do. It is no more than was paid for.
    fn while_it_rolls(
        &self,
        at: At,
        content: &ContentHash,
        stages: &[Stage],
        charge: Arc<Charge>,
    ) -> Arc<Charge> {
        let Some(held) = self.held(at).filter(|held| held.state.is_present()) else {
            return charge;
        };
        let cluster = &self.fleet.clusters[at].name;
        let rolled = held.content == *content && well(self.ledger, cluster, held);
        if held.charge == charge || rolled {
            return charge;
        }
        let replicas = Load::most_of_stages(stages, self.world.now).count();
        let (mut new, old) = (Charges::of(&charge), Charges::of(&held.charge));
        let (less, more) = (new.at(replicas), old.at(replicas));
        for (resource, amount) in more.iter() {
            let beyond = amount - less.get(resource);
            if beyond > 0 {
                new.fixed.set(resource, new.fixed.get(resource) + beyond);
            }
        }
        Arc::new(new.to_charge())
    }
}

/// Edits of an App that is being deleted: every cluster is to remove it.
pub(crate) fn of_deleted(world: &World, slot: &AppSlot) -> Edits {
    let ledger = world.ledger(&slot.uid);
    let mut edits = acknowledgements(ledger);
    let Some(held) = ledger else { return edits };
    for cluster in held.entries.keys().chain(held.reports.keys()) {
        if let Some(edit) = take_back(ledger, slot, cluster, EntryState::Removed) {
            edits.entry(cluster.clone()).or_insert(edit);
        }
    }
    edits
}

/// Whether the finalizer may go: every cluster that can answer has acknowledged. The entries of
/// the others stay as tombstones.
pub(crate) fn removed_everywhere(
    world: &World,
    fleet: &Fleet,
    slot: &AppSlot,
    edits: &Edits,
) -> bool {
    let Some(ledger) = world.ledger(&slot.uid) else {
        return true;
    };
    let tombstoned = ledger.entries.iter().all(|(cluster, held)| {
        !held.entry.state.is_present()
            && (acknowledged(ledger, cluster, &held.entry) || !answers(fleet, cluster))
    });
    // An entry that is about to be marked as removed must be written before the App goes.
    tombstoned && !edits.values().any(|edit| matches!(edit, Edit::Put(_)))
}

/// Whether a namespace stands in a cluster that could say that it is gone.
pub(super) fn stands_somewhere(world: &World, fleet: &Fleet, namespace: &NamespaceName) -> bool {
    let Some(ledger) = world.home(namespace) else {
        return false;
    };
    let held = ledger.entries.iter();
    let mut held =
        held.map(|(cluster, held)| held.entry.state.is_present() || answers(fleet, cluster));
    // Where the slice was lost, what is reported to stand stands all the same.
    let told = ledger
        .reports
        .iter()
        .filter(|(_, report)| report.content.is_some());
    let mut told = told.map(|(cluster, _)| answers(fleet, cluster));
    held.any(|stands| stands) || told.any(|stands| stands)
}

pub(super) fn answers(fleet: &Fleet, cluster: &ClusterName) -> bool {
    let Some(at) = fleet.position(cluster) else {
        return false;
    };
    let view = &fleet.clusters[at];
    matches!(
        view.standing,
        Standing::Managed | Standing::Observed | Standing::Releasing | Standing::Deleting
    ) && matches!(view.reach, Reach::InContact | Reach::Returning(_))
}

/// Marks what a cluster holds of an App as removed or released, unless that is done.
fn take_back(
    ledger: Option<&AppLedger>,
    slot: &AppSlot,
    cluster: &ClusterName,
    state: EntryState,
) -> Option<Edit> {
    let ledger = ledger?;
    let entry = if let Some(held) = ledger.entries.get(cluster) {
        if held.entry.state == state {
            return None;
        }
        Entry {
            state,
            generation: 0,
            ..(*held.entry).clone()
        }
    } else {
        // The slice was lost, but the cluster reports that it runs the App.
        let content = ledger.reports.get(cluster)?.content.clone()?;
        Entry {
            uid: slot.uid.clone(),
            scope: Scope::App,
            namespace: slot.namespace.clone(),
            name: slot.name.clone(),
            generation: 0,
            state,
            content,
            pack: LOST.into(),
            overrides: Vec::new(),
            stages: Vec::new(),
            secrets: Vec::new(),
            take_over: crds::TakeOver::Never,
            tier: slot.state.as_ref().map(|app| app.tier).unwrap_or_default(),
            limits: Arc::default(),
            shares: Vec::new(),
            charge: slot.footprint.charge.clone(),
        }
    };
    Some(Edit::Put(Box::new(entry)))
}

/// Whether a cluster reports that it does exactly what its entry says, and is healthy.
fn well(ledger: Option<&AppLedger>, cluster: &ClusterName, entry: &Entry) -> bool {
    ledger
        .and_then(|l| l.reports.get(cluster))
        .is_some_and(|r| {
            r.generation >= entry.generation
                && matches!(r.state, ReportState::Healthy | ReportState::Observed)
        })
}

/// Whether a cluster has nothing left to do for its entry, well or not.
fn done(ledger: Option<&AppLedger>, cluster: &ClusterName, entry: &Entry) -> bool {
    ledger
        .and_then(|l| l.reports.get(cluster))
        .is_some_and(|r| {
            let busy = matches!(r.state, ReportState::Pending | ReportState::Progressing);
            r.generation >= entry.generation && !busy
        })
}

/// Equal but for the generation.
pub(crate) fn same(a: &Entry, b: &Entry) -> bool {
    let Entry {
        uid,
        scope,
        namespace,
        name,
        generation: _,
        state,
        content,
        pack,
        overrides,
        stages,
        secrets,
        take_over,
        tier,
        limits,
        charge,
        shares,
    } = a;
    *uid == b.uid
        && *scope == b.scope
        && *namespace == b.namespace
        && *name == b.name
        && *state == b.state
        && *content == b.content
        && *pack == b.pack
        && *overrides == b.overrides
        && *stages == b.stages
        && *secrets == b.secrets
        && *take_over == b.take_over
        && *tier == b.tier
        && *limits == b.limits
        && *charge == b.charge
        && *shares == b.shares
}

/// What an entry calls the pack of a content that nobody has any more.
pub(super) const LOST: &str = "lost";

/// Where the content is stored: where the entry says, else where the store has it.
pub(super) fn pack_of(
    world: &World,
    namespace: &NamespaceName,
    content: &ContentHash,
    held: Option<&Entry>,
) -> Option<Arc<str>> {
    let known = held.filter(|e| e.content == *content);
    if let Some(entry) = known.filter(|e| world.contents.contains_key(&*e.pack)) {
        return Some(entry.pack.clone());
    }
    world.pack_of(namespace, content).map(Into::into)
}

/// The same of an App's content, which may be in the pack that this very plan writes, or lost.
fn pack_for(
    world: &World,
    slot: &AppSlot,
    app: &ValidApp,
    content: &ContentHash,
    held: Option<&Entry>,
) -> Arc<str> {
    if let Some(pack) = pack_of(world, &slot.namespace, content, held) {
        return pack;
    }
    if *content == app.content {
        return Arc::default();
    }
    let known = held.filter(|e| e.content == *content);
    known.map_or_else(|| LOST.into(), |e| e.pack.clone())
}

fn overrides_for(fleet: &Fleet, at: At, app: &ValidApp) -> Vec<i32> {
    let Some(region) = fleet.region_of(&fleet.clusters[at]) else {
        return Vec::new();
    };
    let applies = |(_, selector): &(i32, &crds::RegionSelector)| fleet.selects(selector, region);
    (0..)
        .zip(&app.overrides)
        .filter(applies)
        .map(|(index, _)| index)
        .collect()
}

/// Name of the copy of a Secret in a cluster's namespace.
pub fn copy_name(namespace: &NamespaceName, secret: &str) -> String {
    let hash = hash_of(format!("{namespace}/{secret}").as_bytes());
    format!("s-{hash}")
}

fn secrets_for(slot: &AppSlot, app: &ValidApp) -> Vec<SecretCopy> {
    let copy = |name: &String| SecretCopy {
        name: name.clone(),
        copy: copy_name(&slot.namespace, name),
    };
    app.secret_names.iter().map(copy).collect()
}
