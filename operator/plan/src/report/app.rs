//! What was decided for an App and why, and the status users read.

use std::sync::Arc;

use crds::{
    AppName, AppStatus, ClusterName, NamespaceName, PlacementStatus, Reason, ReportEntry,
    ReportState, Timestamp, Uid, WaveName, condition,
};

use super::verdict::verdicts;
use super::{ClusterVerdict, QuotaShort, Shortage};
use crate::province::{
    Class, Edit, Edits, Fleet, Lane, Load, Placed, Protection, Reach, Refusal, Rolled,
};
use crate::world::{AppLedger, AppSlot, Parked, ValidApp};

/// Placements shown in an App's status; the counts are always complete.
const PLACEMENTS_SHOWN: usize = 32;

/// What was decided for one App and why.
#[derive(Clone, Debug)]
pub struct AppReport {
    /// UID.
    pub uid: Uid,
    /// Namespace.
    pub namespace: NamespaceName,
    /// Name.
    pub name: AppName,
    /// Why it is parked, if it is.
    pub parked: Option<Parked>,
    /// What is missing, if anything.
    pub shortage: Option<Shortage>,
    /// What the tenant's Quotas have no room for, if that is what is missing.
    pub short: Option<Arc<QuotaShort>>,
    /// Its place among the Apps that wait for the same: exact up to 10; 11 means more than 10, 101 more
    /// than 100, and so on.
    pub position: Option<usize>,
    /// Replicas that go back to whoever lent them, and when.
    pub goes_back: Option<(i32, Timestamp)>,
    /// Where it stands with the emergency lane, if there is an Approval for that.
    pub lane: Option<Lane>,
    /// What its rollout waits on, if anything.
    pub waiting: Option<Waiting>,
    /// Clusters it is placed on.
    pub targets: Vec<TargetReport>,
    /// Candidates that were weighed in the turn that placed it.
    pub(crate) weighed: Arc<[(usize, ClusterVerdict)]>,
    /// Refusals of all clusters.
    pub(crate) class: Option<Arc<Class>>,
    /// Status for users, without the epoch of its writer.
    pub status: AppStatus,
}

/// Scores of the turn that placed an App are history, no part of the decision.
impl PartialEq for AppReport {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            uid,
            namespace,
            name,
            parked,
            shortage,
            short,
            position,
            goes_back,
            lane,
            waiting,
            targets,
            weighed: _,
            class: _,
            status,
        } = self;
        *uid == other.uid
            && *namespace == other.namespace
            && *name == other.name
            && *parked == other.parked
            && *shortage == other.shortage
            && *short == other.short
            && *position == other.position
            && *goes_back == other.goes_back
            && *lane == other.lane
            && *waiting == other.waiting
            && *targets == other.targets
            && *status == other.status
    }
}

impl AppReport {
    /// Why a cluster does not qualify, by its position in the fleet; `None` when it does, or when
    /// the App is parked or being removed, so that nobody asked.
    pub fn refusal(&self, at: usize) -> Option<&Refusal> {
        self.class.as_ref()?.refusal(at)
    }

    /// What came of a cluster that qualifies, by its position in the fleet, in the turn that placed
    /// the App; `None` when what it had stood without being weighed.
    pub fn verdict(&self, at: usize) -> Option<ClusterVerdict> {
        let found = self.weighed.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        Some(self.weighed[found].1)
    }
}

/// What a rollout waits on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// An Approval of this wave.
    Approval {
        /// The wave.
        wave: WaveName,
    },
    /// The soak time of this wave.
    Soak {
        /// The wave.
        wave: WaveName,
        /// When it ends, in milliseconds since the Unix epoch.
        until: i64,
    },
    /// The clusters of this wave.
    Wave {
        /// The wave.
        wave: WaveName,
    },
    /// A change of content, since this wave became unhealthy.
    Stopped {
        /// The wave.
        wave: WaveName,
    },
}

/// An App in one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// Replicas placed there, or the most an autoscaler may run; absent when the manifests decide.
    pub count: Option<i32>,
    /// Replicas ready there, as last reported.
    pub ready: i32,
    /// Replicas that run there, as last reported.
    pub running: i32,
    /// Wave to which the cluster belongs.
    pub wave: Option<WaveName>,
    /// State there, as last reported.
    pub state: ReportState,
    /// Whether it runs, or is about to run, the wanted content.
    pub current: bool,
    /// Whether the cluster is in contact.
    pub in_contact: bool,
    /// Why it is not healthy.
    pub reason: Option<Reason>,
    /// Why it is not healthy, as one sentence.
    pub message: Option<String>,
}

/// Everything an App's report is made of.
pub(crate) struct AppFacts<'a> {
    pub(crate) slot: &'a AppSlot,
    pub(crate) app: Option<&'a ValidApp>,
    pub(crate) parked: Option<&'a Parked>,
    pub(crate) placed: &'a Placed,
    pub(crate) rolled: Option<&'a Rolled>,
    pub(crate) ledger: Option<&'a AppLedger>,
    pub(crate) edits: &'a Edits,
    pub(crate) class: Option<&'a Arc<Class>>,
    pub(crate) lane: Option<Lane>,
    pub(crate) protection: Protection,
}

/// The report of one App.
pub(crate) fn app_report(fleet: &Fleet, facts: &AppFacts<'_>, now: i64) -> AppReport {
    let mut placed = facts.placed.targets.clone();
    placed.extend(&facts.placed.frozen);
    let targets = placed
        .iter()
        .map(|(at, load)| target(fleet, facts, *at, *load))
        .collect();
    let waiting = facts.rolled.and_then(|r| r.waiting.clone());
    let mut report = AppReport {
        uid: facts.slot.uid.clone(),
        namespace: facts.slot.namespace.clone(),
        name: facts.slot.name.clone(),
        parked: facts.parked.cloned(),
        shortage: facts.placed.shortage,
        short: facts.placed.short.clone(),
        position: facts.placed.position,
        goes_back: goes_back(facts, now),
        lane: facts.lane.clone(),
        waiting,
        targets,
        weighed: facts.placed.weighed.clone(),
        class: facts.class.cloned(),
        status: AppStatus::default(),
    };
    report.status = app_status(facts, &report, now);
    report
}

/// Replicas that a later stage has fewer, and when the first such stage begins.
fn goes_back(facts: &AppFacts<'_>, now: i64) -> Option<(i32, Timestamp)> {
    let held = facts.ledger.into_iter().flat_map(|l| &l.entries);
    let entries = held.map(|(cluster, held)| match facts.edits.get(cluster) {
        Some(Edit::Put(entry)) => &**entry,
        Some(Edit::Drop) | None => &*held.entry,
    });
    let mut back: Option<(i32, Timestamp)> = None;
    for entry in entries.filter(|entry| entry.state.is_present()) {
        let later = entry.stages.last().filter(|_| entry.stages.len() > 1);
        let Some((last, at)) = later.and_then(|last| Some((last, last.not_before?))) else {
            continue;
        };
        let fewer = Load::of_stages(&entry.stages, now).count() - Load::of_stage(last).count();
        if at.millis() > now && fewer > 0 {
            let (sum, first) = back.unwrap_or((0, at));
            back = Some((sum + fewer, first.min(at)));
        }
    }
    back
}

fn target(fleet: &Fleet, facts: &AppFacts<'_>, at: usize, load: Load) -> TargetReport {
    let view = &fleet.clusters[at];
    let entry = facts
        .ledger
        .and_then(|l| l.entries.get(&view.name))
        .map(|held| &held.entry);
    let report = facts.ledger.and_then(|l| l.reports.get(&view.name));
    let pending = matches!(facts.edits.get(&view.name), Some(Edit::Put(_)));
    let fresh = |r: &&ReportEntry| !pending && entry.is_some_and(|e| r.generation >= e.generation);
    let (state, reason, message) = match report.filter(fresh) {
        Some(r) => (r.state, r.reason, r.message.clone()),
        None if report.is_some_and(|r| r.content.is_some()) => {
            (ReportState::Progressing, None, None)
        }
        None => (ReportState::Pending, None, None),
    };
    let decided = facts.rolled.and_then(|r| r.content.get(&at));
    let content = decided.or(entry.map(|entry| &entry.content));
    let wave = facts.rolled.and_then(|r| r.waves.get(&at));
    TargetReport {
        cluster: view.name.clone(),
        count: (load != Load::Manifests).then(|| load.count()),
        ready: report.map_or(0, |r| r.ready),
        running: report.map_or(0, |r| r.replicas),
        wave: wave.cloned(),
        state,
        current: facts.app.is_some_and(|app| content == Some(&app.content)),
        in_contact: view.reach == Reach::InContact,
        reason,
        message,
    }
}

/// The status users read.
fn app_status(facts: &AppFacts<'_>, report: &AppReport, now: i64) -> AppStatus {
    let old = &facts.slot.status;
    let targets = &report.targets;
    let generation = facts.slot.generation;
    let mut worst: Vec<&TargetReport> = targets.iter().collect();
    worst.sort_by_key(|t| (t.state, t.in_contact, t.cluster.clone()));
    let shown = worst
        .iter()
        .take(PLACEMENTS_SHOWN)
        .map(|t| placement(t))
        .collect();
    let replicas: i32 = targets.iter().map(|t| t.count.unwrap_or(t.running)).sum();
    let ready: i32 = targets.iter().map(|t| t.ready).sum();
    let current = targets
        .iter()
        .filter(|t| t.current && t.state != ReportState::Pending)
        .count();
    let verdicts = verdicts(facts, report);
    let conditions = verdicts
        .into_iter()
        .map(|v| {
            condition(
                &old.conditions,
                v.kind,
                v.status,
                v.reason,
                v.message,
                generation,
                Timestamp::from_millis(now),
            )
        })
        .collect();
    AppStatus {
        observed_generation: Some(generation),
        leader_epoch: None,
        conditions,
        content_hash: facts
            .app
            .map(|a| a.content.clone())
            .or_else(|| old.content_hash.clone()),
        replicas,
        ready_replicas: ready,
        readiness: Some(format!("{ready}/{replicas}")),
        clusters: Some(format!("{current}/{}", targets.len())),
        placements: shown,
        placement_count: i32::try_from(targets.len()).ok(),
        rollout: facts
            .rolled
            .map(|r| r.status.clone())
            .or_else(|| old.rollout.clone()),
    }
}

fn placement(target: &TargetReport) -> PlacementStatus {
    PlacementStatus {
        cluster_name: target.cluster.clone(),
        replicas: target.count,
        ready: target.ready,
        wave: target.wave.clone(),
        state: target.state,
        message: target.message.clone(),
    }
}

/// Whether a status differs from the one last written, apart from the epoch of its writer.
pub(crate) fn differs(new: &AppStatus, old: &AppStatus) -> bool {
    let mut old = old.clone();
    old.leader_epoch = None;
    *new != old
}
