//! All objects of one kind, as a watch has them, behind shared pointers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

use crate::guard::compile::ObjectName;
use crate::runtime::watch::Change;

/// The objects of one kind. Clones share them.
#[derive(Debug)]
pub(super) struct Store<K>(Arc<Mutex<Objects<K>>>);

#[derive(Debug)]
struct Objects<K> {
    /// None before the first list.
    known: Option<BTreeMap<ObjectName, Arc<K>>>,
}

/// An object that cannot be read, and why.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) metadata: ObjectMeta,
    pub(super) why: String,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Objects { known: None })))
    }
}

impl<K: Resource> Store<K> {
    /// All objects; none before the first list.
    pub(super) fn all(&self) -> Option<Vec<Arc<K>>> {
        let objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = objects.known.as_ref()?;
        Some(known.values().map(Arc::clone).collect())
    }

    /// Takes in a change. Of an object that cannot be read, what was known before stands.
    pub(super) fn hear(&self, change: Change<Result<K, Box<Unreadable>>>) {
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Replaced(all) => {
                let before = objects.known.take().unwrap_or_default();
                let mut known = BTreeMap::new();
                for object in all {
                    let (name, object) = read(object, &before);
                    known.extend(object.map(|object| (name, object)));
                }
                objects.known = Some(known);
            }
            Change::Applied(object) => {
                let known = objects.known.get_or_insert_default();
                let (name, object) = read(object, known);
                known.extend(object.map(|object| (name, object)));
            }
            Change::Deleted(object) => {
                let name = match &object {
                    Ok(object) => ObjectName::of(object.meta()),
                    Err(unreadable) => ObjectName::of(&unreadable.metadata),
                };
                objects.known.get_or_insert_default().remove(&name);
            }
        }
    }
}

fn read<K: Resource>(
    object: Result<K, Box<Unreadable>>,
    before: &BTreeMap<ObjectName, Arc<K>>,
) -> (ObjectName, Option<Arc<K>>) {
    match object {
        Ok(object) => (ObjectName::of(object.meta()), Some(Arc::new(object))),
        Err(unreadable) => {
            let Unreadable { metadata, why } = *unreadable;
            let name = ObjectName::of(&metadata);
            tracing::warn!(object = %name, why, "an object cannot be read; what it was stands");
            let known = before.get(&name).map(Arc::clone);
            (name, known)
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;

    fn namespace(name: &str, label: &str) -> Namespace {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            labels: Some(BTreeMap::from([("label".into(), label.into())])),
            ..ObjectMeta::default()
        };
        Namespace {
            metadata,
            ..Namespace::default()
        }
    }

    #[test]
    fn an_object_that_cannot_be_read_stays_what_it_was() {
        let store = Store::<Namespace>::default();
        assert!(store.all().is_none());
        store.hear(Change::Replaced(vec![Ok(namespace("a", "1"))]));
        let broken = || {
            Err(Box::new(Unreadable {
                metadata: namespace("a", "2").metadata,
                why: "no such field".into(),
            }))
        };
        store.hear(Change::Applied(broken()));
        store.hear(Change::Replaced(vec![broken(), Ok(namespace("b", "1"))]));
        let all = store.all().unwrap();
        assert_eq!(*all[0], namespace("a", "1"));
        assert_eq!(all.len(), 2);
        store.hear(Change::Deleted(broken()));
        assert_eq!(store.all().unwrap().len(), 1);
    }
}
