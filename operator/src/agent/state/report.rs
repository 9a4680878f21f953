//! What the agent reports.

use crds::{ClusterReportSpec, ReportEntry, ReportState, Unclaimed, UnclaimedObject};
use plan::object::{Kind, ObjectKey};
use plan::realize::shorten;

use super::{CAPACITY_INTERVAL, State, UNCLAIMED_SHOWN};
use crate::agent::capacity::Use;
use crate::agent::reports::Reports;

/// How long the first report waits for kinds that are not listed yet, in milliseconds.
const LISTING: i64 = 30_000;

impl State {
    pub(super) fn current_use(&self) -> Use {
        let managed = self
            .held
            .entries
            .values()
            .map(|held| held.entry.namespace.clone())
            .collect();
        self.capacity.account(&managed)
    }

    /// Brings up what is to be reported; says whether anything changed. Most turns change little,
    /// so only what differs is copied.
    pub(crate) fn bring_up(&mut self, told: &mut Reports, now: i64) -> bool {
        let cluster = self.cluster_due(now);
        let mut changed = told.cluster != cluster;
        told.cluster = cluster;
        for uid in std::mem::take(&mut self.news) {
            let Some(entry) = self.reports.get(&uid) else {
                changed |= told.apps.remove(&uid).is_some();
                continue;
            };
            let withheld = self.withholds(entry);
            let entry = if withheld {
                self.instead(entry)
            } else {
                Some(entry.clone())
            };
            if withheld {
                self.news.insert(uid.clone());
            }
            let Some(entry) = entry else { continue };
            if told.apps.get(&uid) != Some(&entry) {
                told.apps.insert(uid, entry);
                changed = true;
            }
        }
        changed
    }

    /// What is told instead of a report that is withheld; nothing while the memory is being saved.
    fn instead(&self, entry: &ReportEntry) -> Option<ReportEntry> {
        let why = self.unsaveable.as_ref()?;
        Some(ReportEntry {
            state: ReportState::Removing,
            message: Some(shorten(format!(
                "removed, and acknowledged once the agent's memory can be saved in namespace jiuzhou-system of the cluster: {why}"
            ))),
            ..entry.clone()
        })
    }

    /// Whether a report acknowledges a removal that the agent would not remember after a crash.
    fn withholds(&self, entry: &ReportEntry) -> bool {
        let removed = |held: &plan::held::HeldEntry| !held.entry.state.is_present();
        entry.state == ReportState::Removed
            && self.held.entries.get(&entry.uid).is_some_and(removed)
            && !self
                .remembered
                .contains(&(entry.uid.clone(), entry.generation))
    }

    /// From when on the cluster may be reported: once everything that its report speaks of was looked
    /// at. A kind that cannot be listed holds it up for a while and no longer.
    pub(super) fn report_from(&self) -> Option<i64> {
        let known = self.capacity.is_known() && self.slices_known && self.can_decide();
        let listed = self.observed.listing.is_empty();
        match self.began {
            _ if !known => None,
            _ if listed => Some(i64::MIN),
            began => began.map(|began| began + LISTING),
        }
    }

    /// The report of the cluster, once everything that it speaks of was looked at: a start must not
    /// say that a cluster has no nodes, or nothing that is unclaimed.
    fn cluster_due(&mut self, now: i64) -> Option<ClusterReportSpec> {
        if self.report_from().is_none_or(|from| now < from) {
            return None;
        }
        if self.use_stale && now >= self.use_due {
            self.use_stale = false;
            let current = self.current_use();
            if current != self.reported_use {
                self.reported_use = current;
                self.use_due = now + CAPACITY_INTERVAL;
                // Told along with what changes anyway: each decision raises it, and that alone is no
                // news.
                self.reported_sequence = self.held.hub.as_ref().map_or(0, |hub| hub.sequence);
            }
        }
        Some(self.cluster_report())
    }

    pub(super) fn cluster_report(&self) -> ClusterReportSpec {
        let Use {
            nodes,
            allocatable,
            managed,
            others,
        } = self.reported_use.clone();
        let missing = |kind: &&Kind| {
            !self.observed.kinds.contains(kind) && !self.observed.listing.contains(kind)
        };
        ClusterReportSpec {
            cluster_uid: self.cluster_uid.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kubernetes_version: self.version.clone(),
            hub: self.held.hub.clone().map(|hub| crds::HubSeen {
                sequence: self.reported_sequence,
                ..hub
            }),
            frozen: self.held.frozen.as_ref().map(ToString::to_string),
            nodes,
            allocatable,
            managed,
            others,
            missing_kinds: Kind::ALL
                .iter()
                .filter(missing)
                .map(|k| format!("{}/{}", k.api_version(), k.name()))
                .collect(),
            unclaimed: self.unclaimed(),
        }
    }

    pub(super) fn unclaimed(&self) -> Unclaimed {
        if !self.slices_known {
            return Unclaimed::default();
        }
        let orphans = self
            .observed
            .owners()
            .filter(|uid| self.abandoned.contains_key(*uid));
        let keys: Vec<&ObjectKey> = orphans
            .flat_map(|uid| self.observed.objects_of(uid))
            .collect();
        let object = |key: &&ObjectKey| UnclaimedObject {
            kind: key.kind.name().to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        };
        Unclaimed {
            count: i32::try_from(keys.len()).unwrap_or(i32::MAX),
            objects: keys.iter().take(UNCLAIMED_SHOWN).map(object).collect(),
        }
    }
}
