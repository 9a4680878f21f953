//! A token as it came, and what can be said of it before anybody looks at its signature.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::keys::Algorithm;
use crate::guard::config::Tokens;

/// Bytes of a token. Tokens with the roles of an official have two or three thousand.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How far the clocks of issuer and guard may be apart, in seconds.
const LEEWAY: u64 = 60;

/// A token that would be good if its signature were.
pub(super) struct Token<'t> {
    pub(super) algorithm: Algorithm,
    /// The name of the key that signed it.
    pub(super) key: Option<String>,
    /// What is signed.
    pub(super) message: &'t [u8],
    pub(super) signature: Vec<u8>,
    pub(super) claims: Map<String, Value>,
    /// When it ends, in seconds since 1970.
    pub(super) until: u64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// The token of a request: the one of its one `Authorization` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let only = all.next().filter(|_| all.next().is_none())?;
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    let is_bearer = scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN_BYTES_MAX;
    is_bearer.then_some(token)
}

impl<'t> Token<'t> {
    /// Reads a token, if it is for these audiences, of this issuer, and of this time.
    pub(super) fn read(token: &'t str, wanted: &Tokens, now: u64) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let header: Header = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
        // What a token declares critical must be understood, and nothing of that kind is.
        if header.crit.is_some() {
            return None;
        }
        let algorithm = Algorithm::named(&header.alg)?;
        let claims: Map<String, Value> =
            serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        let is_meant = claims.get("iss").and_then(Value::as_str) == Some(&wanted.issuer)
            && is_for(claims.get("aud")?, &wanted.audiences);
        let until = seconds(claims.get("exp")?)?.saturating_add(LEEWAY);
        let from = claims.get("nbf").map_or(Some(0), seconds)?;
        let is_valid = now < until && from <= now.saturating_add(LEEWAY);
        if !is_meant || !is_valid {
            return None;
        }
        Some(Self {
            algorithm,
            key: header.kid,
            message: message.as_bytes(),
            signature: BASE64.decode(signature).ok()?,
            claims,
            until,
        })
    }
}

fn is_for(audience: &Value, wanted: &[String]) -> bool {
    let is_wanted = |one: &Value| {
        let one = one.as_str();
        one.is_some_and(|one| wanted.iter().any(|wanted| wanted == one))
    };
    match audience {
        Value::Array(all) => all.iter().any(is_wanted),
        Value::String(_) => is_wanted(audience),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

/// Seconds since 1970, of which RFC 7519 allows fractions; these do not count.
fn seconds(value: &Value) -> Option<u64> {
    let whole = |float: f64| {
        let text = format!("{:.0}", float.floor());
        text.parse().ok()
    };
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}
