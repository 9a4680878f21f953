//! Pairs of objects and what they compile to, and what holds for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Acknowledged, Inputs, ObjectName, Sharing, TicketKeys, compile, within};
use crate::guard::config::{Configuration, PathMatch, TicketKey};
use crate::guard::exchange::Partly;
use crate::guard::gateway::{HttpRoute, ReferenceGrant, ReferenceGrantBeta};

/// What every pair has besides its own objects.
const COMMON: &str = include_str!("testdata/common.yaml");

/// Orders that a set of objects is tried in.
const SHUFFLES: u64 = 8;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guard/compile/testdata")
}

pub(super) fn pairs() -> Vec<PathBuf> {
    let mut pairs: Vec<PathBuf> = fs::read_dir(testdata())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".in.yaml"))
        .collect();
    pairs.sort();
    pairs
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

/// The objects of a pair, and the common ones that it does not replace.
pub(super) fn objects(own: &str) -> Vec<Value> {
    let key = |object: &Value| {
        let metadata = &object["metadata"];
        [&object["kind"], &metadata["namespace"], &metadata["name"]].map(Value::to_string)
    };
    let mut objects: BTreeMap<[String; 3], Value> = BTreeMap::new();
    for object in documents(COMMON).into_iter().chain(documents(own)) {
        objects.insert(key(&object), object);
    }
    objects.into_values().collect()
}

fn typed<T: DeserializeOwned>(object: &Value) -> Arc<T> {
    Arc::new(serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{e}: {object}")))
}

pub(super) fn inputs(objects: &[Value]) -> Inputs {
    let mut inputs = Inputs {
        now: "2026-05-01T08:00:00Z".parse().unwrap(),
        bundle_version: Some("v1.6.0".into()),
        ticket_keys: TicketKeys::Known(vec![TicketKey {
            id: 1,
            secret: "hidden".into(),
        }]),
        ..Inputs::default()
    };
    inputs.addresses =
        serde_json::from_value(json!([{"type": "IPAddress", "value": "192.0.2.1"}])).unwrap();
    for object in objects {
        match object["kind"].as_str().unwrap() {
            "Settings" => settings(&mut inputs, object),
            "GatewayClass" => inputs.gateway_classes.push(typed(object)),
            "Gateway" => inputs.gateways.push(typed(object)),
            "TrafficPolicy" => inputs.traffic_policies.push(typed(object)),
            "HTTPRoute" => inputs.http_routes.push(typed(object)),
            "ReferenceGrant" => inputs.reference_grants.push(grant(object)),
            "Namespace" => inputs.namespaces.push(typed(object)),
            "Service" => inputs.services.push(typed(object)),
            "EndpointSlice" => inputs.endpoint_slices.push(typed(object)),
            "Secret" => inputs.secrets.push(typed(object)),
            other => panic!("no such kind: {other}"),
        }
    }
    inputs
}

/// What is no object, but belongs to the inputs.
fn settings(inputs: &mut Inputs, object: &Value) {
    if object["sharing"] == json!("Merged") {
        inputs.sharing = Sharing::Merged;
    }
    if object["sharing"] == json!("Apart") {
        inputs.sharing = Sharing::Apart;
    }
    if let Some(addresses) = object.get("addresses") {
        inputs.addresses = serde_json::from_value(addresses.clone()).unwrap();
    }
    for name in object["events"].as_array().into_iter().flatten() {
        let (namespace, name) = name.as_str().unwrap().split_once('/').unwrap();
        inputs.events.insert(ObjectName::new(namespace, name));
    }
    if let Some(why) = object["withoutTicketKeys"].as_str() {
        inputs.ticket_keys = TicketKeys::Missing(why.into());
    }
    if object["acknowledged"] == json!("Nothing") {
        inputs.acknowledged = Acknowledged::Nothing;
    }
    if let Some(closed) = object.get("closed") {
        let told = Partly::new(
            String::new(),
            serde_json::from_value(closed.clone()).unwrap(),
        );
        inputs.closed.add("guard-a", &told);
    }
}

fn grant(object: &Value) -> Arc<ReferenceGrant> {
    if object["apiVersion"] == json!("gateway.networking.k8s.io/v1beta1") {
        let beta: ReferenceGrantBeta = serde_json::from_value(object.clone()).unwrap();
        return Arc::new(beta.into());
    }
    typed(object)
}

/// What a pair's objects compile to, without what would change in every file at once.
fn compiled(own: &str) -> String {
    let (configuration, statuses) = compile(&inputs(&objects(own)));
    let mut configuration = serde_json::to_value(configuration).unwrap();
    configuration.as_object_mut().unwrap().remove("revision");
    for certificate in configuration["certificates"]
        .as_object_mut()
        .unwrap()
        .values_mut()
    {
        *certificate = json!("(chain and key)");
    }
    let rooms = configuration
        .get_mut("rooms")
        .and_then(Value::as_object_mut);
    for room in rooms.into_iter().flat_map(|rooms| rooms.values_mut()) {
        room["keys"] = json!("(keys)");
    }
    let mut statuses = serde_json::to_value(statuses).unwrap();
    if !documents(own)
        .iter()
        .any(|object| object["kind"] == "GatewayClass")
    {
        statuses.as_object_mut().unwrap().remove("gatewayClasses");
    }
    prune(&mut statuses);
    serde_saphyr::to_string(&json!({"configuration": configuration, "statuses": statuses})).unwrap()
}

/// Leaves out times, which have tests of their own, and features.
fn prune(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.remove("lastTransitionTime");
        fields.remove("supportedFeatures");
        fields.values_mut().for_each(prune);
    }
    if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(prune);
    }
}

#[test]
fn every_pair_compiles_to_what_it_says() {
    let update = std::env::var_os("UPDATE").is_some();
    let pairs = pairs();
    assert!(pairs.len() >= 25, "{}", pairs.len());
    let mut stale = String::new();
    for input in pairs {
        let got = compiled(&fs::read_to_string(&input).unwrap());
        let output = PathBuf::from(input.to_string_lossy().replace(".in.yaml", ".out.yaml"));
        if update {
            fs::write(&output, &got).unwrap();
        } else if fs::read_to_string(&output).unwrap_or_default() != got {
            writeln!(stale, "{}:\n{got}", output.display()).unwrap();
        }
    }
    assert!(
        stale.is_empty(),
        "{stale}\nif that is right: UPDATE=1 cargo test -p operator --lib guard::compile"
    );
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        // Xorshift; any seed but zero goes through all numbers.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

#[test]
fn the_order_of_objects_does_not_matter() {
    for pair in pairs() {
        let mut objects = objects(&fs::read_to_string(&pair).unwrap());
        let first = compile(&inputs(&objects));
        for seed in 1..=SHUFFLES {
            Dice(seed * 0x9e37_79b9).shuffle(&mut objects);
            let again = compile(&inputs(&objects));
            assert_eq!(first.0.revision, again.0.revision, "{}", pair.display());
            assert!(first == again, "{}", pair.display());
        }
    }
}

/// Puts something else in the place of one value of an object's spec.
fn garble(spec: &mut Value, dice: &mut Dice) {
    const WORDS: [&str; 6] = ["", "*", "\u{0}\r\n", "((", "nobody", "*.*.example.com"];
    match spec {
        Value::Object(fields) if !fields.is_empty() => {
            let at = dice.below(fields.len());
            garble(fields.values_mut().nth(at).unwrap(), dice);
        }
        Value::Array(items) if !items.is_empty() => {
            let at = dice.below(items.len());
            if dice.below(6) == 0 {
                items.remove(at);
            } else {
                garble(&mut items[at], dice);
            }
        }
        Value::String(text) => WORDS[dice.below(WORDS.len())].clone_into(text),
        Value::Number(_) => *spec = json!([-1, 0, 70000, 443][dice.below(4)]),
        Value::Object(_) | Value::Array(_) | Value::Bool(_) | Value::Null => {}
    }
}

/// What is said of all routes but one, and what they serve, by route.
fn of_others(objects: &[Value], but: &ObjectName) -> (Vec<String>, Vec<String>) {
    let (configuration, statuses) = compile(&inputs(objects));
    let said = statuses.http_routes.iter().filter(|(name, _)| *name != but);
    let said = said
        .map(|(name, status)| format!("{name} {status:?}"))
        .collect();
    let mut served = Vec::new();
    for port in &configuration.ports {
        for listener in &port.listeners {
            for host in &listener.hosts {
                for entry in &host.entries {
                    let rule = &configuration.rules[entry.rule];
                    if rule.route != but.to_string() {
                        let place = (&listener.name, &host.hostname, &entry.matches);
                        served.push(format!("{place:?} {rule:?}"));
                    }
                }
            }
        }
    }
    (said, served)
}

#[test]
fn garbage_in_one_route_changes_nothing_for_others() {
    let mut dice = Dice(7);
    for pair in pairs() {
        let objects = objects(&fs::read_to_string(&pair).unwrap());
        for at in 0..objects.len() {
            if objects[at]["kind"] != "HTTPRoute" {
                continue;
            }
            let metadata = serde_json::from_value(objects[at]["metadata"].clone()).unwrap();
            let name = ObjectName::of(&metadata);
            let before = of_others(&objects, &name);
            for _ in 0..SHUFFLES {
                let mut garbled = objects.clone();
                garble(&mut garbled[at]["spec"], &mut dice);
                let after = of_others(&garbled, &name);
                assert!(before == after, "{}: {}", pair.display(), garbled[at]);
            }
        }
    }
}

#[test]
fn garbage_in_a_gateway_changes_nothing_for_older_ones() {
    let mut dice = Dice(11);
    // Without a time it is the youngest of all, and by its name also of those of the pairs that have none.
    let young = json!({"kind": "Gateway", "metadata": {"name": "youngest", "namespace": "web"},
        "spec": {"gatewayClassName": "guard",
        "listeners": [
            {"name": "a", "port": 80, "protocol": "HTTP", "hostname": "a.example.com"},
            {"name": "b", "port": 443, "protocol": "HTTPS", "allowedRoutes": {"kinds": [
                {"kind": "HTTPRoute"}], "namespaces": {"from": "All"}},
             "tls": {"mode": "Terminate", "certificateRefs": [{"name": "no"}]}}]}});
    for pair in pairs() {
        let mut objects = objects(&fs::read_to_string(&pair).unwrap());
        let before = compile(&inputs(&objects)).1.gateways;
        objects.push(young.clone());
        for _ in 0..SHUFFLES {
            let mut garbled = objects.clone();
            garble(&mut garbled.last_mut().unwrap()["spec"], &mut dice);
            let mut after = compile(&inputs(&garbled)).1.gateways;
            after.remove(&ObjectName::new("web", "youngest"));
            assert_eq!(
                before.keys().collect::<Vec<_>>(),
                after.keys().collect::<Vec<_>>()
            );
            let same = ObjectName::new("infra", "same");
            assert!(before[&same] == after[&same], "{}", pair.display());
        }
    }
}

const ONE_ROUTE: &str = "
kind: HTTPRoute
metadata: {name: one, namespace: infra, generation: 1}
spec:
  parentRefs: [{name: same}]
  rules: [{backendRefs: [{name: v1, port: 8080}]}]
";

#[test]
fn a_route_that_would_make_the_document_too_long_is_left_out_and_says_so() {
    let mut objects = objects(ONE_ROUTE);
    objects.push(
        json!({"kind": "HTTPRoute", "metadata": {"name": "two", "namespace": "infra"},
        "spec": {"parentRefs": [{"name": "same"}],
            "rules": [{"matches": [{"path": {"value": format!("/{}", "a".repeat(1000))}}]}]}}),
    );
    let (configuration, statuses) = within(&inputs(&objects), 1000, usize::MAX);
    let served: Vec<&str> = configuration.rules.iter().map(|r| &*r.route).collect();
    assert_eq!(served, ["infra/one"]);
    let said = |name| {
        let status = &statuses.http_routes[&ObjectName::new("infra", name)];
        let conditions = &status.parents[0].conditions;
        let accepted = conditions.iter().find(|one| one.type_ == "Accepted");
        accepted.unwrap().reason.clone()
    };
    assert_eq!(said("one"), "Accepted");
    assert_eq!(said("two"), "TooLarge");
    let gateway = &statuses.gateways[&ObjectName::new("infra", "same")];
    assert_eq!(gateway.listeners[0].attached_routes, 1);
}

#[test]
fn gateways_say_that_guards_are_given_nothing_new_where_it_is_too_long() {
    let (_, statuses) = within(&inputs(&objects(ONE_ROUTE)), usize::MAX, 100);
    let gateway = &statuses.gateways[&ObjectName::new("infra", "same")];
    let programmed = gateway
        .conditions
        .iter()
        .find(|one| one.type_ == "Programmed");
    let programmed = programmed.unwrap();
    assert_eq!(programmed.status, "False");
    assert!(programmed.message.contains("64 MiB"), "{programmed:?}");
}

#[test]
fn equal_documents_have_equal_revisions_and_others_do_not() {
    let objects = objects(ONE_ROUTE);
    let mut later = inputs(&objects);
    later.now = "2027-01-01T00:00:00Z".parse().unwrap();
    let (first, _) = compile(&inputs(&objects));
    assert_eq!(first.revision.len(), 64);
    assert_eq!(
        first.revision,
        compile(&later).0.revision,
        "time is not served"
    );
    later.http_routes.clear();
    assert_ne!(first.revision, compile(&later).0.revision);
    let text = serde_json::to_string(&first).unwrap();
    let read: Configuration = serde_json::from_str(&text).unwrap();
    assert_eq!(read, first, "what is written can be read by what serves");
}

#[test]
fn a_status_that_stays_the_same_is_written_the_same() {
    let objects = objects(ONE_ROUTE);
    let first = inputs(&objects);
    let (_, statuses) = compile(&first);
    let name = ObjectName::new("infra", "one");
    let mut route = HttpRoute::clone(&first.http_routes[0]);
    route.status = Some(statuses.http_routes[&name].clone());
    let mut later = inputs(&objects);
    later.now = Timestamp::MAX;
    later.http_routes = vec![Arc::new(route.clone())];
    let again = &compile(&later).1.http_routes[&name];
    assert_eq!(again, &statuses.http_routes[&name]);
    // Where the Service is gone, one condition is new and the other keeps its time.
    later.services.clear();
    let changed = &compile(&later).1.http_routes[&name].parents[0].conditions;
    let times: Vec<(&str, &Time)> = changed
        .iter()
        .map(|c| (c.type_.as_str(), &c.last_transition_time))
        .collect();
    assert_eq!(
        times,
        [
            ("Accepted", &Time(first.now)),
            ("ResolvedRefs", &Time(Timestamp::MAX))
        ]
    );
}

#[test]
fn every_message_of_a_pair_names_its_object_and_the_next_step() {
    let mut messages = BTreeSet::new();
    for pair in pairs() {
        let out = compiled(&fs::read_to_string(&pair).unwrap());
        let out: Value = serde_saphyr::from_str(&out).unwrap();
        collect(&out, &mut messages);
    }
    assert!(messages.len() > 30, "{}", messages.len());
    for message in messages {
        let kinds = [
            "HTTPRoute ",
            "Gateway ",
            "GatewayClass ",
            "Dropped Rule ",
            "TrafficPolicy ",
        ];
        let known = kinds.iter().any(|kind| message.starts_with(kind));
        assert!(
            known && (message.contains("; ") || message.contains("it has ")),
            "{message}"
        );
    }
}

fn collect(value: &Value, messages: &mut BTreeSet<String>) {
    let bad = value["status"] == "False" || value["type"] == "PartiallyInvalid";
    if let (true, Some(message)) = (bad, value["message"].as_str()) {
        // That there is no conflict needs no words.
        if !message.is_empty() {
            messages.insert(message.to_owned());
        }
    }
    let fields = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, value)| value);
    let items = value.as_array().into_iter().flatten();
    for value in fields.chain(items) {
        collect(value, messages);
    }
}

#[test]
fn rules_that_cannot_be_done_still_stand_in_the_way_of_wider_ones() {
    let (configuration, _) = compile(&inputs(&objects(
        "
kind: HTTPRoute
metadata: {name: guarded, namespace: infra}
spec:
  parentRefs: [{name: same}]
  rules:
  - matches: [{path: {value: /admin}}]
    filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP}}]
    backendRefs: [{name: v1, port: 8080}]
---
kind: HTTPRoute
metadata: {name: open, namespace: infra}
spec:
  parentRefs: [{name: same}]
  rules: [{backendRefs: [{name: v2, port: 8080}]}]
",
    )));
    let first = &configuration.ports[0].listeners[0].hosts[0].entries[0];
    assert_eq!(first.matches.path, PathMatch::Prefix("/admin".into()));
    let rule = &configuration.rules[first.rule];
    assert!(
        rule.backends
            .iter()
            .all(|backend| backend.service.is_none()),
        "{rule:?}"
    );
    assert!(
        !configuration.services.contains_key("infra/v1:8080"),
        "it is not reached"
    );
}
