//! The shield around a request: asked before it is sent, told how it went.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::COOKIE;
use shield::concurrency::{self, Concurrency, Entered, Permit, Refusal, Turn};
use shield::policy::{Admission, Denied, KeyPart};
use shield::{ClassId, KeySeed, PolicySettings, Time, breaker};
use tokio::sync::oneshot;

use super::jwt::{self, Claims, Desk, Verifier};
use super::matching::parameter;
use super::prepare::PrepareError;
use crate::guard::config::Tokens;

/// Wakes a request that waits, with its permit or the reason why it gets none.
pub(super) type Waker = oneshot::Sender<Result<Permit, Refusal>>;

/// A policy whose waiting requests are woken so.
pub(super) type Policy = shield::Policy<Waker>;

/// The rule that refusals of the concurrency are counted under.
const CONCURRENCY: &str = "concurrency";

/// A client that leaves this late left because it waited; one that leaves earlier says nothing about
/// the target.
const PATIENCE: Duration = Duration::from_secs(1);

/// The clock of this process: nanoseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

/// All policies of a configuration.
#[derive(Debug)]
pub(super) struct Policies {
    by_name: BTreeMap<String, Arc<Policy>>,
    tokens: BTreeMap<String, Arc<Verifier>>,
    desk: Arc<Desk>,
    seed: KeySeed,
    pub(super) clock: Clock,
}

/// What a rule of a route is protected by.
#[derive(Clone, Debug)]
pub(super) struct Protection {
    policy: Arc<Policy>,
    /// Where claims of tokens are keys.
    tokens: Option<Arc<Verifier>>,
    class: ClassId,
    clock: Clock,
}

/// A request that may be sent. Dropped without a word, it counts for nothing.
#[derive(Debug)]
pub(super) struct Guarded {
    protection: Protection,
    admission: Option<Admission>,
    permit: Option<Permit>,
    since: Time,
    is_sent: bool,
    outcome: concurrency::Outcome,
}

/// What of a request keys are made of.
pub(super) struct Keys<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) query: Option<&'a str>,
    pub(super) client: IpAddr,
}

/// Which rule refuses a request, why, and when to come again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shed {
    pub(super) rule: Arc<str>,
    pub(super) reason: ShedReason,
    pub(super) retry_after: Option<Duration>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShedReason {
    /// More than a limit lets pass.
    RateLimited,
    /// Its key makes up too much of the requests.
    HotKey,
    /// A limit wants a key, and the request has none.
    KeyMissing,
    /// The target fails or is slow, and is left alone.
    BreakerOpen,
    /// Too many are under way, and too many wait already.
    Overloaded,
    /// A more important request took its place.
    Displaced,
    /// Its turn did not come in time.
    WaitedTooLong,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Time {
        Time::ZERO.after(self.0.elapsed())
    }
}

impl Policies {
    pub(super) fn new(seed: [u8; 16]) -> Self {
        Self {
            by_name: BTreeMap::new(),
            tokens: BTreeMap::new(),
            desk: Desk::new(seed),
            seed: KeySeed::new(seed),
            clock: Clock::start(),
        }
    }

    /// Those of the next configuration; what is limited now stays limited.
    pub(super) fn next(
        &self,
        wanted: &BTreeMap<String, PolicySettings>,
        tokens: &BTreeMap<String, Tokens>,
    ) -> Result<Self, PrepareError> {
        let now = self.clock.now();
        let mut by_name = BTreeMap::new();
        let mut verifiers = BTreeMap::new();
        for (name, settings) in wanted {
            let before = self.by_name.get(name);
            let policy = match before {
                Some(same) if same.settings() == settings => Arc::clone(same),
                Some(before) => Arc::new(before.renew(settings, fastrand::u64(..), now)?),
                None => {
                    let chance = fastrand::u64(..);
                    Arc::new(Policy::new(settings, self.seed, chance, now)?)
                }
            };
            by_name.insert(name.clone(), policy);
            if let Some(verifier) = self.verifier(name, settings, tokens.get(name))? {
                verifiers.insert(name.clone(), verifier);
            }
        }
        Ok(Self {
            by_name,
            tokens: verifiers,
            desk: Arc::clone(&self.desk),
            seed: self.seed,
            clock: self.clock,
        })
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Policy>)> {
        self.by_name.iter()
    }

    /// Who verifies tokens for a policy of which claims are keys.
    fn verifier(
        &self,
        name: &str,
        settings: &PolicySettings,
        wanted: Option<&Tokens>,
    ) -> Result<Option<Arc<Verifier>>, PrepareError> {
        let claims = jwt::claims_of(settings);
        if claims.is_empty() {
            return Ok(None);
        }
        let bad = |why: String| PrepareError::Tokens {
            policy: name.to_owned(),
            why,
        };
        let wanted = wanted.ok_or_else(|| {
            bad(
                "claims are keys of its rules, and nobody says whose; add an entry of this name"
                    .to_owned(),
            )
        })?;
        let same = self.tokens.get(name);
        if let Some(same) = same.filter(|same| same.is_for(wanted, &claims)) {
            return Ok(Some(Arc::clone(same)));
        }
        let verifier = Verifier::new(wanted, &claims, &self.desk);
        let verifier = verifier.map_err(|error| bad(error.to_string()))?;
        Ok(Some(Arc::new(verifier)))
    }

    pub(super) fn get(&self, name: &str, class: usize) -> Option<Protection> {
        let policy = self.by_name.get(name)?;
        let class = policy.classes().id(class)?;
        Some(Protection {
            policy: Arc::clone(policy),
            tokens: self.tokens.get(name).cloned(),
            class,
            clock: self.clock,
        })
    }
}

impl Protection {
    /// Asks all rules, and waits for the request's turn where they say so.
    pub(super) async fn enter(&self, keys: &Keys<'_>) -> Result<Guarded, Shed> {
        let claims = match &self.tokens {
            Some(tokens) => tokens.claims(keys.headers).await,
            None => None,
        };
        let admission = self.admit(keys, claims.as_deref())?;
        let wait = admission.wait;
        let mut guarded = Guarded {
            protection: self.clone(),
            admission: Some(admission),
            permit: None,
            since: self.clock.now(),
            is_sent: false,
            outcome: concurrency::Outcome::Dropped,
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if let Some(concurrency) = self.policy.concurrency() {
            match self.turn(concurrency).await {
                Ok(permit) => guarded.permit = Some(permit),
                Err(refusal) => {
                    guarded.undo();
                    return Err(refusal.into());
                }
            }
        }
        guarded.since = self.clock.now();
        Ok(guarded)
    }

    fn admit(&self, keys: &Keys<'_>, claims: Option<&Claims>) -> Result<Admission, Denied> {
        let read = |part: &KeyPart| match (part, &self.tokens, claims) {
            (KeyPart::JwtClaim(name), Some(tokens), Some(claims)) => tokens.key(claims, name),
            _ => keys.read(part),
        };
        self.policy.admit(&read, self.clock.now())
    }

    async fn turn(&self, concurrency: &Arc<Concurrency<Waker>>) -> Result<Permit, Refusal> {
        let (waker, woken) = oneshot::channel();
        let (place, until, turns) = match concurrency.enter(self.class, self.clock.now(), || waker)
        {
            Entered::Now(permit) => return Ok(permit),
            Entered::Refused(refusal) => return Err(refusal),
            Entered::Queued {
                place,
                until,
                turns,
            } => (place, until, turns),
        };
        self.wake(concurrency, turns);
        let mut waiting = Waiting {
            protection: self,
            concurrency,
            place: Some(place),
            woken,
        };
        let patience = until.since(self.clock.now());
        if let Ok(turn) = tokio::time::timeout(patience, &mut waiting.woken).await {
            waiting.place = None;
            return turn.expect("a waker is used or kept until it is");
        }
        // Those whose time is over, this one among them, are told so.
        self.wake(concurrency, concurrency.expire(self.clock.now().max(until)));
        let turn = (&mut waiting.woken).await;
        waiting.place = None;
        turn.expect("a waker is used or kept until it is")
    }

    /// Tells each who waited what became of it. Who left meanwhile gives its permit to the next.
    fn wake(&self, concurrency: &Concurrency<Waker>, turns: Vec<Turn<Waker>>) {
        let mut left = turns;
        while let Some(turn) = left.pop() {
            let unheard = match turn {
                Turn::Run(waker, permit) => waker.send(Ok(permit)).err(),
                Turn::Refused(waker, refusal) => waker.send(Err(refusal)).err(),
            };
            if let Some(Ok(permit)) = unheard {
                let outcome = concurrency::Outcome::Dropped;
                left.extend(concurrency.leave(permit, outcome, self.clock.now()));
            }
        }
    }
}

/// A request in the queue. Its client may leave at any moment.
struct Waiting<'a> {
    protection: &'a Protection,
    concurrency: &'a Concurrency<Waker>,
    place: Option<shield::Place>,
    woken: oneshot::Receiver<Result<Permit, Refusal>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else {
            return;
        };
        if self.concurrency.abandon(place).is_some() {
            return;
        }
        // Its turn came while it was leaving. What is sent from here on comes back to the sender.
        self.woken.close();
        if let Ok(Ok(permit)) = self.woken.try_recv() {
            let now = self.protection.clock.now();
            let outcome = concurrency::Outcome::Dropped;
            let turns = self.concurrency.leave(permit, outcome, now);
            self.protection.wake(self.concurrency, turns);
        }
    }
}

impl Guarded {
    /// From here on the target is asked.
    pub(super) fn sent(&mut self) {
        self.is_sent = true;
    }

    /// The endpoint answered, or failed to: breakers hear of it now.
    pub(super) fn answered(&mut self, is_error: bool) {
        let now = self.protection.clock.now();
        self.outcome = if is_error {
            concurrency::Outcome::Failure
        } else {
            concurrency::Outcome::Success
        };
        if let Some(admission) = self.admission.take() {
            let elapsed = now.since(self.since);
            let outcome = breaker::Outcome { elapsed, is_error };
            self.protection.policy.finish(admission, outcome, now);
        }
    }

    /// Nothing was sent: what it took is given back.
    pub(super) fn undo(&mut self) {
        if let Some(admission) = self.admission.take() {
            self.protection
                .policy
                .undo(admission, self.protection.clock.now());
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let now = self.protection.clock.now();
        let policy = &self.protection.policy;
        if let Some(admission) = self.admission.take() {
            let elapsed = now.since(self.since);
            if self.is_sent && elapsed >= PATIENCE {
                // Else a target that hangs would never be found out by clients that give up.
                let is_error = true;
                policy.finish(admission, breaker::Outcome { elapsed, is_error }, now);
            } else {
                policy.forget(admission, now);
            }
        }
        if let (Some(permit), Some(concurrency)) = (self.permit.take(), policy.concurrency()) {
            let turns = concurrency.leave(permit, self.outcome, now);
            self.protection.wake(concurrency, turns);
        }
    }
}

impl Keys<'_> {
    fn read(&self, part: &KeyPart) -> Option<Cow<'_, [u8]>> {
        match part {
            KeyPart::Header(name) => {
                let value = self.headers.get(name.as_str())?;
                Some(Cow::Borrowed(value.as_bytes()))
            }
            KeyPart::Query(name) => {
                let value = parameter(self.query?, name)?;
                Some(match value {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                })
            }
            KeyPart::Cookie(name) => {
                let all = self.headers.get_all(COOKIE).iter();
                all.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
                    .find_map(|pair| cookie(pair, name))
                    .map(Cow::Borrowed)
            }
            KeyPart::ClientAddress => Some(Cow::Owned(match self.client {
                IpAddr::V4(address) => address.octets().to_vec(),
                // Whoever has one address of a household's network has all of them.
                IpAddr::V6(address) => address.octets()[..8].to_vec(),
            })),
            // Only a token that was verified has claims; see `Protection::admit`.
            KeyPart::JwtClaim(_) => None,
        }
    }
}

/// The value of one pair of a `Cookie` header, if it has this name.
pub(super) fn cookie<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let pair = pair.trim_ascii();
    let value = pair.strip_prefix(name.as_bytes())?;
    value.strip_prefix(b"=")
}

impl From<Denied> for Shed {
    fn from(denied: Denied) -> Self {
        use shield::policy::Reason;
        Self {
            rule: denied.rule,
            reason: match denied.reason {
                Reason::RateLimited => ShedReason::RateLimited,
                Reason::HotKey => ShedReason::HotKey,
                Reason::KeyMissing => ShedReason::KeyMissing,
                Reason::BreakerOpen => ShedReason::BreakerOpen,
            },
            retry_after: denied.retry_after,
        }
    }
}

impl From<Refusal> for Shed {
    fn from(refusal: Refusal) -> Self {
        Self {
            rule: CONCURRENCY.into(),
            reason: match refusal.reason {
                concurrency::Reason::QueueFull => ShedReason::Overloaded,
                concurrency::Reason::Displaced => ShedReason::Displaced,
                concurrency::Reason::Waited => ShedReason::WaitedTooLong,
            },
            retry_after: Some(refusal.retry_after),
        }
    }
}
