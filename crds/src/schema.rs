//! Small helpers that several kinds share.

use std::collections::BTreeMap;

use crate::scalar::{Selector, SelectorOperator};

/// Whether `text` fits one of the few name patterns of this crate, without a regex engine.
pub fn is_valid_name(text: &str, pattern: &str) -> bool {
    match pattern {
        "^[-a-zA-Z0-9]+$" => text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
        "^[a-z][a-z0-9]*$" => {
            let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(rest)
        }
        "^[0-9a-f]{20}$" => {
            text.len() == 20 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        }
        _ => {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
        }
    }
}

/// Kubernetes label-selector semantics: every requirement must hold, an empty selector holds.
pub fn label_selector_matches(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    selector
        .match_labels
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|e| {
            let value = labels.get(&e.key);
            match e.operator {
                SelectorOperator::In => value.is_some_and(|v| e.values.contains(v)),
                SelectorOperator::NotIn => value.is_none_or(|v| !e.values.contains(v)),
                SelectorOperator::Exists => value.is_some(),
                SelectorOperator::DoesNotExist => value.is_none(),
            }
        })
}
