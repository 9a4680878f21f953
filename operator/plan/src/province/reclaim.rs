//! Taking back what was lent. An App that waits for what its tenant is granted, while others use more
//! than they are, gets it: their entries get a second stage with fewer replicas, that begins after a
//! grace time, or at once in an emergency. The agents follow it with or without the hub.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{Tier, Uid};

use super::emergency::Lane;
use super::memory::Planner;
use super::placement::{At, Consequence, Load, Room};
use super::regions::Reach;
use crate::amount::Resources;
use crate::charge::Charges;
use crate::quota::{Node, Tree};
use crate::world::{AppState, World};

/// Cuts in one turn, each of which looks at all borrowers; what is still lacking then is looked at in the
/// next one.
const CUTS_MAX: usize = 200;

/// In which order borrowers give: those that cannot now last, those in the emergency lane before them, then
/// the lowest tier, whose tenant borrows most for what it has, and the youngest.
type Rank<'b> = (
    bool,
    bool,
    Reverse<Tier>,
    Reverse<i64>,
    Reverse<i64>,
    &'b Uid,
    At,
);

/// What is taken back from an App, by cluster.
pub(super) type Cuts = BTreeMap<At, Cut>;

/// Replicas that an App may keep in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// From now on, when an emergency asks for them.
    pub(super) now: i32,
    /// After the grace time.
    pub(super) then: i32,
}

/// What an App waits for.
#[derive(Clone, Debug)]
pub(super) struct Lacking {
    pub(super) uid: Uid,
    /// The cluster in which it shows.
    pub(super) at: At,
    /// Replicas that it has there, and how many more it could use. For a change that asks for more
    /// nothing is taken back.
    pub(super) has: i32,
    pub(super) more: i32,
}

/// What an App has a right to of one resource, where it lacks something.
struct Claim {
    node: Node,
    amount: i64,
    right: Right,
}

/// What is owed to a grant.
struct Debt {
    resource: Arc<str>,
    amount: i64,
    /// Whether it is owed to an emergency, which has no time.
    urgent: bool,
    /// The grant that leaves no more,
    top: Node,
    /// and the one right below it that has a right to more.
    branch: Node,
}

/// Replicas that could be taken back.
struct Borrower {
    uid: Uid,
    at: At,
    /// Whether its cluster is out of contact, so that it could not give now.
    away: bool,
    /// Whether it is in the emergency lane itself.
    urgent: bool,
    tier: Tier,
    created: i64,
    /// Replicas that it has left.
    count: i32,
    least: i32,
    /// What it is charged there.
    due: Charges,
}

impl Borrower {
    /// What so many replicas fewer free.
    fn frees(&self, count: i32) -> Resources {
        self.due
            .at(self.count)
            .minus(&self.due.at(self.count - count))
    }
}

impl Planner {
    /// Which replicas are taken back for the Apps that lack something they have a right to.
    pub(super) fn reclaim(&mut self, world: &World, room: &mut Room, lacking: &[Lacking]) {
        let mut cuts: BTreeMap<Uid, Cuts> = BTreeMap::new();
        if !lacking.is_empty() {
            self.assume_done(room);
            let (mut borrowers, mut steps) = (None, CUTS_MAX);
            for lack in lacking {
                // What one takes is free before the next one asks.
                for debt in self.debts(world, room, lack) {
                    let borrowers = borrowers.get_or_insert_with(|| self.borrowers(world));
                    self.take_back(room, &debt, borrowers, &mut cuts, &mut steps);
                }
            }
        }
        let before = std::mem::replace(&mut self.cuts, cuts);
        let uids: BTreeSet<Uid> = before.keys().chain(self.cuts.keys()).cloned().collect();
        for uid in uids {
            let changed = before.get(&uid) != self.cuts.get(&uid);
            if changed || !self.stands_in_ledger(world, &uid) {
                self.decide_again(world, &uid);
            }
        }
    }

    /// Takes for granted what was decided: what still runs beyond it is on its way back, and is not taken
    /// back twice.
    fn assume_done(&self, room: &mut Room) {
        for payer in self.payers() {
            let Some(desks) = &payer.desks else { continue };
            for (at, running) in &payer.charged.running {
                let decided = payer.charged.decided.get(at);
                for (resource, node) in desks.desk(*at) {
                    let done = decided.map_or(0, |decided| decided.get(resource));
                    room.assume(*node, done - running.get(resource));
                }
            }
        }
    }

    /// What is owed to an App, of which it takes what there is.
    fn debts(&self, world: &World, room: &mut Room, lack: &Lacking) -> Vec<Debt> {
        let urgent = world.app(&lack.uid).is_some_and(|slot| {
            let app = slot.state.as_deref();
            app.is_ok_and(|app| Lane::is_open(world, slot, app))
        });
        let mut debts = Vec::new();
        for Claim {
            node,
            amount,
            right,
        } in self.claims(world, room, lack)
        {
            // What is owed to one is not owed to the next as well.
            room.assume(node, amount);
            if let Some((top, branch)) = right.owed.filter(|_| amount > right.room) {
                debts.push(Debt {
                    amount: amount - right.room,
                    resource: right.resource,
                    urgent,
                    top,
                    branch,
                });
            }
        }
        debts
    }

    /// Keeps what is owed to an App from those who would borrow it: nobody else takes it while what runs
    /// there ends, bit by bit. What was kept, to be given back before the App is placed itself.
    pub(super) fn keep(&self, world: &World, room: &mut Room, lack: &Lacking) -> Vec<(Node, i64)> {
        let claims = self.claims(world, room, lack);
        let kept: Vec<(Node, i64)> = claims.iter().map(|c| (c.node, c.amount)).collect();
        for (node, amount) in &kept {
            room.assume(*node, *amount);
        }
        kept
    }

    /// What is owed to an App: whole replicas that its tenant has a right to in every resource, or nothing.
    fn claims(&self, world: &World, room: &Room, lack: &Lacking) -> Vec<Claim> {
        let payer = self.payer(&lack.uid);
        let Some((desks, slot)) = payer.desks.zip(world.app(&lack.uid)) else {
            return Vec::new();
        };
        let due = &slot.footprint.charges;
        // What it has there is paid for, in the ledger or in this turn.
        let decided = payer.charged.decided.get(&lack.at);
        let mut had = decided.cloned().unwrap_or_default();
        if lack.has > 0 {
            had = had.at_least(&due.at(lack.has));
        }
        let growth = |more: i32| {
            let then = due.at(lack.has.saturating_add(more));
            then.at_least(&had).minus(&had)
        };
        let desk = desks.desk(lack.at);
        let rights = desk.iter();
        let rights = rights.map(|(resource, node)| right(room.tree(), *node, resource));
        let rights: Vec<Right> = rights.collect();
        // Who would only borrow more is owed nothing, and claims nothing.
        if rights.iter().all(|right| right.owed.is_none()) {
            return Vec::new();
        }
        let fits = |more: i32| {
            let growth = growth(more);
            let mut rights = rights.iter();
            rights.all(|right| growth.get(&right.resource) <= right.most)
        };
        let Some(more) = largest(lack.more, fits) else {
            return Vec::new();
        };
        let growth = growth(more);
        let claim = |(right, (_, node)): (Right, &(Arc<str>, Node))| Claim {
            node: *node,
            amount: growth.get(&right.resource),
            right,
        };
        rights.into_iter().zip(desk).map(claim).collect()
    }

    /// Whether every cut of an App is in its entries.
    fn stands_in_ledger(&self, world: &World, uid: &Uid) -> bool {
        let (Some(cuts), Some(ledger)) = (self.cuts.get(uid), world.ledger(uid)) else {
            return true;
        };
        cuts.iter().all(|(at, cut)| {
            let cluster = &self.report.fleet.clusters[*at].name;
            let entry = ledger.entries.get(cluster).map(|held| &held.entry);
            entry.is_some_and(|entry| {
                let last = entry.stages.last().filter(|_| entry.stages.len() > 1);
                last.is_some_and(|last| Load::of_stage(last).count() == cut.then)
            })
        })
    }

    /// All replicas that a Quota is charged for and that could be fewer.
    fn borrowers(&self, world: &World) -> Vec<Borrower> {
        let mut borrowers = Vec::new();
        let fleet = &self.report.fleet;
        for (uid, slot) in world.apps() {
            let Ok(app) = &slot.state else { continue };
            let limited = self.payer(uid).desks.is_some();
            if !limited || slot.life != AppState::Held || self.is_parked(world, slot) {
                continue;
            }
            for (at, load) in super::placement::current(fleet, world.ledger(uid), world.now) {
                let least = match load {
                    Load::Manifests => continue,
                    Load::Replicas(_) => 0,
                    // An autoscaler has at least one.
                    Load::Autoscaled(_) => 1,
                };
                let cluster = &fleet.clusters[at].name;
                let entry = world.ledger(uid).and_then(|l| l.entries.get(cluster));
                if let Some(held) = entry.filter(|_| self.stays(uid, at)) {
                    borrowers.push(Borrower {
                        uid: uid.clone(),
                        at,
                        away: fleet.clusters[at].reach != Reach::InContact,
                        urgent: Lane::is_open(world, slot, app),
                        tier: app.tier,
                        created: slot.created,
                        count: load.count(),
                        least,
                        due: Charges::of(&held.entry.charge),
                    });
                }
            }
        }
        borrowers
    }

    /// Whether an App's entry in a cluster may be changed: it is not leaving, and enough is known.
    fn stays(&self, uid: &Uid, at: At) -> bool {
        let report = self.report.apps.get(uid);
        let refusal = report.and_then(|report| report.refusal(at));
        refusal.is_none_or(|why| why.consequence() == Consequence::Stay)
    }

    /// Cuts replicas until a debt is paid: of the lowest tier first, of the tenant that borrows most
    /// for what it has, and the youngest; nobody below what he is granted.
    fn take_back(
        &self,
        room: &mut Room,
        debt: &Debt,
        borrowers: &mut [Borrower],
        cuts: &mut BTreeMap<Uid, Cuts>,
        steps: &mut usize,
    ) {
        let mut left = debt.amount;
        while left > 0 && *steps > 0 {
            *steps -= 1;
            let tree = room.tree();
            let mut best: Option<(Rank<'_>, usize, i32)> = None;
            for (index, borrower) in borrowers.iter().enumerate() {
                let Some((node, count)) = self.could_give(tree, debt, borrower, left) else {
                    continue;
                };
                let rank = (
                    borrower.away,
                    borrower.urgent,
                    Reverse(borrower.tier),
                    Reverse(share(tree, node, debt.top)),
                    Reverse(borrower.created),
                    &borrower.uid,
                    borrower.at,
                );
                if best.as_ref().is_none_or(|(known, ..)| rank < *known) {
                    best = Some((rank, index, count));
                }
            }
            let Some((_, index, count)) = best else {
                return;
            };
            let borrower = &mut borrowers[index];
            let freed = borrower.frees(count);
            if let Some(desks) = self.payer(&borrower.uid).desks {
                for (resource, node) in desks.desk(borrower.at) {
                    room.assume(*node, -freed.get(resource));
                }
            }
            left -= freed.get(&debt.resource);
            let mine = cuts.entry(borrower.uid.clone()).or_default();
            let cut = mine.entry(borrower.at).or_insert(Cut {
                now: borrower.count,
                then: borrower.count,
            });
            borrower.count -= count;
            cut.then -= count;
            if debt.urgent {
                cut.now -= count;
            }
        }
    }

    /// The node on which a borrower draws, and how many replicas it could give back for a debt: no more
    /// than pay it, and a quarter at a time, so that equal ones give alike.
    fn could_give(
        &self,
        tree: &Tree,
        debt: &Debt,
        borrower: &Borrower,
        left: i64,
    ) -> Option<(Node, i32)> {
        let desks = self.payer(&borrower.uid).desks?;
        let mut desk = desks.desk(borrower.at).iter();
        let (_, node) = desk.find(|(resource, _)| *resource == debt.resource)?;
        let most = beyond(tree, *node, debt)?;
        let freed = |count| borrower.frees(count).get(&debt.resource);
        let able = (borrower.count - borrower.least).min((borrower.count + 3) / 4);
        // No more than are beyond what is granted, and none that is not needed.
        let bearable = largest(able, |count| freed(count) <= most)?;
        let enough = largest(bearable, |count| freed(count) < left).unwrap_or(0) + 1;
        let count = enough.min(bearable);
        (freed(count) > 0).then_some((*node, count))
    }
}

/// The largest number from 1 to `most` for which something holds that holds for all smaller ones.
fn largest(most: i32, holds: impl Fn(i32) -> bool) -> Option<i32> {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low + 1) / 2;
        if holds(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    (low > 0).then_some(low)
}

/// How much more a tenant may use of a resource.
struct Right {
    resource: Arc<str>,
    /// What there is now; below zero where more is used than may be.
    room: i64,
    /// What it has a right to.
    most: i64,
    /// Which grant leaves no more, and the one right below it that has a right to more.
    owed: Option<(Node, Node)>,
}

/// What a tenant may use more of a resource: what there is, or what it may always use and others do.
fn right(tree: &Tree, node: Node, resource: &Arc<str>) -> Right {
    let (room, top) = tree.shortfall(node);
    let mut right = Right {
        resource: resource.clone(),
        room,
        most: room.max(0),
        owed: None,
    };
    if top == node || tree.is_closed(node, top) {
        return right;
    }
    let (mut most, mut branch) = (i64::MAX, node);
    loop {
        most = most.min(tree.grant(branch).nominal - tree.used(branch));
        match tree.parent(branch) {
            Some(above) if above != top => branch = above,
            Some(_) | None => break,
        }
    }
    if most > right.most {
        right.most = most;
        right.owed = Some((top, branch));
    }
    right
}

/// What could be taken from those who draw on a node before anybody on the way up has less than he is
/// granted; `None` when that is nothing, or when they are not among those who owe.
fn beyond(tree: &Tree, node: Node, debt: &Debt) -> Option<i64> {
    if node == debt.top {
        // What it keeps for itself is what it does not grant on.
        let own = tree.grant(node).nominal - tree.carved(node);
        return Some(tree.own(node) - own).filter(|most| *most > 0);
    }
    let (mut at, mut most) = (node, i64::MAX);
    while at != debt.top {
        if at == debt.branch {
            return None;
        }
        most = most.min(tree.used(at) - tree.grant(at).nominal);
        at = tree.parent(at)?;
    }
    Some(most).filter(|most| *most > 0)
}

/// What a tenant right below a grant borrows, in thousandths of what it is granted.
fn share(tree: &Tree, node: Node, top: Node) -> i64 {
    let mut branch = node;
    while let Some(above) = tree.parent(branch).filter(|_| branch != top) {
        if above == top {
            break;
        }
        branch = above;
    }
    let nominal = tree.grant(branch).nominal.max(1);
    tree.borrowed(branch).saturating_mul(1000) / nominal
}
