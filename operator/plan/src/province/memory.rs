//! What the planner remembers between turns, so that a turn costs what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{ClusterName, NamespaceName, Tier, Uid};

use super::assignments::{Edit, Edits};
use super::emergency::Lane;
use super::isolation::{Linked, Presence};
use super::placement::{self, At, Class, Payer, Placed};
use super::protection::Guarding;
use super::quotas::{Book, Dockets, QuotaWrite};
use super::reclaim::Cuts;
use super::regions::Wake;
use super::tenancy::TenantWrite;
use super::tenants::Limits;
use crate::amount::Resources;
use crate::report::{AppReport, PlanReport, differs, quota_statuses, tenant_statuses};
use crate::world::{AppSlot, ValidApp, World, is_of_policy};

/// The place of an App in the order in which room is given out: those in the emergency lane first, which
/// for them is false, then by tier, age and UID.
pub(super) type Turn = (bool, Tier, i64, Uid);

/// Decides as [`plan`](super::plan) does, but remembers what it decided for Apps nothing has
/// changed for.
#[derive(Debug, Default)]
pub struct Planner {
    classes: BTreeMap<(Arc<str>, Arc<Limits>), Arc<Class>>,
    memos: BTreeMap<Uid, Memo>,
    /// Last change of the world that was looked at; `None` before the first turn.
    pub(super) seen: Option<u64>,
    /// The state of Tenants and namespaces that was looked at last.
    tenancy: Option<u64>,
    /// What is to be written for them.
    pub(super) tenant_writes: Vec<TenantWrite>,
    /// Apps whose tenant changed.
    pub(super) stirred: BTreeSet<Uid>,
    /// What of Quotas is in force and used.
    pub(super) book: Book,
    /// The state of ledgers, of tenants and of Quotas' coming and going that the book was made from.
    ledgers_seen: Option<(u64, u64, u64)>,
    /// What is known of Quotas, Region by Region.
    dockets: Dockets,
    /// How often the book was made anew.
    pub(super) books: u64,
    /// The state of Quotas and of tenants that was decided on last.
    quotas: Option<(u64, u64)>,
    /// Whether the book was made anew, so that anything may have changed about any Quota.
    quotas_anew: bool,
    /// Last change of a Quota that was looked at.
    quotas_seen: Option<u64>,
    /// Replicas that are taken back, by App.
    pub(super) cuts: BTreeMap<Uid, Cuts>,
    /// What is to be written for Quotas.
    pub(super) quota_writes: Vec<QuotaWrite>,
    /// What entries are charged whose App is gone.
    orphans_charged: Vec<(NamespaceName, At, Resources)>,
    /// Where Apps stand.
    pub(super) presence: Presence,
    /// The state of Isolations that was looked at last.
    pub(super) isolations_seen: Option<u64>,
    /// The state of tenants and of what is in force for which namespaces were enclosed last.
    pub(super) enclosed_for: Option<(u64, u64)>,
    /// The state of Links that was looked at last, and of their statuses.
    pub(super) links_seen: Option<(u64, u64)>,
    pub(super) links_told: Option<u64>,
    /// Contents of namespaces with Links that are to be stored.
    pub(super) linked: Linked,
    /// What is known of TrafficPolicies.
    pub(super) guarding: Guarding,
    /// Whether all namespaces are to be looked at again.
    pub(super) enclosed_anew: bool,
    /// What an App without a tenant may use.
    unlimited: Arc<Limits>,
    /// Apps that need room, in their order.
    pub(super) waiting: BTreeSet<Turn>,
    /// When Apps are to be decided anew by the passing of time.
    wakes: BTreeSet<(i64, Uid)>,
    pub(super) holds: BTreeSet<Uid>,
    pub(super) releases: BTreeSet<Uid>,
    /// Apps whose status differs from the one last written.
    pub(super) unwritten: BTreeSet<Uid>,
    /// What all Apps hold in each cluster, by the ledger.
    pub(super) debits: Vec<Resources>,
    /// Edits that the ledger does not have yet.
    pub(super) edits: BTreeMap<ClusterName, BTreeMap<Uid, Edit>>,
    /// Which of them are for Apps that are gone.
    pub(super) orphans: Vec<(ClusterName, Uid)>,
    pub(super) report: PlanReport,
}

/// What was decided for an App, and what has to be undone when it is decided anew.
#[derive(Debug, Default)]
struct Memo {
    /// Its place among those that need room, if it does.
    turn: Option<Turn>,
    /// What was placed on the room there was.
    placed: Option<Placed>,
    charge: Vec<(At, Resources)>,
    /// Namespace, and what Quotas are charged for it.
    payer: Option<(NamespaceName, Payer)>,
    clusters: Vec<ClusterName>,
    /// Namespace, and where the App stands or is about to.
    stands: Option<(NamespaceName, Vec<At>)>,
    wake: Option<i64>,
}

/// Charges Quotas for an App, `times` 1, or takes the charge back, -1.
fn pay(book: &mut Book, payer: &Payer, times: i64) {
    if let Some(desks) = &payer.desks {
        for (at, amount) in payer.charged.iter() {
            book.charge(desks.desk(*at), amount, times);
        }
    }
}

impl Planner {
    /// What was decided in the last turn, and why.
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    pub(super) fn into_report(self) -> PlanReport {
        self.report
    }

    /// A changed fleet changes candidates, so every App is decided anew.
    pub(super) fn see_fleet(&mut self, world: &World, wake: &mut Wake) {
        let (fleet, at) = super::regions::fleet(world);
        if let Some(at) = at {
            wake.at(at);
        }
        if fleet != *self.report.fleet {
            *self = Self::default();
            self.debits = vec![Resources::default(); fleet.clusters.len()];
            self.report.fleet = Arc::new(fleet);
        }
    }

    /// Changed tenants change what their Apps may use. A Tenant that is being deleted waits for what
    /// is inside, so that its next step may come by any change.
    pub(super) fn see_tenants(&mut self, world: &World) {
        let seen = self.tenancy.replace(world.tenancy) == Some(world.tenancy);
        if !seen {
            self.compare_tenants(world);
        }
        if !seen || world.tenants().any(|(_, tenant)| tenant.deleting) {
            let tenants = &self.report.tenants;
            self.tenant_writes = super::tenancy::writes(world, &self.report.fleet, tenants);
            self.report.tenant_statuses = tenant_statuses(world, tenants);
        }
    }

    fn compare_tenants(&mut self, world: &World) {
        let now = super::tenants::tenants(world, &self.report.fleet);
        let before = std::mem::replace(&mut self.report.tenants, Arc::new(now));
        let now = &self.report.tenants;
        let homes = before.homes().chain(now.homes());
        let changed = homes.filter(|home| before.says(home) != now.says(home));
        let changed: BTreeSet<_> = changed.collect();
        let stirred = changed.into_iter().flat_map(|home| world.apps_in(home));
        self.stirred.extend(stirred.cloned());
    }

    /// Changed Quotas change what Apps may have, as soon as they are in the ledger.
    pub(super) fn see_quotas(&mut self, world: &World) {
        let tenancy = world.tenancy;
        let now = (world.ledger_changes, tenancy, world.quota_index.shape);
        let before = self.ledgers_seen.replace(now);
        if before == Some(now) {
            return;
        }
        let tenants_same = before.is_some_and(|(_, seen, _)| seen == tenancy);
        if !tenants_same || !self.book.update(world) {
            self.reopen_book(world);
            self.quotas_anew = true;
            self.books += 1;
        }
    }

    /// Decides on Quotas once it is known what is used. What comes into force counts from the next turn
    /// on, when it is in the ledger.
    pub(super) fn grant(&mut self, world: &World) {
        let seen = (world.quota_changes, world.tenancy);
        let same = self.quotas.replace(seen) == Some(seen);
        let mut news = BTreeSet::new();
        // What leaves does so by what is used.
        if !same || self.report.quotas.leaving {
            let (fleet, tenants) = (&self.report.fleet, &self.report.tenants);
            let dockets = &mut self.dockets;
            let granting = super::quotas::granting(world, fleet, tenants, &self.book, dockets);
            self.quota_writes = super::quotas::writes(world, &granting, dockets);
            let before = std::mem::replace(&mut self.report.quotas, Arc::new(granting));
            news = before.differences(&self.report.quotas);
        }
        let seen = self.quotas_seen.replace(world.quota_journal.clock());
        let heard = seen.and_then(|seen| world.quota_journal.since(seen));
        let heard = heard.filter(|_| !std::mem::take(&mut self.quotas_anew));
        let news = heard.map(|heard| {
            news.extend(heard.cloned());
            news
        });
        let (granting, differ) = (self.report.quotas.clone(), &mut self.report.quota_statuses);
        quota_statuses(world, &granting, &mut self.book, news, differ);
    }

    /// Begins the book anew. Apps that draw from elsewhere than before are decided anew.
    fn reopen_book(&mut self, world: &World) {
        let fleet = self.report.fleet.clone();
        let mut book = Book::of(world, &fleet);
        let mut moved = BTreeMap::new();
        for (uid, memo) in &mut self.memos {
            let Some(slot) = world.app(uid) else {
                // It is about to be forgotten, and this book never charged it.
                memo.payer = None;
                continue;
            };
            let now = book.desks(world, &fleet, &slot.namespace);
            let moved = *moved
                .entry(&slot.namespace)
                .or_insert_with(|| !self.book.same_sources(&slot.namespace, &book, now.as_ref()));
            match (&mut memo.payer, now) {
                (Some((_, payer)), Some(now)) if !moved => {
                    payer.desks = Some(now);
                    pay(&mut book, payer, 1);
                }
                (None, None) => {}
                (Some(_) | None, _) => {
                    memo.payer = None;
                    self.stirred.insert(uid.clone());
                }
            }
        }
        self.orphans_charged.clear();
        self.book = book;
    }

    /// Charges Quotas for entries whose App is gone, until their removal is acknowledged.
    pub(super) fn charge_orphans(&mut self, world: &World) {
        let fleet = self.report.fleet.clone();
        for (own, at, amount) in std::mem::take(&mut self.orphans_charged) {
            if let Some(desks) = self.book.desks(world, &fleet, &own) {
                self.book.charge(desks.desk(at), &amount, -1);
            }
        }
        for uid in &world.orphans {
            let ledger = world.ledger(uid);
            let mut entries = ledger
                .into_iter()
                .flat_map(|ledger| ledger.entries.values());
            let Some(own) = entries.next().map(|held| held.entry.namespace.clone()) else {
                continue;
            };
            let Some(desks) = self.book.desks(world, &fleet, &own) else {
                continue;
            };
            for (at, amount) in placement::charged(&fleet, None, ledger, world.now).iter() {
                self.book.charge(desks.desk(*at), amount, 1);
                self.orphans_charged
                    .push((own.clone(), *at, amount.clone()));
            }
        }
    }

    /// Apps to decide: those that changed, and those whose time has come.
    pub(super) fn due(&mut self, world: &World) -> BTreeSet<Uid> {
        let changed = self.seen.and_then(|seen| world.journal.since(seen));
        let mut due: BTreeSet<Uid> = match changed {
            Some(changed) => changed.cloned().collect(),
            None => world
                .apps
                .keys()
                .chain(self.memos.keys())
                .chain(world.policy_uids.keys())
                .chain(world.ledger.keys().filter(|uid| is_of_policy(uid)))
                .cloned()
                .collect(),
        };
        due.append(&mut self.stirred);
        let now = self.wakes.iter().take_while(|(at, _)| *at <= world.now);
        due.extend(now.map(|(_, uid)| uid.clone()));
        self.seen = Some(world.journal.clock());
        due
    }

    pub(super) fn next_wake(&self) -> Option<i64> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Undoes everything that was decided for an App.
    pub(super) fn forget(&mut self, uid: &Uid) {
        let Some(memo) = self.memos.remove(uid) else {
            return;
        };
        for (at, amount) in memo.charge {
            self.debits[at].add(&amount, -1);
        }
        if let Some((_, payer)) = memo.payer {
            pay(&mut self.book, &payer, -1);
        }
        for cluster in memo.clusters {
            if let Some(edits) = self.edits.get_mut(&cluster) {
                edits.remove(uid);
                if edits.is_empty() {
                    self.edits.remove(&cluster);
                }
            }
        }
        if let Some((namespace, at)) = memo.stands {
            self.presence.go(&namespace, &at);
        }
        if let Some(turn) = memo.turn {
            self.waiting.remove(&turn);
        }
        if let Some(wake) = memo.wake {
            self.wakes.remove(&(wake, uid.clone()));
        }
        self.holds.remove(uid);
        self.releases.remove(uid);
        self.unwritten.remove(uid);
    }

    /// The candidates of an App and of all that share its filters.
    pub(super) fn class(&mut self, slot: &AppSlot, app: &ValidApp) -> Arc<Class> {
        let fleet = &self.report.fleet;
        let owner = self.report.tenants.owner(&slot.namespace);
        let limits = owner.map_or(&self.unlimited, |tenant| &tenant.limits);
        self.classes
            .entry((app.filter_key.clone(), limits.clone()))
            .or_insert_with(|| placement::class_of(fleet, app, limits))
            .clone()
    }

    /// Debits what the ledger says an App holds, removals that are not acknowledged included.
    pub(super) fn charge(&mut self, world: &World, slot: &AppSlot) {
        let fleet = &self.report.fleet;
        let charge = placement::charges(fleet, &slot.footprint, world.ledger(&slot.uid), world.now);
        for (at, amount) in &charge {
            self.debits[*at].add(amount, 1);
        }
        let desks = self.book.desks(world, fleet, &slot.namespace);
        let payer = desks.map(|desks| {
            let charged = placement::charged(
                fleet,
                Some(&slot.footprint),
                world.ledger(&slot.uid),
                world.now,
            );
            let payer = Payer {
                charged: Arc::new(charged),
                desks: Some(desks),
            };
            pay(&mut self.book, &payer, 1);
            (slot.namespace.clone(), payer)
        });
        let memo = self.memos.entry(slot.uid.clone()).or_default();
        (memo.charge, memo.payer) = (charge, payer);
    }

    /// What Quotas are charged for an App, and where it draws from.
    pub(super) fn payer(&self, uid: &Uid) -> Payer {
        let memo = self.memos.get(uid).and_then(|memo| memo.payer.as_ref());
        memo.map(|(_, payer)| payer.clone()).unwrap_or_default()
    }

    /// What Quotas are charged, App by App.
    pub(super) fn payers(&self) -> impl Iterator<Item = &Payer> {
        let memos = self.memos.values();
        memos.filter_map(|memo| memo.payer.as_ref().map(|(_, payer)| payer))
    }

    /// Lets an App wait for its turn at the room.
    pub(super) fn queue(&mut self, world: &World, slot: &AppSlot, app: &ValidApp) {
        let calm = !Lane::is_open(world, slot, app);
        let turn = (calm, app.tier, slot.created, slot.uid.clone());
        self.waiting.insert(turn.clone());
        self.memos.entry(slot.uid.clone()).or_default().turn = Some(turn);
    }

    /// Whether an App was placed just so before.
    pub(super) fn knows(&self, uid: &Uid, placed: &Placed) -> bool {
        self.memos
            .get(uid)
            .and_then(|memo| memo.placed.as_ref())
            .is_some_and(|known| known.same_outcome(placed))
    }

    /// What was placed on the room there was, if the App needs room.
    pub(super) fn placed(&self, uid: &Uid) -> Option<Placed> {
        let memo = self.memos.get(uid)?;
        memo.turn.as_ref()?;
        memo.placed.clone()
    }

    /// Remembers what was placed on the room there was.
    pub(super) fn remember_placed(&mut self, uid: &Uid, placed: Placed) {
        self.memos.entry(uid.clone()).or_default().placed = Some(placed);
    }

    /// Remembers edits and report in place of earlier ones.
    pub(super) fn remember(
        &mut self,
        slot: &AppSlot,
        edits: Edits,
        report: AppReport,
        wake: Option<i64>,
    ) {
        let uid = &slot.uid;
        let memo = self.memos.entry(uid.clone()).or_default();
        for cluster in std::mem::take(&mut memo.clusters) {
            if let Some(edits) = self.edits.get_mut(&cluster) {
                edits.remove(uid);
            }
        }
        if let Some(before) = memo.wake.take() {
            self.wakes.remove(&(before, uid.clone()));
        }
        memo.clusters = edits.keys().cloned().collect();
        let fleet = &self.report.fleet;
        let mut stands: Vec<At> = memo.charge.iter().map(|(at, _)| *at).collect();
        for (cluster, edit) in &edits {
            let new = matches!(edit, Edit::Put(_));
            stands.extend(
                fleet
                    .position(cluster)
                    .filter(|at| new && !stands.contains(at)),
            );
        }
        self.presence
            .come(&slot.namespace, &stands, fleet.clusters.len());
        let before = memo.stands.replace((slot.namespace.clone(), stands));
        if let Some((namespace, at)) = before {
            self.presence.go(&namespace, &at);
        }
        memo.wake = wake;
        self.wakes.extend(wake.map(|at| (at, uid.clone())));
        for (cluster, edit) in edits {
            self.edits
                .entry(cluster)
                .or_default()
                .insert(uid.clone(), edit);
        }
        if differs(&report.status, &slot.status) {
            self.unwritten.insert(uid.clone());
        } else {
            self.unwritten.remove(uid);
        }
        self.report.apps.insert(uid.clone(), Arc::new(report));
    }
}
