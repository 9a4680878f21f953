//! What a room is asked to hold, checked once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A room as it is written down, in whatever state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoomSpec {
    /// How many may be in at once, over all guards of the scope.
    pub active_users: u64,
    /// How many may come in within a minute, over all guards of the scope.
    pub new_per_minute: u64,
    /// How long somebody is in after their last request.
    pub session: Duration,
    /// What opens the queue before `activeUsers` is reached.
    #[serde(default)]
    pub open_when: OpenWhen,
}

/// Signs of a service in distress that open the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenWhen {
    /// More than one request in a hundred takes longer than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_over: Option<Duration>,
    /// At least so many requests in a hundred fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_percent: Option<u8>,
}

/// A room that can be kept: a [`RoomSpec`] whose every field is within its bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RoomSpec", into = "RoomSpec")]
pub struct RoomSettings(RoomSpec);

/// Why a room cannot be kept as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Nobody, or more than can be counted, may be in.
    #[error("activeUsers is {0}; set it to 1..={MOST_USERS}")]
    ActiveUsers(u64),
    /// Nobody, or more than can be counted, may come.
    #[error("newPerMinute is {0}; set it to 1..={MOST_USERS}")]
    NewPerMinute(u64),
    /// A session that is over before the next request, or blocks a slot for hours.
    #[error("session is {0:?}; set it to {SHORTEST_SESSION:?}..={LONGEST_SESSION:?}")]
    Session(Duration),
    /// A limit that every request exceeds.
    #[error("openWhen.p99Over is zero; set it to 1ms or more, or leave it out")]
    P99Over,
    /// A share that always or never is reached.
    #[error("openWhen.errorPercent is {0}; set it to 1..=100, or leave it out")]
    ErrorPercent(u8),
}

/// A hundred million: more than any province has citizens, and a second's worth of it in
/// nanoseconds fits the arithmetic of admission.
pub const MOST_USERS: u64 = 100_000_000;
/// Two of the shortest intervals at which who waits asks again.
pub const SHORTEST_SESSION: Duration = Duration::from_secs(10);
/// Who reads a page for an hour is not a load.
pub const LONGEST_SESSION: Duration = Duration::from_hours(1);

impl RoomSettings {
    /// How many may be in at once.
    pub const fn active_users(&self) -> u64 {
        self.0.active_users
    }

    /// How many may come in within a minute.
    pub const fn new_per_minute(&self) -> u64 {
        self.0.new_per_minute
    }

    /// How long somebody is in after their last request.
    pub const fn session(&self) -> Duration {
        self.0.session
    }

    /// What opens the queue early.
    pub const fn open_when(&self) -> OpenWhen {
        self.0.open_when
    }
}

impl TryFrom<RoomSpec> for RoomSettings {
    type Error = SettingsError;

    fn try_from(spec: RoomSpec) -> Result<Self, SettingsError> {
        let countable = 1..=MOST_USERS;
        if !countable.contains(&spec.active_users) {
            return Err(SettingsError::ActiveUsers(spec.active_users));
        }
        if !countable.contains(&spec.new_per_minute) {
            return Err(SettingsError::NewPerMinute(spec.new_per_minute));
        }
        if !(SHORTEST_SESSION..=LONGEST_SESSION).contains(&spec.session) {
            return Err(SettingsError::Session(spec.session));
        }
        if spec.open_when.p99_over == Some(Duration::ZERO) {
            return Err(SettingsError::P99Over);
        }
        match spec.open_when.error_percent {
            Some(percent) if !(1..=100).contains(&percent) => {
                Err(SettingsError::ErrorPercent(percent))
            }
            Some(_) | None => Ok(Self(spec)),
        }
    }
}

impl From<RoomSettings> for RoomSpec {
    fn from(settings: RoomSettings) -> Self {
        settings.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut RoomSpec);

    fn spec() -> RoomSpec {
        RoomSpec {
            active_users: 50_000,
            new_per_minute: 20_000,
            session: Duration::from_mins(5),
            open_when: OpenWhen {
                p99_over: Some(Duration::from_secs(1)),
                error_percent: Some(5),
            },
        }
    }

    #[test]
    fn a_field_out_of_bounds_is_refused_by_its_name() {
        assert!(RoomSettings::try_from(spec()).is_ok());
        let cases: [(Change, &str); 8] = [
            (|spec| spec.active_users = 0, "activeUsers"),
            (|spec| spec.active_users = MOST_USERS + 1, "activeUsers"),
            (|spec| spec.new_per_minute = 0, "newPerMinute"),
            (|spec| spec.session = Duration::from_secs(9), "session"),
            (|spec| spec.session = Duration::from_secs(3601), "session"),
            (
                |spec| spec.open_when.p99_over = Some(Duration::ZERO),
                "p99Over",
            ),
            (
                |spec| spec.open_when.error_percent = Some(0),
                "errorPercent",
            ),
            (
                |spec| spec.open_when.error_percent = Some(101),
                "errorPercent",
            ),
        ];
        for (change, field) in cases {
            let mut spec = spec();
            change(&mut spec);
            let error = RoomSettings::try_from(spec).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn settings_are_checked_when_they_are_read() {
        let mut json = serde_json::to_value(spec()).unwrap();
        assert_eq!(json["activeUsers"], 50_000);
        let read: RoomSettings = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(RoomSpec::from(read), spec());
        json["newPerMinute"] = 0.into();
        let error = serde_json::from_value::<RoomSettings>(json).unwrap_err();
        assert!(error.to_string().contains("newPerMinute"), "{error}");
    }
}
