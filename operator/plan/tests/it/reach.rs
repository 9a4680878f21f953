//! Who may talk to whom: the evaluator against a second, simpler one, and against what is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use plan::baseline::Baseline;
use plan::reach::{End, Pod, Policy, Port, Side, reach};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    owned.collect()
}

fn pod(namespace: &str, name: &str, address: &str) -> Pod {
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: labels(&[("jiuzhou.io/app", name)]),
        namespace_labels: labels(&[("kubernetes.io/metadata.name", namespace)]),
        address: Some(address.parse().unwrap()),
        ports: BTreeMap::from([(("web".to_owned(), "TCP".to_owned()), 8443)]),
    }
}

fn port(number: i64) -> Port {
    Port {
        number,
        protocol: "TCP".to_owned(),
    }
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Policy {
    let policy = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
    serde_json::from_value(policy).unwrap()
}

/// The ends of a small world: two pods in each of two namespaces, and two addresses outside.
fn ends() -> Vec<End> {
    let address = |text: &str| End::Address(text.parse::<IpAddr>().unwrap());
    vec![
        End::Pod(pod("health", "web", "10.0.1.1")),
        End::Pod(pod("health", "db", "10.0.1.2")),
        End::Pod(pod("police", "web", "10.0.2.1")),
        End::Pod(pod("police", "sso", "10.0.2.2")),
        address("192.0.2.1"),
        address("192.0.2.77"),
    ]
}

const PORTS: [i64; 4] = [80, 443, 8443, 9000];

/// The second evaluator. It makes no decision about a connection: it writes down all that every policy
/// allows, one by one, and looks whether the connection is among them.
struct Table {
    isolated: BTreeSet<(&'static str, usize)>,
    allowed: BTreeSet<(&'static str, usize, usize, i64)>,
}

impl Table {
    fn of(policies: &[Value]) -> Self {
        let (mut isolated, mut allowed) = (BTreeSet::new(), BTreeSet::new());
        let ends = ends();
        for policy in policies {
            let spec = &policy["spec"];
            for (direction, field, key) in [("in", "ingress", "from"), ("out", "egress", "to")] {
                let types = spec["policyTypes"].as_array();
                let about = match types {
                    Some(types) => types
                        .iter()
                        .any(|t| t.as_str().unwrap().to_lowercase() == field),
                    None => {
                        direction == "in"
                            || spec["egress"].as_array().is_some_and(|r| !r.is_empty())
                    }
                };
                for (own, end) in ends.iter().enumerate() {
                    let End::Pod(pod) = end else { continue };
                    let mine = policy["metadata"]["namespace"] == pod.namespace.as_str();
                    if !about || !mine || !selected(&spec["podSelector"], &pod.labels) {
                        continue;
                    }
                    isolated.insert((direction, own));
                    for rule in spec[field].as_array().into_iter().flatten() {
                        for (other, there) in ends.iter().enumerate() {
                            for number in PORTS {
                                let target = if direction == "in" { end } else { there };
                                let peers = rule[key].as_array().filter(|peers| !peers.is_empty());
                                let meets = peers.is_none_or(|peers| {
                                    peers.iter().any(|peer| meets(peer, &pod.namespace, there))
                                });
                                let opens = rule["ports"].as_array().filter(|p| !p.is_empty());
                                let opens = opens.is_none_or(|ports| {
                                    ports.iter().any(|ports| opens_port(ports, target, number))
                                });
                                if meets && opens {
                                    allowed.insert((direction, own, other, number));
                                }
                            }
                        }
                    }
                }
            }
        }
        Self { isolated, allowed }
    }

    fn passes(&self, from: usize, to: usize, number: i64) -> bool {
        let side = |direction, own, other| {
            !self.isolated.contains(&(direction, own))
                || self.allowed.contains(&(direction, own, other, number))
        };
        let itself = from == to && matches!(ends()[from], End::Pod(_));
        itself || (side("out", from, to) && side("in", to, from))
    }
}

fn selected(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut equal = equal.map(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
    let terms = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    let mut terms = terms.map(|term| {
        let value = labels.get(term["key"].as_str().unwrap());
        let values = term["values"].as_array().cloned().unwrap_or_default();
        let listed = value.is_some_and(|value| values.contains(&json!(value)));
        match term["operator"].as_str().unwrap() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    });
    equal.all(|holds| holds) && terms.all(|holds| holds)
}

fn meets(peer: &Value, home: &str, end: &End) -> bool {
    if let Some(block) = peer.get("ipBlock") {
        let address = match end {
            End::Pod(pod) => pod.address.unwrap(),
            End::Address(address) => *address,
        };
        // Ranges of the small world end at whole numbers, so that text tells what is inside.
        let inside = |range: &Value| {
            let (base, length) = range.as_str().unwrap().split_once('/').unwrap();
            let keep = length.parse::<usize>().unwrap() / 8;
            let head = |text: String| text.split('.').take(keep).collect::<Vec<_>>().join(".");
            head(base.to_owned()) == head(address.to_string())
        };
        let except = block["except"].as_array().into_iter().flatten();
        return inside(&block["cidr"]) && !except.clone().any(inside);
    }
    let End::Pod(pod) = end else { return false };
    let there = match peer.get("namespaceSelector") {
        Some(selector) => selected(selector, &pod.namespace_labels),
        None => pod.namespace == home,
    };
    there
        && peer
            .get("podSelector")
            .is_none_or(|s| selected(s, &pod.labels))
}

fn opens_port(ports: &Value, target: &End, number: i64) -> bool {
    if ports["protocol"].as_str().is_some_and(|p| p != "TCP") {
        return false;
    }
    let first = &ports["port"];
    if let Some(name) = first.as_str() {
        return matches!(target, End::Pod(_)) && name == "web" && number == 8443;
    }
    first.as_i64().is_none_or(|first| {
        let last = ports["endPort"].as_i64().unwrap_or(first);
        number >= first && number <= last
    })
}

fn selector() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"matchLabels": {"jiuzhou.io/app": "web"}}),
        json!({"matchLabels": {"jiuzhou.io/app": "sso"}}),
        json!({"matchExpressions": [{"key": "jiuzhou.io/app", "operator": "In", "values": ["db", "sso"]}]}),
        json!({"matchExpressions": [{"key": "jiuzhou.io/app", "operator": "NotIn", "values": ["web"]}]}),
        json!({"matchExpressions": [{"key": "jiuzhou.io/app", "operator": "Exists"}]}),
        json!({"matchExpressions": [{"key": "absent", "operator": "DoesNotExist"}]}),
    ])
}

fn namespaces() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"matchLabels": {"kubernetes.io/metadata.name": "health"}}),
        json!({"matchLabels": {"kubernetes.io/metadata.name": "police"}}),
    ])
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        namespaces().prop_map(|all| json!({"namespaceSelector": all})),
        (selector(), namespaces())
            .prop_map(|(pods, all)| json!({"podSelector": pods, "namespaceSelector": all})),
        select(vec![
            json!({"ipBlock": {"cidr": "192.0.2.0/24"}}),
            json!({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.77/32"]}}),
            json!({"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.2.0/24"]}}),
        ]),
    ]
}

fn ports() -> impl Strategy<Value = Value> {
    select(vec![
        json!({"port": 443}),
        json!({"port": "web"}),
        json!({"port": 80, "endPort": 443, "protocol": "TCP"}),
        json!({"protocol": "TCP"}),
        json!({"port": 443, "protocol": "UDP"}),
        json!({"port": 8000, "endPort": 9000}),
    ])
}

fn rules(key: &'static str) -> impl Strategy<Value = Value> {
    let rule = (
        prop::collection::vec(peer(), 0..3),
        prop::collection::vec(ports(), 0..2),
    );
    let rule = rule.prop_map(move |(peers, ports)| json!({key: peers, "ports": ports}));
    prop::collection::vec(rule, 0..3).prop_map(Value::from)
}

fn any_policy() -> impl Strategy<Value = Value> {
    let types = select(vec![
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
        Value::Null,
    ]);
    let namespace = select(vec!["health", "police"]);
    (namespace, selector(), types, rules("from"), rules("to")).prop_map(
        |(namespace, pods, types, ingress, egress)| {
            let mut spec = json!({"podSelector": pods, "ingress": ingress, "egress": egress});
            if !types.is_null() {
                spec["policyTypes"] = types;
            }
            json!({"metadata": {"name": "p", "namespace": namespace}, "spec": spec})
        },
    )
}

proptest! {
    #[test]
    fn it_decides_as_a_table_of_all_that_is_allowed(
        written in prop::collection::vec(any_policy(), 0..6),
    ) {
        let policies: Vec<Policy> = written
            .iter()
            .map(|policy| serde_json::from_value(policy.clone()).unwrap())
            .collect();
        let (table, ends) = (Table::of(&written), ends());
        for (from, source) in ends.iter().enumerate() {
            for (to, target) in ends.iter().enumerate() {
                for number in PORTS {
                    let answer = reach(&policies, source, target, &port(number));
                    prop_assert_eq!(
                        answer.passes(), table.passes(from, to, number),
                        "{:?} to {:?} on {}: {:?}", source, target, number, answer
                    );
                }
            }
        }
    }
}

/// The policies of a baseline in both namespaces.
fn baseline(more: &[Policy]) -> Vec<Policy> {
    let mut all = more.to_vec();
    for namespace in ["health", "police"] {
        for mut manifest in Baseline::default().content().manifests.split_off(1) {
            manifest["metadata"]["namespace"] = json!(namespace);
            all.push(serde_json::from_value(manifest).unwrap());
        }
    }
    all
}

fn passes(policies: &[Policy], from: usize, to: usize, number: i64) -> bool {
    let ends = ends();
    reach(policies, &ends[from], &ends[to], &port(number)).passes()
}

#[test]
fn behind_the_default_walls_only_neighbours_talk() {
    let walls = baseline(&[]);
    assert!(passes(&walls, 0, 1, 9000), "of one namespace");
    for (from, to) in [(0, 2), (0, 3), (3, 0), (0, 4), (4, 0), (5, 3)] {
        assert!(!passes(&walls, from, to, 443), "{from} to {to}");
    }
    let ends = ends();
    let answer = reach(&walls, &ends[0], &ends[3], &port(443));
    let Side::Denied(by) = answer.egress else {
        panic!("{answer:?}");
    };
    assert!(
        by.contains(&"health/jiuzhou-default-deny".to_owned()),
        "{by:?}"
    );
}

#[test]
fn one_side_alone_opens_nothing() {
    let to = json!([{"to": [{"namespaceSelector": {}}]}]);
    let out = policy(
        "health",
        "out",
        &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": to}),
    );
    assert!(!passes(&baseline(std::slice::from_ref(&out)), 0, 3, 443));
    let from = json!([{"from": [{"namespaceSelector": {}}], "ports": [{"port": 443}]}]);
    let into = policy("police", "in", &json!({"podSelector": {}, "ingress": from}));
    assert!(!passes(&baseline(std::slice::from_ref(&into)), 0, 3, 443));
    let both = baseline(&[out, into]);
    assert!(passes(&both, 0, 3, 443));
    assert!(!passes(&both, 0, 3, 80), "on its port alone");
    assert!(!passes(&both, 3, 0, 443), "in its direction alone");
}

#[test]
fn guard_and_dns_pass_the_default_walls() {
    let walls = baseline(&[]);
    let mut dns = pod("kube-system", "coredns", "10.0.9.1");
    dns.ports.clear();
    let guard = Pod {
        labels: labels(&[("app.kubernetes.io/name", "jiuzhou-guard")]),
        ..pod("jiuzhou-guard", "guard", "10.0.9.2")
    };
    let web = &ends()[0];
    let udp = Port {
        number: 53,
        protocol: "UDP".to_owned(),
    };
    assert!(reach(&walls, web, &End::Pod(dns.clone()), &udp).passes());
    assert!(!reach(&walls, web, &End::Pod(dns), &port(443)).passes());
    assert!(reach(&walls, &End::Pod(guard.clone()), web, &port(8443)).passes());
    let other = Pod {
        labels: labels(&[("app.kubernetes.io/name", "other")]),
        ..guard
    };
    assert!(!reach(&walls, &End::Pod(other), web, &port(8443)).passes());
}
