//! The waiting requests of one target, by class: who goes next and who is pushed out.
//!
//! Each class waits in its own order of arrival. A class that runs fewer requests than it is
//! guaranteed is *owed* the difference: that many of its oldest waiters go before everybody else, and
//! none of them is pushed out for a request that is owed nothing. All others stand by tier.

use std::collections::BTreeMap;

use crate::Time;
use crate::tier::{ClassId, Classes, Tier};

/// Where a waiting request stands; it stays true while others come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub(crate) class: ClassId,
    arrival: u64,
}

/// A request taken out of the queue.
#[derive(Debug)]
pub(crate) struct Waiting<W> {
    pub(crate) class: ClassId,
    pub(crate) tier: Tier,
    pub(crate) waiter: W,
}

/// Standing of a waiter: what is owed goes first, then the more important tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    borrows: bool,
    tier: Tier,
}

#[derive(Debug)]
struct Lane<W> {
    tier: Tier,
    percent: u32,
    running: u32,
    /// By number of arrival.
    waiting: BTreeMap<u64, (Time, W)>,
}

impl<W> Lane<W> {
    /// How many more requests this class may run before it borrows from others.
    fn owed(&self, limit: u32) -> usize {
        if self.percent == 0 {
            return 0;
        }
        // Rounded down the guarantees fit into the limit together; but a guarantee of nothing would
        // be none, so each is at least one.
        let guaranteed = (u64::from(limit) * u64::from(self.percent) / 100).max(1);
        usize::try_from(guaranteed.saturating_sub(u64::from(self.running))).unwrap_or(usize::MAX)
    }

    /// The rank of the waiter with so many of its class before it.
    fn rank(&self, before: usize, limit: u32) -> Rank {
        Rank {
            borrows: before >= self.owed(limit),
            tier: self.tier,
        }
    }
}

/// Requests that run and requests that wait, by class.
#[derive(Debug)]
pub(crate) struct Queue<W> {
    lanes: Vec<Lane<W>>,
    len: usize,
    arrivals: u64,
}

impl<W> Queue<W> {
    pub(crate) fn new(classes: &Classes) -> Self {
        let lanes = classes.as_slice().iter().map(|class| Lane {
            tier: class.tier,
            percent: u32::from(class.guaranteed_percent.unwrap_or(0)),
            running: 0,
            waiting: BTreeMap::new(),
        });
        Self {
            lanes: lanes.collect(),
            len: 0,
            arrivals: 0,
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many of each tier wait, in the order of [`Tier::ALL`].
    pub(crate) fn len_by_tier(&self) -> [usize; 4] {
        let mut waiting = [0; 4];
        for lane in &self.lanes {
            waiting[lane.tier.index()] += lane.waiting.len();
        }
        waiting
    }

    /// The tier of a class.
    pub(crate) fn tier(&self, class: ClassId) -> Tier {
        self.lane(class).tier
    }

    /// Notes that a request of this class runs.
    pub(crate) fn started(&mut self, class: ClassId) {
        self.lane_mut(class).running += 1;
    }

    /// Notes that a request of this class runs no longer.
    pub(crate) fn ended(&mut self, class: ClassId) {
        let lane = self.lane_mut(class);
        lane.running = lane.running.saturating_sub(1);
    }

    /// Lets a request wait behind those of its class.
    pub(crate) fn push(&mut self, class: ClassId, since: Time, waiter: W) -> Place {
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.len += 1;
        self.lane_mut(class)
            .waiting
            .insert(arrival, (since, waiter));
        Place { class, arrival }
    }

    /// Takes out whoever goes next.
    pub(crate) fn pop(&mut self, limit: u32) -> Option<Waiting<W>> {
        let next = self
            .lanes
            .iter()
            .enumerate()
            .filter_map(|(index, lane)| {
                let (&arrival, _) = lane.waiting.first_key_value()?;
                Some((lane.rank(0, limit), arrival, index))
            })
            .min();
        let (_, arrival, index) = next?;
        self.take(ClassId(index), arrival)
    }

    /// Takes out the newest of those that matter least, if a new request of this class matters more.
    pub(crate) fn displace(&mut self, class: ClassId, limit: u32) -> Option<Waiting<W>> {
        let lane = self.lane(class);
        let arriving = lane.rank(lane.waiting.len(), limit);
        let last = self
            .lanes
            .iter()
            .enumerate()
            .filter_map(|(index, lane)| {
                let (&arrival, _) = lane.waiting.last_key_value()?;
                Some((lane.rank(lane.waiting.len() - 1, limit), arrival, index))
            })
            .max();
        let (rank, arrival, index) = last?;
        if rank <= arriving {
            return None;
        }
        self.take(ClassId(index), arrival)
    }

    /// Takes out one who has waited since this moment or longer.
    pub(crate) fn pop_older(&mut self, since: Time) -> Option<Waiting<W>> {
        let old = self.lanes.iter().enumerate().find_map(|(index, lane)| {
            let (&arrival, (at, _)) = lane.waiting.first_key_value()?;
            (*at <= since).then_some((index, arrival))
        });
        let (index, arrival) = old?;
        self.take(ClassId(index), arrival)
    }

    /// Since when the oldest has waited.
    pub(crate) fn oldest(&self) -> Option<Time> {
        let fronts = self
            .lanes
            .iter()
            .filter_map(|lane| lane.waiting.first_key_value());
        fronts.map(|(_, (since, _))| *since).min()
    }

    /// Takes out the waiter at this place, if it still waits.
    pub(crate) fn remove(&mut self, place: Place) -> Option<Waiting<W>> {
        self.take(place.class, place.arrival)
    }

    fn take(&mut self, class: ClassId, arrival: u64) -> Option<Waiting<W>> {
        let lane = self.lane_mut(class);
        let tier = lane.tier;
        let (_, waiter) = lane.waiting.remove(&arrival)?;
        self.len -= 1;
        Some(Waiting {
            class,
            tier,
            waiter,
        })
    }

    fn lane(&self, class: ClassId) -> &Lane<W> {
        self.lanes
            .get(class.0)
            .expect("a class id comes from the classes of this target")
    }

    fn lane_mut(&mut self, class: ClassId) -> &mut Lane<W> {
        self.lanes
            .get_mut(class.0)
            .expect("a class id comes from the classes of this target")
    }
}

#[cfg(test)]
mod tests;
