//! Bounded scalars that several kinds share.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A Kubernetes quantity, as text: `"40"`, `500m`, `80Gi`. Not negative.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "maxLength": 24,
            "pattern": r"^[0-9]{1,18}(\.[0-9]{1,3})?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$",
        })
    }
}

/// An amount of one named resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceQuantity {
    /// Resource name, for example `cpu`, `memory`, `pods`, `requestsPerSecond`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Amount of it, for example `"40"`, `500m` or `80Gi`.
    pub quantity: Quantity,
}

/// A span of time as text: `500ms`, `30s`, `10m`, `72h`, or up to four of them, `1m30s`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Period(pub String);

impl Period {
    /// The span of that many milliseconds, in the largest unit that says it exactly.
    pub fn from_millis(millis: i64) -> Self {
        let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let exact = units.iter().find(|(factor, _)| millis % factor == 0);
        let (factor, unit) = exact.copied().unwrap_or((1, "ms"));
        Self(format!("{}{unit}", millis / factor))
    }

    /// The span in milliseconds, or `None` when the text is not a period.
    pub fn millis(&self) -> Option<i64> {
        let mut rest = self.0.as_str();
        let mut sum: i64 = 0;
        loop {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, others) = rest.split_at(digits);
            let letters = others.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, others) = others.split_at(letters);
            let factor = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return None,
            };
            sum = sum.checked_add(number.parse::<i64>().ok()?.checked_mul(factor)?)?;
            if others.is_empty() {
                return Some(sum);
            }
            rest = others;
        }
    }
}

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 2, "maxLength": 16, "pattern": "^([0-9]{1,9}(ms|s|m|h)){1,4}$",
        })
    }
}

/// A point in time, to the second, as RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub jiff::Timestamp);

impl Timestamp {
    /// The point in time that many milliseconds after the Unix epoch, cut to the second.
    pub fn from_millis(millis: i64) -> Self {
        Self(jiff::Timestamp::from_second(millis.div_euclid(1000)).unwrap_or_default())
    }

    /// Milliseconds since the Unix epoch.
    pub fn millis(self) -> i64 {
        self.0.as_millisecond()
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "maxLength": 40})
    }
}

/// A network zone of a government cloud. Nothing crosses zones unless it is declared.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum Zone {
    /// Reachable from the Internet.
    Internet,
    /// The public area of the government extranet.
    ExtranetPublic,
    /// The dedicated area of the government extranet.
    ExtranetDedicated,
}

/// How sensitive data is; a cluster may hold data up to its own grade.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum DataGrade {
    /// General data.
    General,
    /// Important data.
    Important,
    /// Core data.
    Core,
}

/// Selects objects by their labels; an empty selector selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that must all be present with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<SelectorExpression>,
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelectorExpression {
    /// Label key.
    #[schemars(length(min = 1, max = 316))]
    pub key: String,
    /// How the label's value relates to `values`.
    pub operator: SelectorOperator,
    /// Values for `In` and `NotIn`; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

/// Relation of a label's value to a list of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum SelectorOperator {
    /// The label is present and its value is listed.
    In,
    /// The label is absent or its value is not listed.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

impl std::str::FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_one_number_with_a_unit_or_several() {
        let millis = |text: &str| Period(text.to_owned()).millis();
        assert_eq!(millis("800ms"), Some(800));
        assert_eq!(millis("1m30s"), Some(90_000));
        assert_eq!(millis("0s"), Some(0));
        for bad in ["", "5", "s", "1d", "1m30", "99999999999999h", "1s-1s"] {
            assert_eq!(millis(bad), None, "{bad}");
        }
    }
}
