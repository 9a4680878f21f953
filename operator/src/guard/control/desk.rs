//! Where guards come to: what each said last, what they are given, and what all of them serve by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hyper::body::Bytes;
use shield::ticket::Wall;
use shield::{PolicySettings, Time};

use super::ledger::{Late, Ledger, Limit};
use super::rooms::{self, Rooms};
use crate::guard::compile::{Acknowledged, ClosedPorts};
use crate::guard::config::Configuration;
use crate::guard::exchange::{
    Answer, CONFIGURATION_BYTES_MAX, GUARDS_MAX, LEASE, NAME_MAX, Partly, Refused, Report,
};
use crate::guard::rooms::RoomWords;
use crate::runtime::lease::Leadership;

/// A guard that was silent for longer is not waited for to serve what is new: 20 exchanges were missed.
const HEARD: Duration = Duration::from_secs(3);

/// How shared limits are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sharing {
    /// Guards that are expected where none was heard.
    pub(super) replicas: u32,
    /// Whether requests of one key come to all guards alike.
    pub(super) spreads_keys: bool,
}

/// Why a report is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    /// Another replica does.
    #[error("this replica does not lead; ask another address of guard control")]
    NotLeading,
    /// A later report is answered already, or another guard of this name.
    #[error(
        "a later report of this guard was answered, or one of another guard that has the same name; give each \
         guard a name of its own with --name"
    )]
    Late,
    /// Not the name of a pod.
    #[error("a guard's name must have 1 to {NAME_MAX} characters")]
    Name,
    /// Beyond the bound.
    #[error("{GUARDS_MAX} guards are served at one time; stop some")]
    TooMany,
}

/// Why a configuration is not handed out; the one before is still.
#[derive(Debug, thiserror::Error)]
pub(super) enum Withheld {
    /// It is no document.
    #[error("a configuration cannot be written down")]
    Unwritten(#[from] serde_json::Error),
    /// No guard would fetch it.
    #[error(
        "a configuration has {bytes} bytes, and guards fetch {CONFIGURATION_BYTES_MAX} at most; what is not of \
         routes is too large: use fewer listeners, hostnames or certificates"
    )]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
}

/// The desk. All that is asked is answered from memory.
pub(super) struct Desk {
    began: Instant,
    sharing: Sharing,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    newest: Option<Offer>,
    /// The one before: a guard may be on its way to fetch it.
    before: Option<Offer>,
    limits: Vec<Limit>,
    rooms: rooms::Settings,
    standing: BTreeSet<String>,
    term: Option<Term>,
}

struct Offer {
    revision: String,
    document: Bytes,
}

/// Being the leader: only one replica divides limits, lets people out of rooms, and hears what guards serve by.
struct Term {
    leadership: Leadership,
    began: Instant,
    ledger: Ledger,
    rooms: Rooms,
    guards: BTreeMap<String, Guard>,
}

struct Guard {
    heard: Instant,
    revision: String,
    /// Where it serves only on some ports.
    partly: Option<Partly>,
    refused: Option<Refused>,
    is_ready: bool,
}

impl Guard {
    fn hear(report: &Report) -> Self {
        let partly = report.partly.clone().map(Partly::bounded);
        Self {
            heard: Instant::now(),
            revision: report.serves().unwrap_or_default().to_owned(),
            partly,
            refused: report.refused.clone(),
            is_ready: report.ready,
        }
    }

    fn is_asked(&self) -> bool {
        self.is_ready && self.heard.elapsed() <= HEARD
    }
}

impl Desk {
    pub(super) fn new(sharing: Sharing) -> Self {
        Self {
            began: Instant::now(),
            sharing,
            state: Mutex::default(),
        }
    }

    /// Hands out another configuration from now on.
    pub(super) fn offer(&self, configuration: &Configuration) -> Result<(), Withheld> {
        self.offer_within(configuration, CONFIGURATION_BYTES_MAX)
    }

    fn offer_within(&self, configuration: &Configuration, most: usize) -> Result<(), Withheld> {
        let is_newest = self.with(|state| {
            let newest = state.newest.as_ref();
            newest.is_some_and(|newest| newest.revision == configuration.revision)
        });
        if is_newest {
            return Ok(());
        }
        // Not under the lock, which every guard needs meanwhile.
        let offer = Offer {
            revision: configuration.revision.clone(),
            document: serde_json::to_vec(configuration)?.into(),
        };
        let bytes = offer.document.len();
        if bytes > most {
            return Err(Withheld::TooLong { bytes });
        }
        self.with(|state| {
            tracing::info!(revision = offer.revision, bytes, "configuration handed out");
            state.limits = limits(configuration, self.sharing);
            state.rooms = rooms::shared(configuration);
            if let Some(term) = &mut state.term {
                term.rooms.configure(state.rooms.clone());
                term.rooms.offered(offer.revision.clone());
            }
            state.before = state.newest.replace(offer);
        });
        Ok(())
    }

    /// Begins, goes on with or ends a term.
    pub(super) fn lead(&self, leadership: Option<Leadership>) {
        self.with(|state| {
            let goes_on = match (&state.term, &leadership) {
                (Some(term), Some(now)) => term.leadership.is_same_term(now),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !goes_on {
                state.term = leadership.map(|leadership| {
                    let mut ledger = Ledger::new(self.sharing.replicas, self.began.elapsed());
                    ledger.stand(state.standing.clone());
                    let mut rooms = Rooms::new(state.rooms.clone());
                    if let Some(newest) = &state.newest {
                        rooms.offered(newest.revision.clone());
                    }
                    Term {
                        leadership,
                        began: Instant::now(),
                        ledger,
                        rooms,
                        guards: BTreeMap::new(),
                    }
                });
            }
        });
    }

    /// The guards that take requests, as the cluster knows it.
    pub(super) fn stand(&self, standing: BTreeSet<String>) {
        self.with(|state| {
            if let Some(term) = &mut state.term {
                term.ledger.stand(standing.clone());
            }
            state.standing = standing;
        });
    }

    /// Answers a report.
    pub(super) fn answer(&self, report: Report) -> Result<Answer, Unanswered> {
        if report.guard.is_empty() || report.guard.len() > NAME_MAX {
            return Err(Unanswered::Name);
        }
        let now = self.began.elapsed();
        self.with(|state| {
            let term = state.term.as_mut();
            // The clock is looked at: a process that was stopped for a while may not lead any longer.
            let term = term.filter(|term| term.leadership.is_valid());
            let term = term.ok_or(Unanswered::NotLeading)?;
            term.forget();
            let is_known = term.guards.contains_key(&report.guard);
            if !is_known && term.guards.len() >= GUARDS_MAX {
                return Err(Unanswered::TooMany);
            }
            let answer = term.ledger.exchange(&state.limits, &report, now);
            let mut answer = answer.map_err(|late| unanswered(late, &report.guard))?;
            answer.newest = state.newest.as_ref().map(|newest| newest.revision.clone());
            term.hear(&report);
            answer.rooms = term.tell(report, Time::ZERO.after(now));
            Ok(answer)
        })
    }

    /// A configuration that was handed out lately.
    pub(super) fn configuration(&self, revision: &str) -> Option<Bytes> {
        self.with(|state| {
            let offers = [&state.newest, &state.before];
            let mut offers = offers.into_iter().flatten();
            let found = offers.find(|offer| offer.revision == revision);
            found.map(|offer| offer.document.clone())
        })
    }

    /// What every guard that is ready serves by.
    pub(super) fn acknowledged(&self) -> Acknowledged {
        self.with(|state| {
            let Some(term) = &state.term else {
                return Acknowledged::Nothing;
            };
            if is_awaited(term.began.elapsed(), &state.standing, &term.guards) {
                return Acknowledged::Nothing;
            }
            let ready = term.guards.values().filter(|guard| guard.is_asked());
            let revisions: BTreeSet<&str> = ready.map(|guard| guard.revision.as_str()).collect();
            match revisions.first() {
                Some(revision) if revisions.len() == 1 => {
                    Acknowledged::Revision((*revision).to_owned())
                }
                Some(_) | None => Acknowledged::Nothing,
            }
        })
    }

    /// The ports that not every guard that is ready could open, whatever it serves by.
    pub(super) fn closed(&self) -> ClosedPorts {
        self.with(|state| {
            let mut closed = ClosedPorts::default();
            let guards = state.term.iter().flat_map(|term| &term.guards);
            for (name, guard) in guards.filter(|(_, guard)| guard.is_asked()) {
                if let Some(partly) = &guard.partly {
                    closed.add(name, partly);
                }
            }
            closed
        })
    }

    /// How many guards were heard lately, and how many of them refuse what they were given.
    pub(super) fn guards(&self) -> (usize, usize) {
        self.with(|state| {
            let guards = state.term.iter().flat_map(|term| term.guards.values());
            let heard: Vec<_> = guards
                .filter(|guard| guard.heard.elapsed() <= HEARD)
                .collect();
            let refusing = heard.iter().filter(|guard| guard.refused.is_some());
            (heard.len(), refusing.count())
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Term {
    fn hear(&mut self, report: &Report) {
        if report.leaves {
            self.ledger.leave(&report.guard);
            self.guards.remove(&report.guard);
            tracing::info!(guard = report.guard, "a guard left");
            return;
        }
        let known = self.guards.get(&report.guard);
        let guard = Guard::hear(report);
        if known.is_none() {
            tracing::info!(
                guard = report.guard,
                revision = guard.revision,
                "a guard came"
            );
        }
        if let Some(partly) = &guard.partly {
            let before = known.and_then(|known| known.partly.as_ref());
            if before.is_none_or(|before| before.closed != partly.closed) {
                let ports: Vec<u16> = partly.closed.iter().map(|closed| closed.port).collect();
                tracing::error!(
                    guard = report.guard,
                    ?ports,
                    "a guard cannot open these ports of Gateways; it serves the others"
                );
            }
        }
        if let Some(refused) = &report.refused
            && known.is_none_or(|known| known.refused.as_ref() != Some(refused))
        {
            let Refused { revision, why } = refused;
            tracing::error!(
                guard = report.guard,
                revision,
                why,
                "a guard refuses a configuration"
            );
        }
        self.guards.insert(report.guard.clone(), guard);
    }

    /// What is said of rooms. A guard that took its last request is heard once more: whom it let in are in.
    fn tell(&mut self, report: Report, now: Time) -> RoomWords {
        let leaves = report.leaves.then(|| report.guard.clone());
        let words = self.rooms.exchange(report, wall(), now);
        if let Some(guard) = leaves {
            self.rooms.gone(&guard);
        }
        words
    }

    /// Those that were silent for long count for nothing here; what they may use is the ledger's.
    fn forget(&mut self) {
        let rooms = &mut self.rooms;
        self.guards.retain(|name, guard| {
            let is_heard = guard.heard.elapsed() <= HEARD * 10;
            if !is_heard {
                rooms.gone(name);
            }
            is_heard
        });
    }
}

/// Whether a guard that takes requests was not heard in a term that is so young. The first that asks speaks
/// for itself alone; until it could have lost what the leader before gave it, another may still be on its way here.
fn is_awaited(
    age: Duration,
    standing: &BTreeSet<String>,
    guards: &BTreeMap<String, Guard>,
) -> bool {
    age < LEASE && !standing.iter().all(|name| guards.contains_key(name))
}

/// A report that counts for nothing; two guards of one name are told of once.
fn unanswered(late: Late, guard: &str) -> Unanswered {
    if late == Late::TooMany {
        return Unanswered::TooMany;
    }
    if late == (Late::Superseded { is_first: true }) {
        tracing::error!(
            guard,
            "two guards have one name: only the one that came last is answered, and the other goes on by what it \
             has; give each a name of its own with --name"
        );
    }
    Unanswered::Late
}

/// What places in queues are dated by. A clock before 1970 is no clock, and guards have theirs.
fn wall() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Wall::default().after(since.unwrap_or_default())
}

/// What guards hold together in a configuration.
fn limits(configuration: &Configuration, sharing: Sharing) -> Vec<Limit> {
    let of_policy = |(name, policy): (&String, &PolicySettings)| {
        let shared = policy.rate_limits.iter().filter(|limit| limit.is_shared());
        let shared = shared.filter(|limit| limit.key.is_empty() || sharing.spreads_keys);
        let limit = |limit: &shield::policy::RateLimit| {
            let rate = limit.quota.rate();
            let seconds = rate.per().as_secs().max(1);
            Limit {
                key: (name.clone(), limit.name.clone()),
                rate: u64::from(rate.requests()) * 1000 / seconds,
                is_keyed: !limit.key.is_empty(),
            }
        };
        shared.map(limit).collect::<Vec<_>>()
    };
    configuration.policies.iter().flat_map(of_policy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_guard_would_fetch_is_not_handed_out_and_the_one_before_stays() {
        let desk = Desk::new(Sharing {
            replicas: 1,
            spreads_keys: false,
        });
        let of = |revision: &str| Configuration {
            revision: revision.to_owned(),
            ..Configuration::default()
        };
        let bytes = serde_json::to_vec(&of("a")).unwrap().len();
        desk.offer_within(&of("a"), bytes).unwrap();
        let withheld = desk.offer_within(&of("longer"), bytes).unwrap_err();
        assert!(matches!(withheld, Withheld::TooLong { .. }), "{withheld}");
        let newest = desk.with(|state| state.newest.as_ref().map(|newest| newest.revision.clone()));
        assert_eq!(newest.as_deref(), Some("a"));
        assert!(desk.configuration("a").is_some() && desk.configuration("longer").is_none());
    }

    #[test]
    fn a_new_leader_waits_for_all_guards_that_take_requests_before_it_speaks_for_them() {
        let report = Report {
            revision: "r".into(),
            ready: true,
            ..Report::default()
        };
        let guard = || Guard::hear(&report);
        let standing = BTreeSet::from(["g-1".to_owned(), "g-2".to_owned()]);
        let mut guards = BTreeMap::from([("g-1".to_owned(), guard())]);
        assert!(is_awaited(Duration::ZERO, &standing, &guards));
        assert!(!is_awaited(LEASE, &standing, &guards), "it is gone by now");
        guards.insert("g-2".to_owned(), guard());
        assert!(!is_awaited(Duration::ZERO, &standing, &guards));
        assert!(!is_awaited(Duration::ZERO, &BTreeSet::new(), &guards));
    }

    #[test]
    fn a_guard_with_a_closed_port_serves_by_what_it_says_and_an_older_one_by_what_it_serves_whole()
    {
        let mut report = Report {
            revision: "before".into(),
            ready: true,
            ..Report::default()
        };
        assert_eq!(Guard::hear(&report).revision, "before");
        report.partly = Some(Partly::new("now".into(), Vec::new()));
        assert_eq!(Guard::hear(&report).revision, "now");
    }
}
