//! The agent: keeps one member cluster as the hub assigned it, also while the hub is gone.
//!
//! One loop, `gather -> decide -> apply -> report`. Watches only bring news; the loop wakes at its
//! own pace, decides every App that something changed for with [`plan::realize::realize`], carries
//! the actions out in the member cluster, and hands its reports to a task of their own. Whatever
//! needs the hub (content, reports, evidence for deletes) never holds up the member cluster.
//!
//! The same code runs in the member cluster (pull) and inside the hub (push, local): only the
//! credentials differ.

mod capacity;
mod discover;
mod events;
mod hub_side;
mod member;
mod reports;
mod secrets;
mod snapshot;
mod state;
mod view;

pub(crate) use secrets::COPY;
pub(crate) use view::View;

use std::time::Duration;

use crds::{ClusterName, Uid};
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::runtime::clock::Clock;
use crate::runtime::errors::chain;
use crate::runtime::first_write::FirstWrite;
use crate::runtime::lease::Heartbeat;
use crate::runtime::metrics::{Loop, Metrics, TurnOutcome};
use crate::runtime::watch::Freshness;
use events::{Heard, Watches};
use hub_side::HubSide;
use member::Member;
use plan::realize::Action;
use state::State;

/// The loop's own pace: news of this long are taken together.
const PACE: Duration = Duration::from_millis(50);
/// Pause after a member cluster could not be reached at the start.
const RETRY: Duration = Duration::from_secs(2);
/// Least time between two snapshots.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(10);
/// Least time between two snapshots when a removal waits to be acknowledged: it is not before it is
/// remembered.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(1);
/// So long a delete may begin after the hub confirmed it.
const CONFIRMED_FOR: Duration = Duration::from_secs(2);

/// An agent and what it talks to.
#[derive(Clone)]
pub struct Agent {
    /// Name of the cluster at the hub.
    pub cluster: ClusterName,
    /// The hub, with the agent's own rights.
    pub hub: Client,
    /// The member cluster.
    pub member: Client,
    /// Whether the member cluster is the hub's own: its namespaces are the tenants' themselves.
    pub local: bool,
    /// Epoch of the hub leader in whose process the agent runs, when it does: every write in the
    /// member cluster carries it, and the agent ends with that leader.
    pub leader_epoch: Option<i64>,
    /// What comes before the first write in the member cluster, if anything does.
    pub(crate) first: Option<FirstWrite>,
    /// Time between two signs of life.
    pub heartbeat: Duration,
    /// Metrics.
    pub metrics: Metrics,
    /// Freshness of all watches, for health checks.
    pub freshness: Freshness,
}

impl Agent {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let name = self.cluster.clone();
        let span = tracing::info_span!(parent: None, "agent", cluster = %name);
        let run = async {
            while !stop.is_cancelled() {
                let start = self.clone().start(&stop);
                let Some(running) = stop.run_until_cancelled(start).await else {
                    return;
                };
                running.turns(&stop).await;
            }
        };
        run.instrument(span).await;
    }

    /// Connects, reads the snapshot and starts the watches. The hub is not needed for any of it.
    async fn start(self, stop: &CancellationToken) -> Running {
        let (member, mut state, served, store) = loop {
            match self.connect().await {
                Ok(connected) => break connected,
                Err(error) => {
                    tracing::warn!(
                        error = chain(&*error),
                        "the member cluster cannot be used yet"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let hub = HubSide::new(self.hub.clone(), &self.cluster);
        let (mut watches, heard) = Watches::new(self.freshness.clone(), self.metrics.clone());
        watches.cluster(&self.member);
        watches.slices(&hub);
        if !self.local {
            watches.copies(&hub);
        }
        for kind in state.kinds_to_watch(&served) {
            watches.objects(&self.member, kind);
        }
        let mut clock = Clock::start();
        let mut first = reports::Reports::default();
        state.bring_up(&mut first, clock.now());
        let (reports, wanted) = watch::channel(first);
        let tasks = self.tasks(&hub, &member, wanted, watches.sender(), &stop.child_token());
        let remembered = store.holds_something();
        Running {
            agent: self,
            member,
            hub,
            store,
            state,
            clock,
            watches,
            heard,
            reports,
            _tasks: tasks,
            // What was read a moment ago need not be written again before anything has changed.
            saved_at: remembered.then(Instant::now),
            overtaken: false,
        }
    }

    /// What runs beside the turns: reports, a look at the kinds that are served, signs of life.
    fn tasks(
        &self,
        hub: &HubSide,
        member: &Member,
        wanted: watch::Receiver<reports::Reports>,
        sender: mpsc::Sender<Heard>,
        stop: &CancellationToken,
    ) -> Vec<AbortOnDropHandle<()>> {
        let write = reports::write(hub.clone(), self.cluster.clone(), wanted, stop.clone());
        let look = discover::look(self.member.clone(), sender, stop.clone());
        let contact = member.contact();
        let beat = Heartbeat::new(
            self.hub.clone(),
            hub.namespace(),
            "agent",
            self.cluster.to_string(),
            self.heartbeat,
        );
        let silence = self.heartbeat * 4;
        let beat = beat.run(move || contact.within(silence), stop.clone());
        let stay = member.clone().stay_in_contact(self.heartbeat, stop.clone());
        [
            tokio::spawn(write),
            tokio::spawn(look),
            tokio::spawn(beat),
            tokio::spawn(stay),
        ]
        .map(AbortOnDropHandle::new)
        .into()
    }

    async fn connect(&self) -> Result<Connected, Box<dyn std::error::Error + Send + Sync>> {
        let member = Member::connect(self.member.clone(), self.leader_epoch).await?;
        let uid = discover::cluster_uid(&self.member).await?;
        let version = discover::version(&self.member).await?;
        let served = discover::served(&self.member).await?;
        let mut state = State::new(uid, version, member.identity(), self.local);
        let mut store = snapshot::Store::new(self.member.clone(), &self.cluster, self.leader_epoch);
        let found = store.read().await?;
        if let Some(found) = found {
            if let Some(error) = &found.damage {
                let error: &dyn std::error::Error = error;
                tracing::warn!(
                    error,
                    "the snapshot is not usable and is left aside, but for the hub that is served"
                );
            }
            state.remember(found);
        }
        Ok((member, state, served, store))
    }
}

/// A member cluster that can be used, what is known of it, the kinds it serves, and where the agent's
/// memory is.
type Connected = (Member, State, Vec<plan::object::Kind>, snapshot::Store);

/// What came of deletes.
#[derive(Default)]
struct Deletes {
    acted: bool,
    failed: bool,
}

struct Running {
    agent: Agent,
    member: Member,
    hub: HubSide,
    store: snapshot::Store,
    state: State,
    clock: Clock,
    watches: Watches,
    heard: mpsc::Receiver<Heard>,
    reports: watch::Sender<reports::Reports>,
    _tasks: Vec<AbortOnDropHandle<()>>,
    /// When a snapshot was last written, or tried.
    saved_at: Option<Instant>,
    /// Whether another agent of this cluster remembers more than this one.
    overtaken: bool,
}

impl Running {
    async fn turns(mut self, stop: &CancellationToken) {
        while stop.run_until_cancelled(self.gather()).await.is_some() {
            let outcome = self.turn().await;
            self.agent.metrics.turn(Loop::Agent, outcome);
            if self.overtaken {
                // As long as the other one runs, neither should be in a hurry.
                return tokio::time::sleep(RETRY).await;
            }
        }
        self.save(true).await;
    }

    /// Waits for news or for the next point in time, then takes all there are.
    async fn gather(&mut self) {
        let now = self.clock.now();
        let wait = self.state.wake_at().map_or(Duration::from_hours(1), |at| {
            Duration::from_millis(u64::try_from(at - now).unwrap_or(0))
        });
        let snapshot = self
            .snapshot_due()
            .filter(|_| self.state.unsaved())
            .map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.min(snapshot.unwrap_or(wait)).max(PACE);
        tokio::select! {
            first = self.heard.recv() => {
                if let Some(first) = first {
                    self.hear(first);
                    tokio::time::sleep(PACE).await;
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
        while let Ok(next) = self.heard.try_recv() {
            self.hear(next);
        }
    }

    fn hear(&mut self, heard: Heard) {
        if let Heard::Kinds(kinds) = heard {
            for kind in self.state.kinds_to_watch(&kinds) {
                self.watches.objects(&self.agent.member, kind);
            }
            return;
        }
        self.state.hear(heard, self.clock.now());
    }

    async fn turn(&mut self) -> TurnOutcome {
        let now = self.clock.now();
        if self.state.asks_for_acknowledgement(now) {
            self.look_for_acknowledgement().await;
        }
        if self.state.is_suspicious() {
            self.look_again().await;
        }
        let work = self.state.decide(now);
        let span = crate::runtime::telemetry::span_with_parent(
            tracing::info_span!(parent: None, "agent_turn", actions = work.actions.len()),
            work.traceparent.as_deref(),
        );
        for pack in work.fetch {
            self.fetch(pack);
        }
        let (mut failed, mut acted) = (false, false);
        async {
            if !work.actions.is_empty() {
                acted = work.actions.iter().any(|(_, action)| !action.is_look());
                failed |= self.carry_out(work.actions, None).await;
            }
            if !work.destructive.is_empty() {
                let deletes = self.delete(work.destructive).await;
                failed |= deletes.failed;
                acted |= deletes.acted;
            }
        }
        .instrument(span)
        .await;
        self.save(false).await;
        let now = self.clock.now();
        self.reports
            .send_if_modified(|reports| self.state.bring_up(reports, now));
        match (failed, acted) {
            (true, _) => TurnOutcome::Failed,
            (false, true) => TurnOutcome::Changed,
            (false, false) => TurnOutcome::Unchanged,
        }
    }

    async fn carry_out(
        &mut self,
        actions: Vec<(member::Asker, Action)>,
        until: Option<std::time::Instant>,
    ) -> bool {
        let vault = self.state.vault();
        let outcomes = self.member.carry_out(actions, vault, until).await;
        self.state.learn(outcomes, self.clock.now())
    }

    /// Deletes what the hub confirms. A confirmation counts for a moment: what a slow cluster leaves
    /// for later is decided and confirmed anew.
    async fn delete(&mut self, destructive: Vec<(Uid, Action)>) -> Deletes {
        // What comes before a first write may take long, and a confirmation is soon old.
        if let Some(first) = &self.agent.first
            && let Err(error) = first.begin().await
        {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "deletes wait");
            self.state.retry_later(&destructive, self.clock.now());
            return Deletes::default();
        }
        let slices = match self.hub.read_slices().await {
            Ok(slices) => slices,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "deletes wait for the hub to confirm them");
                self.state.retry_later(&destructive, self.clock.now());
                return Deletes::default();
            }
        };
        let until = std::time::Instant::now() + CONFIRMED_FOR;
        let actions = self.state.confirmed(destructive, &slices, self.clock.now());
        let acted = !actions.is_empty();
        let failed = acted && self.carry_out(actions, Some(until)).await;
        Deletes { acted, failed }
    }

    /// A suspicion counts only if the store's leader shows the same picture.
    async fn look_again(&mut self) {
        match self.hub.read_slices().await {
            Ok(slices) => self.state.judge(slices),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "a suspicion about the hub waits for a second look");
            }
        }
    }

    /// While another hub is refused, an administrator of this cluster may say that it is the right one.
    async fn look_for_acknowledgement(&mut self) {
        match self.store.acknowledged().await {
            Ok(Some(hub)) => self.state.acknowledge(hub),
            Ok(None) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot look whether the other hub is acknowledged");
            }
        }
    }

    fn fetch(&self, pack: String) {
        let (hub, sender) = (self.hub.clone(), self.watches.sender());
        tokio::spawn(async move {
            let fetched = hub.fetch(&pack).await.map_err(|error| error.to_string());
            // A receiver that is gone means that the agent stopped.
            let _gone = sender.send(Heard::Content(pack, fetched)).await;
        });
    }

    /// When the next snapshot may be written; at once before the first.
    fn snapshot_due(&self) -> Option<Instant> {
        let interval = if self.state.must_remember() {
            REMOVAL_INTERVAL
        } else {
            SNAPSHOT_INTERVAL
        };
        self.saved_at.map(|at| at + interval)
    }

    async fn save(&mut self, last: bool) {
        let due = self.snapshot_due().is_none_or(|at| Instant::now() >= at);
        if !self.state.unsaved() || !(due || last) {
            return;
        }
        let snapshot = self.state.snapshot();
        let packed = snapshot::pack(&snapshot);
        self.saved_at = Some(Instant::now());
        match self.store.write(&packed, snapshot.held.hub.as_ref()).await {
            Ok(()) => self.state.saved(),
            Err(error) => {
                self.overtaken = matches!(error, snapshot::SnapshotError::Overtaken(_));
                self.state.not_saved(chain(&error));
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "snapshot not written");
            }
        }
    }
}
