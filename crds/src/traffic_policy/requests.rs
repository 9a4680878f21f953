//! What is done for single requests: trying again, and knowing who asks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether requests that failed are tried again at another endpoint.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// How many times a request may be tried again, 0 to 3; 0 also where no connection was made; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3))]
    pub attempts: Option<i32>,
    /// After what; default `ConnectFailure`. Requests that change something are tried again only after `ConnectFailure` and `Refused`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
