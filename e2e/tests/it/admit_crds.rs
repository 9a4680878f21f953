//! The kinds and their examples, put to a real API server and to `crds::lint` alike.

#![expect(clippy::panic, reason = "a test that cannot go on says why")]

use std::{fs, path::Path};

use e2e::namespace::Namespace;
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

use crate::{
    admit_support::{Answer, call, create, install_crds, path, try_create, yaml_files},
    support::fleet,
};

/// A member without the hub's admission policies, so that only the kinds' own rules speak.
async fn server() -> Client {
    let cluster = fleet().await.cluster("member-a").expect("the fleet has it");
    let client = cluster.client().await.expect("a client");
    install_crds(&client).await;
    client
}

struct Example {
    file: String,
    text: String,
    objects: Vec<Value>,
}

fn examples(folder: &str, namespace: &str) -> Vec<Example> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../crds/examples/{folder}"));
    let read = |file: &std::path::PathBuf| {
        let text = fs::read_to_string(file).expect("readable");
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        for object in &mut objects {
            if object["metadata"]["namespace"].is_string() {
                object["metadata"]["namespace"] = json!(namespace);
            }
        }
        Example {
            file: file.display().to_string(),
            text,
            objects,
        }
    };
    yaml_files(&folder).iter().map(read).collect()
}

/// What the server says of a file: its first object, or the second one as an update of the first.
async fn verdict(client: &Client, example: &Example) -> Answer {
    let [first, rest @ ..] = example.objects.as_slice() else {
        panic!("{} is empty", example.file);
    };
    let Some(second) = rest.first() else {
        return try_create(client, first).await;
    };
    let old = create(client, first).await;
    let old = old.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", example.file));
    let mut second = second.clone();
    second["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    let here = path(first, true);
    let update = format!("{here}?dryRun=All&fieldValidation=Strict");
    let answer = call(client, Method::PUT, &update, Some(&second)).await;
    let deleted = call(client, Method::DELETE, &here, None).await;
    assert!(deleted.is_ok(), "{}: {deleted:?}", example.file);
    answer
}

#[tokio::test]
async fn every_good_example_is_taken_by_server_and_lint() {
    let client = server().await;
    let here = Namespace::create(client.clone(), "good").await.unwrap();
    for example in examples("good", here.name()) {
        let answer = verdict(&client, &example).await;
        assert!(answer.is_ok(), "{}: {answer:?}", example.file);
        assert_eq!(crds::lint(&example.text), [], "{}", example.file);
    }
}

#[tokio::test]
async fn every_bad_example_is_refused_by_server_and_lint_in_the_same_words() {
    let client = server().await;
    let here = Namespace::create(client.clone(), "bad").await.unwrap();
    let examples = examples("bad", here.name());
    assert!(examples.len() > 100, "{}", examples.len());
    let mut wrong = Vec::new();
    for example in examples {
        let first = example.text.lines().next().expect("a line");
        let expected = first.strip_prefix("# expect: ").expect("an expectation");
        match verdict(&client, &example).await {
            Ok(_) => wrong.push(format!("{}: taken by the server", example.file)),
            Err(refusal) => {
                let mut words: Vec<_> = vec![expected.to_owned()];
                words.extend(crds::lint(&example.text).into_iter().map(|f| f.message));
                assert!(words.len() > 1, "{}: taken by lint", example.file);
                for words in words
                    .iter()
                    .filter(|words| !refusal.message.contains(*words))
                {
                    wrong.push(format!("{}: {words:?}: {}", example.file, refusal.message));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_fresh_object_reads_as_unknown_before_anybody_wrote_its_status() {
    let client = server().await;
    let region = json!({
        "apiVersion": "jiuzhou.io/v1alpha1", "kind": "Region", "metadata": {"name": "fresh"},
        "spec": {"displayName": "新区", "code": "990000", "level": "Province"},
    });
    create(&client, &region).await.expect("taken");
    let read = call(&client, Method::GET, &path(&region, true), None).await;
    let conditions = read.expect("it is there")["status"]["conditions"].clone();
    let brief: Vec<_> = conditions
        .as_array()
        .expect("conditions")
        .iter()
        .map(|c| {
            (
                c["type"].as_str(),
                c["status"].as_str(),
                c["reason"].as_str(),
            )
        })
        .collect();
    assert_eq!(brief, [(Some("Ready"), Some("Unknown"), Some("Pending"))]);
}

#[tokio::test]
async fn tables_show_at_most_seven_columns_and_a_value_for_a_fresh_object() {
    let client = server().await;
    for plural in [
        "regions",
        "memberclusters",
        "tenants",
        "quotas",
        "isolations",
        "links",
        "linkgrants",
        "apps",
        "trafficpolicies",
        "approvals",
    ] {
        let request = Request::get(format!("/apis/jiuzhou.io/v1alpha1/{plural}"))
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(vec![])
            .expect("a request");
        let table: Value = client.request(request).await.expect("a table");
        let columns = table["columnDefinitions"].as_array().expect("columns");
        let shown: Vec<_> = columns
            .iter()
            .filter(|column| column["priority"] == 0)
            .filter_map(|column| column["name"].as_str())
            .collect();
        // The name comes on top of the seven.
        assert!(shown.len() <= 8, "{plural}: {shown:?}");
        assert_eq!(shown.first(), Some(&"Name"), "{plural}");
        assert_eq!(shown.last(), Some(&"Age"), "{plural}");
    }
}

/// A kind under a group of its own, so that it can be put to the server beside the installed one.
fn elsewhere(crd: &Value) -> Value {
    let mut crd = crd.clone();
    let plural = crd["spec"]["names"]["plural"].as_str().expect("a plural");
    crd["metadata"]["name"] = json!(format!("{plural}.budget.example"));
    crd["spec"]["group"] = json!("budget.example");
    crd
}

/// Takes the bounds away that make the cost of rules finite.
fn unbounded(node: &mut Value) {
    match node {
        Value::Object(fields) => {
            for bound in ["maxItems", "maxLength", "maxProperties"] {
                fields.remove(bound);
            }
            fields.values_mut().for_each(unbounded);
        }
        Value::Array(items) => items.iter_mut().for_each(unbounded),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn the_rules_of_every_kind_stay_within_the_servers_budget() {
    let client = server().await;
    let all = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All";
    let put = async |crd: &Value| call(&client, Method::POST, all, Some(crd)).await;
    for crd in crds::all() {
        let crd = serde_json::to_value(crd).expect("plain data");
        let answer = put(&elsewhere(&crd)).await;
        assert!(answer.is_ok(), "{}: {answer:?}", crd["metadata"]["name"]);
        if crd["spec"]["names"]["kind"] == "App" {
            let mut wide = elsewhere(&crd);
            unbounded(&mut wide);
            let refusal = put(&wide).await.expect_err("without bounds it is refused");
            assert!(refusal.message.contains("budget"), "{}", refusal.message);
        }
    }
}
