//! The room that is left: in each cluster after every decision was debited, and in the Quotas of tenants.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{At, Load, Standing, charges};
use crate::amount::Resources;
use crate::province::quotas::Book;
use crate::province::regions::Fleet;
use crate::quota::{Node, Tree};
use crate::report::QuotaShort;
use crate::world::{Footprint, World, fleet_capacity};

/// No App asks for more replicas.
const REPLICAS_MAX: i32 = 100_000;

/// Room of all clusters, and of all Quotas.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    clusters: Vec<ClusterRoom>,
    book: Book,
    /// What was taken from Quotas, to be given back at the end of the turn: what really stands in the
    /// ledger is charged then.
    paid: Vec<(Node, i64)>,
    /// What was taken from clusters for the App that is being placed.
    taken: Vec<(At, Resources)>,
    /// Whether more may be used than what is granted, where others lend.
    borrowing: bool,
}

/// What an App took from the room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Receipt {
    paid: Vec<(Node, i64)>,
    taken: Vec<(At, Resources)>,
}

#[derive(Clone, Debug)]
struct ClusterRoom {
    known: bool,
    total: Resources,
    free: Resources,
    /// How empty it is, 0 to 1000; asked for far more often than it changes.
    score: i64,
}

impl Room {
    /// What is left when `debits` are taken from what clusters report. Usage that the debits do not
    /// explain counts as well: pods that are still going away, or whose App is gone.
    pub(crate) fn of(world: &World, fleet: &Fleet, debits: &[Resources], book: Book) -> Self {
        let room = |(at, view): (At, &crate::province::regions::ClusterView)| {
            let report = world.cluster_report(&view.name);
            let known = report.is_some_and(|r| r.nodes.total > 0);
            let (total, managed) = report.map(fleet_capacity).unwrap_or_default();
            let free = total.minus(&managed.at_least(&debits[at]));
            let score = free.headroom(&total);
            ClusterRoom {
                known,
                total,
                free,
                score,
            }
        };
        Self {
            clusters: fleet.clusters.iter().enumerate().map(room).collect(),
            book,
            paid: Vec::new(),
            taken: Vec::new(),
            borrowing: true,
        }
    }

    /// What is left in clusters as the world stands, before anything is decided anew.
    pub(crate) fn now(world: &World, fleet: &Fleet) -> Self {
        let mut debits = vec![Resources::default(); fleet.clusters.len()];
        for (uid, slot) in world.apps() {
            for (at, amount) in charges(fleet, &slot.footprint, world.ledger(uid), world.now) {
                debits[at].add(&amount, 1);
            }
        }
        Self::of(world, fleet, &debits, Book::default())
    }

    /// The Quotas as they were before anything was decided.
    pub(crate) fn into_book(mut self) -> Book {
        self.give_back(0);
        self.book
    }

    /// Whether more may be used than what is granted, where others lend.
    pub(crate) fn lend(&mut self, borrowing: bool) {
        self.borrowing = borrowing;
    }

    /// Whether anybody may use what others are granted.
    pub(crate) fn lends(&self) -> bool {
        self.book.lends()
    }

    /// The grants, with what was taken from them.
    pub(crate) fn tree(&self) -> &Tree {
        self.book.tree()
    }

    /// Takes for granted, in this turn, that so much more or less is used.
    pub(crate) fn assume(&mut self, node: Node, amount: i64) {
        self.book.try_charge(node, amount);
        self.paid.push((node, amount));
    }

    /// Gives back what was taken for granted.
    pub(crate) fn release(&mut self, kept: impl IntoIterator<Item = (Node, i64)>) {
        for (node, amount) in kept {
            self.assume(node, -amount);
        }
    }

    /// What was taken since the last receipt, by one App.
    pub(crate) fn receipt(&mut self, before: usize) -> Receipt {
        Receipt {
            paid: self.paid[before..].to_vec(),
            taken: std::mem::take(&mut self.taken),
        }
    }

    /// How many payments were made so far.
    pub(crate) fn payments(&self) -> usize {
        self.paid.len()
    }

    /// Takes back what an App took, so that it can be placed anew.
    pub(crate) fn refund(&mut self, receipt: &Receipt) {
        for (node, amount) in &receipt.paid {
            self.assume(*node, -amount);
        }
        for (at, need) in &receipt.taken {
            let room = &mut self.clusters[*at];
            // Only of what the cluster reports.
            let mut back = Resources::default();
            back.add(need, -1);
            room.free = room.free.minus(&back);
            room.score = room.free.headroom(&room.total);
        }
    }

    /// How much more may be used of a node, and which node on the way up leaves no more.
    fn left(&self, node: Node) -> (i64, Node) {
        self.book.room(node, self.borrowing)
    }

    /// Free thousandths of a core, if the cluster reports cores.
    pub(crate) fn cpu(&self, at: At) -> Option<i64> {
        let mut free = self.clusters[at].free.iter();
        free.find_map(|(name, amount)| (name == "cpu").then_some(amount))
    }

    /// How many more replicas of an App fit into a cluster, or `None` where nothing it asks for is
    /// limited.
    pub(crate) fn more(&self, at: At, app: &Footprint, first: bool) -> Option<i32> {
        Some(self.cluster_fit(at, app, first)).filter(|more| *more < REPLICAS_MAX)
    }

    /// Whether a cluster's capacity is known at all.
    pub(crate) fn known(&self, at: At) -> bool {
        self.clusters[at].known
    }

    /// How many more replicas of an App fit; `has` are those that it has there, if it is there.
    pub(crate) fn fit(&self, at: At, standing: &Standing<'_>, has: Option<i32>) -> i32 {
        let cluster = self.cluster_fit(at, &standing.app.footprint, has.is_none());
        if standing.desks.is_none() || cluster == 0 {
            return cluster;
        }
        let granted = self.granted(at, standing).saturating_sub(has.unwrap_or(0));
        cluster.min(granted.max(0))
    }

    pub(super) fn cluster_fit(&self, at: At, app: &Footprint, first: bool) -> i32 {
        let free = &self.clusters[at].free;
        if !first || app.fixed == Resources::default() {
            return free.fits(&app.per_replica, REPLICAS_MAX);
        }
        if free.fits(&app.fixed, 1) < 1 {
            return 0;
        }
        free.minus(&app.fixed).fits(&app.per_replica, REPLICAS_MAX)
    }

    /// The most replicas that an App may have in a cluster by the Quotas of its tenant.
    pub(super) fn granted(&self, at: At, standing: &Standing<'_>) -> i32 {
        let Some(desks) = &standing.desks else {
            return REPLICAS_MAX;
        };
        let (desk, due) = (desks.desk(at), &standing.app.footprint.charges);
        let none = Resources::default();
        let paid = standing.charged.decided.get(&at).unwrap_or(&none);
        if desk.is_empty() {
            return 0;
        }
        let dues = || std::iter::once(due).chain(&standing.earlier);
        let asked = |resource: &str| dues().any(|due| due.each.get(resource) > 0);
        let limits = desk.iter().filter(|(resource, _)| asked(resource));
        let most = limits.flat_map(|(resource, node)| {
            let all = self.left(*node).0.saturating_add(paid.get(resource));
            dues().map(move |due| due.most(resource, all - due.fixed.get(resource)))
        });
        let most = most.min().unwrap_or(i64::MAX);
        let most = most.clamp(0, REPLICAS_MAX.into());
        i32::try_from(most).unwrap_or(REPLICAS_MAX)
    }

    /// What one more replica of an App, or its first, lacks in a cluster that would have room for it.
    pub(crate) fn short_of(
        &self,
        standing: &Standing<'_>,
        at: At,
        has: Option<i32>,
    ) -> Option<Arc<QuotaShort>> {
        let cluster = self.cluster_fit(at, &standing.app.footprint, has.is_none());
        if cluster == 0 || self.fit(at, standing, has) > 0 {
            return None;
        }
        let need = standing.need(has.unwrap_or(0).saturating_add(1));
        // What it has there is paid for by now.
        let mut paid = has.map(|has| standing.need(has)).unwrap_or_default();
        if let Some(before) = standing.charged.decided.get(&at) {
            paid = paid.at_least(before);
        }
        self.lack(standing, at, &need, &paid)
    }

    /// What of a need the Quotas have no room for, when so much of it is paid for.
    fn lack(
        &self,
        standing: &Standing<'_>,
        at: At,
        need: &Resources,
        paid: &Resources,
    ) -> Option<Arc<QuotaShort>> {
        let desk = standing.desks.as_ref()?.desk(at);
        if desk.is_empty() {
            return Some(Arc::new(QuotaShort::missing(at)));
        }
        desk.iter().find_map(|(resource, node)| {
            let more = (need.get(resource) - paid.get(resource)).max(0);
            let (left, tightest) = self.left(*node);
            let (source, _) = self.book.name(tightest);
            let tree = self.book.tree();
            (more > left).then(|| {
                Arc::new(QuotaShort {
                    at,
                    source: Some(source.clone()),
                    resource: resource.clone(),
                    needs: more,
                    nominal: tree.grant(tightest).nominal,
                })
            })
        })
    }

    /// Takes what an App needs beyond what it is charged already; nothing at all if that is more than
    /// there is.
    pub(crate) fn pay(
        &mut self,
        standing: &Standing<'_>,
        targets: &BTreeMap<At, Load>,
    ) -> Result<(), Arc<QuotaShort>> {
        let Some(desks) = standing.desks.clone() else {
            return Ok(());
        };
        let mark = self.paid.len();
        for (at, load) in targets {
            // What shrinks does so after what it has was changed.
            let had = standing.keep.get(at).map_or(0, |had| had.count());
            let need = standing.need(load.count().max(had));
            if let Some(short) = self.lack_of(standing, *at, &need) {
                self.give_back(mark);
                return Err(short);
            }
            for (resource, node) in desks.desk(*at) {
                let more = grows(standing, *at, &need, resource);
                if more > 0 {
                    self.book.try_charge(*node, more);
                    self.paid.push((*node, more));
                }
            }
        }
        Ok(())
    }

    /// As `lack`, but where the tenant has no Quota only growth lacks one.
    fn lack_of(
        &self,
        standing: &Standing<'_>,
        at: At,
        need: &Resources,
    ) -> Option<Arc<QuotaShort>> {
        let desk = standing.desks.as_ref()?.desk(at);
        if desk.is_empty() && !more_than_charged(standing, at, need) {
            return None;
        }
        let none = Resources::default();
        self.lack(
            standing,
            at,
            need,
            standing.charged.decided.get(&at).unwrap_or(&none),
        )
    }

    /// Whether an App could pay, without doing it.
    pub(crate) fn could_pay(
        &mut self,
        standing: &Standing<'_>,
        targets: &BTreeMap<At, Load>,
    ) -> bool {
        let mark = self.paid.len();
        let could = self.pay(standing, targets).is_ok();
        self.give_back(mark);
        could
    }

    fn give_back(&mut self, mark: usize) {
        for (node, amount) in self.paid.drain(mark..).rev() {
            self.book.try_charge(node, -amount);
        }
    }

    /// Takes replicas of an App from the room of a cluster.
    pub(crate) fn take(&mut self, at: At, app: &Footprint, replicas: i32, first: bool) {
        let room = &mut self.clusters[at];
        let mut need = Resources::default();
        need.add(&app.per_replica, i64::from(replicas));
        if first {
            need.add(&app.fixed, 1);
        }
        room.free = room.free.minus(&need);
        room.score = room.free.headroom(&room.total);
        self.taken.push((at, need));
    }

    /// How empty a cluster is, 0 to 1000.
    pub(crate) fn score(&self, at: At) -> i64 {
        self.clusters[at].score
    }
}

/// How much more of a resource is needed than is charged already.
fn grows(standing: &Standing<'_>, at: At, need: &Resources, resource: &str) -> i64 {
    let charged = standing
        .charged
        .decided
        .get(&at)
        .map_or(0, |c| c.get(resource));
    (need.get(resource) - charged).max(0)
}

/// Whether anything is needed beyond what is charged already.
pub(super) fn more_than_charged(standing: &Standing<'_>, at: At, need: &Resources) -> bool {
    need.iter()
        .any(|(resource, _)| grows(standing, at, need, resource) > 0)
}

/// What an App's load in one cluster is charged.
pub(crate) fn debit(app: &Footprint, load: Load) -> Resources {
    let mut sum = app.fixed.clone();
    sum.add(&app.per_replica, i64::from(load.count()));
    sum
}
