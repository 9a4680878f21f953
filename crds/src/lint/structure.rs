//! An object against a structural schema: types, required and unknown fields, bounds, list keys.
//!
//! Written here because a general JSON Schema library knows neither list types, unknown fields
//! nor embedded resources, words its messages otherwise than the server, and is twenty crates; the
//! tests hold the two against each other.

use regex::Regex;
use serde_json::{Map, Value};

/// What is wrong with an object's shape.
#[derive(Default)]
pub(super) struct Structure {
    /// Pairs of field and message.
    pub(super) faults: Vec<(String, String)>,
    unreliable: bool,
}

impl Structure {
    pub(super) fn of(schema: &Value, object: &Value) -> Self {
        let mut structure = Self::default();
        structure.name(object);
        structure.node("", schema, object);
        structure
    }

    /// Whether rules may read the object: every value has its type and is in its bounds.
    pub(super) fn is_reliable(&self) -> bool {
        !self.unreliable
    }

    fn say(&mut self, path: &str, message: String) {
        self.faults.push((path.to_owned(), message));
    }

    /// A fault after which the server asks no rules.
    fn stop(&mut self, path: &str, message: String) {
        self.unreliable = true;
        self.say(path, message);
    }

    fn name(&mut self, object: &Value) {
        let path = "metadata.name";
        let metadata = &object["metadata"];
        match metadata["name"].as_str() {
            None if metadata["generateName"].is_string() => {}
            None => {
                self.say(path, "Required value: name or generateName is required".to_owned());
            }
            Some(name) if !is_subdomain(name) => self.say(
                path,
                format!(
                    "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
                ),
            ),
            Some(_) => {}
        }
    }

    fn node(&mut self, path: &str, schema: &Value, value: &Value) {
        if let Some(wanted) = schema["type"].as_str()
            && !has_type(value, wanted)
        {
            let found = type_name(value);
            self.stop(
                path,
                format!(
                    "Invalid value: {found:?}: {path} in body must be of type {wanted}: {found:?}"
                ),
            );
            return;
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let words: Vec<_> = allowed.iter().map(Value::to_string).collect();
            self.stop(
                path,
                format!(
                    "Unsupported value: {value}: supported values: {}",
                    words.join(", ")
                ),
            );
        }
        match value {
            Value::String(text) => self.text(path, schema, text),
            Value::Number(number) => self.number(path, schema, number.as_f64().unwrap_or_default()),
            Value::Array(items) => self.list(path, schema, items),
            Value::Object(fields) => self.object(path, schema, fields),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Like the server, names the first bound that does not hold and not the pattern as well.
    fn text(&mut self, path: &str, schema: &Value, text: &str) {
        let length = text.chars().count() as u64;
        let fits = |pattern: &str| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text));
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            self.stop(path, format!("Too long: may not be more than {most} bytes"));
        } else if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
            self.say(
                path,
                format!(
                    "Invalid value: {text:?}: {path} in body should be at least {least} chars long"
                ),
            );
        } else if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| !fits(pattern)) {
            self.say(
                path,
                format!("Invalid value: {text:?}: {path} in body should match '{pattern}'"),
            );
        }
        if schema["format"] == "date-time" && !is_time(text) {
            self.stop(
                path,
                format!(
                    "Invalid value: {text:?}: {path} in body must be of type date-time: {text:?}"
                ),
            );
        }
    }

    fn number(&mut self, path: &str, schema: &Value, number: f64) {
        if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
            self.say(path, format!("Invalid value: {number}: {path} in body should be greater than or equal to {least}"));
        }
        if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
            self.say(
                path,
                format!(
                    "Invalid value: {number}: {path} in body should be less than or equal to {most}"
                ),
            );
        }
    }

    fn list(&mut self, path: &str, schema: &Value, items: &[Value]) {
        let length = items.len() as u64;
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| length > *most) {
            self.stop(
                path,
                format!("Too many: {length}: must have at most {most} items"),
            );
        }
        if let Some(least) = schema["minItems"].as_u64().filter(|least| length < *least) {
            self.say(
                path,
                format!(
                    "Invalid value: {length}: {path} in body should have at least {least} items"
                ),
            );
        }
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.node(&path, &schema["items"], item);
            let identity = identity(schema, item);
            if let Some(identity) = identity
                && items[..index]
                    .iter()
                    .any(|other| self::identity(schema, other).as_ref() == Some(&identity))
            {
                self.say(&path, format!("Duplicate value: {identity}"));
            }
        }
    }

    fn object(&mut self, path: &str, schema: &Value, fields: &Map<String, Value>) {
        if let Some(most) = schema["maxProperties"]
            .as_u64()
            .filter(|most| fields.len() as u64 > *most)
        {
            self.stop(
                path,
                format!("Too many: {}: must have at most {most} items", fields.len()),
            );
        }
        let embedded = schema["x-kubernetes-embedded-resource"] == true;
        let own = ["apiVersion", "kind"].iter().filter(|_| embedded).copied();
        let required = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        for name in required.chain(own) {
            if !fields.contains_key(name) {
                self.stop(&join(path, name), "Required value".to_owned());
            }
        }
        let others = &schema["additionalProperties"];
        let any = schema["x-kubernetes-preserve-unknown-fields"] == true;
        for (name, value) in fields {
            let path = join(path, name);
            if let Some(schema) = schema["properties"].get(name) {
                self.node(&path, schema, value);
            } else if others.is_object() {
                self.node(&path, others, value);
            } else if !any && !is_root(&path) {
                self.say(&path, format!("unknown field {path:?}"));
            }
        }
    }
}

/// What every object has beside what its kind's schema says.
fn is_root(path: &str) -> bool {
    matches!(path, "apiVersion" | "kind" | "metadata")
}

/// The object as the server keeps it: a null where none is allowed counts as absent.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                kept.map(|(name, value)| (name.clone(), without_nulls(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// What must be unique about a list item, if anything must.
fn identity(schema: &Value, item: &Value) -> Option<Value> {
    match schema["x-kubernetes-list-type"].as_str()? {
        "set" => Some(item.clone()),
        "map" => {
            let keys = schema["x-kubernetes-list-map-keys"]
                .as_array()?
                .iter()
                .filter_map(Value::as_str);
            Some(
                keys.filter_map(|key| Some((key.to_owned(), item.get(key)?.clone())))
                    .collect(),
            )
        }
        _ => None,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn has_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => type_name(value) == wanted,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// RFC 3339 to the letter: jiff alone would also take other forms of ISO 8601.
fn is_time(text: &str) -> bool {
    let form = r"^\d{4}-\d{2}-\d{2}[tT]\d{2}:\d{2}:\d{2}(\.\d+)?([zZ]|[+-]\d{2}:\d{2})$";
    Regex::new(form).is_ok_and(|form| form.is_match(text))
        && text.parse::<jiff::Timestamp>().is_ok()
}
