//! Tickets: what a citizen carries so that no guard has to remember them.
//!
//! A ticket says where its holder stands in the queue of one room, and whether they are in. It is
//! signed, so only guards can write one, and it says nothing about the person: whoever carries it
//! has the place. The key should serve nothing else.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// How far another guard's clock may be ahead before its tickets are refused.
///
/// Ten times the skew of clocks that are kept in step, so nobody loses a place to an honest clock,
/// and a forward step of a clock cannot write places that others honour.
pub const SKEW: Duration = Duration::from_secs(1);

/// How long a place in the queue is good for: a working day and the evening after it.
pub const LIFETIME: Duration = Duration::from_hours(12);

/// How long after arrival somebody may be in, however often they return: whoever was let in when the
/// place was as old as it may be has as long again. A ticket that is handed round ends with it.
pub const ADMISSION: Duration = Duration::from_hours(24);
const _: () = assert!(ADMISSION.as_secs() == 2 * LIFETIME.as_secs());

/// Characters of a ticket: all have the same length, so others are refused before any work.
pub const LENGTH: usize = ((BODY + MAC) * 4).div_ceil(3);

const VERSION: u8 = 1;
/// Version, key, kind, room, arrival, guard, serial, seen, and until or position. With its padding
/// this is one block of SHA-256, so that a signature is two.
const BODY: usize = 3 + 8 + 8 + 4 + 4 + 8 + 8;
const MAC: usize = 32;
const WAITING: u8 = 0;
const ADMITTED: u8 = 1;

/// A moment on the wall clock: milliseconds since 1970. Unlike [`Time`](crate::Time) it may step.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Wall(u64);

impl Wall {
    /// The moment so many milliseconds after 1970 began.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970 began.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment this much later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// The moment this much earlier.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Which room a ticket is for: the caller's number for a scope, the same at all its guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoomId(pub u64);

/// One run of one guard. A guard that starts again takes a new id, since it counts from zero.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct GuardId(pub u32);

/// A place in the queue. Places are in one total order: arrival, then guard, then serial.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Place {
    /// When the citizen came.
    pub arrival: Wall,
    /// The guard they came to.
    pub guard: GuardId,
    /// The how manieth of that guard.
    pub serial: u32,
}

impl Place {
    /// The last place of a millisecond: everybody who came until its end is at or before it.
    pub const fn end_of(arrival: Wall) -> Self {
        Self {
            arrival,
            guard: GuardId(u32::MAX),
            serial: u32::MAX,
        }
    }
}

/// What a ticket entitles to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// To be admitted in turn.
    Waiting {
        /// The position shown last, so that the next one shown is not worse.
        position: u32,
    },
    /// To pass.
    Admitted {
        /// Until when.
        until: Wall,
    },
}

/// A ticket that has been read, or is about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The room it is for.
    pub room: RoomId,
    /// Where its holder stands.
    pub place: Place,
    /// When a guard last counted its holder.
    pub seen: Wall,
    /// What it entitles to.
    pub kind: Kind,
}

/// Why a ticket is worth nothing, so that its holder is a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Too short, too long, or not in the alphabet of tickets.
    #[error("the ticket is not {LENGTH} characters of base64url")]
    Malformed,
    /// Written by a guard of another version.
    #[error("the ticket is of version {0}, known is {VERSION}")]
    Version(u8),
    /// Signed with a key that is not, or no longer, in use.
    #[error("the ticket is signed with key {0}, which is not in use")]
    UnknownKey(u8),
    /// Not signed by a guard.
    #[error("the ticket's signature is wrong")]
    Forged,
    /// Good, but for another room.
    #[error("the ticket is for another room")]
    OtherRoom,
    /// Written by a clock that is ahead by more than [`SKEW`].
    #[error("the ticket is dated in the future")]
    FromTheFuture,
    /// The session is over, or the place is older than [`LIFETIME`], or [`ADMISSION`] where its
    /// holder is in.
    #[error("the ticket is expired")]
    Expired,
    /// Its holder's turn came and went without them.
    #[error("the ticket was not shown in time after its turn had come")]
    Lapsed,
}

/// A key that tickets are signed with.
#[derive(Clone)]
pub struct Key {
    id: u8,
    /// Keyed once: a signature then costs two blocks of SHA-256 instead of four.
    mac: Hmac<Sha256>,
}

impl Key {
    /// The key with this number. The number is part of each ticket, the secret is not.
    #[expect(clippy::missing_panics_doc, reason = "HMAC takes keys of any length")]
    pub fn new(id: u8, secret: &[u8; 32]) -> Self {
        let mac = Hmac::new_from_slice(secret).expect("HMAC takes keys of any length");
        Self { id, mac }
    }
}

/// No key is ever printed.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The keys in use: one signs, and at most one more is honoured.
///
/// Rotation without losing a place: first the new key is honoured everywhere, then it signs and the
/// old one is honoured, and the old one goes when its tickets have expired.
#[derive(Debug, Clone)]
pub struct Keys {
    signing: Key,
    honoured: Option<Key>,
}

impl Keys {
    /// Signs with one key and honours another one too.
    pub const fn new(signing: Key, honoured: Option<Key>) -> Self {
        Self { signing, honoured }
    }

    /// The ticket as the citizen carries it: fit for cookies, headers and URLs as it is.
    pub fn write(&self, ticket: &Ticket) -> String {
        let body = body(ticket, self.signing.id);
        let mut mac = self.signing.mac.clone();
        mac.update(&body);
        let mut bytes = [0; BODY + MAC];
        bytes[..BODY].copy_from_slice(&body);
        bytes[BODY..].copy_from_slice(&mac.finalize().into_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The ticket if it is good for this room at this moment.
    pub fn read(&self, text: &str, room: RoomId, wall: Wall) -> Result<Ticket, Refusal> {
        self.verify(text)?.check(room, wall)
    }

    /// The ticket if a guard wrote it, for whichever room and moment.
    ///
    /// The signature is compared in constant time, and before anything but version and key is
    /// looked at.
    pub(crate) fn verify(&self, text: &str) -> Result<Ticket, Refusal> {
        if text.len() != LENGTH {
            return Err(Refusal::Malformed);
        }
        let mut bytes = [0; BODY + MAC];
        let length = URL_SAFE_NO_PAD
            .decode_slice(text, &mut bytes)
            .map_err(|_| Refusal::Malformed)?;
        if length != bytes.len() {
            return Err(Refusal::Malformed);
        }
        let (body, signature) = bytes.split_at(BODY);
        if body[0] != VERSION {
            return Err(Refusal::Version(body[0]));
        }
        let key = [Some(&self.signing), self.honoured.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.id == body[1])
            .ok_or(Refusal::UnknownKey(body[1]))?;
        let mut mac = key.mac.clone();
        mac.update(body);
        mac.verify_slice(signature).map_err(|_| Refusal::Forged)?;
        parse(body)
    }
}

impl Ticket {
    /// The ticket itself if it is for this room and this moment.
    pub(crate) fn check(self, room: RoomId, wall: Wall) -> Result<Self, Refusal> {
        if self.room != room {
            return Err(Refusal::OtherRoom);
        }
        if self.place.arrival.max(self.seen) > wall.after(SKEW) {
            return Err(Refusal::FromTheFuture);
        }
        let end = match self.kind {
            Kind::Waiting { position: _ } => self.place.arrival.after(LIFETIME),
            Kind::Admitted { until } => until.min(self.place.arrival.after(ADMISSION)),
        };
        if end <= wall {
            return Err(Refusal::Expired);
        }
        Ok(self)
    }
}

fn body(ticket: &Ticket, key: u8) -> [u8; BODY] {
    let (kind, detail) = match ticket.kind {
        Kind::Waiting { position } => (WAITING, u64::from(position)),
        Kind::Admitted { until } => (ADMITTED, until.0),
    };
    let mut body = [0; BODY];
    let mut rest = &mut body[..];
    for field in [
        &[VERSION, key, kind][..],
        &ticket.room.0.to_be_bytes(),
        &ticket.place.arrival.0.to_be_bytes(),
        &ticket.place.guard.0.to_be_bytes(),
        &ticket.place.serial.to_be_bytes(),
        &ticket.seen.0.to_be_bytes(),
        &detail.to_be_bytes(),
    ] {
        let (place, after) = rest.split_at_mut(field.len());
        place.copy_from_slice(field);
        rest = after;
    }
    body
}

fn parse(body: &[u8]) -> Result<Ticket, Refusal> {
    let number = |from: usize, bytes: usize| {
        body[from..from + bytes]
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let short = |from| u32::try_from(number(from, 4)).expect("four bytes are 32 bits");
    let detail = number(35, 8);
    let kind = match body[2] {
        WAITING => Kind::Waiting {
            position: u32::try_from(detail).map_err(|_| Refusal::Malformed)?,
        },
        ADMITTED => Kind::Admitted {
            until: Wall(detail),
        },
        3.. | 2 => return Err(Refusal::Malformed),
    };
    Ok(Ticket {
        room: RoomId(number(3, 8)),
        place: Place {
            arrival: Wall(number(11, 8)),
            guard: GuardId(short(19)),
            serial: short(23),
        },
        seen: Wall(number(27, 8)),
        kind,
    })
}

/// A span in milliseconds, as far as 64 bits hold them.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
