//! What isolates a namespace, and whether Apps may start and grow in it.

use std::collections::{BTreeMap, BTreeSet};

use crds::{NamespaceName, Reason, ReportState, Tier, Timestamp, label};
use serde_json::{Value, json};

use super::action::Nudge;
use super::observed::{Limited, fight_ends};
use super::{Action, ContentState, Namespace, Observed, Seen, Work};
use crate::allotment::{Allotment, quota_name};
use crate::amount::Resources;
use crate::charge::Charges;
use crate::object::{Kind, ObjectKey};
use crate::render::{Rendered, render_isolation};

/// Least time between the first two nudges of one workload, in milliseconds; from then on it doubles.
const NUDGE_PAUSE: i64 = 2_000;
/// How often it doubles at most: once a minute is enough where it does not help.
const NUDGE_DOUBLED: u32 = 6;

/// Kinds that ResourceQuotas count themselves.
const COUNTED: [Kind; 2] = [Kind::Service, Kind::PersistentVolumeClaim];
/// Kinds by which there come to be more pods.
const MAKING_PODS: [Kind; 6] = [
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::Job,
    Kind::CronJob,
    Kind::HorizontalPodAutoscaler,
];

/// What is known of the isolation of a namespace when its Apps are decided on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Enclosure {
    /// Whether everything that isolates it is in force.
    pub in_force: bool,
    /// Why it is not, if something stands in its way.
    pub obstacle: Option<(Reason, String)>,
    /// Tiers whose ResourceQuota does not allow yet what their Apps are charged; `None` stands for what has
    /// no tier.
    pub narrow: BTreeSet<Option<Tier>>,
    /// What of each tier's ResourceQuota is not used.
    pub free: BTreeMap<Tier, Resources>,
}

impl Enclosure {
    /// What is known of a namespace whose Apps are charged so much.
    pub fn of(
        namespace: &NamespaceName,
        limits: &[String],
        allotment: &Allotment,
        observed: &Observed,
    ) -> Self {
        let mut enclosure = Self::default();
        for tier in std::iter::once(None).chain(Tier::ALL.map(Some)) {
            let due = allotment.hard(tier, limits);
            if due.iter().next().is_none() {
                continue;
            }
            let seen = quota(observed, namespace, tier);
            let allows = |(resource, amount): (&str, i64)| {
                seen.is_some_and(|seen| seen.enforced.get(resource) >= amount)
            };
            if !due.iter().all(allows) {
                enclosure.narrow.insert(tier);
            }
            if let (Some(tier), Some(seen)) = (tier, seen) {
                enclosure.free.insert(tier, seen.enforced.minus(&seen.used));
            }
        }
        enclosure
    }
}

fn quota<'o>(
    observed: &'o Observed,
    namespace: &NamespaceName,
    tier: Option<Tier>,
) -> Option<&'o Limited> {
    let key = ObjectKey {
        kind: Kind::ResourceQuota,
        namespace: namespace.clone(),
        name: quota_name(tier).into(),
    };
    observed.objects.get(&key)?.limited.as_deref()
}

impl Work<'_> {
    /// Keeps a namespace isolated as its entry says.
    pub(super) fn isolate(&mut self, content: ContentState<'_>, allotment: &Allotment) {
        let Some(content) = self.content(content) else {
            return;
        };
        let limits = allotment.manifests(&self.entry.limits);
        let policies = content.manifests.iter().cloned();
        let policies: Vec<Value> = policies.map(|one| self.close(one)).collect();
        let manifests = policies.into_iter().chain(limits);
        let objects = match render_isolation(self.entry, manifests) {
            Ok(objects) => objects,
            Err(error) => return self.refuse(&error),
        };
        self.reports_drift = content
            .manifests
            .iter()
            .any(|manifest| manifest["metadata"]["annotations"][label::ON_DRIFT] == "Report");
        if !self.namespace_ready() {
            return;
        }
        for object in &objects {
            self.object(object);
        }
        self.prune(&objects);
        self.strangers();
        self.tell_repairs(&objects);
    }

    /// What ends by itself lets nothing through from then on. It goes when the hub says so.
    fn close(&mut self, mut manifest: Value) -> Value {
        let note = &manifest["metadata"]["annotations"][label::NOT_AFTER];
        let end = note.as_str().and_then(|at| at.parse::<Timestamp>().ok());
        match end.map(Timestamp::millis) {
            Some(end) if end <= self.now => {
                for direction in ["ingress", "egress"] {
                    manifest["spec"][direction] = json!([]);
                }
            }
            Some(end) => self.wake(end),
            None => {}
        }
        manifest
    }

    /// What somebody changed by hand and was put back is told for a while.
    fn tell_repairs(&mut self, objects: &[Rendered]) {
        for object in objects {
            let settled = self.observed.settled.get(&object.key);
            let Some((times, until)) = settled.and_then(|s| s.lately(self.now)) else {
                continue;
            };
            self.wake(until);
            let often = match times {
                1 => "once".to_owned(),
                times => format!("{times} times"),
            };
            self.message = Some(format!(
                "{} was changed or deleted by hand and put back, {often} within ten minutes: see its managedFields and the audit log of the cluster",
                object.key
            ));
        }
    }

    /// Policies that somebody else added: they only ever let more through.
    fn strangers(&mut self) {
        let observed = self.observed;
        let first = ObjectKey {
            kind: Kind::NetworkPolicy,
            namespace: self.entry.namespace.clone(),
            name: "".into(),
        };
        let here = observed.objects.range(first.clone()..);
        let here = here
            .take_while(|(key, _)| (key.kind, &key.namespace) == (first.kind, &first.namespace));
        for (key, seen) in here {
            if self.is_ours(key, seen) {
                continue;
            }
            let told = format!(
                "{key} is not of this namespace's Isolation and lets more through: declare a Link instead, and delete it"
            );
            if self.reports_drift {
                self.message = Some(told);
                continue;
            }
            self.fail(Reason::Drifted, told);
            let evicted = self.observed.evicted.get(key);
            let again = evicted.and_then(|times| fight_ends(times, self.now));
            if let Some(again) = again {
                self.wake(again);
            } else if !seen.deleting {
                self.delete(key);
            }
        }
    }

    /// Nothing that isolates a namespace goes before the last App.
    pub(super) fn wait_for_apps(&mut self) {
        self.state = Some(ReportState::Removing);
        let name = &self.entry.namespace;
        self.message = Some(format!("namespace {name} waits for its Apps to be removed"));
    }

    /// Takes a namespace back whose tenant is gone, with everything in it. One that somebody else created
    /// stays, without what isolated it: in it may be what never was ours. In the hub's own cluster the
    /// namespace is the tenant's own, and the hub's to delete.
    pub(super) fn dissolve(&mut self) {
        self.unsure = !self.observed.listing.is_empty();
        let name = &self.entry.namespace;
        let itself = ObjectKey::namespace(name);
        let there = self.observed.namespaces.get(name);
        let seen = self.observed.objects.get(&itself);
        match there {
            None | Some(Namespace::Foreign) => self.state = Some(ReportState::Removed),
            Some(Namespace::Terminating) => {
                self.state = Some(ReportState::Removing);
                self.message = Some(format!("namespace {name} is still terminating"));
            }
            Some(Namespace::Ready | Namespace::Unbound)
                if self.observed.home || seen.is_some_and(|seen| !seen.created) =>
            {
                self.let_go_but(|kind| kind != Kind::Namespace);
            }
            Some(Namespace::Ready | Namespace::Unbound) => {
                self.state = Some(ReportState::Removing);
                if let Some(seen) = seen.filter(|seen| !seen.deleting) {
                    self.actions.push(Action::Delete {
                        key: itself,
                        uid: seen.uid.clone(),
                        resource_version: Some(seen.resource_version.clone()),
                    });
                }
            }
        }
    }

    /// Lets a namespace go with its cluster: what keeps others out stays, and the limits of a grant that
    /// ends here go.
    pub(super) fn open_up(&mut self) {
        self.let_go_but(|kind| matches!(kind, Kind::LimitRange | Kind::ResourceQuota));
    }

    /// Deletes what isolates a namespace of some kinds, and lets the rest go.
    fn let_go_but(&mut self, deletes: impl Fn(Kind) -> bool) {
        self.unsure = !self.observed.listing.is_empty();
        let mut left = self.unsure;
        for key in self.observed.objects_of(&self.entry.uid) {
            left = true;
            if deletes(key.kind) {
                self.delete(key);
            } else if let Some(seen) = self.observed.objects.get(key) {
                let (key, uid) = (key.clone(), seen.uid.clone());
                self.actions.push(Action::LetGo { key, uid });
            }
        }
        self.leave(left);
    }

    /// Whether an App may start in its namespace: not before that is isolated. What runs already goes on
    /// whatever happens to the isolation.
    pub(super) fn may_start(&mut self, objects: &[Rendered]) -> bool {
        if self.observing || self.observed.objects_of(&self.entry.uid).next().is_some() {
            return true;
        }
        let name = &self.entry.namespace;
        let enclosure = self.observed.enclosures.get(name);
        if enclosure.is_some_and(|enclosure| enclosure.in_force) {
            return true;
        }
        // What isolates it, and the App itself, may be there and not listed yet.
        let mut kinds = Kind::ISOLATING
            .iter()
            .copied()
            .chain(objects.iter().map(|object| object.key.kind));
        self.unsure |= kinds.any(|kind| self.observed.listing.contains(&kind));
        if let Some((reason, message)) = enclosure.and_then(|known| known.obstacle.clone()) {
            self.fail(reason, message);
        } else {
            self.state = Some(ReportState::Progressing);
            self.message = Some(format!("namespace {name} is being isolated first"));
        }
        false
    }

    /// Where pods were refused for want of room and there is room now, they are tried again at once: their
    /// controller would wait ever longer, up to a quarter of an hour.
    pub(super) fn nudge(&mut self, key: &ObjectKey, seen: &Seen) {
        let enclosure = self.observed.enclosures.get(&self.entry.namespace);
        let free = enclosure.and_then(|enclosure| enclosure.free.get(&self.entry.tier));
        let Some(free) = free.filter(|_| seen.health.refused) else {
            return;
        };
        let one = Charges::of(&self.entry.charge).each;
        if one
            .iter()
            .any(|(resource, amount)| free.names(resource) && free.get(resource) < amount)
        {
            return;
        }
        let before = self.observed.nudged.get(key).copied().unwrap_or_default();
        let pause = NUDGE_PAUSE << before.times.saturating_sub(1).min(NUDGE_DOUBLED);
        if before.times > 0 && before.at + pause > self.now {
            return self.wake(before.at + pause);
        }
        let (key, app) = (key.clone(), self.entry.uid.clone());
        self.actions
            .push(Action::Nudge(Box::new(Nudge { key, app })));
        self.wake(self.now + NUDGE_PAUSE);
    }

    /// Whether a change may be applied: not before the namespace's ResourceQuotas allow what the App is
    /// charged, since pods that are refused are tried again ever more seldom.
    pub(super) fn has_room(&mut self, object: &Rendered) -> bool {
        if !self.entry.scope.is_app() {
            return true;
        }
        let Some(enclosure) = self.observed.enclosures.get(&self.entry.namespace) else {
            return true;
        };
        let tiers = [None, Some(self.entry.tier)];
        let narrow = tiers.iter().find(|tier| enclosure.narrow.contains(tier));
        let Some(tier) = narrow else { return true };
        let kind = &object.key.kind;
        let waits = MAKING_PODS.contains(kind) || tier.is_none() && COUNTED.contains(kind);
        if waits {
            self.state = Some(ReportState::Progressing);
            self.message = Some(format!(
                "{} waits until ResourceQuota {}/{} allows what the App is charged",
                object.key,
                self.entry.namespace,
                quota_name(*tier)
            ));
        }
        !waits
    }
}

#[cfg(test)]
mod tests;
