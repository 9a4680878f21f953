//! Regions and clusters behind the gate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{
    ClusterName, ClusterReport, ClusterReportSpec, Connection, DataGrade, Level, Management,
    MemberCluster, MemberClusterStatus, Reason, Region, RegionName, RegionStatus, Uid, Zone,
};

use super::World;
use super::gate::{Parked, Verdict};
use crate::amount::Resources;

/// A Region as the API server has it, behind the gate.
#[derive(Clone, Debug)]
pub struct RegionSlot {
    /// UID.
    pub uid: Uid,
    /// The valid Region, or why it is parked.
    pub state: Verdict<ValidRegion>,
    /// `metadata.generation`.
    pub generation: i64,
    /// Status as last written.
    pub status: RegionStatus,
}

/// A Region whose own fields are right; whether it fits into the tree is the regions step's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidRegion {
    /// Name.
    pub name: RegionName,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created: i64,
    /// Name shown to people.
    pub display_name: String,
    /// GB/T 2260 code, except for zones.
    pub code: Option<String>,
    /// Level.
    pub level: Level,
    /// Region above.
    pub parent: Option<RegionName>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// From when on it takes placements.
    pub valid_from: Option<i64>,
    /// Until when it takes placements.
    pub valid_until: Option<i64>,
    /// What root grants may draw on; a resource that it does not name is not limited.
    pub budget: Resources,
}

/// A MemberCluster as the API server has it, behind the gate, with what is known of its contact.
#[derive(Clone, Debug)]
pub struct ClusterSlot {
    /// UID of the MemberCluster; empty while only its slices or reports are known.
    pub uid: Uid,
    /// The valid cluster, or why it is parked.
    pub state: Verdict<ValidCluster>,
    /// `metadata.generation`.
    pub generation: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Status as last written.
    pub status: MemberClusterStatus,
    /// Heartbeats seen by the hub.
    pub contact: Option<Contact>,
    /// Why the kubeconfig of a cluster that is pushed to cannot be used, if it cannot.
    pub(crate) refused: Option<String>,
    /// Slices of its assignment, by name.
    pub(crate) slices: BTreeMap<Box<str>, super::SliceState>,
    /// Report slices, by name.
    pub(crate) reports: BTreeMap<Box<str>, Vec<crds::ReportEntry>>,
    /// Apps that stand in two slices, or twice in one.
    pub(crate) doubled: BTreeSet<Uid>,
}

/// A MemberCluster whose own fields are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidCluster {
    /// Name.
    pub name: ClusterName,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created: i64,
    /// Region it stands in.
    pub region: RegionName,
    /// Network zone.
    pub zone: Zone,
    /// 等保 level.
    pub protection_level: i32,
    /// Highest data grade.
    pub max_data_grade: DataGrade,
    /// What may be done there.
    pub management: Management,
    /// How the hub and the cluster talk.
    pub connection: Connection,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Heartbeats of a cluster, by the hub's own clock: two machines' clocks are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// When the last heartbeat was seen.
    pub last: i64,
    /// Since when there has been no gap longer than `unreachable_after`.
    pub since: i64,
}

impl World {
    /// Takes in a Region.
    pub fn apply_region(&mut self, region: &Region) {
        let name = RegionName::from(region.metadata.name.clone().unwrap_or_default());
        let slot = RegionSlot {
            uid: region.metadata.uid.clone().unwrap_or_default().into(),
            state: region_gate(&name, region).map(Arc::new),
            generation: region.metadata.generation.unwrap_or(0),
            status: region.status.clone().unwrap_or_default(),
        };
        self.regions.insert(name, slot);
    }

    /// Forgets a Region that was deleted.
    pub fn remove_region(&mut self, name: &RegionName) {
        self.regions.remove(name);
    }

    /// Takes in a MemberCluster.
    pub fn apply_cluster(&mut self, cluster: &MemberCluster) {
        let name = ClusterName::from(cluster.metadata.name.clone().unwrap_or_default());
        let state = cluster_gate(&name, cluster).map(Arc::new);
        let slot = self.cluster_slot(&name);
        slot.uid = cluster.metadata.uid.clone().unwrap_or_default().into();
        slot.state = state;
        slot.generation = cluster.metadata.generation.unwrap_or(0);
        slot.deleting = cluster.metadata.deletion_timestamp.is_some();
        slot.status = cluster.status.clone().unwrap_or_default();
    }

    /// Forgets a MemberCluster that was deleted. Its slices and reports stay: they are the memory of
    /// what runs there.
    pub fn remove_cluster(&mut self, name: &ClusterName) {
        let Some(slot) = self.clusters.get_mut(name) else {
            return;
        };
        slot.state = Err(missing());
        slot.generation = 0;
        slot.deleting = false;
        slot.status = MemberClusterStatus::default();
        self.prune_cluster(name);
    }

    /// Forgets a cluster of which nothing is left.
    pub(super) fn prune_cluster(&mut self, name: &ClusterName) {
        let empty = |slot: &ClusterSlot| slot.slices.is_empty() && slot.reports.is_empty();
        if self
            .clusters
            .get(name)
            .is_some_and(|slot| slot.state.is_err() && !slot.exists() && empty(slot))
        {
            self.clusters.remove(name);
            self.cluster_reports.remove(name);
        }
    }

    pub(super) fn cluster_slot(&mut self, name: &ClusterName) -> &mut ClusterSlot {
        self.clusters
            .entry(name.clone())
            .or_insert_with(|| ClusterSlot {
                uid: Uid::from(""),
                state: Err(missing()),
                generation: 0,
                deleting: false,
                status: MemberClusterStatus::default(),
                contact: None,
                refused: None,
                slices: BTreeMap::new(),
                reports: BTreeMap::new(),
                doubled: BTreeSet::new(),
            })
    }

    /// Takes in a heartbeat seen at `now`.
    pub fn apply_heartbeat(&mut self, cluster: &ClusterName, now: i64) {
        let gap = self.settings.unreachable_after;
        let slot = self.cluster_slot(cluster);
        let since = match slot.contact {
            Some(contact) if now - contact.last <= gap => contact.since,
            Some(_) | None => now,
        };
        slot.contact = Some(Contact { last: now, since });
    }

    /// Takes in whether the kubeconfig of a cluster is refused, as one sentence with the next step.
    pub fn apply_connection(&mut self, cluster: &ClusterName, refused: Option<String>) {
        if let Some(slot) = self.clusters.get_mut(cluster) {
            slot.refused = refused;
        }
    }

    /// Takes in what a cluster reports of itself.
    pub fn apply_cluster_report(&mut self, cluster: ClusterName, report: &ClusterReport) {
        self.cluster_slot(&cluster);
        self.cluster_reports
            .insert(cluster, Arc::new(report.spec.clone()));
    }
}

impl ClusterSlot {
    /// Whether there is a MemberCluster of this name; if not, only what was said of it is known.
    pub fn exists(&self) -> bool {
        self.generation > 0
    }

    /// The UID pinned when the cluster joined.
    pub fn pinned(&self) -> Option<&Uid> {
        self.status.cluster_uid.as_ref()
    }
}

/// What a cluster has for the plan to give out: allocatable less what others use.
pub(crate) fn fleet_capacity(report: &ClusterReportSpec) -> (Resources, Resources) {
    let free = Resources::of(&report.allocatable).minus(&Resources::of(&report.others));
    (free, Resources::of(&report.managed))
}

fn missing() -> Parked {
    Parked::new(
        Reason::RegionMissing,
        "no MemberCluster of this name exists; what was decided for it stands until it returns",
    )
}

fn region_gate(name: &RegionName, region: &Region) -> Result<ValidRegion, Parked> {
    let spec = &region.spec;
    let invalid = |message: String| Err(Parked::new(Reason::Invalid, message));
    if !name.is_valid() {
        return invalid(format!(
            "metadata.name {name:?} must be a DNS label of at most 63 characters"
        ));
    }
    if (spec.level == Level::Zone) != spec.code.is_none() {
        return invalid(
            "spec.code must be set for Province, City and County, and absent for Zone".into(),
        );
    }
    if spec.level != Level::Province && spec.parent.is_none() {
        return invalid("spec.parent must name a Region for every level below Province".into());
    }
    if let Some(code) = &spec.code {
        if code.len() != 6 || !code.bytes().all(|b| b.is_ascii_digit()) {
            return invalid(format!("spec.code {code:?} must be six digits (GB/T 2260)"));
        }
        if !code_fits_level(code, spec.level) {
            return Err(Parked::new(
                Reason::CodeMismatch,
                format!(
                    "spec.code {code} must end in 0000 for a Province, in 00 for a City and in neither for a County"
                ),
            ));
        }
    }
    let budget = Resources::of(&spec.budget);
    let unread = |item: &&crds::ResourceQuantity| {
        let amount = budget.iter().find(|(name, _)| *name == item.name);
        amount.is_none_or(|(_, amount)| amount > i64::MAX >> 12)
    };
    if let Some(item) = spec.budget.iter().find(unread) {
        return invalid(format!(
            "spec.budget of {} is {:?}, which is no amount, or too large: write it as 40, 500m or 80Gi",
            item.name, item.quantity.0
        ));
    }
    Ok(ValidRegion {
        name: name.clone(),
        created: region
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |t| t.0.as_millisecond()),
        display_name: spec.display_name.clone(),
        code: spec.code.clone(),
        level: spec.level,
        parent: spec.parent.clone(),
        labels: region.metadata.labels.clone().unwrap_or_default(),
        valid_from: spec.valid_from.map(crds::Timestamp::millis),
        valid_until: spec.valid_until.map(crds::Timestamp::millis),
        budget,
    })
}

fn code_fits_level(code: &str, level: Level) -> bool {
    match level {
        Level::Province => code.ends_with("0000"),
        Level::City => code.ends_with("00") && !code.ends_with("0000"),
        Level::County => !code.ends_with("00"),
        Level::Zone => false,
    }
}

fn cluster_gate(name: &ClusterName, cluster: &MemberCluster) -> Result<ValidCluster, Parked> {
    let spec = &cluster.spec;
    let invalid = |message: String| Err(Parked::new(Reason::Invalid, message));
    if !name.is_valid() {
        return invalid(format!(
            "metadata.name {name:?} must be a DNS label of at most 40 characters"
        ));
    }
    if !(1..=5).contains(&spec.protection_level) {
        return invalid(format!(
            "spec.protectionLevel {} must be 1 to 5",
            spec.protection_level
        ));
    }
    let Some(connection) = Connection::of(&spec.connection) else {
        return invalid("spec.connection must set exactly one of local, pull and push".into());
    };
    Ok(ValidCluster {
        name: name.clone(),
        created: cluster
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |t| t.0.as_millisecond()),
        region: spec.region_name.clone(),
        zone: spec.zone,
        protection_level: spec.protection_level,
        max_data_grade: spec.max_data_grade,
        management: spec.management,
        connection,
        labels: cluster.metadata.labels.clone().unwrap_or_default(),
    })
}
