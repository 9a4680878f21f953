//! From what the hub hears to the world the plan sees.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ClusterName, NamespaceName, RegionName, Uid, cluster_of_namespace};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use plan::World;
use plan::world::StoredContent;
use tokio::time::Instant;

use super::events::{Heard, Stored};
use super::prepare::PREPARED;
use crate::agent::View;
use crate::runtime::watch::Change;

/// The world, and what the hub needs to know beside it.
pub(super) struct Gathered {
    pub(super) world: World,
    /// Names of the objects of each kind that exist, to tell what a new list leaves out.
    known: BTreeMap<&'static str, BTreeSet<String>>,
    /// Last heartbeat of each cluster, as its Lease has it.
    beats: BTreeMap<ClusterName, String>,
    /// When each cluster was last heard of.
    pub(super) contacts: BTreeMap<ClusterName, Instant>,
    /// Cluster namespaces that are set up.
    pub(super) prepared: BTreeSet<ClusterName>,
    /// Apps whose entries name Secrets, and perhaps some whose entries no longer do.
    pub(super) secret_users: BTreeSet<Uid>,
}

impl Gathered {
    pub(super) fn new(world: World) -> Self {
        Self {
            world,
            known: BTreeMap::new(),
            beats: BTreeMap::new(),
            contacts: BTreeMap::new(),
            prepared: BTreeSet::new(),
            secret_users: BTreeSet::new(),
        }
    }

    /// Takes in one thing heard at `now`.
    #[expect(
        clippy::too_many_lines,
        reason = "a flat table, one arm for each kind; it reads best whole"
    )]
    pub(super) fn hear(&mut self, heard: Heard, now: i64) {
        match heard {
            Heard::Regions(change) => self.take(
                change,
                "regions",
                |g, o| readable(o).map(|o| g.world.apply_region(&o)),
                |g, name| {
                    g.world.remove_region(&RegionName::from(name));
                },
            ),
            Heard::Clusters(change) => self.take(
                change,
                "memberclusters",
                |g, o| readable(o).map(|o| g.world.apply_cluster(&o)),
                |g, name| {
                    g.world.remove_cluster(&ClusterName::from(name));
                },
            ),
            Heard::Apps(change) => self.hear_apps(change),
            Heard::Approvals(change) => self.take(
                change,
                "approvals",
                |g, o| readable(o).map(|o| g.world.apply_approval(o)),
                |g, name| {
                    let (namespace, name) = split(name);
                    g.world
                        .remove_approval(&NamespaceName::from(namespace), name);
                },
            ),
            Heard::Slices(change) => self.take(
                change,
                "assignmentslices",
                |g, o| {
                    let cluster = cluster_of_namespace(&o.namespace()?)?;
                    g.take_slice(&cluster, o, None);
                    Some(())
                },
                |g, name| g.remove_from_cluster(name, World::remove_slice),
            ),
            Heard::Reports(change) => self.take(
                change,
                "reportslices",
                |g, o| {
                    let cluster = cluster_of_namespace(&o.namespace()?)?;
                    g.world.apply_report(&cluster, o);
                    Some(())
                },
                |g, name| g.remove_from_cluster(name, World::remove_report),
            ),
            Heard::ClusterReports(change) => self.take(
                change,
                "clusterreports",
                |g, o| {
                    let cluster = cluster_of_namespace(&o.namespace()?)?;
                    // The name is checked at admission too; a report under another name is not ours.
                    (o.name_any() == cluster.as_str())
                        .then(|| g.world.apply_cluster_report(cluster, &o))
                },
                |_, _| {},
            ),
            Heard::Contents(change) => self.take(
                change,
                "contents",
                |g, o| {
                    g.world.apply_content(&o.name_any(), stored(&o));
                    Some(())
                },
                |g, name| g.world.remove_content(split(name).1),
            ),
            Heard::Leases(change) => self.hear_leases(change, now),
            Heard::Namespaces(change) => self.take(
                change,
                "namespaces",
                |g, view| {
                    g.hear_namespace(&view);
                    Some(())
                },
                |g, name| {
                    g.world.remove_namespace(&NamespaceName::from(name));
                    if let Some(cluster) = cluster_of_namespace(name) {
                        g.prepared.remove(&cluster);
                    }
                },
            ),
            // The hub's own loop keeps these.
            Heard::Sources(..) | Heard::Copies(..) => {}
            Heard::Identity(change) => {
                if let Change::Replaced(all) = change {
                    all.iter().for_each(|map| self.hear_identity(map));
                } else if let Change::Applied(map) = change {
                    self.hear_identity(&map);
                }
            }
        }
    }

    /// Takes in a slice; `written` is set when the hub itself just wrote it.
    pub(super) fn take_slice(
        &mut self,
        cluster: &ClusterName,
        slice: crds::AssignmentSlice,
        written: Option<i64>,
    ) {
        let users = slice
            .spec
            .entries
            .iter()
            .filter(|entry| !entry.secrets.is_empty());
        self.secret_users
            .extend(users.map(|entry| entry.uid.clone()));
        self.world.apply_slice(cluster, slice, written);
    }

    /// Takes in a change of one kind. What a whole list leaves out is forgotten, which is never an
    /// instruction: the world's ledger remembers what was decided.
    fn take<K: kube::Resource>(
        &mut self,
        change: Change<K>,
        kind: &'static str,
        apply: impl Fn(&mut Self, K) -> Option<()>,
        remove: impl Fn(&mut Self, &str),
    ) {
        let key = |object: &K| match object.meta().namespace.as_deref() {
            Some(namespace) => format!("{namespace}/{}", object.name_any()),
            None => object.name_any(),
        };
        match change {
            Change::Replaced(all) => {
                let names: BTreeSet<String> = all.iter().map(&key).collect();
                let before = self.known.insert(kind, names.clone()).unwrap_or_default();
                for object in all {
                    // An object that cannot be read stands for itself alone.
                    let _parked = apply(self, object);
                }
                before
                    .difference(&names)
                    .for_each(|gone| remove(self, gone));
            }
            Change::Applied(object) => {
                self.known.entry(kind).or_default().insert(key(&object));
                let _parked = apply(self, object);
            }
            Change::Deleted(object) => {
                let name = key(&object);
                self.known.entry(kind).or_default().remove(&name);
                remove(self, &name);
            }
        }
    }

    /// Apps are known by UID: a name may be given to another one at any time.
    fn hear_apps(&mut self, change: Change<DeserializeGuard<crds::App>>) {
        match change {
            Change::Replaced(all) => {
                let listed: BTreeSet<Uid> = all.iter().map(uid).collect();
                let gone: Vec<Uid> = self
                    .world
                    .apps()
                    .map(|(uid, _)| uid.clone())
                    .filter(|uid| !listed.contains(uid))
                    .collect();
                for app in all {
                    if let Some(app) = readable(app) {
                        self.world.apply_app(&app);
                    }
                }
                gone.iter().for_each(|uid| self.world.remove_app(uid));
            }
            Change::Applied(app) => {
                if let Some(app) = readable(app) {
                    self.world.apply_app(&app);
                }
            }
            Change::Deleted(app) => self.world.remove_app(&uid(&app)),
        }
    }

    fn remove_from_cluster(&mut self, name: &str, remove: fn(&mut World, &ClusterName, &str)) {
        let (namespace, name) = split(name);
        if let Some(cluster) = cluster_of_namespace(namespace) {
            remove(&mut self.world, &cluster, name);
        }
    }

    /// A heartbeat is a Lease that changed while we looked: its time by another machine's clock
    /// says nothing, and neither does the Lease as we first find it.
    fn hear_leases(&mut self, change: Change<Lease>, now: i64) {
        let (leases, first_look) = match change {
            Change::Replaced(all) => (all, true),
            Change::Applied(lease) => (vec![lease], false),
            Change::Deleted(_) => return,
        };
        for lease in leases {
            let Some(cluster) = lease.namespace().and_then(|n| cluster_of_namespace(&n)) else {
                continue;
            };
            let beat = lease
                .spec
                .and_then(|s| s.renew_time)
                .map(|t| t.0.to_string())
                .unwrap_or_default();
            let before = self.beats.insert(cluster.clone(), beat.clone());
            if before.map_or(!first_look, |before| before != beat) {
                self.world.apply_heartbeat(&cluster, now);
                self.contacts.insert(cluster, Instant::now());
            }
        }
    }

    fn hear_namespace(&mut self, view: &View) {
        let name = view.name_any();
        if let Some(cluster) = cluster_of_namespace(&name) {
            if view.annotations().contains_key(PREPARED)
                && view.metadata.deletion_timestamp.is_none()
            {
                self.prepared.insert(cluster);
            }
            return;
        }
        self.world
            .apply_namespace(name.into(), view.uid().unwrap_or_default().into());
    }

    /// An administrator raises the epoch to say that an older hub is to be followed.
    fn hear_identity(&mut self, map: &ConfigMap) {
        let epoch = map
            .data
            .as_ref()
            .and_then(|d| d.get("epoch"))
            .and_then(|e| e.parse().ok());
        if let Some(epoch) = epoch.filter(|epoch| *epoch > self.world.hub.epoch) {
            tracing::warn!(epoch, "the hub epoch was raised by an administrator");
            self.world.hub.epoch = epoch;
        }
    }
}

/// What a Content object holds.
pub(crate) fn stored(content: &Stored) -> StoredContent {
    StoredContent {
        tenant: content.spec.tenant.clone(),
        hashes: content
            .spec
            .items
            .iter()
            .map(|item| item.hash.clone())
            .collect(),
        created: content
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(i64::MAX / 2, |t| t.0.as_millisecond()),
    }
}

fn readable<K>(guard: DeserializeGuard<K>) -> Option<K> {
    match guard.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            let (namespace, name) = (invalid.metadata.namespace, invalid.metadata.name);
            tracing::warn!(
                ?namespace,
                ?name,
                error = invalid.error,
                "an object cannot be read; what was decided for it stands"
            );
            None
        }
    }
}

fn uid<K: kube::Resource>(object: &K) -> Uid {
    Uid::from(object.meta().uid.clone().unwrap_or_default())
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("", name))
}
