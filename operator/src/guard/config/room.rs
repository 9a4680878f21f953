//! A waiting room as it is handed to a guard.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shield::policy::Scope;
use shield::room::{OpenWhen, RoomSpec};

/// A waiting room. Guards that share it have the same keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WaitingRoom {
    /// Over which guards it is one: `Instance` is each guard for itself, all others are those that
    /// speak to one guard control.
    pub scope: Scope,
    /// How many may be in at once.
    pub active_users: u64,
    /// How many may come in within a minute.
    pub new_per_minute: u64,
    /// How long somebody is in after their last request.
    pub session: Duration,
    /// What opens the queue before `activeUsers` is reached.
    #[serde(default)]
    pub open_when: OpenWhen,
    /// The first signs tickets, a second one is honoured too.
    pub keys: Vec<TicketKey>,
}

/// What tickets are signed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TicketKey {
    /// Part of each ticket, so that two keys can be told apart.
    pub id: u8,
    /// 32 random bytes in base64, for nothing but tickets.
    pub secret: String,
}

impl WaitingRoom {
    /// What it is asked to hold.
    pub fn spec(&self) -> RoomSpec {
        RoomSpec {
            active_users: self.active_users,
            new_per_minute: self.new_per_minute,
            session: self.session,
            open_when: self.open_when,
        }
    }
}

impl fmt::Debug for TicketKey {
    /// Leaves the secret out: what is logged is read by many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_read_as_documented_and_its_secret_is_not_printed() {
        let room: WaitingRoom = serde_json::from_value(serde_json::json!({
            "scope": "Region", "activeUsers": 50_000, "newPerMinute": 20_000,
            "session": {"secs": 300, "nanos": 0},
            "openWhen": {"p99Over": {"secs": 1, "nanos": 0}, "errorPercent": 5},
            "keys": [{"id": 1, "secret": "aGlkZGVu"}],
        }))
        .unwrap();
        assert_eq!(room.spec().active_users, 50_000);
        assert!(!format!("{room:?}").contains("aGlkZGVu"));
    }
}
