//! What rooms tell people and their tools.

use std::collections::VecDeque;
use std::time::Duration;

use shield::Time;
use shield::policy::Scope;
use shield::room::{Cause, Phase};

use super::{Room, Rooms};
use crate::guard::standing::{RoomStanding, RoomState};

/// Over how long those who were let in are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// How often a look is kept: 60 of them are a minute, and a second more or less tells nobody anything.
const STEP: Duration = Duration::from_secs(1);

/// How many were let in by when.
#[derive(Debug, Default)]
pub(super) struct LastMinute {
    looks: VecDeque<(Time, u64)>,
    last: u64,
}

impl LastMinute {
    /// Notes how many were let in until now.
    pub(super) fn note(&mut self, admitted: u64, now: Time) {
        self.last = admitted;
        let is_due = |(at, _): &(Time, u64)| now.since(*at) >= STEP;
        if self.looks.back().is_none_or(is_due) {
            self.looks.push_back((now, admitted));
        }
        // The look at the window's beginning stays: what came after it is counted.
        while self
            .looks
            .get(1)
            .is_some_and(|(at, _)| now.since(*at) >= WINDOW)
        {
            self.looks.pop_front();
        }
    }

    /// How many were let in within the window, or since the beginning where that is shorter ago.
    pub(super) fn count(&self) -> u64 {
        let before = self
            .looks
            .front()
            .map_or(self.last, |(_, admitted)| *admitted);
        self.last.saturating_sub(before)
    }
}

impl Rooms {
    /// Where each room stands.
    pub(in crate::guard::serve) fn standings(&self) -> Vec<RoomStanding> {
        let rooms = self.by_name.iter();
        rooms.map(|(name, room)| room.standing(name)).collect()
    }
}

impl Room {
    fn standing(&self, name: &str) -> RoomStanding {
        let word = self.live.room.word();
        RoomStanding {
            name: name.to_owned(),
            is_shared: self.scope != Scope::Instance && self.common.is_shared(),
            state: match word.phase {
                Phase::Closed => RoomState::Closed,
                Phase::Open(Cause::ActiveUsers) => RoomState::ActiveUsers,
                Phase::Open(Cause::Latency) => RoomState::Latency,
                Phase::Open(Cause::Errors) => RoomState::Errors,
            },
            waiting: word.waiting,
            active: word.active,
            active_users: self.settings.active_users(),
            admitted_per_minute: self.live.admitted_in_last_minute(),
            refused: self.live.refused(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_let_in_a_minute_ago_is_not_counted_any_more() {
        let mut minute = LastMinute::default();
        let at = |tenths: u64| Time::ZERO.after(Duration::from_millis(tenths * 100));
        for tenth in 0..=300 {
            minute.note(tenth, at(tenth));
        }
        assert_eq!(minute.count(), 300, "since the beginning");
        for tenth in 300..=2000 {
            minute.note(tenth, at(tenth));
            assert!(minute.looks.len() <= 62, "{}", minute.looks.len());
        }
        assert!((600..=610).contains(&minute.count()), "{}", minute.count());
        for tenth in 2000..=2700 {
            minute.note(2000, at(tenth));
        }
        assert_eq!(minute.count(), 0);
    }
}
