//! A waiting room in the words of the configuration.

use crds::{LimitScope, OpenWhen as When, TrafficPolicySpec};
use shield::policy::Scope;
use shield::room::{OpenWhen, RoomSettings, RoomSpec};

use super::translate::span;
use crate::guard::config::{TicketKey, WaitingRoom};

/// A waiting room, but for the keys of its tickets.
#[derive(Clone, Debug)]
pub(super) struct Room {
    scope: Scope,
    spec: RoomSpec,
}

impl Room {
    /// As guards are given it.
    pub(super) fn with(&self, keys: &[TicketKey]) -> WaitingRoom {
        WaitingRoom {
            scope: self.scope,
            active_users: self.spec.active_users,
            new_per_minute: self.spec.new_per_minute,
            session: self.spec.session,
            open_when: self.spec.open_when,
            keys: keys.to_vec(),
        }
    }
}

pub(super) fn read(spec: &TrafficPolicySpec) -> Result<Option<Room>, String> {
    let Some(said) = &spec.waiting_room else {
        return Ok(None);
    };
    let people = |field: &str, number: i64| {
        let bad = || {
            format!("waitingRoom: {field} is {number}, which is no number of people; correct it")
        };
        u64::try_from(number).map_err(|_| bad())
    };
    let spec = RoomSpec {
        active_users: people("activeUsers", said.active_users)?,
        new_per_minute: people("newPerMinute", said.new_per_minute)?,
        session: span("waitingRoom: session", &said.session())?,
        open_when: said
            .open_when
            .as_ref()
            .map_or(Ok(OpenWhen::default()), open_when)?,
    };
    // The shield knows best what it takes.
    RoomSettings::try_from(spec.clone()).map_err(|fault| format!("waitingRoom: {fault}"))?;
    let scope = match said.scope {
        LimitScope::Instance => Scope::Instance,
        // People of a province are counted in each cluster alone, which is said in a condition.
        LimitScope::Cluster | LimitScope::Province => Scope::Cluster,
        LimitScope::Region => Scope::Region,
    };
    Ok(Some(Room { scope, spec }))
}

fn open_when(said: &When) -> Result<OpenWhen, String> {
    let over = said.p99_over.as_ref();
    let over = over.map(|text| span("waitingRoom: openWhen.p99Over", text));
    let percent = said.error_percent.map(|percent| {
        let bad = || {
            format!(
                "waitingRoom: openWhen.errorPercent is {percent}, allowed is 1 to 100; correct it"
            )
        };
        u8::try_from(percent).map_err(|_| bad())
    });
    Ok(OpenWhen {
        p99_over: over.transpose()?,
        error_percent: percent.transpose()?,
    })
}
