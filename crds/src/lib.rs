//! The API types of Jiuzhou, group `jiuzhou.io`, version `v1alpha1`.
//!
//! One file per kind. The Rust types are the only source: the YAML under `crds/yaml/` is generated
//! from them and a test fails when it drifts. This crate knows no client and does no I/O.
//!
//! What users write: [`Region`], [`MemberCluster`], [`Tenant`], [`Quota`], [`Isolation`], [`Link`],
//! [`LinkGrant`], [`App`], [`TrafficPolicy`], [`Approval`].
//! What the loops exchange: [`AssignmentSlice`] and [`Content`] (hub to agent), [`ReportSlice`] and
//! [`ClusterReport`] (agent to hub). What the hub remembers for itself: [`QuotaLedger`].

#![expect(
    unreachable_pub,
    reason = "KubeSchema emits a private twin of each struct with the struct's own visibility"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "it compares the fields of one `printcolumn` with those of the next"
)]

mod app;
mod approval;
mod assignment_slice;
mod cluster_report;
mod condition;
mod content;
mod generate;
mod isolation;
mod link;
mod lint;
mod member_cluster;
mod name;
mod placement;
mod quota;
mod region;
mod report_slice;
mod rollout;
mod scalar;
mod schema;
mod tenant;
mod traffic_policy;

pub use app::{
    ALLOWED_KINDS, App, AppSpec, AppStatus, Image, Manifest, Override, Owner, PatchOp,
    PatchOperation, PlacementStatus, TakeOver, Target, Tier,
};
pub use approval::{Approval, ApprovalDecision, ApprovalSpec, ApprovalTarget, EMERGENCY};
pub use assignment_slice::{
    AssignmentSlice, AssignmentSliceSpec, Charge, Entry, EntryState, HpaBounds, LimitShare,
    SLICE_BYTES_MAX, SLICE_ENTRIES_MAX, Scope, SecretCopy, Stage, Surge,
};
pub use cluster_report::{
    ClusterReport, ClusterReportSpec, HubSeen, Nodes, Unclaimed, UnclaimedObject,
};
pub use condition::{Condition, ConditionStatus, ConditionType, Reason, condition, find_condition};
pub use content::{CONTENT_NAMESPACE, Content, ContentItem, ContentSpec, PACK_BYTES_MAX};
pub use generate::{all, to_yaml};
pub use isolation::{
    AllowedKind, Egress, Isolation, IsolationSpec, IsolationStatus, OnDrift, PodSecurity,
};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
pub use link::{
    Link, LinkGrant, LinkGrantFrom, LinkGrantSpec, LinkGrantTo, LinkPort, LinkSource, LinkSpec,
    LinkStatus, LinkTarget, Protocol,
};
pub use lint::{Finding, lint};
pub use member_cluster::{
    Connection, ConnectionSpec, Form, LocalConnection, Management, MemberCluster,
    MemberClusterSpec, MemberClusterStatus, PullConnection, PushConnection,
};
pub use name::{
    AppName, ClusterName, ContentHash, NamespaceName, RegionName, RuleName, TenantName, Uid,
    WaveName,
};
pub use placement::{
    Division, Failover, FailoverPolicy, Placement, RegionSelector, RegionWeight, Replicas, Scaling,
};
pub use quota::{
    AcceptedGrant, AcceptedResource, GrantUse, LEDGER_GRANTS_MAX, Quota, QuotaLedger,
    QuotaLedgerSpec, QuotaSpec, QuotaStatus, ResourceGrant,
};
pub use region::{ClusterCount, Level, Region, RegionSpec, RegionStatus, ResourceTotals};
pub use report_slice::{ReportEntry, ReportSlice, ReportSliceSpec, ReportState};
pub use rollout::{ApprovalNeed, Rollout, RolloutState, RolloutStatus, Wave};
pub use scalar::{DataGrade, Period, Quantity, ResourceQuantity, Selector, Timestamp, Zone};
pub use schema::{is_valid_name, label_selector_matches};
pub use tenant::{Administrator, AdministratorKind, Tenant, TenantSpec, TenantStatus, TenantType};
pub use traffic_policy::{
    Activation, AdaptiveConcurrency, AncestorRef, Breaker, ClientAddress, Concurrency,
    ConcurrencySpec, ErrorCount, ErrorShare, HotKey, HotKeyLimit, Jwt, KeyPart, KeyPartSpec,
    LimitScope, OnHubLoss, OnMissing, OpenWhen, Overflow, OverflowQueue, PolicyAncestorStatus,
    PolicyTarget, RateLimit, RequestClass, Retries, RetryOn, RuleMode, RuleRate, SlowCalls,
    TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus, Trip, WaitingRoom,
};

/// The API group of every kind.
pub const GROUP: &str = "jiuzhou.io";
/// The namespace of the hub's own objects, in the hub cluster and in members.
pub const SYSTEM_NAMESPACE: &str = "jiuzhou-system";
/// The field manager of every object the agent applies in a member cluster.
pub const FIELD_MANAGER: &str = "jiuzhou";
/// Finalizer of an App, which stays until every reachable cluster acknowledged the removal, and of a
/// Tenant, which stays until its namespace is gone.
pub const APP_FINALIZER: &str = "jiuzhou.io/removal";

/// Labels and annotations that users and outside checks rely on.
pub mod label {
    /// Set to `jiuzhou` on everything the agent applies.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Value of [`MANAGED_BY`].
    pub const MANAGED_BY_VALUE: &str = "jiuzhou";
    /// Name of the App an object belongs to.
    pub const APP: &str = "jiuzhou.io/app";
    /// UID of the App an object belongs to.
    pub const APP_UID: &str = "jiuzhou.io/app-uid";
    /// Tenant (hub namespace) of the App an object belongs to; on a namespace at the hub, the tenant
    /// that owns it or may claim it.
    pub const TENANT: &str = "jiuzhou.io/tenant";
    /// Annotation on a namespace at the hub: UID of the Tenant that owns it.
    pub const TENANT_UID: &str = "jiuzhou.io/tenant-uid";
    /// Label on a namespace at the hub that somebody made: the tenant that may have it, by the name of
    /// the namespace itself.
    pub const CLAIM: &str = "jiuzhou.io/claim";
    /// Annotation on a namespace at the hub: the Tenant of this UID, which owns it, is being deleted, and
    /// what is inside goes first.
    pub const CLEARING: &str = "jiuzhou.io/clearing";
    /// Annotation: which object this is. Labels are copied with an object, by people and by tools; a
    /// copy is not what the agent applied, and says so by naming another one.
    pub const OBJECT: &str = "jiuzhou.io/object";
    /// Annotation: hash of what the agent rendered and applied last.
    pub const APPLIED: &str = "jiuzhou.io/applied";
    /// Annotation on a namespace in a member cluster: registries from which images may come, with a comma
    /// before, between and after them; empty means any.
    pub const REGISTRIES: &str = "jiuzhou.io/allowed-registries";
    /// Annotation on a namespace in a member cluster: what happens when its isolation is weakened by hand.
    pub const ON_DRIFT: &str = "jiuzhou.io/on-drift";
    /// Annotation on what isolates a namespace: it ends at this time, whether or not the hub is there.
    pub const NOT_AFTER: &str = "jiuzhou.io/not-after";
    /// Annotation on a NetworkPolicy in a member cluster: the Link that it follows from.
    pub const LINK: &str = "jiuzhou.io/link";
    /// Annotation on a namespace in a member cluster: the agent created it, and deletes it with its tenant.
    pub const CREATED: &str = "jiuzhou.io/created";
    /// Annotation: until this time the agent leaves the object's replicas alone.
    pub const HOLD_UNTIL: &str = "jiuzhou.io/hold-until";
    /// Annotation: epoch of the hub leader that wrote the object.
    pub const LEADER_EPOCH: &str = "jiuzhou.io/leader-epoch";
    /// Annotation on an App, stamped at admission: the users who changed its spec since its content
    /// was last rolled out completely, a line each; [`MANY`] when they are too many to remember.
    pub const CHANGED_BY: &str = "jiuzhou.io/changed-by";
    /// See [`CHANGED_BY`].
    pub const MANY: &str = "*";
}

/// The hub namespace through which the hub and one member cluster talk.
pub fn cluster_namespace(cluster: &ClusterName) -> String {
    format!("jz-{cluster}")
}

/// The cluster whose hub namespace this is, if it is one.
pub fn cluster_of_namespace(namespace: &str) -> Option<ClusterName> {
    namespace.strip_prefix("jz-").map(ClusterName::from)
}
