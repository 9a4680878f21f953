//! The writes, reads and questions an agent carries out.

use std::sync::Arc;

use crds::{ContentHash, NamespaceName, Uid};
use serde_json::Value;

use super::secrets::{Deliver, Withdraw};
use crate::object::{Kind, ObjectKey};

/// One write, read or question.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Fetch content that the agent does not have.
    Fetch {
        /// Content object.
        pack: String,
        /// Content.
        hash: ContentHash,
    },
    /// Create the tenant's namespace, with the rights the agent needs in it.
    CreateNamespace {
        /// Its name.
        name: NamespaceName,
        /// Whether it was seen to be there and managed. One that was not is not taken over, even if
        /// somebody creates it meanwhile.
        exists: bool,
    },
    /// Ask whether the tenant may have objects of a kind.
    Ask(NamespaceName, Kind),
    /// Apply an object.
    Apply(Box<Apply>),
    /// Delete an object, if it is still exactly this one.
    Delete {
        /// The object.
        key: ObjectKey,
        /// Its UID.
        uid: Uid,
        /// Its version, where it is seen.
        resource_version: Option<Box<str>>,
    },
    /// Deliver a Secret that the App names.
    Deliver(Box<Deliver>),
    /// Take back a Secret that the App named.
    Withdraw(Box<Withdraw>),
    /// Have a workload try again now to make pods that were refused.
    Nudge(Box<Nudge>),
    /// Remove the marks of ownership, and nothing else.
    LetGo {
        /// The object.
        key: ObjectKey,
        /// Its UID.
        uid: Uid,
    },
}

impl Action {
    /// Whether it only looks again at what is as it should be, as far as is known.
    pub fn is_look(&self) -> bool {
        matches!(self, Self::Deliver(deliver) if deliver.again)
    }
}

/// A workload whose pods were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nudge {
    /// The workload.
    pub key: ObjectKey,
    /// UID of its App, which the objects that make its pods carry as a label.
    pub app: Uid,
}

/// An object to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Apply {
    /// The object.
    pub key: ObjectKey,
    /// How it is to be.
    pub body: Arc<Value>,
    /// Hash of that.
    pub hash: ContentHash,
    /// Whether fields that others own are taken over. Not on the first apply of an object that
    /// was not there: if somebody created one meanwhile, it is not ours.
    pub force: bool,
    /// Replicas to co-own under another manager first, when an autoscaler takes the field over.
    pub hand_over: Option<i32>,
    /// The version that was looked at, if no other is to be overwritten.
    pub resource_version: Option<Box<str>>,
    /// Whether this repairs what somebody changed.
    pub repair: bool,
}
