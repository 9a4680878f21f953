//! Conditions: closed vocabularies of types and reasons, and the one way to set them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Timestamp;

/// One aspect of an object's state, as Kubernetes conditions go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect; see the documentation of the kind.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether the aspect holds.
    pub status: ConditionStatus,
    /// Why, as one word of a closed list.
    pub reason: Reason,
    /// Why, as one sentence with numbers and the next step.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
    /// The `metadata.generation` this condition was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet, or no longer.
    Unknown,
}

/// The condition types of all kinds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum ConditionType {
    /// Every kind: the object is as its spec says.
    Ready,
    /// Every kind: work is in progress. Absent or False at rest.
    Reconciling,
    /// Every kind: work stands still until somebody acts. Absent or False at rest.
    Stalled,
    /// Region, MemberCluster: in contact.
    Reachable,
    /// MemberCluster: the cluster's identity is pinned.
    Joined,
    /// MemberCluster: allocatable capacity and use are known.
    CapacityReported,
    /// Tenant: its namespace is there and its administrators have their rights in it.
    NamespaceReady,
    /// Quota, Link, TrafficPolicy: what it says is in force.
    Accepted,
    /// TrafficPolicy: every guard that serves its targets enforces it.
    Programmed,
    /// App: accepted for placement, and within the Quotas of its tenant.
    Admitted,
    /// App: every replica has a cluster.
    Scheduled,
    /// App: the clusters run the current content.
    Applied,
    /// App: the workloads are healthy there.
    Healthy,
    /// App: a TrafficPolicy protects it wherever it runs.
    Protected,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $Name:ident,)*) => {
        /// Why a condition is as it is: one closed list for all kinds.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
        )]
        #[schemars(inline)]
        pub enum Reason { $($(#[$doc])* $Name,)* }

        impl Reason {
            /// The reason as it stands in a condition.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$Name => stringify!($Name),)* }
            }
        }
    };
}

reasons! {
    /// Not looked at yet.
    Pending,
    /// As it should be.
    AsExpected,
    /// Work is in progress.
    InProgress,
    /// The object is being deleted.
    Deleting,
    /// A field holds something that is not allowed.
    Invalid,
    /// The parent Region does not exist.
    ParentMissing,
    /// The parents of this Region lead back to it.
    RegionCycle,
    /// The Region's code does not fit its level or its parent's code.
    CodeMismatch,
    /// The Region's level does not fit its parent's.
    LevelMismatch,
    /// Two Regions carry the same code.
    CodeTaken,
    /// The Region the cluster names does not exist or is parked.
    RegionMissing,
    /// No cluster has joined yet.
    NoClusters,
    /// The agent has not been seen yet.
    NotSeen,
    /// In contact.
    InContact,
    /// Out of contact; the state shown is the last one reported.
    OutOfContact,
    /// In contact again, but not for long enough to rely on it.
    Returning,
    /// Some clusters are out of contact.
    PartlyReachable,
    /// The cluster behind the name is another one than the one pinned at join.
    IdentityChanged,
    /// The agent refuses this hub: it is older than what it has seen, or another one.
    HubRefused,
    /// The kubeconfig of a cluster that is pushed to cannot be used.
    KubeconfigRefused,
    /// Another MemberCluster already stands for the same cluster.
    ClusterTaken,
    /// No capacity report yet.
    CapacityUnknown,
    /// Only observed: nothing is applied there.
    ObserveOnly,
    /// Being released: workloads stay, ownership goes.
    Releasing,
    /// Too few regions qualify.
    TooFewRegions,
    /// No cluster qualifies.
    NoClusterQualifies,
    /// Not all replicas fit.
    InsufficientCapacity,
    /// More than one workload could carry the replicas.
    WorkloadAmbiguous,
    /// A manifest is of a kind that Apps may not carry.
    KindNotAllowed,
    /// An App that a Link names is not there.
    AppMissing,
    /// No LinkGrant of the other side lets the Link through.
    GrantMissing,
    /// The Link would let less sensitive Apps reach more sensitive data.
    GradeExceeded,
    /// An App's tier is above what its tenant may have.
    TierExceeded,
    /// It is over.
    Expired,
    /// An Approval of the wrong person, or a rejection, stands in the way.
    ApprovalRejected,
    /// An image comes from a registry that the Isolation of its zone does not allow.
    RegistryNotAllowed,
    /// Somebody changed by hand what isolates a namespace.
    Drifted,
    /// A manifest names another namespace or is not namespaced.
    NamespaceNotAllowed,
    /// Two manifests describe the same object.
    DuplicateManifest,
    /// An override does not apply.
    InvalidPatch,
    /// The manifests are larger than a Content object may be.
    TooLarge,
    /// The App's namespace belongs to the platform.
    NamespaceReserved,
    /// The namespace that a Tenant lives in belongs to no tenant, or the one an App names to one that
    /// is not there.
    TenantMissing,
    /// The tenants above are too many.
    TooDeep,
    /// The tenant asks for more than its parent may use.
    ExceedsParent,
    /// The Quota asks for more than the Quota above it, or the Region's budget, has left.
    ExceedsBudget,
    /// The Quotas of the Region are as many as their ledger can hold.
    LedgerFull,
    /// The Quota would be less than what is granted on to the tenant's own tenants.
    BelowChildren,
    /// The Region is not among those that the tenant may use.
    RegionNotAllowed,
    /// What the Quota grants is still in use.
    InUse,
    /// The App does not fit into what its tenant may use.
    QuotaExceeded,
    /// The tenant has Quotas, but none for any Region in which the App could run.
    QuotaMissing,
    /// The namespace that a tenant would own is somebody else's.
    NamespaceTaken,
    /// What is inside has to go first.
    NotEmpty,
    /// Another App already owns an object of that name.
    OwnedByOther,
    /// An object of that name exists and is not managed by Jiuzhou.
    NotManaged,
    /// The member cluster does not know a kind.
    CRDMissing,
    /// The tenant may not create such an object in the member cluster.
    Forbidden,
    /// The agent lacks a right in the member cluster.
    AgentForbidden,
    /// The Content an assignment names cannot be found.
    ContentMissing,
    /// The member cluster refused the object.
    Rejected,
    /// A workload did not become healthy in time.
    Unhealthy,
    /// Another controller keeps changing a field that the App owns.
    Conflict,
    /// The rollout waits for an Approval.
    ApprovalRequired,
    /// The rollout waits for the soak time of a wave.
    Soaking,
    /// The rollout waits for the clusters of a wave.
    WaveInProgress,
    /// The rollout stopped because a wave became unhealthy.
    RolloutStopped,
    /// An earlier App of the same name is still being removed.
    PredecessorRemains,
    /// The policy counts for its target.
    Accepted,
    /// The guards enforce it.
    Programmed,
    /// An older policy already counts for the target.
    Conflicted,
    /// What the policy names does not exist.
    TargetNotFound,
    /// Of policies that count together, one covers other rules than the other.
    TargetsDiffer,
    /// The policy is in force only while an event is on, and none is.
    NoEvent,
    /// Some rules would loosen what the hub says, and do not count.
    LooserIgnored,
    /// Some fields cannot be served as things stand, and do not count.
    NotServed,
    /// A rate for the province as a whole is enforced as shares that are fixed in advance.
    ProvinceCapNotServed,
    /// No TrafficPolicy is there for the App.
    NoPolicy,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Builds a condition whose `lastTransitionTime` is kept from `previous` unless the status flips.
pub fn condition(
    previous: &[Condition],
    kind: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: impl Into<String>,
    generation: i64,
    now: Timestamp,
) -> Condition {
    let since = find_condition(previous, kind)
        .filter(|old| old.status == status)
        .map_or(now, |old| old.last_transition_time);
    let mut message = message.into();
    if message.len() > 1024 {
        let cut = (0..=1021)
            .rev()
            .find(|&i| message.is_char_boundary(i))
            .unwrap_or(0);
        message.truncate(cut);
        message.push('…');
    }
    Condition {
        kind,
        status,
        reason,
        message,
        last_transition_time: since,
        observed_generation: Some(generation),
    }
}

/// The condition of that type, if it is set.
pub fn find_condition(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.kind == kind)
}
