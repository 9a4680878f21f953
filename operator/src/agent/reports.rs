//! Writing reports: coalesced, each slice at most once a second, nothing at rest.
//!
//! Its own task, so that a slow hub never holds up what happens in the member cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::{
    ClusterName, ClusterReport, ClusterReportSpec, ReportEntry, ReportSlice, ReportSliceSpec,
    SLICE_ENTRIES_MAX, Uid,
};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hub_side::HubSide;
use crate::runtime::backoff::Backoff;

/// Least time between two rounds of writes.
const INTERVAL: Duration = Duration::from_secs(1);
/// A round waits at least so many times as long as the last one took: a busy hub is asked less often,
/// and a burst that touches every slice is told in few rounds.
const EASE: u32 = 8;
/// The longest such wait.
const EASE_MAX: Duration = Duration::from_secs(5);

/// Everything there is to report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reports {
    pub(crate) apps: BTreeMap<Uid, ReportEntry>,
    pub(crate) cluster: Option<ClusterReportSpec>,
}

/// Writes what the watch channel holds until `stop`.
pub(crate) async fn write(
    hub: HubSide,
    cluster: ClusterName,
    mut wanted: watch::Receiver<Reports>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(INTERVAL, Duration::from_secs(30));
    let mut writer: Option<Writer> = None;
    loop {
        let reports = wanted.borrow_and_update().clone();
        let began = Instant::now();
        let round = async {
            if writer.is_none() {
                writer = Some(Writer::read(&hub, &cluster).await?);
            }
            match &mut writer {
                Some(writer) => writer.bring_up(&reports).await,
                None => Ok(()),
            }
        };
        let pause = match stop.run_until_cancelled(round).await {
            None => return,
            Some(Ok(())) => {
                backoff.reset();
                INTERVAL.max((began.elapsed() * EASE).min(EASE_MAX))
            }
            Some(Err(error)) => {
                // Whatever was written or not: look again before the next round.
                writer = None;
                let pause = backoff.wait();
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, ?pause, "reports not written");
                wanted.mark_changed();
                pause
            }
        };
        let next = async {
            tokio::time::sleep(pause).await;
            wanted.changed().await
        };
        match stop.run_until_cancelled(next).await {
            None | Some(Err(_)) => return,
            Some(Ok(())) => {}
        }
    }
}

/// What stands in the hub.
struct Writer {
    slices: Api<ReportSlice>,
    clusters: Api<ClusterReport>,
    cluster: ClusterName,
    written: BTreeMap<String, ReportSlice>,
    report: Option<ClusterReport>,
}

impl Writer {
    async fn read(hub: &HubSide, cluster: &ClusterName) -> Result<Self, kube::Error> {
        let slices: Api<ReportSlice> = Api::namespaced(hub.client(), hub.namespace());
        let clusters: Api<ClusterReport> = Api::namespaced(hub.client(), hub.namespace());
        let list = slices.list(&ListParams::default()).await?;
        let report = clusters.get_opt(cluster.as_str()).await?;
        let written = list
            .items
            .into_iter()
            .map(|slice| (slice.name_any(), slice))
            .collect();
        Ok(Self {
            slices,
            clusters,
            cluster: cluster.clone(),
            written,
            report,
        })
    }

    /// Writes the slices that differ, and the cluster's report. Neither holds up the other: removals
    /// are acknowledged also by a cluster whose own report is refused.
    async fn bring_up(&mut self, wanted: &Reports) -> Result<(), kube::Error> {
        let cluster = match &wanted.cluster {
            Some(spec) => self.bring_up_cluster(spec).await,
            None => Ok(()),
        };
        self.bring_up_slices(wanted).await.and(cluster)
    }

    async fn bring_up_slices(&mut self, wanted: &Reports) -> Result<(), kube::Error> {
        for (name, entries) in arrange(&self.written, &wanted.apps) {
            let spec = ReportSliceSpec { entries };
            let written = match self.written.get(&name) {
                Some(old) => {
                    let mut new = old.clone();
                    new.spec = spec;
                    self.slices
                        .replace(&name, &PostParams::default(), &new)
                        .await?
                }
                None => {
                    self.slices
                        .create(&PostParams::default(), &ReportSlice::new(&name, spec))
                        .await?
                }
            };
            self.written.insert(name, written);
        }
        Ok(())
    }

    async fn bring_up_cluster(&mut self, spec: &ClusterReportSpec) -> Result<(), kube::Error> {
        let name = self.cluster.as_str();
        let written = match &self.report {
            Some(old) if old.spec == *spec => return Ok(()),
            Some(old) => {
                let mut new = old.clone();
                new.spec = spec.clone();
                self.clusters
                    .replace(name, &PostParams::default(), &new)
                    .await?
            }
            None => {
                self.clusters
                    .create(
                        &PostParams::default(),
                        &ClusterReport::new(name, spec.clone()),
                    )
                    .await?
            }
        };
        self.report = Some(written);
        Ok(())
    }
}

/// The slices that have to change so that together they hold exactly what is wanted. An entry stays
/// where it is; new ones fill the first slice with room.
fn arrange(
    written: &BTreeMap<String, ReportSlice>,
    wanted: &BTreeMap<Uid, ReportEntry>,
) -> BTreeMap<String, Vec<ReportEntry>> {
    let mut placed: BTreeSet<&Uid> = BTreeSet::new();
    let mut slices: BTreeMap<String, Vec<ReportEntry>> = BTreeMap::new();
    for (name, slice) in written {
        let here = slices.entry(name.clone()).or_default();
        for old in &slice.spec.entries {
            if let Some((uid, entry)) = wanted.get_key_value(&old.uid)
                && placed.insert(uid)
            {
                here.push(entry.clone());
            }
        }
    }
    for (uid, entry) in wanted {
        if placed.contains(uid) {
            continue;
        }
        let open = slices
            .iter()
            .find(|(_, entries)| entries.len() < SLICE_ENTRIES_MAX)
            .map(|(name, _)| name.clone());
        let name = open.unwrap_or_else(|| next_name(&slices));
        slices.entry(name).or_default().push(entry.clone());
    }
    slices.retain(|name, entries| {
        written
            .get(name)
            .is_none_or(|old| old.spec.entries != *entries)
    });
    slices
}

/// A name that no slice has, also after one was deleted by hand.
fn next_name(slices: &BTreeMap<String, Vec<ReportEntry>>) -> String {
    // Of one more name than there are slices one is free.
    (0..=slices.len())
        .map(|number| format!("r-{number:04}"))
        .find(|name| !slices.contains_key(name))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::ReportState;

    fn entry(uid: usize, ready: i32) -> ReportEntry {
        ReportEntry {
            uid: format!("uid-{uid:03}").into(),
            generation: 1,
            content: None,
            state: ReportState::Healthy,
            replicas: 1,
            ready,
            reason: None,
            message: None,
        }
    }

    fn reports(range: std::ops::Range<usize>, ready: i32) -> BTreeMap<Uid, ReportEntry> {
        range
            .map(|n| (entry(n, ready).uid, entry(n, ready)))
            .collect()
    }

    fn written(slices: BTreeMap<String, Vec<ReportEntry>>) -> BTreeMap<String, ReportSlice> {
        let slice = |(name, entries): (String, _)| {
            (
                name.clone(),
                ReportSlice::new(&name, ReportSliceSpec { entries }),
            )
        };
        slices.into_iter().map(slice).collect()
    }

    #[test]
    fn reports_fill_slices_of_a_hundred_and_nothing_is_written_twice() {
        let slices = arrange(&BTreeMap::new(), &reports(0..101, 1));
        assert_eq!(slices.values().map(Vec::len).collect::<Vec<_>>(), [100, 1]);
        assert!(arrange(&written(slices), &reports(0..101, 1)).is_empty());
    }

    #[test]
    fn one_change_writes_one_slice_and_leaves_the_others_where_they_are() {
        let slices = written(arrange(&BTreeMap::new(), &reports(0..250, 1)));
        let mut changed = reports(0..250, 1);
        changed.insert(entry(120, 0).uid, entry(120, 0));
        let again = arrange(&slices, &changed);
        assert_eq!(again.keys().collect::<Vec<_>>(), ["r-0001"]);
    }

    #[test]
    fn a_slice_that_was_deleted_by_hand_leaves_the_others_within_bounds() {
        let mut slices = written(arrange(&BTreeMap::new(), &reports(0..250, 1)));
        slices.remove("r-0000");
        let again = arrange(&slices, &reports(0..250, 1));
        assert!(again.contains_key("r-0000"));
        assert!(
            again
                .values()
                .all(|entries| entries.len() <= SLICE_ENTRIES_MAX)
        );
    }

    #[test]
    fn what_is_no_longer_wanted_leaves_its_slice() {
        let slices = written(arrange(&BTreeMap::new(), &reports(0..3, 1)));
        let again = arrange(&slices, &reports(1..3, 1));
        assert_eq!(again["r-0000"].len(), 2);
    }
}
