//! TrafficPolicies: which of them counts for which rule of a route, what they say together, and what is
//! said of each.
//!
//! ```text
//! policies ─ read (targets) ─ layers (who counts where) ─ tighten, events (one spec of several)
//!                                                       └ translate ─ settings of the shield, requests, room
//!                                                       └ status
//! ```
//!
//! A limit counts over all rules that its policy covers. So what several policies say is put together only
//! where they cover exactly the same rules: otherwise a limit would be there twice, and twice as high.

mod effective;
mod events;
mod layers;
mod read;
mod requests;
mod room;
mod status;
mod tighten;
mod translate;
mod unserved;

use std::collections::BTreeMap;
use std::time::Duration;

use crds::{Reason, TrafficPolicySpec};
use shield::PolicySettings;

pub(super) use self::effective::of as effective;
pub use self::effective::{
    Asked, Effective, InForce, LayerInForce, Missing, Origin, PolicySaid, RouteRuleInForce,
    RuleInForce, Source, TargetSaid, rules_of,
};
use self::layers::Group;
use self::read::{ReadPolicy, Refused};
use self::translate::Translated;
use super::super::config::{Configuration, Rule, Tokens, WaitingRoom};
use super::Inputs;
use super::routes::ReadRoute;
use super::rules::ReadRule;

/// What the policies of a cluster come to.
pub(super) struct Protection<'a> {
    policies: Vec<ReadPolicy<'a>>,
    /// By `namespace/name` of the first policy that counts.
    pub(super) settings: BTreeMap<String, PolicySettings>,
    /// By the same name.
    tokens: BTreeMap<String, Tokens>,
    /// By the same name.
    rooms: BTreeMap<String, WaitingRoom>,
}

/// Decides which policies count where, and writes it into the rules of the routes.
pub(super) fn protect<'a>(inputs: &'a Inputs, routes: &mut [ReadRoute<'_>]) -> Protection<'a> {
    let (policies, groups) = settled(inputs, routes);
    let mut protection = Protection {
        policies,
        settings: BTreeMap::new(),
        tokens: BTreeMap::new(),
        rooms: BTreeMap::new(),
    };
    let keys = inputs.ticket_keys.known();
    for (group, translated) in groups {
        let name = translated.settings.name.clone();
        if let (Some(room), Some(keys)) = (&translated.room, keys) {
            protection.rooms.insert(name.clone(), room.with(keys));
        }
        let has_room = protection.rooms.contains_key(&name);
        for at in &group.rules {
            apply(&translated, has_room, &mut routes[at.0].read.rules[at.1]);
        }
        let tokens = translated.tokens.map(|wanted| (name.clone(), wanted));
        protection.tokens.extend(tokens);
        protection.settings.insert(name, translated.settings);
    }
    protection
}

/// Which policies count where, and what they say together there.
fn settled<'a>(
    inputs: &'a Inputs,
    routes: &[ReadRoute<'_>],
) -> (Vec<ReadPolicy<'a>>, Vec<(Group, Translated)>) {
    let mut policies = read::read(inputs, routes);
    let groups = layers::settle(&mut policies, routes);
    let groups = groups.into_iter().filter_map(|mut group| {
        let translated = together(&mut group.stack, &mut policies)?;
        Some((group, translated))
    });
    let groups = groups.collect();
    (policies, groups)
}

impl Protection<'_> {
    /// The settings that rules of a configuration refer to.
    pub(super) fn used(&self, rules: &[Rule]) -> BTreeMap<String, PolicySettings> {
        let named = rules.iter().filter_map(|rule| rule.policy.as_ref());
        named
            .filter_map(|name| Some((name.clone(), self.settings.get(name)?.clone())))
            .collect()
    }

    /// Whose tokens these settings need.
    pub(super) fn tokens(
        &self,
        used: &BTreeMap<String, PolicySettings>,
    ) -> BTreeMap<String, Tokens> {
        let tokens = self.tokens.iter();
        let used = tokens.filter(|(name, _)| used.contains_key(*name));
        used.map(|(name, tokens)| (name.clone(), tokens.clone()))
            .collect()
    }

    /// The waiting rooms before what these settings protect.
    pub(super) fn rooms(
        &self,
        used: &BTreeMap<String, PolicySettings>,
    ) -> BTreeMap<String, WaitingRoom> {
        let rooms = self.rooms.iter();
        let used = rooms.filter(|(name, _)| used.contains_key(*name));
        used.map(|(name, room)| (name.clone(), room.clone()))
            .collect()
    }

    /// All that is in a configuration because of a policy.
    pub(super) fn of(
        &self,
        name: &str,
    ) -> (
        Option<&PolicySettings>,
        Option<&Tokens>,
        Option<&WaitingRoom>,
    ) {
        let settings = self.settings.get(name);
        (settings, self.tokens.get(name), self.rooms.get(name))
    }

    /// What is said of policies that name routes.
    pub(super) fn statuses(
        &self,
        inputs: &Inputs,
        configuration: &Configuration,
    ) -> BTreeMap<super::ObjectName, crds::TrafficPolicyStatus> {
        status::all(&self.policies, inputs, configuration)
    }
}

/// What the policies of a stack say together. One that makes no sense with those below it does not count, and
/// is taken off.
fn together(stack: &mut Vec<usize>, policies: &mut [ReadPolicy<'_>]) -> Option<Translated> {
    loop {
        let first = *stack.first()?;
        let name = policies[first].name.to_string();
        let (spec, loose) = merged(stack, policies);
        match translate::settings(&name, &spec) {
            Ok(translated) => {
                if let Some((at, fields)) = loose {
                    policies[at].note(Reason::LooserIgnored, looser(&fields));
                }
                return Some(translated);
            }
            Err(fault) => {
                let last = stack.pop()?;
                let message = format!("together with TrafficPolicy {name}: {fault}");
                policies[last].refuse(&Refused::new(Reason::Invalid, message));
            }
        }
    }
}

fn looser(fields: &[String]) -> String {
    format!(
        "looser than what the hub says, which counts instead: {}; remove them here, or ask who owns the \
         policy at the hub",
        fields.join(", ")
    )
}

/// One spec of several, and what of which policy does not count in it because it would loosen another.
fn merged(
    stack: &[usize],
    policies: &[ReadPolicy<'_>],
) -> (TrafficPolicySpec, Option<(usize, Vec<String>)>) {
    let of = |is_hub: bool| {
        let layers = stack
            .iter()
            .copied()
            .filter(move |at| policies[*at].layer.is_hub() == is_hub);
        layers.fold(None, |below: Option<(usize, TrafficPolicySpec)>, at| {
            let spec = &policies[at].object.spec;
            Some(match below {
                Some((first, below)) => (first, events::over(&below, spec)),
                None => (at, spec.clone()),
            })
        })
    };
    match (of(true), of(false)) {
        (Some((_, hub)), Some((region, own))) => {
            let (spec, loose) = tighten::tighten(&hub, &own);
            (spec, (!loose.is_empty()).then_some((region, loose)))
        }
        (Some((_, spec)), None) | (None, Some((_, spec))) => (spec, None),
        (None, None) => (TrafficPolicySpec::default(), None),
    }
}

/// Puts a rule of a route under a policy.
fn apply(translated: &Translated, has_room: bool, read: &mut ReadRule) {
    let rule = &mut read.rule;
    let requests = &translated.requests;
    let shorter = |own: Option<Duration>| match (own, requests.timeout) {
        (Some(own), Some(most)) => Some(own.min(most)),
        (own, most) => own.or(most),
    };
    let name = &translated.settings.name;
    rule.policy = Some(name.clone());
    rule.room = has_room.then(|| name.clone());
    rule.retries.clone_from(&requests.retries);
    rule.class = translated.class_of(read.section.as_deref());
    rule.request_timeout = shorter(rule.request_timeout);
    // Within which an attempt has to end.
    rule.backend_timeout = rule
        .backend_timeout
        .map(|own| rule.request_timeout.map_or(own, |most| own.min(most)));
}
