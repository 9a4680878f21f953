//! Whose tokens say who asks.

use serde::{Deserialize, Serialize};

/// Whose tokens are verified, and by which keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tokens {
    /// The claim `iss` of a token.
    pub issuer: String,
    /// One of them is in the claim `aud` of a token.
    pub audiences: Vec<String>,
    /// Public keys of the issuer: a JSON Web Key Set, as text.
    pub jwks: String,
}
