//! `jiuzhou protection` and `jiuzhou effective` against servers that answer what guards and API servers do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Output;

use serde_json::{Value, json};

use super::{jiuzhou, text};

/// A server on loopback that answers every request by its path, for as long as the test runs. Returns its
/// address.
fn server(answer: impl Fn(&str) -> Option<Value> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            // The rest of the head; no request here has a body.
            lines.find(|line| line.as_ref().unwrap().is_empty());
            let path = first.split(' ').nth(1).unwrap();
            let (status, body) = match answer(path) {
                Some(body) => ("200 OK", body.to_string()),
                None => ("404 Not Found", missing().to_string()),
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            stream
                .write_all(format!("{head}{body}").as_bytes())
                .unwrap();
        }
    });
    address
}

/// What an API server says of what is not there.
fn missing() -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404,
           "reason": "NotFound", "message": "not found"})
}

/// Nobody listens there any more.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn standing(admitted: u64) -> Value {
    json!({"revision": "r1", "services": [], "policies": [{
        "name": "venue/code", "routes": ["venue/code"], "admitted": admitted, "refused": 5,
        "rules": [{"name": "total", "kind": "RateLimit", "perSecond": 50.0, "burst": 100,
                   "isShadow": false, "refused": 5, "wouldRefuse": 0}]}]})
}

fn guard(admitted: u64) -> String {
    server(move |path| (path == "/protection").then(|| standing(admitted)))
}

fn protection(arguments: &[&str]) -> (Option<i32>, Output) {
    let mut all = vec!["protection"];
    all.extend(arguments);
    let output = jiuzhou(&all);
    (output.status.code(), output)
}

#[test]
fn what_two_guards_did_is_summed_and_a_third_that_is_silent_is_named() {
    let silent = nobody();
    let guards = [guard(100), guard(23), silent.clone()].join(",");
    let (code, output) = protection(&["--guard", &guards]);
    let said = text(&output.stdout);
    assert_eq!(code, Some(0), "{}", text(&output.stderr));
    assert!(said.starts_with("2 of 3 guards answered\n"), "{said}");
    assert!(said.contains(&silent), "{said}");
    assert!(said.contains("123 admitted, 10 refused"), "{said}");
    assert!(said.contains("total  RateLimit  100/s  10"), "{said}");
}

#[test]
fn the_answer_for_programs_has_the_sums_the_guards_and_a_kind() {
    let (code, output) = protection(&["code", "-n", "venue", "--guard", &guard(7), "-o", "json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(
        (&value["kind"], &value["apiVersion"]),
        (&json!("ProtectionReport"), &json!("cli.jiuzhou.io/v1"))
    );
    assert_eq!(value["policies"][0]["admitted"], 7);
    assert_eq!(value["policies"][0]["refusedBy"], json!({"RateLimited": 5}));
    assert_eq!(value["guards"][0]["revision"], "r1");
}

#[test]
fn where_no_guard_answers_the_command_fails_and_says_why() {
    let silent = nobody();
    let (code, output) = protection(&["--guard", &silent]);
    let error = text(&output.stderr);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains("no guard answered") && error.contains(&silent),
        "{error}"
    );
}

#[test]
fn a_policy_that_no_guard_knows_is_told_with_those_that_they_know() {
    let (code, output) = protection(&["nothing", "--guard", &guard(7)]);
    let error = text(&output.stderr);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("they enforce venue/code"), "{error}");
    assert_eq!(text(&output.stdout), "", "nothing else is said");
}

#[test]
fn without_a_kubeconfig_the_guards_can_still_be_named() {
    let (code, output) = protection(&[]);
    let error = text(&output.stderr);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains("--guard") && error.contains("KUBECONFIG"),
        "{error}"
    );
}

/// A kubeconfig for an API server; gone with the test.
struct Kubeconfig(std::path::PathBuf);

impl Kubeconfig {
    fn of(name: &str, server: &str) -> Self {
        let file = format!("jiuzhou-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(file);
        let config = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, \
             clusters: [{{name: k, cluster: {{server: '{server}'}}}}], \
             users: [{{name: u, user: {{token: t}}}}], \
             contexts: [{{name: c, context: {{cluster: k, user: u, namespace: venue}}}}]}}"
        );
        std::fs::write(&path, config).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

/// An API server of a region with one guard, one route and one policy.
fn region(path: &str) -> Option<Value> {
    let list = |kind: &str, item: Value| json!({"apiVersion": "x/v1", "kind": kind, "metadata": {}, "items": [item]});
    let path = path.split('?').next().unwrap_or_default();
    let policy = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "code", "namespace": "venue", "generation": 1},
        "spec": {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "code"}],
                 "rateLimits": [{"name": "total", "scope": "Cluster", "rate": {"requests": 50, "per": "1s"}}]}});
    match path {
        "/apis/discovery.k8s.io/v1/namespaces/jiuzhou-guard/endpointslices" => Some(list(
            "EndpointSliceList",
            json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"name": "metrics", "port": 9191}],
                   "endpoints": [{"addresses": ["10.0.0.7"], "targetRef": {"kind": "Pod", "name": "guard-0"}}]}),
        )),
        "/api/v1/namespaces/jiuzhou-guard/pods/guard-0:9191/proxy/protection" => Some(standing(42)),
        "/apis/gateway.networking.k8s.io/v1/namespaces/venue/httproutes" => Some(list(
            "HTTPRouteList",
            json!({"metadata": {"name": "code", "namespace": "venue"}, "spec": {"rules": [{"name": "show"}, {}]}}),
        )),
        "/apis/jiuzhou.io/v1alpha1/namespaces/venue/trafficpolicies" => {
            Some(list("TrafficPolicyList", policy))
        }
        "/apis/jiuzhou.io/v1alpha1/namespaces/venue/trafficpolicies/code" => Some(policy),
        _ => None,
    }
}

#[test]
fn with_a_kubeconfig_the_guards_are_found_and_asked_through_the_api_server() {
    let kubeconfig = Kubeconfig::of("protection", &server(region));
    let (code, output) = protection(&["--kubeconfig", kubeconfig.path()]);
    let said = text(&output.stdout);
    assert_eq!(code, Some(0), "{}", text(&output.stderr));
    assert!(said.starts_with("1 of 1 guard answered\n"), "{said}");
    assert!(said.contains("42 admitted"), "{said}");
}

#[test]
fn the_rules_in_force_at_a_route_and_of_a_policy_are_told_in_a_region() {
    let kubeconfig = Kubeconfig::of("effective", &server(region));
    for (target, rules) in [
        ("httproute/code/show", 1),
        ("httproute/code", 2),
        ("trafficpolicy/code", 2),
    ] {
        let output = jiuzhou(&[
            "effective",
            target,
            "--kubeconfig",
            kubeconfig.path(),
            "-o",
            "json",
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["target"], target);
        assert_eq!(value["rules"].as_array().unwrap().len(), rules, "{value:#}");
        assert_eq!(
            value["inForce"][0]["rules"][0]["from"],
            json!([{"effect": "Says", "policy": "venue/code"}])
        );
    }
    let output = jiuzhou(&[
        "effective",
        "httproute/code",
        "--kubeconfig",
        kubeconfig.path(),
    ]);
    let said = text(&output.stdout);
    assert!(
        said.contains("rateLimits total  50 per 1s in the cluster, burst 50; from code"),
        "{said}"
    );
}

#[test]
fn a_route_or_rule_that_is_not_there_is_told_with_what_is() {
    let kubeconfig = Kubeconfig::of("missing", &server(region));
    for (target, expected) in [
        ("httproute/none", "no HTTPRoute none in namespace venue"),
        ("httproute/code/none", "its rules are: show, 1"),
        ("trafficpolicy/none", "no TrafficPolicy none"),
    ] {
        let output = jiuzhou(&["effective", target, "--kubeconfig", kubeconfig.path()]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_only_the_hub_serves_is_told_in_a_region_with_its_address_and_the_next_step() {
    let server = server(region);
    let kubeconfig = Kubeconfig::of("elsewhere", &server);
    for command in [&["status"][..], &["capacity"], &["effective", "app/code"]] {
        let mut arguments = command.to_vec();
        arguments.extend(["--kubeconfig", kubeconfig.path()]);
        let output = jiuzhou(&arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        let expected = format!("the API server at {server} serves no such kind");
        assert!(error.contains("cannot list "), "{error}");
        assert!(error.contains(&expected), "{error}");
        assert!(
            error.contains("by --kubeconfig give that of the hub"),
            "{error}"
        );
        assert!(!error.contains("Status {"), "{error}");
    }
}
