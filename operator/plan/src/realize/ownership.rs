//! Whose an object is, and whether a tenant may have it at all.

use crds::{Reason, ReportState, TakeOver};

use super::observed::Access;
use super::{Action, LOOK_AGAIN, Work};
use crate::object::{Kind, ObjectKey};
use crate::render::Rendered;

impl Work<'_> {
    /// Brings an object to where it is to be, if it may be there and is nobody else's.
    pub(super) fn object(&mut self, object: &Rendered) {
        let key = &object.key;
        if key.kind == Kind::Namespace {
            // That it may be used was looked at before.
            return match self.observed.objects.get(key) {
                Some(seen) => self.keep(object, seen),
                None => self.apply(object, None),
            };
        }
        if self.observed.listing.contains(&key.kind) {
            self.unsure = true;
            self.state = Some(ReportState::Progressing);
            return;
        }
        if !self.observed.kinds.contains(&key.kind) {
            return self.fail(
                Reason::CRDMissing,
                format!(
                    "the cluster does not know {}: install it there",
                    key.kind.name()
                ),
            );
        }
        if !self.may_have(key) {
            return;
        }
        let Some(seen) = self.observed.objects.get(key) else {
            return self.apply(object, None);
        };
        let (reason, message) = match &seen.owner {
            _ if self.is_ours(key, seen) => return self.keep(object, seen),
            Some(owner) if self.observed.abandoned.contains(owner) => {
                if self.entry.take_over == TakeOver::Always {
                    return self.apply(object, Some(seen));
                }
                (
                    Reason::OwnedByOther,
                    format!(
                        "{key} belongs to the App with UID {owner}, which the hub does not know: set spec.takeOver to Always, or delete the object"
                    ),
                )
            }
            Some(owner) => (
                Reason::OwnedByOther,
                format!(
                    "{key} belongs to the App with UID {owner}: rename it or take it out of one of the two"
                ),
            ),
            None if self.entry.take_over == TakeOver::Always => {
                return self.apply(object, Some(seen));
            }
            None => (
                Reason::NotManaged,
                format!(
                    "{key} exists and is not managed: rename it, delete it, or set spec.takeOver to Always"
                ),
            ),
        };
        self.wake(self.now + LOOK_AGAIN);
        self.fail(reason, message);
    }

    /// Whether the tenant may have objects of a kind, which is asked once in a while.
    fn may_have(&mut self, key: &ObjectKey) -> bool {
        let access = self.observed.access.get(&(key.namespace.clone(), key.kind));
        // What isolates a namespace is no tenant's to have.
        match access.filter(|_| !self.entry.scope.is_namespace()) {
            None if self.entry.scope.is_namespace() => {}
            None if self.observing => {}
            None => {
                self.unsure = true;
                let ask = Action::Ask(key.namespace.clone(), key.kind);
                if !self.actions.contains(&ask) {
                    self.actions.push(ask);
                }
                return false;
            }
            Some(Access::Denied) => {
                self.fail(
                    Reason::Forbidden,
                    format!("tenant {} may not have a {} in this cluster: its ServiceAccount jiuzhou-tenant needs the right", key.namespace, key.kind.name()),
                );
                return false;
            }
            Some(Access::Allowed) => {}
        }
        true
    }
}
