//! The API conventions, held over every node of every schema.

use serde_json::Value;

/// Conditions of structural schemas and of our own taste, for one node.
fn faults(path: &str, node: &Value, out: &mut Vec<String>) {
    let kind = node["type"].as_str();
    let any = node["x-kubernetes-preserve-unknown-fields"] == true;
    let mut say = |what: &str| out.push(format!("{path}: {what}"));
    if kind.is_none() && !any && node["x-kubernetes-int-or-string"] != true {
        say("has no type");
    }
    if node.get("$ref").is_some() || node.get("nullable").is_some() {
        say("holds $ref or nullable");
    }
    let description = node["description"].as_str().unwrap_or_default();
    let is_item = path.ends_with("[]") || path.ends_with("{}");
    if description.is_empty() && !is_item {
        say("has no description");
    }
    if description.contains("Auto-generated") {
        say("has kube's placeholder as description");
    }
    match kind {
        Some("number") => say("is a floating-point number"),
        Some("integer") if node.get("minimum").is_none() => say("has no minimum"),
        Some("integer")
            if node["format"]
                .as_str()
                .is_some_and(|f| f.starts_with("uint")) =>
        {
            say("is unsigned");
        }
        Some("string") if node.get("maxLength").is_none() && node.get("enum").is_none() => {
            say("has no maxLength");
        }
        Some("array") => {
            if node.get("maxItems").is_none() {
                say("has no maxItems");
            }
            if node.get("x-kubernetes-list-type").is_none() {
                say("has no list type");
            }
        }
        Some("object")
            if node["additionalProperties"].is_object() && node.get("maxProperties").is_none() =>
        {
            say("is a map without maxProperties");
        }
        _ => {}
    }
}

fn walk(path: &str, node: &Value, out: &mut Vec<String>) {
    faults(path, node, out);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        let known =
            matches!(name.as_str(), "apiVersion" | "kind" | "metadata") && !path.contains('.');
        if !known {
            walk(&format!("{path}.{name}"), child, out);
        }
    }
    if node["items"].is_object() {
        walk(&format!("{path}[]"), &node["items"], out);
    }
    if node["additionalProperties"].is_object() {
        walk(&format!("{path}{{}}"), &node["additionalProperties"], out);
    }
}

fn schemas() -> Vec<(String, Value, Value)> {
    crds::all()
        .into_iter()
        .map(|crd| {
            let value = serde_json::to_value(&crd).unwrap();
            let version = value["spec"]["versions"][0].clone();
            let kind = value["spec"]["names"]["kind"].as_str().unwrap().to_owned();
            (kind, version["schema"]["openAPIV3Schema"].clone(), value)
        })
        .collect()
}

#[test]
fn every_node_is_structural_bounded_and_described() {
    let mut out = Vec::new();
    for (kind, schema, _) in schemas() {
        walk(&kind, &schema, &mut out);
    }
    assert!(out.is_empty(), "\n{}", out.join("\n"));
}

#[test]
fn the_checker_sees_each_fault() {
    let bad = serde_json::json!({
        "type": "object", "description": "x", "properties": {
            "a": {"type": "string", "description": "x"},
            "b": {"type": "array", "description": "x", "items": {"type": "number"}},
            "c": {"description": "x"},
            "d": {"type": "integer"},
        },
    });
    let mut out = Vec::new();
    walk("Kind", &bad, &mut out);
    for want in [
        "a: has no maxLength",
        "b: has no maxItems",
        "b: has no list type",
        "b[]: is a floating",
        "c: has no type",
        "d: has no minimum",
        "d: has no description",
    ] {
        assert!(
            out.iter().any(|o| o.contains(want)),
            "{want} not in {out:?}"
        );
    }
}

#[test]
fn kinds_for_users_print_at_most_seven_columns_age_last_and_are_in_one_category() {
    for (kind, _, crd) in schemas() {
        if crd["spec"]["names"]["categories"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            continue;
        }
        assert_eq!(crd["spec"]["names"]["categories"][0], "jiuzhou", "{kind}");
        let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"]
            .as_array()
            .unwrap();
        let shown: Vec<_> = columns
            .iter()
            .filter(|c| c["priority"].as_i64().unwrap_or(0) == 0)
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert!(shown.len() <= 7, "{kind}: {shown:?}");
        assert_eq!(shown.last(), Some(&"Age"), "{kind}");
    }
}

#[test]
fn every_status_starts_as_unknown_without_a_write() {
    for (kind, schema, _) in schemas() {
        let status = &schema["properties"]["status"];
        if status.is_object() {
            assert_eq!(
                status["default"]["conditions"][0]["status"], "Unknown",
                "{kind}"
            );
        }
    }
}

#[test]
fn a_policy_that_nobody_looks_at_says_where_it_belongs() {
    let (_, policy, _) = schemas()
        .into_iter()
        .find(|(kind, ..)| kind == "TrafficPolicy")
        .unwrap();
    let first = &policy["properties"]["status"]["default"]["conditions"][0];
    let message = first["message"].as_str().unwrap();
    for words in ["only the hub looks at policies of Apps", "name HTTPRoutes"] {
        assert!(message.contains(words), "{message}");
    }
}

/// `kubectl explain` shows what a list is, and then what each of its items is.
#[test]
fn an_item_of_a_policy_is_not_said_in_the_words_of_its_list() {
    let (_, policy, _) = schemas()
        .into_iter()
        .find(|(kind, ..)| kind == "TrafficPolicy")
        .unwrap();
    let fields = policy["properties"]["spec"]["properties"]
        .as_object()
        .unwrap();
    for (name, field) in fields {
        let item = field["items"]["description"].as_str().unwrap_or_default();
        let list = field["description"].as_str().unwrap();
        let begins = item.trim_end_matches('.');
        assert!(
            item.is_empty() || !list.contains(begins),
            "{name}: {list} {item}"
        );
    }
}

#[test]
fn the_allowed_kinds_of_the_rule_are_those_of_the_code() {
    let (_, app, _) = schemas()
        .into_iter()
        .find(|(kind, ..)| kind == "App")
        .unwrap();
    let rule = app["properties"]["spec"]["properties"]["manifests"]["x-kubernetes-validations"][0]
        ["rule"]
        .as_str()
        .unwrap();
    // Grouped by version, and not one list of joined names: the server refuses the cost of joining.
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (group, version, kind, _) in crds::ALLOWED_KINDS {
        let version = if group.is_empty() {
            (*version).to_owned()
        } else {
            format!("{group}/{version}")
        };
        match groups.iter_mut().find(|(known, _)| *known == version) {
            Some((_, kinds)) => kinds.push(format!("'{kind}'")),
            None => groups.push((version, vec![format!("'{kind}'")])),
        }
    }
    let terms: Vec<_> = groups
        .iter()
        .map(|(version, kinds)| {
            format!(
                "m.apiVersion == '{version}' && m.kind in [{}]",
                kinds.join(", ")
            )
        })
        .collect();
    assert_eq!(rule, format!("self.all(m, {})", terms.join(" || ")));
}
