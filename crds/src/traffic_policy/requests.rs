//! What is done for single requests: trying again, and knowing who asks.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whether requests that failed are tried again at another endpoint.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = also_unquoted)]
#[x_kube(validation = Rule::new("!has(self.on) || !has(self.__true__)")
    .message("on must be there once, and true is what kubectl makes of on without quotes: remove spec.retries.true, also of the stored object, and write on with quotes").reason(Reason::FieldValueForbidden))]
pub struct Retries {
    /// How many times a request may be tried again, 0 to 3; 0 also where no connection was made; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3))]
    pub attempts: Option<i32>,
    /// After what; default `ConnectFailure`. Requests that change something are tried again only after `ConnectFailure` and `Refused`.
    #[serde(default, alias = "true", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub on: Vec<RetryOn>,
    /// Retries for a hundred requests of the last ten seconds, 0 to 100, besides three a second; default 20. Without such a bound retries multiply an overload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub budget_percent: Option<i32>,
}

impl Retries {
    /// How many times a request may be tried again, said or not.
    pub fn attempts(&self) -> i32 {
        self.attempts.unwrap_or(1)
    }

    /// After what, said or not.
    pub fn on(&self) -> &[RetryOn] {
        if self.on.is_empty() {
            &[RetryOn::ConnectFailure]
        } else {
            &self.on
        }
    }

    /// Retries for a hundred requests, said or not.
    pub fn budget_percent(&self) -> i32 {
        self.budget_percent.unwrap_or(20)
    }
}

/// To YAML 1.1, which kubectl reads, a bare `on` is the boolean true, and a key is text: `"true"`.
/// Unknown, it would be refused by a message that nobody understands.
fn also_unquoted(schema: &mut Schema) {
    let properties = schema.get_mut("properties");
    if let Some(properties) = properties.and_then(Value::as_object_mut)
        && let Some(mut unquoted) = properties.get("on").cloned()
    {
        unquoted["description"] =
            "The same as `on`: what kubectl makes of `on` without quotes.".into();
        properties.insert("true".into(), unquoted);
    }
}

/// After what a request is tried again.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum RetryOn {
    /// No connection came about.
    ConnectFailure,
    /// The endpoint said that it has not begun with the request.
    Refused,
    /// The connection broke before an answer came.
    Reset,
    /// The answer is 502, 503 or 504.
    GatewayError,
}

/// Whose tokens are verified, and by which keys.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// Who must have issued a token, as its claim `iss` says.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,
    /// For whom a token must have been issued, as its claim `aud` says: for any of these, 1 to 16.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub audiences: Vec<String>,
    /// Public keys of the issuer, a JSON Web Key Set as text; at most 65536 bytes.
    #[schemars(length(min = 2, max = 65_536))]
    pub jwks: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_kubectl_makes_of_a_bare_on_is_read_as_on_and_written_as_that() {
        let unquoted = json!({"attempts": 2, "true": ["Reset"]});
        let retries: Retries = serde_json::from_value(unquoted).unwrap();
        assert_eq!(retries.on(), [RetryOn::Reset]);
        let written = serde_json::to_value(&retries).unwrap();
        assert_eq!(written, json!({"attempts": 2, "on": ["Reset"]}));
    }
}
