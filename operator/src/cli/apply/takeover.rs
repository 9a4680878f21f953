//! What `kubectl apply` set becomes ours before a file is applied: the server drops a field that a file no
//! longer has only when nobody else owns it. It is what kubectl itself does on its way to server-side apply.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::MANAGER;

/// Field manager of `kubectl apply`, unless it applies at the server.
const CLIENT_SIDE: &str = "kubectl-client-side-apply";
/// What kubectl applied last, as it notes for itself: it stays kubectl's, or the server would drop it.
const LAST_APPLIED: [&str; 3] = [
    "f:metadata",
    "f:annotations",
    "f:kubectl.kubernetes.io/last-applied-configuration",
];
/// Somebody may write in between, most often the hub's status; kubectl tries as often.
const TRIES: usize = 5;

/// Makes the fields of `kubectl apply` ours, if the object is there and has any.
pub(super) async fn take_over(api: &Api<DynamicObject>, name: &str) -> Result<(), kube::Error> {
    let mut tries = 0;
    loop {
        let meta = match api.get_metadata_opt(name).await {
            Ok(Some(found)) => found.metadata,
            Ok(None) => return Ok(()),
            // Who may not look may still apply.
            Err(kube::Error::Api(status)) if status.is_forbidden() => return Ok(()),
            Err(error) => return Err(error),
        };
        let entries = meta.managed_fields.unwrap_or_default();
        let Some(moved) = taken_over(&entries) else {
            return Ok(());
        };
        // As a value that is replaced, a version that is not the newest any more is a conflict; a test that
        // fails would be told like a patch that is wrong.
        let patch = json!([
            {"op": "replace", "path": "/metadata/managedFields", "value": moved},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": meta.resource_version},
        ]);
        let patch: json_patch::Patch =
            serde_json::from_value(patch).map_err(kube::Error::SerdeError)?;
        let params = PatchParams::default();
        let written = api.patch(name, &params, &Patch::Json::<()>(patch)).await;
        tries += 1;
        match written {
            Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The owners of fields after the move; `None` where nothing is to be moved.
fn taken_over(entries: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let is_ours = |entry: &&ManagedFieldsEntry| is(entry, MANAGER, "Apply");
    let mut ours = entries.iter().find(is_ours).cloned();
    let mut owners = Vec::new();
    let mut is_moved = false;
    for entry in entries.iter().filter(|entry| !is_ours(entry)) {
        let mut theirs = fields(entry);
        let is_noted = remove(&mut theirs, &LAST_APPLIED);
        // What the fields of one version are called says nothing in another.
        let same_version = |ours: &ManagedFieldsEntry| ours.api_version == entry.api_version;
        let fits = ours.as_ref().is_none_or(same_version);
        if !is(entry, CLIENT_SIDE, "Update") || !fits || theirs.is_empty() {
            owners.push(entry.clone());
            continue;
        }
        let mut all = ours.as_ref().map(fields).unwrap_or_default();
        unite(&mut all, theirs);
        ours = Some(ManagedFieldsEntry {
            manager: Some(MANAGER.to_owned()),
            operation: Some("Apply".to_owned()),
            fields_v1: Some(FieldsV1(Value::Object(all))),
            ..ours.unwrap_or_else(|| entry.clone())
        });
        if is_noted {
            let [metadata, annotations, note] = LAST_APPLIED;
            let note = json!({metadata: {annotations: {note: {}}}});
            owners.push(ManagedFieldsEntry {
                fields_v1: Some(FieldsV1(note)),
                ..entry.clone()
            });
        }
        is_moved = true;
    }
    owners.extend(ours);
    is_moved.then_some(owners)
}

/// Whether an entry is of that manager and operation, for the object itself.
fn is(entry: &ManagedFieldsEntry, manager: &str, operation: &str) -> bool {
    entry.manager.as_deref() == Some(manager)
        && entry.operation.as_deref() == Some(operation)
        && entry.subresource.as_deref().is_none_or(str::is_empty)
}

fn fields(entry: &ManagedFieldsEntry) -> Map<String, Value> {
    let fields = entry.fields_v1.as_ref();
    let fields = fields.and_then(|FieldsV1(fields)| fields.as_object());
    fields.cloned().unwrap_or_default()
}

/// Takes a path out of a set of fields, and says whether it was in it. A parent that was there for it
/// alone goes too: left empty it would stand for itself.
fn remove(fields: &mut Map<String, Value>, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    if rest.is_empty() {
        return fields.remove(*first).is_some();
    }
    let Some(Value::Object(below)) = fields.get_mut(*first) else {
        return false;
    };
    let is_removed = remove(below, rest);
    if is_removed && below.is_empty() {
        fields.remove(*first);
    }
    is_removed
}

/// Adds a set of fields to another. A field with nothing below it stands for itself, and one with others
/// below it does so by a dot among them.
fn unite(fields: &mut Map<String, Value>, more: Map<String, Value>) {
    for (name, below) in more {
        let both = match (fields.remove(&name), below) {
            (Some(Value::Object(mut known)), Value::Object(below)) => {
                let is_itself = known.is_empty() != below.is_empty();
                unite(&mut known, below);
                if is_itself {
                    known.insert(".".to_owned(), json!({}));
                }
                Value::Object(known)
            }
            (_, below) => below,
        };
        fields.insert(name, both);
    }
}

#[cfg(test)]
mod tests;
