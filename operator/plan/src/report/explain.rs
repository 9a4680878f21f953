//! A yes or no with its reason for every cluster, as `jiuzhou explain` prints it.
//!
//! Scores live only in the turn that weighs an App, and a settled App is not weighed. So the reason
//! for a yes is read from what stands in the world when somebody asks.

mod text;

use crds::{ClusterName, Division, EntryState, RegionName, ReportState};

use super::{AppReport, ClusterVerdict, Shortage, TargetReport};
use crate::province::{Consequence, Fleet, Load, Refusal, Room, Source, wants};
use crate::world::{AppLedger, AppSlot, AppState, Scale, ValidApp, World};

/// Whether an App runs in a cluster, and why or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its Region, if it is known.
    pub region: Option<RegionName>,
    /// Whether the App is placed there.
    pub chosen: bool,
    /// Replicas placed there.
    pub count: Option<i32>,
    /// How empty the cluster is, 0 to 1000, where that is known.
    pub score: Option<i64>,
    /// What is left there.
    pub left: Left,
    /// Why; its text is one sentence.
    pub why: Why,
}

/// Why an App runs in a cluster, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It runs there, or is about to.
    Runs(Box<Run>),
    /// It runs there until what replaces it is healthy elsewhere; with the filter that refuses it,
    /// if one does.
    Leaves(Option<Refusal>),
    /// Its agent has not acknowledged yet that it is removed.
    Removing,
    /// It is let go as it is, and its agent has not acknowledged that yet.
    Releasing,
    /// A filter refuses it.
    Refused(Refusal),
    /// Not one replica fits.
    NoRoom(Left),
    /// That Quota has no room, or none counts there.
    NoQuota(Option<Source>),
    /// `weights` gives the Region nothing.
    NoWeight,
    /// The Regions it has make up `placement.maxRegions`.
    EnoughRegions,
    /// Another cluster of the same Region has the Region's share.
    RegionServed,
    /// Too few Regions qualify and have room, so none is used.
    TooFewRegions {
        /// Regions that do.
        found: usize,
        /// Regions it needs.
        needed: usize,
    },
    /// An earlier App of the same name still stands there or elsewhere.
    Predecessor,
    /// It has all it asks for elsewhere.
    Satisfied,
    /// Nothing is decided for the App.
    Undecided(Undecided),
}

/// Why nothing is decided for an App, so that what it has stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// It is parked, with the reason that names field and fix.
    Parked(String),
    /// The hub's finalizer does not hold it yet.
    Unheld,
    /// It is being deleted.
    Deleting,
}

/// What an App has in a cluster, and why it has it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its replicas there and what they are a share of.
    pub share: Share,
    /// Whether it was kept there or chosen now.
    pub hold: Hold,
    /// What is left there beside it.
    pub left: Left,
    /// State there, as last reported.
    pub state: ReportState,
    /// Why it is not healthy, as one sentence.
    pub message: Option<String>,
}

/// Why an App has its place in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Chosen in this very plan; the hub has not written it yet.
    Chosen,
    /// Kept, since placements stay while they are allowed and add up.
    Kept,
    /// Kept with another number of replicas.
    Resized {
        /// Replicas before.
        from: i32,
    },
    /// Kept although it could not be placed there anew.
    Stays(Refusal),
    /// Kept exactly as it is, since too little is known of the cluster.
    Frozen(Refusal),
    /// Refused, but kept until enough other clusters can take it.
    Irreplaceable(Refusal),
    /// Kept since nothing is decided for the App.
    Undecided(Undecided),
}

/// Replicas in a cluster and what they are a share of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Replicas there; absent when the manifests decide.
    pub count: Option<i32>,
    /// What is divided, if the App says so.
    pub of: Option<Whole>,
}

/// What is divided over clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Replicas over all Regions, or in each for `Duplicate`.
    pub total: i32,
    /// How divided.
    pub division: Division,
    /// Whether an autoscaler may run fewer.
    pub at_most: bool,
}

/// What is left in a cluster after every decision was debited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Whether the cluster's capacity is known at all.
    pub known: bool,
    /// Free thousandths of a core, if it reports cores.
    pub cpu: Option<i64>,
    /// How many more replicas of the App fit; absent where nothing it asks for is limited.
    pub more: Option<i32>,
}

impl AppReport {
    /// The answer for every cluster of the world that was planned: those the App runs on first.
    pub fn answers(&self, world: &World, fleet: &Fleet) -> Vec<Answer> {
        let asked = Asked {
            report: self,
            fleet,
            slot: world.app(&self.uid),
            ledger: world.ledger(&self.uid),
            room: Room::now(world, fleet),
            now: world.now,
        };
        let mut answers: Vec<Answer> = (0..fleet.clusters.len())
            .map(|at| asked.answer(at))
            .collect();
        answers.sort_by_key(|answer| (!answer.chosen, answer.cluster.clone()));
        answers
    }
}

/// One App and the world it is asked about.
struct Asked<'a> {
    report: &'a AppReport,
    fleet: &'a Fleet,
    slot: Option<&'a AppSlot>,
    ledger: Option<&'a AppLedger>,
    room: Room,
    now: i64,
}

impl Asked<'_> {
    fn answer(&self, at: usize) -> Answer {
        let view = &self.fleet.clusters[at];
        let target = self.target(&view.name);
        let left = self.left(at, target.is_none());
        let weighed = match self.report.verdict(at) {
            Some(ClusterVerdict::Chosen(choice)) => Some(choice.score),
            Some(ClusterVerdict::EnoughRegions { score }) => Some(score),
            Some(ClusterVerdict::NoRoom | ClusterVerdict::NoQuota | ClusterVerdict::NoWeight)
            | None => None,
        };
        Answer {
            cluster: view.name.clone(),
            region: self.region(at).cloned(),
            chosen: target.is_some(),
            count: target.and_then(|t| t.count),
            score: weighed.or_else(|| left.known.then(|| self.room.score(at))),
            left,
            why: match target {
                Some(target) => Why::Runs(Box::new(Run {
                    share: self.share(target),
                    hold: self.hold(at, target),
                    left,
                    state: target.state,
                    message: target.message.clone(),
                })),
                None => self.why_not(at, left),
            },
        }
    }

    fn target(&self, cluster: &ClusterName) -> Option<&TargetReport> {
        self.report.targets.iter().find(|t| t.cluster == *cluster)
    }

    fn region(&self, at: usize) -> Option<&RegionName> {
        let cluster = self.fleet.clusters[at].cluster.as_ref();
        cluster.ok().map(|cluster| &cluster.region)
    }

    fn app(&self) -> Option<&ValidApp> {
        self.slot?.state.as_deref().ok()
    }

    fn left(&self, at: usize, first: bool) -> Left {
        let print = self.slot.map(|slot| &*slot.footprint);
        Left {
            known: self.room.known(at),
            cpu: self.room.cpu(at),
            more: print.and_then(|print| self.room.more(at, print, first)),
        }
    }

    fn share(&self, target: &TargetReport) -> Share {
        let of = match self.app().map(|app| &app.scale) {
            Some(Scale::Replicas {
                total, division, ..
            }) => Some((*total, *division, false)),
            Some(Scale::Autoscaled { max, division, .. }) => Some((*max, *division, true)),
            Some(Scale::Manifests) | None => None,
        };
        Share {
            count: target.count,
            of: of.map(|(total, division, at_most)| Whole {
                total,
                division,
                at_most,
            }),
        }
    }

    /// Why nothing is decided for the App, if so.
    fn undecided(&self) -> Option<Undecided> {
        if let Some(parked) = &self.report.parked {
            return Some(Undecided::Parked(parked.message.clone()));
        }
        match self.slot.map(|slot| slot.life) {
            Some(AppState::Held) => None,
            Some(AppState::Unheld) => Some(Undecided::Unheld),
            Some(AppState::Deleting | AppState::Released) | None => Some(Undecided::Deleting),
        }
    }

    fn hold(&self, at: usize, target: &TargetReport) -> Hold {
        if let Some(undecided) = self.undecided() {
            return Hold::Undecided(undecided);
        }
        if let Some(refusal) = self.report.refusal(at) {
            let refusal = refusal.clone();
            return match refusal.consequence() {
                Consequence::Freeze => Hold::Frozen(refusal),
                Consequence::Leave => Hold::Irreplaceable(refusal),
                Consequence::Stay | Consequence::LetGo => Hold::Stays(refusal),
            };
        }
        let entry = self.ledger.and_then(|l| l.entries.get(&target.cluster));
        match entry.map(|held| &held.entry) {
            Some(entry) if entry.state.is_present() => {
                let from = Load::of_stages(&entry.stages, self.now).count();
                match target.count {
                    Some(count) if count != from => Hold::Resized { from },
                    Some(_) | None => Hold::Kept,
                }
            }
            Some(_) => Hold::Chosen,
            // Where a slice was lost, what is reported to run counts as placed.
            None => {
                let report = self.ledger.and_then(|l| l.reports.get(&target.cluster));
                if report.is_some_and(|report| report.content.is_some()) {
                    Hold::Kept
                } else {
                    Hold::Chosen
                }
            }
        }
    }

    fn why_not(&self, at: usize, left: Left) -> Why {
        let refusal = self.report.refusal(at);
        let view = &self.fleet.clusters[at];
        let entry = self.ledger.and_then(|l| l.entries.get(&view.name));
        let releases = refusal.is_some_and(|why| why.consequence() == Consequence::LetGo);
        match entry.map(|held| held.entry.state) {
            Some(EntryState::Present) if releases => return Why::Releasing,
            Some(EntryState::Present) => return Why::Leaves(refusal.cloned()),
            Some(EntryState::Removed) => return Why::Removing,
            Some(EntryState::Released) => return Why::Releasing,
            None => {}
        }
        if let Some(undecided) = self.undecided() {
            return Why::Undecided(undecided);
        }
        if let Some(refusal) = refusal {
            return Why::Refused(refusal.clone());
        }
        match self.report.verdict(at) {
            Some(ClusterVerdict::NoRoom) => Why::NoRoom(left),
            Some(ClusterVerdict::NoQuota) => self.no_quota(),
            Some(ClusterVerdict::NoWeight) => Why::NoWeight,
            // Regions that were not needed were not asked for their room.
            Some(ClusterVerdict::EnoughRegions { .. }) if left.more == Some(0) => Why::NoRoom(left),
            Some(ClusterVerdict::EnoughRegions { .. }) => Why::EnoughRegions,
            Some(ClusterVerdict::Chosen(_)) | None => self.not_weighed(at, left),
        }
    }

    /// The Quota that has no room; of the first cluster in which that shows.
    fn no_quota(&self) -> Why {
        let short = self.report.short.as_ref();
        Why::NoQuota(short.and_then(|short| short.source.clone()))
    }

    /// Why a cluster that qualifies is not used although the App was not weighed against it.
    fn not_weighed(&self, at: usize, left: Left) -> Why {
        match self.report.shortage {
            Some(Shortage::PredecessorRemains { .. }) => return Why::Predecessor,
            Some(Shortage::TooFewRegions { found, needed }) => {
                return Why::TooFewRegions { found, needed };
            }
            Some(Shortage::Capacity { .. }) if left.more == Some(0) => return Why::NoRoom(left),
            Some(Shortage::Quota { placed, wanted }) if placed < wanted => {
                return self.no_quota();
            }
            Some(
                Shortage::NoClusterQualifies | Shortage::Capacity { .. } | Shortage::Quota { .. },
            )
            | None => {}
        }
        let (Some(app), Some(region)) = (self.app(), self.region(at)) else {
            return Why::Satisfied;
        };
        if !wants(app, region) {
            return Why::NoWeight;
        }
        let positions = |t: &TargetReport| self.fleet.position(&t.cluster);
        let used: std::collections::BTreeSet<&RegionName> = self
            .report
            .targets
            .iter()
            .filter_map(|target| self.region(positions(target)?))
            .collect();
        let most = app.placement.max_regions;
        if used.contains(region) {
            Why::RegionServed
        } else if most.is_some_and(|most| usize::try_from(most).is_ok_and(|n| used.len() >= n)) {
            Why::EnoughRegions
        } else {
            Why::Satisfied
        }
    }
}
