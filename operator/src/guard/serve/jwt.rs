//! Verified tokens: who asks, as an issuer says it.
//!
//! ```text
//! request ─ bearer ─ known? ──────────────────────────────┬─ Claims ─ keys of limits
//!             token     └─ read (for us, in time) ─ turn ─┘
//!                            token                 keys (signature)
//! ```
//!
//! A request with a token that is known costs one keyed hash. Others cost one verification, of which only so
//! many run at one time that a flood of bad tokens leaves half of the machine to everybody else. Policies take
//! turns: a flood for one lets those who come by another wait for one verification, not for all of it. What is
//! bad, has ended or is not there gives no key; `onMissing` of the rule decides.
//!
//! No claim leaves this module as it is: keys are pseudonyms, made with a secret of this process.

mod keys;
#[cfg(test)]
mod tests;
mod token;
mod verified;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use http::HeaderMap;
use ring::hmac;
use serde_json::{Map, Value};
use shield::PolicySettings;
use shield::policy::KeyPart;
use tokio::sync::{Semaphore, SemaphorePermit};

use self::keys::KeyId;
pub(in crate::guard) use self::keys::{KeySet, KeysError};
use self::token::{Token, bearer};
use self::verified::{Tag, Verified};
use super::metrics::TokenMetrics;
use crate::guard::config::Tokens;

/// How long a token waits to be verified. One takes less than a tenth of a millisecond (of P-384 two), so who
/// waits longer waits because of a flood, and citizens shall not.
const TURN_MAX: Duration = Duration::from_millis(100);

/// Tokens of one policy that wait to be verified. One thread verifies about this many in [`TURN_MAX`]; those
/// behind would wait in vain.
const WAITING_MAX: usize = 1000;

/// Characters of a pseudonym: 96 bits, of which no two are the same among any number of citizens.
const PSEUDONYM: usize = 16;

/// What is told apart by a policy, from what is told of each token.
const CLAIMS_MAX: usize = 8;

/// What all policies share: what is known, secrets, and whose turn it is.
#[derive(Debug)]
pub(super) struct Desk {
    verified: Verified,
    /// Of tags of tokens.
    tags: hmac::Key,
    /// Of pseudonyms.
    pseudonyms: hmac::Key,
    turns: Semaphore,
    metrics: TokenMetrics,
}

/// Verifies the tokens of one issuer for one policy.
#[derive(Debug)]
pub(super) struct Verifier {
    wanted: Tokens,
    names: Vec<String>,
    keys: KeySet,
    /// What is asked of a token, but for the keys: two policies that ask the same share what is known.
    scope: hmac::Tag,
    waiting: Semaphore,
    /// As many as the desk has. Only who has one queues there, so that each policy has a few in its queue at
    /// most, however many tokens it has to verify.
    turns: Semaphore,
    desk: Arc<Desk>,
}

/// What a verified token says of what policies ask for.
#[derive(Debug)]
pub(super) struct Claims {
    /// When it ends, in seconds since 1970.
    until: u64,
    /// The key that verified it.
    key: KeyId,
    /// By the place of the claim's name in the verifier.
    values: Box<[Option<[u8; PSEUDONYM]>]>,
}

/// Why tokens cannot be verified.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerifierError {
    #[error("jwks {0}")]
    Keys(#[from] KeysError),
    #[error("{0} claims are keys of its rules; at most {CLAIMS_MAX} are allowed")]
    TooManyClaims(usize),
}

/// The claims that are keys of a policy.
pub(in crate::guard) fn claims_of(settings: &PolicySettings) -> BTreeSet<&str> {
    let limits = settings.rate_limits.iter().map(|rule| &rule.key);
    let hot_keys = settings.hot_keys.iter().map(|rule| &rule.key);
    let parts = limits.chain(hot_keys).flatten();
    parts.filter_map(claim_of).collect()
}

/// Why a policy may not have so many claims as keys.
pub(in crate::guard) fn too_many(claims: &BTreeSet<&str>) -> Option<String> {
    let count = claims.len();
    (count > CLAIMS_MAX).then(|| VerifierError::TooManyClaims(count).to_string())
}

fn claim_of(part: &KeyPart) -> Option<&str> {
    match part {
        KeyPart::JwtClaim(name) => Some(name),
        KeyPart::Header(_) | KeyPart::Query(_) | KeyPart::Cookie(_) | KeyPart::ClientAddress => {
            None
        }
    }
}

impl Desk {
    /// `seed` is random, and nobody else knows it.
    pub(super) fn new(seed: [u8; 16], metrics: TokenMetrics) -> Arc<Self> {
        let seed = hmac::Key::new(hmac::HMAC_SHA256, &seed);
        let secret = |purpose: &[u8]| {
            let derived = hmac::sign(&seed, purpose);
            hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
        };
        Arc::new(Self {
            verified: Verified::new(),
            tags: secret(b"tags of tokens"),
            pseudonyms: secret(b"pseudonyms of claims"),
            turns: Semaphore::new(turns()),
            metrics,
        })
    }

    /// A name for the value of a claim by which nobody finds it out. Whole numbers are the same as their text;
    /// others, and those beyond 64 bits, are read as the nearest that a float can be, which is one for many
    /// citizens, and so they are no key.
    fn pseudonym(&self, name: &str, value: &Value) -> Option<[u8; PSEUDONYM]> {
        let text = match value {
            Value::String(text) if !text.is_empty() => Cow::Borrowed(text.as_str()),
            Value::Number(number) if !number.is_f64() => Cow::Owned(number.to_string()),
            Value::Number(_)
            | Value::String(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Array(_)
            | Value::Object(_) => return None,
        };
        self.hidden(name, &text)
    }

    /// A key of a rule as it may be shown, where clients send in it what is nobody else's to see.
    pub(super) fn hide(&self, rule: &str, key: &str) -> String {
        let hidden = self.hidden(rule, key);
        hidden.map_or_else(String::new, |hidden| {
            String::from_utf8_lossy(&hidden).into_owned()
        })
    }

    fn hidden(&self, name: &str, text: &str) -> Option<[u8; PSEUDONYM]> {
        let mut all = hmac::Context::with_key(&self.pseudonyms);
        all.update(&name.len().to_le_bytes());
        all.update(name.as_bytes());
        all.update(text.as_bytes());
        let mut pseudonym = [0; PSEUDONYM];
        let bytes = all.sign();
        let encoded = BASE64.encode_slice(&bytes.as_ref()[..PSEUDONYM / 4 * 3], &mut pseudonym);
        encoded.ok().map(|_| pseudonym)
    }
}

impl Verifier {
    pub(super) fn new(
        wanted: &Tokens,
        claims: &BTreeSet<&str>,
        desk: &Arc<Desk>,
    ) -> Result<Self, VerifierError> {
        if claims.len() > CLAIMS_MAX {
            return Err(VerifierError::TooManyClaims(claims.len()));
        }
        let mut scope = hmac::Context::with_key(&desk.tags);
        let audiences = wanted.audiences.iter().map(String::as_str);
        let parts = audiences.chain([wanted.issuer.as_str()]);
        scope.update(&wanted.audiences.len().to_le_bytes());
        for part in parts.chain(claims.iter().copied()) {
            scope.update(&part.len().to_le_bytes());
            scope.update(part.as_bytes());
        }
        Ok(Self {
            wanted: wanted.clone(),
            names: claims.iter().map(|name| (*name).to_owned()).collect(),
            keys: KeySet::read(&wanted.jwks)?,
            scope: scope.sign(),
            waiting: Semaphore::new(WAITING_MAX),
            turns: Semaphore::new(turns()),
            desk: Arc::clone(desk),
        })
    }

    /// Whether it does what a policy wants.
    pub(super) fn is_for(&self, wanted: &Tokens, claims: &BTreeSet<&str>) -> bool {
        self.wanted == *wanted
            && self
                .names
                .iter()
                .map(String::as_str)
                .eq(claims.iter().copied())
    }

    /// What the token of a request says, if there is one and it is good.
    pub(super) async fn claims(&self, headers: &HeaderMap) -> Option<Arc<Claims>> {
        self.claims_at(bearer(headers)?, now()).await
    }

    async fn claims_at(&self, token: &str, now: u64) -> Option<Arc<Claims>> {
        let tag = self.tag(token);
        if let Some(known) = self.known(&tag, now) {
            return Some(known);
        }
        let metrics = &self.desk.metrics;
        let Some(token) = Token::read(token, &self.wanted, now) else {
            metrics.invalid.inc();
            return None;
        };
        if !self.keys.fits(token.algorithm, token.key.as_deref()) {
            metrics.forged.inc();
            return None;
        }
        let Some(_turn) = self.turn().await else {
            metrics.overloaded.inc();
            return None;
        };
        // Requests of one citizen come together; one of them was first.
        if let Some(known) = self.known(&tag, now) {
            return Some(known);
        }
        let name = token.key.as_deref();
        let signature = &token.signature;
        let key = self
            .keys
            .verify(token.algorithm, name, token.message, signature);
        let Some(key) = key else {
            metrics.forged.inc();
            return None;
        };
        let claims = Arc::new(Claims {
            until: token.until,
            key,
            values: self.values(&token.claims),
        });
        self.desk.verified.insert(tag, Arc::clone(&claims), now);
        Some(claims)
    }

    /// Waits for the turn of a token to be verified; none where too many others of the policy wait, or do for
    /// too long.
    async fn turn(&self) -> Option<[SemaphorePermit<'_>; 2]> {
        let _place = self.waiting.try_acquire().ok()?;
        let turn = async {
            let own = self.turns.acquire().await.ok()?;
            let of_all = self.desk.turns.acquire().await.ok()?;
            Some([own, of_all])
        };
        tokio::time::timeout(TURN_MAX, turn).await.ok()?
    }

    /// The key for a claim, unless the token has none that could be one.
    pub(super) fn key<'a>(&self, claims: &'a Claims, name: &str) -> Option<Cow<'a, [u8]>> {
        let place = self.names.iter().position(|known| known == name)?;
        let value = claims.values.get(place)?.as_ref()?;
        Some(Cow::Borrowed(value.as_slice()))
    }

    /// What is known counts as long as the issuer has the key by which it was verified.
    fn known(&self, tag: &Tag, now: u64) -> Option<Arc<Claims>> {
        let known = self.desk.verified.get(tag, now)?;
        self.keys.has(&known.key).then_some(known)
    }

    fn tag(&self, token: &str) -> Tag {
        let mut all = hmac::Context::with_key(&self.desk.tags);
        all.update(self.scope.as_ref());
        all.update(token.as_bytes());
        let mut tag = Tag::default();
        tag.copy_from_slice(&all.sign().as_ref()[..16]);
        tag
    }

    fn values(&self, claims: &Map<String, Value>) -> Box<[Option<[u8; PSEUDONYM]>]> {
        let values = self.names.iter().map(|name| {
            let value = claims.get(name)?;
            self.desk.pseudonym(name, value)
        });
        values.collect()
    }
}

/// How many tokens are verified at one time. The other half of the threads go on whatever tokens come.
fn turns() -> usize {
    let threads = available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    threads.div_ceil(2)
}

/// Seconds since 1970. By a clock that stands before that every token has ended.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(u64::MAX, |since| since.as_secs())
}
