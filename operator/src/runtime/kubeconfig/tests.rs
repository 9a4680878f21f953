use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::*;

const TOKEN: &str = "eyJhbGciOi.top-secret.token";

fn pem(label: &str) -> String {
    STANDARD.encode(format!(
        "-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n"
    ))
}

fn good() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "quzhou",
        "preferences": {},
        "clusters": [{"name": "quzhou-a", "cluster": {
            "server": "https://10.1.2.3:6443", "certificate-authority-data": pem("CERTIFICATE"),
        }}],
        "users": [{"name": "hub", "user": {"token": TOKEN}}],
        "contexts": [{"name": "quzhou", "context": {"cluster": "quzhou-a", "user": "hub"}}],
    })
}

fn with_certificate() -> Value {
    set(
        "/users/0/user",
        json!({
            "client-certificate-data": pem("CERTIFICATE"), "client-key-data": pem("PRIVATE KEY"),
        }),
    )
}

/// The good file with one value replaced; the last part of the path may be new.
fn set(path: &str, value: Value) -> Value {
    let mut file = good();
    let (parent, name) = path.rsplit_once('/').unwrap();
    let parent = file.pointer_mut(parent).unwrap();
    if let Value::Array(list) = parent {
        list.insert(name.parse().unwrap(), value);
    } else {
        parent[name] = value;
    }
    file
}

fn without(path: &str) -> Value {
    let mut file = good();
    let (parent, name) = path.rsplit_once('/').unwrap();
    file.pointer_mut(parent)
        .unwrap()
        .as_object_mut()
        .unwrap()
        .remove(name)
        .unwrap();
    file
}

fn parse(file: &Value) -> Result<Member, KubeconfigError> {
    Member::parse(&file.to_string())
}

#[track_caller]
fn refused(file: &Value, field: &str) {
    let error = parse(file).unwrap_err().to_string();
    assert!(error.contains(field), "`{error}` does not name `{field}`");
    assert!(error.contains("; "), "`{error}` does not say how to fix it");
    assert!(!error.contains("top-secret"), "`{error}` tells the token");
}

#[test]
fn a_token_and_a_ca_make_a_connection_without_proxy_or_files() {
    let config = parse(&good()).unwrap().config();
    assert_eq!(config.cluster_url, "https://10.1.2.3:6443/");
    assert_eq!(config.root_cert.unwrap(), [vec![0, 0, 0]]);
    assert!(config.auth_info.token.is_some() && config.auth_info.exec.is_none());
    assert!(config.proxy_url.is_none() && config.root_cert_file.is_none());
    assert!(!config.accept_invalid_certs);
}

#[test]
fn a_client_certificate_is_as_good_as_a_token() {
    let config = parse(&with_certificate()).unwrap().config();
    assert!(config.auth_info.client_certificate_data.is_some());
    assert!(config.auth_info.client_key_data.is_some() && config.auth_info.token.is_none());
}

#[test]
fn harmless_fields_are_accepted() {
    for file in [
        set("/clusters/0/cluster/insecure-skip-tls-verify", json!(false)),
        set(
            "/clusters/0/cluster/tls-server-name",
            json!("api.quzhou.example"),
        ),
        set(
            "/clusters/0/cluster/server",
            json!("https://rancher.example/k8s/clusters/c-1"),
        ),
        set(
            "/clusters/0/cluster/extensions",
            json!([{"name": "x", "extension": {}}]),
        ),
        set("/contexts/0/context/namespace", json!("default")),
    ] {
        parse(&file).unwrap();
    }
}

#[test]
fn line_breaks_inside_base64_do_not_matter() {
    let mut wrapped = pem("CERTIFICATE");
    wrapped.insert_str(20, "\n  ");
    let file = set(
        "/clusters/0/cluster/certificate-authority-data",
        json!(wrapped),
    );
    assert_eq!(parse(&file).unwrap(), parse(&good()).unwrap());
}

#[test]
fn what_runs_reads_or_reroutes_is_refused_by_name() {
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh"});
    for (path, value) in [
        ("/users/0/user/exec", exec),
        ("/users/0/user/exec", Value::Null),
        ("/users/0/user/auth-provider", json!({"name": "gcp"})),
        (
            "/users/0/user/tokenFile",
            json!("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        ),
        (
            "/users/0/user/client-certificate",
            json!("/etc/kubernetes/pki/admin.crt"),
        ),
        (
            "/users/0/user/client-key",
            json!("/etc/kubernetes/pki/admin.key"),
        ),
        ("/users/0/user/username", json!("admin")),
        ("/users/0/user/password", json!("admin")),
        ("/users/0/user/as", json!("system:admin")),
        ("/users/0/user/as-uid", json!("0")),
        ("/users/0/user/as-groups", json!(["system:masters"])),
        ("/users/0/user/as-user-extra", json!({"scopes": ["all"]})),
        (
            "/clusters/0/cluster/certificate-authority",
            json!("/etc/passwd"),
        ),
        (
            "/clusters/0/cluster/proxy-url",
            json!("http://127.0.0.1:8080"),
        ),
        ("/clusters/0/cluster/insecure-skip-tls-verify", json!(true)),
        (
            "/clusters/0/cluster/insecure-skip-tls-verify",
            json!("false"),
        ),
    ] {
        let name = path.rsplit_once('/').unwrap().1;
        let file = set(path, value);
        refused(&file, name);
        assert!(
            matches!(parse(&file), Err(KubeconfigError::Refused { .. })),
            "{name}"
        );
    }
}

#[test]
fn servers_that_are_not_plain_https_are_refused() {
    for server in [
        json!("http://10.1.2.3:6443"),
        json!("10.1.2.3:6443"),
        json!("/10.1.2.3"),
        json!("unix:///var/run/docker.sock"),
        json!("file:///etc/passwd"),
        json!("https://"),
        json!("https://admin:admin@10.1.2.3:6443"),
        json!("https://10.1.2.3:6443/?x=1"),
        json!("https://10.1.2.3\r\nX-Evil: 1"),
        json!(""),
        json!(6443),
    ] {
        refused(
            &set("/clusters/0/cluster/server", server),
            "clusters[0].cluster.server",
        );
    }
}

#[test]
fn data_that_is_not_what_it_claims_is_refused() {
    for (path, value, field) in [
        (
            "/clusters/0/cluster/certificate-authority-data",
            json!("%%%"),
            "authority-data",
        ),
        (
            "/clusters/0/cluster/certificate-authority-data",
            json!(STANDARD.encode("x")),
            "authority",
        ),
        (
            "/clusters/0/cluster/certificate-authority-data",
            json!(pem("PRIVATE KEY")),
            "authority",
        ),
        (
            "/clusters/0/cluster/tls-server-name",
            json!("not a name"),
            "tls-server-name",
        ),
        (
            "/users/0/user/token",
            json!("two\r\nlines: top-secret"),
            "token",
        ),
        ("/users/0/user/token", json!(["top-secret"]), "token"),
        ("/users/0/user/token", json!(""), "token"),
        (
            "/users/0/user/client-key-data",
            json!(pem("PRIVATE KEY")),
            "token",
        ),
        ("/users/0/user", json!({}), "token"),
        (
            "/users/0/user",
            json!({"client-certificate-data": pem("CERTIFICATE")}),
            "client-key",
        ),
        (
            "/users/0/user",
            json!({"client-key-data": pem("PRIVATE KEY")}),
            "client-certificate",
        ),
        ("/users/0/user", json!("admin"), "users[0].user"),
    ] {
        refused(&set(path, value), field);
    }
}

#[test]
fn anything_but_one_connected_context_is_refused() {
    let entry = |path: &str| good().pointer(path).unwrap().clone();
    for (file, field) in [
        (without("/current-context"), "current-context"),
        (without("/clusters"), "clusters"),
        (without("/users"), "users"),
        (without("/contexts"), "contexts"),
        (without("/clusters/0/cluster/server"), "server"),
        (
            without("/clusters/0/cluster/certificate-authority-data"),
            "certificate-authority-data",
        ),
        (set("/current-context", json!("other")), "current-context"),
        (set("/contexts/1", entry("/contexts/0")), "contexts"),
        (set("/clusters/1", entry("/clusters/0")), "clusters"),
        (set("/users/1", entry("/users/0")), "users"),
        (set("/users", json!({"hub": {}})), "users"),
        (
            set("/contexts/0/context/user", json!("admin")),
            "contexts[0].context.user",
        ),
        (
            set("/contexts/0/context/cluster", json!("b")),
            "contexts[0].context.cluster",
        ),
    ] {
        refused(&file, field);
    }
}

#[test]
fn unknown_fields_are_refused_wherever_they_stand() {
    for (path, within) in [
        ("/exec", "kubeconfig"),
        ("/clusters/0/exec", "clusters[0]"),
        ("/clusters/0/cluster/Server", "clusters[0].cluster"),
        ("/users/0/user/token-file", "users[0].user"),
        ("/contexts/0/context/proxy-url", "contexts[0].context"),
    ] {
        let file = set(path, json!("x"));
        refused(&file, within);
        assert!(
            matches!(parse(&file), Err(KubeconfigError::Unknown { .. })),
            "{path}"
        );
    }
}

#[test]
fn what_is_not_a_kubeconfig_at_all_is_refused_without_quoting_it() {
    let bomb = (1..12).fold("a0: &a0 [top-secret]\n".to_owned(), |bomb, n| {
        let refs = vec![format!("*a{}", n - 1); 12].join(", ");
        format!("{bomb}a{n}: &a{n} [{refs}]\n")
    });
    let twice = good().to_string().replacen('{', r#"{"users": [], "#, 1);
    for yaml in [
        "",
        "top-secret",
        "[]",
        "a: [top-secret",
        "\0",
        "a: !!binary top-secret",
        &bomb,
        &twice,
        &"x".repeat(MAX_BYTES + 1),
    ] {
        let error = Member::parse(yaml).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("top-secret"),
            "{error:?}"
        );
    }
}

#[test]
fn no_credential_is_ever_printed() {
    let key = pem("PRIVATE KEY");
    for file in [good(), with_certificate()] {
        let shown = format!("{:?}", parse(&file).unwrap());
        assert!(
            !shown.contains("top-secret") && !shown.contains(&key),
            "{shown}"
        );
        let shown = format!("{:?}", parse(&file).unwrap().config());
        assert!(
            !shown.contains("top-secret") && !shown.contains(&key),
            "{shown}"
        );
    }
}

#[test]
fn a_named_file_is_the_source_whatever_the_environment_says() {
    assert_eq!(Source::choose(Some("/x".into())), Source::File("/x".into()));
}

#[tokio::test]
async fn a_missing_file_is_an_error_that_names_it_and_no_other_source_is_tried() {
    let error = Source::File("/no/such/kubeconfig".into())
        .config()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/kubeconfig"));
}
