//! The gate's answer: valid, or parked with a reason that names the field and the fix.

use std::sync::Arc;

use crds::Reason;

/// Why an object is parked. It hurts no other object; what was decided for it before stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// One word of the closed list.
    pub reason: Reason,
    /// Field, what is allowed, and the next step.
    pub message: String,
}

impl Parked {
    /// Parked for that reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// A valid object, or why it is not.
pub type Verdict<T> = Result<Arc<T>, Parked>;
