//! Good and bad examples, judged offline: by `lint`, by each kind's own CEL rules, and by a
//! general JSON Schema library. The same files are put to a real API server in `e2e`.
//!
//! A bad example is named after the rule it breaks; its first line says `# expect: ` and a part of
//! the message. Two documents are an object and a refused update of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crds::{
    App, Approval, Isolation, Link, LinkGrant, MemberCluster, Quota, Region, Tenant, TrafficPolicy,
};
use jsonschema::Validator;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

struct Example {
    file: String,
    text: String,
    documents: Vec<Value>,
}

impl Example {
    fn expected(&self) -> &str {
        let first = self.text.lines().next().unwrap();
        first
            .strip_prefix("# expect: ")
            .unwrap_or_else(|| panic!("{}: begin with `# expect: `", self.file))
    }

    fn kind(&self) -> &str {
        self.documents[0]["kind"].as_str().unwrap()
    }
}

fn examples(folder: &str) -> Vec<Example> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(folder);
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let read = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(path).unwrap();
        let documents = serde_saphyr::from_multiple(&text).unwrap();
        Example {
            file,
            text,
            documents,
        }
    };
    files.iter().map(read).collect()
}

/// Reads the object as its Rust type and asks the type's own rules.
fn typed(kind: &str, object: &Value) -> Result<(), String> {
    macro_rules! read {
        ($($Kind:ident),*) => {
            match kind {
                $(stringify!($Kind) => {
                    let object: $Kind = serde_json::from_value(object.clone()).map_err(|e| e.to_string())?;
                    object.validate_cel().map_err(|e| e.to_string())
                })*
                other => panic!("no such kind: {other}"),
            }
        };
    }
    read!(
        Region,
        MemberCluster,
        Tenant,
        Quota,
        Isolation,
        Link,
        LinkGrant,
        App,
        TrafficPolicy,
        Approval
    )
}

fn schema(crd: CustomResourceDefinition) -> (String, Value) {
    let schema = crd.spec.versions[0].schema.clone();
    let schema = schema.unwrap().open_api_v3_schema;
    (crd.spec.names.kind, serde_json::to_value(schema).unwrap())
}

/// Of the kinds for users.
fn schemas() -> &'static BTreeMap<String, Value> {
    static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
        let for_users = |crd: &CustomResourceDefinition| {
            crd.spec
                .names
                .categories
                .as_ref()
                .is_some_and(|c| !c.is_empty())
        };
        crds::all()
            .into_iter()
            .filter(for_users)
            .map(schema)
            .collect()
    });
    &SCHEMAS
}

fn schema_accepts(kind: &str, object: &Value) -> bool {
    static VALIDATORS: LazyLock<BTreeMap<String, Validator>> = LazyLock::new(|| {
        let build = |schema: &Value| {
            jsonschema::options()
                .should_validate_formats(true)
                .build(schema)
                .unwrap()
        };
        // Of internal kinds too: some rules of theirs have examples.
        crds::all()
            .into_iter()
            .map(schema)
            .map(|(kind, schema)| (kind, build(&schema)))
            .collect()
    });
    VALIDATORS[kind].is_valid(object)
}

#[test]
fn good_examples_are_accepted_by_types_rules_schema_and_lint() {
    for example in examples("good") {
        for object in &example.documents {
            assert_eq!(typed(example.kind(), object), Ok(()), "{}", example.file);
            assert!(schema_accepts(example.kind(), object), "{}", example.file);
        }
        assert_eq!(crds::lint(&example.text), [], "{}", example.file);
    }
}

#[test]
fn there_is_a_good_example_of_every_kind_for_users() {
    let shown: Vec<_> = examples("good")
        .iter()
        .map(|example| example.kind().to_owned())
        .collect();
    for kind in schemas().keys() {
        assert!(shown.contains(kind), "{kind} has no good example");
    }
}

#[test]
fn bad_examples_are_refused_by_lint_with_the_expected_message() {
    for example in examples("bad") {
        let findings = crds::lint(&example.text);
        let shown: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(
            shown
                .iter()
                .any(|finding| finding.contains(example.expected())),
            "{}: {shown:#?}",
            example.file
        );
        // An update that is refused starts from an object that is not.
        let last = example.documents.len();
        assert!(
            findings.iter().all(|finding| finding.document == last),
            "{}: {shown:#?}",
            example.file
        );
    }
}

#[test]
fn what_a_general_json_schema_library_refuses_lint_refuses_too() {
    for example in examples("bad") {
        for object in &example.documents {
            let alone = serde_saphyr::to_string(object).unwrap();
            if !schema_accepts(example.kind(), object) {
                assert_ne!(crds::lint(&alone), [], "{}", example.file);
            }
        }
    }
}

#[test]
fn every_rule_of_a_kind_for_users_has_a_bad_example() {
    let expected: Vec<_> = examples("bad")
        .iter()
        .map(|example| example.expected().to_owned())
        .collect();
    let mut missing = Vec::new();
    for (kind, schema) in schemas() {
        let mut messages = Vec::new();
        rules(schema, &mut messages);
        for message in messages {
            // What is expected may begin with the field and the kind of fault.
            let told = |expected: &String| {
                let tails = expected
                    .match_indices(": ")
                    .map(|(at, _)| &expected[at + 2..]);
                tails
                    .chain([expected.as_str()])
                    .any(|tail| message.contains(tail))
            };
            if !expected.iter().any(told) {
                missing.push(format!("{kind}: {message}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The messages of all rules of a schema, its status apart, which users do not write.
fn rules(schema: &Value, out: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        out.push(
            rule["message"]
                .as_str()
                .expect("every rule has a message")
                .to_owned(),
        );
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        if name != "status" {
            rules(child, out);
        }
    }
    if schema["items"].is_object() {
        rules(&schema["items"], out);
    }
}

#[test]
fn lint_leaves_other_groups_alone_and_names_our_kinds_when_one_is_misspelt() {
    assert_eq!(
        crds::lint("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A_B}\n"),
        []
    );
    let findings =
        crds::lint("apiVersion: jiuzhou.io/v1alpha1\nkind: Regoin\nmetadata: {name: a}\n");
    assert_eq!(findings.len(), 1);
    let shown = findings[0].to_string();
    assert!(
        shown.contains("Regoin") && shown.contains("jiuzhou.io/v1alpha1 Region"),
        "{shown}"
    );
}

#[test]
fn lint_says_when_a_file_is_not_yaml_or_repeats_a_key() {
    for text in [
        "a: [",
        "apiVersion: jiuzhou.io/v1alpha1\nkind: Region\nkind: App\n",
    ] {
        let findings = crds::lint(text);
        assert_eq!(findings.len(), 1, "{text}");
        assert!(
            findings[0].message.starts_with("cannot be read as YAML"),
            "{}",
            findings[0]
        );
    }
}
