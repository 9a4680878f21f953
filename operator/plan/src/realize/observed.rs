//! What an agent has observed of its cluster.

use std::collections::{BTreeMap, BTreeSet};

use crds::{ContentHash, Entry, NamespaceName, Reason, Uid};
use serde::{Deserialize, Serialize};

use super::secrets::{Delivered, SecretKey, Undelivered};
use super::{Enclosure, FIGHT_REPAIRS, FIGHT_WINDOW, Health};
use crate::amount::Resources;
use crate::object::{Kind, ObjectKey};

/// What an agent has observed of its cluster, kept up to date by its watches and its own writes.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Objects of the allowed kinds.
    pub objects: BTreeMap<ObjectKey, Seen>,
    /// Namespaces.
    pub namespaces: BTreeMap<NamespaceName, Namespace>,
    /// What is known of how namespaces are isolated.
    pub enclosures: BTreeMap<NamespaceName, Enclosure>,
    /// Pods of Apps that have not ended, by where they are, those that are on their way out included.
    pub pods: BTreeMap<(NamespaceName, Uid), i32>,
    /// When workloads were last told to try pods again that were refused, and how often in a row.
    pub nudged: BTreeMap<ObjectKey, Nudged>,
    /// When policies of somebody else were deleted, by their names.
    pub evicted: BTreeMap<ObjectKey, Vec<i64>>,
    /// Kinds that the cluster serves.
    pub kinds: BTreeSet<Kind>,
    /// Kinds that it serves, but whose objects have not been listed yet.
    pub listing: BTreeSet<Kind>,
    /// What tenants may have.
    pub access: BTreeMap<(NamespaceName, Kind), Access>,
    /// What was applied and how the object looked right after.
    pub settled: BTreeMap<ObjectKey, Settled>,
    /// What the API server refused.
    pub refused: BTreeMap<ObjectKey, Refused>,
    /// Whether the cluster is the hub's own: the tenants' Secrets are there already.
    pub home: bool,
    /// Versions of the Secrets that the hub copied for this cluster, by name of the copy.
    pub copies: BTreeMap<Box<str>, Box<str>>,
    /// Secrets that were delivered.
    pub delivered: BTreeMap<SecretKey, Delivered>,
    /// Secrets that could not be delivered.
    pub undelivered: BTreeMap<SecretKey, Undelivered>,
    /// Secrets that were taken back, and for which App.
    pub withdrawn: BTreeSet<(SecretKey, Uid)>,
    /// Apps that own objects here and that the hub does not name: nobody keeps those up, and an App
    /// that takes over always may have them.
    pub abandoned: BTreeSet<Uid>,
    by_app: BTreeMap<Uid, BTreeSet<ObjectKey>>,
    /// Objects that were applied and that a whole list did not have, with the App that they were
    /// applied for and their UID. A list is no proof that something is gone.
    vanished: BTreeMap<ObjectKey, (Uid, Uid)>,
    /// Objects that lost a label of ownership, and the App that they were applied for.
    stripped: BTreeMap<ObjectKey, Uid>,
}

/// An object in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// UID.
    pub uid: Uid,
    /// Version.
    pub resource_version: Box<str>,
    /// What changes when somebody changes what we own.
    pub stamp: Stamp,
    /// UID of the App that owns it, by its labels; `None` when it is not managed.
    pub owner: Option<Uid>,
    /// Hash of what the agent applied last, by its annotation.
    pub applied: Option<ContentHash>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `spec.replicas`, for kinds that have it.
    pub replicas: Option<i32>,
    /// Until when its replicas are not to be touched.
    pub hold_until: Option<i64>,
    /// Health, for workloads.
    pub health: Health,
    /// Whether the agent created it, for namespaces.
    pub created: bool,
    /// What it limits, for ResourceQuotas.
    pub limited: Option<Box<Limited>>,
}

/// How often a workload was told to try again, and when last, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nudged {
    /// When last.
    pub at: i64,
    /// How often in a row.
    pub times: u32,
}

/// What a ResourceQuota limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limited {
    /// What the API server allows now.
    pub enforced: Resources,
    /// What is used of it.
    pub used: Resources,
}

/// Tells whether somebody changed an object's spec: its generation, or its version for kinds that
/// have no generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stamp {
    /// `metadata.generation`.
    #[serde(rename = "g")]
    Generation(i64),
    /// `metadata.resourceVersion`.
    #[serde(rename = "v")]
    Version(Box<str>),
}

/// What was applied and how the object looked right after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// UID of the object.
    #[serde(rename = "u")]
    pub uid: Uid,
    /// UID of the App that it was applied for.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub app: Option<Uid>,
    /// Hash of what was applied.
    #[serde(rename = "h")]
    pub hash: ContentHash,
    /// Stamp right after.
    #[serde(rename = "s")]
    pub stamp: Stamp,
    /// Times of the last repairs, in milliseconds since the Unix epoch.
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<i64>,
}

impl Settled {
    /// Notes a repair.
    pub fn repaired(&mut self, now: i64) {
        self.repairs.retain(|at| now - at < FIGHT_WINDOW);
        self.repairs.push(now);
    }

    /// How often it was repaired of late, and until when that is of late.
    pub(super) fn lately(&self, now: i64) -> Option<(usize, i64)> {
        let recent = self
            .repairs
            .iter()
            .filter(|at| (0..FIGHT_WINDOW).contains(&(now - **at)));
        let last = recent.clone().max()?;
        Some((recent.count(), last + FIGHT_WINDOW))
    }

    /// When the agent may repair again, if it repaired too often.
    pub(super) fn fight_ends(&self, now: i64) -> Option<i64> {
        fight_ends(&self.repairs, now)
    }
}

/// When to act again against somebody who wants it otherwise, if that was done too often.
pub(super) fn fight_ends(times: &[i64], now: i64) -> Option<i64> {
    let recent: Vec<i64> = times
        .iter()
        .copied()
        // A clock that ran ahead and was set back leaves times that are still to come.
        .filter(|at| (0..FIGHT_WINDOW).contains(&(now - at)))
        .collect();
    (recent.len() >= FIGHT_REPAIRS).then(|| recent[recent.len() - FIGHT_REPAIRS] + FIGHT_WINDOW)
}

/// What the API server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Hash of what was refused.
    pub hash: ContentHash,
    /// Why, as one word.
    pub reason: Reason,
    /// Why, as the server said it.
    pub message: Box<str>,
    /// When to try again, in milliseconds since the Unix epoch.
    pub retry_at: i64,
}

/// A namespace of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Managed, and the agent has its rights there.
    Ready,
    /// Managed, but the agent's rights there are not known to be in place.
    Unbound,
    /// Not managed.
    Foreign,
    /// Being deleted.
    Terminating,
}

/// Whether a tenant may have objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    Allowed,
    /// No.
    Denied,
}

impl Observed {
    /// Nothing observed yet; `home` says whether the cluster is the hub's own.
    pub fn new(home: bool) -> Self {
        Self {
            home,
            ..Self::default()
        }
    }

    /// How many pods an App has.
    pub(super) fn pods_of(&self, entry: &Entry) -> i32 {
        let app = (entry.namespace.clone(), entry.uid.clone());
        self.pods.get(&app).copied().unwrap_or(0)
    }

    /// Takes in all objects of a kind. Returns the Apps concerned.
    pub fn list(
        &mut self,
        kind: Kind,
        all: impl IntoIterator<Item = (ObjectKey, Seen)>,
    ) -> BTreeSet<Uid> {
        let all: BTreeMap<ObjectKey, Seen> = all.into_iter().collect();
        // Lists come from the store's leader: an older version says that the store was restored.
        if all.iter().any(|(key, seen)| self.is_older(key, seen)) {
            let known = self.objects.iter_mut().filter(|(key, _)| key.kind == kind);
            known.for_each(|(_, seen)| seen.resource_version = Box::default());
        }
        let mut concerned = BTreeSet::new();
        for key in self.keys_of_kind(kind) {
            if !all.contains_key(&key) {
                concerned.extend(self.lose(&key));
            }
        }
        for (key, was) in self.settled.iter().filter(|(key, _)| key.kind == kind) {
            if let Some(app) = was.app.clone().filter(|_| !all.contains_key(key)) {
                self.vanished.insert(key.clone(), (app, was.uid.clone()));
            }
        }
        for (key, seen) in all {
            concerned.extend(self.see(key, seen));
        }
        concerned
    }

    fn is_older(&self, key: &ObjectKey, seen: &Seen) -> bool {
        let before = self.objects.get(key);
        before.is_some_and(|b| crate::world::older(&seen.resource_version, &b.resource_version))
    }

    /// Takes in an object. Returns the Apps concerned.
    pub fn see(&mut self, key: ObjectKey, seen: Seen) -> BTreeSet<Uid> {
        self.vanished.remove(&key);
        if self.objects.get(&key) == Some(&seen) || self.is_older(&key, &seen) {
            return BTreeSet::new();
        }
        let mut concerned = self.unlink(&key);
        let was = self.settled.get(&key).filter(|was| was.uid == seen.uid);
        let was = was.and_then(|was| was.app.clone());
        if let (None, Some(app)) = (&seen.owner, &was) {
            self.stripped.insert(key.clone(), app.clone());
        }
        if let Some(owner) = seen.owner.clone().or(was) {
            self.by_app
                .entry(owner.clone())
                .or_default()
                .insert(key.clone());
            concerned.insert(owner);
        }
        self.objects.insert(key, seen);
        concerned
    }

    /// Forgets an object that is gone. Returns the Apps concerned.
    pub fn lose(&mut self, key: &ObjectKey) -> BTreeSet<Uid> {
        let concerned = self.unlink(key);
        self.objects.remove(key);
        concerned
    }

    fn unlink(&mut self, key: &ObjectKey) -> BTreeSet<Uid> {
        let stripped = self.stripped.remove(key);
        let owner = self.objects.get(key).and_then(|seen| seen.owner.clone());
        let owner = owner.or(stripped);
        if let Some(owner) = &owner
            && let Some(keys) = self.by_app.get_mut(owner)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_app.remove(owner);
            }
        }
        owner.into_iter().collect()
    }

    /// Takes in that an object was let go: it is nobody's, and was never ours.
    pub fn let_go(&mut self, key: &ObjectKey) -> BTreeSet<Uid> {
        self.settled.remove(key);
        let concerned = self.unlink(key);
        if let Some(seen) = self.objects.get_mut(key) {
            seen.owner = None;
        }
        concerned
    }

    /// Takes in that an object was told to go. It counts until it is seen to be gone.
    pub fn going(&mut self, key: &ObjectKey, uid: &Uid) {
        if let Some(seen) = self.objects.get_mut(key).filter(|seen| seen.uid == *uid) {
            seen.deleting = true;
        }
        // Of an object that lost its labels, nothing else tells whose it is.
        if !self.stripped.contains_key(key) {
            self.settled.remove(key);
        }
    }

    /// Objects of an App that a list did not have, and that nobody saw go.
    pub fn vanished_of(&self, uid: &Uid) -> impl Iterator<Item = (&ObjectKey, &Uid)> {
        let of_app = self.vanished.iter().filter(move |(_, (app, _))| app == uid);
        of_app.map(|(key, (_, object))| (key, object))
    }

    /// Takes in that an object that was applied is known to be gone.
    pub fn gone(&mut self, key: &ObjectKey, uid: &Uid) {
        self.vanished.remove(key);
        if self.settled.get(key).is_some_and(|was| was.uid == *uid) {
            self.settled.remove(key);
        }
    }

    /// Forgets what was applied for Apps that are no longer held.
    pub fn forget_settled(&mut self, held: impl Fn(&Uid) -> bool) {
        self.settled
            .retain(|_, was| was.app.as_ref().is_some_and(&held));
        self.vanished.retain(|_, (app, _)| held(app));
    }

    /// Objects that an App owns, by their labels or because they were applied for it.
    pub fn objects_of(&self, uid: &Uid) -> impl Iterator<Item = &ObjectKey> {
        self.by_app.get(uid).into_iter().flatten()
    }

    /// Apps that own objects.
    pub fn owners(&self) -> impl Iterator<Item = &Uid> {
        self.by_app.keys()
    }

    /// Objects of a kind that are known.
    fn keys_of_kind(&self, kind: Kind) -> BTreeSet<ObjectKey> {
        self.objects
            .keys()
            .filter(|key| key.kind == kind)
            .cloned()
            .collect()
    }
}
