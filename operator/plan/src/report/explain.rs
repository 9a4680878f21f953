//! A yes or no with its reason for every cluster, as `jiuzhou explain` prints it.

use crds::{ClusterName, RegionName};

use super::{AppReport, ClusterVerdict, Shortage};
use crate::province::{Fleet, Refusal};

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
    /// How empty the cluster was when it was weighed, 0 to 1000.
    pub score: Option<i64>,
    /// Why, in one sentence.
    pub why: String,
}

impl AppReport {
    /// The answer for every cluster: those the App runs on first.
    pub fn answers(&self, fleet: &Fleet) -> Vec<Answer> {
        let mut answers: Vec<Answer> = (0..fleet.clusters.len())
            .map(|at| self.answer(fleet, at))
            .collect();
        answers.sort_by_key(|answer| (!answer.chosen, answer.cluster.clone()));
        answers
    }

    fn answer(&self, fleet: &Fleet, at: usize) -> Answer {
        let view = &fleet.clusters[at];
        let target = self.targets.iter().find(|t| t.cluster == view.name);
        let verdict = self.verdict(at);
        let refusal = self.class.as_ref().and_then(|class| class.refusal(at));
        let score = match verdict {
            Some(ClusterVerdict::Chosen(choice)) => Some(choice.score),
            Some(ClusterVerdict::EnoughRegions { score }) => Some(score),
            Some(ClusterVerdict::NoRoom | ClusterVerdict::NoWeight) | None => None,
        };
        let why = match (target, refusal, verdict) {
            (Some(_), Some(refusal), _) => format!("stays although {refusal}"),
            (Some(target), None, _) => format!("placed; {:?}", target.state),
            (None, Some(refusal), _) => refusal.to_string(),
            (None, None, Some(verdict)) => not_chosen(&verdict).to_owned(),
            (None, None, None) => self.not_weighed(),
        };
        Answer {
            cluster: view.name.clone(),
            region: view.cluster.as_ref().ok().map(|c| c.region.clone()),
            chosen: target.is_some(),
            count: target.and_then(|t| t.count),
            score,
            why,
        }
    }

    fn not_weighed(&self) -> String {
        match (&self.parked, self.shortage) {
            (Some(parked), _) => format!("the App is parked: {}", parked.message),
            (None, Some(Shortage::PredecessorRemains { .. })) => {
                "an earlier App of the same name is still being removed".to_owned()
            }
            (None, Some(_) | None) => {
                "qualifies; the App has what it asks for elsewhere and stays where it is".to_owned()
            }
        }
    }
}

fn not_chosen(verdict: &ClusterVerdict) -> &'static str {
    match verdict {
        ClusterVerdict::Chosen(_) => "chosen",
        ClusterVerdict::NoRoom => "not one replica fits",
        ClusterVerdict::NoWeight => "spec.replicas.weights gives its Region nothing",
        ClusterVerdict::EnoughRegions { .. } => "roomier regions make up spec.placement.maxRegions",
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::ClusterParked => "the MemberCluster is parked: see its conditions",
            Self::RegionParked => "its Region is missing or parked: see its conditions",
            Self::Deleting => "the MemberCluster is being deleted",
            Self::NotJoined => "no agent has reported from it yet",
            Self::IdentityChanged => {
                "the cluster behind the name is another one than the one that joined"
            }
            Self::Duplicate => "an older MemberCluster stands for the same cluster",
            Self::HubRefused => "its agent refuses this hub",
            Self::ObserveOnly => "it is only observed and spec.takeOver is Never",
            Self::Releasing => "it is being released",
            Self::OutsideRegions => "it lies outside spec.placement.regions.within",
            Self::Level => "its Region's level is not in spec.placement.regions.levels",
            Self::RegionLabels => {
                "its Region's labels do not match spec.placement.regions.selector"
            }
            Self::ClusterLabels => "its labels do not match spec.placement.clusters",
            Self::Zone { has, needs } => {
                return write!(f, "it stands in zone {has:?}, spec.zone asks for {needs:?}");
            }
            Self::Grade { has, needs } => {
                return write!(
                    f,
                    "it may hold data up to grade {has:?}, spec.dataGrade is {needs:?}"
                );
            }
            Self::Protection { has, needs } => {
                return write!(
                    f,
                    "its protection level is {has}, spec.protectionLevel asks for {needs}"
                );
            }
            Self::RegionClosed => "its Region takes no placements at this time",
            Self::OutOfContact => "it is out of contact",
            Self::Returning => "it is in contact again, but not for long enough",
            Self::Lost => "its Region is taken to be lost",
        };
        f.write_str(text)
    }
}
