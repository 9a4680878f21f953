//! The room that is left in each cluster after every decision was debited.

use super::{At, Load, charges};
use crate::amount::Resources;
use crate::province::regions::Fleet;
use crate::world::{Footprint, World, fleet_capacity};

/// No App asks for more replicas.
const REPLICAS_MAX: i32 = 100_000;

/// Room of all clusters.
#[derive(Clone, Debug)]
pub(crate) struct Room(Vec<ClusterRoom>);

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
    pub(crate) fn of(world: &World, fleet: &Fleet, debits: &[Resources]) -> Self {
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
        Self(fleet.clusters.iter().enumerate().map(room).collect())
    }

    /// What is left as the world stands, before anything is decided anew.
    pub(crate) fn now(world: &World, fleet: &Fleet) -> Self {
        let mut debits = vec![Resources::default(); fleet.clusters.len()];
        for (uid, slot) in world.apps() {
            for (at, amount) in charges(fleet, &slot.footprint, world.ledger(uid)) {
                debits[at].add(&amount, 1);
            }
        }
        Self::of(world, fleet, &debits)
    }

    /// Free thousandths of a core, if the cluster reports cores.
    pub(crate) fn cpu(&self, at: At) -> Option<i64> {
        let mut free = self.0[at].free.iter();
        free.find_map(|(name, amount)| (name == "cpu").then_some(amount))
    }

    /// How many more replicas of an App fit, or `None` where nothing it asks for is limited.
    pub(crate) fn more(&self, at: At, app: &Footprint, first: bool) -> Option<i32> {
        Some(self.fit(at, app, first)).filter(|more| *more < REPLICAS_MAX)
    }

    /// Whether a cluster's capacity is known at all.
    pub(crate) fn known(&self, at: At) -> bool {
        self.0[at].known
    }

    /// How many more replicas of an App fit; `first` when it is not there yet.
    pub(crate) fn fit(&self, at: At, app: &Footprint, first: bool) -> i32 {
        let free = &self.0[at].free;
        if !first || app.fixed == Resources::default() {
            return free.fits(&app.per_replica, REPLICAS_MAX);
        }
        if free.fits(&app.fixed, 1) < 1 {
            return 0;
        }
        free.minus(&app.fixed).fits(&app.per_replica, REPLICAS_MAX)
    }

    /// Takes replicas of an App from the room.
    pub(crate) fn take(&mut self, at: At, app: &Footprint, replicas: i32, first: bool) {
        let room = &mut self.0[at];
        let mut need = Resources::default();
        need.add(&app.per_replica, i64::from(replicas));
        if first {
            need.add(&app.fixed, 1);
        }
        room.free = room.free.minus(&need);
        room.score = room.free.headroom(&room.total);
    }

    /// How empty a cluster is, 0 to 1000.
    pub(crate) fn score(&self, at: At) -> i64 {
        self.0[at].score
    }
}

/// What an App's load in one cluster is charged.
pub(crate) fn debit(app: &Footprint, load: Load) -> Resources {
    let mut sum = app.fixed.clone();
    sum.add(&app.per_replica, i64::from(load.count()));
    sum
}
