//! What an agent holds: the newest assignment it accepted, and the marks below which it never goes.
//!
//! A hub that comes back older (restored from a backup), another one (rebuilt, an impostor), or
//! decisions for another cluster freeze every change. What was accepted before goes on being
//! carried out. Absence is no instruction: a slice or entry that is missing changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{AssignmentSliceSpec, Entry, HubSeen, Management, Uid};
use serde::{Deserialize, Serialize};

/// Slices as the hub's API server shows them now, by name.
pub type Slices = BTreeMap<Box<str>, Arc<AssignmentSliceSpec>>;

/// Epoch of what a hub decided that was replaced since.
const FORMER: i64 = 0;

/// The newest assignment that was accepted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The hub that the agent serves, and the newest of it that was seen.
    pub hub: Option<HubSeen>,
    /// What may be done in the cluster.
    pub management: Management,
    /// Why every change is refused, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Frozen>,
    /// Entries by UID of the App.
    pub entries: BTreeMap<Uid, HeldEntry>,
    /// How far each slice had come when it was last accepted.
    slices: BTreeMap<Box<str>, Mark>,
    /// Whether everything is held that slices named when they were looked at last.
    #[serde(skip)]
    complete: bool,
}

/// An accepted entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldEntry {
    /// Epoch of the hub that decided it.
    pub epoch: i64,
    /// The entry.
    pub entry: Arc<Entry>,
    /// Trace context of the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Arc<str>>,
}

/// How far a slice had come, and what it let the agent do: all that tells a new version from the one
/// that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    hub_epoch: i64,
    leader_epoch: i64,
    sequence: i64,
    /// Changes without a new entry, and so without a new sequence.
    management: Management,
}

/// Why an agent refuses every change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frozen {
    /// Another hub than the one the agent serves.
    OtherHub {
        /// The hub the agent serves.
        pinned: Uid,
        /// The hub that decides now.
        found: Uid,
    },
    /// The same hub, but older than what the agent has seen.
    OlderHub {
        /// Where that showed.
        evidence: String,
    },
    /// The decisions are for another cluster.
    OtherCluster {
        /// The cluster they are for.
        meant: Uid,
    },
}

impl std::fmt::Display for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherHub { pinned, found } => write!(
                f,
                "The agent serves hub {pinned} and refuses every change from hub {found}. If the hub was rebuilt on purpose, annotate the Secret jiuzhou-snapshot-<cluster> in namespace jiuzhou-system of this cluster with jiuzhou.io/acknowledged-hub={found}."
            ),
            Self::OlderHub { evidence } => write!(
                f,
                "The hub is older than what this cluster has seen ({evidence}), as after a restore; the agent refuses every change. Compare, then raise epoch in ConfigMap jiuzhou-system/jiuzhou-hub of the hub."
            ),
            Self::OtherCluster { meant } => write!(
                f,
                "The hub's decisions are for cluster {meant}, not for this one: join this cluster under a name of its own."
            ),
        }
    }
}

/// What came of looking at slices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// Apps whose entry changed.
    pub changed: BTreeSet<Uid>,
    /// A reason to freeze. The caller re-reads the slices from the store's leader before it
    /// believes it, since a lagging replica shows the same picture as a restored hub.
    pub suspicion: Option<Frozen>,
}

impl Held {
    /// Takes over what is newer in the slices. With a suspicion nothing is taken over.
    pub fn take(&mut self, cluster: &Uid, slices: &Slices) -> Taken {
        let news: Vec<(&str, &Arc<AssignmentSliceSpec>)> = slices
            .iter()
            .filter(|(name, slice)| self.slices.get(*name) != Some(&mark(slice)))
            .map(|(name, slice)| (&**name, slice))
            .collect();
        if let Some(suspicion) = self.suspicion(cluster, slices, &news) {
            return Taken {
                changed: BTreeSet::new(),
                suspicion: Some(suspicion),
            };
        }
        if news.iter().any(|(_, slice)| {
            self.hub
                .as_ref()
                .is_some_and(|hub| slice.hub_epoch > hub.epoch)
        }) {
            // An administrator acknowledged the older hub: what it says now is the new beginning.
            self.frozen = None;
        }
        if matches!(self.frozen, Some(Frozen::OtherCluster { .. }))
            && !slices.is_empty()
            && slices.values().all(|slice| slice.cluster_uid == *cluster)
        {
            // The hub knows this cluster under this name now: the advice was followed.
            self.frozen = None;
        }
        if matches!(self.frozen, Some(Frozen::OtherHub { .. })) && self.is_served_by(slices) {
            // The agent was led to another hub for a while, and is back at its own.
            self.frozen = None;
        }
        if self.frozen.is_some() {
            return Taken::default();
        }
        let mut changed = BTreeSet::new();
        for (name, slice) in news {
            self.slices.insert(name.into(), mark(slice));
            self.see_hub(slice);
            self.management = slice.management;
            self.take_entries(slice, &mut changed);
        }
        // A slice that is as it was may name what is not held: it was away for a moment, and what was
        // done by then was forgotten.
        if !std::mem::replace(&mut self.complete, true) {
            for slice in slices
                .values()
                .filter(|slice| slice.cluster_uid == *cluster)
            {
                if self.is_of_now(slice) {
                    self.take_entries(slice, &mut changed);
                }
            }
        }
        Taken {
            changed,
            suspicion: None,
        }
    }

    /// Refuses every change from now on.
    pub fn freeze(&mut self, why: Frozen) {
        self.frozen = Some(why);
    }

    /// Serves another hub from now on, at an administrator's word. Returns whether it was refused
    /// until now.
    pub fn acknowledge_hub(&mut self, hub: &Uid) -> bool {
        let refused = matches!(&self.frozen, Some(Frozen::OtherHub { found, .. }) if found == hub);
        if refused {
            self.frozen = None;
            self.slices.clear();
            self.hub = None;
            // The new hub counts from one: every entry of it is newer than any of the old one.
            self.entries
                .values_mut()
                .for_each(|held| held.epoch = FORMER);
        }
        refused
    }

    fn take_entries(&mut self, slice: &AssignmentSliceSpec, changed: &mut BTreeSet<Uid>) {
        let traceparent: Option<Arc<str>> = slice.traceparent.as_deref().map(Into::into);
        for entry in &slice.entries {
            if self.is_newer(slice.hub_epoch, entry) {
                let held = HeldEntry {
                    epoch: slice.hub_epoch,
                    entry: Arc::new(entry.clone()),
                    traceparent: traceparent.clone(),
                };
                self.entries.insert(entry.uid.clone(), held);
                changed.insert(entry.uid.clone());
            }
        }
    }

    /// Whether a slice is of the hub that is served, as it is now.
    fn is_of_now(&self, slice: &AssignmentSliceSpec) -> bool {
        let hub = self.hub.as_ref();
        hub.is_some_and(|hub| hub.id == slice.hub_id && hub.epoch == slice.hub_epoch)
    }

    /// Whether there are slices, and all are of the hub that is served.
    fn is_served_by(&self, slices: &Slices) -> bool {
        let served = self.hub.as_ref().map(|hub| &hub.id);
        !slices.is_empty() && slices.values().all(|slice| Some(&slice.hub_id) == served)
    }

    /// Apps that are to be here, but that no slice names: of a hub that an administrator replaced, or
    /// remembered by a cluster that was restored; and whether they are of a former hub. What runs of
    /// them is kept as it is, and kept up no longer. No slice at all is no evidence of anything.
    pub fn abandoned(&self, slices: &Slices) -> BTreeMap<Uid, bool> {
        if self.frozen.is_some() {
            return BTreeMap::new();
        }
        let evidence = slices.values().any(|slice| self.is_of_now(slice));
        let named = named(slices);
        self.entries
            .iter()
            .filter(|(uid, held)| held.entry.state.is_present() && !named.contains(uid))
            .map(|(uid, held)| (uid.clone(), held.epoch == FORMER))
            .filter(|(_, former)| *former || evidence)
            .collect()
    }

    /// Forgets Apps that are removed here and that no slice names any more.
    pub fn forget(&mut self, slices: &Slices, removed: impl Fn(&Uid) -> bool) -> Vec<Uid> {
        let named = named(slices);
        let gone: Vec<Uid> = self
            .entries
            .iter()
            .filter(|(uid, held)| {
                !held.entry.state.is_present() && !named.contains(uid) && removed(uid)
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in &gone {
            self.drop_entry(uid);
        }
        gone
    }

    /// Drops an App of which nothing is left.
    pub fn drop_entry(&mut self, uid: &Uid) {
        self.entries.remove(uid);
        self.complete = false;
    }

    fn suspicion(
        &self,
        cluster: &Uid,
        slices: &Slices,
        news: &[(&str, &Arc<AssignmentSliceSpec>)],
    ) -> Option<Frozen> {
        for (name, slice) in news {
            if slice.cluster_uid != *cluster {
                return Some(Frozen::OtherCluster {
                    meant: slice.cluster_uid.clone(),
                });
            }
            let hub = self.hub.as_ref()?;
            if slice.hub_id != hub.id {
                return Some(Frozen::OtherHub {
                    pinned: hub.id.clone(),
                    found: slice.hub_id.clone(),
                });
            }
            let older = |evidence: String| Some(Frozen::OlderHub { evidence });
            if slice.hub_epoch < hub.epoch {
                return older(format!(
                    "slice {name} is of hub epoch {}, after {}",
                    slice.hub_epoch, hub.epoch
                ));
            }
            if slice.hub_epoch > hub.epoch {
                continue;
            }
            if let Some(seen) = self
                .slices
                .get(*name)
                .filter(|seen| seen.hub_epoch == slice.hub_epoch)
                && (slice.leader_epoch < seen.leader_epoch || slice.sequence < seen.sequence)
            {
                return older(format!(
                    "slice {name} went from leader epoch {} and sequence {} back to {} and {}",
                    seen.leader_epoch, seen.sequence, slice.leader_epoch, slice.sequence
                ));
            }
            if let Some(entry) = slice
                .entries
                .iter()
                .find(|e| self.went_back(slice.hub_epoch, e, slices))
            {
                return older(format!(
                    "App {}/{} went back to generation {}",
                    entry.namespace, entry.name, entry.generation
                ));
            }
        }
        None
    }

    /// Whether an entry is older than what is held and no other slice explains it by a move.
    fn went_back(&self, epoch: i64, entry: &Entry, slices: &Slices) -> bool {
        let Some(held) = self
            .entries
            .get(&entry.uid)
            .filter(|held| held.epoch == epoch)
        else {
            return false;
        };
        entry.generation < held.entry.generation
            && !slices.values().filter(|s| s.hub_epoch == epoch).any(|s| {
                s.entries
                    .iter()
                    .any(|e| e.uid == entry.uid && e.generation >= held.entry.generation)
            })
    }

    fn is_newer(&self, epoch: i64, entry: &Entry) -> bool {
        self.entries
            .get(&entry.uid)
            .is_none_or(|held| (epoch, entry.generation) > (held.epoch, held.entry.generation))
    }

    fn see_hub(&mut self, slice: &AssignmentSliceSpec) {
        let seen = self.hub.get_or_insert_with(|| HubSeen {
            id: slice.hub_id.clone(),
            epoch: slice.hub_epoch,
            leader_epoch: slice.leader_epoch,
            sequence: slice.sequence,
        });
        if slice.hub_epoch > seen.epoch {
            *seen = HubSeen {
                id: slice.hub_id.clone(),
                epoch: slice.hub_epoch,
                leader_epoch: 0,
                sequence: 0,
            };
        }
        seen.leader_epoch = seen.leader_epoch.max(slice.leader_epoch);
        seen.sequence = seen.sequence.max(slice.sequence);
    }
}

/// Apps that slices name.
fn named(slices: &Slices) -> BTreeSet<&Uid> {
    slices
        .values()
        .flat_map(|slice| slice.entries.iter().map(|entry| &entry.uid))
        .collect()
}

fn mark(slice: &AssignmentSliceSpec) -> Mark {
    Mark {
        hub_epoch: slice.hub_epoch,
        leader_epoch: slice.leader_epoch,
        sequence: slice.sequence,
        management: slice.management,
    }
}

#[cfg(test)]
mod tests;
