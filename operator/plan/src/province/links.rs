//! Step: links. Which declared paths between namespaces are in force, and the policies that follow.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    AppName, ApprovalDecision, ContentHash, DataGrade, LinkPort, LinkSpec, NamespaceName, Reason,
    SYSTEM_NAMESPACE, Timestamp, Uid, Zone, label,
};
use serde_json::{Value, json};

use super::tenants::Tenants;
use crate::content::{hash_of, stored_bytes};
use crate::world::{LinkKey, LinkSlot, Parked, World};

/// What an Approval of a Link between zones calls its step.
const STEP: &str = "cross-zone";

/// Most bytes of policies that Links add to one namespace, well below what one content may have.
const POLICY_BYTES_MAX: usize = 600_000;

/// Links, as decisions see them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Links {
    /// Whether each is in force, and if not, why.
    pub verdicts: BTreeMap<LinkKey, Result<(), Parked>>,
    /// What an Approval of each approves.
    pub(crate) hashes: BTreeMap<LinkKey, ContentHash>,
    /// Policies of each namespace that follow from those that are.
    pub(crate) policies: BTreeMap<NamespaceName, Vec<Value>>,
    /// How large they are as they are stored.
    bytes: BTreeMap<NamespaceName, usize>,
    /// When something ends by itself, in milliseconds since the Unix epoch.
    pub(crate) ends: Option<i64>,
}

impl Links {
    /// All Links, and what follows from them.
    pub(crate) fn of(world: &World, tenants: &Tenants) -> Self {
        let mut links = Self::default();
        // The oldest first, so that a new one takes nothing from those that stand.
        let mut all: Vec<(&LinkKey, &LinkSlot)> = world.links.iter().collect();
        all.sort_by_key(|(key, slot)| (slot.created, *key));
        for (key, slot) in all {
            let sides = slot.state.as_ref().ok();
            let sides = sides.map(|spec| Sides::of(world, tenants, &key.0, spec));
            let hash = approved_hash(slot, sides.as_ref());
            let verdict = judge(world, key, slot, sides.as_ref(), &hash, &mut links.ends);
            links.hashes.insert(key.clone(), hash);
            let verdict = verdict.and_then(|until| {
                let spec = slot.state.as_ref().map_err(Clone::clone)?;
                links.open(key, spec, until)
            });
            links.verdicts.insert(key.clone(), verdict);
        }
        links
    }

    /// The policies of the two sides. A selector that matches nothing in a cluster opens nothing there.
    fn open(
        &mut self,
        (home, name): &LinkKey,
        spec: &LinkSpec,
        until: Timestamp,
    ) -> Result<(), Parked> {
        if spec.to.namespace == *home {
            // Apps of one namespace reach each other anyway.
            return Ok(());
        }
        let ports: Vec<Value> = spec.to.ports.iter().map(port).collect();
        let from = json!({"matchExpressions": [
            {"key": label::APP, "operator": "In", "values": spec.from.app_names},
        ]});
        let to = json!({"matchLabels": {label::APP: spec.to.app_name}});
        let (mut sources, mut targets) =
            (vec![peer(home, &from)], vec![peer(&spec.to.namespace, &to)]);
        sources.extend(spec.from.addresses.iter().map(block));
        targets.extend(spec.to.addresses.iter().map(block));
        let note = json!({
            label::LINK: format!("{home}/{name}"), label::NOT_AFTER: until.to_string(),
        });
        let policy = |name: String, spec: Value| {
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": name, "annotations": note}, "spec": spec,
            })
        };
        let egress = policy(
            format!("jiuzhou-link-to.{name}"),
            json!({
                "podSelector": from, "policyTypes": ["Egress"], "ingress": [],
                "egress": [{"to": targets, "ports": ports}],
            }),
        );
        let ingress = policy(
            format!("jiuzhou-link-from.{home}.{name}"),
            json!({
                "podSelector": to, "policyTypes": ["Ingress"], "egress": [],
                "ingress": [{"from": sources, "ports": ports}],
            }),
        );
        let sides = [(home, egress), (&spec.to.namespace, ingress)];
        for (namespace, policy) in &sides {
            let used = self.bytes.get(*namespace).copied().unwrap_or(0);
            if used + stored_bytes(&policy.to_string()) > POLICY_BYTES_MAX {
                let message = format!(
                    "namespace {namespace} has as many Links as its isolation can hold: delete some, or name several Apps in one"
                );
                return Err(Parked::new(Reason::TooLarge, message));
            }
        }
        for (namespace, policy) in sides {
            let used = self.bytes.entry(namespace.clone()).or_default();
            *used += stored_bytes(&policy.to_string());
            self.policies
                .entry(namespace.clone())
                .or_default()
                .push(policy);
        }
        Ok(())
    }

    /// Namespaces for which other policies follow than before.
    pub(crate) fn differences(&self, before: &Self) -> BTreeSet<NamespaceName> {
        let names = self.policies.keys().chain(before.policies.keys());
        let differs =
            |name: &&NamespaceName| self.policies.get(*name) != before.policies.get(*name);
        names.filter(differs).cloned().collect()
    }
}

fn port(port: &LinkPort) -> Value {
    let mut one = json!({"port": port.port, "protocol": format!("{:?}", port.protocol)});
    if let Some(end) = port.end_port {
        one["endPort"] = json!(end);
    }
    one
}

fn peer(namespace: &NamespaceName, pods: &Value) -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": pods,
    })
}

fn block(range: &String) -> Value {
    json!({"ipBlock": {"cidr": range}})
}

/// Until when a Link is in force, or why it is not.
fn judge(
    world: &World,
    key: &LinkKey,
    slot: &LinkSlot,
    sides: Option<&Sides>,
    hash: &ContentHash,
    ends: &mut Option<i64>,
) -> Result<Timestamp, Parked> {
    let spec = slot.state.as_ref().map_err(Clone::clone)?;
    if spec.expires.millis() <= world.now {
        let message = format!(
            "spec.expires {} is past: set a later end, or delete the Link",
            spec.expires
        );
        return Err(Parked::new(Reason::Expired, message));
    }
    sooner(ends, spec.expires);
    // First, so that nobody learns from a Link which Apps somebody else has.
    granted(world, &key.0, spec)?;
    let crosses = match sides {
        Some(sides) => sides.cross(spec)?,
        None => true,
    };
    if crosses {
        let until = approved(world, key, slot, hash, ends)?;
        return Ok(until.min(spec.expires));
    }
    Ok(spec.expires)
}

/// The Apps at both ends, as far as they are there.
struct Sides {
    from: Vec<(AppName, Option<Face>)>,
    to: Option<Face>,
}

/// What of an App a Link is judged by.
struct Face {
    uid: Uid,
    zone: Zone,
    grade: DataGrade,
}

impl Sides {
    fn of(world: &World, tenants: &Tenants, home: &NamespaceName, spec: &LinkSpec) -> Self {
        // A tenant may write any grade on an App; what it may have counts.
        let most = tenants
            .owner(home)
            .map_or(DataGrade::Core, |view| view.limits.grade);
        let source = |name: &AppName| {
            let face = Face::of(world, home, name);
            face.map(|face| Face {
                grade: face.grade.min(most),
                ..face
            })
        };
        let names = spec.from.app_names.iter();
        Self {
            from: names.map(|name| (name.clone(), source(name))).collect(),
            to: Face::of(world, &spec.to.namespace, &spec.to.app_name),
        }
    }

    /// Whether somebody else has to agree: to another zone, and to addresses, of which nobody here knows
    /// whose they are.
    fn cross(&self, spec: &LinkSpec) -> Result<bool, Parked> {
        let (target, name) = (&spec.to.namespace, &spec.to.app_name);
        let to = self.to.as_ref();
        let to =
            to.ok_or_else(|| missing(&format!("spec.to names App {name} of namespace {target}")))?;
        let mut crosses = !spec.from.addresses.is_empty() || !spec.to.addresses.is_empty();
        for (source, from) in &self.from {
            let from = from.as_ref();
            let from =
                from.ok_or_else(|| missing(&format!("spec.from.appNames names App {source}")))?;
            if from.grade < to.grade {
                let message = format!(
                    "App {source} of data grade {:?} would reach App {name} of {:?}: raise its spec.dataGrade as far as its tenant may, or take it out of spec.from.appNames",
                    from.grade, to.grade
                );
                return Err(Parked::new(Reason::GradeExceeded, message));
            }
            crosses |= from.zone != to.zone;
        }
        Ok(crosses)
    }
}

impl Face {
    /// The face of an App, whether or not it is parked.
    fn of(world: &World, namespace: &NamespaceName, name: &AppName) -> Option<Self> {
        let all = world.apps_named(namespace, name).into_iter();
        let newest = all.max_by_key(|slot| (slot.life.is_alive(), slot.created))?;
        Some(Self {
            uid: newest.uid.clone(),
            zone: newest.zone,
            grade: newest.grade,
        })
    }

    fn said(&self) -> String {
        format!("{} {:?} {:?}", self.uid, self.zone, self.grade)
    }
}

/// What an Approval approves: the Link as it is, and the Apps as they are. One that moves to another zone
/// or is made anew needs another yes.
fn approved_hash(slot: &LinkSlot, sides: Option<&Sides>) -> ContentHash {
    let Some(sides) = sides else {
        return slot.hash.clone();
    };
    let faces = sides.from.iter().map(|(_, face)| face.as_ref());
    let faces = faces.chain([sides.to.as_ref()]);
    let faces = faces.map(|face| face.map_or_else(String::new, Face::said));
    let all = std::iter::once(slot.hash.to_string()).chain(faces);
    hash_of(all.collect::<Vec<_>>().join("\n").as_bytes())
}

/// Takes in that something ends by itself then.
fn sooner(ends: &mut Option<i64>, at: Timestamp) {
    *ends = Some(ends.map_or(at.millis(), |ends| ends.min(at.millis())));
}

fn missing(what: &str) -> Parked {
    let message = format!("{what}, which is not there: create it, or correct the name");
    Parked::new(Reason::AppMissing, message)
}

fn granted(world: &World, home: &NamespaceName, spec: &LinkSpec) -> Result<(), Parked> {
    let target = &spec.to.namespace;
    let mut grants = world.link_grants_of(target);
    let consents = |grant: &crds::LinkGrantSpec| {
        grant.from.iter().any(|from| from.namespace == *home)
            && grant.to.iter().any(|to| to.app_name == spec.to.app_name)
    };
    if target == home || grants.any(consents) {
        return Ok(());
    }
    let message = format!(
        "namespace {target} has no LinkGrant from namespace {home} to App {}: whoever runs {target} creates one",
        spec.to.app_name
    );
    Err(Parked::new(Reason::GrantMissing, message))
}

/// Until when a Link that crosses a border is approved, by somebody who had no hand in it.
fn approved(
    world: &World,
    (home, name): &LinkKey,
    slot: &LinkSlot,
    hash: &ContentHash,
    ends: &mut Option<i64>,
) -> Result<Timestamp, Parked> {
    let system = NamespaceName::from(SYSTEM_NAMESPACE);
    let (mut until, mut own) = (None, None);
    for approval in world.approvals_in(&system) {
        let spec = &approval.spec;
        let fits = spec.target.kind == "Link"
            && spec.target.namespace.as_ref() == Some(home)
            && spec.target.name == **name
            && spec.step == STEP
            && spec.content_hash == *hash
            && spec.expires.millis() > world.now;
        if !fits {
            continue;
        }
        sooner(ends, spec.expires);
        if spec.decision == ApprovalDecision::Reject {
            let message = format!("{} rejected it: {}", spec.approver, reason(approval));
            return Err(Parked::new(Reason::ApprovalRejected, message));
        }
        let by = spec.approver.as_str();
        let theirs = slot
            .authors
            .as_ref()
            .is_none_or(|authors| authors.contains(by));
        if theirs {
            own = Some(by.to_owned());
        } else {
            until = until.max(Some(spec.expires));
        }
    }
    until.ok_or_else(|| {
        let hint = own.map_or_else(String::new, |by| {
            format!("; that of {by} does not count, who had a hand in the Link")
        });
        let message = format!(
            "it crosses zones or names addresses, and waits for an Approval in namespace {SYSTEM_NAMESPACE} with target kind Link, namespace {home}, name {name}, step {STEP}, contentHash {hash}{hint}"
        );
        Parked::new(Reason::ApprovalRequired, message)
    })
}

fn reason(approval: &crds::Approval) -> &str {
    approval.spec.reason.as_deref().unwrap_or("no reason given")
}
