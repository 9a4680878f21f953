//! Tenant: a department, city, vertical line or partner that runs its own part.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::Tier;
use crate::condition::Condition;
use crate::name::{NamespaceName, RegionName};
use crate::scalar::{DataGrade, Zone};

/// A Tenant is an organisation that runs its own part of the province.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "jiuzhou.io", version = "v1alpha1", kind = "Tenant", plural = "tenants",
    shortname = "tn", category = "jiuzhou", namespaced, status = "TenantStatus", derive = "PartialEq", cel,
    doc = "A Tenant is an organisation that runs its own part of the province: a department, a city, a vertical line, a partner. It lives in its parent's namespace (the first ones in jiuzhou-system) and owns the namespace <parent's>-<name> (the first ones <name>), in which its Apps and its own tenants live. It may use what its parent may use, less what its own spec leaves out.",
    printcolumn(name = "Owns", type_ = "string", json_path = ".status.ownedNamespace", description = "the namespace it owns"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Data grade", type_ = "string", json_path = ".status.maxDataGrade", priority = 1),
    printcolumn(name = "Tier", type_ = "string", json_path = ".status.maxTier", priority = 1),
    printcolumn(name = "Display name", type_ = "string", json_path = ".spec.displayName", priority = 1),
    selectable = ".spec.type",
    validation = Rule::new("size(self.metadata.name) <= 14 && self.metadata.name.matches('^[a-z][a-z0-9]*$')")
        .message("metadata.name must be 1 to 14 lower-case letters and digits and begin with a letter; it carries no hyphen, so that joined names cannot collide").reason(Reason::FieldValueInvalid),
    validation = Rule::new("!(self.metadata.name in ['default', 'kube', 'jiuzhou', 'jz'])")
        .message("metadata.name must not be default, kube, jiuzhou or jz: namespaces that begin so belong to the platform").reason(Reason::FieldValueForbidden),
)]
#[serde(rename_all = "camelCase")]
pub struct TenantSpec {
    /// Name shown to people, for example 卫生健康委.
    #[schemars(length(min = 1, max = 64))]
    pub display_name: String,
    /// What kind of organisation it is; default `Department`.
    #[serde(default, rename = "type")]
    pub kind: TenantType,
    /// Regions whose subtrees it may use; empty means all that its parent may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub regions: Vec<RegionName>,
    /// Network zones that it may use; empty means all that its parent may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub zones: Vec<Zone>,
    /// Highest grade of data that it may process; absent means its parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_data_grade: Option<DataGrade>,
    /// Highest tier of its Apps, which says what is kept first when not all can be; absent means its parent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Else the words of the type stand there instead of these.
    #[schemars(with = "Tier")]
    pub max_tier: Option<Tier>,
    /// Who runs it: they get the ClusterRole `jiuzhou-tenant-admin` in its namespace, and nothing above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub administrators: Vec<Administrator>,
}

/// Kind of organisation.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[schemars(inline)]
pub enum TenantType {
    /// A department of a government.
    #[default]
    Department,
    /// A city or county.
    City,
    /// A vertical line that spans regions, such as taxation.
    Vertical,
    /// A partner outside government.
    Partner,
    /// Open data and services for the public.
    Public,
}

/// Somebody who runs a tenant.
#[derive(
    KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.name.startsWith('system:')")
    .message("name must not begin with system: since identities of Kubernetes run no tenant").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("self.kind != 'ServiceAccount' || self.name.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')")
    .message("name of a ServiceAccount must be lower-case letters, digits, hyphens and dots").reason(Reason::FieldValueInvalid))]
pub struct Administrator {
    /// Whether it is a user, a group, or a ServiceAccount of the tenant's own namespace.
    pub kind: AdministratorKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What an administrator is to the API server.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum AdministratorKind {
    /// One person.
    User,
    /// All members of a group.
    Group,
    /// A pipeline or other machine, in the namespace that the tenant owns.
    ServiceAccount,
}

/// What is known of a tenant.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The `metadata.generation` this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Epoch of the hub leader that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub leader_epoch: Option<i64>,
    /// Conditions: `Ready`, `Reconciling`, `Stalled`, `NamespaceReady`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The namespace that it owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned_namespace: Option<NamespaceName>,
    /// Regions whose subtrees it may really use, its parents' limits included; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub regions: Vec<RegionName>,
    /// Network zones that it may really use, its parents' limits included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "atomic"))]
    pub zones: Vec<Zone>,
    /// Highest grade of data that it may really process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_data_grade: Option<DataGrade>,
    /// Highest tier that its Apps may really have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Else the words of the type stand there instead of these.
    #[schemars(with = "Tier")]
    pub max_tier: Option<Tier>,
}
