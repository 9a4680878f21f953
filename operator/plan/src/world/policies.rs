//! TrafficPolicies of Apps behind the gate.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::{
    APP_FINALIZER, Activation, AppName, NamespaceName, Reason, TrafficPolicy, TrafficPolicySpec,
    TrafficPolicyStatus, Uid,
};

use super::World;
use super::gate::{Parked, Verdict};

/// What the word for a policy begins with, where Apps have their UID.
const POLICY: &str = "policy-";

/// Where a TrafficPolicy lives, and its name.
pub type PolicyKey = (NamespaceName, Box<str>);

/// A TrafficPolicy as the API server has it, behind the gate.
#[derive(Clone, Debug)]
pub struct PolicySlot {
    /// UID.
    pub uid: Uid,
    /// `metadata.generation`.
    pub generation: i64,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether our finalizer holds it.
    pub held: bool,
    /// Apps that it names; of none is what is a region's own, in the cluster of the hub.
    pub apps: BTreeSet<AppName>,
    /// The policy, or why it is parked.
    pub state: Verdict<TrafficPolicySpec>,
    /// Status as last written.
    pub status: Arc<TrafficPolicyStatus>,
}

impl PolicySlot {
    fn of(policy: &TrafficPolicy) -> Self {
        let meta = &policy.metadata;
        let targets = policy.spec.target_refs.iter();
        let apps = targets.filter(|target| target.group == crds::GROUP && target.kind == "App");
        let mut finalizers = meta.finalizers.iter().flatten();
        Self {
            uid: meta.uid.clone().unwrap_or_default().into(),
            generation: meta.generation.unwrap_or(0),
            created: meta
                .creation_timestamp
                .as_ref()
                .map_or(0, |t| t.0.as_millisecond()),
            deleting: meta.deletion_timestamp.is_some(),
            held: finalizers.any(|finalizer| finalizer == APP_FINALIZER),
            apps: apps.map(|target| target.name.as_str().into()).collect(),
            state: policy_gate(meta.name.as_deref().unwrap_or_default(), &policy.spec)
                .map(|()| Arc::new(policy.spec.clone())),
            status: Arc::new(policy.status.clone().unwrap_or_default()),
        }
    }

    /// What it says, if it is valid and in force at all times.
    pub(crate) fn standing(&self) -> Option<&Arc<TrafficPolicySpec>> {
        let spec = self.state.as_ref().ok()?;
        (spec.activation == Activation::Always && !self.deleting).then_some(spec)
    }

    /// Equal in all that decisions depend on, but for the status.
    fn same_but_status(&self, other: &Self) -> bool {
        (&self.uid, self.generation, self.deleting, self.held)
            == (&other.uid, other.generation, other.deleting, other.held)
    }
}

/// What stands for a policy in the ledger, where Apps have their UID.
pub fn policy_uid(policy: &Uid) -> Uid {
    format!("{POLICY}{policy}").into()
}

/// Whether this stands for a policy and not for an App.
pub(crate) fn is_of_policy(uid: &Uid) -> bool {
    uid.as_str().starts_with(POLICY)
}

impl World {
    /// Takes in a TrafficPolicy.
    pub fn apply_policy(&mut self, policy: &TrafficPolicy) {
        let meta = &policy.metadata;
        let key: PolicyKey = (
            NamespaceName::from(meta.namespace.clone().unwrap_or_default()),
            meta.name.clone().unwrap_or_default().into(),
        );
        let slot = PolicySlot::of(policy);
        if let Some(before) = self.policies.get(&key)
            && before.same_but_status(&slot)
        {
            // Our own status comes back on the watch.
            self.journal.note(&policy_uid(&slot.uid));
            self.policies.insert(key, slot);
            return;
        }
        self.remove_policy(&key.0, &key.1);
        for app in &slot.apps {
            let named = self.app_policies.entry((key.0.clone(), app.clone()));
            named.or_default().insert(key.clone());
        }
        self.policy_uids.insert(policy_uid(&slot.uid), key.clone());
        let known = slot.held;
        self.policies.insert(key.clone(), slot);
        self.touch_rules(&key);
        if !known {
            self.touch_namesakes(&key);
        }
    }

    /// Forgets a TrafficPolicy that is gone. What stands for it stays: that it vanished is no instruction.
    pub fn remove_policy(&mut self, namespace: &NamespaceName, name: &str) {
        let key: PolicyKey = (namespace.clone(), name.into());
        if !self.policies.contains_key(&key) {
            return;
        }
        self.touch_rules(&key);
        let Some(gone) = self.policies.remove(&key) else {
            return;
        };
        self.policy_uids.remove(&policy_uid(&gone.uid));
        for app in gone.apps {
            let named = (namespace.clone(), app);
            if let Some(keys) = self.app_policies.get_mut(&named) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.app_policies.remove(&named);
                }
            }
        }
    }

    /// All TrafficPolicies, valid and parked.
    pub fn policies(&self) -> impl Iterator<Item = (&PolicyKey, &PolicySlot)> {
        self.policies.iter()
    }

    /// One TrafficPolicy, valid or parked.
    pub fn policy(&self, key: &PolicyKey) -> Option<&PolicySlot> {
        self.policies.get(key)
    }

    /// TrafficPolicies that name an App, the one that counts most first: the oldest, then by name.
    pub(crate) fn policies_of(
        &self,
        namespace: &NamespaceName,
        app: &AppName,
    ) -> Vec<(&PolicyKey, &PolicySlot)> {
        let named = self.app_policies.get(&(namespace.clone(), app.clone()));
        let named = named.into_iter().flatten();
        let mut all: Vec<_> = named
            .filter_map(|key| self.policies.get_key_value(key))
            .collect();
        all.sort_by_key(|(key, slot)| (slot.created, *key));
        all
    }

    /// The TrafficPolicy that counts for an App: the oldest of those that are valid and in force at all
    /// times.
    pub(crate) fn governing(
        &self,
        namespace: &NamespaceName,
        app: &AppName,
    ) -> Option<(&PolicyKey, &PolicySlot)> {
        let all = self.policies_of(namespace, app).into_iter();
        let mut standing = all.filter(|(_, slot)| slot.standing().is_some());
        standing.next()
    }

    /// The UIDs that an App of that name has or had: of the object, and of what stands in the ledger.
    pub(crate) fn uids_named(&self, namespace: &NamespaceName, app: &AppName) -> BTreeSet<&Uid> {
        let name = (namespace.clone(), app.clone());
        let objects = self.app_names.get(&name).into_iter().flatten();
        let entries = self.entry_names.get(&name).into_iter().flatten();
        objects.chain(entries).collect()
    }

    /// Notes that an App came, went or changed, for the policies that name it.
    pub(super) fn touch_policies_of(&mut self, namespace: &NamespaceName, app: &AppName) {
        let named = self.app_policies.get(&(namespace.clone(), app.clone()));
        for key in named.into_iter().flatten() {
            let Some(slot) = self.policies.get(key) else {
                continue;
            };
            self.journal.note(&policy_uid(&slot.uid));
            // What one App has may matter to the others that share its policy.
            for other in slot.apps.iter().filter(|other| *other != app) {
                let name = (namespace.clone(), other.clone());
                let uids = self.app_names.get(&name);
                uids.into_iter()
                    .flatten()
                    .for_each(|uid| self.journal.note(uid));
            }
        }
    }

    /// The same of an App that is gone but stands in the ledger.
    pub(super) fn touch_policies_of_orphan(&mut self, uid: &Uid) {
        let entries = self.ledger.get(uid).into_iter();
        let mut entries = entries.flat_map(|ledger| ledger.entries.values());
        let name = entries
            .next()
            .map(|held| (held.entry.namespace.clone(), held.entry.name.clone()));
        if let Some((namespace, name)) = name {
            self.touch_policies_of(&namespace, &name);
        }
    }

    /// Notes that what stands for a policy changed somewhere, or what a cluster says of it.
    pub(super) fn touch_policy(&mut self, uid: &Uid) {
        self.journal.note(uid);
        let Some(key) = self.policy_uids.get(uid).cloned() else {
            return;
        };
        let slot = self.policies.get(&key);
        let apps: Vec<AppName> = slot.into_iter().flat_map(|s| s.apps.clone()).collect();
        for app in &apps {
            self.touch_named(&key.0, app);
        }
    }

    /// Notes that the policies of a namespace may have to name another pack.
    pub(super) fn touch_policies_in(&mut self, namespace: &NamespaceName) {
        let all = self.policies.range((namespace.clone(), "".into())..);
        for (_, slot) in all.take_while(|((home, _), _)| home == namespace) {
            self.journal.note(&policy_uid(&slot.uid));
        }
    }

    /// Notes that a new policy has the name of one that vanished, of which something is left.
    fn touch_namesakes(&mut self, key: &PolicyKey) {
        let all = self.ledger.range(Uid::from(POLICY)..);
        let policies = all.take_while(|(uid, _)| is_of_policy(uid));
        let namesakes = policies.filter(|(_, ledger)| {
            let mut entries = ledger.entries.values();
            entries.any(|held| held.entry.namespace == key.0 && *held.entry.name.as_str() == *key.1)
        });
        for (uid, _) in namesakes {
            self.journal.note(uid);
        }
    }

    /// Notes that a policy came, went or changed: for its Apps, and for the others that name those.
    fn touch_rules(&mut self, key: &PolicyKey) {
        let Some(slot) = self.policies.get(key) else {
            return;
        };
        let (uid, apps) = (policy_uid(&slot.uid), slot.apps.clone());
        self.journal.note(&uid);
        for app in &apps {
            self.touch_policies_of(&key.0, app);
            self.touch_named(&key.0, app);
        }
    }
}

/// What the schema cannot say.
fn policy_gate(name: &str, spec: &TrafficPolicySpec) -> Result<(), Parked> {
    if !AppName::from(name).is_valid() {
        let message = format!(
            "metadata.name {name:?} must be 1 to 63 lower-case letters, digits and hyphens, as that of an App: create the policy under another name"
        );
        return Err(Parked::new(Reason::Invalid, message));
    }

    for (at, limit) in spec.rate_limits.iter().enumerate() {
        if limit.rate.per.millis().is_none_or(|per| per < 1_000) {
            let message = format!(
                "spec.rateLimits[{at}].rate.per {:?} is no time of a second or more: write it as 1s, 1m or 1h",
                limit.rate.per.0
            );
            return Err(Parked::new(Reason::Invalid, message));
        }
    }
    Ok(())
}
