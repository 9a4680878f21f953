//! Labels that are asked for.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The first operator that Kubernetes does not know, if there is one.
pub(super) fn unknown_operator(selector: &LabelSelector) -> Option<&str> {
    let expressions = selector.match_expressions.iter().flatten();
    expressions
        .map(|expression| expression.operator.as_str())
        .find(|operator| !matches!(*operator, "In" | "NotIn" | "Exists" | "DoesNotExist"))
}

/// Whether labels are those that are asked for; an empty selector asks for nothing.
pub(super) fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let mut pairs = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    pairs.all(|(key, value)| labels.get(key) == Some(value))
        && expressions.all(|expression| {
            let value = labels.get(&expression.key);
            let listed = |value| expression.values.iter().flatten().any(|v| v == value);
            match expression.operator.as_str() {
                "In" => value.is_some_and(listed),
                "NotIn" => !value.is_some_and(listed),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_operator_of_a_selector_counts() {
        let labels = BTreeMap::from([("team".to_owned(), "tax".to_owned())]);
        let holds = |operator: &str, key: &str, values: &[&str]| {
            let selector = json!({"matchExpressions": [
                {"key": key, "operator": operator, "values": values}]});
            matches(&serde_json::from_value(selector).unwrap(), &labels)
        };
        assert!(holds("In", "team", &["tax", "law"]) && !holds("In", "team", &["law"]));
        assert!(holds("NotIn", "team", &["law"]) && !holds("NotIn", "team", &["tax"]));
        assert!(
            holds("NotIn", "other", &["law"]),
            "absent is not in any list"
        );
        assert!(holds("Exists", "team", &[]) && !holds("Exists", "other", &[]));
        assert!(holds("DoesNotExist", "other", &[]) && !holds("DoesNotExist", "team", &[]));
        assert!(
            !holds("Near", "team", &["tax"]),
            "what is not understood selects nothing"
        );
        assert!(matches(&LabelSelector::default(), &labels));
    }
}
