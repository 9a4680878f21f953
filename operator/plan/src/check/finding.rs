//! What the second judge may find.

use crds::{NamespaceName, SLICE_ENTRIES_MAX, Uid};

use crate::world::namespace_uid;

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A slice holds an App twice or too many Apps.
    #[error("slice {0} of {1} holds an App twice, or more than {SLICE_ENTRIES_MAX} Apps")]
    Shape(String, String),
    /// A generation goes backwards, or a change has none of its own.
    #[error("App {1} in {0} does not go forward with generation {2}")]
    Backwards(String, Uid, i64),
    /// A slice goes back to an older hub, leader or sequence.
    #[error("slice {0} of {1} goes back to an older hub, leader or sequence")]
    OldHeader(String, String),
    /// An entry vanishes whose removal nobody acknowledged.
    #[error("App {1} vanishes from {0} although its removal was not acknowledged")]
    Vanished(String, Uid),
    /// An App is taken away although it lives, is well placed, and nobody asked for it.
    #[error("App {1} is removed from {0}, which it may keep, or before it is replaced")]
    Unasked(String, Uid),
    /// An App is placed where it may not be.
    #[error("App {1} is placed on {0}, which its zone, grade, protection level or tenant forbids")]
    Forbidden(String, Uid),
    /// An App is placed where nothing may be applied.
    #[error("App {1} is newly placed on {0}, which is not managed")]
    Unmanaged(String, Uid),
    /// An App is placed beside another one of its name.
    #[error("App {1} is newly placed on {0}, which still holds an earlier App of that name")]
    Beside(String, Uid),
    /// An entry names content that nothing stores.
    #[error("App {1} in {0} names content that is neither stored nor about to be")]
    NoContent(String, Uid),
    /// Content that something names is thrown away.
    #[error("Content {0} is collected although something names it")]
    Collected(String),
    /// An App starts where nothing isolates its namespace.
    #[error("App {1} is placed on {0}, where nothing isolates its namespace")]
    Exposed(String, Uid),
    /// A namespace is no longer isolated although its tenant, or an App, is still there.
    #[error("the isolation of namespace {1} in {0} ends before its time")]
    Opened(String, NamespaceName),
    /// A namespace, role, App or Tenant is touched that no Tenant's state allows.
    #[error("no Tenant's state allows {0}")]
    Tenant(String),
    /// More would be used than may be; by these Apps.
    #[error("{0}: {1} would be used, and {2} may be; Apps that grow: {3:?}")]
    Overdrawn(String, i64, i64, Vec<Uid>),
    /// More would be granted on than there is.
    #[error("{0}: {1} would be granted on, and there are {2}")]
    Overgranted(String, i64, i64),
    /// A policy is sent where no App of it stands, or taken back where it is to be.
    #[error("policy {1} in {0}: {2}")]
    Policy(String, Uid, &'static str),
    /// Clusters would let more pass together than a policy says.
    #[error("policy {0}: clusters would let {2} of rule {1} pass, and {3} may")]
    Overshared(Uid, String, i64, i64),
    /// An App is let go while a cluster that answers still holds it.
    #[error("App {0} is let go although a cluster holds an entry that is not marked as removed")]
    Released(Uid),
}

impl Finding {
    /// Whose writes it is about: some Apps', or `None` when nothing less than the whole plan.
    pub(super) fn apps(&self) -> Option<Vec<Uid>> {
        match self {
            Self::Backwards(_, uid, _)
            | Self::Vanished(_, uid)
            | Self::Unasked(_, uid)
            | Self::Forbidden(_, uid)
            | Self::Unmanaged(_, uid)
            | Self::Beside(_, uid)
            | Self::NoContent(_, uid)
            | Self::Exposed(_, uid)
            | Self::Policy(_, uid, _)
            | Self::Overshared(uid, ..)
            | Self::Released(uid) => Some(vec![uid.clone()]),
            Self::Opened(_, namespace) => Some(vec![namespace_uid(namespace)]),
            Self::Overdrawn(.., uids) => Some(uids.clone()),
            Self::Overgranted(..) | Self::Collected(_) => Some(Vec::new()),
            Self::Shape(..) | Self::OldHeader(..) | Self::Tenant(_) => None,
        }
    }
}
