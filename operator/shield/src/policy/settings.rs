//! What a policy says, as it is handed to a guard.

use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use crate::adaptive::LIMIT_MAX;
use crate::breaker::BreakerSettings;
use crate::concurrency::Limit;
use crate::hot_keys::HotKeysSettings;
use crate::rate::Quota;
use crate::tier::Tier;

/// What protects the routes of one target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySettings {
    /// `namespace/name`, as refusals name it.
    pub name: String,
    /// How many requests may pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
    /// Keys that make up too much of the requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hot_keys: Vec<HotKeyRule>,
    /// When the target is left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakers: Vec<BreakerRule>,
    /// How many requests may be under way; absent means no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyRule>,
    /// Kinds of requests that are not treated alike; none means one class of tier General.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassRule>,
}

/// How many requests may pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Unique among the rules of the policy.
    pub name: String,
    /// Over what it is counted. A guard enforces its own share of what is wider than itself.
    pub scope: Scope,
    /// What is counted apart; none means all requests together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<KeyPart>,
    /// What becomes of a request that has no such key.
    #[serde(default)]
    pub on_missing: OnMissing,
    /// How many; this guard's share of it.
    pub quota: Quota,
    /// Whether it refuses or only counts.
    #[serde(default)]
    pub mode: Mode,
    /// How long a request may wait for its turn; zero refuses at once.
    #[serde(default)]
    pub max_wait: Duration,
    /// How long it takes from a third of the rate to the whole after a pause; zero means at once.
    #[serde(default)]
    pub warm_up: Duration,
    /// Keys that are told apart at one time.
    #[serde(default = "keys_default")]
    pub keys: u32,
}

const fn keys_default() -> u32 {
    100_000
}

/// Names of headers as text, refused where they are none.
mod header_name {
    use http::HeaderName;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(name: &HeaderName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderName, D::Error> {
        let text = String::deserialize(from)?;
        let name = text.parse();
        name.map_err(|_| D::Error::custom(format_args!("{text:?} is not the name of a header")))
    }
}

/// Over what a limit is counted, in the order in which limits are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// This guard alone.
    Instance,
    /// All guards of a cluster.
    Cluster,
    /// All guards of a Region.
    Region,
    /// All guards of the province.
    Province,
}

/// Where a part of a key stands in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyPart {
    /// A header.
    Header(#[serde(with = "header_name")] HeaderName),
    /// A parameter of the query.
    Query(String),
    /// A cookie.
    Cookie(String),
    /// The address of the client.
    ClientAddress,
    /// A claim of a token that was verified. Who reads it hands in a pseudonym: labels of hot keys are shown
    /// to people, and claims are personal data.
    JwtClaim(String),
}

/// What becomes of a request without a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnMissing {
    /// It is refused.
    Refuse,
    /// All such requests are one key together.
    #[default]
    Share,
    /// The rule says nothing about it.
    Skip,
}

/// Whether a rule refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// It does.
    #[default]
    Enforce,
    /// It counts what it would refuse, with a state of its own.
    Shadow,
}

/// Keys that make up too much of the requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HotKeyRule {
    /// Unique among the rules of the policy.
    pub name: String,
    /// What is looked at; a request without it is no key.
    pub key: Vec<KeyPart>,
    /// When a key is hot.
    pub hot: HotKeysSettings,
    /// What each hot key may do.
    pub limit: Quota,
    /// Whether it refuses or only counts.
    #[serde(default)]
    pub mode: Mode,
}

impl HotKeyRule {
    /// Whether two rules look at the same keys.
    pub(super) fn sees_as(&self, other: &Self) -> bool {
        let Self {
            name,
            key,
            hot: _,
            limit: _,
            mode,
        } = self;
        *name == other.name && *key == other.key && *mode == other.mode
    }
}

/// When the target is left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreakerRule {
    /// Unique among the rules of the policy.
    pub name: String,
    /// When it opens and closes.
    pub settings: BreakerSettings,
    /// Whether it refuses or only counts.
    #[serde(default)]
    pub mode: Mode,
}

impl BreakerRule {
    /// Whether two rules speak of one breaker. In shadow mode it has a state of its own.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        let Self {
            name,
            settings: _,
            mode,
        } = self;
        *name == other.name && *mode == other.mode
    }
}

/// How many requests may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConcurrencyRule {
    /// As many as the target is found to stand.
    Adaptive,
    /// This many, at most [`LIMIT_MAX`](crate::LIMIT_MAX).
    Max(std::num::NonZeroU32),
}

impl ConcurrencyRule {
    /// The bound that it says, or what is allowed.
    pub(super) fn limit(self) -> Result<Limit, String> {
        match self {
            Self::Adaptive => Ok(Limit::Adaptive),
            Self::Max(max) if max.get() <= LIMIT_MAX => Ok(Limit::Fixed(max)),
            Self::Max(max) => Err(format!("max is {max}, allowed is 1 to {LIMIT_MAX}")),
        }
    }
}

/// A kind of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClassRule {
    /// By what it is the same class after a change of the settings; without a name it is by its number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// How much they matter.
    pub tier: Tier,
    /// The share of the concurrency that they may always use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guaranteed_percent: Option<u8>,
}

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {policy}, {rule}: {why}")]
pub struct PolicyFault {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// The rule.
    pub rule: String,
    /// What is wrong with it, and what is allowed.
    pub why: String,
}
