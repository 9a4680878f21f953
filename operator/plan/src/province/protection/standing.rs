//! Whether a policy counts for an App, and how far it is enforced.

use std::collections::BTreeSet;

use crds::{AppName, ClusterName, EntryState, NamespaceName, Reason, ReportState, Tier};

use super::content::routes_of;
use crate::world::{AppSlot, PolicyKey, PolicySlot, World, policy_uid};

/// Most targets that a policy may have in a region, by its schema.
const ROUTES_MAX: usize = 16;

/// Why a policy does not count for an App.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// There is no such App.
    NoApp,
    /// The App has no HTTPRoute.
    NoRoute,
    /// The Apps have more HTTPRoutes than a policy can name.
    TooManyRoutes(usize),
    /// An older policy counts for it.
    Conflicted(PolicyKey),
}

impl Objection {
    /// Why, as one word.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NoApp | Self::NoRoute => Reason::TargetNotFound,
            Self::TooManyRoutes(_) => Reason::Invalid,
            Self::Conflicted(_) => Reason::Conflicted,
        }
    }

    /// Why, and what to do.
    pub(crate) fn message(&self, namespace: &NamespaceName, app: &AppName) -> String {
        match self {
            Self::NoApp => format!(
                "There is no App {app} in namespace {namespace}: create it, or correct spec.targetRefs."
            ),
            Self::NoRoute => format!(
                "App {app} has no HTTPRoute, through which requests come to the guards: add one to its spec.manifests."
            ),
            Self::TooManyRoutes(routes) => format!(
                "The Apps have {routes} HTTPRoutes, and one policy protects at most {ROUTES_MAX}: name fewer Apps in spec.targetRefs, and the others in another policy."
            ),
            Self::Conflicted((_, other)) => format!(
                "TrafficPolicy {other}, which is older, counts for App {app}: delete one of the two, or take the App out of spec.targetRefs."
            ),
        }
    }
}

/// Why a policy that is valid does not count for one of its Apps.
pub(crate) fn objection(
    world: &World,
    key: &PolicyKey,
    slot: &PolicySlot,
    app: &AppName,
) -> Option<Objection> {
    let slots = world.apps_named(&key.0, app);
    if slots.is_empty() && world.uids_named(&key.0, app).is_empty() {
        return Some(Objection::NoApp);
    }
    // Policies that are in force at all times stand beside those that wait for an event.
    let mine = slot.state.as_ref().ok()?;
    let same = |other: &PolicySlot| {
        let theirs = other.state.as_ref().ok();
        let activation = theirs.map(|spec| spec.activation);
        !other.deleting && activation == Some(mine.activation)
    };
    let all = world.policies_of(&key.0, app).into_iter();
    let first = all
        .filter(|(_, other)| same(other))
        .map(|(key, _)| key)
        .next();
    if let Some(first) = first.filter(|first| *first != key && !slot.deleting) {
        return Some(Objection::Conflicted(first.clone()));
    }
    if slots.is_empty() {
        // It vanished from the store; its routes are what they were.
        return None;
    }
    if slots.iter().all(|app| routes_of(app).is_empty()) {
        return Some(Objection::NoRoute);
    }
    let all = slot
        .apps
        .iter()
        .flat_map(|app| world.apps_named(&key.0, app));
    let routes: BTreeSet<&str> = all.flat_map(routes_of).collect();
    (routes.len() > ROUTES_MAX).then_some(Objection::TooManyRoutes(routes.len()))
}

/// The tier of an App, which one that is parked keeps from what was decided before.
pub(crate) fn tier_of(world: &World, app: &AppSlot) -> Option<Tier> {
    if let Ok(valid) = &app.state {
        return Some(valid.tier);
    }
    let ledger = world.ledger(&app.uid)?;
    let tiers = ledger.entries.values().map(|held| held.entry.tier);
    tiers.max()
}

/// How far a policy is enforced where an App stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Clusters where the App stands.
    pub(crate) wanted: usize,
    /// Clusters where every guard enforces it.
    pub(crate) enforced: usize,
    /// The first cluster that refuses it, and why.
    pub(crate) refused: Option<(ClusterName, Reason, String)>,
}

impl Held {
    /// How far a policy is enforced where the Apps of a name stand; where it is about to be written anew,
    /// it is not yet.
    pub(crate) fn of(
        world: &World,
        slot: &PolicySlot,
        (namespace, app): (&NamespaceName, &AppName),
        edited: &BTreeSet<&ClusterName>,
    ) -> Self {
        let mut held = Self::default();
        let policy = world.ledger(&policy_uid(&slot.uid));
        let mut clusters: BTreeSet<&ClusterName> = BTreeSet::new();
        for uid in world.uids_named(namespace, app) {
            let entries = world.ledger(uid).into_iter().flat_map(|l| &l.entries);
            let present = entries.filter(|(_, held)| held.entry.state == EntryState::Present);
            clusters.extend(present.map(|(cluster, _)| cluster));
        }
        for cluster in clusters {
            held.wanted += 1;
            let entry = policy.and_then(|l| l.entries.get(cluster));
            let entry = entry.filter(|held| held.entry.state.is_present());
            let report = policy.and_then(|l| l.reports.get(cluster));
            let Some((entry, report)) = entry.zip(report) else {
                continue;
            };
            if report.generation < entry.entry.generation || edited.contains(cluster) {
                continue;
            }
            match report.state {
                ReportState::Healthy => held.enforced += 1,
                ReportState::Failed | ReportState::Unhealthy => {
                    let reason = report.reason.unwrap_or(Reason::Unhealthy);
                    let why = report.message.clone().unwrap_or_default();
                    held.refused.get_or_insert((cluster.clone(), reason, why));
                }
                ReportState::Pending
                | ReportState::Progressing
                | ReportState::Observed
                | ReportState::Removing
                | ReportState::Removed => {}
            }
        }
        held
    }

    /// Whether it is enforced wherever the App stands.
    pub(crate) fn everywhere(&self) -> bool {
        self.wanted > 0 && self.enforced == self.wanted
    }

    /// How far it is, in words.
    pub(crate) fn so_far(&self) -> String {
        let Self {
            wanted,
            enforced,
            refused,
        } = self;
        let why = refused.as_ref().map(|(cluster, _, why)| {
            format!(" In cluster {cluster}: {}.", why.trim_end_matches('.'))
        });
        match wanted {
            0 => "The App runs nowhere yet.".to_owned(),
            1 => format!(
                "Enforced by all guards in {enforced} of 1 cluster where the App runs.{}",
                why.unwrap_or_default()
            ),
            _ => format!(
                "Enforced by all guards in {enforced} of {wanted} clusters where the App runs.{}",
                why.unwrap_or_default()
            ),
        }
    }
}

/// What protects an App.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Whether a policy is enforced wherever the App runs.
    pub enforced: bool,
    /// Why, as one word.
    pub reason: Reason,
    /// Why, as one sentence or two.
    pub message: String,
}

/// What protects an App, by what is stored and reported.
pub(crate) fn protection_of(world: &World, app: &AppSlot) -> Protection {
    let (namespace, name) = (&app.namespace, &app.name);
    let said = |enforced, reason, message| Protection {
        enforced,
        reason,
        message,
    };
    let Some((key, slot)) = world.governing(namespace, name) else {
        let message = format!(
            "No TrafficPolicy that is in force at all times names the App: create one in namespace {namespace}, whose spec.targetRefs do."
        );
        return said(false, Reason::NoPolicy, message);
    };
    if let Some(objection) = objection(world, key, slot, name) {
        let why = objection.message(namespace, name);
        let message = format!("TrafficPolicy {} does not count: {why}", key.1);
        return said(false, objection.reason(), message);
    }
    let held = Held::of(world, slot, (namespace, name), &BTreeSet::new());
    let message = format!("TrafficPolicy {}: {}", key.1, held.so_far());
    if held.everywhere() {
        return said(true, Reason::Programmed, message);
    }
    let refused = held.refused.as_ref().map(|(_, reason, _)| *reason);
    said(false, refused.unwrap_or(Reason::InProgress), message)
}
