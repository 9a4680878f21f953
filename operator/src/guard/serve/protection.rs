//! The shield around a request: asked before it is sent, told how it went.

mod policies;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use shield::concurrency::{self, Concurrency, Entered, Permit, Refusal, Turn};
use shield::policy::{Admission, Denied, KeyPart};
use shield::{ClassId, SHARED_CYCLE, Time, breaker};
use tokio::sync::oneshot;

pub(super) use policies::Policies;

use super::jwt::{Claims, Verifier};
use super::keys::{Keys, SaidOnce};
use super::outgoing::Intake;
use super::queued::Queued;

/// Wakes a request that waits, with its permit or the reason why it gets none.
pub(super) type Waker = oneshot::Sender<Result<Permit, Refusal>>;

/// A policy whose waiting requests are woken so.
pub(super) type Policy = shield::Policy<Waker>;

/// The rule that refusals of the concurrency are counted under.
static CONCURRENCY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("concurrency"));

/// A client that leaves this late left because it waited; one that leaves earlier says nothing about
/// the target.
const PATIENCE: Duration = Duration::from_secs(1);

/// The clock of this process. It never goes back, and in [`SHARED_CYCLE`] it stands where the clocks of the
/// other guards stand, as far as those of the machines agree when they start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    phase: Duration,
}

/// What a rule of a route is protected by.
#[derive(Debug)]
pub(super) struct Protection {
    policy: Arc<Policy>,
    /// Parts of keys that a request must say in one way.
    said_once: Vec<SaidOnce>,
    /// Where claims of tokens are keys.
    tokens: Option<Arc<Verifier>>,
    class: ClassId,
    pub(super) clock: Clock,
}

/// How far a request came.
#[derive(Debug)]
pub(super) enum Stage {
    /// It may be sent.
    Free(Guarded),
    /// Its token is verified before any rule is asked.
    Unknown,
    /// The rules let it pass after this time.
    Paced(Guarded, Duration),
    /// It waits until others have ended.
    Queued(Guarded, Queued),
}

/// A request that may be sent. Dropped without a word, it counts for nothing.
#[derive(Debug)]
pub(super) struct Guarded {
    protection: Arc<Protection>,
    admission: Option<Admission>,
    permit: Option<Permit>,
    since: Time,
    /// Of what is sent; none before.
    intake: Option<Intake>,
    /// How long the answer took to begin, while it has not ended.
    heard: Option<Duration>,
    outcome: concurrency::Outcome,
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
    /// A limit wants a key, and the request says two.
    KeyAmbiguous,
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
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = wall.unwrap_or_default().as_nanos() % SHARED_CYCLE.as_nanos();
        Self {
            started: Instant::now(),
            phase: Duration::from_nanos(u64::try_from(nanos).unwrap_or_default()),
        }
    }

    pub(super) fn now(self) -> Time {
        Time::ZERO.after(self.phase + self.started.elapsed())
    }
}

impl Protection {
    /// The rules that may refuse a request.
    pub(super) fn rules(&self) -> impl Iterator<Item = Arc<str>> {
        let standings = self.policy.standings().into_iter();
        let concurrency = self.policy.concurrency().map(|_| Arc::clone(&CONCURRENCY));
        standings.map(|standing| standing.rule).chain(concurrency)
    }

    /// The refusal of a request of which a key depends on who reads it; none where all are clear.
    pub(super) fn ambiguous(&self, keys: &Keys<'_>) -> Option<Shed> {
        let mut said = self.said_once.iter();
        let twice = said.find(|said| keys.is_ambiguous(&said.part))?;
        Some(Shed {
            rule: Arc::clone(&twice.rule),
            reason: ShedReason::KeyAmbiguous,
            retry_after: None,
        })
    }

    /// Asks all rules, as far as nothing has to be waited for.
    pub(super) fn ask(self: &Arc<Self>, keys: &Keys<'_>) -> Result<Stage, Shed> {
        if self.tokens.is_some() {
            return Ok(Stage::Unknown);
        }
        self.decide(keys, None)
    }

    /// Waits for what there is to wait for, and asks the rules that come after it.
    pub(super) async fn wait(
        self: &Arc<Self>,
        mut stage: Stage,
        keys: &Keys<'_>,
    ) -> Result<Guarded, Shed> {
        loop {
            stage = match stage {
                Stage::Free(guarded) => return Ok(guarded),
                Stage::Unknown => {
                    let claims = match &self.tokens {
                        Some(tokens) => tokens.claims(keys.headers).await,
                        None => None,
                    };
                    self.decide(keys, claims.as_deref())?
                }
                Stage::Paced(guarded, wait) => {
                    tokio::time::sleep(wait).await;
                    self.enter(guarded, self.clock.now())?
                }
                Stage::Queued(guarded, queued) => {
                    let turn = queued.turn().await;
                    Stage::Free(guarded.began(turn, self.clock.now())?)
                }
            }
        }
    }

    /// Asks all rules but the concurrency, and that one if it is its turn at once.
    fn decide(self: &Arc<Self>, keys: &Keys<'_>, claims: Option<&Claims>) -> Result<Stage, Shed> {
        let now = self.clock.now();
        let read = |part: &KeyPart| match (part, &self.tokens, claims) {
            (KeyPart::JwtClaim(name), Some(tokens), Some(claims)) => tokens.key(claims, name),
            _ => keys.read(part),
        };
        let admission = self.policy.admit(&read, now)?;
        let wait = admission.wait;
        let guarded = Guarded {
            protection: Arc::clone(self),
            admission: Some(admission),
            permit: None,
            since: now,
            intake: None,
            heard: None,
            outcome: concurrency::Outcome::Dropped,
        };
        if wait.is_zero() {
            self.enter(guarded, now)
        } else {
            Ok(Stage::Paced(guarded, wait))
        }
    }

    fn enter(self: &Arc<Self>, mut guarded: Guarded, now: Time) -> Result<Stage, Shed> {
        let Some(concurrency) = self.policy.concurrency() else {
            guarded.since = now;
            return Ok(Stage::Free(guarded));
        };
        let mut woken = None;
        let waker = || {
            let (waker, receiver) = oneshot::channel();
            woken = Some(receiver);
            waker
        };
        match concurrency.enter(self.class, now, waker) {
            Entered::Now(permit) => guarded.began(Ok(permit), now).map(Stage::Free),
            Entered::Refused(refusal) => guarded.began(Err(refusal), now).map(Stage::Free),
            Entered::Queued {
                place,
                until,
                turns,
            } => {
                self.wake(turns);
                let woken = woken.expect("who has a place was asked for a waker");
                let queued = Queued::new(Arc::clone(self), place, until, woken);
                Ok(Stage::Queued(guarded, queued))
            }
        }
    }

    /// The bound of what is under way; only who entered it asks.
    pub(super) fn concurrency(&self) -> &Concurrency<Waker> {
        let concurrency = self.policy.concurrency();
        concurrency.expect("a policy keeps what it was made with")
    }

    /// Tells each who waited what became of it. Who left meanwhile gives its permit to the next.
    pub(super) fn wake(&self, turns: Vec<Turn<Waker>>) {
        let mut left = turns;
        while let Some(turn) = left.pop() {
            let unheard = match turn {
                Turn::Run(waker, permit) => waker.send(Ok(permit)).err(),
                Turn::Refused(waker, refusal) => waker.send(Err(refusal)).err(),
            };
            if let Some(Ok(permit)) = unheard {
                let outcome = concurrency::Outcome::Dropped;
                left.extend(self.concurrency().leave(permit, outcome, self.clock.now()));
            }
        }
    }

    /// Gives a permit back, and to whoever is next.
    pub(super) fn leave(&self, permit: Permit, outcome: concurrency::Outcome) {
        let turns = self.concurrency().leave(permit, outcome, self.clock.now());
        self.wake(turns);
    }
}

impl Guarded {
    /// Its turn came, or it is refused and gives back what it took.
    fn began(mut self, turn: Result<Permit, Refusal>, now: Time) -> Result<Self, Shed> {
        match turn {
            Ok(permit) => {
                self.permit = Some(permit);
                self.since = now;
                Ok(self)
            }
            Err(refusal) => {
                self.undo();
                Err(refusal.into())
            }
        }
    }

    /// From here on the target is asked.
    pub(super) fn sent(&mut self, intake: Intake) {
        self.intake = Some(intake);
    }

    /// The endpoint began to answer, or failed to. Breakers hear of a failure now, of an answer that begins
    /// well when it has ended. How long bodies take is also up to the client, and counts for nothing: of the
    /// request's the time since something of it came last.
    pub(super) fn heard(&mut self, is_error: bool) {
        self.heard = Some(self.waited(self.protection.clock.now()));
        if is_error {
            self.ended(true);
        }
    }

    /// How long the target has had the request as far as it is there.
    fn waited(&self, now: Time) -> Duration {
        let elapsed = now.since(self.since);
        let last = self.intake.as_ref().and_then(Intake::last);
        last.map_or(elapsed, |last| last.elapsed().min(elapsed))
    }

    /// The answer ended, or broke off.
    pub(super) fn ended(&mut self, is_error: bool) {
        let Some(elapsed) = self.heard.take() else {
            return;
        };
        self.outcome = if is_error {
            concurrency::Outcome::Failure
        } else {
            concurrency::Outcome::Success
        };
        if let Some(admission) = self.admission.take() {
            let outcome = breaker::Outcome { elapsed, is_error };
            let now = self.protection.clock.now();
            self.protection.policy.finish(admission, outcome, now);
        }
    }

    /// What came of it says nothing about the target.
    pub(super) fn forget(&mut self) {
        self.heard = None;
        if let Some(admission) = self.admission.take() {
            let now = self.protection.clock.now();
            self.protection.policy.forget(admission, now);
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
        self.ended(false);
        let now = self.protection.clock.now();
        let policy = &self.protection.policy;
        if let Some(admission) = self.admission.take() {
            let elapsed = self.waited(now);
            match &self.intake {
                None => policy.undo(admission, now),
                Some(intake) if elapsed < PATIENCE || intake.is_faulty() => {
                    policy.forget(admission, now);
                }
                Some(_) => {
                    // Else a target that hangs would never be found out by clients that give up.
                    let is_error = true;
                    policy.finish(admission, breaker::Outcome { elapsed, is_error }, now);
                }
            }
        }
        if let Some(permit) = self.permit.take() {
            self.protection.leave(permit, self.outcome);
        }
    }
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
            rule: Arc::clone(&CONCURRENCY),
            reason: match refusal.reason {
                concurrency::Reason::QueueFull => ShedReason::Overloaded,
                concurrency::Reason::Displaced => ShedReason::Displaced,
                concurrency::Reason::Waited => ShedReason::WaitedTooLong,
            },
            retry_after: Some(refusal.retry_after),
        }
    }
}
