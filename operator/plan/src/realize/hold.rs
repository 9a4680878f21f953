//! Objects whose replicas somebody holds for a while, as in an emergency.

use std::sync::Arc;

use crds::label;
use serde_json::json;

use super::{Seen, Work};
use crate::content::hash_of;
use crate::render::Rendered;

impl Work<'_> {
    /// The object with the replicas it has, while an annotation says that these are to be left
    /// alone; everything else of it is kept as decided.
    pub(super) fn hold(&mut self, object: &Rendered, seen: &Seen) -> Option<Rendered> {
        let until = seen.hold_until.filter(|until| *until > self.now)?;
        let replicas = json!(seen.replicas?);
        let wanted = object.body.pointer("/spec/replicas")?;
        if *wanted == replicas {
            return None;
        }
        self.wake(until);
        let mut body = (*object.body).clone();
        // Left out, the field would fall back to one replica where nobody else owns it.
        body["spec"]["replicas"] = replicas;
        body["metadata"]["annotations"]
            .as_object_mut()?
            .remove(label::APPLIED);
        let hash = hash_of(body.to_string().as_bytes());
        body["metadata"]["annotations"][label::APPLIED] = json!(hash);
        Some(Rendered {
            body: Arc::new(body),
            hash,
            ..object.clone()
        })
    }
}
