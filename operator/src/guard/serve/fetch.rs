//! How a guard stays in step with guard control: it reports, hears its shares and who leaves waiting rooms, and
//! fetches what is new.
//!
//! ```text
//! begin:  report ─ shares, words, newest ─ fetch ─ serve   or, where control is away, serve what is stored
//! then:   report ─ shares ─ (newer? fetch ─ prepare ─ serve ─ store) ─ pause, again
//! ```
//!
//! Nothing of it is on the way of a request. While control is away the guard goes on by what it has, and
//! after a while with an even part of every shared limit and room.

mod lease;
mod link;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shield::Share;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use link::{LinkError, Place, PlaceError};

use super::{ApplyError, Guard, RoomLink, store};
use crate::guard::config::Configuration;
use crate::guard::exchange::{Answer, ByRule, LEASE, PERIOD, Partly, Refused, Report};
use crate::guard::mutual_tls::{Files, TlsError};
use crate::guard::rooms::SETTLE;
use crate::runtime::backoff::{Backoff, random_unit};
use crate::runtime::errors::chain;
use lease::Lease;
use link::Link;

/// Where the last good configuration is, in the guard's folder.
const LAST_GOOD: &str = "last-good.json";
/// So long a guard that begins looks for control before it serves what it has: seven tries.
const PATIENCE: Duration = Duration::from_secs(1);
/// So long it waits for its parts where control answers and has none for it: until the lease of whoever
/// holds them has run out, and some exchanges.
const PARTS_PATIENCE: Duration = LEASE.saturating_add(Duration::from_secs(5));
/// So long it waits, from when control names a configuration, for a word of each of its rooms: without one it
/// takes them for empty, and lets people in past all who wait. A coordinator that begins is silent for a second,
/// and of very many guards each hears a word in two exchanges. It is not longer, since where all guards begin at
/// once, or where there is too much to be said of rooms, nobody serves meanwhile.
const WORDS_PATIENCE: Duration = SETTLE.saturating_add(Duration::from_secs(1));
/// The longest pause between tries: control that is back is found in this time.
const AWAY_MAX: Duration = Duration::from_secs(2);
/// A configuration that was refused is tried again after this: a port may be free by then.
const AGAIN: Duration = Duration::from_secs(10);

/// Who a guard asks, and as whom.
#[derive(Clone, Debug)]
pub struct Following {
    /// Where control is.
    pub control: Place,
    /// What the guard proves who it is with, and who certifies control.
    pub files: Files,
    /// The guard's name, which no other guard has.
    pub name: String,
    /// Where it keeps its last good configuration.
    pub folder: PathBuf,
    /// Guards that there are, as long as nobody says how many.
    pub replicas: u32,
}

/// Follows control. Dropping it ends it without a word; [`Follower::leave`] says so.
pub struct Follower {
    guard: Arc<Guard>,
    rooms: RoomLink,
    following: Following,
    link: Link,
    lease: Lease,
    /// Set when the guard is about to end: then it is not ready.
    stopping: CancellationToken,
    session: u64,
    sequence: u64,
    refused: Option<(Refused, Instant)>,
    /// The last revision that was served on all of its ports.
    whole: String,
    /// Whether control ever answered.
    has_heard: bool,
    /// How many guards there are, as it was last said.
    guards: u32,
    backoff: Backoff,
    is_away: bool,
}

impl Follower {
    /// Follows control for this guard, which serves nothing yet. The files must be good now; they may change
    /// later. To be called inside a runtime.
    pub fn new(
        guard: Arc<Guard>,
        following: Following,
        stopping: CancellationToken,
    ) -> Result<Self, TlsError> {
        let link = Link::new(following.control.clone(), following.files.clone())?;
        let guards = following.replicas;
        // Until control says how many there are, each guard lets in its part.
        let rooms = guard.share_rooms(NonZeroU32::new(guards).unwrap_or(NonZeroU32::MIN));
        Ok(Self {
            lease: Lease::new(Arc::clone(&guard)),
            guard,
            rooms,
            following,
            link,
            stopping,
            session: fastrand::u64(..),
            sequence: 0,
            refused: None,
            whole: String::new(),
            has_heard: false,
            guards,
            backoff: Backoff::new(PERIOD, AWAY_MAX),
            is_away: false,
        })
    }

    /// Begins to serve, and follows for ever. Call it again after it was dropped half-way: it goes on.
    pub async fn run(&mut self) -> Infallible {
        if self.guard.revision().is_empty() {
            self.begin().await;
        }
        loop {
            let pause = match self.exchange().await {
                Ok(answer) => {
                    self.follow(&answer).await;
                    // Spread, so that guards that began together do not ask together for ever.
                    PERIOD.mul_f64(0.9 + 0.2 * random_unit())
                }
                Err(error) => self.miss(&error),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Says that the guard took its last request, so that others have its parts at once.
    pub async fn leave(&mut self) {
        let report = Report {
            leaves: true,
            ..self.report()
        };
        if let Err(error) = self.link.exchange(report).await {
            tracing::info!(
                error = chain(&error),
                "control did not hear that this guard ends"
            );
        }
    }

    /// Serves as soon as there is something to serve by, a part of every shared limit and a word of every room.
    async fn begin(&mut self) {
        self.guard.hold(ByRule::new(), Share::one_of(self.guards));
        let stored = self.stored().await;
        let began = Instant::now();
        let mut wanted: Option<Configuration> = None;
        // When control first said what to serve by.
        let mut named: Option<Instant> = None;
        loop {
            let patience = if self.has_heard {
                PARTS_PATIENCE
            } else {
                PATIENCE
            };
            // Who has nothing to serve by waits as long as it takes.
            let left = match &stored {
                Some(_) => {
                    let spent = named.unwrap_or(began).elapsed();
                    patience.saturating_sub(spent).max(PERIOD)
                }
                None => PARTS_PATIENCE,
            };
            let awaits_words = named.is_none_or(|named| named.elapsed() < WORDS_PATIENCE);
            let look = self.look(stored.as_ref(), wanted.take(), awaits_words);
            let asked = tokio::time::timeout(left, look).await;
            if let Ok(Ok((Some(_), _))) = &asked {
                named.get_or_insert_with(Instant::now);
            }
            match asked {
                Ok(Ok((Some(newest), true))) if self.take(&newest).await => return,
                Ok(Ok((newest, _))) => wanted = newest,
                Ok(Err(error)) => {
                    self.miss(&error);
                }
                Err(_) => {}
            }
            // Who found nobody for long waits all the same once there is somebody.
            let spent = named.unwrap_or(began).elapsed();
            if spent >= patience || self.refused.is_some() {
                for last in [wanted.as_ref(), stored.as_ref()].into_iter().flatten() {
                    if self.take(last).await {
                        return;
                    }
                }
            }
            // What cannot be served is tried again in less haste than what may come at any moment.
            let pause = if self.refused.is_some() {
                AWAY_MAX
            } else {
                PERIOD
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One exchange of a guard that does not serve yet: what it is to serve by, and whether it has a part
    /// of everything and, where it waits for that, a word of every room.
    async fn look(
        &mut self,
        stored: Option<&Configuration>,
        wanted: Option<Configuration>,
        awaits_words: bool,
    ) -> Result<(Option<Configuration>, bool), LinkError> {
        let answer = self.exchange().await?;
        let Some(newest) = &answer.newest else {
            return Ok((None, false));
        };
        let mut parts = answer.shares.values().flat_map(BTreeMap::values);
        let has_parts = parts.all(|share| *share > Share::NONE);
        let known = wanted.filter(|wanted| wanted.revision == *newest);
        let known = known.or_else(|| stored.filter(|stored| stored.revision == *newest).cloned());
        let configuration = match known {
            Some(known) => known,
            None => self.link.configuration(newest).await?,
        };
        let has_words = !awaits_words || self.rooms.has_heard(&configuration.rooms);
        Ok((Some(configuration), has_parts && has_words))
    }

    async fn exchange(&mut self) -> Result<Answer, LinkError> {
        let report = self.report();
        let sent = Instant::now();
        let answer = self.link.exchange(report).await?;
        if self.is_away {
            tracing::info!("control is there again");
        }
        self.is_away = false;
        self.backoff.reset();
        self.has_heard = true;
        self.guards = answer.guards.max(1);
        let even = Share::one_of(self.guards);
        // From when it was asked: control counts from later on.
        self.lease.renew(sent, answer.shares.clone(), even);
        self.rooms.hear(&answer.rooms);
        Ok(answer)
    }

    fn report(&mut self) -> Report {
        self.sequence += 1;
        let revision = self.guard.revision();
        let ready = !revision.is_empty() && !self.stopping.is_cancelled();
        let closed = self.guard.closed();
        let refused = self.refused.as_ref().map(|(refused, _)| refused.clone());
        let partly = if closed.is_empty() {
            self.whole = revision;
            None
        } else {
            Some(Partly::new(revision, closed))
        };
        Report {
            guard: self.following.name.clone(),
            session: self.session,
            sequence: self.sequence,
            ready,
            revision: self.whole.clone(),
            partly,
            refused,
            leaves: false,
            demand: self.guard.demand(),
            rooms: self.rooms.summaries(),
        }
    }

    /// Fetches and serves what is new.
    async fn follow(&mut self, answer: &Answer) {
        let Some(newest) = &answer.newest else {
            return;
        };
        let refused = self.refused.as_ref();
        let is_refused = refused
            .is_some_and(|(refused, at)| refused.revision == *newest && at.elapsed() < AGAIN);
        if is_refused || *newest == self.guard.revision() {
            return;
        }
        match self.link.configuration(newest).await {
            Ok(configuration) => {
                self.take(&configuration).await;
            }
            Err(error) => {
                tracing::warn!(
                    revision = newest,
                    error = chain(&error),
                    "a configuration was not fetched; it is tried again"
                );
            }
        }
    }

    /// Serves by a configuration and keeps it; says whether it does.
    async fn take(&mut self, configuration: &Configuration) -> bool {
        let applied: Result<(), ApplyError> = self.guard.apply(configuration).await;
        if let Err(error) = applied {
            let why = chain(&error);
            let revision = configuration.revision.clone();
            tracing::error!(revision, error = why, "configuration refused");
            self.refused = Some((Refused { revision, why }, Instant::now()));
            return false;
        }
        self.refused = None;
        self.keep(configuration.clone()).await;
        true
    }

    /// What is served is kept for a start without control. A disk that is full is no reason not to serve.
    async fn keep(&self, configuration: Configuration) {
        let path = self.following.folder.join(LAST_GOOD);
        let written = tokio::task::spawn_blocking(move || {
            let known = store::read(&path).ok().flatten();
            if known.is_some_and(|known| known.revision == configuration.revision) {
                return Ok(());
            }
            store::write(&path, &configuration)
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = chain(&error), "the configuration is not kept");
            }
            Err(error) => tracing::error!(error = %error, "the configuration is not kept"),
        }
    }

    async fn stored(&self) -> Option<Configuration> {
        let path = self.following.folder.join(LAST_GOOD);
        let read = tokio::task::spawn_blocking(move || store::read(&path));
        match read.await {
            Ok(Ok(stored)) => stored,
            Ok(Err(error)) => {
                tracing::error!(error = chain(&error), "what was kept cannot be used");
                None
            }
            Err(_) => None,
        }
    }

    /// Control did not answer; says how long to wait.
    fn miss(&mut self, error: &LinkError) -> Duration {
        if !self.is_away {
            tracing::warn!(
                error = chain(error),
                "control does not answer; the guard goes on by what it has"
            );
        }
        self.is_away = true;
        self.backoff.wait()
    }
}

#[cfg(test)]
mod tests;
