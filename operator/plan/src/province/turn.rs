//! One turn of the planner, App by App.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{ClusterName, Entry, MemberClusterStatus, Reason, Scope, Uid};

use super::Plan;
use super::assignments::{self, Edit, Edits};
use super::contents;
use super::emergency::Lane;
use super::memory::Planner;
use super::placement::{self, At, Class, Placed, Receipt, Room};
use super::protection::protection_of;
use super::reclaim::Lacking;
use super::regions::{ClusterView, Wake};
use super::rollout;
use super::slices::Scribe;
use crate::report::{
    AppFacts, PlanReport, QuotaShort, Shortage, app_report, cluster_status, region_status,
};
use crate::world::{AppSlot, AppState, Parked, ValidApp, World, is_of_namespace, is_of_policy};

impl Planner {
    /// Decides what needs no room, and queues the Apps that do need it.
    pub(super) fn settle(&mut self, world: &World) {
        self.charge_orphans(world);
        for uid in self.due(world) {
            if is_of_namespace(&uid) {
                self.stir_namespace(world, &uid);
                continue;
            }
            if is_of_policy(&uid) {
                self.guarding.stir(uid);
                continue;
            }
            self.forget(&uid);
            match world.app(&uid) {
                Some(slot) => self.settle_one(world, slot),
                None => drop(self.report.apps.remove(&uid)),
            }
        }
    }

    fn settle_one(&mut self, world: &World, slot: &AppSlot) {
        self.charge(world, slot);
        let parked = parked(world, &self.report, slot);
        match (parked, &slot.state, slot.life) {
            (_, _, AppState::Deleting | AppState::Released) => self.remove(world, slot),
            (Some(parked), ..) => self.stand(world, slot, Some(&parked), None),
            (None, Ok(_), AppState::Unheld) => {
                // Nothing is placed before the App is held.
                self.stand(world, slot, None, None);
                self.holds.insert(slot.uid.clone());
            }
            // What has nothing anywhere needs room.
            (None, Ok(app), AppState::Held) if world.ledger(&slot.uid).is_none() => {
                self.queue(world, slot, app);
            }
            (None, Ok(app), AppState::Held) => {
                let class = self.class(slot, app);
                let fleet = self.report.fleet.clone();
                let payer = self.payer(&slot.uid);
                let standing = placement::standing(world, &fleet, &class, slot, app, payer);
                let settled = placement::settled(&fleet, &standing);
                if let Some(placed) = settled.filter(|placed| !placement::grows(&standing, placed))
                {
                    self.decide(world, slot, app, &class, &placed);
                } else {
                    self.queue(world, slot, app);
                }
            }
            (None, Err(_), _) => {}
        }
    }

    /// Decides what needs room, on what is left after all else. What tenants are granted comes before
    /// what they borrow.
    pub(super) fn place(&mut self, world: &World) {
        if self.waiting.is_empty() && self.cuts.is_empty() {
            return;
        }
        let fleet = self.report.fleet.clone();
        let book = std::mem::take(&mut self.book);
        let mut room = Room::of(world, &fleet, &self.debits, book);
        let waiting: Vec<Uid> = self.waiting.iter().map(|(.., uid)| uid.clone()).collect();
        let mut placed: BTreeMap<Uid, (Placed, Receipt)> = BTreeMap::new();
        // Where nobody may borrow, once is enough.
        if room.lends() {
            room.lend(false);
            for uid in &waiting {
                self.place_one(world, uid, &mut room, &mut placed);
            }
        }
        room.lend(true);
        self.place_rest(world, &waiting, &mut room, &mut placed);
        let mut queue = Queue::default();
        let mut lacking = Vec::new();
        for uid in &waiting {
            let Some((mut placed, _)) = placed.remove(uid) else {
                continue;
            };
            placed.position = queue.position(placed.short.as_deref());
            lacking.extend(lack(uid, &placed));
            if !self.knows(uid, &placed) {
                self.decide_on(world, uid, placed);
            }
        }
        self.reclaim(world, &mut room, &lacking);
        self.book = room.into_book();
    }

    /// Places what is not placed yet, on what is left when those who have a right to more had it.
    fn place_rest(
        &mut self,
        world: &World,
        waiting: &[Uid],
        room: &mut Room,
        placed: &mut BTreeMap<Uid, (Placed, Receipt)>,
    ) {
        let mut kept = BTreeMap::new();
        for uid in waiting {
            let short = placed.get(uid).and_then(|(placed, _)| lack(uid, placed));
            if let Some(lack) = short {
                kept.insert(uid.clone(), self.keep(world, room, &lack));
            }
        }
        for uid in waiting {
            room.release(kept.remove(uid).into_iter().flatten());
            self.place_one(world, uid, room, placed);
            let short = placed.get(uid).and_then(|(placed, _)| lack(uid, placed));
            if let Some(lack) = short.filter(|_| room.lends()) {
                kept.insert(uid.clone(), self.keep(world, room, &lack));
            }
        }
        room.release(kept.into_values().flatten());
    }

    /// Places an App, unless it was placed already and lacks nothing that could be borrowed.
    fn place_one(
        &mut self,
        world: &World,
        uid: &Uid,
        room: &mut Room,
        placed: &mut BTreeMap<Uid, (Placed, Receipt)>,
    ) {
        let known = placed.get(uid);
        if known.is_some_and(|(placed, _)| placed.short.is_none()) {
            return;
        }
        let Some((slot, app)) = valid(world, uid) else {
            return;
        };
        if let Some((_, receipt)) = known {
            room.refund(receipt);
        }
        let fleet = self.report.fleet.clone();
        let class = self.class(slot, app);
        let standing = placement::standing(world, &fleet, &class, slot, app, self.payer(uid));
        let before = room.payments();
        let now = placement::place(&fleet, &standing, room);
        placed.insert(uid.clone(), (now, room.receipt(before)));
    }

    /// Whether nothing is decided for an App.
    pub(super) fn is_parked(&self, world: &World, slot: &AppSlot) -> bool {
        parked(world, &self.report, slot).is_some()
    }

    /// Decides on an App that was placed.
    fn decide_on(&mut self, world: &World, uid: &Uid, placed: Placed) {
        let Some((slot, app)) = valid(world, uid) else {
            return;
        };
        let class = self.class(slot, app);
        self.decide(world, slot, app, &class, &placed);
        self.remember_placed(uid, placed);
    }

    /// Decides on an App whose replicas are taken back, or no longer.
    pub(super) fn decide_again(&mut self, world: &World, uid: &Uid) {
        if let Some(placed) = self.placed(uid) {
            return self.decide_on(world, uid, placed);
        }
        let Some((slot, app)) = valid(world, uid).filter(|(slot, _)| slot.life == AppState::Held)
        else {
            return;
        };
        if parked(world, &self.report, slot).is_some() {
            return;
        }
        let fleet = self.report.fleet.clone();
        let class = self.class(slot, app);
        let standing = placement::standing(world, &fleet, &class, slot, app, self.payer(uid));
        if let Some(placed) = placement::settled(&fleet, &standing) {
            self.decide(world, slot, app, &class, &placed);
        }
    }

    /// Puts the parts together: contents, edits, report, memory.
    fn decide(
        &mut self,
        world: &World,
        slot: &AppSlot,
        app: &ValidApp,
        class: &Arc<Class>,
        placed: &Placed,
    ) {
        let fleet = self.report.fleet.clone();
        let mut wake = Wake::default();
        let targets: Vec<At> = placed.targets.keys().copied().collect();
        let rolled = rollout::roll(world, &fleet, slot, app, &targets, &mut wake);
        let lane = Lane::of(world, slot, app, &mut wake);
        let cuts = self.cuts.get(&slot.uid);
        let edits = assignments::of_placed(world, &fleet, slot, app, placed, &rolled, cuts);
        stages_ahead(world, slot, &edits, &mut wake);
        let facts = AppFacts {
            slot,
            app: Some(app),
            parked: None,
            placed,
            rolled: Some(&rolled),
            ledger: world.ledger(&slot.uid),
            edits: &edits,
            class: Some(class),
            lane,
            protection: protection_of(world, slot),
        };
        let report = app_report(&fleet, &facts, world.now);
        self.stir_policies(world, slot);
        self.remember(slot, edits, report, wake.at);
    }

    fn remove(&mut self, world: &World, slot: &AppSlot) {
        let edits = assignments::of_deleted(world, slot);
        let gone = assignments::removed_everywhere(world, &self.report.fleet, slot, &edits);
        self.stand(world, slot, None, Some(edits));
        if gone && slot.life == AppState::Deleting {
            self.releases.insert(slot.uid.clone());
        }
    }

    /// Reports an App that keeps what the ledger says.
    fn stand(
        &mut self,
        world: &World,
        slot: &AppSlot,
        parked: Option<&Parked>,
        edits: Option<Edits>,
    ) {
        let fleet = self.report.fleet.clone();
        let ledger = world.ledger(&slot.uid);
        let edits = edits.unwrap_or_else(|| assignments::acknowledgements(ledger));
        let targets = placement::current(&fleet, ledger, world.now);
        let placed = Placed {
            targets,
            ..Placed::default()
        };
        let facts = AppFacts {
            slot,
            app: slot.state.as_deref().ok(),
            parked,
            placed: &placed,
            rolled: None,
            ledger,
            edits: &edits,
            class: None,
            lane: None,
            protection: protection_of(world, slot),
        };
        let report = app_report(&fleet, &facts, world.now);
        self.stir_policies(world, slot);
        self.remember(slot, edits, report, None);
    }

    /// Entries whose App is gone: tombstones go once acknowledged, everything else stays.
    pub(super) fn account_for_orphans(&mut self, world: &World) {
        for (cluster, uid) in self.orphans.drain(..) {
            if let Some(edits) = self.edits.get_mut(&cluster) {
                edits.remove(&uid);
            }
        }
        for uid in &world.orphans {
            for (cluster, edit) in assignments::acknowledgements(world.ledger(uid)) {
                self.orphans.push((cluster.clone(), uid.clone()));
                self.edits
                    .entry(cluster)
                    .or_default()
                    .insert(uid.clone(), edit);
            }
        }
        self.edits.retain(|_, edits| !edits.is_empty());
    }

    pub(super) fn report_on_fleet(&mut self, world: &World) {
        let fleet = self.report.fleet.clone();
        let status = |view: &ClusterView| {
            let slot = world.clusters.get(&view.name)?;
            Some((
                view.name.clone(),
                cluster_status(world, &fleet, view, slot)?,
            ))
        };
        let clusters: BTreeMap<ClusterName, MemberClusterStatus> =
            fleet.clusters.iter().filter_map(status).collect();
        self.report.clusters = clusters;
        self.report.regions = region_status(world, &fleet, &self.report.quotas);
        self.report.changed = self.unwritten.iter().cloned().collect();
    }

    /// The last step: contents get packs, entries get generations and slices.
    pub(super) fn write_down(&mut self, world: &World, wake: &mut Wake) -> Plan {
        if let Some(at) = self.next_wake() {
            wake.at(at);
        }
        let mut plan = Plan::default();
        let baselines = self.report.baselines.clone();
        let ours = |entry: &Entry| match entry.scope {
            Scope::Policy => self.guarding.data(entry),
            Scope::Namespace | Scope::App => {
                self.linked.data(entry).or(baselines.data(&entry.content))
            }
        };
        let packs = contents::store(world, ours, &self.edits, &mut plan.contents);
        let mut scribe = Scribe {
            world,
            packs: &packs,
            wake,
            writes: &mut plan.slices,
        };
        scribe.write(&self.edits);
        contents::collect(world, &self.edits, wake, &mut plan.collect);
        plan.tenants.clone_from(&self.tenant_writes);
        plan.quotas.clone_from(&self.quota_writes);
        plan.policies = self.guarding.writes.values().cloned().collect();
        plan.holds = self.holds.iter().cloned().collect();
        plan.releases = self.releases.iter().cloned().collect::<Vec<Uid>>();
        plan.wake_at = wake.at;
        plan
    }
}

/// A valid App.
fn valid<'w>(world: &'w World, uid: &Uid) -> Option<(&'w AppSlot, &'w ValidApp)> {
    let slot = world.app(uid)?;
    Some((slot, slot.state.as_deref().ok()?))
}

/// What an App lacks for want of room in its tenant's Quotas: replicas, where it has or would have some.
fn lack(uid: &Uid, placed: &Placed) -> Option<Lacking> {
    let short = placed.short.as_ref()?;
    let Some(Shortage::Quota {
        placed: has,
        wanted,
    }) = placed.shortage
    else {
        return None;
    };
    let here = placed.targets.get(&short.at).map_or(0, |load| load.count());
    Some(Lacking {
        uid: uid.clone(),
        at: short.at,
        has: here,
        more: wanted - has,
    })
}

/// Turns again when a stage begins.
fn stages_ahead(world: &World, slot: &AppSlot, edits: &Edits, wake: &mut Wake) {
    let put = edits.values().filter_map(|edit| match edit {
        Edit::Put(entry) => Some(&**entry),
        Edit::Drop => None,
    });
    let ledger = world.ledger(&slot.uid).into_iter();
    let held = ledger.flat_map(|ledger| ledger.entries.values());
    let entries = put.chain(held.map(|held| &*held.entry));
    let begins = entries.flat_map(|entry| entry.stages.iter().filter_map(|stage| stage.not_before));
    for at in begins.map(crds::Timestamp::millis) {
        if at > world.now {
            wake.at(at);
        }
    }
}

/// How many Apps wait for the same, counted as they come up.
#[derive(Default)]
struct Queue(BTreeMap<String, usize>);

impl Queue {
    /// The place of an App among those that wait for what it waits for: to the number for the first ten,
    /// and to the power of ten beyond, since each step forward is a status to write.
    fn position(&mut self, short: Option<&QuotaShort>) -> Option<usize> {
        let short = short?;
        let key = format!("{:?} {}", short.source, short.resource);
        let place = self.0.entry(key).or_default();
        *place += 1;
        let power = 10_usize.pow((*place - 1).max(1).ilog10());
        Some(if power > 1 { power + 1 } else { *place })
    }
}

/// Why an App is parked: by the gate, for want of a tenant, by the Isolation of its zone, or since another App owns one of its
/// objects.
fn parked(world: &World, report: &PlanReport, slot: &AppSlot) -> Option<Parked> {
    let app = match &slot.state {
        Ok(app) => app,
        Err(parked) => return Some(parked.clone()),
    };
    if let Some(parked) = report.tenants.objection(&slot.namespace) {
        return Some(parked);
    }
    let owner = report.tenants.owner(&slot.namespace);
    let limits = owner.map(|owner| &*owner.limits);
    let too_high = limits.and_then(|limits| limits.tier_objection(app.tier));
    let barred = || report.baselines.objection(limits, app);
    if let Some(parked) = too_high.or_else(barred) {
        return Some(parked);
    }
    let ((kind, name), owner) = world.taken(slot)?;
    let owner = world
        .app(owner)
        .map_or(owner.as_str(), |owner| owner.name.as_str());
    let message = format!(
        "{} {name} in spec.manifests is owned by App {owner}: rename it or take it out of one of the two",
        kind.name()
    );
    Some(Parked::new(Reason::OwnedByOther, message))
}
