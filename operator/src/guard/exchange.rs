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

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shield::Share;
use shield::room::{Summary, Watermark};

use super::config::Opening;
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
/// be longer: guards then go on alone with their part of those.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of them for shared limits: 30,000 with names of 50 characters. What is beyond guards hold in even parts.
/// A dozen rooms in which crowds queue have place beside them.
pub const LIMITS_BYTES_MAX: usize = 3 << 20;
/// What is said of one beside its name: `"":{"offered":18446744073709551615,"share":1000000},`.
const LIMIT_BYTES: usize = 52;
/// What is around those of a policy: `"":{},`.
const POLICY_BYTES: usize = 6;
/// Bytes of a configuration: 10,000 routes with 200,000 endpoints are 30 MB.
pub const CONFIGURATION_BYTES_MAX: usize = 64 << 20;
/// Guards of one cluster; each is at least a core, and one core passes some 10,000 requests a second.
pub const GUARDS_MAX: usize = 200;
/// Ports that a guard names as not open. Of its own it has two or three; that there are many, where a machine
/// lacks an address, is told by the first of them as well. They are 15 kB of a report.
pub const CLOSED_MAX: usize = 256;
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
    /// What it serves by, on all ports; empty before the first.
    #[serde(default)]
    pub revision: String,
    /// What it serves by where some of its ports are not open. A control that does not know this waits for
    /// `revision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partly: Option<Partly>,
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
    /// What it counts of waiting rooms that it shares. Without those that would make it too long.
    #[serde(default, skip_serializing_if = "RoomSummaries::is_empty")]
    pub rooms: RoomSummaries,
}

/// A configuration that a guard serves on some of its ports only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partly {
    /// Which one.
    #[serde(default)]
    pub revision: String,
    /// The ports that the guard cannot open, in their order; of more than [`CLOSED_MAX`] the first.
    #[serde(default)]
    pub closed: Vec<Opening>,
    /// Whether there are more, all of them after these.
    #[serde(default)]
    pub has_more: bool,
}

impl Report {
    /// The revision that its guard serves by, if only on some ports.
    pub fn serves(&self) -> Option<&str> {
        let partly = self.partly.as_ref().map(|partly| &partly.revision);
        let revision = partly.unwrap_or(&self.revision).as_str();
        (!revision.is_empty()).then_some(revision)
    }
}

impl Partly {
    /// What is said of these ports, which stand in their order.
    pub fn new(revision: String, closed: Vec<Opening>) -> Self {
        let all = Self {
            revision,
            closed,
            has_more: false,
        };
        all.bounded()
    }

    /// The same, where somebody else may have written it.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.has_more |= self.closed.len() > CLOSED_MAX;
        self.closed.truncate(CLOSED_MAX);
        self
    }
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
    /// What it says of a room.
    type Room: Serialize;
    /// What it says of a limit.
    type Limit;

    /// What it says of rooms, by their names.
    fn rooms(&mut self) -> &mut BTreeMap<String, Self::Room>;
    /// What it says of limits.
    fn limits(&mut self) -> &mut ByRule<Self::Limit>;
}

impl Message for Report {
    type Room = Summary;
    type Limit = Demand;

    fn rooms(&mut self) -> &mut BTreeMap<String, Summary> {
        &mut self.rooms.0
    }

    fn limits(&mut self) -> &mut ByRule<Demand> {
        &mut self.demand
    }
}

impl Message for Answer {
    type Room = Watermark;
    type Limit = Share;

    fn rooms(&mut self) -> &mut BTreeMap<String, Watermark> {
        &mut self.rooms.0
    }

    fn limits(&mut self) -> &mut ByRule<Share> {
        &mut self.shares
    }
}

/// A message as it is sent, and whether it is whole. Of one that would be too long is left out what is longest
/// of the namespace that says most, again and again: what one has never ends the sharing of another.
pub fn written(mut message: impl Message) -> Result<(Vec<u8>, bool), serde_json::Error> {
    // By their names alone, always: what is told of one time and not the next would be held twice.
    let policies = message.limits();
    let left_out = too_much(&lengths(policies), LIMITS_BYTES_MAX);
    policies.retain(|name, _| !left_out.contains(name));
    let document = serde_json::to_vec(&message)?;
    if document.len() <= MESSAGE_BYTES_MAX {
        return Ok((document, left_out.is_empty()));
    }
    let mut rooms = BTreeMap::new();
    for (name, room) in message.rooms() {
        // With quotes, a colon and a comma.
        let bytes = serde_json::to_vec(room)?.len() + name.len() + 4;
        rooms.insert(name.as_str(), bytes);
    }
    let of_rooms: usize = rooms.values().sum();
    let others = document.len().saturating_sub(of_rooms);
    let left_out = too_much(&rooms, MESSAGE_BYTES_MAX.saturating_sub(others));
    message.rooms().retain(|name, _| !left_out.contains(name));
    Ok((serde_json::to_vec(&message)?, false))
}

/// The most that policies' limits can take in a message.
fn lengths<T>(policies: &ByRule<T>) -> BTreeMap<&str, usize> {
    let lengths = policies.iter().map(|(name, rules)| {
        let rules = rules.keys().map(|rule| rule.len() + LIMIT_BYTES);
        let rules: usize = rules.sum();
        (name.as_str(), name.len() + POLICY_BYTES + rules)
    });
    lengths.collect()
}

/// Which of these, with their lengths, to leave out so that the others have at most so many bytes.
fn too_much(lengths: &BTreeMap<&str, usize>, most: usize) -> BTreeSet<String> {
    let mut total: usize = lengths.values().sum();
    let mut left_out = BTreeSet::new();
    if total <= most {
        return left_out;
    }
    let mut namespaces: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for (name, bytes) in lengths {
        let namespace = name.split_once('/').map_or("", |(namespace, _)| namespace);
        namespaces
            .entry(namespace)
            .or_default()
            .push((*bytes, *name));
    }
    let mut heap = BinaryHeap::new();
    for mut items in namespaces.into_values() {
        items.sort_unstable();
        let bytes: usize = items.iter().map(|(bytes, _)| *bytes).sum();
        heap.push((bytes, items));
    }
    while total > most {
        let Some((bytes, mut items)) = heap.pop() else {
            break;
        };
        if let Some((longest, name)) = items.pop() {
            total -= longest;
            left_out.insert(name.to_owned());
            heap.push((bytes - longest, items));
        }
    }
    left_out
}

#[cfg(test)]
mod tests {
    use shield::room::Progress;
    use shield::ticket::Wall;

    use super::*;

    #[test]
    fn a_document_of_a_newer_version_is_read_as_far_as_it_is_known() {
        let text = r#"{"newest":"r1","guards":2,"shares":{"ns/p":{"all":500000}},"later":{"a":1}}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        assert_eq!(answer.shares["ns/p"]["all"], Share::one_of(2));
        let report: Report = serde_json::from_str(r#"{"guard":"g-1"}"#).unwrap();
        assert_eq!(report.revision, "");
        assert_eq!(
            report.partly, None,
            "an older guard says nothing of its ports"
        );
    }

    #[test]
    fn of_very_many_closed_ports_the_first_are_told() {
        let opening = |port| Opening {
            address: None,
            port,
        };
        let few = Partly::new("r".into(), vec![opening(80)]);
        assert!(!few.has_more && few.closed == [opening(80)]);
        let text = serde_json::to_string(&few).unwrap();
        assert_eq!(
            text,
            r#"{"revision":"r","closed":[{"port":80}],"hasMore":false}"#
        );
        let many = Partly::new("r".into(), (1..=300).map(opening).collect());
        assert!(many.has_more && many.closed.len() == CLOSED_MAX);
    }

    fn read(document: &[u8]) -> Answer {
        assert!(document.len() <= MESSAGE_BYTES_MAX, "{}", document.len());
        serde_json::from_slice(document).unwrap()
    }

    /// Rooms of these names with so many points each.
    fn answer(rooms: impl IntoIterator<Item = (String, u64)>) -> Answer {
        let word = |(name, points): (String, u64)| {
            let mut word = Progress::new().word;
            let point = |people| shield::room::Ahead {
                until: Wall::default(),
                people,
            };
            word.ahead = (0..points).map(point).collect();
            (name, word)
        };
        Answer {
            guards: 7,
            rooms: RoomWords(rooms.into_iter().map(word).collect()),
            ..Answer::default()
        }
    }

    #[test]
    fn rooms_of_one_namespace_that_are_too_long_leave_all_of_another_in() {
        let few = answer((0..100).map(|number| (format!("b/{number}"), 10)));
        let (document, is_whole) = written(few.clone()).unwrap();
        assert!(is_whole && read(&document) == few);
        let many = answer((0..30_000).map(|number| (format!("a/{number}"), 0)));
        let mut both = few.clone();
        both.rooms.0.extend(many.rooms.0.clone());
        let (document, is_whole) = written(both).unwrap();
        assert!(!is_whole && document.len() > MESSAGE_BYTES_MAX - 1000);
        let said = read(&document).rooms.0;
        assert!(few.rooms.0.keys().all(|name| said.contains_key(name)));
        assert!(said.len() > 10_000, "{}", said.len());
    }

    #[test]
    fn the_longest_room_is_left_out_first() {
        let rooms = [("a/long", 200_000), ("a/short", 1), ("b/short", 1)];
        let rooms = rooms.map(|(name, points)| (name.to_owned(), points));
        let (document, is_whole) = written(answer(rooms)).unwrap();
        let said = read(&document).rooms.0;
        assert!(!is_whole && said.keys().eq(["a/short", "b/short"]));
    }

    #[test]
    fn limits_that_nobody_could_send_leave_those_of_another_namespace_in() {
        let most = Demand {
            offered: u64::MAX,
            share: Share::WHOLE,
        };
        let mut report = Report::default();
        for number in 0..5_000 {
            let rules = (0..16).map(|rule| (format!("rule-{rule}"), most)).collect();
            report.demand.insert(format!("a/{number:0>200}"), rules);
        }
        let rules = BTreeMap::from([("all".to_owned(), most)]);
        report.demand.insert("b/small".into(), rules.clone());
        let (document, is_whole) = written(report).unwrap();
        assert!(!is_whole && document.len() <= LIMITS_BYTES_MAX + 1000);
        let told: Report = serde_json::from_slice(&document).unwrap();
        assert_eq!(told.demand["b/small"], rules);
        assert!(told.demand.len() > 2_000, "{}", told.demand.len());
    }
}
