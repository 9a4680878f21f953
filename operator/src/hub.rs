//! The hub: decides the whole province and writes down what was decided.
//!
//! One loop, `gather -> decide -> apply -> report`, on every replica; only the leader applies and
//! reports. Watches bring news, the loop wakes at its own pace.

mod announce;
mod apply;
mod board;
mod doubts;
mod events;
mod fence;
mod finalizers;
mod gather;
mod hearing;
mod identity;
mod members;
mod policies;
mod prepare;
mod quotas;
mod report;
mod secrets;
mod statuses;
mod tenants;

use std::time::{Duration, Instant};

use crds::SYSTEM_NAMESPACE;
use kube::Client;
use plan::check::spare;
use plan::province::{Plan, Planner};
use plan::world::Settings;
use plan::{World, check};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::runtime::clock::Clock;
use crate::runtime::first_write::FirstWrite;
use crate::runtime::lease::{Election, Elector, Leadership, Timing};
use crate::runtime::metrics::{Loop, Metrics, TurnOutcome};
use crate::runtime::watch::Freshness;
use announce::Announcer;
use events::{Heard, LEASES};
use gather::Gathered;
use hearing::{CatchUp, Hearing};
use members::{Members, Shared};
use secrets::Secrets;
use statuses::Statuses;

pub(crate) use events::Stored;
pub(crate) use gather::stored;
pub use identity::IdentityError;

/// The loop's own pace: news of this long are decided together.
const PACE: Duration = Duration::from_millis(100);
/// Pause before writes that failed are decided again.
const RETRY: Duration = Duration::from_secs(1);
/// After a turn's slices the loop rests this many times as long as they took: in a burst each slice
/// is written less often and says more, and the API server has room for those who wait for it.
const EASE: u32 = 2;
/// The longest such rest.
const EASE_MAX: Duration = Duration::from_secs(2);

/// A hub replica.
pub struct Hub {
    /// Its API server.
    pub client: Client,
    /// Settings of the plan.
    pub settings: Settings,
    /// Times of the election.
    pub lease: Timing,
    /// Time between two signs of life of the agents that run inside the hub.
    pub heartbeat: Duration,
    /// Metrics.
    pub metrics: Metrics,
    /// Freshness of all watches, for health checks.
    pub freshness: Freshness,
}

impl Hub {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), IdentityError> {
        let hub = identity::identity(&self.client).await?;
        let mut world = World::new(hub, self.settings.clone());
        let mut clock = Clock::start();
        world.started = clock.now();
        world.heard = world.started;
        // No other process may use this name, also not a later one on the same machine.
        let me = uuid::Uuid::new_v4().to_string();
        let elector = Elector::new(
            self.client.clone(),
            SYSTEM_NAMESPACE,
            "jiuzhou-hub",
            me,
            self.lease,
        );
        let (watches, sender, heard) =
            events::watches(&self.client, &self.freshness, &self.metrics);
        let shared = Shared {
            hub: self.client.clone(),
            heartbeat: self.heartbeat,
            metrics: self.metrics.clone(),
            sender: sender.clone(),
        };
        let secrets = Secrets::new(self.client.clone(), sender);
        let mut running = Running {
            hub: self,
            secrets,
            hearing: Hearing::since(world.started),
            gathered: Gathered::new(world, clock),
            planner: Planner::default(),
            heard,
            _watches: watches,
            statuses: Statuses::default(),
            members: Members::new(shared),
            term: None,
            wake: None,
            pace: PACE,
        };
        let mut election = elector.start();
        while stop
            .run_until_cancelled(running.gather(&mut election))
            .await
            .is_some()
        {
            running.lead(election.leadership());
            let outcome = running.turn().await;
            running.hub.metrics.turn(Loop::Hub, outcome);
        }
        running.wind_down().await;
        running.lead(None);
        election.release().await;
        Ok(())
    }
}

struct Running {
    hub: Hub,
    gathered: Gathered,
    hearing: Hearing,
    planner: Planner,
    heard: mpsc::Receiver<Heard>,
    _watches: JoinSet<()>,
    statuses: Statuses,
    members: Members,
    secrets: Secrets,
    term: Option<Term>,
    /// When to turn again although nothing was heard, by the hub's clock.
    wake: Option<i64>,
    /// How long to take news together before the next turn.
    pace: Duration,
}

/// Leading, and the tasks that only a leader runs.
struct Term {
    writer: Writer,
    /// What it waits for before its first turn.
    catch_up: Option<CatchUp>,
    announcer: Announcer,
    _statuses: AbortOnDropHandle<()>,
}

/// With what a leader writes, as long as its term lasts.
#[derive(Clone)]
struct Writer {
    term: Leadership,
    /// Former leaders are refused before the first write.
    first: FirstWrite,
    /// The hub's API server, behind that.
    client: Client,
}

impl Running {
    /// Waits for news, then takes all there are.
    async fn gather(&mut self, election: &mut Election) {
        let now = self.gathered.clock.now();
        let wait = self.wake.map_or(Duration::from_hours(1), |at| {
            Duration::from_millis(u64::try_from(at - now).unwrap_or(0))
        });
        tokio::select! {
            first = self.heard.recv() => {
                if let Some(first) = first {
                    self.hear(first);
                    tokio::time::sleep(self.pace).await;
                }
            }
            () = election.changed() => {}
            () = tokio::time::sleep(wait.max(PACE)) => {}
        }
        while let Ok(next) = self.heard.try_recv() {
            self.hear(next);
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "everything but Secrets is for the world, whatever kinds are added"
    )]
    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Sources(namespace, change) => self.secrets.hear_sources(&namespace, change),
            Heard::Copies(cluster, change) => self.secrets.hear_copies(&cluster, change),
            heard => {
                // Which clusters there are, and what their entries name.
                if matches!(
                    heard,
                    Heard::Slices(_) | Heard::Clusters(_) | Heard::Namespaces(_)
                ) {
                    self.secrets.mark();
                }
                self.gathered.hear(heard);
            }
        }
    }

    /// Begins or ends a term.
    fn lead(&mut self, leadership: Option<Leadership>) {
        let goes_on = match (&self.term, &leadership) {
            (None, None) => true,
            (Some(term), Some(now)) => term.writer.term.is_same_term(now),
            (Some(_), None) | (None, Some(_)) => false,
        };
        if goes_on {
            return;
        }
        self.term = None;
        self.members.end();
        self.secrets.end();
        self.statuses.clear();
        self.gathered.doubts.clear();
        if let Some(leadership) = leadership {
            tracing::info!(epoch = leadership.epoch(), "this replica leads");
            self.gathered.world.hub.leader_epoch = leadership.epoch();
            // A new leader decides everything anew: its predecessor's memory is not its own.
            self.planner = Planner::default();
            self.term = Some(self.begin(leadership));
            self.hub.freshness.nudge();
        }
    }

    /// Ends the agents in here, as long as the term lasts.
    async fn wind_down(&mut self) {
        if let Some(term) = &self.term {
            let _ended = term
                .writer
                .term
                .while_leading(self.members.wind_down())
                .await;
        }
    }

    /// A term, with the tasks that run as long as it.
    fn begin(&self, term: Leadership) -> Term {
        let first = fence::at_hub(self.hub.client.clone(), term.clone());
        let client = first.client(self.hub.client.clone());
        let metrics = self.hub.metrics.clone();
        let announcer = Announcer::start(client.clone(), term.clone(), metrics);
        let writer = Writer {
            term,
            first,
            client,
        };
        let (statuses, leader) = (self.statuses.clone(), writer.clone());
        let write = async move {
            let written = statuses.write(&leader.client, &leader.term);
            let _ended = leader.term.while_leading(written).await;
        };
        Term {
            writer,
            // A process that is still listing hears all there is anyway.
            catch_up: self.is_whole().then(|| CatchUp::begun(Instant::now())),
            announcer,
            _statuses: AbortOnDropHandle::new(tokio::spawn(write)),
        }
    }

    fn is_whole(&self) -> bool {
        self.gathered.is_whole(&self.hub.freshness.kinds())
    }

    /// Whether a new leader has yet to hear what its predecessor did.
    fn catches_up(&mut self) -> bool {
        let Some(term) = &mut self.term else {
            return false;
        };
        let over = term.catch_up.as_mut().is_none_or(|catch_up| {
            let heard = self.hub.freshness.fresh(catch_up.since().elapsed());
            catch_up.is_over(heard.is_ok(), Instant::now())
        });
        if over {
            term.catch_up = None;
        }
        !over
    }

    async fn turn(&mut self) -> TurnOutcome {
        // Before every kind was listed once, the world is a fragment.
        if !self.is_whole() {
            return TurnOutcome::Held;
        }
        if self.catches_up() {
            self.wake_in(PACE);
            return TurnOutcome::Held;
        }
        if let Some(writer) = self.term.as_ref().map(|term| term.writer.clone()) {
            let settled = doubts::settle(&writer.client, &mut self.gathered);
            if writer.term.while_leading(settled).await != Some(true) {
                self.wake_in(RETRY);
                return TurnOutcome::Held;
            }
        }
        let span = tracing::info_span!(parent: None, "hub_turn");
        async {
            let plan = self.decide();
            // The plan of a standby is thrown away: what is found in it says nothing of what is applied.
            let Some(writer) = self.term.as_ref().map(|term| term.writer.clone()) else {
                return TurnOutcome::Standby;
            };
            match self.judged(plan) {
                Some(plan) => self.carry_out(plan, &writer).await,
                None => TurnOutcome::Held,
            }
        }
        .instrument(span)
        .await
    }

    /// The plan, if nothing is wrong with it; otherwise without the Apps that something is wrong with.
    fn judged(&mut self, plan: Plan) -> Option<Plan> {
        let world = &self.gathered.world;
        let findings = check(world, &plan);
        let Some(first) = findings.first() else {
            return Some(plan);
        };
        let error: &dyn std::error::Error = first;
        let rest = spare(world, plan, &findings);
        let rest = rest.filter(|rest| check(world, rest).is_empty());
        tracing::error!(
            error,
            findings = findings.len(),
            applied = rest.is_some(),
            "the plan breaks an invariant; what breaks it is not applied"
        );
        self.wake = self.wake.or(rest.as_ref()?.wake_at);
        rest
    }

    async fn carry_out(&mut self, plan: Plan, writer: &Writer) -> TurnOutcome {
        let Writer {
            term,
            first,
            client,
        } = writer;
        // Once for the whole plan, rather than a failure of each of its writes.
        if !plan.is_empty() && !matches!(term.while_leading(first.begin()).await, Some(Ok(()))) {
            self.wake_in(RETRY);
            return TurnOutcome::Held;
        }
        self.members.follow(&self.gathered.world, first);
        let applied = term
            .while_leading(apply::apply(client, &mut self.gathered, plan))
            .await;
        self.report();
        let Some(mut applied) = applied else {
            return TurnOutcome::Held;
        };
        self.pace = PACE.max((applied.took * EASE).min(EASE_MAX));
        if applied.written > 0 {
            self.secrets.mark();
        }
        let Gathered {
            world,
            secret_users,
            prepared,
            ..
        } = &mut self.gathered;
        let copied = term
            .while_leading(self.secrets.bring_up(client, world, secret_users, prepared))
            .await;
        applied.failed += copied.unwrap_or(0);
        if applied.left > 0 {
            self.wake_in(PACE);
        }
        if applied.failed > 0 {
            self.wake_in(RETRY);
            return TurnOutcome::Failed;
        }
        if applied.written > 0 {
            TurnOutcome::Changed
        } else {
            TurnOutcome::Unchanged
        }
    }

    fn decide(&mut self) -> Plan {
        let now = self.gathered.clock.now();
        let sign = self.hub.freshness.last(LEASES);
        let heard = self.hearing.until(sign, Instant::now(), now);
        (self.gathered.world.now, self.gathered.world.heard) = (now, heard);
        let begun = Instant::now();
        let plan = tokio::task::block_in_place(|| self.planner.plan(&self.gathered.world));
        self.hub.metrics.planned(begun.elapsed());
        self.wake = plan.wake_at;
        plan
    }

    fn wake_in(&mut self, pause: Duration) {
        let at = self.gathered.clock.now() + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}
