//! A waiting room over several guards.

use serde::Serialize;

use super::super::output::{Paint, Painted};
use super::text::short;
use crate::guard::standing::{RoomStanding, RoomState};

/// A waiting room over all guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoomSum {
    /// At the guard where it is open, if at any.
    pub(super) state: RoomState,
    pub(super) waiting: u64,
    pub(super) active: u64,
    pub(super) active_users: u64,
    /// Let in within the last minute.
    pub(super) admitted_per_minute: u64,
    /// How often somebody was told to wait.
    pub(super) refused: u64,
}

impl RoomSum {
    /// Of no guard yet.
    pub(super) const NONE: Self = Self {
        state: RoomState::Closed,
        waiting: 0,
        active: 0,
        active_users: 0,
        admitted_per_minute: 0,
        refused: 0,
    };

    pub(super) fn add(&mut self, room: &RoomStanding) {
        self.state = self.state.max(room.state);
        self.admitted_per_minute += room.admitted_per_minute;
        self.refused += room.refused;
        let people = [
            (&mut self.waiting, room.waiting),
            (&mut self.active, room.active),
            (&mut self.active_users, room.active_users),
        ];
        for (sum, here) in people {
            // What guards have together each tells of all, as it heard last.
            *sum = if room.is_shared {
                (*sum).max(here)
            } else {
                *sum + here
            };
        }
    }

    /// Where it stands, in a few words.
    pub(super) fn state(&self, paint: Paint) -> Painted {
        let people = format!(
            "{} in, {} let in within a minute",
            short(self.active),
            short(self.admitted_per_minute)
        );
        let waiting = short(self.waiting);
        let queue = |why: &str| paint.unsure(&format!("{waiting} queue since {why}; {people}"));
        match self.state {
            RoomState::Closed => paint.good(&format!("Closed, all pass; {people}")),
            RoomState::ActiveUsers => queue("it is full"),
            RoomState::Latency => queue("many requests were slow"),
            RoomState::Errors => queue("many requests failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(is_shared: bool, waiting: u64) -> RoomStanding {
        RoomStanding {
            name: "venue/code".into(),
            is_shared,
            state: RoomState::Closed,
            waiting,
            active: 50,
            active_users: 60,
            admitted_per_minute: 7,
            refused: 3,
        }
    }

    #[test]
    fn people_of_a_room_that_guards_have_together_are_counted_once() {
        let sum = |is_shared| {
            let mut sum = RoomSum::NONE;
            sum.add(&room(is_shared, 12));
            sum.add(&RoomStanding {
                state: RoomState::Errors,
                ..room(is_shared, 10)
            });
            sum
        };
        let shared = sum(true);
        assert_eq!(
            (shared.waiting, shared.active, shared.active_users),
            (12, 50, 60)
        );
        assert_eq!((shared.admitted_per_minute, shared.refused), (14, 6));
        assert_eq!(shared.state, RoomState::Errors);
        let apart = sum(false);
        assert_eq!(
            (apart.waiting, apart.active, apart.active_users),
            (22, 100, 120)
        );
    }
}
