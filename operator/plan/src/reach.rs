//! May one pod talk to another? An evaluator of NetworkPolicies, as the specification has them.
//!
//! A pod that a policy selects for a direction is isolated in that direction: it may do only what some
//! policy of its namespace allows. A connection passes when the source may open it and the target may
//! take it. Policies only ever add.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crds::{Selector, label, label_selector_matches};
use serde::Deserialize;
use serde_json::Value;

/// A NetworkPolicy, as far as it decides anything.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Policy {
    metadata: Meta,
    spec: Spec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Meta {
    name: String,
    namespace: String,
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    pod_selector: Selects,
    #[serde(default)]
    policy_types: Vec<Direction>,
    #[serde(default)]
    ingress: Vec<Rule>,
    #[serde(default)]
    egress: Option<Vec<Rule>>,
}

/// A direction in which a pod may be isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Direction {
    /// Connections that others open to it.
    Ingress,
    /// Connections that it opens.
    Egress,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    /// Who may be on the other side; none at all means everybody.
    #[serde(default, alias = "from", alias = "to")]
    peers: Vec<Peer>,
    /// On which ports; none at all means on every one.
    #[serde(default)]
    ports: Vec<Ports>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    pod_selector: Option<Selects>,
    namespace_selector: Option<Selects>,
    ip_block: Option<Block>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Block {
    cidr: String,
    #[serde(default)]
    except: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ports {
    #[serde(default = "tcp")]
    protocol: String,
    port: Option<Value>,
    end_port: Option<i64>,
}

fn tcp() -> String {
    "TCP".to_owned()
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
struct Selects(Selector);

impl Selects {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        label_selector_matches(&self.0, labels)
    }
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A pod.
    Pod(Pod),
    /// An address that is no pod's.
    Address(IpAddr),
}

/// A pod, as far as policies look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name, to tell it apart from others.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Labels of its namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// Address, if it has one.
    pub address: Option<IpAddr>,
    /// Its ports by name and protocol.
    pub ports: BTreeMap<(String, String), i64>,
}

/// What is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Number.
    pub number: i64,
    /// Protocol, as in `TCP`.
    pub protocol: String,
}

/// What one side of a connection decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// It is an address, or no policy isolates it.
    Open,
    /// Both ends are the same pod, and no policy stands between.
    Itself,
    /// A policy lets it through.
    Allowed {
        /// The policy, as namespace and name.
        policy: String,
        /// The Link that it follows from, if it does.
        link: Option<String>,
    },
    /// These isolate it, and none lets it through.
    Denied(Vec<String>),
}

impl Side {
    /// Whether it lets the connection pass.
    pub fn passes(&self) -> bool {
        !matches!(self, Self::Denied(_))
    }
}

/// Whether a connection passes, and what decides so on either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the source may open.
    pub egress: Side,
    /// What the target may take.
    pub ingress: Side,
}

impl Answer {
    /// Whether the connection passes.
    pub fn passes(&self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }
}

/// Whether one end may connect to the other, by the policies of the cluster.
pub fn reach(policies: &[Policy], from: &End, to: &End, port: &Port) -> Answer {
    // What a pod says to itself leaves it by no policy.
    if from == to && matches!(from, End::Pod(_)) {
        return Answer {
            egress: Side::Itself,
            ingress: Side::Itself,
        };
    }
    Answer {
        egress: side(policies, Direction::Egress, from, to, to, port),
        ingress: side(policies, Direction::Ingress, to, from, to, port),
    }
}

/// What the policies of one end say to a connection with the other; ports are those of the target.
fn side(
    policies: &[Policy],
    direction: Direction,
    own: &End,
    other: &End,
    target: &End,
    port: &Port,
) -> Side {
    let End::Pod(pod) = own else {
        return Side::Open;
    };
    let isolating: Vec<&Policy> = policies
        .iter()
        .filter(|policy| policy.isolates(direction, pod))
        .collect();
    if isolating.is_empty() {
        return Side::Open;
    }
    let allows = |policy: &&&Policy| {
        let rules = policy.rules(direction).iter();
        let mut rules = rules.filter(|rule| rule.ports_match(target, port));
        rules.any(|rule| rule.peers_match(&policy.metadata.namespace, other))
    };
    match isolating.iter().find(allows) {
        Some(policy) => Side::Allowed {
            policy: policy.to_string(),
            link: policy.metadata.annotations.get(label::LINK).cloned(),
        },
        None => Side::Denied(isolating.iter().map(ToString::to_string).collect()),
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.metadata.namespace, self.metadata.name)
    }
}

impl Policy {
    fn isolates(&self, direction: Direction, pod: &Pod) -> bool {
        let spec = &self.spec;
        // Without types a policy is about ingress, and about egress if it says anything of it.
        let about = match direction {
            _ if !spec.policy_types.is_empty() => spec.policy_types.contains(&direction),
            Direction::Ingress => true,
            Direction::Egress => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        };
        about && self.metadata.namespace == pod.namespace && spec.pod_selector.matches(&pod.labels)
    }

    fn rules(&self, direction: Direction) -> &[Rule] {
        match direction {
            Direction::Ingress => &self.spec.ingress,
            Direction::Egress => self.spec.egress.as_deref().unwrap_or_default(),
        }
    }
}

impl Rule {
    fn peers_match(&self, home: &str, other: &End) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|peer| peer.matches(home, other))
    }

    fn ports_match(&self, target: &End, port: &Port) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|ports| ports.matches(target, port))
    }
}

impl Peer {
    fn matches(&self, home: &str, other: &End) -> bool {
        if let Some(block) = &self.ip_block {
            let address = match other {
                End::Pod(pod) => pod.address,
                End::Address(address) => Some(*address),
            };
            return address.is_some_and(|address| block.holds(address));
        }
        let End::Pod(pod) = other else { return false };
        let there = match &self.namespace_selector {
            Some(namespaces) => namespaces.matches(&pod.namespace_labels),
            None => pod.namespace == home,
        };
        let pods = self.pod_selector.as_ref();
        there && pods.is_none_or(|pods| pods.matches(&pod.labels))
    }
}

impl Block {
    fn holds(&self, address: IpAddr) -> bool {
        within(&self.cidr, address) && !self.except.iter().any(|range| within(range, address))
    }
}

/// Whether an address is in a range; what is no range holds nothing.
fn within(range: &str, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let parts = range.split_once('/');
    let parts = parts.and_then(|(base, length)| Some((base.parse().ok()?, length.parse().ok()?)));
    let Some((base, length)): Option<(IpAddr, u32)> = parts else {
        return false;
    };
    let ((base_bits, width), (own_bits, own_width)) = (bits(base), bits(address));
    let mask = match length {
        0 => 0,
        length if length <= width => u128::MAX << (128 - length),
        _ => return false,
    };
    width == own_width && base_bits & mask == own_bits & mask
}

impl Ports {
    fn matches(&self, target: &End, port: &Port) -> bool {
        if self.protocol != port.protocol {
            return false;
        }
        match &self.port {
            None => true,
            Some(Value::String(name)) => {
                let End::Pod(pod) = target else { return false };
                let named = pod.ports.get(&(name.clone(), port.protocol.clone()));
                named == Some(&port.number)
            }
            Some(number) => number.as_i64().is_some_and(|first| {
                (first..=self.end_port.unwrap_or(first)).contains(&port.number)
            }),
        }
    }
}
