//! Waiting rooms before targets: asked first of all, told how requests ended.
//!
//! ```text
//! request ─ Room::enter ─┬─ Pass ─ rules, endpoint ─ answer (with a ticket, if it is a new one)
//!                        └─ Waiting ─ page or problem document, always with a ticket
//! tend ─ each beat: counts to the coordinator, its word to the room
//! ```
//!
//! The coordinator is this guard itself while nobody else is, see [`RoomLink`].

mod carry;
mod clock;
mod link;
mod live;
mod pace;
mod page;
mod pass;
mod standing;
mod tend;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT_LANGUAGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{Method, Request};
use sha2::{Digest as _, Sha256};
use shield::policy::Scope;
use shield::room::{RoomSettings, SettingsError, Verdict};
use shield::ticket::{Key, Keys, LIFETIME, RoomId};

pub(super) use carry::strip;
pub use link::RoomLink;
pub(super) use pass::{Pass, Waiting};
pub(super) use tend::{Common, tend};

use super::language::Language;
use super::metrics::RoomMetrics;
use crate::guard::config::{TicketKey, WaitingRoom};
use carry::Carrier;
use live::Live;
use pass::PATIENCE;

/// Bytes of a key of tickets: as many as the signature has.
const SECRET: usize = 32;

/// Why a waiting room cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RoomFault {
    /// One of its numbers.
    #[error("waiting room {name:?} cannot be kept")]
    Settings {
        /// `namespace/name`.
        name: String,
        /// Which one.
        source: SettingsError,
    },
    /// None, or more than can be told apart.
    #[error(
        "waiting room {name:?} has {count} keys; give one that signs and at most one more that is honoured"
    )]
    Keys {
        /// `namespace/name`.
        name: String,
        /// How many.
        count: usize,
    },
    /// Two that cannot be told apart.
    #[error("both keys of waiting room {name:?} have id {id}; give the new one another id")]
    SameId {
        /// `namespace/name`.
        name: String,
        /// Whose.
        id: u8,
    },
    /// Not a key.
    #[error("the secret of key {id} of waiting room {name:?} must be {SECRET} bytes in base64")]
    Secret {
        /// `namespace/name`.
        name: String,
        /// Which key.
        id: u8,
    },
}

/// All waiting rooms of a configuration.
#[derive(Debug)]
pub(super) struct Rooms {
    by_name: BTreeMap<String, Arc<Room>>,
    common: Arc<Common>,
}

/// A waiting room as one configuration has it.
#[derive(Debug)]
pub(super) struct Room {
    /// What goes on under the next configuration.
    live: Arc<Live>,
    settings: RoomSettings,
    scope: Scope,
    keys: Keys,
    carrier: Carrier,
    common: Arc<Common>,
    metrics: RoomMetrics,
}

/// What a room makes of a request.
pub(super) enum Entered {
    /// It may go on.
    Passes(Pass),
    /// Its sender has to come back.
    Waits(Box<Waiting>),
}

impl Rooms {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self {
            by_name: BTreeMap::new(),
            common,
        }
    }

    /// Those of the next configuration; who waits or is in, stays so.
    pub(super) fn next(
        &self,
        wanted: &BTreeMap<String, WaitingRoom>,
        metrics: &RoomMetrics,
    ) -> Result<Self, RoomFault> {
        let mut by_name = BTreeMap::new();
        for (name, wanted) in wanted {
            let before = self.by_name.get(name);
            let room = Room::prepare(name, wanted, before, &self.common, metrics)?;
            by_name.insert(name.clone(), Arc::new(room));
        }
        Ok(Self {
            by_name,
            common: Arc::clone(&self.common),
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Room>> {
        self.by_name.get(name).cloned()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl Room {
    fn prepare(
        name: &str,
        wanted: &WaitingRoom,
        before: Option<&Arc<Self>>,
        common: &Arc<Common>,
        metrics: &RoomMetrics,
    ) -> Result<Self, RoomFault> {
        let settings = RoomSettings::try_from(wanted.spec()).map_err(|source| {
            let name = name.to_owned();
            RoomFault::Settings { name, source }
        })?;
        let id = id(name);
        let live = before.map_or_else(
            || Arc::new(common.open(name, id, &settings, wanted.scope)),
            |before| Arc::clone(&before.live),
        );
        Ok(Self {
            live,
            settings,
            scope: wanted.scope,
            keys: keys(name, &wanted.keys)?,
            carrier: Carrier::new(id),
            common: Arc::clone(common),
            metrics: metrics.clone(),
        })
    }

    /// Asks for a request whether it may pass.
    pub(super) fn enter<B>(self: &Arc<Self>, request: &Request<B>, is_tls: bool) -> Entered {
        let clock = &self.common.clock;
        let now = clock.now();
        if is_preflight(request) {
            return Entered::Passes(Pass::uncounted(Arc::clone(self), now));
        }
        let (ticket, carriage) = self.carrier.read(request.headers(), is_tls);
        let entry = self.live.room.enter(&self.keys, ticket, clock.wall(), now);
        if let Some(refusal) = entry.refused {
            self.metrics.count_ticket(refusal);
        }
        match entry.verdict {
            Verdict::Pass { ticket } => {
                let pass = Pass::counted(Arc::clone(self), now, ticket, carriage);
                Entered::Passes(pass)
            }
            Verdict::Wait {
                ticket,
                position,
                retry_after,
                watermark: _,
            } => {
                self.live.refuse();
                Entered::Waits(Box::new(Waiting {
                    position,
                    estimated: self.live.estimate(position, &self.settings),
                    // Whole seconds, and never sooner than meant.
                    retry_seconds: retry_after.as_secs()
                        + u64::from(retry_after.subsec_nanos() > 0),
                    stamp: self.carrier.stamp(ticket, carriage, LIFETIME),
                    language: Language::of(request.headers().get(ACCEPT_LANGUAGE)),
                    // A reload asks again with GET, which is another request than a form's.
                    reloads: matches!(*request.method(), Method::GET | Method::HEAD),
                }))
            }
        }
    }
}

impl Room {
    fn observe(&self, elapsed: Duration, is_error: bool) {
        let slow = self.settings.open_when().p99_over;
        let is_slow = slow.is_some_and(|limit| elapsed > limit);
        self.live.observe(is_error, is_slow);
    }

    /// Who leaves sooner did so within the time that the service may take.
    fn patience(&self) -> Duration {
        let slow = self.settings.open_when().p99_over;
        slow.map_or(PATIENCE, |limit| limit.max(PATIENCE))
    }

    /// How long a ticket of somebody who is in can be good for, and a little more.
    fn session_max(&self) -> Duration {
        self.settings.session() * 5 / 4
    }
}

/// The same at all guards, and not the next room's.
fn id(name: &str) -> RoomId {
    let digest = Sha256::digest(name.as_bytes());
    let bytes = digest.iter().take(8);
    RoomId(bytes.fold(0, |id, byte| id << 8 | u64::from(*byte)))
}

fn keys(name: &str, wanted: &[TicketKey]) -> Result<Keys, RoomFault> {
    let read = |key: &TicketKey| {
        let mut secret = [0; SECRET];
        let length = STANDARD.decode_slice(&key.secret, &mut secret);
        match length {
            Ok(SECRET) => Ok(Key::new(key.id, &secret)),
            Ok(_) | Err(_) => Err(RoomFault::Secret {
                name: name.to_owned(),
                id: key.id,
            }),
        }
    };
    match wanted {
        [signing] => Ok(Keys::new(read(signing)?, None)),
        [signing, honoured] if signing.id == honoured.id => Err(RoomFault::SameId {
            name: name.to_owned(),
            id: signing.id,
        }),
        [signing, honoured] => Ok(Keys::new(read(signing)?, Some(read(honoured)?))),
        [] | [_, _, _, ..] => Err(RoomFault::Keys {
            name: name.to_owned(),
            count: wanted.len(),
        }),
    }
}

/// A browser asks so whether it may ask, without cookies and in nobody's name. Were it refused, no
/// page could tell its user to wait.
fn is_preflight<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests;
