//! What is said of policies.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    AncestorRef, Condition, ConditionStatus, ConditionType, PolicyAncestorStatus, Reason,
    TrafficPolicyStatus, condition, find_condition,
};

use super::super::{CONTROLLER, Inputs, ObjectName};
use super::read::{ReadPolicy, Refused, Target};
use crate::guard::config::Configuration;

/// As many as the API allows in the status of a policy, those of others included.
const ANCESTORS_MAX: usize = 16;

/// What is served, and by whom.
struct Served<'a> {
    routes: BTreeSet<&'a str>,
    /// Whether every guard has it.
    is_acknowledged: bool,
}

/// What is said of every policy that names routes.
pub(super) fn all(
    policies: &[ReadPolicy<'_>],
    inputs: &Inputs,
    configuration: &Configuration,
) -> BTreeMap<ObjectName, TrafficPolicyStatus> {
    let rules = configuration.rules.iter();
    let served = Served {
        routes: rules.map(|rule| rule.route.as_str()).collect(),
        is_acknowledged: inputs.acknowledged.covers(&configuration.revision),
    };
    policies
        .iter()
        .map(|policy| (policy.name.clone(), one(policy, &served, inputs)))
        .collect()
}

fn one(policy: &ReadPolicy<'_>, served: &Served<'_>, inputs: &Inputs) -> TrafficPolicyStatus {
    let old = policy.object.status.as_ref();
    let before = old.map_or(&[][..], |status| &status.ancestors);
    let (ours, mut ancestors): (Vec<_>, Vec<_>) = before
        .iter()
        .cloned()
        .partition(|ancestor| ancestor.controller_name == CONTROLLER);
    let mut said = Vec::new();
    let mut named = BTreeSet::new();
    for target in &policy.targets {
        let ancestor_ref = ancestor(target);
        if !named.insert(ancestor_ref.clone()) {
            continue;
        }
        let known = ours.iter().find(|known| known.ancestor_ref == ancestor_ref);
        let before = known.map_or(&[][..], |known| &known.conditions);
        let accepted = accepted(policy, target);
        let programmed = programmed(policy, target, served, before);
        let setter = Setter::new(policy, before, inputs);
        let conditions = vec![
            setter.to(ConditionType::Accepted, &accepted),
            setter.to(ConditionType::Programmed, &programmed),
        ];
        said.push((accepted, programmed));
        ancestors.push(PolicyAncestorStatus {
            ancestor_ref,
            controller_name: CONTROLLER.to_owned(),
            conditions,
        });
    }
    ancestors.truncate(ANCESTORS_MAX);
    let before = old.map_or(&[][..], |status| &status.conditions);
    TrafficPolicyStatus {
        observed_generation: policy.object.metadata.generation,
        leader_epoch: None,
        conditions: summary(&said, &Setter::new(policy, before, inputs)),
        ancestors,
    }
}

/// A condition to be, without its type and time.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) status: ConditionStatus,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Said {
    fn new(status: ConditionStatus, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            message: message.into(),
        }
    }
}

/// Gives conditions their time.
struct Setter<'a> {
    before: &'a [Condition],
    generation: i64,
    now: crds::Timestamp,
}

impl<'a> Setter<'a> {
    fn new(policy: &ReadPolicy<'_>, before: &'a [Condition], inputs: &Inputs) -> Self {
        Self {
            before,
            generation: policy.object.metadata.generation.unwrap_or(0),
            now: crds::Timestamp::from_millis(inputs.now.as_millisecond()),
        }
    }

    fn to(&self, kind: ConditionType, said: &Said) -> Condition {
        let Said {
            status,
            reason,
            message,
        } = said;
        condition(
            self.before,
            kind,
            *status,
            *reason,
            message,
            self.generation,
            self.now,
        )
    }
}

/// The target itself. The API would have the Gateways where a policy has a result at each of them; here the
/// result is that of the target, whatever leads to it.
fn ancestor(target: &Target<'_>) -> AncestorRef {
    AncestorRef {
        group: Some(target.named.group.clone()),
        kind: Some(target.named.kind.clone()),
        namespace: None,
        name: target.named.name.clone(),
        section_name: target.named.section_name.clone(),
        port: None,
    }
}

/// Whether a policy counts at a target, and what of it does not.
pub(super) fn accepted(policy: &ReadPolicy<'_>, target: &Target<'_>) -> Said {
    let name = &policy.name;
    if let Some(Refused { reason, message }) = &target.refused {
        let message = format!("TrafficPolicy {name}: {message}");
        return Said::new(ConditionStatus::False, *reason, message);
    }
    let notes: Vec<&str> = policy
        .notes
        .iter()
        .map(|note| note.message.as_str())
        .collect();
    let notes = if notes.is_empty() {
        String::new()
    } else {
        format!("TrafficPolicy {name}: {}", notes.join("; "))
    };
    if !policy.is_on {
        let message = "It counts while a PeakEvent is on whose protection names it; none is.";
        let notes = if notes.is_empty() {
            notes
        } else {
            format!(" {notes}")
        };
        return Said::new(
            ConditionStatus::True,
            Reason::NoEvent,
            format!("{message}{notes}"),
        );
    }
    let reason = policy
        .notes
        .first()
        .map_or(Reason::Accepted, |note| note.reason);
    Said::new(ConditionStatus::True, reason, notes)
}

fn programmed(
    policy: &ReadPolicy<'_>,
    target: &Target<'_>,
    served: &Served<'_>,
    before: &[Condition],
) -> Said {
    let name = &policy.name;
    let no = |reason, message: &str| {
        let message = format!("TrafficPolicy {name}: {message}");
        Said::new(ConditionStatus::False, reason, message)
    };
    if let Some(Refused { reason, .. }) = &target.refused {
        return no(*reason, "not accepted; see the condition Accepted");
    }
    if !policy.is_on {
        return no(Reason::NoEvent, "not in force; see the condition Accepted");
    }
    if policy
        .notes
        .iter()
        .any(|note| note.reason == Reason::NotServed)
    {
        return no(
            Reason::NotServed,
            "only a part of it is enforced; see the condition Accepted",
        );
    }
    let route = ObjectName::new(&name.namespace, &target.named.name).to_string();
    if !served.routes.contains(route.as_str()) {
        return Said::new(
            ConditionStatus::Unknown,
            Reason::Pending,
            format!(
                "TrafficPolicy {name}: no Gateway of the guard serves HTTPRoute {route}; see the status of \
                 the HTTPRoute"
            ),
        );
    }
    if served.is_acknowledged || was_programmed(policy, before) {
        return Said::new(ConditionStatus::True, Reason::Programmed, "");
    }
    Said::new(
        ConditionStatus::Unknown,
        Reason::Pending,
        format!(
            "TrafficPolicy {name}: not every guard that is ready enforces it yet; see the logs of guard \
             control where this stays"
        ),
    )
}

/// Whether this generation was enforced once. An endpoint that comes or goes makes another revision, and is
/// no reason to take back what was said.
fn was_programmed(policy: &ReadPolicy<'_>, before: &[Condition]) -> bool {
    find_condition(before, ConditionType::Programmed).is_some_and(|said| {
        said.status == ConditionStatus::True
            && said.observed_generation == policy.object.metadata.generation
    })
}

/// What holds over all targets.
fn summary(said: &[(Said, Said)], setter: &Setter<'_>) -> Vec<Condition> {
    let accepted = worst(said.iter().map(|(accepted, _)| accepted));
    let programmed = worst(said.iter().map(|(_, programmed)| programmed));
    let is_waiting = accepted.status == ConditionStatus::True
        && (programmed.reason == Reason::NoEvent || programmed.status == ConditionStatus::Unknown);
    let mut conditions = Vec::new();
    let ready = match (accepted.status, programmed.status) {
        (ConditionStatus::True, ConditionStatus::True) => Said::new(
            ConditionStatus::True,
            Reason::AsExpected,
            &*accepted.message,
        ),
        (ConditionStatus::True, _) if programmed.reason == Reason::NoEvent => {
            Said::new(ConditionStatus::True, Reason::NoEvent, &*accepted.message)
        }
        (ConditionStatus::True, _) => programmed.clone(),
        (ConditionStatus::False | ConditionStatus::Unknown, _) => accepted.clone(),
    };
    conditions.push(setter.to(ConditionType::Ready, &ready));
    if ready.status != ConditionStatus::True {
        let kind = if is_waiting {
            ConditionType::Reconciling
        } else {
            ConditionType::Stalled
        };
        let alarm = Said {
            status: ConditionStatus::True,
            ..ready
        };
        conditions.push(setter.to(kind, &alarm));
    }
    conditions.push(setter.to(ConditionType::Accepted, &accepted));
    conditions.push(setter.to(ConditionType::Programmed, &programmed));
    conditions
}

/// The first that does not hold, else the first that is not known, else the first; and how many are like it.
fn worst<'a>(said: impl Iterator<Item = &'a Said> + Clone) -> Said {
    let rank = |said: &&Said| match said.status {
        ConditionStatus::False => 0,
        ConditionStatus::Unknown => 1,
        ConditionStatus::True => 2,
    };
    let Some(worst) = said.clone().min_by_key(rank) else {
        return Said::new(ConditionStatus::Unknown, Reason::Pending, "");
    };
    let alike = said.filter(|other| other.status == worst.status).count();
    let mut worst = worst.clone();
    if worst.status != ConditionStatus::True && alike > 1 {
        worst.message = format!(
            "{} (so it is at {alike} targets; see status.ancestors)",
            worst.message
        );
    }
    worst
}
