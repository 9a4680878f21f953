//! Taking back what was lent. An App that waits for what its tenant is granted, while others use more
//! than they are, gets it: their entries get a second stage with fewer replicas, that begins after a
//! grace time. The agents follow it with or without the hub.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{Tier, Uid};

use super::memory::Planner;
use super::placement::{At, Load, Room};
use crate::amount::Resources;
use crate::quota::{Node, Tree};
use crate::world::{AppState, World};

/// Cuts in one turn; what is still lacking then is looked at in the next one.
const CUTS_MAX: usize = 2_000;

/// Replicas that an App may keep in a cluster after the grace time.
pub(super) type Cuts = BTreeMap<At, i32>;

/// What an App waits for.
#[derive(Clone, Debug)]
pub(super) struct Lacking {
    pub(super) uid: Uid,
    /// The cluster in which it shows.
    pub(super) at: At,
    /// What is needed there in addition.
    pub(super) need: Resources,
}

/// What is owed to a grant.
struct Debt {
    resource: Arc<str>,
    amount: i64,
    /// The grant that leaves no more,
    top: Node,
    /// and the one right below it that has a right to more.
    branch: Node,
}

/// Replicas that could be taken back.
struct Borrower {
    uid: Uid,
    at: At,
    tier: Tier,
    created: i64,
    /// Replicas that it has left.
    count: i32,
    least: i32,
}

impl Planner {
    /// Which replicas are taken back for the Apps that lack something they have a right to.
    pub(super) fn reclaim(&mut self, world: &World, room: &mut Room, lacking: &[Lacking]) {
        let mut debts = Vec::new();
        for lack in lacking {
            let Some(desks) = self.payer(&lack.uid).desks else {
                continue;
            };
            for (resource, node) in desks.desk(lack.at) {
                if let Some(debt) = owed(room.tree(), *node, resource, lack.need.get(resource)) {
                    // What is owed to one is not owed to the next as well.
                    room.assume(*node, debt.amount);
                    debts.push(debt);
                }
            }
        }
        let mut cuts: BTreeMap<Uid, Cuts> = BTreeMap::new();
        if !debts.is_empty() {
            let mut borrowers = self.borrowers(world);
            for debt in &debts {
                self.take_back(world, room, debt, &mut borrowers, &mut cuts);
            }
        }
        let before = std::mem::replace(&mut self.cuts, cuts);
        let uids: Vec<Uid> = before.keys().chain(self.cuts.keys()).cloned().collect();
        for uid in uids {
            let changed = before.get(&uid) != self.cuts.get(&uid);
            if changed || !self.stands_in_ledger(world, &uid) {
                self.decide_again(world, &uid);
            }
        }
    }

    /// Whether every cut of an App is in its entries.
    fn stands_in_ledger(&self, world: &World, uid: &Uid) -> bool {
        let (Some(cuts), Some(ledger)) = (self.cuts.get(uid), world.ledger(uid)) else {
            return true;
        };
        cuts.iter().all(|(at, count)| {
            let cluster = &self.report.fleet.clusters[*at].name;
            let entry = ledger.entries.get(cluster).map(|held| &held.entry);
            entry.is_some_and(|entry| {
                let last = entry.stages.last().filter(|_| entry.stages.len() > 1);
                last.is_some_and(|last| Load::of_stage(last).count() == *count)
            })
        })
    }

    /// All replicas that a Quota is charged for and that could be fewer.
    fn borrowers(&self, world: &World) -> Vec<Borrower> {
        let mut borrowers = Vec::new();
        for (uid, slot) in world.apps() {
            let payer = self.payer(uid);
            let Ok(app) = &slot.state else { continue };
            if payer.desks.is_none() || slot.life != AppState::Held {
                continue;
            }
            let ledger = world.ledger(uid);
            let current = super::placement::current(&self.report.fleet, ledger, world.now);
            for (at, load) in current {
                let least = match load {
                    Load::Manifests => continue,
                    Load::Replicas(_) => 0,
                    // An autoscaler has at least one.
                    Load::Autoscaled(_) => 1,
                };
                borrowers.push(Borrower {
                    uid: uid.clone(),
                    at,
                    tier: app.tier,
                    created: slot.created,
                    count: load.count(),
                    least,
                });
            }
        }
        borrowers
    }

    /// Cuts replicas until a debt is paid: of the lowest tier first, of the tenant that borrows most
    /// for what it has, and the youngest; nobody below what he is granted.
    fn take_back(
        &self,
        world: &World,
        room: &mut Room,
        debt: &Debt,
        borrowers: &mut [Borrower],
        cuts: &mut BTreeMap<Uid, Cuts>,
    ) {
        let mut left = debt.amount;
        for _ in 0..CUTS_MAX {
            if left <= 0 {
                return;
            }
            let tree = room.tree();
            let mut able = Vec::new();
            for (index, borrower) in borrowers.iter().enumerate() {
                let Some((node, count)) = self.could_give(world, tree, debt, borrower, left) else {
                    continue;
                };
                let rank = (
                    Reverse(borrower.tier),
                    Reverse(share(tree, node, debt.top)),
                    Reverse(borrower.created),
                    borrower.uid.clone(),
                    borrower.at,
                );
                able.push((rank, index, count));
            }
            let Some((_, index, count)) = able.into_iter().min() else {
                return;
            };
            let borrower = &mut borrowers[index];
            let freed = frees(world, borrower, count);
            if let Some(desks) = self.payer(&borrower.uid).desks {
                for (resource, node) in desks.desk(borrower.at) {
                    room.assume(*node, -freed.get(resource));
                }
            }
            left -= freed.get(&debt.resource);
            borrower.count -= count;
            let mine = cuts.entry(borrower.uid.clone()).or_default();
            mine.insert(borrower.at, borrower.count);
        }
    }

    /// The node on which a borrower draws, and how many replicas it could give back for a debt.
    fn could_give(
        &self,
        world: &World,
        tree: &Tree,
        debt: &Debt,
        borrower: &Borrower,
        left: i64,
    ) -> Option<(Node, i32)> {
        let desks = self.payer(&borrower.uid).desks?;
        let mut desk = desks.desk(borrower.at).iter();
        let (_, node) = desk.find(|(resource, _)| *resource == debt.resource)?;
        let most = beyond(tree, *node, debt)?;
        // A quarter at a time, so that equal ones give alike.
        let mut count = (borrower.count - borrower.least).min((borrower.count + 3) / 4);
        while count > 0 {
            let freed = frees(world, borrower, count).get(&debt.resource);
            let fewer = frees(world, borrower, count - 1).get(&debt.resource);
            if freed > 0 && freed <= most && fewer < left {
                return Some((*node, count));
            }
            count -= 1;
        }
        None
    }
}

/// What so many replicas fewer free.
fn frees(world: &World, borrower: &Borrower, count: i32) -> Resources {
    let due = world.app(&borrower.uid).map(|slot| &slot.footprint.charges);
    let at = |count| due.map(|due| due.at(count)).unwrap_or_default();
    at(borrower.count).minus(&at(borrower.count - count))
}

/// What a grant lacks of what it may always use, since others use more than they may always.
fn owed(tree: &Tree, node: Node, resource: &str, need: i64) -> Option<Debt> {
    let (room, top) = tree.shortfall(node);
    if need <= room || top == node {
        return None;
    }
    let (mut right, mut branch) = (need, node);
    while branch != top {
        right = right.min(tree.grant(branch).nominal - tree.used(branch));
        let above = tree.parent(branch)?;
        if above == top {
            break;
        }
        branch = above;
    }
    (right > 0 && right > room).then(|| Debt {
        resource: resource.into(),
        amount: right - room,
        top,
        branch,
    })
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
