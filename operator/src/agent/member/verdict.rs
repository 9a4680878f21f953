//! What the API server's refusals mean.

use crds::{ContentHash, NamespaceName, Reason};
use kube::core::Status;
use kube::core::response::StatusDetails;
use plan::object::ObjectKey;

use super::Outcome;

/// What it means that something could not be done, for no object of a namespace.
pub(super) fn failed(what: &str, error: &kube::Error) -> Outcome {
    Outcome::Failed {
        why: format!("{what}: {error}"),
        forbidden: matches!(error, kube::Error::Api(status) if status.is_forbidden()),
    }
}

/// What it means that something could not be done with an object of a namespace.
pub(super) fn undone(namespace: &NamespaceName, what: &str, error: &kube::Error) -> Outcome {
    let why = format!("{what}: {error}");
    if matches!(error, kube::Error::Api(status) if lacks_right(status)) {
        Outcome::Unbound(namespace.clone(), why)
    } else {
        Outcome::failed(why)
    }
}

/// Whether a refusal is about the agent's own rights in a namespace, in the words of the API server's
/// authorizer; those of admission and of quotas are about the object.
pub(in crate::agent) fn lacks_right(status: &Status) -> bool {
    let says = |words: &str| status.message.contains(words);
    status.is_forbidden()
        && says(" is forbidden: User ")
        && says(" cannot ")
        && says(" in the namespace ")
}

/// What a refused write means.
pub(super) fn refused(key: ObjectKey, hash: ContentHash, error: &kube::Error) -> Outcome {
    let answer = if let kube::Error::Api(status) = error {
        verdict(&key, status)
    } else {
        None
    };
    let transient = answer.is_none();
    let (reason, message) = answer.unwrap_or_else(|| (Reason::InProgress, error.to_string()));
    Outcome::Refused {
        key,
        hash,
        reason,
        message,
        transient,
    }
}

/// What an answer of the API server says about the object; `None` when it says nothing about it.
fn verdict(key: &ObjectKey, status: &Status) -> Option<(Reason, String)> {
    match status.code {
        // Somebody changed the object since it was looked at; no field is in dispute.
        409 if !disputed(status) => None,
        409 => Some((
            Reason::NotManaged,
            format!(
                "{key} was created by somebody else meanwhile: {}",
                status.message
            ),
        )),
        403 if lacks_right(status) => Some((Reason::AgentForbidden, status.message.clone())),
        403 => Some((Reason::Forbidden, status.message.clone())),
        // The namespace went away meanwhile; the watch says so, and it is made anew.
        404 if details(status).is_some_and(|d| !d.name.is_empty()) => None,
        404 => Some((Reason::CRDMissing, format!("{key}: {}", status.message))),
        400 | 413 | 415 | 422 => Some((Reason::Rejected, status.message.clone())),
        _ => None,
    }
}

fn details(status: &Status) -> Option<&StatusDetails> {
    status.details.as_ref()
}

/// Whether a conflict is about fields that somebody else owns, or about the name.
fn disputed(status: &Status) -> bool {
    let causes = details(status).map_or(&[][..], |details| &details.causes);
    status.is_already_exists() || causes.iter().any(|c| c.reason == "FieldManagerConflict")
}

#[cfg(test)]
mod tests {
    use plan::object::Kind;
    use serde_json::{Value, json};

    use super::*;

    fn answer(status: Value) -> Option<Reason> {
        let status: Status = serde_json::from_value(status).unwrap();
        let key = ObjectKey {
            kind: Kind::ConfigMap,
            namespace: "health".into(),
            name: "web".into(),
        };
        verdict(&key, &status).map(|(reason, _)| reason)
    }

    #[test]
    fn a_kind_that_is_not_served_is_told_from_a_namespace_that_is_gone() {
        let kind = json!({"code": 404, "reason": "NotFound", "message": "the server could not find the requested resource", "details": {}});
        assert_eq!(answer(kind), Some(Reason::CRDMissing));
        let namespace = json!({"code": 404, "reason": "NotFound", "message": "namespaces \"health\" not found",
            "details": {"name": "health", "kind": "namespaces"}});
        assert_eq!(answer(namespace), None, "it is tried again");
    }

    #[test]
    fn only_a_conflict_about_fields_says_that_somebody_else_owns_the_object() {
        let fields = json!({"code": 409, "reason": "Conflict", "message": "Apply failed with 1 conflict",
            "details": {"causes": [{"reason": "FieldManagerConflict", "message": "conflict", "field": ".spec.replicas"}]}});
        assert_eq!(answer(fields), Some(Reason::NotManaged));
        let version = json!({"code": 409, "reason": "Conflict", "message": "the object has been modified", "details": {"name": "web"}});
        assert_eq!(answer(version), None, "it is tried again");
    }
}
