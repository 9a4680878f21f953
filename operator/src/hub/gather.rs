//! From what the hub hears to the world the plan sees.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ClusterName, NamespaceName, RegionName, Uid, cluster_of_namespace};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use plan::World;
use plan::world::{ClusterSlot, NamespaceSlot, StoredContent, TenantRole};
use tokio::time::Instant;

use super::doubts::Doubt;
use super::events::{Heard, Stored};
use super::prepare::PREPARED;
use super::tenants;
use crate::agent::View;
use crate::runtime::clock::Clock;
use crate::runtime::watch::Change;

/// Kinds of which the world compares versions.
const APPS: &str = "apps";
const SLICES: &str = "assignmentslices";
const QUOTA_LEDGERS: &str = "quotaledgers";

/// `metadata.resourceVersion` as a number, which it is in every store of Kubernetes.
type Version = Option<u64>;

/// The world, and what the hub needs to know beside it.
pub(super) struct Gathered {
    pub(super) world: World,
    /// What the world takes for now.
    pub(super) clock: Clock,
    /// Objects of each kind that exist, as the watch last had them, to tell what a new list leaves
    /// out and whether the store was set back.
    known: BTreeMap<&'static str, BTreeMap<String, Version>>,
    /// What was listed as a whole.
    listed: BTreeSet<Box<str>>,
    /// Objects of each kind that exist and cannot be read.
    pub(super) unreadable: BTreeMap<&'static str, BTreeSet<String>>,
    /// Last heartbeat of each cluster, as its Lease has it.
    beats: BTreeMap<ClusterName, String>,
    /// When each cluster was last heard of.
    pub(super) contacts: BTreeMap<ClusterName, Instant>,
    /// Cluster namespaces that are set up.
    pub(super) prepared: BTreeSet<ClusterName>,
    /// What the hub wrote without knowing whether it is stored.
    pub(super) doubts: BTreeSet<Doubt>,
    /// Apps whose entries name Secrets, and perhaps some whose entries no longer do.
    pub(super) secret_users: BTreeSet<Uid>,
}

impl Gathered {
    pub(super) fn new(world: World, clock: Clock) -> Self {
        Self {
            world,
            clock,
            known: BTreeMap::new(),
            listed: BTreeSet::new(),
            unreadable: BTreeMap::new(),
            beats: BTreeMap::new(),
            contacts: BTreeMap::new(),
            prepared: BTreeSet::new(),
            doubts: BTreeSet::new(),
            secret_users: BTreeSet::new(),
        }
    }

    /// Whether the world has taken in a whole list of all that is watched. That a list was read does
    /// not say so: it may still be on its way here.
    pub(super) fn is_whole(&self, watched: &[String]) -> bool {
        watched
            .iter()
            .all(|name| self.listed.contains(name.as_str()))
    }

    /// Takes in one thing heard.
    #[expect(
        clippy::too_many_lines,
        reason = "a flat table, one arm for each kind; it reads best whole"
    )]
    pub(super) fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Regions(change) => self.take(
                change,
                "regions",
                |g, o| g.world.apply_region(&o),
                |g, name| g.world.remove_region(&RegionName::from(name)),
            ),
            Heard::Clusters(change) => self.take(
                change,
                "memberclusters",
                |g, o| g.world.apply_cluster(&o),
                |g, name| {
                    g.world.remove_cluster(&ClusterName::from(name));
                    g.contacts.remove(name);
                },
            ),
            // Apps are known by UID: a name may be given to another one at any time.
            Heard::Apps(change) => self.take(
                change,
                APPS,
                |g, o| g.world.apply_app(&o),
                |g, uid| g.world.remove_app(&Uid::from(uid)),
            ),
            Heard::Approvals(change) => self.take(
                change,
                "approvals",
                |g, o| g.world.apply_approval(o),
                |g, name| {
                    let (namespace, name) = split(name);
                    g.world
                        .remove_approval(&NamespaceName::from(namespace), name);
                },
            ),
            Heard::Tenants(change) => self.take(
                change,
                "tenants",
                |g, o| g.world.apply_tenant(&o),
                |g, name| {
                    let (home, name) = split(name);
                    g.world.remove_tenant(&home.into(), &name.into());
                },
            ),
            Heard::Quotas(change) => self.take(
                change,
                "quotas",
                |g, o| g.world.apply_quota(&o),
                |g, name| {
                    let (home, name) = split(name);
                    g.world.remove_quota(&home.into(), name);
                },
            ),
            Heard::Isolations(change) => self.take(
                change,
                "isolations",
                |g, o| g.world.apply_isolation(o),
                |g, name| g.world.remove_isolation(name),
            ),
            Heard::Links(change) => self.take(
                change,
                "links",
                |g, o| g.world.apply_link(o),
                |g, name| {
                    let (namespace, name) = split(name);
                    g.world.remove_link(&namespace.into(), name);
                },
            ),
            Heard::LinkGrants(change) => self.take(
                change,
                "linkgrants",
                |g, o| g.world.apply_link_grant(o),
                |g, name| {
                    let (namespace, name) = split(name);
                    g.world.remove_link_grant(&namespace.into(), name);
                },
            ),
            Heard::Policies(change) => self.take(
                change,
                "trafficpolicies",
                |g, o| g.world.apply_policy(&o),
                |g, name| {
                    let (namespace, name) = split(name);
                    g.world.remove_policy(&namespace.into(), name);
                },
            ),
            Heard::QuotaLedgers(change) => self.take(
                change,
                QUOTA_LEDGERS,
                |g, o| g.world.apply_quota_ledger(&o),
                |g, name| g.world.remove_quota_ledger(&split(name).1.into()),
            ),
            Heard::Bindings(change) => self.take(
                guarded(change),
                "rolebindings",
                |g, binding| g.hear_binding(&binding),
                |g, name| {
                    let (namespace, name) = split(name);
                    if let Some(role) = TenantRole::of(name) {
                        g.world.remove_binding(&namespace.into(), role);
                    }
                },
            ),
            Heard::Slices(change) => self.take(
                change,
                SLICES,
                |g, o| {
                    if let Some(cluster) = cluster_of(&o) {
                        g.take_slice(&cluster, o, None);
                    }
                },
                |g, name| g.remove_from_cluster(name, World::remove_slice),
            ),
            Heard::Reports(change) => self.take(
                change,
                "reportslices",
                |g, o| {
                    if let Some(cluster) = cluster_of(&o) {
                        g.world.apply_report(&cluster, o);
                    }
                },
                |g, name| g.remove_from_cluster(name, World::remove_report),
            ),
            Heard::ClusterReports(change) => self.take(
                change,
                "clusterreports",
                |g, o| {
                    // The name is checked at admission too; a report under another name is not ours.
                    let cluster = cluster_of(&o).filter(|c| o.name_any() == c.as_str());
                    if let Some(cluster) = cluster {
                        g.world.apply_cluster_report(cluster, &o);
                    }
                },
                |_, _| {},
            ),
            Heard::Contents(change) => self.take(
                change,
                "contents",
                |g, o| g.world.apply_content(&o.name_any(), stored(&o)),
                |g, name| g.world.remove_content(split(name).1),
            ),
            Heard::Leases(change) => self.hear_leases(change),
            Heard::Namespaces(change) => self.take(
                guarded(change),
                "namespaces",
                |g, view| g.hear_namespace(&view),
                |g, name| {
                    g.world.remove_namespace(&NamespaceName::from(name));
                    if let Some(cluster) = cluster_of_namespace(name) {
                        g.prepared.remove(&cluster);
                    }
                },
            ),
            Heard::Connection(cluster, refused) => {
                self.world.apply_connection(&cluster, refused);
            }
            Heard::Listed(name) => {
                self.listed.insert(name);
            }
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
        change: Change<DeserializeGuard<K>>,
        kind: &'static str,
        apply: impl Fn(&mut Self, K),
        remove: impl Fn(&mut Self, &str),
    ) {
        match change {
            Change::Replaced(all) => {
                let now: BTreeMap<String, Version> =
                    all.iter().map(|o| (key(kind, o), version(o))).collect();
                let before = self.known.remove(kind).unwrap_or_default();
                if set_back(&before, &now) {
                    tracing::warn!(kind, "the store was set back; it is believed as it is now");
                    match kind {
                        APPS => self.world.forget_app_versions(),
                        SLICES => self.world.forget_slice_versions(),
                        QUOTA_LEDGERS => self.world.forget_quota_ledger_versions(),
                        _ => {}
                    }
                }
                for object in all {
                    self.take_one(kind, object, &apply);
                }
                for gone in before.keys().filter(|name| !now.contains_key(*name)) {
                    self.forget_unreadable(kind, gone);
                    remove(self, gone);
                }
                self.known.insert(kind, now);
            }
            Change::Applied(object) => {
                let known = self.known.entry(kind).or_default();
                known.insert(key(kind, &object), version(&object));
                self.take_one(kind, object, &apply);
            }
            Change::Deleted(object) => {
                let name = key(kind, &object);
                self.known.entry(kind).or_default().remove(&name);
                self.forget_unreadable(kind, &name);
                remove(self, &name);
            }
        }
    }

    /// An object that cannot be read stands for itself alone: what was known of it stands.
    fn take_one<K: kube::Resource>(
        &mut self,
        kind: &'static str,
        object: DeserializeGuard<K>,
        apply: impl Fn(&mut Self, K),
    ) {
        let name = key(kind, &object);
        match object.0 {
            Ok(object) => {
                self.forget_unreadable(kind, &name);
                apply(self, object);
            }
            Err(invalid) => {
                let (namespace, name_there) = (invalid.metadata.namespace, invalid.metadata.name);
                tracing::warn!(
                    kind,
                    ?namespace,
                    name = ?name_there,
                    error = invalid.error,
                    "an object cannot be read; what was decided for it stands"
                );
                self.unreadable.entry(kind).or_default().insert(name);
            }
        }
    }

    fn forget_unreadable(&mut self, kind: &'static str, name: &str) {
        if let Some(names) = self.unreadable.get_mut(kind) {
            names.remove(name);
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
    fn hear_leases(&mut self, change: Change<Lease>) {
        let now = self.clock.now();
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
                // A Lease may outlive its cluster; nobody waits for news of that one.
                let known = self.world.cluster(&cluster);
                if known.is_some_and(ClusterSlot::exists) {
                    self.contacts.insert(cluster, Instant::now());
                }
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
            .apply_namespace(&name.into(), NamespaceSlot::of(&view.metadata));
    }

    fn hear_binding(&mut self, binding: &RoleBinding) {
        let namespace = binding.namespace().unwrap_or_default().into();
        match (tenants::given(binding), TenantRole::of(&binding.name_any())) {
            (Some((role, subjects)), _) => self.world.apply_binding(namespace, role, subjects),
            (None, Some(role)) => self.world.remove_binding(&namespace, role),
            (None, None) => {}
        }
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

/// What an object is known by.
fn key<K: kube::Resource>(kind: &'static str, object: &K) -> String {
    let meta = object.meta();
    if kind == APPS {
        return meta.uid.clone().unwrap_or_default();
    }
    let name = meta.name.as_deref().unwrap_or_default();
    match meta.namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

fn version<K: kube::Resource>(object: &K) -> Version {
    object.meta().resource_version.as_ref()?.parse().ok()
}

/// Whether a whole list has any object in an older version than the watch has delivered. Lists are
/// read from the store's leader, so that happens only when the store itself was restored.
fn set_back(before: &BTreeMap<String, Version>, now: &BTreeMap<String, Version>) -> bool {
    now.iter().any(|(name, version)| {
        let known = before.get(name).copied().flatten();
        known
            .zip(*version)
            .is_some_and(|(known, version)| version < known)
    })
}

/// A kind of which every object can be read.
fn guarded<K>(change: Change<K>) -> Change<DeserializeGuard<K>> {
    let guard = |object| DeserializeGuard(Ok(object));
    match change {
        Change::Replaced(all) => Change::Replaced(all.into_iter().map(guard).collect()),
        Change::Applied(object) => Change::Applied(guard(object)),
        Change::Deleted(object) => Change::Deleted(guard(object)),
    }
}

fn cluster_of<K: kube::Resource>(object: &K) -> Option<ClusterName> {
    cluster_of_namespace(object.meta().namespace.as_deref()?)
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("", name))
}

#[cfg(test)]
mod tests;
