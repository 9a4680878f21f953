//! What guard control and the guards say to each other.
//!
//! ```text
//! guard ── POST /v1/exchange (Report) ──────────> control      every 150 ms
//!       <───────────────────── (Answer) ─────────
//!       ── GET /v1/configurations/<revision> ───>              where the answer names a newer one
//!       <─────────────── (Configuration) ────────
//! ```
//!
//! Only a guard asks, so control needs to reach nobody, and a guard that is gone costs nothing. Both
//! documents may grow: what is not known is passed over, and what is not sent has its default.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shield::Share;

use super::rooms::{RoomSummaries, RoomWords};

/// Where reports go.
pub const EXCHANGE: &str = "/v1/exchange";
/// Where configurations are, by revision.
pub const CONFIGURATIONS: &str = "/v1/configurations/";

/// Between two reports of a guard. Shares follow demand in two or three of them, half a second.
pub const PERIOD: Duration = Duration::from_millis(150);
/// So long a guard keeps its shares without an answer, from when it asked for them. It outlasts a change
/// of leaders, of which the longest takes 17 s.
pub const HOLD: Duration = Duration::from_secs(28);
/// So long control counts them as held, from when it was asked: a guard lets go first, by more than the
/// two clocks can differ in this time and an answer can be on its way.
pub const LEASE: Duration = Duration::from_secs(30);
/// Bytes of a report or an answer: a hundred bytes for each of 1,000 policies with 16 shared limits
/// are 1.6 MB, and a room in which a crowd has queued for hours is 80 kB. Rooms are left out of what would
/// be longer: guards then go on alone with their part of each, while limits and configurations are exchanged.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a configuration: 10,000 routes with 200,000 endpoints are 30 MB.
pub const CONFIGURATION_BYTES_MAX: usize = 64 << 20;
/// Guards of one cluster; each is at least a core, and one core passes some 10,000 requests a second.
pub const GUARDS_MAX: usize = 200;
/// Characters of a guard's name, as those of a pod.
pub const NAME_MAX: usize = 253;

/// Something for each shared limit: by policy, then by rule.
pub type ByRule<T> = BTreeMap<String, BTreeMap<String, T>>;

/// What a guard says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Its name, which no other guard has.
    pub guard: String,
    /// Names this run of it.
    #[serde(default)]
    pub session: u64,
    /// Counts the reports of this run: what arrives late counts for nothing.
    #[serde(default)]
    pub sequence: u64,
    /// What it serves by; empty before the first.
    #[serde(default)]
    pub revision: String,
    /// What it was given last and does not serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// Whether it takes requests.
    #[serde(default)]
    pub ready: bool,
    /// Whether it has taken its last one.
    #[serde(default)]
    pub leaves: bool,
    /// What is asked of its shared limits, and how much of each it enforces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub demand: ByRule<Demand>,
    /// What it counts of waiting rooms that it shares. Without it, where all would be too long.
    #[serde(default, skip_serializing_if = "RoomSummaries::is_empty")]
    pub rooms: RoomSummaries,
}

/// A configuration that a guard does not serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which one.
    pub revision: String,
    /// Why.
    pub why: String,
}

/// What is asked of a shared limit at one guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Requests that came to it since the guard began.
    pub offered: u64,
    /// The part of the limit that the guard enforces, in millionths.
    pub share: Share,
}

/// What control answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// What to serve by; none before control knows the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// How many guards hold shared limits together.
    #[serde(default)]
    pub guards: u32,
    /// The part of each shared limit, in millionths. Of one that is not named a guard holds the part of
    /// one of `guards`, but all of one by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: ByRule<Share>,
    /// Who is admitted to waiting rooms that guards share. Nothing is said of a room about which nothing is
    /// to be said yet, and a guard goes on by what it heard last.
    #[serde(default, skip_serializing_if = "RoomWords::is_empty")]
    pub rooms: RoomWords,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The reason, for programs.
    pub title: String,
    /// For people.
    pub detail: String,
}

/// What is sent to and fro.
pub trait Message: Serialize {
    /// Leaves out what rooms say.
    #[must_use]
    fn without_rooms(self) -> Self;
}

impl Message for Report {
    fn without_rooms(self) -> Self {
        let rooms = RoomSummaries::default();
        Self { rooms, ..self }
    }
}

impl Message for Answer {
    fn without_rooms(self) -> Self {
        let rooms = RoomWords::default();
        Self { rooms, ..self }
    }
}

/// A message as it is sent, and whether it is whole: of one that is too long rooms are left out.
pub fn written(message: impl Message) -> Result<(Vec<u8>, bool), serde_json::Error> {
    let document = serde_json::to_vec(&message)?;
    if document.len() <= MESSAGE_BYTES_MAX {
        return Ok((document, true));
    }
    Ok((serde_json::to_vec(&message.without_rooms())?, false))
}

#[cfg(test)]
mod tests {
    use shield::room::Progress;

    use super::*;

    #[test]
    fn a_document_of_a_newer_version_is_read_as_far_as_it_is_known() {
        let text = r#"{"newest":"r1","guards":2,"shares":{"ns/p":{"all":500000}},"later":{"a":1}}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        assert_eq!(answer.shares["ns/p"]["all"], Share::one_of(2));
        let report: Report = serde_json::from_str(r#"{"guard":"g-1"}"#).unwrap();
        assert_eq!(report.revision, "");
    }

    #[test]
    fn rooms_that_would_make_a_message_too_long_are_left_out_of_it() {
        let word = |name: String| (name, Progress::new().word);
        let answer = |rooms: usize| Answer {
            guards: 7,
            rooms: RoomWords((0..rooms).map(|n| word(format!("ns/{n}"))).collect()),
            ..Answer::default()
        };
        let read = |document: &[u8]| serde_json::from_slice::<Answer>(document).unwrap();
        let (document, is_whole) = written(answer(100)).unwrap();
        assert!(is_whole && read(&document) == answer(100));
        let (document, is_whole) = written(answer(30_000)).unwrap();
        assert!(!is_whole && read(&document) == answer(0));
    }
}
