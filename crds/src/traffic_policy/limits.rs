//! How many requests pass, and what is counted apart.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::RuleName;
use crate::scalar::Period;

/// A rate, over what it is counted, and what becomes of requests beyond it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.key) || !has(self.keyParts)")
    .message("key and keyParts exclude each other: write key for one part, keyParts for several").reason(Reason::FieldValueInvalid))]
#[x_kube(validation = Rule::new("!has(self.warmUp) || (!has(self.key) && !has(self.keyParts))")
    .message("warmUp must be left out where requests are counted by key").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!has(self.warmUp) || (duration(self.warmUp) >= duration('1s') && duration(self.warmUp) <= duration('1h'))")
    .message("warmUp must be 1s to 1h").reason(Reason::FieldValueInvalid))]
pub struct RateLimit {
    /// Name of the rule, unique in the policy; refusals and metrics name it.
    pub name: RuleName,
    /// Over what the rate is counted: one guard, all guards of a cluster, of a Region, or of the province. A wider rate is divided over the guards in advance, so that no request asks anybody. The hub divides `Province`, and `Region` without a key, over the clusters that run the Apps; what is written in a cluster itself holds for that cluster alone.
    pub scope: LimitScope,
    /// What is counted apart, each value with the whole rate for itself; absent means all requests together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyPartSpec>,
    /// Instead of `key`: 2 to 4 parts that make one key together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 2, max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub key_parts: Vec<KeyPartSpec>,
    /// What becomes of a request that lacks the key or a part of it; default `Share`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_missing: Option<OnMissing>,
    /// How many requests pass in the long run, spread evenly.
    pub rate: RuleRate,
    /// How many requests pass at one moment after a pause, 1 to 10000000; default as many as the rate lets pass in a second, at least 1, and 1 with a queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub burst: Option<i64>,
    /// Whether it refuses, or only counts what it would refuse; default `Enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RuleMode>,
    /// What becomes of a request beyond the rate; absent means that it is refused at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
    /// How long it takes from a third of the rate to the whole after a pause, 1s to 1h, for targets that are slow when cold; absent means at once. Not with a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<Period>,
    /// What becomes of a region's share of a rate of scope `Province` while the hub is out of contact; default `Decay`. Nothing reads it yet: a cluster that is cut off keeps its share.
    #[serde(default)]
    pub on_hub_loss: OnHubLoss,
}

/// Over what a rate is counted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum LimitScope {
    /// One guard.
    Instance,
    /// All guards of a cluster.
    Cluster,
    /// All guards of a Region.
    Region,
    /// All guards of the province.
    Province,
}

/// Where a part of a key stands in a request; exactly one field is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.jwtClaim), has(self.header), has(self.query), has(self.cookie), has(self.clientAddress)].filter(x, x).size() == 1")
    .message("exactly one of jwtClaim, header, query, cookie and clientAddress must be set; write several as a list under keyParts").reason(Reason::FieldValueInvalid))]
pub struct KeyPartSpec {
    /// A claim of the verified token, for example `sub`; the policy's `jwt` says whose tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub jwt_claim: Option<String>,
    /// A header of the request; case does not matter. Clients can write what they like into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub header: Option<String>,
    /// A parameter of the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub query: Option<String>,
    /// A cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub cookie: Option<String>,
    /// The address of the client; of IPv6 the first 64 bits. Thousands of citizens share one behind a carrier's NAT, so do not tell people apart by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<ClientAddress>,
}

/// The address of the client; takes no settings.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientAddress {}

/// A [`KeyPartSpec`] that says exactly one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart<'a> {
    /// A claim of a verified token.
    JwtClaim(&'a str),
    /// A header.
    Header(&'a str),
    /// A parameter of the query.
    Query(&'a str),
    /// A cookie.
    Cookie(&'a str),
    /// The address of the client.
    ClientAddress,
}

impl<'a> KeyPart<'a> {
    /// The part that the spec means, unless it means none or several.
    pub fn of(spec: &'a KeyPartSpec) -> Option<Self> {
        let KeyPartSpec {
            jwt_claim,
            header,
            query,
            cookie,
            client_address,
        } = spec;
        let all = [
            jwt_claim.as_deref().map(Self::JwtClaim),
            header.as_deref().map(Self::Header),
            query.as_deref().map(Self::Query),
            cookie.as_deref().map(Self::Cookie),
            client_address.map(|ClientAddress {}| Self::ClientAddress),
        ];
        let mut set = all.into_iter().flatten();
        set.next().filter(|_| set.next().is_none())
    }
}

/// What becomes of a request that lacks the key or a part of it; default `Share`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnMissing {
    /// It is refused.
    Refuse,
    /// All requests without a key count as one key.
    #[default]
    Share,
    /// The rule says nothing about them.
    Skip,
}

/// Whether a rule refuses, or only counts what it would refuse; default `Enforce`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum RuleMode {
    /// It does.
    #[default]
    Enforce,
    /// It refuses nobody, and counts what it would refuse.
    Shadow,
}

/// What becomes of a region's share while the hub is out of contact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnHubLoss {
    /// After a while it falls to what the region may use in any case, so that the sum stays below the limit.
    #[default]
    Decay,
    /// It stays as it is.
    Hold,
}

/// So many requests in so long.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.per) >= duration('1s') && duration(self.per) <= duration('24h') && duration(self.per).getMilliseconds() % 1000 == 0")
    .message("per must be whole seconds from 1s to 24h").reason(Reason::FieldValueInvalid))]
pub struct RuleRate {
    /// Requests, 1 to 10000000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub requests: i64,
    /// In how long they pass, in whole seconds from 1s to 24h.
    pub per: Period,
}

/// What each hot key may do.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.per) >= duration('1s') && duration(self.per) <= duration('24h') && duration(self.per).getMilliseconds() % 1000 == 0")
    .message("per must be whole seconds from 1s to 24h").reason(Reason::FieldValueInvalid))]
pub struct HotKeyLimit {
    /// Requests of each hot key, 1 to 10000000, at each guard.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub requests: i64,
    /// In how long they pass, in whole seconds from 1s to 24h.
    pub per: Period,
    /// How many pass at one moment after a pause, 1 to 10000000; default as many as the rate lets pass in a second, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub burst: Option<i64>,
}

/// What becomes of requests beyond the rate.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Overflow {
    /// They wait for their turn.
    pub queue: OverflowQueue,
}

/// How requests wait for their turn.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.maxWait) >= duration('1ms') && duration(self.maxWait) <= duration('30s')")
    .message("maxWait must be 1ms to 30s").reason(Reason::FieldValueInvalid))]
pub struct OverflowQueue {
    /// Longest wait, 1ms to 30s; a request whose turn comes later is refused at once.
    pub max_wait: Period,
}
