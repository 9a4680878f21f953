//! The waiting requests of one target, by class: who goes next and who is pushed out.
//!
//! Each class waits in its own order of arrival. A class that runs fewer requests than it is
//! guaranteed is *owed* the difference: that many of its oldest waiters go before everybody else, and
//! none of them is pushed out for a request that is owed nothing. All others stand by tier.
//!
//! Classes may change while requests of theirs run and wait; see [`Queue::set`].

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
    /// Whose it is; see [`ClassId`].
    number: u64,
    tier: Tier,
    percent: u32,
    /// Whether the class is one of the target's; else the lane is there until nobody runs or waits in it.
    is_kept: bool,
    running: u32,
    /// By number of arrival.
    waiting: BTreeMap<u64, (Time, W)>,
}

impl<W> Lane<W> {
    /// A lane of a class that is not one of the target's: it is guaranteed nothing.
    fn gone(class: ClassId) -> Self {
        Self {
            number: class.number,
            tier: class.tier,
            percent: 0,
            is_kept: false,
            running: 0,
            waiting: BTreeMap::new(),
        }
    }

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

    fn is_needed(&self) -> bool {
        self.is_kept || self.running > 0 || !self.waiting.is_empty()
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
        let mut queue = Self {
            lanes: Vec::new(),
            len: 0,
            arrivals: 0,
        };
        queue.set(classes);
        queue
    }

    /// Changes the classes. Who runs or waits goes on: in its class, if that stays, else by the tier that the
    /// class had.
    pub(crate) fn set(&mut self, classes: &Classes) {
        for lane in &mut self.lanes {
            lane.is_kept = false;
            lane.percent = 0;
        }
        for (id, class) in classes.ids() {
            let lane = self.lane_mut(id);
            lane.is_kept = true;
            lane.tier = class.tier;
            lane.percent = u32::from(class.guaranteed_percent.unwrap_or(0));
        }
        self.lanes.retain(Lane::is_needed);
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
        self.at(class).map_or(class.tier, |at| self.lanes[at].tier)
    }

    /// Notes that a request of this class runs.
    pub(crate) fn started(&mut self, class: ClassId) {
        self.lane_mut(class).running += 1;
    }

    /// Notes that a request of this class runs no longer.
    pub(crate) fn ended(&mut self, class: ClassId) {
        if let Some(at) = self.at(class) {
            let lane = &mut self.lanes[at];
            lane.running = lane.running.saturating_sub(1);
            self.tidy(at);
        }
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
            .filter_map(|(at, lane)| {
                let (&arrival, _) = lane.waiting.first_key_value()?;
                Some((lane.rank(0, limit), arrival, at))
            })
            .min();
        let (_, arrival, at) = next?;
        self.take(at, arrival)
    }

    /// Takes out the newest of those that matter least, if a new request of this class matters more.
    pub(crate) fn displace(&mut self, class: ClassId, limit: u32) -> Option<Waiting<W>> {
        let arriving = self.at(class).map_or_else(
            || Lane::<W>::gone(class).rank(0, limit),
            |at| self.lanes[at].rank(self.lanes[at].waiting.len(), limit),
        );
        let last = self
            .lanes
            .iter()
            .enumerate()
            .filter_map(|(at, lane)| {
                let (&arrival, _) = lane.waiting.last_key_value()?;
                Some((lane.rank(lane.waiting.len() - 1, limit), arrival, at))
            })
            .max();
        let (rank, arrival, at) = last?;
        if rank <= arriving {
            return None;
        }
        self.take(at, arrival)
    }

    /// Takes out one who has waited since this moment or longer.
    pub(crate) fn pop_older(&mut self, since: Time) -> Option<Waiting<W>> {
        let old = self.lanes.iter().enumerate().find_map(|(at, lane)| {
            let (&arrival, (came, _)) = lane.waiting.first_key_value()?;
            (*came <= since).then_some((at, arrival))
        });
        let (at, arrival) = old?;
        self.take(at, arrival)
    }

    /// Takes out the waiter at this place, if it still waits.
    pub(crate) fn remove(&mut self, place: Place) -> Option<Waiting<W>> {
        self.take(self.at(place.class)?, place.arrival)
    }

    fn take(&mut self, at: usize, arrival: u64) -> Option<Waiting<W>> {
        let lane = &mut self.lanes[at];
        let (number, tier) = (lane.number, lane.tier);
        let (_, waiter) = lane.waiting.remove(&arrival)?;
        self.len -= 1;
        self.tidy(at);
        Some(Waiting {
            class: ClassId { number, tier },
            tier,
            waiter,
        })
    }

    /// Forgets a class that is gone when the last of its requests is.
    fn tidy(&mut self, at: usize) {
        if !self.lanes[at].is_needed() {
            self.lanes.swap_remove(at);
        }
    }

    fn at(&self, class: ClassId) -> Option<usize> {
        self.lanes
            .iter()
            .position(|lane| lane.number == class.number)
    }

    /// The lane of a class. One that is gone, of which a request of before comes, has one again.
    fn lane_mut(&mut self, class: ClassId) -> &mut Lane<W> {
        let at = self.at(class).unwrap_or(self.lanes.len());
        if at == self.lanes.len() {
            self.lanes.push(Lane::gone(class));
        }
        &mut self.lanes[at]
    }
}

#[cfg(test)]
mod tests;
