//! Checks YAML as the API server would, without one: schema first, then CEL.
//!
//! ```text
//! YAML -> documents -> our kinds -> structure (lint/structure.rs) -> CEL rules -> findings
//! ```
//!
//! Messages are the server's, word for word where possible, so that what a pipeline prints can be
//! searched for. Objects of other groups are left to others, and nothing is said about what only
//! the province knows: whether a parent exists, whether an App fits.

mod structure;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use kube::core::cel::{ValidationError, Validator};
use serde_json::Value;

use crate::GROUP;
use structure::Structure;

/// What is wrong with one field of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Number of the YAML document, from 1; 0 when the file cannot be read as YAML at all.
    pub document: usize,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Path of the field, for example `spec.images[0].newTag`; empty for the object as a whole.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.kind.is_empty() {
            write!(f, "{} {:?}: ", self.kind, self.name)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything the server would refuse in these documents, in their order.
///
/// An object that occurs twice is an update of itself, as it is for `kubectl apply`: the second
/// one is also held against the rules on what may change.
pub fn lint(yaml: &str) -> Vec<Finding> {
    let documents: Vec<Value> = match serde_saphyr::from_multiple(yaml) {
        Ok(documents) => documents,
        Err(error) => return vec![unreadable(&error.to_string())],
    };
    let mut earlier: BTreeMap<[String; 3], Value> = BTreeMap::new();
    let mut findings = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let at = |field: &str, message: String| Finding {
            document: index + 1,
            kind: text(&document, "/kind"),
            name: text(&document, "/metadata/name"),
            field: field.to_owned(),
            message,
        };
        let api_version = text(&document, "/apiVersion");
        if !api_version.starts_with(&format!("{GROUP}/")) {
            continue;
        }
        let kind = format!("{api_version} {}", text(&document, "/kind"));
        let Some(schema) = KINDS.get(&kind) else {
            let known: Vec<_> = KINDS.keys().map(String::as_str).collect();
            let message = format!(
                "Unsupported value: {kind:?}: supported values: {}",
                known.join(", ")
            );
            findings.push(at("kind", message));
            continue;
        };
        let identity =
            ["/kind", "/metadata/namespace", "/metadata/name"].map(|path| text(&document, path));
        let object = structure::without_nulls(&document);
        let faults = check(schema, &object, earlier.get(&identity));
        findings.extend(
            faults
                .into_iter()
                .map(|(field, message)| at(&field, message)),
        );
        earlier.insert(identity, object);
    }
    findings
}

/// Schema and CEL, as pairs of field and message. As on the server, the rules are not asked about
/// an object whose shape they cannot rely on.
fn check(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<(String, String)> {
    let structure = Structure::of(schema, object);
    let reliable = structure.is_reliable();
    let mut faults = structure.faults;
    if reliable && let Err(broken) = Validator::new().validate(schema, object, old) {
        faults.extend(
            broken
                .into_iter()
                .map(|error| (error.field_path.clone(), explain(&error, object))),
        );
    }
    faults
}

/// The rule's message as the server words it; a plain value that is invalid is shown with it.
fn explain(error: &ValidationError, object: &Value) -> String {
    let message = &error.message;
    match error.reason.as_deref() {
        Some("FieldValueForbidden") => format!("Forbidden: {message}"),
        Some("FieldValueRequired") => format!("Required value: {message}"),
        Some("FieldValueDuplicate") => format!("Duplicate value: {message}"),
        _ => {
            let value = object.pointer(&pointer(&error.field_path));
            match value.filter(|value| !value.is_object() && !value.is_array()) {
                Some(value) => format!("Invalid value: {value}: {message}"),
                None => format!("Invalid value: {message}"),
            }
        }
    }
}

/// `spec.images[0].name` as a JSON Pointer.
fn pointer(field: &str) -> String {
    let steps = field.split(['.', '[', ']']).filter(|step| !step.is_empty());
    steps.flat_map(|step| ["/", step]).collect()
}

/// The schema of each of our kinds, by `apiVersion kind`.
static KINDS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(kinds);

fn kinds() -> BTreeMap<String, Value> {
    let mut kinds = BTreeMap::new();
    for crd in crate::all() {
        for version in &crd.spec.versions {
            let schema = version
                .schema
                .as_ref()
                .and_then(|s| s.open_api_v3_schema.as_ref());
            let schema = serde_json::to_value(schema).expect("a schema is plain data");
            let kind = format!(
                "{}/{} {}",
                crd.spec.group, version.name, crd.spec.names.kind
            );
            kinds.insert(kind, schema);
        }
    }
    kinds
}

fn unreadable(error: &str) -> Finding {
    Finding {
        document: 0,
        kind: String::new(),
        name: String::new(),
        field: String::new(),
        message: format!("cannot be read as YAML: {error}"),
    }
}

fn text(document: &Value, path: &str) -> String {
    document
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
