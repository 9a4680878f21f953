use serde_json::{Value, json};

use super::*;

fn pod(image: &str, environment: &Value) -> Pod {
    let object = json!({
        "metadata": {"name": "v1-abc", "namespace": "infra"},
        "spec": {"containers": [{"name": "main", "image": image, "env": environment}]},
    });
    serde_json::from_value(object).expect("a pod")
}

#[test]
fn the_image_is_known_by_its_name_whatever_its_registry_and_tag() {
    for (image, is_echo) in [
        ("registry.k8s.io/gateway-api/echo-basic:v1.5.1", true),
        ("mirror.example:5000/x/gateway-api/echo-basic", true),
        ("gateway-api/echo-basic@sha256:00", true),
        ("registry.example/echo-basic-not:1", false),
        ("registry.example/app:echo-basic", false),
    ] {
        assert_eq!(
            Echo::of(&pod(image, &json!([]))).is_some(),
            is_echo,
            "{image}"
        );
    }
}

#[test]
fn a_pod_says_who_it_is_and_where_it_listens_as_its_environment_says() {
    let environment = json!([
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "SERVICE_NAME", "value": "v1"},
        {"name": "HTTP_PORT", "value": "4000"},
    ]);
    let echo = Echo::of(&pod("gateway-api/echo-basic:v1", &environment)).expect("it is one");
    assert_eq!(echo.ports(), [4000, H2C_PORT]);
    let who = Who {
        namespace: "infra".into(),
        ingress: String::new(),
        service: "v1".into(),
        pod: "v1-abc".into(),
    };
    assert_eq!(echo.who, who);
}

#[test]
fn a_pod_that_speaks_something_else_is_not_played() {
    let environment = json!([{"name": "GRPC_ECHO_SERVER", "value": "1"}]);
    assert!(Echo::of(&pod("gateway-api/echo-basic:v1", &environment)).is_none());
}

#[test]
fn headers_are_told_as_go_names_them_and_without_the_host() {
    let mut asked = HeaderMap::new();
    asked.insert(HOST, HeaderValue::from_static("example.org"));
    asked.append("x-request-id", HeaderValue::from_static("1"));
    asked.append("x-request-id", HeaderValue::from_static("2"));
    let told = json!(headers(&asked));
    assert_eq!(told, json!({"X-Request-Id": ["1", "2"]}));
}

#[test]
fn an_answer_has_the_headers_that_were_asked_for() {
    let mut asked = HeaderMap::new();
    asked.append(SET_HEADER, HeaderValue::from_static("X-One:1, X-Two:a"));
    asked.append(SET_HEADER, HeaderValue::from_static("X-Two:b"));
    let mut answered = HeaderMap::new();
    set_headers(&asked, &mut answered);
    assert_eq!(answered["x-one"], "1");
    assert_eq!(answered["x-two"], "a,b");
}

#[test]
fn a_delay_is_read_from_the_query() {
    assert_eq!(delay("a=1&delay=800ms"), Some(Duration::from_millis(800)));
    assert_eq!(delay("undelay=1s"), None);
}
