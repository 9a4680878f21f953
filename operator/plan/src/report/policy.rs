//! Statuses of TrafficPolicies of Apps.

use std::collections::BTreeSet;

use crds::{
    Activation, AncestorRef, AppName, ClusterName, Condition, ConditionStatus, ConditionType,
    LimitScope, PolicyAncestorStatus, Reason, TrafficPolicySpec, TrafficPolicyStatus, Uid,
};

use super::fleet::Setter;
use crate::province::{Held, capped, objection, tier_of};
use crate::world::{Parked, PolicyKey, PolicySlot, World};

/// Who says what a hub knows of a policy, in the words of Gateway API.
pub const HUB: &str = "jiuzhou.io/hub";

/// Most names that one list in a message has: two lists of names of common length stay within the kilobyte
/// that a condition takes.
const NAMES_SHOWN: usize = 8;

/// What is to be said of one aspect of a policy.
type Said = (ConditionStatus, Reason, String);

/// The status, if it differs from the one last written. Of a policy that names no App nothing is said here.
pub(crate) fn policy_status(
    world: &World,
    key: &PolicyKey,
    slot: &PolicySlot,
    edited: &BTreeSet<&ClusterName>,
) -> Option<TrafficPolicyStatus> {
    if slot.apps.is_empty() {
        return None;
    }
    let apps: Vec<(&AppName, Said, Said)> = slot
        .apps
        .iter()
        .map(|app| {
            let accepted = accepted(world, key, slot, app);
            let programmed = programmed(world, key, slot, app, &accepted, edited);
            (app, accepted, programmed)
        })
        .collect();
    let others = slot.status.ancestors.iter();
    let mut ancestors: Vec<PolicyAncestorStatus> = others
        .filter(|other| other.controller_name != HUB)
        .cloned()
        .collect();
    ancestors.extend(apps.iter().map(|(app, accepted, programmed)| {
        let set = Setter {
            old: told_of(slot, key, app),
            generation: slot.generation,
            now: world.now,
        };
        PolicyAncestorStatus {
            ancestor_ref: reference(key, app),
            controller_name: HUB.to_owned(),
            conditions: vec![
                say(&set, ConditionType::Accepted, accepted),
                say(&set, ConditionType::Programmed, programmed),
            ],
        }
    }));
    let status = TrafficPolicyStatus {
        observed_generation: Some(slot.generation),
        leader_epoch: None,
        conditions: conditions(world, slot, &apps),
        ancestors,
    };
    let mut old = (*slot.status).clone();
    old.leader_epoch = None;
    (status != old).then_some(status)
}

fn say(set: &Setter<'_>, kind: ConditionType, (status, reason, message): &Said) -> Condition {
    set.to(kind, *status, *reason, message.clone())
}

fn reference(key: &PolicyKey, app: &AppName) -> AncestorRef {
    AncestorRef {
        group: Some(crds::GROUP.to_owned()),
        kind: Some("App".to_owned()),
        namespace: Some(key.0.to_string()),
        name: app.to_string(),
        section_name: None,
        port: None,
    }
}

/// What was said last of a policy at one App.
fn told_of<'s>(slot: &'s PolicySlot, key: &PolicyKey, app: &AppName) -> &'s [Condition] {
    let mine = reference(key, app);
    let mut told = slot.status.ancestors.iter();
    told.find(|told| told.controller_name == HUB && told.ancestor_ref == mine)
        .map_or(&[], |told| &told.conditions)
}

/// Whether a policy counts for an App.
fn accepted(world: &World, key: &PolicyKey, slot: &PolicySlot, app: &AppName) -> Said {
    use ConditionStatus::{False, True};
    let spec = match &slot.state {
        Ok(spec) => spec,
        Err(Parked { reason, message }) => {
            let message = format!("{message}. What was sent before stays as it is.");
            return (False, *reason, message);
        }
    };
    if let Some(objection) = objection(world, key, slot, app) {
        return (False, objection.reason(), objection.message(&key.0, app));
    }
    let mut notes = Vec::new();
    let (mut reason, waits) = (Reason::Accepted, spec.activation == Activation::ByEvent);
    if waits {
        reason = Reason::NoEvent;
        notes.push(
            "It waits for a PeakEvent that names it, and is in force nowhere until then."
                .to_owned(),
        );
    }
    let missing = missing(world, key, slot, spec);
    let is_missing = missing.is_some();
    notes.extend(missing);
    notes.extend(lowered(world, key, app, spec));
    if let Some(note) = of_the_province(spec).filter(|_| !waits) {
        reason = Reason::ProvinceCapNotServed;
        notes.push(note);
    }
    // Of what is to be said this is what somebody can mend; that it waits says why it is in force nowhere.
    if is_missing && !waits {
        reason = Reason::TargetNotFound;
    }
    if notes.is_empty() {
        notes.push(format!("It counts for App {app}."));
    }
    (True, reason, notes.join(" "))
}

/// Classes for which no HTTPRoute of the Apps has a rule, so that no request is ever of them. The rest counts.
fn missing(
    world: &World,
    key: &PolicyKey,
    slot: &PolicySlot,
    spec: &TrafficPolicySpec,
) -> Option<String> {
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for app in &slot.apps {
        let apps = world.apps_named(&key.0, app);
        // It may be there that the rule is.
        if apps.is_empty() {
            return None;
        }
        let rules = apps.into_iter().flat_map(|app| &app.footprint.route_rules);
        known.extend(rules.map(|name| &**name));
    }
    let classes = spec.classes.iter();
    let classes = classes.map(|class| class.section_name.as_str());
    let lost: BTreeSet<&str> = classes.filter(|name| !known.contains(name)).collect();
    let there = if known.is_empty() {
        "no rule there has a name".to_owned()
    } else {
        format!("the rules there are named {}", listed(&known))
    };
    (!lost.is_empty()).then(|| {
        format!(
            "No HTTPRoute of its Apps has a rule named {}, so that no request is of that class: correct sectionName in spec.classes, or name the rule so; {there}.",
            listed(&lost)
        )
    })
}

/// Names in order, the first of many.
fn listed(names: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_SHOWN).copied().collect();
    let more = match names.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}

/// Classes that are to matter more than their App does.
fn lowered(
    world: &World,
    key: &PolicyKey,
    app: &AppName,
    spec: &TrafficPolicySpec,
) -> Option<String> {
    let apps = world.apps_named(&key.0, app);
    let tier = apps.iter().filter_map(|app| tier_of(world, app)).max()?;
    let classes = spec.classes.iter();
    let high = classes.filter(|class| capped(class.tier, tier) != class.tier);
    let names: Vec<&str> = high.map(|class| class.section_name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "The tier of spec.classes {} is above {tier:?}, the tier of App {app}, and is taken as that.",
            names.join(", ")
        )
    })
}

/// What holds for the province as a whole.
fn of_the_province(spec: &TrafficPolicySpec) -> Option<String> {
    let notes: Vec<_> = [divided(spec), apart(spec)].into_iter().flatten().collect();
    (!notes.is_empty()).then(|| notes.join(" "))
}

/// That each cluster counts people for itself.
fn apart(spec: &TrafficPolicySpec) -> Option<String> {
    let room = spec.waiting_room.as_ref()?;
    (room.scope == LimitScope::Province).then(|| {
        format!(
            "A waitingRoom of scope Province is not one queue yet: each cluster lets in activeUsers, {}, for itself; write scope Cluster or Region, and what one cluster stands.",
            room.active_users
        )
    })
}

/// That rates are divided, and how.
fn divided(spec: &TrafficPolicySpec) -> Option<String> {
    let limits = spec.rate_limits.iter();
    let limits: Vec<_> = limits
        .filter(|limit| limit.scope == LimitScope::Province)
        .collect();
    let keyed = limits
        .iter()
        .any(|limit| limit.key.is_some() || !limit.key_parts.is_empty());
    let names: Vec<&str> = limits.iter().map(|limit| limit.name.as_str()).collect();
    let advice = if keyed {
        " The rate of each key is divided as well, and whoever comes to one cluster alone has only its share: scope Region suits keys better."
    } else {
        ""
    };
    (!names.is_empty()).then(|| {
        format!(
            "Rates of scope Province are not handed out by demand yet: {} is divided over the clusters by the replicas there.{advice}",
            names.join(", ")
        )
    })
}

/// How far a policy is enforced where an App runs.
fn programmed(
    world: &World,
    key: &PolicyKey,
    slot: &PolicySlot,
    app: &AppName,
    accepted: &Said,
    edited: &BTreeSet<&ClusterName>,
) -> Said {
    use ConditionStatus::{False, True};
    let counts = accepted.0 == True;
    if !counts || accepted.1 == Reason::NoEvent {
        let message = "It is sent to no cluster: see Accepted.".to_owned();
        return (False, accepted.1, message);
    }
    let held = Held::of(world, slot, (&key.0, app), edited);
    if held.everywhere() {
        return (True, Reason::Programmed, held.so_far());
    }
    let refused = held.refused.as_ref().map(|(_, reason, _)| *reason);
    let reason = refused.unwrap_or(Reason::InProgress);
    (False, reason, held.so_far())
}

/// What holds for all Apps together, `Ready` first.
fn conditions(world: &World, slot: &PolicySlot, apps: &[(&AppName, Said, Said)]) -> Vec<Condition> {
    use ConditionStatus::{False, True};
    use ConditionType::{Accepted, Programmed, Ready, Reconciling, Stalled};
    let set = Setter {
        old: &slot.status.conditions,
        generation: slot.generation,
        now: world.now,
    };
    if slot.deleting {
        let message = "Being deleted; clusters take it back.".to_owned();
        return vec![
            set.to(Ready, False, Reason::Deleting, message.clone()),
            set.to(Reconciling, True, Reason::Deleting, message),
        ];
    }
    let accepted = first(apps.iter().map(|(_, accepted, _)| accepted));
    let programmed = first(apps.iter().map(|(.., programmed)| programmed));
    let (Some(accepted), Some(programmed)) = (accepted, programmed) else {
        return Vec::new();
    };
    let waits = accepted.0 == True && accepted.1 == Reason::NoEvent;
    let ready = match (accepted.0, programmed.0) {
        (True, _) if waits => accepted,
        (True, _) => programmed,
        (False | ConditionStatus::Unknown, _) => accepted,
    };
    let mut all = vec![say(&set, Ready, ready)];
    if ready.0 != True {
        let coming = ready.1 == Reason::InProgress;
        let kind = if coming { Reconciling } else { Stalled };
        all.push(set.to(kind, True, ready.1, ready.2.clone()));
    }
    all.push(say(&set, Accepted, accepted));
    all.push(say(&set, Programmed, programmed));
    all
}

/// What stands in the way of one App speaks for all; where nothing does, the first App.
fn first<'s>(mut all: impl Iterator<Item = &'s Said> + Clone) -> Option<&'s Said> {
    let mut bad = all.clone();
    bad.find(|said| said.0 != ConditionStatus::True)
        .or_else(|| all.next())
}

/// A policy as `jiuzhou explain app` tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyAnswer {
    /// Its name.
    pub name: Box<str>,
    /// Whether it counts for the App, and why.
    pub accepted: (bool, Reason, String),
    /// Whether it is enforced wherever the App runs, and how far.
    pub programmed: (bool, Reason, String),
}

/// What policies there are for an App, the one that counts first.
pub fn policies_for(world: &World, uid: &Uid) -> Vec<PolicyAnswer> {
    let Some(app) = world.app(uid) else {
        return Vec::new();
    };
    let answer =
        |(status, reason, message): Said| (status == ConditionStatus::True, reason, message);
    let all = world.policies_of(&app.namespace, &app.name).into_iter();
    all.map(|(key, slot)| {
        let accepted = accepted(world, key, slot, &app.name);
        let programmed = programmed(world, key, slot, &app.name, &accepted, &BTreeSet::new());
        PolicyAnswer {
            name: key.1.clone(),
            accepted: answer(accepted),
            programmed: answer(programmed),
        }
    })
    .collect()
}
