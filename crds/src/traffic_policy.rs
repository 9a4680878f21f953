//! TrafficPolicy: what protects the routes of an App.

mod breakers;
mod limits;
mod requests;
mod status;

pub use breakers::{
    AdaptiveConcurrency, Breaker, Concurrency, ConcurrencySpec, ErrorCount, ErrorShare, HotKey,
    OpenWhen, SlowCalls, Trip, WaitingRoom,
};
pub use limits::{
    ClientAddress, HotKeyLimit, KeyPart, KeyPartSpec, LimitScope, OnHubLoss, OnMissing, Overflow,
    OverflowQueue, RateLimit, RuleMode, RuleRate,
};
pub use requests::{Jwt, Retries, RetryOn};
pub use status::{AncestorRef, PolicyAncestorStatus, TrafficPolicyStatus};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::Tier;
use crate::scalar::Period;

/// A TrafficPolicy says how much traffic the routes of an App take, and what happens beyond it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "jiuzhou.io", version = "v1alpha1", kind = "TrafficPolicy", plural = "trafficpolicies",
    shortname = "tp", category = "jiuzhou", namespaced, status = "TrafficPolicyStatus", derive = "PartialEq", cel,
    doc = "A TrafficPolicy says how much traffic the routes of an App take, what is left alone when it is slow or broken, and who comes first when not all can be served. At the hub it names Apps and is sent to every region that runs them; in a region it names HTTPRoutes, works without a hub, and may tighten what the hub says, never loosen it.",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRefs[0].name", description = "first of the Apps or HTTPRoutes that it protects"),
    printcolumn(name = "Accepted", type_ = "string", json_path = r#".status.conditions[?(@.type=="Accepted")].status"#),
    printcolumn(name = "Programmed", type_ = "string", json_path = r#".status.conditions[?(@.type=="Programmed")].status"#, description = "whether every guard that serves the targets enforces it"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Activation", type_ = "string", json_path = ".spec.activation", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Accepted")].message"#, priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name must be at most 63 characters").reason(Reason::FieldValueInvalid),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(!has(self.rateLimits) || self.rateLimits.all(r, r.name != 'concurrency')) && (!has(self.breakers) || self.breakers.all(b, b.name != 'concurrency')) && (!has(self.hotKeys) || self.hotKeys.all(h, h.name != 'concurrency'))")
    .message("a rule must not be named concurrency, which is the name of the rule under spec.concurrency").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!has(self.rateLimits) || ((!has(self.breakers) || self.rateLimits.all(r, self.breakers.all(b, b.name != r.name))) && (!has(self.hotKeys) || self.rateLimits.all(r, self.hotKeys.all(h, h.name != r.name))))")
    .message("the name of a rateLimits rule must not be that of a breakers or hotKeys rule: refusals and metrics name rules by it").reason(Reason::FieldValueInvalid))]
#[x_kube(validation = Rule::new("!has(self.breakers) || !has(self.hotKeys) || self.breakers.all(b, self.hotKeys.all(h, h.name != b.name))")
    .message("the name of a breakers rule must not be that of a hotKeys rule: refusals and metrics name rules by it").reason(Reason::FieldValueInvalid))]
#[x_kube(validation = Rule::new("has(self.jwt) || ((!has(self.rateLimits) || self.rateLimits.all(r, !(has(r.key) && has(r.key.jwtClaim)) && !(has(r.keyParts) && r.keyParts.exists(p, has(p.jwtClaim))))) && (!has(self.hotKeys) || self.hotKeys.all(h, !(has(h.key) && has(h.key.jwtClaim)) && !(has(h.keyParts) && h.keyParts.exists(p, has(p.jwtClaim))))))")
    .message("jwt must be set where a key is a jwtClaim: a claim counts only in a token that is verified").reason(Reason::FieldValueRequired))]
#[x_kube(validation = Rule::new("!has(self.timeout) || (duration(self.timeout) >= duration('1ms') && duration(self.timeout) <= duration('1h'))")
    .message("timeout must be 1ms to 1h").reason(Reason::FieldValueInvalid))]
pub struct TrafficPolicySpec {
    /// What it protects, 1 to 16, all of one kind and of the policy's namespace: Apps at the hub, HTTPRoutes or rules of them in a region.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = Rule::new("self.all(r, r.kind == self[0].kind)")
        .message("targetRefs must be all Apps or all HTTPRoutes: write two policies for the two").reason(Reason::FieldValueInvalid))]
    pub target_refs: Vec<PolicyTarget>,
    /// Whether it is in force at all times, or only while a PeakEvent that names it is on; default `Always`. There are no PeakEvents yet, so that a policy of `ByEvent` is accepted with reason `NoEvent` and in force nowhere.
    #[serde(default)]
    pub activation: Activation,
    /// Tier of requests that no class is for. The hub sets it to the App's tier in what it sends to regions; default there, and `General` elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Else the words of the type stand there instead of these.
    #[schemars(with = "Tier")]
    pub default_tier: Option<Tier>,
    /// Rules of the routes whose requests matter more or less than the rest, at most 63; together with the rest these are all the classes that a target may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 63))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["sectionName".into()]))]
    #[x_kube(validation = Rule::new("self.map(c, has(c.guaranteedPercent) ? c.guaranteedPercent : 0).sum() <= 100")
        .message("guaranteedPercent of all classes must not exceed 100 together").reason(Reason::FieldValueInvalid))]
    pub classes: Vec<RequestClass>,
    /// How many requests pass, at most 16 rules. All must let a request pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rate_limits: Vec<RateLimit>,
    /// How many requests may be under way at each guard at one time; absent means no bound. More wait for up to 500 ms, the most important tier first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencySpec>,
    /// When the target is left alone for a while, at most 8 rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub breakers: Vec<Breaker>,
    /// Keys that make up too much of the requests and are then limited alone, at most 8 rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hot_keys: Vec<HotKey>,
    /// How many people are let in, and where the others wait, before all other rules; absent means no waiting room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_room: Option<WaitingRoom>,
    /// Most time for a request as a whole, 1ms to 1h; a shorter timeout of the route stands. Absent means that the route alone says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Whether requests that failed are tried again at another endpoint; absent means only where no connection was made, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Whose tokens are verified for keys that are a `jwtClaim`; needed for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
}

/// One App, one HTTPRoute, or one rule of an HTTPRoute.
#[derive(
    KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord,
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.group == 'jiuzhou.io' && self.kind == 'App') || (self.group == 'gateway.networking.k8s.io' && self.kind == 'HTTPRoute')")
    .message("a target must be an App of group jiuzhou.io, or an HTTPRoute of group gateway.networking.k8s.io").reason(Reason::FieldValueInvalid))]
#[x_kube(validation = Rule::new("self.kind != 'App' || !has(self.sectionName)")
    .message("sectionName must be left out for an App: it names a rule of an HTTPRoute; use classes to tell requests of an App apart").reason(Reason::FieldValueForbidden))]
pub struct PolicyTarget {
    /// Group of the target: `jiuzhou.io` for an App, `gateway.networking.k8s.io` for an HTTPRoute.
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
    /// Kind of the target: `App` or `HTTPRoute`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the target, in the policy's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Name of one rule of the HTTPRoute; absent means all of it. For that rule, a policy that names it counts instead of those that name the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub section_name: Option<String>,
}

/// When a policy is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Activation {
    /// At all times.
    #[default]
    Always,
    /// While a PeakEvent is on whose protection names it. Then its rules replace those of the same name, and of what both say the tighter holds.
    ByEvent,
}

/// The requests of one rule, and how much they matter.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RequestClass {
    /// Name of a rule of the routes; requests that it matches are of this class.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub section_name: String,
    /// How much they matter: under overload the least important tier is refused first. Never above the tier of the App.
    pub tier: Tier,
    /// Share of the concurrency that they may always use, in percent, 1 to 100; absent means none. All together at most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub guaranteed_percent: Option<i32>,
}
