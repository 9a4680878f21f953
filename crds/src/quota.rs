//! Quota: what a tenant may use in a Region, carved from what the tenant above may.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::name::{RegionName, TenantName, Uid};
use crate::scalar::{Quantity, Timestamp};

/// A Quota says what a tenant may use in one Region's subtree.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io", version = "v1alpha1", kind = "Quota", plural = "quotas",
    shortname = "qt", category = "jiuzhou", namespaced, status = "QuotaStatus", derive = "PartialEq", cel,
    doc = "A Quota says what a tenant may use in one Region and everything below it. It lives in the namespace of the tenant above (for the first tenants in jiuzhou-system), so that nobody grants anything to himself, and is named <tenant>.<region>. It is carved from the Quota of the tenant above; the first tenants' Quotas draw on the Region's budget.",
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantName"),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.regionName"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "CPU", type_ = "string", json_path = ".status.cpu", description = "cores used/granted"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.memory", priority = 1, description = "memory used/granted"),
    printcolumn(name = "Borrowed", type_ = "string", json_path = ".status.borrowedCpu", priority = 1, description = "cores used beyond what is granted"),
    selectable = ".spec.tenantName", selectable = ".spec.regionName",
    validation = Rule::new("self.metadata.name == self.spec.tenantName + '.' + self.spec.regionName")
        .message("metadata.name must be <spec.tenantName>.<spec.regionName>, so that a tenant has one Quota for a Region").reason(Reason::FieldValueInvalid),
)]
#[serde(rename_all = "camelCase")]
pub struct QuotaSpec {
    /// The tenant that may use it: a Tenant of this namespace. Immutable, since the name of the Quota has it.
    pub tenant_name: TenantName,
    /// The Region in whose whole subtree it may be used. Immutable, since the name of the Quota has it.
    pub region_name: RegionName,
    /// What may be used, at most 32 resources. A resource that is not listed is limited by the Quotas above.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub resources: Vec<ResourceGrant>,
}

/// What may be used of one resource.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.name in ['cpu', 'memory', 'ephemeral-storage', 'pods', 'storage', 'persistentvolumeclaims', 'services', 'services.loadbalancers', 'requestsPerSecond'] || self.name.matches('^[a-z0-9-]+([.][a-z0-9-]+)+/[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$')")
    .message("name must be cpu, memory, ephemeral-storage, pods, storage, persistentvolumeclaims, services, services.loadbalancers, requestsPerSecond, or that of a device, such as nvidia.com/gpu").reason(Reason::FieldValueInvalid))]
pub struct ResourceGrant {
    /// Resource: `cpu`, `memory`, `ephemeral-storage`, `pods`, `storage` and `persistentvolumeclaims` (what claims ask for, and how many there are), `services`, `services.loadbalancers`, `requestsPerSecond` (what Apps declare), or a device such as `nvidia.com/gpu`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What the tenant may always use, its own tenants included.
    pub nominal: Quantity,
    /// What it may use beyond `nominal` while others under the same Quota do not; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub borrowing_limit: Option<Quantity>,
    /// What of `nominal` others may borrow while the tenant does not use it, at most `nominal`; default all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lending_limit: Option<Quantity>,
}

/// What is known of a Quota.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QuotaStatus {
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Epoch of the hub leader that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub leader_epoch: Option<i64>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled`, `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What is in force, and what of it is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub resources: Vec<GrantUse>,
    /// Cores used and granted, as printed: `12/40`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 48))]
    pub cpu: Option<String>,
    /// Memory used and granted, as printed: `20Gi/80Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 48))]
    pub memory: Option<String>,
    /// Cores used beyond what is granted, as printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 48))]
    pub borrowed_cpu: Option<String>,
}

/// One resource of a Quota that is in force.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GrantUse {
    /// Resource name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What may always be used: the last value that was accepted.
    pub nominal: Quantity,
    /// What is used, with what the tenant's own tenants keep for themselves.
    pub used: Quantity,
    /// What of it is beyond `nominal`.
    pub borrowed: Quantity,
    /// What of `nominal` is granted on to the tenant's own tenants.
    pub carved: Quantity,
}

/// A QuotaLedger remembers which values of a Region's Quotas are in force.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io",
    version = "v1alpha1",
    kind = "QuotaLedger",
    plural = "quotaledgers",
    namespaced,
    derive = "PartialEq",
    doc = "Internal. A QuotaLedger in namespace jiuzhou-system, named after a Region, remembers which values of that Region's Quotas are in force, so that a refused change, a lost status or a Quota made anew changes nothing. The hub writes it.",
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.leaderEpoch"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct QuotaLedgerSpec {
    /// Epoch of the leader that wrote it; the store refuses lower ones.
    #[schemars(range(min = 0))]
    pub leader_epoch: i64,
    /// One for each tenant that has a Quota for the Region.
    #[serde(default)]
    #[schemars(length(max = 2000), extend("x-kubernetes-list-type" = "atomic"))]
    pub grants: Vec<AcceptedGrant>,
}

/// Most grants that one QuotaLedger holds; the hub counts their bytes as well.
pub const LEDGER_GRANTS_MAX: usize = 2000;

/// The values of one Quota that are in force.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedGrant {
    /// Namespace that the tenant owns.
    pub namespace: crate::name::NamespaceName,
    /// UID of the Quota.
    pub uid: Uid,
    /// Since when they are in force.
    pub since: Timestamp,
    /// What is in force.
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub resources: Vec<AcceptedResource>,
}

/// What is in force of one resource; what a Quota leaves out stands here as well.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedResource {
    /// Resource name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What may always be used.
    pub nominal: Quantity,
    /// What may be used beyond.
    pub borrowing_limit: Quantity,
    /// What of `nominal` others may borrow.
    pub lending_limit: Quantity,
}
