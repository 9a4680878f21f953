//! The words of every reason: what is so, which field says so, and the next step.

use std::fmt;

use crds::Division;

use super::{Hold, Left, Run, Share, Undecided, Why};
use crate::amount::format_cores;
use crate::province::Refusal;

impl Why {
    /// The reason in one word, stable for programs; [`Why`]'s text is for people.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Runs(run) => run.hold.reason(),
            Self::Leaves(_) => "Leaving",
            Self::Removing => "Removing",
            Self::Releasing => "Releasing",
            Self::Refused(refusal) => refusal.reason(),
            Self::NoRoom(_) => "NoRoom",
            Self::NoQuota(_) => "NoQuota",
            Self::NoWeight => "NoWeight",
            Self::EnoughRegions => "EnoughRegions",
            Self::RegionServed => "RegionServed",
            Self::TooFewRegions { .. } => "TooFewRegions",
            Self::Predecessor => "PredecessorRemains",
            Self::Satisfied => "Satisfied",
            Self::Undecided(undecided) => undecided.reason(),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Runs(run) => return run.fmt(f),
            Self::Leaves(Some(refusal)) => {
                return write!(
                    f,
                    "runs there until what replaces it is healthy; it leaves because {refusal}"
                );
            }
            Self::Leaves(None) => {
                "runs there until what replaces it is healthy; spec.placement or the division gives \
                 its place to another cluster"
            }
            Self::Removing => "removed; its agent has not acknowledged that yet",
            Self::Releasing => {
                "let go as it is, since spec.management of its MemberCluster is Release"
            }
            Self::Refused(refusal) => return refusal.fmt(f),
            Self::NoRoom(left) if !left.known => {
                "qualifies, but its agent has reported no nodes, so its room is not known: see \
                 status.conditions of its MemberCluster"
            }
            Self::NoRoom(left) => {
                return write!(
                    f,
                    "qualifies, but not one replica fits ({left}): lower the requests in \
                     spec.manifests or add nodes there"
                );
            }
            Self::NoQuota(Some(source)) => {
                return write!(
                    f,
                    "qualifies, but {source} has no room for one replica more: lower the requests in \
                     spec.manifests, or have it raised"
                );
            }
            Self::NoQuota(None) => {
                "qualifies, but the tenant has Quotas and none that counts in its Region: have one \
                 made for the Region"
            }
            Self::NoWeight => {
                "qualifies, but the weights in spec.replicas or spec.scaling give its Region \
                 nothing: add its Region there"
            }
            Self::EnoughRegions => {
                "qualifies, but the Regions used make up spec.placement.maxRegions: raise that to \
                 use more"
            }
            Self::RegionServed => "qualifies; another cluster of its Region has the Region's share",
            Self::TooFewRegions { found, needed } => {
                return write!(
                    f,
                    "qualifies, but {found} of the {needed} Regions that spec.placement.minRegions \
                     asks for qualify and have room: lower that or admit more Regions"
                );
            }
            Self::Predecessor => {
                "qualifies, but an earlier App of the same metadata.name is still being removed: it \
                 is placed once that is gone"
            }
            Self::Satisfied => {
                "qualifies; the App has what it asks for elsewhere, and nothing moves by itself"
            }
            Self::Undecided(undecided) => return write!(f, "nothing is placed: {undecided}"),
        };
        f.write_str(text)
    }
}

impl Undecided {
    fn reason(&self) -> &'static str {
        match self {
            Self::Parked(_) => "AppParked",
            Self::Unheld => "AppUnheld",
            Self::Deleting => "AppDeleting",
        }
    }
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parked(message) => write!(f, "the App is parked: {message}"),
            Self::Unheld => f.write_str(
                "the hub has not put its finalizer into metadata.finalizers of the App yet",
            ),
            Self::Deleting => f.write_str("the App is being deleted"),
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; {}; {}; {:?}",
            self.share, self.hold, self.left, self.state
        )?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(count) = self.count else {
            return f.write_str("as its manifests say");
        };
        let Some(whole) = self.of else {
            return f.write_str(&replicas(count));
        };
        let at_most = if whole.at_most { "at most " } else { "" };
        let (total, division) = (whole.total, whole.division);
        match division {
            Division::Duplicate if count == total => {
                write!(
                    f,
                    "{at_most}{}, as in every Region (Duplicate)",
                    replicas(count)
                )
            }
            Division::Duplicate => {
                write!(
                    f,
                    "{at_most}{count} of its Region's {} (Duplicate)",
                    replicas(total)
                )
            }
            Division::Even | Division::Weight | Division::Capacity => {
                write!(f, "{at_most}{count} of {} by {division:?}", replicas(total))
            }
        }
    }
}

fn replicas(count: i32) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} replica{end}")
}

impl Hold {
    fn reason(&self) -> &'static str {
        match self {
            Self::Chosen => "Chosen",
            Self::Kept => "Kept",
            Self::Resized { .. } => "Resized",
            Self::Stays(_) => "Stays",
            Self::Frozen(_) => "Frozen",
            Self::Irreplaceable(_) => "Irreplaceable",
            Self::Undecided(undecided) => undecided.reason(),
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen now"),
            Self::Kept => f.write_str("kept, as nothing moves by itself"),
            Self::Resized { from } => write!(f, "kept, with {} until now", replicas(*from)),
            Self::Stays(refusal) => write!(f, "kept although {refusal}"),
            Self::Frozen(refusal) => write!(f, "frozen as it is because {refusal}"),
            Self::Irreplaceable(refusal) => write!(
                f,
                "kept, as too few other clusters could take it, although {refusal}"
            ),
            Self::Undecided(undecided) => write!(f, "kept as it is: {undecided}"),
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = self.cpu.map(|cpu| match format_cores(cpu.max(0)) {
            one if one == "1" => "1 core".to_owned(),
            cores => format!("{cores} cores"),
        });
        match (self.known, self.more, cores) {
            (false, ..) => f.write_str("room not known"),
            (true, Some(more), Some(cores)) => {
                write!(f, "room for {more} more, {cores} free")
            }
            (true, Some(more), None) => write!(f, "room for {more} more"),
            (true, None, Some(cores)) => write!(f, "{cores} free"),
            (true, None, None) => f.write_str("no limit to its room is known"),
        }
    }
}

impl Refusal {
    /// The reason in one word, stable for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ClusterParked => "ClusterParked",
            Self::RegionParked => "RegionParked",
            Self::Deleting => "ClusterDeleting",
            Self::NotJoined => "NotJoined",
            Self::IdentityChanged => "IdentityChanged",
            Self::Duplicate => "Duplicate",
            Self::HubRefused => "HubRefused",
            Self::ObserveOnly => "ObserveOnly",
            Self::Releasing => "ClusterReleasing",
            Self::OutsideRegions => "OutsideRegions",
            Self::Level => "Level",
            Self::RegionLabels => "RegionLabels",
            Self::ClusterLabels => "ClusterLabels",
            Self::Zone { .. } => "Zone",
            Self::Grade { .. } => "Grade",
            Self::Protection { .. } => "Protection",
            Self::TenantRegions => "TenantRegions",
            Self::TenantZone { .. } => "TenantZone",
            Self::TenantGrade { .. } => "TenantGrade",
            Self::RegionClosed => "RegionClosed",
            Self::OutOfContact => "OutOfContact",
            Self::Returning => "Returning",
            Self::Lost => "Lost",
        }
    }
}

/// `it` is the MemberCluster throughout, so that the text also follows "kept although" and
/// "because".
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Zone { has, needs } = self {
            return write!(
                f,
                "its spec.zone is {has:?} and the App's is {needs:?}: the two have to be the same"
            );
        }
        if let Self::Grade { has, needs } = self {
            return write!(
                f,
                "its spec.maxDataGrade is {has:?} and the App's spec.dataGrade is {needs:?}: raise \
                 the first if it may hold such data"
            );
        }
        if let Self::Protection { has, needs } = self {
            return write!(
                f,
                "its spec.protectionLevel is {has} and the App's is {needs}: raise the first once \
                 it is certified for that"
            );
        }
        if let Self::TenantZone { needs } = self {
            return write!(
                f,
                "the App's spec.zone is {needs:?}, which its tenant may not use: let the Tenant's \
                 spec.zones have it, as far as those above do"
            );
        }
        if let Self::TenantGrade { has, needs } = self {
            return write!(
                f,
                "the App's spec.dataGrade is {needs:?} and its tenant may process {has:?} at most: \
                 raise the Tenant's spec.maxDataGrade, as far as those above allow"
            );
        }
        f.write_str(self.sentence())
    }
}

impl Refusal {
    /// The sentence of a refusal that carries no values; the others are written with theirs.
    fn sentence(&self) -> &'static str {
        match self {
            Self::ClusterParked => "it is parked: its status.conditions name the field to correct",
            Self::RegionParked => {
                "the Region in its spec.regionName is missing or parked: create it, or correct what \
                 its status.conditions name"
            }
            Self::Deleting => {
                "it has a metadata.deletionTimestamp: create it again once it is gone to use it"
            }
            Self::NotJoined => {
                "no agent has reported from it yet: install one there, or see Joined in its \
                 status.conditions"
            }
            Self::IdentityChanged => {
                "the cluster behind its name is not the one in its status.clusterUID: join that \
                 cluster under a new name"
            }
            Self::Duplicate => {
                "an older MemberCluster has the same status.clusterUID: delete one of the two"
            }
            Self::HubRefused => {
                "its agent refuses this hub: Joined in its status.conditions says why"
            }
            Self::ObserveOnly => {
                "its spec.management is Observe and the App's spec.takeOver is Never: set one to \
                 Manage or the other to Always"
            }
            Self::Releasing => "its spec.management is Release: set it to Manage to use it again",
            Self::OutsideRegions => {
                "it lies outside the App's spec.placement.regions.within: add its Region or one \
                 above it"
            }
            Self::Level => {
                "the App's spec.placement.regions.levels leaves out the spec.level of its Region: \
                 add that level"
            }
            Self::RegionLabels => {
                "its Region's labels do not match the App's spec.placement.regions.selector: label \
                 the Region or widen the selector"
            }
            Self::ClusterLabels => {
                "its labels do not match the App's spec.placement.clusters: label it or widen the \
                 selector"
            }
            Self::TenantRegions => {
                "its Region is none that the App's tenant may use: add it to the Tenant's \
                 spec.regions, as far as those above have it"
            }
            Self::RegionClosed => {
                "its Region takes nothing new outside its spec.validFrom to spec.validUntil: wait, \
                 or move those dates"
            }
            Self::OutOfContact => {
                "it is out of contact: Reachable in its status.conditions says since when; check \
                 its agent and the line"
            }
            Self::Returning => {
                "it is in contact again, but not for long enough: wait until Reachable in its \
                 status.conditions is True"
            }
            Self::Lost => "--lose takes its Region to be lost: leave that flag out to use it",
            Self::Zone { .. }
            | Self::Grade { .. }
            | Self::Protection { .. }
            | Self::TenantZone { .. }
            | Self::TenantGrade { .. } => "",
        }
    }
}
